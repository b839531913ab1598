#![forbid(unsafe_code)]
//! `ObjectStore` over any S3: Amazon's, or one on premises that knows conditional puts.
//!
//! # Names in the bucket
//!
//! | name | content | metadata |
//! |---|---|---|
//! | `PREFIXobjects/KEY` | the object, as it is: a Part 10 file that any tool reads | `cairn-writer`, and but for objects in parts `cairn-blake3`, `cairn-put-ended-ms`; up to 40 groups `cairn-tree` |
//! | `PREFIXtrees/KEY-WRITER` | chaining values of an object of more than 40 groups: its pages, then the values of the pages | `cairn-writer`, `cairn-blake3`, `cairn-put-ended-ms` |
//! | `PREFIXprobe` | nothing; written when the store is opened | |
//!
//! So an object of up to 2.5 MiB is one request with all that belongs to it, and any read's answer has what verifies it.
//! Of a longer one the hashes are stored first, under a name of its writer's own, then the object, which names its writer.
//! Whoever sees an object can verify it; hashes without an object are left by a writer that ended, and removed when old.
//!
//! # Puts
//!
//! Objects up to `part_bytes` are put at once, longer ones in parts while more is received. What makes an object readable
//! is one request with `If-None-Match: *`, so that a present key is never written over. When its answer is lost, throttled
//! or late, it is tried again, after reading back: the object's `cairn-writer` says whether it is there already and by
//! whom. CRC32C goes with all bytes, and the store checks it. The time at which a put ended is taken before that last
//! request, by our clock; the put has ended at most `deadline` later.
//!
//! # What the store must be
//!
//! Durable when it answers, and known to refuse a conditional put: this is tried at the start. SeaweedFS answers from the
//! page cache unless told otherwise (`fs.configure -fsync`, or replication over hosts that don't fail together); a site that
//! wants OS-01 through a power cut needs that. The bucket is this archive's alone, without rules that expire or move
//! `objects/` and `trees/`; in a bucket with versions what is deleted stays until a rule of the bucket removes it, which is
//! told at the start. Several processes use one bucket at once: nothing is kept in a process that another could change,
//! so OS-13 has no object here.
//!
//! # Failures
//!
//! Throttling, faults of the connection and answers that make no sense are tried again with growing pauses, at random,
//! until `deadline`; then they are `Unavailable`. No room is `Exhausted`. Credentials, rights, bucket or region that the
//! store does not accept are `Unavailable` too, at once, with a line of level ERROR, since senders must keep what they
//! have; when the store is opened they are `Invalid`.

mod budget;
mod cache;
mod config;
mod credentials;
mod failure;
mod leavings;
mod list;
mod meta;
mod metrics;
mod pieces;
mod read;
mod requests;
mod shared;
mod upkeep;
mod upload;
mod usage;
mod write;

pub use config::S3Config;

use async_trait::async_trait;
use aws_sdk_s3::types::{BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration};
use cairn_archive::ObjectKey;
use cairn_process::clock::Clock;
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
};
use failure::{Failure, Fate};
use shared::Shared;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    task::JoinHandle,
};

/// How long a question for room waits for the store, or for the first count of its objects.
const SPACE_WAIT: Duration = Duration::from_secs(2);
/// Region that takes no constraint.
const FIRST_REGION: &str = "us-east-1";

fn unavailable(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn invalid(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, message)
}

/// An object store in a bucket. Use it within a tokio runtime. Dropped without `close`, it ends as in a crash.
pub struct S3Store {
    shared: Arc<Shared>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
    /// No puts any more.
    closing: AtomicBool,
    /// Nothing any more.
    closed: AtomicBool,
}

impl S3Store {
    /// Opens the store and tries what it relies on.
    ///
    /// # Errors
    /// `Invalid` for a bad configuration, credentials, rights or bucket, and for a store that does not know conditional
    /// puts; `Unavailable` when it can't be reached.
    pub async fn open(config: S3Config, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        config.check()?;
        let read = config.clone();
        // Reads files.
        let requests = tokio::task::spawn_blocking(move || requests::Requests::new(&read)).await;
        let requests = requests.map_err(|error| StoreError::new(StoreErrorKind::Internal, error.to_string()))??;
        let shared = Arc::new(Shared {
            requests,
            clock,
            names: meta::Names::new(&config.prefix),
            budget: budget::Budget::new(config.memory_bytes_max, config.part_bytes, config.memory_wait_max),
            cache: cache::HashCache::new(config.hash_cache_bytes),
            usage: usage::Usage::default(),
            writers: Arc::new(Semaphore::new(config.writers_max)),
            config,
        });
        shared.try_out().await.map_err(|failure| match failure.fate {
            Fate::Denied | Fate::Missing => invalid(failure.message),
            _ => failure.into(),
        })?;
        let upkeep = Mutex::new(Some(tokio::spawn(upkeep::run(shared.clone()))));
        let (closing, closed) = Default::default();
        Ok(Self { shared, upkeep, closing, closed })
    }

