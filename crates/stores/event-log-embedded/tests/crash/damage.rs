//! A log that was cut or changed at any byte gives nothing wrong, and does not keep silent about what it lost.

use crate::work::{DIR, USED, block_on, open, payload_length, read_all, run_rounds};
use cairn_archive::Partition;
use cairn_conformance::event_log::record;
use cairn_process::disk::{
    Disk,
    sim::{Loss, SimDisk},
};
use cairn_store_api::{EventLog, StoreErrorKind};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What is readable of each partition, and whether it ended with `Corrupt`.
struct Found {
    records: Vec<Vec<u64>>,
    corrupt: bool,
    damage: bool,
}

fn look(disk: &SimDisk) -> Found {
    let log = open(disk).expect("also a damaged log opens");
    let mut found = Found { records: Vec::new(), corrupt: false, damage: log.recovery().damage.is_some() };
    for partition in (0..USED).map(Partition) {
        let (records, error) = block_on(read_all(&log, partition));
        found.records.push(records.into_iter().map(|(_, number)| number).collect());
        if let Some(error) = error {
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
            found.corrupt = true;
        }
    }
    let appended = block_on(log.append(Partition(0), vec![record(0, 9_999_999, 50)]));
    assert_eq!(appended.err().map(|error| error.kind()), found.damage.then_some(StoreErrorKind::Corrupt));
    found
}

fn files(disk: &SimDisk, suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut names = disk.list(Path::new(DIR)).expect("listed");
    names.retain(|name| name.ends_with(suffix));
    names.sort_unstable();
    let read = |name: String| {
        let path = Path::new(DIR).join(name);
        let file = disk.open(&path).expect("opened");
        let mut bytes = vec![0; file.len().expect("length") as usize];
        file.read_exact_at(&mut bytes, 0).expect("read");
        (path, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Every byte where something begins or ends, and others between.
fn positions(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(|at| *at < 160 || at % 61 == 0 || at % 512 == 0)
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash(disk.operations(), Loss::Nothing)
}

#[test]
fn a_log_cut_at_any_byte_gives_what_stands_before_and_nothing_wrong() {
    let disk = SimDisk::new();
    run_rounds(&disk, 14);
    let whole = look(&copy(&disk)).records;
    let segments = files(&disk, ".segment");
    // In which segment each record stands, and where it ends there.
    let mut ends = BTreeMap::new();
    for number in whole.iter().flatten() {
        let payload = record(0, *number, payload_length(*number)).payload;
        let found = segments.iter().enumerate().find_map(|(segment, (_, bytes))| {
            let at = bytes.windows(payload.len()).position(|window| window == payload)?;
            Some((segment, at + payload.len()))
        });
        ends.insert(*number, found.expect("stands somewhere"));
    }
    for (segment, (path, bytes)) in segments.iter().enumerate() {
        for cut in positions(bytes.len()) {
            let disk = copy(&disk);
            disk.open(path).expect("opened").set_len(cut as u64).expect("cut");
            let found = look(&disk);
            for (records, whole) in found.records.iter().zip(&whole) {
                assert!(whole.starts_with(records), "{path:?} cut at {cut}");
                let before = whole.iter().take_while(|number| ends[number] <= (segment, cut)).count();
                assert!(records.len() >= before, "{path:?} cut at {cut}: {} of {before} are readable", records.len());
                let all = records.len() == whole.len();
                assert!(all || found.corrupt, "{path:?} cut at {cut}: records are lost in silence");
            }
        }
    }
}

#[test]
fn a_changed_byte_is_never_given_and_never_passed_over_in_silence() {
    let disk = SimDisk::new();
    run_rounds(&disk, 14);
    let whole = look(&copy(&disk)).records;
    for (path, bytes) in files(&disk, ".segment") {
        for at in positions(bytes.len()) {
            let disk = copy(&disk);
            disk.damage(&path, at as u64, &[bytes[at] ^ 0x10]).expect("damaged");
            let found = look(&disk);
            for (partition, records) in found.records.iter().enumerate() {
                assert!(whole[partition].starts_with(records), "{path:?} changed at {at}");
                let all = records.len() == whole[partition].len();
                assert!(all || found.corrupt, "{path:?} changed at {at}: records are lost in silence");
            }
        }
    }
}

#[test]
fn a_damaged_or_missing_index_is_made_anew() {
    let disk = SimDisk::new();
    run_rounds(&disk, 14);
    let whole = look(&copy(&disk)).records;
    let indexes = files(&disk, ".index");
    assert!(indexes.len() > 1);
    for (path, bytes) in indexes {
        for at in positions(bytes.len()) {
            let disk = copy(&disk);
            disk.damage(&path, at as u64, &[!bytes[at]]).expect("damaged");
            let found = look(&disk);
            assert_eq!((found.records, found.corrupt, found.damage), (whole.clone(), false, false), "{path:?} {at}");
        }
        let disk = copy(&disk);
        disk.remove(&path).expect("removed");
        let found = look(&disk);
        assert_eq!((found.records, found.corrupt, found.damage), (whole.clone(), false, false), "{path:?} missing");
    }
}
