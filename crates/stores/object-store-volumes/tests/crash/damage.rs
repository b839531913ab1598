//! Volumes that were cut, and bits that flipped: wrong bytes are never given out.

use super::workload::{DIRECTORY, Fate, Run, Workload, block_on, open};
use cairn_conformance::object_store::{bytes, key, put, read};
use cairn_process::disk::Disk;
use cairn_process::disk::sim::{Loss, SimDisk};
use cairn_store_api::{ObjectStore, StoreErrorKind};
use std::{path::PathBuf, sync::Arc};

fn files(disk: &SimDisk, prefix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(DIRECTORY);
    let names = disk.list(&directory).unwrap().into_iter().filter(|name| name.starts_with(prefix));
    names
        .map(|name| {
            let file = disk.open(&directory.join(&name)).unwrap();
            let mut content = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut content, 0).unwrap();
            (directory.join(name), content)
        })
        .collect()
}

fn position(content: &[u8], part: &[u8]) -> Option<usize> {
    content.windows(part.len()).position(|window| window == part)
}

/// How an object is found: whole, or gone in a way that says so.
fn find(run: &Run, disk: &SimDisk, fates: &[&Fate]) -> Vec<bool> {
    block_on(async {
        let store = open(Arc::new(disk.clone()), &run.workload.config).unwrap();
        let mut found = Vec::new();
        for fate in fates {
            let (_, info) = fate.acknowledged.unwrap();
            let whole = match read(&store, &info.object).await {
                Ok(bytes) => {
                    assert!(bytes == run.workload.content(fate.number), "wrong bytes were given out");
                    assert_eq!(store.stat(key(fate.number)).await.unwrap(), info);
                    true
                }
                Err(error) => {
                    assert!(matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Corrupt), "{error}");
                    false
                }
            };
            found.push(whole);
        }
        found
    })
}

/// A run whose objects all are in the first volume, and none of whose index was written down.
fn one_volume(seed: u64) -> Run {
    let mut workload = Workload::small(seed);
    workload.config.volume_bytes_first = 4 << 20;
    workload.config.volume_bytes_max = 4 << 20;
    workload.config.checkpoint_changes = 1000;
    workload.run()
}

fn kept(run: &Run) -> Vec<&Fate> {
    run.objects.values().filter(|fate| fate.deleting().is_none()).collect()
}

#[test]
fn a_volume_cut_anywhere_has_what_was_before_the_cut() {
    let run = one_volume(20);
    let whole = run.disk.crash(run.operations(), Loss::Nothing);
    let fates = kept(&run);
    let (path, content) = files(&whole, "volume-").swap_remove(0);
    // Where each object's last byte is: of its data and hashes, and of the journal block with its record.
    let ends: Vec<usize> = fates
        .iter()
        .map(|fate| {
            let data = run.workload.content(fate.number);
            // It may be in several pieces; its hashes follow its last byte.
            let tail = &data[data.len().saturating_sub(64)..];
            let place = if data.is_empty() { 0 } else { position(&content, tail).unwrap() };
            let data_end = (place + tail.len() + 64).next_multiple_of(4096);
            let record = position(&content, key(fate.number).as_bytes()).unwrap();
            data_end.max(record / 4096 * 4096 + 4096)
        })
        .collect();
    let last = ends.iter().max().unwrap() + 8192;
    for cut in (0..last).step_by(1021).chain(ends.iter().flat_map(|end| [end - 1, *end])) {
        let disk = run.disk.crash(run.operations(), Loss::Nothing);
        disk.open(&path).unwrap().set_len(cut as u64).unwrap();
        let found = find(&run, &disk, &fates);
        // A volume cut within its first two blocks can't be told from one whose creation was cut off.
        for ((whole, end), fate) in found.iter().zip(&ends).zip(&fates) {
            assert!(*whole || *end > cut, "cut at {cut}: {fate:?} ended at {end}");
        }
    }
}

#[test]
fn a_flipped_bit_is_never_given_out() {
    for (closed, seed) in [(false, 30), (true, 31)] {
        let run = if closed { Workload::reopened(seed).run() } else { one_volume(seed) };
        let fates = kept(&run);
        let whole = run.disk.crash(run.operations(), Loss::Nothing);
        assert!(find(&run, &whole, &fates).iter().all(|whole| *whole));
        let (mut flips, mut lost) = (0, 0);
        for prefix in ["volume-", "index-", "manifest"] {
            for (path, content) in files(&run.disk.crash(run.operations(), Loss::Nothing), prefix) {
                let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                for at in (0..=used).step_by(used / 60 + 1) {
                    let disk = run.disk.crash(run.operations(), Loss::Nothing);
                    disk.damage(&path, at as u64, &[content[at] ^ 1 << (at % 8)]).unwrap();
                    let found = find(&run, &disk, &fates);
                    flips += 1;
                    lost += found.iter().filter(|whole| !**whole).count();
                }
            }
        }
        println!("{flips} flipped bits made {lost} of {} objects unreadable, and none wrong", flips * fates.len());
        assert!(lost > 0 && flips > 60, "no bit that matters was flipped");
    }
}

