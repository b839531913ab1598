//! An object store over two others: objects come in where it is hot, and are moved to where it is cold, and back.
//!
//! Responsible for: looking in both, so that nobody needs to know where an object is; moving, so that it is never nowhere
//! (TI-01); deleting from both (I6). Reads and writes: the two stores. It keeps nothing of its own: where an object is, is
//! seen by looking, the hot store first.
#![forbid(unsafe_code)]

mod away;
mod moving;
mod read;

pub use away::{AwayStore, Open};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Digest, ObjectKey};
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
    Tier,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::Mutex;

/// Objects that can be moved or deleted at once; those with one number wait for each other.
const TURNS: usize = 64;
/// A cold store that takes longer to say whether it has a key is away.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The two stores as one.
pub struct TieredStore {
    both: Arc<Both>,
    /// Of an object: it is moved or deleted, never both at once (TI-04).
    turns: [Mutex<()>; TURNS],
}

/// The two stores.
pub(crate) struct Both {
    hot: Arc<dyn ObjectStore>,
    cold: Arc<dyn ObjectStore>,
    /// Objects that were moved to the cold store.
    moved: AtomicU64,
    /// Objects that were moved to the hot store: who looks there first, and then in the cold one, may miss one.
    recalled: AtomicU64,
}

impl Both {
    pub(crate) fn store(&self, tier: Tier) -> &dyn ObjectStore {
        match tier {
            Tier::Hot => &*self.hot,
            Tier::Cold => &*self.cold,
        }
    }

    /// What is known of an object, and where it is. It may be moved meanwhile: who finds it nowhere looks again.
    async fn find(&self, key: ObjectKey) -> Result<(Tier, ObjectInfo), StoreError> {
        for tier in [Tier::Hot, Tier::Cold] {
            match self.store(tier).stat(key).await {
                Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                found => return Ok((tier, found?)),
            }
        }
        Ok((Tier::Hot, self.hot.stat(key).await?))
    }
}

impl TieredStore {
    /// A store over two. Nothing else may write to them.
    pub fn new(hot: Arc<dyn ObjectStore>, cold: Arc<dyn ObjectStore>) -> Self {
        let turns = std::array::from_fn(|_| Mutex::default());
        let both = Both { hot, cold, moved: AtomicU64::default(), recalled: AtomicU64::default() };
        Self { both: Arc::new(both), turns }
    }

    /// The turn to move or delete an object.
    pub(crate) async fn turn(&self, key: ObjectKey) -> Result<tokio::sync::MutexGuard<'_, ()>, StoreError> {
        // Keys are random, or of a time: in either case their last byte is of no pattern.
        let number = key.as_bytes().last().map_or(0, |byte| usize::from(*byte) % TURNS);
        let turn = self.turns.get(number);
        Ok(turn.ok_or_else(|| StoreError::new(StoreErrorKind::Internal, "no such turn"))?.lock().await)
    }
}

/// Whether a key is taken in the cold store. It is looked for there while the hot one takes the bytes, and the answer is waited
/// for only then. A cold store that is away is no reason to refuse an object: keys are minted once, and bytes that were there
/// before stay as they are.
async fn taken(cold: Arc<dyn ObjectStore>, key: ObjectKey) -> bool {
    tokio::time::timeout(LOOK_MAX, cold.stat(key)).await.is_ok_and(|found| found.is_ok())
}

fn conflict(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, format!("object {key} is there already"))
}

#[async_trait]
impl ObjectStore for TieredStore {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let (both, moved) = (self.both.clone(), self.both.moved.load(Ordering::Acquire));
        let mut taken = Box::pin(taken(both.cold.clone(), key));
        // A directory answers at once; nobody is woken for that.
        let is_taken = match std::future::poll_fn(|context| Poll::Ready(taken.as_mut().poll(context))).await {
            Poll::Ready(true) => return Err(conflict(key)),
            Poll::Ready(false) => None,
            Poll::Pending => Some(tokio::spawn(taken)),
        };
        let writer = self.both.hot.put(key, length_hint).await?;
        Ok(Box::new(Writer { both, key, writer, is_taken, moved }))
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        match self.both.find(object.key).await {
            Ok((tier, _)) => self.both.store(tier).repair(object).await,
            // It is gone, or where nobody can look: it is brought to where objects come in.
            Err(error) if matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Unavailable) => {
                self.both.hot.repair(object).await
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        read::open(self.both.clone(), *object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        Ok(self.both.find(key).await?.1)
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        let recalled = self.both.recalled.load(Ordering::Acquire);
        // In this order: what is moved to the cold store meanwhile is found in either.
        let mut pages = vec![self.both.hot.list(after, max).await?, self.both.cold.list(after, max).await?];
        if self.both.recalled.load(Ordering::Acquire) != recalled {
            pages.push(self.both.hot.list(after, max).await?);
        }
        let mut more = pages.iter().any(|page| page.more);
        let mut merged = BTreeMap::new();
        for info in pages.into_iter().flat_map(|page| page.objects) {
            // In both it is hot.
            merged.entry(info.object.key).or_insert(info);
        }
        more |= merged.len() > max;
        Ok(ObjectPage { objects: merged.into_values().take(max).collect(), more })
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        let _turn = self.turn(key).await?;
        self.both.hot.delete(key).await?;
        self.both.cold.delete(key).await
    }

    async fn restore(&self, key: ObjectKey) -> Result<(), StoreError> {
        let (tier, _) = self.both.find(key).await?;
        self.both.store(tier).restore(key).await
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        let hot = self.both.hot.space().await?;
        // Stores go on while the cold store is away.
        let cold = self.both.cold.space().await.map_or(0, |space| space.used);
        Ok(StoreSpace { used: hot.used + cold, ..hot })
    }

    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.both.hot.file_bytes().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let hot = self.both.hot.close().await;
        self.both.cold.close().await.and(hot)
    }
}

/// A writer to the hot store.
struct Writer {
    both: Arc<Both>,
    key: ObjectKey,
    writer: Box<dyn ObjectWriter>,
    /// It is looked whether the cold store has such a key.
    is_taken: Option<tokio::task::JoinHandle<bool>>,
    /// Moves to the cold store when it began.
    moved: u64,
}

impl Writer {
    async fn look(&mut self) -> Result<(), StoreError> {
        let Some(is_taken) = self.is_taken.take() else { return Ok(()) };
        match is_taken.await {
            Ok(true) => Err(conflict(self.key)),
            Ok(false) => Ok(()),
            Err(error) => Err(StoreError::new(StoreErrorKind::Internal, format!("looking for a key: {error}"))),
        }
    }
}

impl Both {
    /// Another writer may have been faster, and what it wrote been moved since: then the key was free in the hot store only because of
    /// that, and what was written there is not kept.
    async fn settled(&self, info: ObjectInfo, moved: u64) -> Result<ObjectInfo, StoreError> {
        if self.moved.load(Ordering::Acquire) == moved {
            return Ok(info);
        }
        match self.cold.stat(info.object.key).await {
            Ok(other) if other.object != info.object => {
                self.hot.delete(info.object.key).await?;
                Err(conflict(info.object.key))
            }
            _ => Ok(info),
        }
    }
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.writer.write(bytes).await
    }

    async fn finish(mut self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        self.look().await?;
        self.both.settled(self.writer.finish().await?, self.moved).await
    }

    async fn finish_as(mut self: Box<Self>, length: u64, digest: Digest) -> Result<ObjectInfo, StoreError> {
        self.look().await?;
        self.both.settled(self.writer.finish_as(length, digest).await?, self.moved).await
    }
}
