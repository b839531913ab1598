//! Measures a store in a directory: `cargo run --release -p cairn-index-store-embedded --example measure_index -- DIR [ROWS TO ADD]`.
//!
//! Budget: a commit costs a journal write and one insertion into the memtable a row; a row gets written about five times
//! until it rests; a get costs a block or two from the page cache; a scan costs one seek and a copy of each row.

#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Mutation, Table};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const G: Generation = Generation(1);
const STUDIES: Table = Table { id: 1, name: "studies" };
const DATES: Table = Table { id: 2, name: "dates" };

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).expect("a directory"));
    let rows: u64 = std::env::args().nth(2).map_or(10_000_000, |rows| rows.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if rows > 0 {
            fill(&dir, rows).await;
        }
        read(&dir).await;
    });
}

async fn open(dir: &Path) -> EmbeddedIndexStore {
    EmbeddedIndexStore::open(dir.join("index"), IndexStoreConfig::default()).await.unwrap()
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn study(number: u64) -> String {
    format!("1.2.840.113619.2.{}", mix(number))
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Commits so far.
async fn committed(store: &EmbeddedIndexStore) -> u64 {
    store.offsets(G).await.unwrap().first().map_or(0, |(_, _, offset, _)| offset.0)
}

/// Adds rows: half of them are of 600 bytes under keys of their own, half of 40 bytes under a few thousand partition keys.
async fn fill(dir: &Path, rows: u64) {
    let store = open(dir).await;
    let (start, cpu_before) = (Instant::now(), cpu());
    let mut slowest = Duration::ZERO;
    let per_commit = 256;
    let begun = committed(&store).await;
    for number in begun..begun + rows / per_commit {
        let mutations = (0..per_commit / 2).flat_map(|n| {
            let n = number * per_commit / 2 + n;
            let uid = Bytes::from(study(n));
            let date = Bytes::from(format!("{:08}", 20_000_101 + mix(n) % 4000));
            let value: Bytes = mix(n).to_le_bytes().repeat(75).into();
            [
                Mutation::Put { table: STUDIES, pk: uid.clone(), ck: Bytes::new(), value },
                Mutation::Put { table: DATES, pk: date, ck: uid, value: Bytes::from_static(&[7; 40]) },
            ]
        });
        let commit = Commit {
            incarnation: Incarnation(1),
            partition: Partition(0),
            from: Offset(number),
            to: Offset(number + 1),
            note: Bytes::new(),
            mutations: mutations.collect(),
            purge: false,
        };
        let begun = Instant::now();
        store.commit(G, commit).await.unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    let took = start.elapsed();
    println!(
        "{rows} rows by {per_commit}: {:.0} rows/s, slowest commit {slowest:?}, cpu {:?} of {took:?}",
        rows as f64 / took.as_secs_f64(),
        cpu() - cpu_before
    );
    println!("after filling: {}", memory());
    let start = Instant::now();
    store.sync(true).await.unwrap();
    println!("closed in {:?}", start.elapsed());
}

async fn read(dir: &Path) {
    println!("before opening: {}", memory());
    let start = Instant::now();
    let store = open(dir).await;
    println!("opened in {:?}: {}", start.elapsed(), memory());
    let studies = committed(&store).await * 128;
    println!("{} rows", studies * 2);
    for pass in 0..2 {
        let (start, mut times) = (Instant::now(), Vec::new());
        for n in 0..100_000 {
            let begun = Instant::now();
            let value = store.get(G, STUDIES, study(mix(n + pass) % studies).as_bytes(), b"").await.unwrap();
            assert!(value.is_some());
            times.push(begun.elapsed());
        }
        println!("gets: {:.0}/s, {}", 100_000.0 / start.elapsed().as_secs_f64(), percentiles(times));
    }
    let (start, mut times) = (Instant::now(), Vec::new());
    for n in 0..20_000 {
        let begun = Instant::now();
        let date = format!("{:08}", 20_000_101 + mix(n) % 4000);
        let page = store.scan(G, DATES, date.as_bytes(), &CkRange::default(), n % 2 == 0, 1).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        times.push(begun.elapsed());
    }
    println!("first row of a scan: {:.0}/s, {}", 20_000.0 / start.elapsed().as_secs_f64(), percentiles(times));
    let (start, mut scanned) = (Instant::now(), 0);
    for n in 0..400 {
        let date = format!("{:08}", 20_000_101 + n);
        scanned +=
            store.scan(G, DATES, date.as_bytes(), &CkRange::default(), false, usize::MAX).await.unwrap().rows.len();
    }
    println!("scans: {scanned} rows, {:.0} rows/s", scanned as f64 / start.elapsed().as_secs_f64());
    println!("after reading: {}", memory());
    let start = Instant::now();
    store.sync(true).await.unwrap();
    println!("closed in {:?}", start.elapsed());
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0))
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}
