//! An object on its way in: kept in memory up to a part's size and put at once, longer ones in parts as they fill.

use crate::failure::{Failure, Fate};
use crate::meta::{Facts, GROUPS_IN_METADATA, Meta};
use crate::pieces::{Pieces, Sealed};
use crate::shared::Shared;
use crate::upload::Upload;
use crate::{leavings::Leavings, unavailable};
use async_trait::async_trait;
use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use cairn_archive::{Digest, ObjectKey};
use cairn_store_api::tree::{PAGE_DATA, Shape, TreeHasher};
use cairn_store_api::{ObjectInfo, ObjectRef, ObjectWriter, StoreError, StoreErrorKind};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes hashed before others get their turn on the thread.
const TURN: usize = 256 * 1024;

/// Hashes of an object while it comes in.
struct Hashing {
    hasher: TreeHasher,
    /// Chaining values of full pages.
    tree: Vec<u8>,
    length: u64,
}

impl Hashing {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_page = self.length % PAGE_DATA;
            if in_page == 0 && self.length > 0 {
                self.tree.extend(self.hasher.end_page());
            }
            let room = usize::try_from(PAGE_DATA - in_page).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.hasher.update(now);
            self.length += now.len() as u64;
            bytes = later;
        }
    }

    fn finish(mut self) -> (Digest, Vec<u8>) {
        let (digest, tail) = self.hasher.finish();
        self.tree.extend(tail);
        (Digest(*digest.as_bytes()), self.tree)
    }
}

pub(crate) struct S3Writer {
    shared: Arc<Shared>,
    key: ObjectKey,
    hint: Option<u64>,
    hashing: Hashing,
    pieces: Pieces,
    upload: Option<Upload>,
    leavings: Leavings,
    /// The object whose bytes are brought again.
    repairs: Option<ObjectRef>,
    /// Why nothing more is taken; a write that was cut off stays so.
    failed: Option<StoreError>,
}

impl S3Writer {
    pub(crate) fn new(shared: Arc<Shared>, key: ObjectKey, hint: Option<u64>, permit: OwnedSemaphorePermit) -> Self {
        let hashing = Hashing { hasher: TreeHasher::new(), tree: Vec::new(), length: 0 };
        let leavings = Leavings::new(shared.clone(), key, permit);
        let (pieces, upload, repairs, failed) = Default::default();
        Self { shared, key, hint, hashing, pieces, upload, leavings, repairs, failed }
    }

    /// Takes the place of what is there.
    pub(crate) fn repairing(mut self, object: ObjectRef) -> Self {
        self.repairs = Some(object);
        self
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let part_bytes = self.shared.config.part_bytes;
        let mut rest = bytes;
        let mut turn = 0;
        while !rest.is_empty() {
            // Sent when more comes, not when full: an object of just this size needs no parts.
            if self.pieces.length == part_bytes {
                self.send_part().await?;
            }
            if turn >= TURN {
                tokio::task::yield_now().await;
                turn = 0;
            }
            let taken = self.pieces.take(rest, self.hint, &self.shared.budget, part_bytes).await?;
            let (now, later) = rest.split_at(taken);
            self.hashing.update(now);
            turn += taken;
            rest = later;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let part = std::mem::take(&mut self.pieces).seal();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            upload @ None => {
                let begun = Upload::begin(self.shared.clone(), self.key, self.leavings.writer()).await?;
                self.leavings.upload(begun.id());
                upload.insert(begun)
            }
        };
        upload.send(part).await
    }

    async fn end(mut self, expected: Option<ObjectRef>) -> Result<ObjectInfo, StoreError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.upload.is_some() {
            self.send_part().await?;
        }
        let Self { shared, key, hashing, pieces, upload, mut leavings, repairs, .. } = self;
        let length = hashing.length;
        let (digest, tree) = hashing.finish();
        let object = ObjectRef { key, length, digest };
        if expected.or(repairs).is_some_and(|expected| expected != object) {
            return Err(StoreError::new(StoreErrorKind::Corrupt, format!("what was brought is not object {key}")));
        }
        let parts = match upload {
            Some(upload) => Some(upload.wait().await?),
            None => None,
        };
        let writer = leavings.writer().to_owned();
        let facts = Facts { digest, ended_ms: shared.clock.unix_ms() };
        let mut meta = Meta { writer, facts: Some(facts), tree: None };
        let groups = Shape::of(length).groups();
        if groups > GROUPS_IN_METADATA || parts.is_some() {
            leavings.tree();
            shared.put_tree(key, &meta, tree).await?;
        } else if !tree.is_empty() {
            meta.tree = Some(tree);
        }
        if repairs.is_some() {
            // From here on nothing may be removed that the object, once it is there, needs.
            leavings.all_stays();
            let replaced = shared.replace(key, &meta, parts, pieces.seal()).await?;
            if !replaced {
                shared.usage.add(length);
            }
            return Ok(ObjectInfo { object, put_ended_at_ms: facts.ended_ms });
        }
        leavings.sent();
        let stored = match parts {
            Some((id, parts)) => shared.complete(key, &meta.writer, &id, parts).await,
            None => shared.put_object(key, &meta, pieces.seal()).await,
        };
        match stored {
            Ok(()) => leavings.nothing(),
            Err(error) => {
                if error.kind() == StoreErrorKind::Conflict {
                    leavings.not_ours();
                }
                return Err(error);
            }
        }
        shared.usage.add(length);
        Ok(ObjectInfo { object, put_ended_at_ms: facts.ended_ms })
    }
}

