use crate::{background::Background, config::IndexStoreConfig, engine::Engine};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Page, StoreError, StoreErrorKind, Table};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Rows of a scan that are read on the caller's thread: as many as a page has. Handing fewer to another thread costs more
/// than reading them.
const INLINE_ROWS_MAX: usize = 256;

/// How often, and after what pause, an engine that failed to open anew is tried again.
const REOPEN_TRIES: u32 = 30;
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// An index store in a directory.
///
/// Dropping it closes it, blocking until the engine's threads have ended; [`IndexStore::sync`] with `close` does so
/// without blocking the thread.
pub struct EmbeddedIndexStore {
    /// Gone once closed.
    engine: Arc<RwLock<Option<Engine>>>,
    syncer: Background,
    compactor: Background,
    dir: PathBuf,
    config: IndexStoreConfig,
}

impl EmbeddedIndexStore {
    /// Opens the store in `dir`, or creates it there. Takes time in proportion to the journal, whatever the store's size.
    ///
    /// # Errors
    /// `Conflict` when it is open already, `Corrupt` when it can't be read: it can be dropped and rebuilt from the log.
    pub async fn open(dir: PathBuf, config: IndexStoreConfig) -> Result<Self, StoreError> {
        let interval = config.sync_interval;
        let (at, with) = (dir.clone(), config.clone());
        let engine = blocking(move || Engine::open(&at, &with)).await?;
        let engine = Arc::new(RwLock::new(Some(engine)));
        let sync = |engine: &Engine| engine.sync_with_room().map(|()| false);
        let syncer = Background::start("cairn-index-sync", engine.clone(), interval, sync)?;
        let compactor = Background::start("cairn-index-compact", engine.clone(), Duration::ZERO, Engine::compact)?;
        compactor.wake();
        Ok(Self { engine, syncer, compactor, dir, config })
    }

    async fn engine(&self) -> Result<Open, StoreError> {
        let guard = self.engine.clone().read_owned().await;
        OwnedRwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| closed())
    }
}

/// Opens an engine anew that takes no more writes since one of its own failed. Nobody uses it meanwhile. Commits that
/// were not synced may be lost with the failed write.
fn mend(slot: &mut Option<Engine>, dir: &Path, config: &IndexStoreConfig) -> Result<(), StoreError> {
    let Some(broken) = slot.take_if(|engine| engine.can_be_mended()) else { return Ok(()) };
    drop(broken);
    let mut tries = 0;
    let mended = loop {
        match Engine::open(dir, config) {
            Ok(engine) => break engine,
            Err(error) if tries < REOPEN_TRIES => tracing::warn!(%error, "the index store can't be opened anew yet"),
            Err(error) => return Err(error),
        }
        tries += 1;
        std::thread::sleep(REOPEN_PAUSE);
    };
    tracing::info!("the index store was opened anew after a failed write");
    *slot = Some(mended);
    Ok(())
}

type Open = OwnedRwLockReadGuard<Option<Engine>, Engine>;

fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "index store is closed")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |error| StoreError::new(StoreErrorKind::Internal, format!("index store task ended: {error}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}

#[async_trait]
impl IndexStore for EmbeddedIndexStore {
    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.engine().await?.get(generation, table, pk, ck)
    }

    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let engine = self.engine().await?;
        if keys.len() <= INLINE_ROWS_MAX / 4 {
            return engine.get_many(generation, table, keys);
        }
        let keys = keys.to_vec();
        blocking(move || engine.get_many(generation, table, &keys)).await
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
        let engine = self.engine().await?;
        if max <= INLINE_ROWS_MAX {
            return engine.scan(generation, table, pk, range, reverse, max);
        }
        let (pk, range) = (pk.to_vec(), range.clone());
        blocking(move || engine.scan(generation, table, &pk, &range, reverse, max)).await
    }

    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError> {
        let engine = self.engine().await?;
        if engine.can_be_mended() {
            drop(engine);
            let mut slot = self.engine.clone().write_owned().await;
            let (dir, config) = (self.dir.clone(), self.config.clone());
            blocking(move || mend(&mut slot, &dir, &config)).await?;
            let what = "the index store was opened anew after a failed write: go on from what it has";
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        let piled_up = blocking(move || engine.commit(generation, &commit)).await?;
        self.syncer.wake();
        if piled_up {
            self.compactor.wake();
        }
        Ok(())
    }

    async fn offsets(
        &self,
        generation: Generation,
    ) -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError> {
        let engine = self.engine().await?;
        blocking(move || Ok(engine.offsets(generation))).await
    }

    async fn pointer(&self) -> Result<Bytes, StoreError> {
        Ok(self.engine().await?.pointer())
    }

    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        let (engine, expected) = (self.engine().await?, expected.to_vec());
        blocking(move || engine.compare_and_set_pointer(&expected, new)).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        let engine = self.engine().await?;
        blocking(move || engine.drop_generation(generation)).await
    }

    async fn sync(&self, close: bool) -> Result<(), StoreError> {
        if !close {
            let engine = self.engine().await?;
            return blocking(move || engine.sync()).await;
        }
        // Waits for calls under way; later ones find it closed.
        let mut engine = self.engine.clone().write_owned().await;
        let Some(engine) = engine.take() else { return Ok(()) };
        blocking(move || engine.sync()).await
    }
}