#[test]
fn a_lost_index_is_made_anew() {
    for run in [Workload::small(32).run(), Workload::emptied(33).run()] {
        lose_index(&run);
    }
}

#[test]
fn volumes_without_objects_go() {
    let run = Workload::emptied(34).run();
    let left = files(&run.disk, "volume-");
    let last = left.iter().map(|(path, _)| path.clone()).max().unwrap();
    let last = u32::from_str_radix(&last.to_string_lossy()[DIRECTORY.len() + 8..], 16).unwrap();
    assert!((left.len() as u32) < last, "all of {} volumes are there", last + 1);
}

/// Whether those of the third to sixth volumes are gone that have no part of an object that is kept.
fn emptied(disk: &SimDisk, kept: &[PathBuf]) -> bool {
    let early = (2..6).map(|id| PathBuf::from(format!("{DIRECTORY}/volume-{id:08x}")));
    early.filter(|path| !kept.contains(path)).all(|path| disk.open(&path).is_err())
}

#[test]
fn records_outlive_the_volume_that_has_them() {
    let mut config = Workload::small(0).config;
    (config.volume_bytes_first, config.volume_bytes_max) = (256 << 10, 256 << 10);
    config.checkpoint_changes = 2;
    let disk = SimDisk::new();
    let content = bytes(1, 100_000);
    let (mut kept, parts) = block_on(async {
        let store = open(Arc::new(disk.clone()), &config).unwrap();
        let mut kept = vec![put(&store, key(1), &bytes(1, 50_000), 5000).await.unwrap()];
        put(&store, key(2), &bytes(2, 5000), 5000).await.unwrap();
        // Takes its room while the first volumes are in use, and is finished when they are full. With more than two buffers
        // taken the first is written.
        let (mut slow, slowly) = (store.put(key(3), Some(140_000)).await.unwrap(), bytes(3, 140_000));
        slow.write(slowly.clone()).await.unwrap();
        for number in 10..16 {
            put(&store, key(number), &content, 50_000).await.unwrap();
        }
        kept.push(slow.finish().await.unwrap());
        let mut parts = files(&disk, "volume-");
        parts.retain(|(_, content)| slowly.chunks_exact(4096).any(|block| position(content, block).is_some()));
        let parts: Vec<PathBuf> = parts.into_iter().map(|(path, _)| path).collect();
        // Recorded in a later volume than the object.
        store.delete(key(2)).await.unwrap();
        for number in 20..30 {
            put(&store, key(number), &content, 50_000).await.unwrap();
        }
        for number in (10..16).chain(20..28) {
            store.delete(key(number)).await.unwrap();
        }
        kept.extend([store.stat(key(28)).await.unwrap(), store.stat(key(29)).await.unwrap()]);
        // Checkpoints, until the store has removed what is empty; among it the volume with that record.
        for number in 100..50_000 {
            put(&store, key(number), &bytes(number, 10), 10).await.unwrap();
            store.delete(key(number)).await.unwrap();
            if emptied(&disk, &parts) {
                break;
            }
        }
        store.close().await.unwrap();
        (kept, parts)
    });
    assert!(emptied(&disk, &parts) && parts.len() < 4, "empty volumes stay");
    for (path, _) in ["manifest", "index-"].iter().flat_map(|prefix| files(&disk, prefix)) {
        disk.remove(&path).unwrap();
    }
    block_on(async {
        let store = open(Arc::new(disk.clone()), &config).unwrap();
        let mut listed = store.list(None, 100).await.unwrap().objects;
        listed.sort_by_key(|info| info.object.key);
        kept.sort_by_key(|info| info.object.key);
        assert_eq!(listed, kept);
        for info in kept {
            read(&store, &info.object).await.unwrap();
        }
    });
}

fn lose_index(run: &Run) {
    let fates = kept(run);
    for lost in [vec!["manifest"], vec!["index-"], vec!["manifest", "index-"]] {
        let disk = run.disk.crash(run.operations(), Loss::Nothing);
        for (path, _) in lost.iter().flat_map(|prefix| files(&disk, prefix)) {
            disk.remove(&path).unwrap();
        }
        assert!(find(run, &disk, &fates).iter().all(|whole| *whole), "without {lost:?}");
        // Deleted ones stay so, and the next opening is an ordinary one.
        let again = block_on(async {
            let store = open(Arc::new(disk.clone()), &run.workload.config).unwrap();
            for fate in run.objects.values().filter(|fate| fate.deleting().is_some()) {
                assert_eq!(store.stat(key(fate.number)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
            }
            store.recovery()
        });
        assert!(!again.rebuilt, "{again:?}");
    }
}
