//! A process that dies, or a sync that fails, leaves bytes in memory that are readable and not durable; after a failed
//! sync a further one would not write them either.

use crate::{
    explore::{Check, readable, stays_readable},
    work::{self, USED, block_on},
};
use cairn_archive::{Offset, Partition};
use cairn_conformance::event_log::record;
use cairn_process::disk::sim::{Event, SimDisk, Verdict};
use cairn_store_api::{EventLog, StoreErrorKind};
use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Appends until the sync of this number fails; the log is then dropped as a dying process leaves it.
fn append_until_failed_sync(disk: &SimDisk, failing: usize) {
    let syncs = AtomicUsize::new(0);
    disk.set_hook(move |event| match event {
        Event::SyncData(path) if path.extension().is_some_and(|extension| extension == "segment") => {
            let fails = syncs.fetch_add(1, Ordering::Relaxed) == failing;
            if fails { Verdict::Fail(ErrorKind::Other) } else { Verdict::Proceed }
        }
        _ => Verdict::Proceed,
    });
    let Ok(log) = work::open(disk) else {
        disk.clear_hook();
        return; // The sync was one of the opening.
    };
    for number in 0..60 {
        let partition = Partition((number % u64::from(USED)) as u16);
        match block_on(log.append(partition, vec![record(0, number, 700)])) {
            Ok(offset) => assert_eq!(offset, Offset(number / u64::from(USED))),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
                break;
            }
        }
    }
    // A sync of the next segment's preparation may be the one, which is made anew.
    let refused = block_on(log.append(Partition(0), vec![record(0, 1000, 700)]));
    if let Err(error) = refused {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "appends are refused from then on: {error}");
    }
    for partition in (0..USED).map(Partition) {
        let (records, error) = block_on(work::read_all(&log, partition));
        assert!(error.is_none(), "reads go on");
        assert_eq!(
            Offset(records.len() as u64),
            block_on(log.end(partition)).expect("end"),
            "the failed one is not shown"
        );
    }
    drop(log);
    disk.clear_hook();
}

fn recover_with(hook: fn(Event<'_>, usize) -> Verdict) -> Vec<Check> {
    let mut broken = Vec::new();
    for failing in 0..40 {
        let disk = SimDisk::new();
        append_until_failed_sync(&disk, failing);
        let count = Arc::new(AtomicUsize::new(0));
        disk.set_hook(move |event| {
            let of_segment = matches!(event, Event::SyncData(path) | Event::Write(path)
                if path.extension().is_some_and(|extension| extension == "segment"));
            if of_segment { hook(event, count.fetch_add(1, Ordering::Relaxed)) } else { Verdict::Proceed }
        });
        let found = readable(&disk).and_then(|before| {
            disk.clear_hook();
            stays_readable(&disk, &before)
        });
        broken.extend(found.err().map(|(check, _)| check));
    }
    broken
}

#[test]
fn what_a_recovery_shows_is_durable_though_a_sync_had_failed() {
    assert_eq!(recover_with(|_, _| Verdict::Proceed), []);
}

#[test]
fn for_that_recovery_must_write_again() {
    let broken = recover_with(|event, _| match event {
        Event::Write(_) => Verdict::Pretend,
        _ => Verdict::Proceed,
    });
    assert!(broken.contains(&Check::ReadableStays), "{broken:?}");
}

#[test]
fn for_that_recovery_must_sync() {
    let broken = recover_with(|event, _| match event {
        Event::SyncData(_) => Verdict::Pretend,
        _ => Verdict::Proceed,
    });
    assert!(broken.contains(&Check::ReadableStays), "{broken:?}");
}
