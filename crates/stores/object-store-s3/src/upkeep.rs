//! What is done now and then: removing what processes that ended have left.

use crate::failure::{Failure, Fate};
use crate::metrics;
use crate::shared::Shared;
use aws_sdk_s3::primitives::DateTime;
use cairn_archive::ObjectKey;
use std::sync::Arc;

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        for (what, done) in [
            ("uploads that were left can't be removed", shared.remove_uploads().await),
            ("hashes that were left can't be removed", shared.remove_trees().await),
        ] {
            if let Err(failure) = done {
                tracing::warn!(error = failure.message, "{what}; tried again later");
            }
        }
        tokio::time::sleep(shared.config.upkeep_interval).await;
    }
}

impl Shared {
    fn is_leftover(&self, since: Option<&DateTime>) -> bool {
        let age = self.config.leftover_age.as_millis();
        let since = since.and_then(|since| u128::try_from(since.to_millis().ok()?).ok());
        since.is_some_and(|since| u128::from(self.clock.unix_ms()).saturating_sub(since) > age)
    }

    /// Ends uploads that nobody goes on with.
    pub(crate) async fn remove_uploads(&self) -> Result<(), Failure> {
        let (mut key, mut id) = (None, None);
        loop {
            let list = || {
                let list = self.requests.client.list_multipart_uploads().bucket(&self.config.bucket);
                let list = list.prefix(self.names.objects());
                list.set_key_marker(key.clone()).set_upload_id_marker(id.clone()).send()
            };
            let listed = self.requests.until_done("list-uploads", self.requests.deadline(), list).await?;
            for upload in listed.uploads() {
                if let (Some(name), Some(id)) = (upload.key(), upload.upload_id())
                    // Not every store heeds the prefix.
                    && name.starts_with(self.names.objects())
                    && self.is_leftover(upload.initiated())
                {
                    self.abort(name, id, self.requests.deadline()).await?;
                    metrics::leftover("upload");
                }
            }
            let next = (listed.next_key_marker.clone(), listed.next_upload_id_marker.clone());
            if !listed.is_truncated.unwrap_or(false) || next.0.is_none() || next == (key.clone(), id.clone()) {
                return Ok(());
            }
            (key, id) = next;
        }
    }

    /// Removes hashes whose object never came or is gone.
    pub(crate) async fn remove_trees(&self) -> Result<(), Failure> {
        let mut after = None::<String>;
        loop {
            let listed = self.names_after(self.names.trees(), after.as_deref(), 1000).await?;
            for object in &listed.objects {
                let Some(name) = object.key() else { continue };
                if let Some((key, writer)) = self.names.of_tree(name)
                    && self.is_leftover(object.last_modified())
                    && !self.is_by(key, writer).await?
                {
                    self.remove("delete-hashes", name, self.requests.deadline()).await?;
                    metrics::leftover("hashes");
                }
            }
            after = listed.objects.last().and_then(|object| object.key.clone());
            if !listed.more || after.is_none() {
                return Ok(());
            }
        }
    }

    async fn is_by(&self, key: ObjectKey, writer: &str) -> Result<bool, Failure> {
        match self.find(key, self.requests.deadline()).await {
            // What can't be read is not judged.
            Ok(found) => Ok(found.meta.is_none_or(|meta| meta.writer == writer)),
            Err(Failure { fate: Fate::Missing, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}