    /// A writer's place.
    fn permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.check_open()?;
        if self.closing.load(Ordering::Acquire) {
            return Err(unavailable("object store is closing"));
        }
        self.shared.writers.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::Closed => unavailable("object store is closed"),
            TryAcquireError::NoPermits => {
                StoreError::new(StoreErrorKind::Exhausted, "too many objects on their way in")
            }
        })
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(unavailable("object store is closed")) } else { Ok(()) }
    }

    fn end_upkeep(&self) {
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        upkeep.inspect(JoinHandle::abort);
    }
}

impl Shared {
    /// Whether the bucket is there, for us, and refuses to write over what is there.
    async fn try_out(&self) -> Result<(), Failure> {
        match self.check_bucket(self.requests.deadline()).await {
            Err(Failure { fate: Fate::Missing, .. }) if self.config.create_bucket => self.create_bucket().await?,
            checked => checked?,
        }
        let versions = || self.requests.client.get_bucket_versioning().bucket(&self.config.bucket).send();
        match self.requests.until_done("get-versioning", self.requests.deadline(), versions).await {
            Ok(versions) if versions.status() == Some(&BucketVersioningStatus::Enabled) => {
                tracing::warn!(
                    "the bucket keeps versions: what is deleted stays there until a rule of it says otherwise"
                );
            }
            // Not every store tells, or lets us ask.
            Ok(_) | Err(_) => {}
        }
        for again in [false, true] {
            let put = || {
                let put = self.requests.client.put_object().bucket(&self.config.bucket).key(self.names.probe());
                put.if_none_match("*").content_length(0).send()
            };
            match self.requests.until_done("probe", self.requests.deadline(), put).await {
                Err(Failure { fate: Fate::Present, .. }) => {}
                Ok(_) if !again => {}
                Ok(_) => {
                    let message = "the object store does not know conditional puts: it would write over what is there";
                    return Err(Failure::new(Fate::Denied, message));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    async fn check_bucket(&self, deadline: requests::Deadline) -> Result<(), Failure> {
        let head = || self.requests.client.head_bucket().bucket(&self.config.bucket).send();
        let found = self.requests.until_done("head-bucket", deadline, head).await;
        found.map(|_| ()).map_err(|failure| match failure.fate {
            Fate::Missing => Failure::new(Fate::Missing, format!("bucket {} does not exist", self.config.bucket)),
            _ => failure,
        })
    }

    async fn create_bucket(&self) -> Result<(), Failure> {
        let place = (self.config.region != FIRST_REGION && self.config.endpoint.is_none()).then(|| {
            let region = BucketLocationConstraint::from(self.config.region.as_str());
            CreateBucketConfiguration::builder().location_constraint(region).build()
        });
        let create = || {
            let create = self.requests.client.create_bucket().bucket(&self.config.bucket);
            create.set_create_bucket_configuration(place.clone()).send()
        };
        let created = self.requests.until_done("create-bucket", self.requests.deadline(), create).await;
        // Another process, or a try whose answer was lost, may have been faster.
        match created {
            Ok(_) => Ok(()),
            Err(failure) => self.check_bucket(self.requests.deadline()).await.map_err(|_| failure),
        }
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        self.end_upkeep();
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let permit = self.permit()?;
        Ok(Box::new(write::S3Writer::new(self.shared.clone(), key, length_hint, permit)))
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let (permit, key) = (self.permit()?, object.key);
        match self.shared.stat(key).await {
            Ok(info) if info.object != *object => {
                let message = format!("object {key} has another length or digest here");
                return Err(StoreError::new(StoreErrorKind::Conflict, message));
            }
            // What it says of itself may be what is damaged.
            Err(error) if !matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Corrupt) => {
                return Err(error);
            }
            _ => {}
        }
        let writer = write::S3Writer::new(self.shared.clone(), key, Some(object.length), permit);
        Ok(Box::new(writer.repairing(*object)))
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.check_open()?;
        read::open(self.shared.clone(), *object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.check_open()?;
        self.shared.stat(key).await
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        self.check_open()?;
        self.shared.list(after, max).await
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.check_open()?;
        // On a task of its own: dropped by its caller, a deletion still removes the hashes too.
        let shared = self.shared.clone();
        let deleted = tokio::spawn(async move { shared.delete(key).await }).await;
        deleted.map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("deleting: {error}")))?
    }

    async fn restore(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.check_open()?;
        self.shared.restore(key).await
    }

    /// A bucket has no known bound. `used` is of the last count of all objects, and what this process did since; before the
    /// first count has ended, of the latter alone. Fails when the store does not answer.
    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.check_open()?;
        self.shared.check_bucket(self.shared.requests.deadline_of(SPACE_WAIT)).await?;
        self.shared.count_when_due();
        let _ = tokio::time::timeout(SPACE_WAIT, self.shared.usage.wait_counted()).await;
        Ok(StoreSpace { available: None, used: self.shared.usage.used() })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closing.store(true, Ordering::Release);
        // All permits: every writer is done, and what those that failed left is removed.
        let all = self.shared.config.writers_max.try_into().unwrap_or(u32::MAX);
        let permits = self.shared.writers.acquire_many(all).await;
        let _permits = permits.map_err(|_| unavailable("object store is closed"))?;
        self.closed.store(true, Ordering::Release);
        self.end_upkeep();
        Ok(())
    }
}
