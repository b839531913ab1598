use super::{Backend, open, read_all, record, records::numbers};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{EventLog, LogRecord, StoreError, StoreErrorKind};

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

/// Reads as far as it goes, and why it ends.
async fn read_until_error(log: &dyn EventLog, partition: Partition) -> (Vec<LogRecord>, Option<StoreError>) {
    let mut all: Vec<LogRecord> = Vec::new();
    loop {
        match log.read(partition, Offset(all.len() as u64), 16, usize::MAX).await {
            Ok(batch) if batch.records.is_empty() => return (all, None),
            Ok(batch) => all.extend(batch.records),
            Err(error) => return (all, Some(error)),
        }
    }
}

async fn check_damaged(log: &dyn EventLog, damaged: u64, total: u64) {
    let (read, error) = read_until_error(log, P0).await;
    assert_eq!(error.map(|error| error.kind()), Some(StoreErrorKind::Corrupt));
    assert_eq!(read.len() as u64, damaged, "what stands before the damage is given, nothing else");
    read.iter().enumerate().for_each(|(index, read)| assert_eq!(numbers(read), (0, index as u64)));
    for from in damaged..total {
        let refused = log.read(P0, Offset(from), 1, 1).await;
        assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Corrupt, "none from there on: {from}");
    }
}

pub(super) async fn damage_is_corrupt_and_ends_reading(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    for number in 0..40 {
        log.append(P0, vec![record(0, number, 300)]).await.unwrap();
        log.append(P1, vec![record(1, number, 300)]).await.unwrap();
    }
    assert_eq!(read_all(log.as_ref(), P0).await.len(), 40);
    backend.damage(&record(0, 17, 300).payload).await;
    check_damaged(log.as_ref(), 17, 40).await;
    assert_eq!(read_all(log.as_ref(), P1).await.len(), 40, "other partitions are not touched");
}

pub(super) async fn damage_is_found_after_reopening(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    for number in 0..40 {
        log.append(P0, vec![record(0, number, 300)]).await.unwrap();
    }
    log.close().await.unwrap();
    drop(log);
    // The last one: also it must not pass for an unfinished tail.
    backend.damage(&record(0, 39, 300).payload).await;
    let log = open(backend.as_ref(), 2).await;
    check_damaged(log.as_ref(), 39, 40).await;
}

pub(super) async fn a_full_disk_refuses_and_recovers(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    let mut number = 0;
    backend.fill(true).await;
    let error = loop {
        match log.append(P0, (number..number + 3).map(|n| record(0, n, 600)).collect()).await {
            Ok(first) => assert_eq!(first, Offset(number)),
            Err(error) => break error,
        }
        number += 3;
        assert!(number < 1_000_000, "the disk does not get full");
    };
    assert_eq!(error.kind(), StoreErrorKind::Exhausted, "{error}");
    assert_eq!(
        read_all(log.as_ref(), P0).await.len() as u64,
        number,
        "what was durable stays readable, nothing is added"
    );
    let refused = log.append(P1, (0..3).map(|n| record(1, n, 60_000)).collect()).await;
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Exhausted);
    backend.fill(false).await;
    for caller in 0..200 {
        let first = log.append(P0, (number..number + 3).map(|n| record(0, n, 600)).collect()).await.unwrap();
        assert_eq!(first, Offset(number), "appends go on: {caller}");
        number += 3;
    }
    log.close().await.unwrap();
    drop(log);
    let log = open(backend.as_ref(), 2).await;
    let read = read_all(log.as_ref(), P0).await;
    assert_eq!(read.iter().map(numbers).collect::<Vec<_>>(), (0..number).map(|n| (0, n)).collect::<Vec<_>>());
}