#[async_trait]
impl ObjectWriter for S3Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.failed = Some(unavailable("writing an object was cut off"));
        let length = self.hashing.length.saturating_add(bytes.len() as u64);
        let taken = if length > self.shared.config.object_bytes_max {
            Err(StoreError::new(StoreErrorKind::Invalid, "object is longer than the store takes"))
        } else {
            self.take(&bytes).await
        };
        self.failed = taken.clone().err();
        taken
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        self.end(None).await
    }

    async fn finish_as(self: Box<Self>, length: u64, digest: Digest) -> Result<ObjectInfo, StoreError> {
        let expected = ObjectRef { key: self.key, length, digest };
        self.end(Some(expected)).await
    }
}

impl Shared {
    /// Puts the hashes of an object that is about to be there. Their name is its writer's alone.
    async fn put_tree(&self, key: ObjectKey, meta: &Meta, tree: Vec<u8>) -> Result<(), StoreError> {
        let (name, tree) = (self.names.tree(key, &meta.writer), Sealed::of(tree.into()));
        let put = || self.put_request(&name, meta, &tree).customize().disable_payload_signing().send();
        self.requests.until_done("put-hashes", self.requests.deadline(), put).await?;
        Ok(())
    }

    /// Puts an object in the place of one that is there, or is not; tells which. The same bytes: to do it twice is no harm.
    async fn replace(
        &self,
        key: ObjectKey,
        meta: &Meta,
        parts: Option<(String, Vec<CompletedPart>)>,
        bytes: Sealed,
    ) -> Result<bool, StoreError> {
        let (name, deadline) = (self.names.object(key), self.requests.deadline());
        let before = match self.find(key, deadline).await {
            Ok(found) => Some(found.meta.map(|meta| meta.writer).unwrap_or_default()),
            Err(Failure { fate: Fate::Missing, .. }) => None,
            Err(failure) => return Err(failure.into()),
        };
        match parts {
            Some((id, parts)) => self.complete_over(key, &meta.writer, &id, parts).await?,
            None => {
                let put = || {
                    let put = self.put_request(&name, meta, &bytes).set_storage_class(self.storage_class());
                    put.customize().disable_payload_signing().send()
                };
                self.requests.until_done("repair", deadline, put).await?;
            }
        }
        self.cache.remove(key);
        if let Some(writer) = before.as_ref().filter(|writer| !writer.is_empty() && **writer != meta.writer) {
            let removed = self.remove("delete-hashes", &self.names.tree(key, writer), self.requests.deadline()).await;
            if let Err(failure) = removed {
                tracing::warn!(object = %key, error = failure.message, "hashes of damaged bytes can't be removed now");
            }
        }
        Ok(before.is_some())
    }

    fn put_request(
        &self,
        name: &str,
        meta: &Meta,
        bytes: &Sealed,
    ) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        let put = self.requests.client.put_object().bucket(&self.config.bucket).key(name);
        let put = put.content_type("application/octet-stream").set_metadata(Some(meta.encode()));
        put.content_length(bytes.length as i64).checksum_crc32_c(bytes.checksum()).body(bytes.body())
    }

    async fn put_object(&self, key: ObjectKey, meta: &Meta, bytes: Sealed) -> Result<(), StoreError> {
        let name = self.names.object(key);
        self.conditionally("put", key, &meta.writer, || {
            let put = self.put_request(&name, meta, &bytes).if_none_match("*");
            let put = put.set_storage_class(self.storage_class());
            put.customize().disable_payload_signing().send()
        })
        .await
    }
}
