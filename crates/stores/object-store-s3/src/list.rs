//! Listing. S3's own lists have names, lengths and times; ours have digests, so each object is asked for.

use crate::failure::Failure;
use crate::shared::Shared;
use aws_sdk_s3::types::Object;
use cairn_archive::ObjectKey;
use cairn_store_api::{ObjectPage, StoreError, StoreErrorKind};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// Names that S3 gives at once.
const PAGE: usize = 1000;

pub(crate) struct Listed {
    pub(crate) objects: Vec<Object>,
    pub(crate) more: bool,
}

impl Shared {
    /// Names after another, in their order.
    pub(crate) async fn names_after(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Listed, Failure> {
        let list = || {
            let list = self.requests.client.list_objects_v2().bucket(&self.config.bucket).prefix(prefix);
            list.set_start_after(after.map(str::to_owned)).max_keys(max.clamp(1, PAGE) as i32).send()
        };
        let listed = self.requests.until_done("list", self.requests.deadline(), list).await?;
        let more = listed.is_truncated.unwrap_or(false);
        Ok(Listed { objects: listed.contents.unwrap_or_default(), more })
    }

    fn keys(&self, objects: &[Object]) -> Vec<ObjectKey> {
        let mut keys = Vec::with_capacity(objects.len());
        for object in objects {
            match self.names.key_of_object(object.key().unwrap_or_default()) {
                Some(key) => keys.push(key),
                None => tracing::warn!("the bucket has a name among the objects that is not an object's"),
            }
        }
        keys
    }

    pub(crate) async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        let mut after = after.map(|key| self.names.object(key));
        let mut page = ObjectPage::default();
        // A page of names that are none of ours leads on.
        while page.objects.is_empty() && max > 0 {
            let listed = self.names_after(self.names.objects(), after.as_deref(), max).await?;
            after = listed.objects.last().and_then(|object| object.key.clone());
            let keys = self.keys(&listed.objects);
            let mut infos = stream::iter(keys)
                .map(|key| async move { (key, self.stat(key).await) })
                .buffered(self.config.list_in_flight_max);
            while let Some((key, info)) = infos.next().await {
                match info {
                    Ok(info) => page.objects.push(info),
                    Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                    Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                        tracing::error!(object = %key, "an object is not listed: what is written beside it is gone");
                    }
                    Err(error) => return Err(error),
                }
            }
            page.more = listed.more && after.is_some();
            if !page.more {
                break;
            }
        }
        Ok(page)
    }

    /// Counts the bytes of all objects on a task of its own, if the last count is too old.
    pub(crate) fn count_when_due(self: &Arc<Self>) {
        if self.usage.is_due(self.config.upkeep_interval) {
            let shared = self.clone();
            tokio::spawn(async move {
                if let Err(failure) = shared.count().await {
                    shared.usage.failed();
                    tracing::warn!(error = failure.message, "objects can't be counted; tried again when asked for");
                }
            });
        }
    }

    /// Counts the bytes of all objects.
    async fn count(&self) -> Result<(), Failure> {
        let begun = self.usage.begin();
        let (mut bytes, mut after) = (0u64, None::<String>);
        loop {
            let listed = self.names_after(self.names.objects(), after.as_deref(), PAGE).await?;
            let sizes = listed.objects.iter().filter_map(|object| object.size);
            bytes = bytes.saturating_add(sizes.filter_map(|size| u64::try_from(size).ok()).sum());
            after = listed.objects.last().and_then(|object| object.key.clone());
            if !listed.more || after.is_none() {
                break;
            }
        }
        self.usage.counted(begun, bytes);
        Ok(())
    }
}
