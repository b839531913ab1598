//! A store that has put everything away, until somebody asks that it be restored.

use async_trait::async_trait;
use cairn_archive::ObjectKey;
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) struct PutAway {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) is_restored: AtomicBool,
}

#[async_trait]
impl ObjectStore for PutAway {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.store.put(key, length_hint).await
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.store.repair(object).await
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        match self.is_restored.load(Ordering::Relaxed) {
            true => self.store.read(object, range).await,
            false => Err(StoreError::new(StoreErrorKind::Archived, "it is put away")),
        }
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

    async fn restore(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.store.stat(key).await?;
        self.is_restored.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.store.space().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
