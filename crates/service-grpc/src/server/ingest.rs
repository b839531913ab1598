use super::{
    Answers, answers,
    body::{Piece, body},
};
use crate::{
    convert::{copied, event_id, position_to, stored_to, uid},
    correction,
    error::{malformed, to_status},
    ingest_proto::{
        self as pb, CloseReceiptRequest, CloseReceiptResponse, ListQuarantineRequest, ListQuarantineResponse,
        OpenReceiptRequest, OpenReceiptResponse, ReadQuarantinedRequest, ReadQuarantinedResponse, ReadyRequest,
        ReadyResponse, StoreRequest, StoreResponse, ingest_service_server::IngestService, store_request::Part,
    },
    parked, patients, rejection,
};
use cairn_archive::{
    events::{Door, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_service_api::{
    Error, Ingest,
    ingest::{InstanceOffer, OfferedForm, Sender},
};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming, async_trait};

/// Serves an [`Ingest`].
pub struct IngestServer(pub(super) Arc<dyn Ingest>);

fn receipt_id(bytes: &[u8]) -> Result<ReceiptId, Error> {
    ReceiptId::from_slice(bytes).map_err(|_| malformed("receipt id"))
}

fn offer(offer: pb::Offer) -> Result<(ReceiptId, InstanceOffer), Error> {
    let form = match offer.form.ok_or_else(|| malformed("form"))? {
        pb::offer::Form::File(_) => OfferedForm::File,
        pb::offer::Form::DataSet(form) => OfferedForm::DataSet {
            transfer_syntax_uid: uid(&form.transfer_syntax_uid)?,
            sop_class_uid: uid(&form.sop_class_uid)?,
            sop_instance_uid: uid(&form.sop_instance_uid)?,
        },
    };
    let study = &offer.study_instance_uid;
    let described = InstanceOffer {
        form,
        length_hint: (offer.length_hint > 0).then_some(offer.length_hint),
        study_instance_uid: if study.is_empty() { None } else { Some(uid(study)?) },
    };
    Ok((receipt_id(&offer.receipt_id)?, described))
}

fn piece(request: StoreRequest) -> Option<Piece> {
    match request.part? {
        Part::Chunk(chunk) => Some(Piece::Chunk(chunk)),
        Part::End(true) => Some(Piece::End),
        Part::End(false) | Part::Offer(_) => None,
    }
}

#[async_trait]
impl IngestService for IngestServer {
    async fn open_receipt(
        &self,
        request: Request<OpenReceiptRequest>,
    ) -> Result<Response<OpenReceiptResponse>, Status> {
        let request = request.into_inner();
        let sender = Sender {
            tenant: request.tenant,
            door: Door::try_from(request.door).map_err(|_| to_status(malformed("door")))?,
            calling_ae_title: request.calling_ae_title,
            called_ae_title: request.called_ae_title,
            peer_address: request.peer_address,
            implementation_class_uid: request.implementation_class_uid,
            implementation_version_name: request.implementation_version_name,
            traceparent: (!request.traceparent.is_empty()).then_some(request.traceparent),
            issuer_of_patient_id: (!request.issuer_of_patient_id.is_empty()).then_some(request.issuer_of_patient_id),
            confirmed_sites: request.confirmed_sites,
        };
        let receipt = self.0.open_receipt(sender).await.map_err(to_status)?;
        Ok(Response::new(OpenReceiptResponse { receipt_id: copied(receipt.as_bytes()) }))
    }

    async fn store(&self, request: Request<Streaming<StoreRequest>>) -> Result<Response<StoreResponse>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.part);
        let Some(Part::Offer(first)) = first else { return Err(to_status(malformed("offer"))) };
        let (receipt, offer) = offer(first).map_err(to_status)?;
        let stored = self.0.store(receipt, offer, body(requests, piece)).await.map_err(to_status)?;
        Ok(Response::new(stored_to(&stored)))
    }

    async fn close_receipt(
        &self,
        request: Request<CloseReceiptRequest>,
    ) -> Result<Response<CloseReceiptResponse>, Status> {
        let request = request.into_inner();
        let end = ReceiptEnd::try_from(request.end).map_err(|_| to_status(malformed("end")))?;
        let receipt = receipt_id(&request.receipt_id).map_err(to_status)?;
        self.0.close_receipt(receipt, end).await.map_err(to_status)?;
        Ok(Response::new(CloseReceiptResponse {}))
    }

    async fn choose_version(
        &self,
        request: Request<pb::ChooseVersionRequest>,
    ) -> Result<Response<pb::ChooseVersionResponse>, Status> {
        let request = request.into_inner();
        let parse = |text: &str| uid(text).map_err(to_status);
        let identity = (
            parse(&request.study_instance_uid)?,
            parse(&request.series_instance_uid)?,
            parse(&request.sop_instance_uid)?,
        );
        let event = event_id(&request.store_event_id).map_err(to_status)?;
        let chosen = self.0.choose_version(&request.tenant, identity, event, &request.chosen_by, &request.reason);
        let position = chosen.await.map_err(to_status)?;
        Ok(Response::new(pb::ChooseVersionResponse { position: Some(position_to(&position)) }))
    }

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Result<Response<pb::RepairResponse>, Status> {
        let repair = parked::repair_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.repair(repair).await.map_err(to_status)?;
        Ok(Response::new(pb::RepairResponse { position: Some(position_to(&position)) }))
    }

    async fn revoke_rejection(
        &self,
        request: Request<pb::RevokeRejectionRequest>,
    ) -> Result<Response<pb::RevokeRejectionResponse>, Status> {
        let revocation = rejection::revocation_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.revoke_rejection(revocation).await.map_err(to_status)?;
        Ok(Response::new(pb::RevokeRejectionResponse { position: Some(position_to(&position)) }))
    }

    async fn correct_attributes(
        &self,
        request: Request<pb::CorrectAttributesRequest>,
    ) -> Result<Response<pb::CorrectAttributesResponse>, Status> {
        let correction = correction::correction_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.correct(correction).await.map_err(to_status)?;
        Ok(Response::new(pb::CorrectAttributesResponse { position: Some(position_to(&position)) }))
    }

    async fn revoke_correction(
        &self,
        request: Request<pb::RevokeCorrectionRequest>,
    ) -> Result<Response<pb::RevokeCorrectionResponse>, Status> {
        let revocation = correction::revocation_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.revoke_correction(revocation).await.map_err(to_status)?;
        Ok(Response::new(pb::RevokeCorrectionResponse { position: Some(position_to(&position)) }))
    }

    async fn say_of_patients(
        &self,
        request: Request<pb::SayOfPatientsRequest>,
    ) -> Result<Response<pb::SayOfPatientsResponse>, Status> {
        let statement = patients::statement_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.say_of_patients(statement).await.map_err(to_status)?;
        Ok(Response::new(pb::SayOfPatientsResponse { position: Some(position_to(&position)) }))
    }

    async fn revoke_patient_fact(
        &self,
        request: Request<pb::RevokePatientFactRequest>,
    ) -> Result<Response<pb::RevokePatientFactResponse>, Status> {
        let revocation = patients::revocation_from(request.into_inner()).map_err(to_status)?;
        let position = self.0.revoke_patient_fact(revocation).await.map_err(to_status)?;
        Ok(Response::new(pb::RevokePatientFactResponse { position: Some(position_to(&position)) }))
    }

    type ListQuarantineStream = Answers<ListQuarantineResponse>;

    async fn list_quarantine(
        &self,
        _: Request<ListQuarantineRequest>,
    ) -> Result<Response<Self::ListQuarantineStream>, Status> {
        let entries = self.0.quarantine().await.map_err(to_status)?;
        Ok(Response::new(answers(entries, |entry| ListQuarantineResponse {
            id: copied(entry.id.as_bytes()),
            refused_at_ms: entry.refused_at_ms,
            reason: entry.reason,
            calling_ae_title: entry.calling_ae_title,
            length_bytes: entry.length,
            complete: entry.complete,
        })))
    }

    type ReadQuarantinedStream = Answers<ReadQuarantinedResponse>;

    async fn read_quarantined(
        &self,
        request: Request<ReadQuarantinedRequest>,
    ) -> Result<Response<Self::ReadQuarantinedStream>, Status> {
        let id = event_id(&request.into_inner().id).map_err(to_status)?;
        let bytes = self.0.quarantined_bytes(id).await.map_err(to_status)?;
        Ok(Response::new(answers(bytes, |chunk| ReadQuarantinedResponse { chunk })))
    }

    async fn ready(&self, _: Request<ReadyRequest>) -> Result<Response<ReadyResponse>, Status> {
        self.0.ready().await.map_err(to_status)?;
        Ok(Response::new(ReadyResponse {}))
    }
}
