use super::{Backend, open, read_all, record, records::numbers};
use bytes::Bytes;
use cairn_archive::{Envelope, EventId, Hlc, Offset, Partition};
use cairn_store_api::{EventLog, Record};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::oneshot;

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

pub(super) async fn seen_only_after_durable(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    let appending = log.clone();
    let appender = tokio::spawn(async move {
        for number in 0..10_000 {
            if appending.append(P0, vec![record(0, number, 200)]).await.is_err() {
                break;
            }
        }
    });
    let mut seen = 0;
    while seen < 300 {
        let end = log.wait_beyond(P0, Offset(seen)).await.unwrap();
        let batch = log.read(P0, Offset(seen), usize::MAX, usize::MAX).await.unwrap();
        assert!(!batch.records.is_empty() && batch.end >= end);
        seen += batch.records.len() as u64;
    }
    backend.crash().await;
    appender.abort();
    let _ = appender.await;
    drop(log);
    let log = open(backend.as_ref(), 1).await;
    assert!(log.end(P0).await.unwrap() >= Offset(seen), "what a tailer saw survives");
    assert_eq!(numbers(&read_all(log.as_ref(), P0).await[seen as usize - 1]), (0, seen - 1));
}

pub(super) async fn offsets_begin_at_0_without_gaps(backend: Backend) {
    let log = open(backend.as_ref(), 3).await;
    assert_eq!(log.end(P0).await.unwrap(), Offset(0));
    let empty = log.read(P0, Offset(0), 10, 1000).await.unwrap();
    assert_eq!((empty.records.len(), empty.end), (0, Offset(0)));
    for (partition, count, first) in [(P0, 1, 0), (P0, 3, 1), (P1, 2, 0), (P0, 1, 4), (P1, 1, 2)] {
        let records = (0..count).map(|number| record(7, number, 30)).collect();
        assert_eq!(log.append(partition, records).await.unwrap(), Offset(first));
    }
    assert_eq!((log.end(P0).await.unwrap(), log.end(P1).await.unwrap()), (Offset(5), Offset(3)));
    assert_eq!((read_all(log.as_ref(), P0).await.len(), read_all(log.as_ref(), P1).await.len()), (5, 3));
    assert_eq!(log.end(Partition(2)).await.unwrap(), Offset(0));
}

pub(super) async fn a_read_begins_at_its_offset(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    let total = fill(&log, 400).await;
    for from in (0..=total + 2).rev().step_by(7).chain([0, 1, total - 1, total]) {
        let batch = log.read(P0, Offset(from), 3, usize::MAX).await.unwrap();
        assert_eq!(batch.end, Offset(total));
        assert_eq!(batch.records.is_empty(), from >= total);
        for (index, read) in batch.records.iter().enumerate() {
            assert_eq!((read.offset.0, numbers(read).1), (from + index as u64, from + index as u64));
        }
    }
}

/// Appends to partition 0 records numbered by their offsets, among others; enough of them to take several files.
async fn fill(log: &Arc<dyn EventLog>, appends: u64) -> u64 {
    let mut next = 0;
    for append in 0..appends {
        let count = 1 + append % 5;
        log.append(P0, (next..next + count).map(|n| record(0, n, 400)).collect()).await.unwrap();
        log.append(P1, vec![record(1, append, 100 + append as usize)]).await.unwrap();
        next += count;
    }
    next
}

pub(super) async fn reads_keep_their_bounds(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    log.append(P0, (0..20).map(|number| record(0, number, 1000)).collect()).await.unwrap();
    for most in [1, 2, 19, 20, 21] {
        let batch = log.read(P0, Offset(0), most, usize::MAX).await.unwrap();
        assert!((1..=most).contains(&batch.records.len()));
    }
    let one = log.read(P0, Offset(5), 20, 1).await.unwrap();
    assert_eq!(one.records.len(), 1, "one, however small the bound");
    let some = log.read(P0, Offset(0), 20, 4500).await.unwrap();
    assert!((1..=5).contains(&some.records.len()), "no more once the bound is passed: {}", some.records.len());
    assert_eq!(log.read(P0, Offset(20), 20, 100).await.unwrap().records.len(), 0);
}

