//! A writer takes room while a group is being synced, after which a checkpoint notes where the journal goes on; then the
//! room is given back. The journal must not go on before the place noted.

use super::workload::{Workload, block_on, is_file, open};
use cairn_conformance::object_store::{bytes, key, put, read};
use cairn_process::disk::sim::{Event, Loss, SimDisk, Verdict};
use cairn_store_api::ObjectStore;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

/// Runs the race once, in the order that matters.
pub(crate) fn run() {
    let mut config = Workload::small(40).config;
    (config.volume_bytes_first, config.volume_bytes_max) = (4 << 20, 4 << 20);
    config.checkpoint_changes = 2;
    let disk = SimDisk::new();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (answer, answered) = mpsc::channel::<()>();
    let armed = Arc::new(AtomicBool::new(false));
    let (gate, answered) = (armed.clone(), Mutex::new(answered));
    let manifests = Arc::new(Mutex::new(0));
    let counted = manifests.clone();
    disk.set_hook(move |event| {
        match event {
            // Only the committing thread syncs this volume once it is in use.
            Event::SyncData(path) if is_file(path, "volume-00000000") && gate.swap(false, Ordering::SeqCst) => {
                ask.send(()).unwrap();
                answered.lock().unwrap().recv().unwrap();
            }
            Event::Name(path) if path.ends_with("manifest") => *counted.lock().unwrap() += 1,
            _ => {}
        }
        Verdict::Proceed
    });
    // One thread for blocking work: what is asked of it later is done later.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).enable_all().build().unwrap();
    let last = runtime.block_on(async {
        let store = Arc::new(open(Arc::new(disk.clone()), &config).unwrap());
        put(&*store, key(1), &bytes(1, 5000), 5000).await.unwrap();
        let mut writer = store.put(key(2), Some(500_000)).await.unwrap();
        let before = *manifests.lock().unwrap();
        armed.store(true, Ordering::SeqCst);
        let second = tokio::spawn({
            let store = store.clone();
            async move { put(&*store, key(3), &bytes(3, 5000), 5000).await }
        });
        asked.recv().await.unwrap();
        // More than a buffer, so that room is taken.
        writer.write(bytes(2, 200_000)).await.unwrap();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        answer.send(()).unwrap();
        second.await.unwrap().unwrap();
        while *manifests.lock().unwrap() == before {
            tokio::task::yield_now().await;
        }
        drop(writer);
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        put(&*store, key(4), &bytes(4, 5000), 5000).await.unwrap()
    });
    let after = disk.crash(disk.operations(), Loss::Everything);
    block_on(async {
        let store = open(Arc::new(after), &config).unwrap();
        assert!(read(&store, &last.object).await.unwrap() == bytes(4, 5000));
    });
}
