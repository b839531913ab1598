use crate::{
    convert::position_from,
    error::{malformed, to_status},
    lifecycle_proto::{self as pb, notary_service_server::NotaryService},
    notary as convert,
};
use cairn_service_api::Notary;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// Serves a [`Notary`].
pub struct NotaryServer(pub(super) Arc<dyn Notary>);

#[async_trait]
impl NotaryService for NotaryServer {
    async fn notary(&self, _: Request<pb::NotaryRequest>) -> Result<Response<pb::NotaryResponse>, Status> {
        Ok(Response::new(convert::status_to(self.0.notary().await.map_err(to_status)?)))
    }

    async fn checkpoint(
        &self,
        request: Request<pb::CheckpointRequest>,
    ) -> Result<Response<pb::CheckpointResponse>, Status> {
        let signed = self.0.checkpoint(request.into_inner().accept_breaks).await.map_err(to_status)?;
        Ok(Response::new(pb::CheckpointResponse { signed: Some(convert::signed_to(&signed)) }))
    }

    async fn prove_event(
        &self,
        request: Request<pb::ProveEventRequest>,
    ) -> Result<Response<pb::ProofResponse>, Status> {
        let pb::ProveEventRequest { position, with_payload } = request.into_inner();
        let position = position.ok_or_else(|| malformed("position")).and_then(position_from).map_err(to_status)?;
        let document = self.0.prove_event(&position, with_payload).await.map_err(to_status)?;
        Ok(Response::new(pb::ProofResponse { document }))
    }

    async fn prove_consistency(
        &self,
        request: Request<pb::ProveConsistencyRequest>,
    ) -> Result<Response<pb::ProofResponse>, Status> {
        let pb::ProveConsistencyRequest { older, newer } = request.into_inner();
        let document = self.0.prove_consistency(&older, newer.as_deref()).await.map_err(to_status)?;
        Ok(Response::new(pb::ProofResponse { document }))
    }

    async fn sealed(&self, _: Request<pb::SealedRequest>) -> Result<Response<pb::SealedResponse>, Status> {
        Ok(Response::new(convert::sealed_to(self.0.sealed().await.map_err(to_status)?)))
    }

    async fn seal(&self, _: Request<pb::SealRequest>) -> Result<Response<pb::SealResponse>, Status> {
        self.0.seal().await.map_err(to_status)?;
        Ok(Response::new(pb::SealResponse {}))
    }
}
