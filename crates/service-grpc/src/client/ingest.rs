use super::{Connection, answers};
use crate::{
    convert::{copied, event_id, position_from, stored_from},
    error::{from_status, malformed},
    ingest_proto::{self as pb, ingest_service_client::IngestServiceClient, store_request::Part},
    streams::IN_FLIGHT,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{EventId, Position, events::ReceiptEnd, ids::ReceiptId};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error, Ingest,
    ingest::{Body, InstanceOffer, OfferedForm, QuarantineEntry, Sender, Stored},
};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// An [`Ingest`] somewhere else.
#[derive(Clone)]
pub struct IngestClient(IngestServiceClient<Channel>);

impl IngestClient {
    /// Calls the server at the other end of `connection`.
    ///
    /// # Errors
    /// As [`Connection::channel`].
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = IngestServiceClient::new(connection.channel()?);
        Ok(Self(client.max_decoding_message_size(connection.message_bytes_max)))
    }
}

fn offer(receipt: ReceiptId, offer: InstanceOffer) -> pb::Offer {
    let form = match offer.form {
        OfferedForm::File => pb::offer::Form::File(true),
        OfferedForm::DataSet { transfer_syntax_uid, sop_class_uid, sop_instance_uid } => {
            pb::offer::Form::DataSet(pb::DataSetForm {
                transfer_syntax_uid: transfer_syntax_uid.to_string(),
                sop_class_uid: sop_class_uid.to_string(),
                sop_instance_uid: sop_instance_uid.to_string(),
            })
        }
    };
    pb::Offer {
        receipt_id: copied(receipt.as_bytes()),
        form: Some(form),
        length_hint: offer.length_hint.unwrap_or(0),
        study_instance_uid: offer.study_instance_uid.map(|uid| uid.to_string()).unwrap_or_default(),
    }
}

/// Sends the body's chunks and, only if it came whole, its end. Stops when the server has answered.
async fn pump(sender: mpsc::Sender<pb::StoreRequest>, first: pb::Offer, mut body: Body<'_>) -> Result<(), Error> {
    let request = |part| pb::StoreRequest { part: Some(part) };
    if sender.send(request(Part::Offer(first))).await.is_err() {
        return Ok(());
    }
    while let Some(chunk) = body.next().await {
        if sender.send(request(Part::Chunk(chunk?))).await.is_err() {
            return Ok(());
        }
    }
    // An error means that the server has answered already; its answer counts.
    let _answered = sender.send(request(Part::End(true))).await;
    Ok(())
}

#[async_trait]
impl Ingest for IngestClient {
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error> {
        let request = pb::OpenReceiptRequest {
            tenant: sender.tenant,
            door: sender.door.into(),
            calling_ae_title: sender.calling_ae_title,
            called_ae_title: sender.called_ae_title,
            peer_address: sender.peer_address,
            implementation_class_uid: sender.implementation_class_uid,
            implementation_version_name: sender.implementation_version_name,
            traceparent: sender.traceparent.unwrap_or_default(),
            issuer_of_patient_id: sender.issuer_of_patient_id.unwrap_or_default(),
        };
        let response = self.0.clone().open_receipt(request).await.map_err(from_status)?.into_inner();
        ReceiptId::from_slice(&response.receipt_id).map_err(|_| malformed("receipt id"))
    }

    async fn store(&self, receipt: ReceiptId, described: InstanceOffer, body: Body<'_>) -> Result<Stored, Error> {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let mut client = self.0.clone();
        let call = client.store(ReceiverStream::new(receiver));
        let sending = pump(sender, offer(receipt, described), body);
        tokio::pin!(call, sending);
        tokio::select! {
            // A body that broke off is why the server answers as it does: say that, not what the server made of it.
            sent = &mut sending => sent?,
            answer = &mut call => return stored_from(answer.map_err(from_status)?.into_inner()),
        }
        stored_from(call.await.map_err(from_status)?.into_inner())
    }

    async fn close_receipt(&self, receipt: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        let request = pb::CloseReceiptRequest { receipt_id: copied(receipt.as_bytes()), end: end.into() };
        self.0.clone().close_receipt(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn choose_version(
        &self,
        tenant: &str,
        (study, series, instance): (Uid, Uid, Uid),
        store_event: EventId,
        chosen_by: &str,
        reason: &str,
    ) -> Result<Position, Error> {
        let request = pb::ChooseVersionRequest {
            tenant: tenant.to_owned(),
            study_instance_uid: study.to_string(),
            series_instance_uid: series.to_string(),
            sop_instance_uid: instance.to_string(),
            store_event_id: copied(store_event.as_bytes()),
            chosen_by: chosen_by.to_owned(),
            reason: reason.to_owned(),
        };
        let response = self.0.clone().choose_version(request).await.map_err(from_status)?.into_inner();
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        let entries = self.0.clone().list_quarantine(pb::ListQuarantineRequest {}).await.map_err(from_status)?;
        Ok(answers(entries.into_inner(), |entry| {
            Ok(QuarantineEntry {
                id: event_id(&entry.id)?,
                refused_at_ms: entry.refused_at_ms,
                reason: entry.reason,
                calling_ae_title: entry.calling_ae_title,
                length: entry.length_bytes,
                complete: entry.complete,
            })
        }))
    }

    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        let request = pb::ReadQuarantinedRequest { id: copied(id.as_bytes()) };
        let chunks = self.0.clone().read_quarantined(request).await.map_err(from_status)?;
        Ok(answers(chunks.into_inner(), |message| Ok(message.chunk)))
    }

    async fn ready(&self) -> Result<(), Error> {
        self.0.clone().ready(pb::ReadyRequest {}).await.map_err(from_status)?;
        Ok(())
    }
}
