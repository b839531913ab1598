//! What is deleted leaves no bytes, wherever the process or the machine stops in between.

use super::workload::{Workload, block_on, open};
use bytes::Bytes;
use cairn_conformance::object_store::{key, put};
use cairn_process::disk::{
    Disk,
    sim::{Loss, SimDisk},
};
use cairn_store_api::{ObjectStore, StoreErrorKind};
use std::{path::Path, sync::Arc};

const MARK: &[u8] = b"of a patient whom nobody is to find";

/// Whether any file has the mark.
fn is_found(disk: &SimDisk, directory: &Path) -> bool {
    disk.list(directory).unwrap().into_iter().any(|name| {
        let file = disk.open(&directory.join(name)).unwrap();
        let mut bytes = vec![0; file.len().unwrap().try_into().unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.windows(MARK.len()).any(|window| window == MARK)
    })
}

#[test]
fn no_crash_leaves_bytes_of_what_is_deleted() {
    let mut config = Workload::small(60).config;
    (config.volume_bytes_first, config.volume_bytes_max) = (4 << 20, 4 << 20);
    config.checkpoint_changes = 3;
    let disk = SimDisk::new();
    let (deleted, another) = (key(1), Bytes::from_static(b"another"));
    let before = block_on(async {
        let store = open(Arc::new(disk.clone()), &config).unwrap();
        put(&store, deleted, &MARK.repeat(500).into(), MARK.len() * 500).await.unwrap();
        put(&store, key(2), &another, 7).await.unwrap();
        let before = disk.operations();
        store.delete(deleted).await.unwrap();
        // Past some checkpoints.
        for number in 3..12 {
            put(&store, key(number), &another, 7).await.unwrap();
        }
        store.close().await.unwrap();
        before
    });
    let mut gone_and_found = 0;
    for at in before..=disk.operations() {
        for after in [disk.kill(at), disk.crash(at, Loss::Everything), disk.crash(at, Loss::Seeded(at as u64))] {
            let was_found = is_found(&after, &config.directory);
            let is_gone = block_on(async {
                let store = open(Arc::new(after.clone()), &config).unwrap();
                let stat = store.stat(deleted).await;
                store.close().await.unwrap();
                stat.is_err_and(|error| error.kind() == StoreErrorKind::NotFound)
            });
            gone_and_found += usize::from(is_gone && was_found);
            assert!(!is_gone || !is_found(&after, &config.directory), "operation {at}: bytes are left");
        }
    }
    assert!(gone_and_found > 0, "no crash came between the deletion and what gives its room back");
}
