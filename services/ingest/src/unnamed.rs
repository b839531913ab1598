//! Objects between being durable and being named by an event.

use crate::metrics;
use cairn_archive::ObjectKey;
use cairn_store_api::ObjectStore;
use std::sync::Arc;

/// Objects that are durable. Until an event may name them, they are removed when this is dropped.
pub(crate) struct Unnamed {
    objects: Arc<dyn ObjectStore>,
    pub(crate) keys: Vec<ObjectKey>,
}

impl Unnamed {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, key: ObjectKey) -> Self {
        Self { objects, keys: vec![key] }
    }

    /// From here on an event may name the objects: they stay.
    pub(crate) fn may_be_named(&mut self) {
        self.keys.clear();
    }

    /// Removes the objects now.
    pub(crate) async fn remove(mut self) {
        for key in std::mem::take(&mut self.keys) {
            remove(self.objects.as_ref(), key).await;
        }
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for key in keys {
            let objects = self.objects.clone();
            runtime.spawn(async move { remove(objects.as_ref(), key).await });
        }
    }
}

async fn remove(objects: &dyn ObjectStore, key: ObjectKey) {
    if let Err(error) = objects.delete(key).await {
        tracing::warn!(%key, %error, "an object that no event names could not be removed now");
        metrics::orphan_left();
    }
}
