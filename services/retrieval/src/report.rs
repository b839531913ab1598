//! Telling lifecycle of objects that could not be read, so that they are looked at, said to be damaged, and had again.

use bytes::Bytes;
use cairn_archive::events::DamageFoundBy;
use cairn_service_api::{AnswerStream, ErrorKind, Lifecycle, index::InstanceRecord, lifecycle::NamedObject};
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Objects that wait to be told of; more are not told of, and found by whoever reads them next.
const WAITING_MAX: usize = 64;

/// Tells lifecycle.
#[derive(Clone)]
pub(crate) struct Reporter {
    tenant: String,
    sender: mpsc::Sender<NamedObject>,
}

impl Reporter {
    /// Tells `lifecycle`, one object after the other, for as long as there is anyone to tell of something.
    pub(crate) fn new(lifecycle: Arc<dyn Lifecycle>, tenant: String) -> Self {
        let (sender, mut receiver) = mpsc::channel::<NamedObject>(WAITING_MAX);
        tokio::spawn(async move {
            while let Some(named) = receiver.recv().await {
                let object_key = named.object.key;
                if let Err(error) = lifecycle.suspect(named, DamageFoundBy::Retrieval).await {
                    tracing::warn!(%object_key, %error, "lifecycle could not be told of an object that can't be read");
                }
            }
        });
        Self { tenant, sender }
    }

    /// Hands an instance's bytes on, and tells of its object if it is damaged.
    pub(crate) fn watch(&self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> AnswerStream<Bytes> {
        let (sender, named) = (self.sender.clone(), self.named(record));
        Box::pin(bytes.inspect(move |chunk| {
            if chunk.as_ref().is_err_and(|error| error.kind == ErrorKind::Corrupt) {
                // With too many waiting it is found again.
                let _full = sender.try_send(named.clone());
            }
        }))
    }

    /// Tells of an instance's object.
    pub(crate) fn tell(&self, record: &InstanceRecord) {
        let _full = self.sender.try_send(self.named(record));
    }

    fn named(&self, record: &InstanceRecord) -> NamedObject {
        NamedObject {
            object: record.object,
            named_by: record.store_event,
            tenant: self.tenant.clone(),
            study_instance_uid: record.study_instance_uid.to_string(),
            series_instance_uid: record.series_instance_uid.to_string(),
            sop_instance_uid: record.sop_instance_uid.to_string(),
        }
    }
}
