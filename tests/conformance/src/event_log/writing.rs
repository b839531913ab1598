use super::{Backend, open, read_all, record, records::numbers, site};
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{EventLog, StoreErrorKind};
use std::{collections::BTreeMap, sync::Arc};

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

/// Many callers append at once to a few partitions; gives what each was told: (partition, first offset, caller, number, count).
async fn storm(log: &Arc<dyn EventLog>, callers: u64, appends: u64) -> Vec<(Partition, Offset, u64, u64, u64)> {
    let tasks = (0..callers).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut told = Vec::new();
            let mut number = 0;
            for append in 0..appends {
                let partition = Partition(((caller + append) % 3) as u16);
                let count = 1 + (caller + append) % 4;
                let records =
                    (number..number + count).map(|n| record(caller, n, 16 + (n as usize * 37) % 700)).collect();
                match log.append(partition, records).await {
                    Ok(first) => told.push((partition, first, caller, number, count)),
                    Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}"),
                }
                number += count;
            }
            told
        })
    });
    let mut told = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        told.extend(task.await.unwrap());
    }
    told
}

/// What was acknowledged stands where it was said to.
async fn check_told(log: &dyn EventLog, told: &[(Partition, Offset, u64, u64, u64)]) {
    let mut all = BTreeMap::new();
    for partition in (0..3).map(Partition) {
        all.insert(partition, read_all(log, partition).await);
    }
    for (partition, first, caller, number, count) in told {
        for index in 0..*count {
            let read = &all[partition][(first.0 + index) as usize];
            assert_eq!(numbers(read), (*caller, number + index));
        }
    }
}

pub(super) async fn acknowledged_records_survive_a_crash(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    let told = storm(&log, 8, 40).await;
    assert_eq!(told.len(), 320);
    drop(log);
    backend.crash().await;
    let log = open(backend.as_ref(), 3).await;
    check_told(log.as_ref(), &told).await;
    let more = storm(&log, 8, 10).await;
    assert_eq!(more.len(), 80, "appends go on");
    check_told(log.as_ref(), &told).await;
    check_told(log.as_ref(), &more).await;
}

pub(super) async fn acknowledged_records_survive_closing(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    let told = storm(&log, 4, 40).await;
    log.close().await.unwrap();
    drop(log);
    let log = open(backend.as_ref(), 3).await;
    check_told(log.as_ref(), &told).await;
    let mut ends = 0;
    for partition in (0..3).map(Partition) {
        ends += log.end(partition).await.unwrap().0;
    }
    assert_eq!(ends, told.iter().map(|(.., count)| count).sum::<u64>(), "nothing was added");
}

pub(super) async fn ordered_within_partition(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    for number in 0..50 {
        log.append(P0, vec![record(0, number, 100)]).await.unwrap();
        log.append(P1, vec![record(1, number, 100)]).await.unwrap();
    }
    for (partition, caller) in [(P0, 0), (P1, 1)] {
        let read: Vec<_> = read_all(log.as_ref(), partition).await.iter().map(numbers).collect();
        assert_eq!(read, (0..50).map(|number| (caller, number)).collect::<Vec<_>>());
    }
    // Callers at once: each one's own order holds.
    storm(&log, 6, 1).await;
    let told = storm(&log, 6, 20).await;
    for window in told.windows(2).filter(|pair| pair[0].2 == pair[1].2 && pair[0].0 == pair[1].0) {
        assert!(window[0].1 < window[1].1, "one caller's appends are in its order");
    }
}

pub(super) async fn records_of_one_append_are_adjacent(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    let callers = (0..8).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            for append in 0..10 {
                let records = (0..9).map(|n| record(caller, append * 9 + n, 50)).collect();
                let first = log.append(P0, records).await.unwrap();
                let batch = log.read(P0, first, 9, usize::MAX).await.unwrap();
                let numbers: Vec<_> = batch.records.iter().map(numbers).collect();
                let wanted: Vec<_> = (0..9).map(|n| (caller, append * 9 + n)).collect();
                assert_eq!(numbers, wanted[..numbers.len()], "adjacent and in order");
            }
        })
    });
    for task in callers.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let all: Vec<_> = read_all(log.as_ref(), P0).await.iter().map(numbers).collect();
    assert_eq!(all.len(), 8 * 10 * 9);
    for append in all.chunks(9) {
        let (caller, first) = append[0];
        assert_eq!(append, (0..9).map(|n| (caller, first + n)).collect::<Vec<_>>());
    }
}

