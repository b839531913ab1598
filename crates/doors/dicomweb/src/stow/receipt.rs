use crate::{door::Door, request::Call};
use cairn_archive::{
    events::{Door as DoorKind, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_service_api::{Error, ingest::Sender};
use std::sync::Arc;

/// The receipt of one request. Closed as aborted when it is dropped, so that a sender that went away leaves a trace.
pub(super) struct Receipt {
    door: Arc<Door>,
    id: Option<ReceiptId>,
}

impl Receipt {
    pub(super) async fn open(door: &Arc<Door>, call: &Call, confirmed_sites: u32) -> Result<Self, Error> {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let sender = Sender {
            tenant: door.config.tenant.clone(),
            door: DoorKind::Dicomweb,
            calling_ae_title: door.config.calling_ae_title.clone(),
            called_ae_title: String::new(),
            peer_address: call.peer.clone(),
            implementation_class_uid: String::new(),
            implementation_version_name: String::new(),
            traceparent: header("traceparent"),
            issuer_of_patient_id: None,
            confirmed_sites,
        };
        let id = door.services.ingest.open_receipt(sender).await?;
        Ok(Self { door: Arc::clone(door), id: Some(id) })
    }

    pub(super) fn id(&self) -> Option<ReceiptId> {
        self.id
    }

    pub(super) async fn close(mut self, end: ReceiptEnd) {
        if let Some(id) = self.id.take() {
            close(&self.door, id, end).await;
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let door = Arc::clone(&self.door);
        runtime.spawn(async move { close(&door, id, ReceiptEnd::Aborted).await });
    }
}

/// What was stored stays stored when the receipt can't be closed; so that is no failure of the request.
async fn close(door: &Door, id: ReceiptId, end: ReceiptEnd) {
    if let Err(error) = door.services.ingest.close_receipt(id, end).await {
        tracing::warn!(receipt = %id, %error, "a receipt could not be closed");
    }
}
