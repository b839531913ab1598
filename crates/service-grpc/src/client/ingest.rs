use super::{
    Connection, Wire, answers,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
    upload::upload,
};
use crate::{
    convert::{copied, event_id, position_from, stored_from},
    correction,
    error::{is_not_sent, malformed},
    ingest_proto::{self as pb, ingest_service_client::IngestServiceClient, store_request::Part},
    parked, patients, rejection,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{EventId, Position, events::ReceiptEnd, ids::ReceiptId};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Ingest,
    correction::{Correction, CorrectionRevocation},
    ingest::{Body, InstanceOffer, OfferedForm, QuarantineEntry, Sender, Stored},
    parked::Repair,
    patients::{PatientRevocation, PatientStatement},
    rejection::Revocation,
};
use futures_util::{StreamExt, TryStreamExt};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// An [`Ingest`] somewhere else: in one process, or in several. A receipt is of one process; when that one goes away, the
/// rest of the association or request gets a receipt of another.
#[derive(Clone)]
pub struct IngestClient {
    peers: Peers<IngestServiceClient<Wire>>,
    /// As many as the callers have open.
    receipts: Arc<Mutex<HashMap<ReceiptId, Held>>>,
}

/// A receipt that a caller holds: whose it is at present, and its id there.
#[derive(Clone)]
struct Held {
    peer: usize,
    id: ReceiptId,
    sender: Sender,
}

impl IngestClient {
    /// Calls the processes at the other ends of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| IngestServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self { peers: Peers::new(connection, client)?, receipts: Arc::default() })
    }

    fn receipts(&self) -> MutexGuard<'_, HashMap<ReceiptId, Held>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a receipt at any process. One that was opened without our hearing of it is closed there when idle.
    async fn open(&self, sender: Sender) -> Result<Held, Error> {
        let request = open_request(sender.clone());
        let opened = self.peers.call_any(Safe, |mut client| {
            let request = request.clone();
            async move { client.open_receipt(request).await }
        });
        let (peer, response) = opened.await?;
        let id = ReceiptId::from_slice(&response.into_inner().receipt_id).map_err(|_| malformed("receipt id"))?;
        Ok(Held { peer, id, sender })
    }

    /// Whose a receipt is now. One of a process that went away is replaced, unless `keep`.
    async fn held(&self, receipt: ReceiptId, keep: bool) -> Result<Held, Error> {
        let held = self.receipts().get(&receipt).cloned();
        match held {
            Some(held) if keep || self.peers.count() == 1 || !self.peers.is_down(held.peer) => Ok(held),
            Some(held) => self.replace(receipt, held).await,
            // Another client opened it; with several processes only that one knows where.
            None => Ok(Held { peer: 0, id: receipt, sender: Sender::default() }),
        }
    }

    async fn replace(&self, receipt: ReceiptId, held: Held) -> Result<Held, Error> {
        let new = self.open(held.sender).await?;
        self.receipts().insert(receipt, new.clone());
        Ok(new)
    }

    /// Stores at one process. `Err(None)`: it is not there, and nothing was taken from the body.
    async fn store_at(
        &self,
        held: &Held,
        described: InstanceOffer,
        body: &mut Body<'_>,
    ) -> Result<Stored, Option<Error>> {
        let Some(mut client) = self.peers.client(held.peer) else { return Err(None) };
        let (upload, requests) = upload();
        let first = offer(held.id, described);
        // How long it takes the service bounds.
        let answer = upload.drive(client.store(requests), None, |sender| pump(sender, first, body)).await?;
        match answer {
            Ok(stored) => {
                self.peers.answered(held.peer);
                Ok(stored_from(stored.into_inner())?)
            }
            Err(status) => {
                let unsent = is_not_sent(&status);
                let error = self.peers.failure(held.peer, status);
                Err((!unsent).then_some(error))
            }
        }
    }
}

