//! What a writer that does not succeed leaves in the store, and its removal.

use crate::failure::{Failure, Fate};
use crate::shared::Shared;
use cairn_archive::ObjectKey;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Removes what a writer left, once dropped, on a task of its own that closing the store waits for. What can't be removed
/// is a leftover, which upkeep finds, or an orphan.
pub(crate) struct Leavings(Option<Left>);

struct Left {
    shared: Arc<Shared>,
    key: ObjectKey,
    writer: String,
    upload: Option<String>,
    tree: bool,
    /// Whether the object itself may be there.
    sent: bool,
    _permit: OwnedSemaphorePermit,
}

impl Leavings {
    pub(crate) fn new(shared: Arc<Shared>, key: ObjectKey, permit: OwnedSemaphorePermit) -> Self {
        let writer = uuid::Uuid::now_v7().simple().to_string();
        Self(Some(Left { shared, key, writer, upload: None, tree: false, sent: false, _permit: permit }))
    }

    /// What the writer signs its objects with.
    pub(crate) fn writer(&self) -> &str {
        self.0.as_ref().map_or("", |left| &left.writer)
    }

    pub(crate) fn upload(&mut self, id: &str) {
        self.change(|left| left.upload = Some(id.to_owned()));
    }

    pub(crate) fn tree(&mut self) {
        self.change(|left| left.tree = true);
    }

    pub(crate) fn sent(&mut self) {
        self.change(|left| left.sent = true);
    }

    /// The key is another writer's.
    pub(crate) fn not_ours(&mut self) {
        self.change(|left| left.sent = false);
    }

    /// Nothing is removed, whatever comes: what is left over upkeep finds.
    pub(crate) fn all_stays(&mut self) {
        self.change(|left| (left.upload, left.tree, left.sent) = (None, false, false));
    }

    /// All is as it should be.
    pub(crate) fn nothing(&mut self) {
        self.0 = None;
    }

    fn change(&mut self, change: impl FnOnce(&mut Left)) {
        if let Some(left) = &mut self.0 {
            change(left);
        }
    }
}

impl Drop for Leavings {
    fn drop(&mut self) {
        let Some(left) = self.0.take().filter(|left| left.upload.is_some() || left.tree || left.sent) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(failure) = left.remove().await {
                    tracing::warn!(object = %left.key, error = failure.message, "what a put left can't be removed now");
                }
            });
        }
    }
}

impl Left {
    async fn remove(&self) -> Result<(), Failure> {
        let Self { shared, key, .. } = self;
        let deadline = shared.requests.deadline();
        if let Some(id) = &self.upload {
            // From here on it can't be completed any more.
            shared.abort(&shared.names.object(*key), id, deadline).await?;
        }
        if self.sent {
            match shared.find(*key, deadline).await {
                // Nobody was told of it.
                Ok(found) if found.meta.as_ref().is_some_and(|meta| meta.writer == self.writer) => {
                    shared.remove("delete", &shared.names.object(*key), deadline).await?;
                }
                Ok(_) | Err(Failure { fate: Fate::Missing, .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        if self.tree {
            shared.remove("delete-hashes", &shared.names.tree(*key, &self.writer), deadline).await?;
        }
        Ok(())
    }
}
