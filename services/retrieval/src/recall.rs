//! Asking that a study be recalled of which something cold is read, or can't be.

use bytes::Bytes;
use cairn_dicom::Uid;
use cairn_service_api::{AnswerStream, ErrorKind, Tiering, index::InstanceRecord, tiering::NewMoves};
use cairn_store_api::Tier;
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::metrics;

/// Reads that wait to be asked for together; of more the next read asks again.
const WAITING_MAX: usize = 256;
/// Who asks, as what waits says.
const BY: &str = "retrieval";

/// Asks tiering.
#[derive(Clone)]
pub(crate) struct Recaller {
    on_read: bool,
    sender: mpsc::Sender<Uid>,
}

impl Recaller {
    /// Asks `tiering` for studies of a tenant, also those that can be read if `on_read`, for as long as anybody reads.
    pub(crate) fn new(tiering: Arc<dyn Tiering>, tenant: String, on_read: bool) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Uid>(WAITING_MAX);
        tokio::spawn(async move {
            let mut studies = Vec::new();
            // Instances of a study are read one after the other, and it is asked for once.
            while receiver.recv_many(&mut studies, WAITING_MAX).await > 0 {
                studies.sort();
                studies.dedup();
                let studies = std::mem::take(&mut studies);
                let moves = NewMoves { tenant: tenant.clone(), studies, to: Tier::Hot, by: BY.to_owned() };
                match tiering.move_studies(moves).await {
                    Ok(new) => metrics::recalled(new),
                    Err(error) => tracing::warn!(%error, "studies that are read could not be recalled"),
                }
            }
        });
        Self { on_read, sender }
    }

    /// Hands an instance's bytes on, and asks for its study where that is cold and wanted.
    pub(crate) fn watch(&self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> AnswerStream<Bytes> {
        if !record.is_cold {
            return bytes;
        }
        if self.on_read {
            self.ask(record);
        }
        let (asking, record) = (self.clone(), record.clone());
        Box::pin(bytes.inspect(move |chunk| {
            if let Err(error) = chunk {
                asking.could_not(&record, error.kind);
            }
        }))
    }

    /// An instance could not be read: where it is cold and its store is away, or has to restore it first, its study is asked for.
    pub(crate) fn could_not(&self, record: &InstanceRecord, kind: ErrorKind) {
        if record.is_cold && kind == ErrorKind::Unavailable {
            self.ask(record);
        }
    }

    fn ask(&self, record: &InstanceRecord) {
        // With too many waiting the next read asks again.
        let _full = self.sender.try_send(record.study_instance_uid.clone());
    }
}
