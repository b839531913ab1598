//! Measures a log in a directory: `cargo run --release -p cairn-event-log-embedded --example measure_log -- DIR`.
//!
//! Budget: an append alone costs a sync and two thread switches; many callers share syncs, so that the disk's bandwidth
//! and 2 copies and a checksum of each byte are the bound; a read costs one pread, a checksum and five allocations a record.

#![allow(clippy::unwrap_used, missing_docs)]

use cairn_archive::{Envelope, EventId, Hlc, Offset, Partition};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_process::{
    clock::SystemClock,
    disk::{Disk, RealDisk},
};
use cairn_store_api::{EventLog, Record};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).expect("a directory"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if std::env::args().nth(2).as_deref() == Some("reopen") {
        return runtime.block_on(reopen(&dir));
    }
    sync_alone(&dir, 8 << 10);
    sync_alone(&dir, 512 << 10);
    runtime.block_on(async {
        let log = open(&dir).await;
        for (callers, bytes, records) in [
            (1, 2 << 10, 1),
            (1, 8 << 10, 1),
            (8, 2 << 10, 1),
            (8, 8 << 10, 1),
            (64, 2 << 10, 1),
            (64, 8 << 10, 1),
            (256, 8 << 10, 1),
            (8, 2 << 10, 64),
        ] {
            appends(&log, callers, bytes, records).await;
        }
        log.close().await.unwrap();
    });
    runtime.block_on(rebuild(&dir));
}

async fn open(dir: &Path) -> Arc<EmbeddedEventLog> {
    let config = EventLogConfig::new("main".parse().unwrap());
    Arc::new(
        EmbeddedEventLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.join("log"), config)
            .await
            .unwrap(),
    )
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    format!("p50 {} us, p99 {} us, max {} us", at(0.5), at(0.99), at(1.0))
}

/// What the disk takes for a write and a sync in a prewritten file.
fn sync_alone(dir: &Path, bytes: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("sync-alone");
    let file = RealDisk.create_new(&path).unwrap();
    file.preallocate(16 << 20).unwrap();
    file.sync_data().unwrap();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(2) {
        let at = (times.len() * bytes) as u64 % (16 << 20);
        let start = Instant::now();
        file.write_all_at(&vec![7; bytes], at).unwrap();
        file.sync_data().unwrap();
        times.push(start.elapsed());
    }
    println!("write and sync of {bytes} B: {}/s, {}", times.len() / 2, percentiles(times));
    RealDisk.remove(&path).unwrap();
}

fn record(number: u64, bytes: usize) -> Record {
    let envelope = Envelope {
        id: EventId(uuid::Uuid::from_u128(u128::from(number))),
        kind: "cairn.instance.stored.v1".into(),
        site: "main".parse().unwrap(),
        study_instance_uid: format!("1.2.840.113619.2.55.3.2831868886.{number}"),
        tenant: "default".to_owned(),
        hlc: Hlc { wall_ms: 1_767_225_600_000, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: vec![cairn_archive::ObjectKey(uuid::Uuid::from_u128(u128::from(number)))],
        origin: None,
    };
    Record { envelope, payload: vec![number as u8; bytes].into() }
}

async fn appends(log: &Arc<EmbeddedEventLog>, callers: u64, bytes: usize, records: u64) {
    let until = Instant::now() + Duration::from_secs(4);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let number = times.len() as u64 * callers + caller;
                    let records = (0..records).map(|n| record(number + n, bytes)).collect();
                    let start = Instant::now();
                    log.append(Partition((number % 64) as u16), records).await.unwrap();
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let rate = times.len() as u64 * records / 4;
    println!("{callers} callers, {records} x {bytes} B: {rate} events/s, {}", percentiles(times));
}

/// Half a million events of 2 kB, then read as a rebuild does.
async fn rebuild(dir: &Path) {
    let dir = dir.join("rebuild");
    let log = open(&dir).await;
    let start = Instant::now();
    let total = 512_000_u64;
    for batch in 0..total / 256 {
        let appends = (0..16).map(|caller| {
            let first = (batch * 16 + caller) * 16;
            // Consecutive events of one study, as a modality sends them.
            let records = (0..16).map(|n| record(first + n, 1800)).collect();
            let log = log.clone();
            tokio::spawn(async move { log.append(Partition(((first / 16 * 7) % 64) as u16), records).await.unwrap() })
        });
        for append in appends.collect::<Vec<_>>() {
            append.await.unwrap();
        }
    }
    println!("{total} events of 2 kB by 16 x 16: {:.0} events/s", total as f64 / start.elapsed().as_secs_f64());
    log.close().await.unwrap();
    drop(log);
    reopen(&dir.join("..").join("rebuild")).await;
}

async fn reopen(dir: &Path) {
    println!("before opening: {}", memory());
    let start = Instant::now();
    let log = open(dir).await;
    println!("opened in {:?}: {:?}; {}", start.elapsed(), log.recovery(), memory());
    for pass in 0..3 {
        let start = Instant::now();
        let mut events = 0_u64;
        for partition in (0..64).map(Partition) {
            let mut from = Offset(0);
            loop {
                let batch = log.read(partition, from, 512, 1 << 20).await.unwrap();
                let Some(last) = batch.records.last() else { break };
                from = last.offset.next();
                events += batch.records.len() as u64;
            }
        }
        println!("pass {pass}: {events} events, {:.0} events/s", events as f64 / start.elapsed().as_secs_f64());
    }
    println!("after reading: {}", memory());
    let start = Instant::now();
    for _ in 0..10_000 {
        let end = log.end(Partition(7)).await.unwrap();
        log.read(Partition(7), Offset(end.0 - 1), 1, 1).await.unwrap();
    }
    println!("read of the last record: {:?}", start.elapsed() / 10_000);
    log.close().await.unwrap();
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}
