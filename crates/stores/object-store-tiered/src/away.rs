//! A store that may be away: what it is on is not mounted, or can't be reached. It is opened as soon as it can be.

use async_trait::async_trait;
use cairn_archive::ObjectKey;
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
};
use futures_util::future::BoxFuture;
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, RwLock},
    time::Instant,
};

/// Opens the store, or says why it can't be.
pub type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn ObjectStore>, StoreError>> + Send + Sync>;

/// A store that is opened when it is wanted, and tried again after a pause while it is away; it is `Unavailable` meanwhile.
pub struct AwayStore(Arc<Shared>);

struct Shared {
    /// What it is, for those who are not told where it would be.
    what: &'static str,
    open: Open,
    pause: Duration,
    opened: RwLock<Option<Arc<dyn ObjectStore>>>,
    /// When it was last tried in vain, and why.
    failed: Mutex<Option<(Instant, StoreError)>>,
}

impl AwayStore {
    /// A store that is tried to be opened once in `pause` at most.
    pub fn new(what: &'static str, open: Open, pause: Duration) -> Self {
        Self(Arc::new(Shared { what, open, pause, opened: RwLock::default(), failed: Mutex::default() }))
    }

    /// The store, if it can be opened.
    ///
    /// # Errors
    /// `Unavailable`, with the reason.
    /// # Cancel safety
    /// Dropped, it is opened all the same.
    pub async fn opened(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        if let Some(opened) = &*self.0.opened.read().await {
            return Ok(opened.clone());
        }
        let opened = tokio::spawn(self.0.clone().open_now());
        opened.await.map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("opening: {error}")))?
    }

    /// The same for those who are not told where it would be.
    async fn here(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let away = |_| StoreError::new(StoreErrorKind::Unavailable, format!("{} is away", self.0.what));
        self.opened().await.map_err(away)
    }
}

impl Shared {
    async fn open_now(self: Arc<Self>) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let mut failed = self.failed.lock().await;
        if let Some(opened) = &*self.opened.read().await {
            return Ok(opened.clone());
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < self.pause
        {
            return Err(error.clone());
        }
        match (self.open)().await {
            Ok(opened) => {
                *self.opened.write().await = Some(opened.clone());
                *failed = None;
                Ok(opened)
            }
            Err(error) => {
                let error = StoreError::new(StoreErrorKind::Unavailable, error.to_string());
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

#[async_trait]
impl ObjectStore for AwayStore {
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.here().await?.put(key, length_hint).await
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.here().await?.repair(object).await
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.here().await?.read(object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.here().await?.stat(key).await
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        self.here().await?.list(after, max).await
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.here().await?.delete(key).await
    }

    async fn restore(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.here().await?.restore(key).await
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.opened().await?.space().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        match &*self.0.opened.read().await {
            Some(opened) => opened.close().await,
            None => Ok(()),
        }
    }
}
