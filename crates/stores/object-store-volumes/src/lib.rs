#![forbid(unsafe_code)]
//! `ObjectStore` in a local directory: append-only volume files, written once, with shared syncs.
//!
//! Objects of many writers lie side by side in volume files that were filled with zeros beforehand. A writer takes
//! room as it goes, and hashes and writes while it receives; when it is done, its record joins the journal, and one sync
//! makes the records and bytes of all who wait durable. What is written is never written again: all begins at multiples of
//! 4 KiB, so that no write, torn or not, touches what is durable.
//!
//! Where the file system can, all of it goes past the page cache: objects of up to 1 MiB are collected in memory that lies
//! as such writes want it, and those of a group, which lie side by side in the volume, are written with the group's
//! records by one call. The first read of an object then comes from the disk, later ones from the cache.
//!
//! # Files in the directory
//!
//! | file | content | written |
//! |---|---|---|
//! | `lock` | nothing; locked while the store is open | once |
//! | `volume-XXXXXXXX` | header, begin block, then objects and journal blocks in the order that room was taken | zeros ahead, then once |
//! | `index-XXXXXXXXXXXXXXXX` | segment of the key index: records in key order | once, synced before the manifest names it |
//! | `manifest` | which segments there are, and the place in the journal that they know all before | replaced by renaming `manifest.new` |
//!
//! Losing segments or manifest loses nothing: opening reads all journals and makes them anew.
//!
//! # Blocks of a volume
//!
//! All of 4 KiB; numbers are little endian; a keyed BLAKE3 tag of 16 bytes, under a secret that every volume's header
//! has, covers each whole block, so that no object's content can pass for one.
//!
//! | block | place | content after magic (8) and tag (16) |
//! |---|---|---|
//! | `CAIRNVOL` header | 0 | version u16, volume u32, capacity u64, secret 32 |
//! | `CAIRNBEG` begin, when the volume comes into use | 4096 | volume u32, volume before u32, where its journal ends u64 |
//! | `CAIRNJRN` journal | where room was | volume u32, block number u32, group u64, index in group u32, blocks in group u32, offset of the block before in this volume u64, records u64, then records |
//!
//! | record | content |
//! |---|---|
//! | 1 put | key 16, length u64, BLAKE3 digest 32, put ended u64 ms, home volume u32, synced before u8, extents u16, each volume u32, first block u32, blocks u32 |
//! | 2 delete | key 16, home volume of the put u32 |
//! | 3 settled | group u64 whose missing blocks a restart gave up |
//!
//! An object is one run of bytes over its extents: its data, each 128 MiB followed by a page with the BLAKE3 chaining values
//! of their 64 KiB groups, the last page shorter, then the values of the pages if there is more than one. Whoever knows
//! length and digest verifies any group by its page. Rows of a segment are the same records, 4 KiB blocks with a keyed
//! BLAKE3 checksum; its footer has the first key of each block and a filter of 10 bits a key, which are all that stays in
//! memory: 20 MB for ten million objects.
//!
//! # Durability
//!
//! One sync per group of waiting writers covers bytes and records alike, in no order among them. A group's records are
//! written only once the group before is durable. So after a crash all groups but the last are known to be whole, and the
//! bytes of the last one's objects are read and checked: those that are whole stay, the others, which nobody was told
//! of, are deleted. A restart looks for the journal from the manifest's place on, which is never more than
//! `checkpoint_bytes` back. Objects over `shared_sync_bytes_max` are synced by their writers first, so nobody else waits
//! for their bytes, nor does a restart. After a failed write of a group or a failed sync the store takes no writes
//! until it is restarted: a later sync that succeeds would prove nothing.
//!
//! # Room
//!
//! Deleting an object gives its blocks back to the file system; a volume without objects goes, once what its journal still
//! says is said elsewhere. Room that an object took and did not need is used by small ones, and what is left when
//! its volume is full is given back; a crash loses track of such room until the volume goes.

mod buffers;
mod cache;
mod chunks;
mod commit;
mod config;
mod index;
mod journal;
mod layout;
mod maintain;
mod manifest;
mod open;
mod read;
mod segment;
mod shared;
mod volumes;
mod write;

pub use config::VolumeConfig;
pub use open::RecoveryReport;

use async_trait::async_trait;
use cairn_archive::ObjectKey;
use cairn_process::{clock::Clock, disk::Disk};
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
};
use commit::Request;
use shared::Shared;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};

/// A thread that panicked has changed what it guards in full or not at all, or has ended the store's writing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn exhausted(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Exhausted, message)
}

/// Runs blocking work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("object store: {error}")))?
}

/// An object store in a directory of this machine. Use it within a tokio runtime.
///
/// Dropped without `close`, it ends its threads where they are, as a crash would; nothing finished is lost.
pub struct VolumeStore {
    shared: Arc<Shared>,
    report: RecoveryReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// No puts any more.
    closing: AtomicBool,
    /// Nothing any more.
    closed: AtomicBool,
}