pub(super) async fn an_append_cut_by_a_crash_is_a_prefix(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    let callers = (0..6).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut acknowledged = 0;
            for append in 0..1_000 {
                let records = (0..5).map(|n| record(caller, append * 5 + n, 300)).collect();
                match log.append(P0, records).await {
                    Ok(_) => acknowledged = (append + 1) * 5,
                    Err(_) => break,
                }
            }
            acknowledged
        })
    });
    let callers: Vec<_> = callers.collect();
    log.wait_beyond(P0, Offset(200)).await.unwrap();
    backend.crash().await;
    callers.iter().for_each(|caller| caller.abort());
    let mut acknowledged = Vec::new();
    for caller in callers {
        // What an aborted caller was told is not known here; nothing is asked for it.
        acknowledged.push(caller.await.unwrap_or(0));
    }
    drop(log);
    let log = open(backend.as_ref(), 1).await;
    let mut next = [0; 6];
    let mut last = None;
    for read in read_all(log.as_ref(), P0).await {
        let (caller, number) = numbers(&read);
        assert_eq!(next[caller as usize], number, "each append is whole or a prefix, in order");
        if let Some((before, ended)) = last.filter(|(before, _)| *before != caller) {
            assert!(ended % 5 == 4, "caller {before}'s append is torn");
        }
        next[caller as usize] = number + 1;
        last = Some((caller, number));
    }
    assert!(next.iter().sum::<u64>() > 200, "what a tailer saw is there");
}

pub(super) async fn refusals_change_nothing(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    let long = record(0, 1, backend.record_bytes_max() + 1);
    let refused = log.append(P0, vec![record(0, 0, 20), long, record(0, 2, 20)]).await;
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Invalid);
    assert_eq!(log.end(P0).await.unwrap(), Offset(0));
    let absent = Partition(2);
    assert_eq!(log.append(absent, vec![record(0, 0, 20)]).await.unwrap_err().kind(), StoreErrorKind::Invalid);
    assert_eq!(log.read(absent, Offset(0), 1, 1).await.unwrap_err().kind(), StoreErrorKind::Invalid);
    assert_eq!(log.end(absent).await.unwrap_err().kind(), StoreErrorKind::Invalid);
    // One that is near the bound is taken.
    let near = record(0, 3, backend.record_bytes_max() - 1024);
    assert_eq!(log.append(P0, vec![near]).await.unwrap(), Offset(0));
    assert_eq!(log.append(P0, Vec::new()).await.unwrap(), Offset(1), "no records: nothing happens");
    assert_eq!(log.end(P0).await.unwrap(), Offset(1));
}

pub(super) async fn callers_do_not_harm_each_other(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    let long = backend.record_bytes_max() + 1;
    let bad = log.clone();
    let bad = tokio::spawn(async move {
        for number in 0..50 {
            let refused = bad.append(P0, vec![record(99, number, long)]).await;
            assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Invalid);
        }
    });
    // One that goes away while it waits.
    for number in 0..20 {
        let gone = log.append(P1, vec![record(98, number, 20)]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(number * 20), gone).await;
    }
    let told = storm(&log, 16, 20).await;
    bad.await.unwrap();
    assert_eq!(told.len(), 16 * 20, "all others were served");
    check_told(log.as_ref(), &told).await;
}

pub(super) async fn reopened_it_is_what_it_was(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    assert_eq!((log.site(), log.incarnation(), log.partitions()), (&site(), Incarnation(3), 3));
    log.append(P1, vec![record(0, 0, 20)]).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let other = "other".parse().unwrap();
    let wrong = [backend.open(&site(), Incarnation(3), 4).await, backend.open(&other, Incarnation(3), 3).await];
    for refused in wrong {
        assert_eq!(refused.err().map(|error| error.kind()), Some(StoreErrorKind::Invalid));
    }
    // The incarnation that an opener would give a new log does not change one that is there.
    let log = backend.open(&site(), Incarnation(9), 3).await.unwrap();
    assert_eq!((log.site(), log.incarnation(), log.partitions()), (&site(), Incarnation(3), 3));
    assert_eq!(read_all(log.as_ref(), P1).await.len(), 1);
}

pub(super) async fn a_second_opening_is_a_conflict(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    let second = backend.open(&site(), Incarnation(3), 1).await;
    assert_eq!(second.err().map(|error| error.kind()), Some(StoreErrorKind::Conflict));
    log.append(P0, vec![record(0, 0, 20)]).await.unwrap();
    log.close().await.unwrap();
    let second = open(backend.as_ref(), 1).await;
    assert_eq!(read_all(second.as_ref(), P0).await.len(), 1);
}

pub(super) async fn closed_it_refuses(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    let waiting = log.clone();
    let waiting = tokio::spawn(async move { waiting.wait_beyond(P0, Offset(7)).await });
    let told = storm_one(&log).await;
    log.close().await.unwrap();
    log.close().await.unwrap();
    let refused = log.append(P0, vec![record(0, 0, 20)]).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), StoreErrorKind::Unavailable);
    drop(log);
    let log = open(backend.as_ref(), 1).await;
    assert_eq!(log.end(P0).await.unwrap(), Offset(told), "the refused one left nothing");
}

async fn storm_one(log: &Arc<dyn EventLog>) -> u64 {
    for number in 0..5 {
        log.append(P0, vec![record(0, number, 20)]).await.unwrap();
    }
    5
}
