//! The port's clauses. A crash is made by cutting the engine's journal within what was not synced.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_conformance::index_store::{Faults, IndexStoreBackend, trials};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Page, StoreError, Table};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

fn main() {
    let trials = trials("embedded", || Box::new(Embedded::new()));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit();
}

struct Embedded {
    dir: tempfile::TempDir,
    crashes: AtomicU64,
    /// The journal, and how many of its bytes a sync covers.
    synced: Arc<Mutex<(PathBuf, usize)>>,
}

impl Embedded {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self { dir, crashes: AtomicU64::new(0), synced: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("index")
    }
}

/// The newest journal, and what is written of it (it is longer, and ends with zeros).
fn journal(dir: &Path) -> (PathBuf, Vec<u8>) {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let entries = fs::read_dir(dir).expect("store directory").map(|entry| entry.expect("entry").path());
    let newest = entries.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max_by_key(number);
    let newest = newest.expect("a journal");
    let mut bytes = fs::read(&newest).expect("journal");
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    (newest, bytes)
}

#[async_trait]
impl IndexStoreBackend for Embedded {
    async fn open(&self) -> Result<Arc<dyn IndexStore>, StoreError> {
        // A small memtable, so that tables are flushed too; no sync but those asked for.
        let config = IndexStoreConfig {
            memtable_bytes: 256 << 10,
            cache_bytes: 1 << 20,
            sync_interval: Duration::from_secs(3600),
            ..IndexStoreConfig::default()
        };
        let store = EmbeddedIndexStore::open(self.path(), config).await?;
        Ok(Arc::new(Noting { store, dir: self.path(), synced: self.synced.clone() }))
    }

    fn faults(&self) -> Faults {
        Faults { crash: true, exclusive: true }
    }

    async fn crash(&self, store: Arc<dyn IndexStore>) {
        let synced = self.synced.lock().expect("not poisoned").clone();
        store.sync(true).await.expect("closed");
        drop(store);
        let (path, mut bytes) = journal(&self.path());
        let safe = if path == synced.0 { synced.1 } else { 0 };
        if bytes.len() <= safe {
            return;
        }
        let crash = self.crashes.fetch_add(1, Ordering::Relaxed);
        let cut = safe + (crash as usize * 7919 + 13) % (bytes.len() - safe);
        match crash % 3 {
            // The rest was never written; or its pages were, all but one; or the file is shorter.
            0 => bytes[cut..].fill(0),
            1 => {
                let hole = (cut + 4096).min(bytes.len());
                bytes[cut..hole].fill(0);
            }
            _ => bytes.truncate(cut),
        }
        fs::write(&path, &bytes).expect("journal written");
    }
}

/// Notes what is synced.
struct Noting {
    store: EmbeddedIndexStore,
    dir: PathBuf,
    synced: Arc<Mutex<(PathBuf, usize)>>,
}

impl Noting {
    fn note(&self) {
        let (path, bytes) = journal(&self.dir);
        *self.synced.lock().expect("not poisoned") = (path, bytes.len());
    }
}

#[async_trait]
impl IndexStore for Noting {
    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.store.get(generation, table, pk, ck).await
    }

    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store.get_many(generation, table, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError> {
        self.store.scan(generation, table, pk, range, reverse, max).await
    }

    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError> {
        self.store.commit(generation, commit).await
    }

    async fn offsets(
        &self,
        generation: Generation,
    ) -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError> {
        self.store.offsets(generation).await
    }

    async fn pointer(&self) -> Result<Bytes, StoreError> {
        self.store.pointer().await
    }

    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        let set = self.store.compare_and_set_pointer(expected, new).await?;
        self.note();
        Ok(set)
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        self.store.drop_generation(generation).await
    }

    async fn sync(&self, close: bool) -> Result<(), StoreError> {
        self.store.sync(close).await?;
        self.note();
        Ok(())
    }
}
