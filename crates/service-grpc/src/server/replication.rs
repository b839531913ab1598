use super::{
    Answers, SiteCertificates, answers,
    body::{Piece, body},
};
use crate::{
    convert::{object_from, position_from, vector_to},
    error::{malformed, to_status},
    replication as convert,
    replication_proto::{
        self as pb, peer_service_server::PeerService, put_object_request::Part,
        replication_service_server::ReplicationService,
    },
    site,
};
use cairn_service_api::{Peer, Replication};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// Serves a [`Peer`].
pub struct PeerServer(pub(super) (Arc<dyn Peer>, SiteCertificates));

/// Serves a [`Replication`].
pub struct ReplicationServer(pub(super) Arc<dyn Replication>);

fn piece(request: pb::PutObjectRequest) -> Option<Piece> {
    match request.part? {
        Part::Chunk(chunk) => Some(Piece::Chunk(chunk)),
        Part::End(true) => Some(Piece::End),
        Part::End(false) | Part::Object(_) => None,
    }
}

impl PeerServer {
    fn peer(&self) -> &Arc<dyn Peer> {
        &self.0.0
    }

    fn certificates(&self) -> &SiteCertificates {
        &self.0.1
    }
}

#[async_trait]
impl PeerService for PeerServer {
    async fn meet(&self, request: Request<pb::MeetRequest>) -> Result<Response<pb::MeetResponse>, Status> {
        let site = convert::site(&request.get_ref().site).map_err(to_status)?;
        self.certificates().check(&request, &site)?;
        let caller = convert::introduction_from(request.into_inner()).map_err(to_status)?;
        let meeting = self.peer().meet(caller).await.map_err(to_status)?;
        Ok(Response::new(convert::meeting_to(&meeting)))
    }

    async fn missing(&self, request: Request<pb::MissingRequest>) -> Result<Response<pb::MissingResponse>, Status> {
        self.certificates().check_any(&request)?;
        let objects = request.into_inner().objects.into_iter().map(object_from).collect::<Result<_, _>>();
        let missing = self.peer().missing(objects.map_err(to_status)?).await.map_err(to_status)?;
        Ok(Response::new(pb::MissingResponse { missing }))
    }

    async fn put_object(
        &self,
        request: Request<Streaming<pb::PutObjectRequest>>,
    ) -> Result<Response<pb::PutObjectResponse>, Status> {
        self.certificates().check_any(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.part);
        let Some(Part::Object(object)) = first else { return Err(to_status(malformed("object"))) };
        let object = object_from(object).map_err(to_status)?;
        self.peer().put_object(object, body(requests, piece)).await.map_err(to_status)?;
        Ok(Response::new(pb::PutObjectResponse {}))
    }

    type ReadObjectStream = Answers<pb::ReadObjectResponse>;

    async fn read_object(
        &self,
        request: Request<pb::ReadObjectRequest>,
    ) -> Result<Response<Self::ReadObjectStream>, Status> {
        let site = convert::site(&request.get_ref().site).map_err(to_status)?;
        self.certificates().check(&request, &site)?;
        let object = request.into_inner().object.ok_or_else(|| malformed("object")).and_then(object_from);
        let bytes = self.peer().read_object(&site, object.map_err(to_status)?).await.map_err(to_status)?;
        Ok(Response::new(answers(bytes, |chunk| pb::ReadObjectResponse { chunk })))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let site = convert::site(&request.get_ref().site).map_err(to_status)?;
        self.certificates().check(&request, &site)?;
        let delivery = convert::delivery_from(request.into_inner()).map_err(to_status)?;
        let delivered = self.peer().append(delivery).await.map_err(to_status)?;
        Ok(Response::new(convert::delivered_to(&delivered)))
    }

    async fn tell(&self, request: Request<pb::TellRequest>) -> Result<Response<pb::TellResponse>, Status> {
        let site = convert::site(&request.get_ref().site).map_err(to_status)?;
        self.certificates().check(&request, &site)?;
        let request = request.into_inner();
        let process = request.process;
        let report = convert::report_from(request).map_err(to_status)?;
        self.peer().tell(process, report).await.map_err(to_status)?;
        Ok(Response::new(pb::TellResponse {}))
    }

    async fn step_down(&self, request: Request<pb::StepDownRequest>) -> Result<Response<pb::StepDownResponse>, Status> {
        let successor = convert::site(&request.get_ref().successor).map_err(to_status)?;
        self.certificates().check(&request, &successor)?;
        let grounds = site::grounds_from(request.into_inner().grounds);
        let holds = self.peer().step_down(&successor, grounds).await.map_err(to_status)?;
        Ok(Response::new(pb::StepDownResponse { holds: Some(vector_to(&holds)) }))
    }
}

#[async_trait]
impl ReplicationService for ReplicationServer {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.0.status().await.map_err(to_status)?;
        Ok(Response::new(convert::status_to(&status)))
    }

    type AtRiskStream = Answers<pb::AtRiskResponse>;

    async fn at_risk(&self, request: Request<pb::AtRiskRequest>) -> Result<Response<Self::AtRiskStream>, Status> {
        let peer = convert::site(&request.into_inner().peer).map_err(to_status)?;
        let found = self.0.at_risk(&peer).await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::at_risk_to)))
    }

    async fn confirm(&self, request: Request<pb::ConfirmRequest>) -> Result<Response<pb::ConfirmResponse>, Status> {
        let request = request.into_inner();
        let position = request.position.ok_or_else(|| malformed("position")).and_then(position_from);
        let position = position.map_err(to_status)?;
        let timeout = Duration::from_millis(request.timeout_ms);
        let sites = self.0.confirm(&position, request.sites, timeout).await.map_err(to_status)?;
        Ok(Response::new(pb::ConfirmResponse { sites }))
    }

    type RepairStream = Answers<pb::RepairResponse>;

    async fn repair(&self, request: Request<pb::RepairRequest>) -> Result<Response<Self::RepairStream>, Status> {
        let suspects = convert::suspects_from(request.into_inner()).map_err(to_status)?;
        let found = self.0.repair(suspects).await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::inspected_to)))
    }

    async fn set_paused(
        &self,
        request: Request<pb::SetPausedRequest>,
    ) -> Result<Response<pb::SetPausedResponse>, Status> {
        let request = request.into_inner();
        let peer = convert::site(&request.peer).map_err(to_status)?;
        self.0.set_paused(&peer, request.paused).await.map_err(to_status)?;
        Ok(Response::new(pb::SetPausedResponse {}))
    }

    async fn site(&self, _: Request<pb::SiteRequest>) -> Result<Response<pb::SiteResponse>, Status> {
        let status = self.0.site().await.map_err(to_status)?;
        Ok(Response::new(site::site_to(&status)))
    }

    async fn decide(&self, request: Request<pb::DecideRequest>) -> Result<Response<pb::SiteResponse>, Status> {
        let request = request.into_inner();
        let decision = site::decision_from(request.decision).map_err(to_status)?;
        let status = self.0.decide(decision, site::grounds_from(request.grounds)).await.map_err(to_status)?;
        Ok(Response::new(site::site_to(&status)))
    }
}