fn open_request(sender: Sender) -> pb::OpenReceiptRequest {
    pb::OpenReceiptRequest {
        tenant: sender.tenant,
        door: sender.door.into(),
        calling_ae_title: sender.calling_ae_title,
        called_ae_title: sender.called_ae_title,
        peer_address: sender.peer_address,
        implementation_class_uid: sender.implementation_class_uid,
        implementation_version_name: sender.implementation_version_name,
        traceparent: sender.traceparent.unwrap_or_default(),
        issuer_of_patient_id: sender.issuer_of_patient_id.unwrap_or_default(),
        confirmed_sites: sender.confirmed_sites,
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
async fn pump(sender: mpsc::Sender<pb::StoreRequest>, first: pb::Offer, body: &mut Body<'_>) -> Result<(), Error> {
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
        let held = self.open(sender).await?;
        let id = held.id;
        self.receipts().insert(id, held);
        Ok(id)
    }

    async fn store(&self, receipt: ReceiptId, described: InstanceOffer, mut body: Body<'_>) -> Result<Stored, Error> {
        let mut held = self.held(receipt, false).await?;
        for _ in 0..self.peers.count() {
            match self.store_at(&held, described.clone(), &mut body).await {
                Ok(stored) => return Ok(stored),
                // Ours, but not there: the process was started anew.
                Err(Some(error)) if error.kind == ErrorKind::NotFound && self.receipts().contains_key(&receipt) => {
                    self.replace(receipt, held).await?;
                    return Err(Error::new(ErrorKind::Unavailable, "the ingest process was started anew"));
                }
                Err(Some(error)) => return Err(error),
                Err(None) if !self.receipts().contains_key(&receipt) => break,
                Err(None) => held = self.replace(receipt, held).await?,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "no ingest process is there"))
    }

    async fn close_receipt(&self, receipt: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        let held = self.held(receipt, true).await?;
        self.receipts().remove(&receipt);
        let Some(mut client) = self.peers.client(held.peer) else { return Err(malformed("receipt id")) };
        let request = pb::CloseReceiptRequest { receipt_id: copied(held.id.as_bytes()), end: end.into() };
        let closed = client.close_receipt(request).await;
        closed.map(|_| self.peers.answered(held.peer)).map_err(|status| self.peers.failure(held.peer, status))
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
        let response = call!(self.peers, Unsent, choose_version, request)?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn repair(&self, repair: Repair) -> Result<Position, Error> {
        let response = call!(self.peers, Unsent, repair, parked::repair_to(repair))?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn revoke_rejection(&self, revocation: Revocation) -> Result<Position, Error> {
        let response = call!(self.peers, Unsent, revoke_rejection, rejection::revocation_to(revocation))?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn correct(&self, correction: Correction) -> Result<Position, Error> {
        let request = correction::correction_to(correction)?;
        let response = call!(self.peers, Unsent, correct_attributes, request)?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn revoke_correction(&self, revocation: CorrectionRevocation) -> Result<Position, Error> {
        let response = call!(self.peers, Unsent, revoke_correction, correction::revocation_to(revocation))?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn say_of_patients(&self, statement: PatientStatement) -> Result<Position, Error> {
        let request = patients::statement_to(statement)?;
        let response = call!(self.peers, Unsent, say_of_patients, request)?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn revoke_patient_fact(&self, revocation: PatientRevocation) -> Result<Position, Error> {
        let response = call!(self.peers, Unsent, revoke_patient_fact, patients::revocation_to(revocation))?;
        position_from(response.position.ok_or_else(|| malformed("position"))?)
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        // Each process keeps its own; all are listed, or it is said that some are missing.
        let (mut entries, mut missing) = (Vec::new(), None);
        for peer in 0..self.peers.count() {
            match self.quarantine_of(peer).await {
                Ok(found) => entries.extend(found),
                Err(error) => missing = Some(error),
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.refused_at_ms, entry.id)));
        Ok(Box::pin(futures_util::stream::iter(entries.into_iter().map(Ok).chain(missing.map(Err)))))
    }

    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        let mut outcome = Err(Error::new(ErrorKind::NotFound, "no such entry in the quarantine"));
        for peer in self.peers.order() {
            let Some(mut client) = self.peers.client(peer) else { continue };
            match client.read_quarantined(pb::ReadQuarantinedRequest { id: copied(id.as_bytes()) }).await {
                Ok(chunks) => return Ok(answers(chunks.into_inner(), |message| Ok(message.chunk))),
                Err(status) => match self.peers.failure(peer, status) {
                    error if error.kind == ErrorKind::NotFound => {}
                    error => outcome = Err(error),
                },
            }
        }
        outcome
    }

    async fn ready(&self) -> Result<(), Error> {
        call!(self.peers, Safe, ready, pb::ReadyRequest {})?;
        Ok(())
    }
}

impl IngestClient {
    async fn quarantine_of(&self, peer: usize) -> Result<Vec<QuarantineEntry>, Error> {
        let Some(mut client) = self.peers.client(peer) else { return Ok(Vec::new()) };
        let entries = client.list_quarantine(pb::ListQuarantineRequest {}).await;
        let entries = entries.map_err(|status| self.peers.failure(peer, status))?;
        let entries = answers(entries.into_inner(), |entry| {
            Ok(QuarantineEntry {
                id: event_id(&entry.id)?,
                refused_at_ms: entry.refused_at_ms,
                reason: entry.reason,
                calling_ae_title: entry.calling_ae_title,
                length: entry.length_bytes,
                complete: entry.complete,
            })
        });
        entries.try_collect().await
    }
}