impl VolumeStore {
    /// Opens the store, creating it when the directory is empty or missing. Blocking, in bounded time.
    ///
    /// # Errors
    /// `Conflict` when another process has it open; `Invalid` for a bad configuration; `Corrupt` when the directory has
    /// volumes none of which can be read.
    pub fn open(disk: Arc<dyn Disk>, config: VolumeConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        config.check()?;
        let opened = open::open(disk, Arc::new(config), clock)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(run).map_err(|error| StoreError::io("starting a thread", &error))
        };
        let (closing, closed) = Default::default();
        let (committer, maintainer) = (opened.committer, opened.maintainer);
        let mut store =
            Self { shared: opened.shared, report: opened.report, threads: Mutex::default(), closing, closed };
        let threads = vec![
            spawn("volumes-commit", Box::new(move || committer.run()))?,
            spawn("volumes-upkeep", Box::new(move || maintainer.run()))?,
        ];
        store.threads = Mutex::new(threads);
        Ok(store)
    }

    /// What opening found and did.
    pub fn recovery(&self) -> RecoveryReport {
        self.report
    }

    /// A writer's place.
    fn permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.check_open()?;
        if self.closing.load(Ordering::Acquire) {
            return Err(unavailable("object store is closing"));
        }
        let permit = self.shared.writers.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::Closed => unavailable("object store is closed"),
            TryAcquireError::NoPermits => exhausted("too many objects on their way in"),
        })?;
        self.shared.check_writable()?;
        Ok(permit)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(unavailable("object store is closed")) } else { Ok(()) }
    }
}

/// Whether one more object can be taken.
fn check_room(shared: &Shared) -> Result<(), StoreError> {
    // Slow upkeep holds what comes in back; only upkeep that fails refuses it.
    if shared.index_is_behind() && !shared.maintenance.settle() {
        return Err(exhausted("the object index can't be written down"));
    }
    if shared.volumes.is_low() && shared.volumes.room()? == 0 {
        return Err(exhausted("no room left on the object store's disk"));
    }
    Ok(())
}

/// Ends the threads: the one that makes objects durable first, which leaves its last checkpoint to the other.
fn end_threads(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.queue.end();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the object store has panicked");
        }
        shared.maintenance.settle();
        shared.maintenance.end();
    }
}

impl Drop for VolumeStore {
    fn drop(&mut self) {
        self.shared.maintenance.end();
        end_threads(&self.shared, std::mem::take(&mut *lock(&self.threads)));
    }
}

#[async_trait]
impl ObjectStore for VolumeStore {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let permit = self.permit()?;
        let taken = move |shared: &Shared| match shared.index.get(key)? {
            Some(_) => Err(StoreError::new(StoreErrorKind::Conflict, format!("object {key} is there already"))),
            None => check_room(shared),
        };
        // Memory says it all for almost every new key: no thread is needed for that.
        let shared = &self.shared;
        if !shared.index.may_read(key) && !shared.volumes.is_low() && !shared.index_is_behind() {
            taken(shared)?;
        } else {
            let shared = shared.clone();
            blocking(move || taken(&shared)).await?;
        }
        Ok(Box::new(write::VolumeWriter::new(self.shared.clone(), key, length_hint, permit)))
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let (permit, shared, object) = (self.permit()?, self.shared.clone(), *object);
        let check = move || match shared.index.get(object.key)? {
            Some(there) if there.info.object != object => {
                let message = format!("object {} has another length or digest here", object.key);
                Err(StoreError::new(StoreErrorKind::Conflict, message))
            }
            _ => check_room(&shared),
        };
        blocking(check).await?;
        let writer = write::VolumeWriter::new(self.shared.clone(), object.key, Some(object.length), permit);
        Ok(Box::new(writer.repairing(object)))
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.check_open()?;
        read::stream(self.shared.clone(), *object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.check_open()?;
        let shared = self.shared.clone();
        blocking(move || Ok(shared.index.get(key)?.ok_or_else(|| read::not_found(key))?.info)).await
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        self.check_open()?;
        let shared = self.shared.clone();
        blocking(move || shared.index.list(after, max)).await
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.check_open()?;
        let shared = self.shared.clone();
        // On a task of its own: dropped by its caller, a deletion still gives the room back.
        let deleted = tokio::spawn(async move {
            let (reply, replied) = oneshot::channel();
            shared.check_writable()?;
            shared.queue.push(Request::Delete { key, reply }, shared.config.writers_max)?;
            let deleted = replied.await.map_err(|_| unavailable("object store ended"))??;
            blocking(move || {
                if let Some(entry) = deleted
                    && let Err(error) = shared.volumes.punch(&entry.extents)
                {
                    tracing::warn!(%error, "room of a deleted object can't be given back to the disk");
                }
                shared.maintenance.wake();
                Ok(())
            })
            .await
        });
        deleted.await.map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("deleting: {error}")))?
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.check_open()?;
        let shared = self.shared.clone();
        blocking(move || Ok(StoreSpace { available: Some(shared.volumes.room()?), used: shared.totals().1 })).await
    }

    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.shared.volumes.capacity()))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closing.store(true, Ordering::Release);
        // All permits: every writer is done.
        let all = self.shared.config.writers_max.try_into().unwrap_or(u32::MAX);
        let permits = self.shared.writers.acquire_many(all).await;
        let _permits = permits.map_err(|_| unavailable("object store is closed"))?;
        self.closed.store(true, Ordering::Release);
        let (shared, threads) = (self.shared.clone(), std::mem::take(&mut *lock(&self.threads)));
        blocking(move || {
            end_threads(&shared, threads);
            shared.volumes.close_files();
            drop(lock(&shared.lock).take());
            shared.check_writable()
        })
        .await
    }
}
