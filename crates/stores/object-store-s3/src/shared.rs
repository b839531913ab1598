//! What writers, readers and upkeep share, and the requests that several of them make.

use crate::budget::Budget;
use crate::cache::HashCache;
use crate::config::S3Config;
use crate::failure::{Failure, Fate};
use crate::meta::{Facts, Meta, Names};
use crate::requests::{Deadline, Requests};
use crate::usage::Usage;
use aws_sdk_s3::types::{RestoreRequest, StorageClass};
use cairn_archive::ObjectKey;
use cairn_process::clock::Clock;
use cairn_store_api::{ObjectInfo, ObjectRef, StoreError, StoreErrorKind};
use std::sync::Arc;
use tokio::sync::Semaphore;

pub(crate) struct Shared {
    pub(crate) config: S3Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) requests: Requests,
    pub(crate) names: Names,
    pub(crate) budget: Budget,
    pub(crate) cache: HashCache,
    pub(crate) usage: Usage,
    /// One permit for each writer.
    pub(crate) writers: Arc<Semaphore>,
}

/// An object as the store has it.
pub(crate) struct Found {
    pub(crate) length: u64,
    /// `None`: nothing that we wrote.
    pub(crate) meta: Option<Meta>,
}

pub(crate) fn not_found(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("object {key} does not exist"))
}

pub(crate) fn corrupt(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("object {key} is damaged in the object store"))
}

impl Shared {
    pub(crate) async fn find(&self, key: ObjectKey, deadline: Deadline) -> Result<Found, Failure> {
        self.head("stat", &self.names.object(key), deadline).await
    }

    async fn head(&self, what: &'static str, name: &str, deadline: Deadline) -> Result<Found, Failure> {
        let head = || self.requests.client.head_object().bucket(&self.config.bucket).key(name).send();
        let found = self.requests.until_done(what, deadline, head).await?;
        let length = found.content_length.and_then(|length| u64::try_from(length).ok());
        let length = length.ok_or_else(|| Failure::new(Fate::Wrong, format!("{what}: an object without a length")))?;
        Ok(Found { length, meta: Meta::decode(found.metadata.as_ref()) })
    }

    /// Digest and end of the put, wherever they are.
    async fn facts(&self, key: ObjectKey, meta: &Meta, deadline: Deadline) -> Result<Facts, StoreError> {
        if let Some(facts) = meta.facts {
            return Ok(facts);
        }
        match self.head("stat-hashes", &self.names.tree(key, &meta.writer), deadline).await {
            Ok(found) => found.meta.and_then(|meta| meta.facts).ok_or_else(|| corrupt(key)),
            Err(Failure { fate: Fate::Missing, .. }) => Err(corrupt(key)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// What the store knows of an object; `NotFound` when it is not there, `Corrupt` when it is not as we wrote it.
    pub(crate) async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        let deadline = self.requests.deadline();
        let found = match self.find(key, deadline).await {
            Ok(found) => found,
            Err(Failure { fate: Fate::Missing, .. }) => return Err(not_found(key)),
            Err(failure) => return Err(failure.into()),
        };
        let meta = found.meta.ok_or_else(|| corrupt(key))?;
        let facts = match self.facts(key, &meta, deadline).await {
            // Deleted meanwhile, or damaged.
            Err(error) if error.kind() == StoreErrorKind::Corrupt => match self.find(key, deadline).await {
                Err(Failure { fate: Fate::Missing, .. }) => return Err(not_found(key)),
                _ => return Err(error),
            },
            facts => facts?,
        };
        let object = ObjectRef { key, length: found.length, digest: facts.digest };
        Ok(ObjectInfo { object, put_ended_at_ms: facts.ended_ms })
    }

    /// The class that objects are put in. Their hashes stay in the bucket's own: they are small, and read first.
    pub(crate) fn storage_class(&self) -> Option<StorageClass> {
        self.config.storage_class.as_deref().map(StorageClass::from)
    }

    /// Asks that an object that was put away be readable again, and its hashes.
    pub(crate) async fn restore(&self, key: ObjectKey) -> Result<(), StoreError> {
        let deadline = self.requests.deadline();
        let found = self.find(key, deadline).await.map_err(|failure| match failure.fate {
            Fate::Missing => not_found(key),
            _ => failure.into(),
        })?;
        self.restore_named(&self.names.object(key), deadline).await?;
        if let Some(meta) = found.meta.filter(|meta| meta.has_tree_beside(found.length)) {
            self.restore_named(&self.names.tree(key, &meta.writer), deadline).await?;
        }
        Ok(())
    }

    async fn restore_named(&self, name: &str, deadline: Deadline) -> Result<(), Failure> {
        let days = RestoreRequest::builder().days(self.config.restored_days.into()).build();
        let restore = || {
            let restore = self.requests.client.restore_object().bucket(&self.config.bucket).key(name);
            restore.restore_request(days.clone()).send()
        };
        match self.requests.until_done("restore", deadline, restore).await {
            // Of one that is not put away the store says that its state is not such.
            Ok(_) | Err(Failure { fate: Fate::Restoring | Fate::Archived, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes an object, then its hashes.
    pub(crate) async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        let deadline = self.requests.deadline();
        let found = match self.find(key, deadline).await {
            Ok(found) => found,
            Err(Failure { fate: Fate::Missing, .. }) => return Ok(()),
            Err(failure) => return Err(failure.into()),
        };
        self.remove("delete", &self.names.object(key), deadline).await?;
        self.usage.remove(found.length);
        self.cache.remove(key);
        if let Some(meta) = found.meta.filter(|meta| meta.has_tree_beside(found.length)) {
            self.remove("delete-hashes", &self.names.tree(key, &meta.writer), deadline).await?;
        }
        Ok(())
    }

    pub(crate) async fn remove(&self, what: &'static str, name: &str, deadline: Deadline) -> Result<(), Failure> {
        let delete = || self.requests.client.delete_object().bucket(&self.config.bucket).key(name).send();
        match self.requests.until_done(what, deadline, delete).await {
            Ok(_) | Err(Failure { fate: Fate::Missing, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) async fn abort(&self, name: &str, id: &str, deadline: Deadline) -> Result<(), Failure> {
        let abort = || {
            let abort = self.requests.client.abort_multipart_upload().bucket(&self.config.bucket);
            abort.key(name).upload_id(id).send()
        };
        match self.requests.until_done("abort-upload", deadline, abort).await {
            Ok(_) | Err(Failure { fate: Fate::Missing, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
