//! What the store's threads, writers and readers share.

use crate::buffers::Buffers;
use crate::cache::HashCache;
use crate::chunks::Chunks;
use crate::commit::Queue;
use crate::config::VolumeConfig;
use crate::index::Index;
use crate::layout::{Entry, Extent, Record};
use crate::maintain::Maintenance;
use crate::volumes::Volumes;
use crate::{journal, lock, unavailable};
use cairn_process::clock::Clock;
use cairn_process::disk::Disk;
use cairn_store_api::StoreError;
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
};
use tokio::sync::Semaphore;

pub(crate) struct Shared {
    pub(crate) config: Arc<VolumeConfig>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) index: Index,
    pub(crate) queue: Queue,
    pub(crate) buffers: Buffers,
    pub(crate) maintenance: Maintenance,
    pub(crate) cache: HashCache,
    pub(crate) chunks: Arc<Chunks>,
    /// One permit for each writer.
    pub(crate) writers: Arc<Semaphore>,
    /// Bytes on the disk of the object stored last: what the next one is expected to need.
    pub(crate) typical: AtomicU64,
    pub(crate) totals: Mutex<(u64, u64)>,
    /// Room of deleted objects, and of bytes that a repair replaced, since the index was written down.
    pub(crate) left: Mutex<Vec<Extent>>,
    pub(crate) poison: Mutex<Option<StoreError>>,
    /// Held until the store is closed, or the last user of its files is gone.
    pub(crate) lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Shared {
    /// Number and bytes of objects.
    pub(crate) fn totals(&self) -> (u64, u64) {
        *lock(&self.totals)
    }

    /// Whether far more changes wait for a checkpoint than one should have: the disk is too slow, or too full, for them.
    pub(crate) fn index_is_behind(&self) -> bool {
        self.index.changes() > self.config.checkpoint_changes.saturating_mul(8)
    }

    /// Ends all writing: after a failed write or sync nobody knows what is on the disk, and a sync that succeeds later
    /// proves nothing. Reading goes on. Gives the error for those concerned.
    pub(crate) fn poison(&self, what: &str, error: &io::Error) -> StoreError {
        let mut poison = lock(&self.poison);
        if poison.is_none() {
            tracing::error!(%error, "{what} failed: the object store takes no more writes until it is restarted");
        }
        poison.get_or_insert_with(|| unavailable(&format!("{what}: {error}; restart to write again"))).clone()
    }

    /// Opens the store for reading alone: what opening has to write can't be written.
    pub(crate) fn only_read(&self, error: &StoreError) {
        tracing::error!(%error, "the object store takes no writes until it is restarted");
        lock(&self.poison)
            .get_or_insert_with(|| StoreError::new(error.kind(), format!("{error}; restart to write again")));
    }

    /// # Errors
    /// `Unavailable` once a write or sync has failed.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        lock(&self.poison).clone().map_or(Ok(()), Err)
    }

    /// Takes a durable record into index and counts.
    pub(crate) fn apply(&self, record: Record) -> Result<(), StoreError> {
        let Some(key) = record.key() else { return Ok(()) };
        let old = self.index.get(key);
        if let Ok(Some(old)) = &old {
            self.volumes.remove_live(old);
            let mut totals = lock(&self.totals);
            totals.0 = totals.0.saturating_sub(1);
            totals.1 = totals.1.saturating_sub(old.info.object.length);
        }
        if let Record::Put(entry) = &record {
            self.volumes.add_live(entry);
            let mut totals = lock(&self.totals);
            totals.0 += 1;
            totals.1 = totals.1.saturating_add(entry.info.object.length);
        }
        self.index.apply(record);
        old.map(|_| ())
    }

    /// Room that nothing lies in any more is to be given back to the disk.
    pub(crate) fn leave(&self, entry: &Entry) {
        lock(&self.left).extend(&entry.extents);
    }

    /// Gives back all room that was left, durably: before the index that forgets it is written down, so that no crash leaves bytes
    /// of which nobody knows that they are to go.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        let left = lock(&self.left).clone();
        if let Err(error) = self.volumes.punch(&left) {
            tracing::warn!(%error, "room of deleted objects can't be given back to the disk");
        }
        let volumes: BTreeSet<u32> = left.iter().map(|extent| extent.volume).collect();
        let synced = volumes.into_iter().try_for_each(|volume| match self.volumes.sync(&BTreeSet::from([volume])) {
            // The whole volume is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        // What a failed sync was of is lost for everybody who syncs that file.
        synced.map_err(|error| self.poison("giving room of deleted objects back", &error))?;
        lock(&self.left).drain(..left.len());
        Ok(())
    }

    /// What the journal of a volume says that nothing else does.
    pub(crate) fn useful_records(&self, volume: u32) -> Result<Vec<Record>, StoreError> {
        let blocks = journal::read_all(&self.volumes, volume);
        let blocks = blocks.map_err(|error| StoreError::io("reading the journal of a volume", &error))?;
        let mut useful = Vec::new();
        for record in blocks.into_iter().flat_map(|block| block.records) {
            match &record {
                // Live, and known from here.
                Record::Put(entry) => useful.extend(
                    self.index
                        .get(entry.key())?
                        .filter(|now| now.home == volume && now.extents == entry.extents)
                        .map(Record::Put),
                ),
                // Still hiding a record in the journal of a volume that stays.
                Record::Delete(key, home) => {
                    if *home != volume && self.volumes.has(*home) && self.index.get(*key)?.is_none() {
                        useful.push(record);
                    }
                }
                Record::Settled(_) => {}
            }
        }
        Ok(useful)
    }
}
