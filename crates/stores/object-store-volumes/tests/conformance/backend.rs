use async_trait::async_trait;
use cairn_conformance::object_store::{Faults, ObjectStoreBackend};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::clock::SystemClock;
use cairn_process::disk::sim::{Event, Loss, SimDisk, Verdict};
use cairn_process::disk::{Disk, RealDisk};
use cairn_store_api::{ObjectStore, StoreError};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

/// Small, so that trials cross volumes, checkpoints and merges of segments.
fn config(directory: &Path) -> VolumeConfig {
    VolumeConfig {
        volume_bytes_first: 1 << 20,
        volume_bytes_max: 8 << 20,
        prewrite_bytes_min: 1 << 20,
        prewrite_bytes_max: 4 << 20,
        reserve_bytes: 1 << 20,
        checkpoint_changes: 16,
        segments_merged: 3,
        shared_sync_bytes_max: 1 << 20,
        files_open_max: 3,
        ..VolumeConfig::new(directory)
    }
}

fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(Arc::new(VolumeStore::open(disk, config(directory), Arc::new(SystemClock::new()))?))
}

/// Where in which volume bytes are.
fn find(disk: &dyn Disk, directory: &Path, bytes: &[u8]) -> (PathBuf, u64) {
    for name in disk.list(directory).unwrap().into_iter().filter(|name| name.starts_with("volume-")) {
        let path = directory.join(name);
        let file = disk.open(&path).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            return (path, at as u64);
        }
    }
    panic!("no volume holds these bytes");
}

pub(crate) struct OnDisk(tempfile::TempDir);

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("objects")
    }
}

#[async_trait]
impl ObjectStoreBackend for OnDisk {
    async fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        open(Arc::new(RealDisk), &self.directory())
    }

    fn faults(&self) -> Faults {
        Faults { damage: true, exclusive: true, ..Faults::default() }
    }

    async fn crash(&self) {}

    async fn fill(&self, _full: bool) {}

    async fn damage(&self, bytes: &[u8]) {
        let (path, at) = find(&RealDisk, &self.directory(), bytes);
        RealDisk.open(&path).unwrap().write_all_at(&[bytes[0] ^ 1], at).unwrap();
    }

    async fn stall(&self, _stalled: bool) {}
}

pub(crate) struct Simulated {
    disk: Mutex<SimDisk>,
    stalled: Arc<(Mutex<bool>, Condvar)>,
}

impl Simulated {
    pub(crate) fn new() -> Self {
        Self { disk: Mutex::new(SimDisk::new()), stalled: Arc::default() }
    }

    fn disk(&self) -> SimDisk {
        self.disk.lock().unwrap().clone()
    }
}

const DIRECTORY: &str = "/data/objects";

#[async_trait]
impl ObjectStoreBackend for Simulated {
    async fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        open(Arc::new(self.disk()), Path::new(DIRECTORY))
    }

    fn faults(&self) -> Faults {
        Faults { crash: true, full: true, damage: true, stall: true, exclusive: true }
    }

    async fn crash(&self) {
        let mut disk = self.disk.lock().unwrap();
        *disk = disk.crash(disk.operations(), Loss::Everything);
    }

    async fn fill(&self, full: bool) {
        let disk = self.disk();
        disk.set_capacity(if full { disk.allocated() + (8 << 20) } else { u64::MAX });
    }

    async fn damage(&self, bytes: &[u8]) {
        let disk = self.disk();
        let (path, at) = find(&disk, Path::new(DIRECTORY), bytes);
        disk.damage(&path, at, &[bytes[0] ^ 1]).unwrap();
    }

    async fn stall(&self, stalled: bool) {
        *self.stalled.0.lock().unwrap() = stalled;
        self.stalled.1.notify_all();
        let gate = self.stalled.clone();
        self.disk().set_hook(move |event| {
            if let Event::Write(_) = event {
                let open = gate.1.wait_while(gate.0.lock().unwrap(), |stalled| *stalled);
                drop(open.unwrap());
            }
            Verdict::Proceed
        });
    }
}
