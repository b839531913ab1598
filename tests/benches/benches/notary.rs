//! The notary over the embedded log: events that go into trees per second, a proof's time, a whole verification.
//!
//! Wanted: a proof in 10 ms, a verification at 200,000 events a second. An event of 2 KiB is two SHA-256 of about 3 KiB
//! together (2 us with the processor's instructions) and a read; a proof is at most two blocks of 64 events, and a few
//! rows.
//!
//! `cargo bench -p cairn-benches --bench notary -- [events=200000] [header=2048] [proofs=500] [dir=DIR]`
#![allow(clippy::unwrap_used)]

use cairn_archive::{
    Incarnation, Offset, Partition, Position, SiteId,
    notary::{Checkpoint, Note},
};
use cairn_benches::{Stretch, corpus::Headers, resident_mib};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_lifecycle::{Behind, LifecycleConfig, LifecycleService, Signer, verify_log};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{clock::SystemClock, disk::RealDisk};
use cairn_service_api::Notary;
use cairn_store_api::{EventLog, Record};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const PARTITIONS: u16 = 64;
const APPENDED_AT_ONCE: u64 = 256;

fn option(name: &str, default: &str) -> String {
    let found = std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    found.unwrap_or_else(|| default.to_owned())
}

/// What a signature costs is not measured here.
struct Unsigned;

impl Signer for Unsigned {
    fn public(&self) -> [u8; 32] {
        [0; 32]
    }

    fn sign(&self, _: &[u8]) -> Vec<u8> {
        vec![0; 64]
    }
}

async fn log(directory: &Path) -> Arc<dyn EventLog> {
    let config = EventLogConfig { partitions: PARTITIONS, ..EventLogConfig::new("bench".parse().unwrap()) };
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    Arc::new(EmbeddedEventLog::open(disk, clock, directory.join("log"), config).await.unwrap())
}

async fn fill(log: &dyn EventLog, events: u64, header: usize) {
    let (headers, site): (_, SiteId) = (Headers::of_length(header), log.site().clone());
    for first in (0..events).step_by(APPENDED_AT_ONCE as usize) {
        let record = |number| headers.record(&site, number / 100, 1 + number % 100).unwrap();
        let records: Vec<Record> = (first..events.min(first + APPENDED_AT_ONCE)).map(record).collect();
        let partition = Partition((first / APPENDED_AT_ONCE % u64::from(PARTITIONS)) as u16);
        log.append(partition, records).await.unwrap();
    }
}

async fn service(directory: &Path, log: &Arc<dyn EventLog>) -> Arc<LifecycleService> {
    let clock = Arc::new(SystemClock::new());
    let volumes = VolumeConfig { volume_bytes_first: 4 << 20, ..VolumeConfig::new(directory.join("objects")) };
    let notes = EmbeddedIndexStore::open(directory.join("notes"), IndexStoreConfig::default()).await.unwrap();
    let behind = Behind {
        log: log.clone(),
        opened_log: log.clone(),
        keys: None,
        objects: Arc::new(VolumeStore::open(Arc::new(RealDisk), volumes, clock.clone()).unwrap()),
        tiers: None,
        copies: None,
        notes: Arc::new(notes),
        index: None,
        replication: None,
        reporter: None,
        clock,
        disk: Arc::new(RealDisk),
        signer: Some(Arc::new(Unsigned)),
    };
    let mut config = LifecycleConfig::default();
    // Nothing but what is measured.
    config.notary.follow_interval = Duration::from_secs(3600);
    config.fixity.retry_pause = Duration::from_secs(3600);
    LifecycleService::open(behind, config).await.unwrap()
}

async fn proofs(notary: &dyn Notary, checkpoint: &Checkpoint, count: u64) {
    let mut times = Vec::new();
    for number in 0..count {
        let partition = Partition((number * 7 % u64::from(PARTITIONS)) as u16);
        let size = checkpoint.trees[usize::from(partition.0)].size;
        let offset = Offset(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % size);
        let position = Position { site: checkpoint.site.clone(), incarnation: Incarnation(1), partition, offset };
        let begun = Instant::now();
        notary.prove_event(&position, true).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("proof of an event: p50 {:?}, p99 {:?}, at most {:?}", at(50), at(99), at(100));
}

#[tokio::main]
async fn main() {
    let number = |name, default| option(name, default).parse::<u64>().unwrap();
    let (events, header) = (number("events", "200000"), number("header", "2048") as usize);
    let temporary = tempfile::tempdir_in(option("dir", &std::env::temp_dir().display().to_string())).unwrap();
    let log = log(temporary.path()).await;
    fill(&*log, events, header).await;

    let service = service(temporary.path(), &log).await;
    let stretch = Stretch::begin();
    let first = service.notary().checkpoint(false).await.unwrap();
    let (seconds, cpu) = (stretch.seconds(), stretch.cpu_seconds());
    println!("into trees: {:.0} events/s, {:.1} us CPU each", events as f64 / seconds, cpu * 1e6 / events as f64);

    let checkpoint = Checkpoint::parse(&Note::parse(&first.document).unwrap().body).unwrap();
    proofs(&**service.notary(), &checkpoint, number("proofs", "500")).await;
    let begun = Instant::now();
    service.notary().checkpoint(false).await.unwrap();
    println!("a checkpoint of nothing new: {:?}", begun.elapsed());
    let begun = Instant::now();
    service.notary().prove_consistency(&first.document, None).await.unwrap();
    println!("proof of consistency: {:?}", begun.elapsed());
    service.close().await.unwrap();

    for at_once in [1, std::thread::available_parallelism().map_or(1, usize::from)] {
        let stretch = Stretch::begin();
        assert!(verify_log(&log, &checkpoint.trees, at_once).await.unwrap().is_empty());
        let (seconds, cpu) = (stretch.seconds(), stretch.cpu_seconds());
        let (rate, each) = (events as f64 / seconds, cpu * 1e6 / events as f64);
        println!("whole verification, {at_once} at once: {rate:.0} events/s, {each:.1} us CPU each");
    }
    println!("{:.0} MiB resident", resident_mib());
}
