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

/// Erasures come in numbers: one purge is for all that come within this time.
const PURGE_DELAY: Duration = Duration::from_secs(1);

/// How often, and after what pause, an engine that failed to open anew is tried again.
const REOPEN_TRIES: u32 = 5;
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// An index store in a directory.
///
/// Dropping it closes it, blocking until the engine's threads have ended; [`IndexStore::sync`] with `close` does so
/// without blocking the thread.
pub struct EmbeddedIndexStore {
    slot: Arc<RwLock<Slot>>,
    syncer: Background,
    compactor: Background,
    purger: Background,
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
        let slot = Arc::new(RwLock::new(Slot::Open(Box::new(engine))));
        let sync = |engine: &Engine| engine.sync_with_room().map(|()| false);
        let syncer = Background::start("cairn-index-sync", slot.clone(), interval, sync)?;
        let compactor = Background::start("cairn-index-compact", slot.clone(), Duration::ZERO, Engine::compact)?;
        compactor.wake();
        let purger = Background::start("cairn-index-purge", slot.clone(), PURGE_DELAY, Engine::purge)?;
        // What an earlier process left to be purged.
        purger.wake();
        Ok(Self { slot, syncer, compactor, purger, dir, config })
    }

    async fn engine(&self) -> Result<Open, StoreError> {
        let guard = self.slot.clone().read_owned().await;
        OwnedRwLockReadGuard::try_map(guard, Slot::engine).map_err(|_| closed())
    }
}

/// What there is of the engine.
pub(crate) enum Slot {
    /// It works, or takes no more writes since one of its own failed.
    Open(Box<Engine>),
    /// It could not be opened anew; each commit tries again.
    Broken,
    /// For good.
    Closed,
}

impl Slot {
    fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Open(engine) => Some(engine),
            Self::Broken | Self::Closed => None,
        }
    }

    fn can_be_mended(&self) -> bool {
        match self {
            Self::Open(engine) => engine.can_be_mended(),
            Self::Broken => true,
            Self::Closed => false,
        }
    }

    /// Opens an engine anew that takes no more writes. Nobody uses it meanwhile. Commits that were not synced may be lost
    /// with the failed write.
    fn mend(&mut self, dir: &Path, config: &IndexStoreConfig) -> Result<(), StoreError> {
        if !self.can_be_mended() {
            return Ok(()); // somebody else did
        }
        *self = Self::Broken;
        let mut tries = 1;
        while let Err(error) = Engine::open(dir, config).map(|engine| *self = Self::Open(Box::new(engine))) {
            if tries == REOPEN_TRIES {
                return Err(error);
            }
            tries += 1;
            std::thread::sleep(REOPEN_PAUSE);
        }
        tracing::info!("the index store was opened anew after a failed write");
        Ok(())
    }
}

type Open = OwnedRwLockReadGuard<Slot, Engine>;

fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "index store is not open")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |error| StoreError::new(StoreErrorKind::Internal, format!("index store task ended: {error}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}

#[async_trait]
impl IndexStore for EmbeddedIndexStore {
    fn is_exact(&self) -> bool {
        true
    }

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
        let can_be_mended = self.slot.read().await.can_be_mended();
        if can_be_mended {
            let mut slot = self.slot.clone().write_owned().await;
            let (dir, config) = (self.dir.clone(), self.config.clone());
            blocking(move || slot.mend(&dir, &config)).await?;
            let what = "the index store was opened anew after a failed write: go on from what it has";
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        let engine = self.engine().await?;
        let purge = commit.purge;
        let piled_up = blocking(move || engine.commit(generation, &commit)).await?;
        self.syncer.wake();
        if purge {
            self.purger.wake();
        }
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
        let mut slot = self.slot.clone().write_owned().await;
        let Slot::Open(engine) = std::mem::replace(&mut *slot, Slot::Closed) else { return Ok(()) };
        blocking(move || engine.sync()).await
    }
}
