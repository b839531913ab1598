//! What writer and readers share.

use crate::{
    cache::Cache,
    config::EventLogConfig,
    files::segment_name,
    index::{Place, SegmentIndex, Summary, TimeMark},
    meta::Meta,
};
use cairn_process::{
    clock::Clock,
    disk::{Disk, DiskFile},
};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;

/// A log that is open.
pub(crate) struct Shared {
    pub(crate) config: EventLogConfig,
    pub(crate) meta: Meta,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    state: RwLock<State>,
    /// First offset of each partition that is not durable yet.
    pub(crate) ends: Vec<watch::Sender<u64>>,
    caches: Mutex<Caches>,
    /// Held while an index is made anew.
    rebuilding: Mutex<()>,
    /// A sync failed: nothing may be appended until the log was reopened.
    poisoned: AtomicBool,
    closed: AtomicBool,
    /// Number of sealed segments that were measured, and their bytes: they never change.
    measured: Mutex<(u64, u64)>,
}

/// Everything durable.
pub(crate) struct State {
    pub(crate) sealed: Vec<Summary>,
    pub(crate) index: SegmentIndex,
    pub(crate) file: Arc<dyn DiskFile>,
    /// First offset of each partition that can't be given (`u64::MAX`: all can).
    pub(crate) damaged_from: Vec<u64>,
    /// Damage found at opening: appends are refused.
    pub(crate) damage: Option<String>,
}

/// What is kept of sealed segments.
pub(crate) struct Caches {
    pub(crate) places: Cache<(u64, usize), Arc<[Place]>>,
    pub(crate) times: Cache<u64, Arc<[TimeMark]>>,
    pub(crate) files: Cache<u64, Arc<dyn DiskFile>>,
}

impl Shared {
    pub(crate) fn new(
        config: EventLogConfig,
        meta: Meta,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: PathBuf,
        state: State,
    ) -> Self {
        let ends = state.index.ends().iter().map(|end| watch::Sender::new(*end)).collect();
        let bytes = config.index_cache_bytes as usize;
        let caches = Caches {
            places: Cache::new(bytes - bytes / 4),
            times: Cache::new(bytes / 4),
            files: Cache::new(usize::from(config.open_files_max)),
        };
        Self {
            config,
            meta,
            disk,
            clock,
            dir,
            state: RwLock::new(state),
            ends,
            caches: Mutex::new(caches),
            rebuilding: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            measured: Mutex::default(),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rebuilding(&self) -> MutexGuard<'_, ()> {
        self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Refuses everything from now on, and wakes those who wait.
    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.ends.iter().for_each(|end| end.send_modify(|_| {}));
        self.caches().files.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Bytes of all segments.
    pub(crate) fn segment_bytes(&self) -> io::Result<u64> {
        let (sealed, open) = {
            let state = self.read();
            (state.sealed.len() as u64, state.file.clone())
        };
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        while measured.0 < sealed {
            measured.1 += self.disk.open(&self.dir.join(segment_name(measured.0)))?.len()?;
            measured.0 += 1;
        }
        Ok(measured.1 + open.len()?)
    }

    /// Whether anything can be appended.
    pub(crate) fn check_appendable(&self) -> Result<(), StoreError> {
        if let Some(damage) = &self.read().damage {
            return Err(StoreError::new(StoreErrorKind::Corrupt, damage.clone()));
        }
        if self.poisoned.load(Ordering::Acquire) {
            let what = "event log takes nothing since a sync failed; it must be reopened";
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

pub(crate) fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "event log is closed")
}
