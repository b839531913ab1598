//! Upkeep that is slow holds back what comes in; upkeep that fails refuses it until it succeeds.

use super::workload::{Workload, block_on, is_file, open};
use cairn_conformance::object_store::{bytes, key, put};
use cairn_process::disk::sim::{Event, SimDisk, Verdict};
use cairn_store_api::{ObjectStore, StoreErrorKind};
use std::{
    future::Future as _,
    io,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Waker},
};

const CHECKPOINT_CHANGES: usize = 2;

fn store(disk: &SimDisk) -> impl ObjectStore + use<> {
    let mut config = Workload::small(50).config;
    (config.volume_bytes_first, config.volume_bytes_max) = (4 << 20, 4 << 20);
    config.checkpoint_changes = CHECKPOINT_CHANGES;
    open(Arc::new(disk.clone()), &config).unwrap()
}

#[test]
fn slow_upkeep_holds_back_and_refuses_nothing() {
    let disk = SimDisk::new();
    let (go_on, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    disk.set_hook(move |event| {
        if matches!(event, Event::SyncData(path) if is_file(path, "index-")) {
            // Answers that nobody gives any more hold nothing.
            let _ = held.lock().unwrap().recv();
        }
        Verdict::Proceed
    });
    block_on(async {
        let store = store(&disk);
        // The first ones are in the checkpoint that is held.
        for number in 0..=9 * CHECKPOINT_CHANGES as u64 {
            put(&store, key(number), &bytes(number, 10), 10).await.unwrap();
        }
        let mut next = pin!(store.put(key(1000), Some(10)));
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "memory is not bounded");
        drop(go_on);
        next.await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn failing_upkeep_refuses_until_it_succeeds() {
    let disk = SimDisk::new();
    disk.set_hook(|event| match event {
        Event::Write(path) if is_file(path, "index-") => Verdict::Fail(io::ErrorKind::StorageFull),
        _ => Verdict::Proceed,
    });
    block_on(async {
        let store = store(&disk);
        let mut number = 0;
        let refused = loop {
            number += 1;
            assert!(number < 1000, "memory is not bounded");
            if let Err(error) = put(&store, key(number), &bytes(number, 10), 10).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), StoreErrorKind::Exhausted);
        disk.clear_hook();
        // Tried again by itself.
        while put(&store, key(number), &bytes(number, 10), 10).await.is_err() {
            tokio::task::yield_now().await;
        }
        store.close().await.unwrap();
    });
}
