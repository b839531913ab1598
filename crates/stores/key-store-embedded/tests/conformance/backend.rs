use async_trait::async_trait;
use cairn_archive::sealing::KeyBytes;
use cairn_conformance::key_store::{KeyFaults, KeyStoreBackend};
use cairn_key_store_embedded::{EmbeddedKeyStore, FILE_NAME, KeyStoreConfig};
use cairn_process::disk::sim::{Loss, SimDisk};
use cairn_process::disk::{Disk, RealDisk};
use cairn_store_api::{KeyStore, StoreError};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

const RESERVE: u64 = 1 << 20;

fn open(disk: Arc<dyn Disk>, directory: PathBuf, master: u8) -> Result<Arc<dyn KeyStore>, StoreError> {
    let config = KeyStoreConfig { directory, master: KeyBytes([master; 32]), reserve_bytes: RESERVE };
    Ok(Arc::new(EmbeddedKeyStore::open(disk, config)?))
}

fn content(disk: &dyn Disk, directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for name in disk.list(directory).unwrap() {
        let file = disk.open_to_read(&directory.join(name)).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        all.extend(content);
    }
    all
}

fn find(disk: &dyn Disk, directory: &Path, bytes: &[u8]) -> u64 {
    let file = disk.open_to_read(&directory.join(FILE_NAME)).unwrap();
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content.windows(bytes.len()).position(|window| window == bytes).expect("it is stored") as u64
}

pub(crate) struct OnDisk(tempfile::TempDir);

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("keys")
    }
}

#[async_trait]
impl KeyStoreBackend for OnDisk {
    async fn open(&self) -> Result<Arc<dyn KeyStore>, StoreError> {
        open(Arc::new(RealDisk), self.directory(), 1)
    }

    async fn open_with_another_master(&self) -> Result<Arc<dyn KeyStore>, StoreError> {
        open(Arc::new(RealDisk), self.directory(), 2)
    }

    fn faults(&self) -> KeyFaults {
        KeyFaults { damage: true, exclusive: true, ..KeyFaults::default() }
    }

    async fn crash(&self, _steps: u64) {}

    async fn fill(&self, _full: bool) {}

    async fn damage(&self, bytes: &[u8]) {
        let at = find(&RealDisk, &self.directory(), bytes);
        RealDisk.open(&self.directory().join(FILE_NAME)).unwrap().write_all_at(&[bytes[0] ^ 1], at).unwrap();
    }

    async fn stored(&self) -> Vec<u8> {
        content(&RealDisk, &self.directory())
    }
}

pub(crate) struct Simulated(Mutex<SimDisk>);

impl Simulated {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(SimDisk::new()))
    }

    fn disk(&self) -> SimDisk {
        self.0.lock().unwrap().clone()
    }
}

const DIRECTORY: &str = "/data/keys";

#[async_trait]
impl KeyStoreBackend for Simulated {
    async fn open(&self) -> Result<Arc<dyn KeyStore>, StoreError> {
        open(Arc::new(self.disk()), DIRECTORY.into(), 1)
    }

    async fn open_with_another_master(&self) -> Result<Arc<dyn KeyStore>, StoreError> {
        open(Arc::new(self.disk()), DIRECTORY.into(), 2)
    }

    fn faults(&self) -> KeyFaults {
        KeyFaults { crash: true, full: true, damage: true, exclusive: true }
    }

    async fn crash(&self, steps: u64) {
        let mut disk = self.0.lock().unwrap();
        let loss = if steps == 0 { Loss::Everything } else { Loss::Seeded(steps) };
        *disk = disk.crash(disk.operations().saturating_sub(steps as usize), loss);
    }

    async fn fill(&self, full: bool) {
        let disk = self.disk();
        disk.set_capacity(if full { disk.allocated() + RESERVE / 2 } else { u64::MAX });
    }

    async fn damage(&self, bytes: &[u8]) {
        let disk = self.disk();
        let at = find(&disk, Path::new(DIRECTORY), bytes);
        disk.damage(&Path::new(DIRECTORY).join(FILE_NAME), at, &[bytes[0] ^ 1]).unwrap();
    }

    async fn stored(&self) -> Vec<u8> {
        content(&self.disk(), Path::new(DIRECTORY))
    }
}
