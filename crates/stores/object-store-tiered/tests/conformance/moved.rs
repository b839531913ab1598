//! A store in which everything is moved to the cold store as soon as it is there.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Digest, ObjectKey};
use cairn_object_store_tiered::TieredStore;
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
    Tier, Tiers,
};
use std::{ops::Range, sync::Arc};

pub(crate) struct Moved {
    pub(crate) store: Arc<TieredStore>,
    pub(crate) cold: Arc<dyn ObjectStore>,
}

struct Writer {
    store: Arc<TieredStore>,
    cold: Arc<dyn ObjectStore>,
    writer: Box<dyn ObjectWriter>,
}

/// What is there stays where it came in when there is no room in the cold store.
async fn moved(store: &TieredStore, cold: &dyn ObjectStore, info: ObjectInfo) -> Result<ObjectInfo, StoreError> {
    match store.move_to(&info.object, Tier::Cold).await {
        Ok(_) => cold.stat(info.object.key).await,
        Err(error) if error.kind() == StoreErrorKind::Exhausted => Ok(info),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.writer.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        moved(&self.store, &*self.cold, self.writer.finish().await?).await
    }

    async fn finish_as(self: Box<Self>, length: u64, digest: Digest) -> Result<ObjectInfo, StoreError> {
        moved(&self.store, &*self.cold, self.writer.finish_as(length, digest).await?).await
    }
}

#[async_trait]
impl ObjectStore for Moved {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let writer = self.store.put(key, length_hint).await?;
        Ok(Box::new(Writer { store: self.store.clone(), cold: self.cold.clone(), writer }))
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.store.repair(object).await
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.store.read(object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.store.stat(key).await
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        self.store.list(after, max).await
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.store.space().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