pub(super) async fn bytes_and_envelope_as_appended(backend: Backend) {
    let bare = Envelope {
        id: EventId(uuid::Uuid::from_u128(u128::MAX)),
        kind: "a.type.of.a.later.build.v12".to_owned().into(),
        site: "Other_Site-2.b".parse().unwrap(),
        study_instance_uid: "2.25.".to_owned() + &"9".repeat(59),
        tenant: "tenant with spaces".to_owned(),
        hlc: Hlc { wall_ms: u64::from(u32::MAX) * 1000, counter: u32::MAX },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    let full = Envelope {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        correlation_id: Some("018f4d2e-9c3a-7000-8000-000000000009".to_owned()),
        causation_id: Some(EventId(uuid::Uuid::nil())),
        object_keys: (0..40).map(|n| cairn_archive::ObjectKey(uuid::Uuid::from_u128(n))).collect(),
        origin: Some("other/4/63/18446744073709551615".parse().unwrap()),
        ..bare.clone()
    };
    let payloads: [Bytes; 4] = [
        Bytes::new(),
        Bytes::from_static(&[0; 4096]),
        Bytes::from_static(b"\xFF\x00\n\r"),
        record(0, 0, 65_536).payload,
    ];
    let mut records = Vec::new();
    for payload in payloads {
        records.push(Record { envelope: bare.clone(), payload: payload.clone() });
        records.push(Record { envelope: full.clone(), payload });
    }
    let log = open(backend.as_ref(), 1).await;
    log.append(P0, records.clone()).await.unwrap();
    for reopened in [false, true] {
        let log = if reopened { open(backend.as_ref(), 1).await } else { log.clone() };
        let read: Vec<Record> = read_all(log.as_ref(), P0).await.into_iter().map(|read| read.record).collect();
        assert_eq!(read, records, "reopened: {reopened}");
        log.close().await.unwrap();
    }
}

pub(super) async fn offset_at_finds_the_first_at_or_after(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    assert_eq!(log.offset_at(P0, 0).await.unwrap(), Offset(0), "an empty partition's end");
    let mut times = BTreeSet::new();
    let mut appended = 0;
    // Until some different times were seen, however fast appends are.
    while times.len() < 12 || appended < 300 {
        log.append(P0, vec![record(0, appended, 300), record(0, appended + 1, 300)]).await.unwrap();
        let last = log.read(P0, Offset(appended), 1, 1).await.unwrap();
        times.insert(last.records[0].appended_at_ms);
        appended += 2;
        assert!(appended < 1_000_000, "the log's clock stands still");
    }
    let read: Vec<u64> = read_all(log.as_ref(), P0).await.iter().map(|record| record.appended_at_ms).collect();
    assert!(read.is_sorted(), "append times never decrease");
    for reopened in [false, true] {
        let log = if reopened { open(backend.as_ref(), 2).await } else { log.clone() };
        for time in times.iter().flat_map(|time| [time - 1, *time, time + 1]).chain([0, u64::MAX]) {
            let wanted = read.iter().position(|appended| *appended >= time).unwrap_or(read.len());
            assert_eq!(log.offset_at(P0, time).await.unwrap(), Offset(wanted as u64), "at {time}");
        }
        assert_eq!(log.offset_at(P1, 0).await.unwrap(), Offset(0));
        assert_eq!(log.offset_at(P1, u64::MAX).await.unwrap(), Offset(0));
        log.close().await.unwrap();
    }
}

pub(super) async fn wait_beyond_returns_once_it_is_so(backend: Backend) {
    let log = open(backend.as_ref(), 2).await;
    let (sender, mut ended) = oneshot::channel();
    let waiting = log.clone();
    tokio::spawn(async move { sender.send(waiting.wait_beyond(P0, Offset(2)).await.unwrap()) });
    log.append(P0, vec![record(0, 0, 20), record(0, 1, 20)]).await.unwrap();
    log.append(P1, (0..9).map(|number| record(1, number, 20)).collect()).await.unwrap();
    assert_eq!(log.wait_beyond(P0, Offset(1)).await.unwrap(), Offset(2), "it is so already");
    // The end is 2, which is not past 2.
    assert!(ended.try_recv().is_err(), "not before");
    log.append(P0, vec![record(0, 2, 20)]).await.unwrap();
    assert_eq!(ended.await.unwrap(), Offset(3));
}

pub(super) async fn a_dropped_wait_has_no_effect(backend: Backend) {
    let log = open(backend.as_ref(), 1).await;
    for number in 0..50 {
        let wait = log.wait_beyond(P0, Offset(number));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, wait).await.is_err());
        assert_eq!(log.append(P0, vec![record(0, number, 20)]).await.unwrap(), Offset(number));
        assert_eq!(log.wait_beyond(P0, Offset(number)).await.unwrap(), Offset(number + 1));
    }
}
