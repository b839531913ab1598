//! The object store of volume files by itself: objects and bytes per second, processor time per object.
//!
//! `cargo bench -p cairn-benches --bench volumes -- [seconds=3] [prewrite=2] [dir=DIR] [direct=1] [many=0]`: seconds per
//! line, GiB written ahead before each, where, whether past the page cache, and how many objects of 100 bytes to fill an
//! archive with for the cost of its index.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_benches::{Stretch, noise, resident_mib};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{clock::SystemClock, disk::RealDisk};
use cairn_store_api::{ObjectRef, ObjectStore};
use futures_util::{StreamExt, future::join_all};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

const CT: usize = 526_000;
/// As a network hands them over.
const PIECE: usize = 64 * 1024;

fn option(name: &str, default: &str) -> String {
    let found = std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    found.unwrap_or_else(|| default.to_owned())
}

fn open(directory: &Path, prewrite: u64) -> Arc<VolumeStore> {
    let config = VolumeConfig {
        prewrite_bytes_min: prewrite,
        prewrite_bytes_max: prewrite,
        prewrite_free_share: 4,
        direct_writes: option("direct", "1") == "1",
        early_writeback: option("writeback", "1") == "1",
        ..VolumeConfig::new(directory)
    };
    Arc::new(VolumeStore::open(Arc::new(RealDisk), config, Arc::new(SystemClock::new())).unwrap())
}

async fn put(store: &VolumeStore, content: &Bytes) -> ObjectRef {
    let mut writer = store.put(ObjectKey(Uuid::now_v7()), None).await.unwrap();
    let mut at = 0;
    while at < content.len() {
        let end = content.len().min(at + PIECE);
        writer.write(content.slice(at..end)).await.unwrap();
        at = end;
    }
    writer.finish().await.unwrap().object
}

async fn read(store: &VolumeStore, object: &ObjectRef, range: std::ops::Range<u64>) -> usize {
    let mut stream = store.read(object, range).await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        bytes += chunk.unwrap().len();
    }
    bytes
}

fn used_on_disk(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Waits until the store has written ahead what it was told to, or stopped for lack of room.
async fn written_ahead(directory: &Path, bytes: u64) {
    let (mut before, mut still) = (0, 0);
    while still < 20 && used_on_disk(directory) < bytes {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = used_on_disk(directory);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

async fn store_line(parent: &Path, length: usize, streams: usize, seconds: f64, ahead: u64) {
    let directory = parent.join(format!("{length}-{streams}"));
    let store = open(&directory, ahead);
    written_ahead(&directory, ahead).await;
    let content = noise(length);
    let stretch = Stretch::begin();
    let puts = (0..streams).map(|_| {
        let (store, content) = (store.clone(), content.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut waits = Vec::new();
            while begun.elapsed().as_secs_f64() < seconds {
                let each = Instant::now();
                put(&store, &content).await;
                waits.push(each.elapsed());
            }
            waits
        })
    });
    let mut waits: Vec<Duration> = join_all(puts).await.into_iter().flat_map(|waits| waits.unwrap()).collect();
    let (wall, cpu, count) = (stretch.seconds(), stretch.cpu_seconds(), waits.len() as f64);
    waits.sort();
    let percentile = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "store {length:>7} B, {streams} streams: {:>7.0} /s {:>6.0} MB/s, cpu {:.3} ms each, p50 {:.2} ms, p99 {:.2} ms, {:.0} MiB resident",
        count / wall,
        count * length as f64 / wall / 1e6,
        cpu * 1e3 / count,
        percentile(0.5),
        percentile(0.99),
        resident_mib(),
    );
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(directory).unwrap();
}

async fn read_lines(parent: &Path, ahead: u64) {
    let directory = parent.join("read");
    let store = open(&directory, ahead);
    let mut objects = Vec::new();
    let content = noise(CT);
    for _ in 0..300 {
        objects.push(put(&store, &content).await);
    }
    let large = put(&store, &noise(209 << 20)).await;
    for streams in [1, 4] {
        let stretch = Stretch::begin();
        let reads = (0..streams).map(|_| {
            let (store, objects) = (store.clone(), objects.clone());
            tokio::spawn(async move {
                let mut bytes = 0;
                for object in objects.iter().cycle().take(900) {
                    bytes += read(&store, object, 0..object.length).await;
                }
                bytes
            })
        });
        let bytes: usize = join_all(reads).await.into_iter().map(|bytes| bytes.unwrap()).sum();
        println!(
            "read {CT} B, {streams} streams: {:.0} MB/s, cpu {:.3} ms each",
            bytes as f64 / stretch.seconds() / 1e6,
            stretch.cpu_seconds() * 1e3 / (900 * streams) as f64
        );
    }
    let stretch = Stretch::begin();
    let bytes = read(&store, &large, 0..large.length).await;
    println!("read {bytes} B: {:.0} MB/s", bytes as f64 / stretch.seconds() / 1e6);
    let stretch = Stretch::begin();
    for frame in 0..400 {
        let from = frame * (large.length / 400);
        read(&store, &large, from..from + CT as u64).await;
    }
    println!("read frames of {CT} B out of it: {:.3} ms each", stretch.seconds() * 1e3 / 400.0);
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(directory).unwrap();
}

async fn many(parent: &Path, count: usize) {
    let directory = parent.join("many");
    let store = open(&directory, 64 << 20);
    let content = noise(100);
    let before = resident_mib();
    let stretch = Stretch::begin();
    let puts = (0..64).map(|_| {
        let (store, content) = (store.clone(), content.clone());
        tokio::spawn(async move {
            for _ in 0..count / 64 {
                put(&store, &content).await;
            }
        })
    });
    join_all(puts).await;
    println!(
        "store {count} objects of 100 B on 64 streams: {:.0} /s, memory grew by {:.0} MiB",
        count as f64 / stretch.seconds(),
        resident_mib() - before
    );
    // As after a crash: it is dropped, not closed.
    drop(store);
    let stretch = Stretch::begin();
    let store = open(&directory, 64 << 20);
    println!("open after a crash: {:.3} s, {:?}", stretch.seconds(), store.recovery());
    let stretch = Stretch::begin();
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = store.list(after, 1000).await.unwrap();
        listed += page.objects.len();
        after = page.objects.last().map(|info| info.object.key);
        if !page.more {
            break;
        }
    }
    println!("list {listed}: {:.2} s", stretch.seconds());
    let stretch = Stretch::begin();
    for _ in 0..10_000 {
        store.stat(after.unwrap()).await.unwrap();
    }
    println!("stat: {:.1} us each", stretch.seconds() * 1e6 / 1e4);
    store.close().await.unwrap();
    drop(store);
    let stretch = Stretch::begin();
    let store = open(&directory, 0);
    println!("open after closing: {:.3} s, {:.0} MiB resident", stretch.seconds(), resident_mib());
    drop(store);
    std::fs::remove_dir_all(directory).unwrap();
}

fn main() {
    let seconds = option("seconds", "3").parse::<f64>().unwrap();
    let ahead = (option("prewrite", "2").parse::<f64>().unwrap() * f64::from(1 << 30)) as u64;
    let parent = match option("dir", "") {
        empty if empty.is_empty() => tempfile::tempdir().unwrap(),
        directory => tempfile::tempdir_in(directory).unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for length in [CT, 2000] {
            for streams in [1, 4, 8] {
                store_line(parent.path(), length, streams, seconds, ahead).await;
            }
        }
        read_lines(parent.path(), ahead).await;
        let count = option("many", "0").parse::<usize>().unwrap();
        if count > 0 {
            many(parent.path(), count).await;
        }
    });
}
