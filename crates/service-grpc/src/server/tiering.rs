use super::{Answers, answers};
use crate::{
    error::to_status,
    lifecycle_proto::{self as pb, tiering_service_server::TieringService},
    tiering as convert,
};
use cairn_service_api::Tiering;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// Serves [`Tiering`].
pub struct TieringServer(pub(super) Arc<dyn Tiering>);

#[async_trait]
impl TieringService for TieringServer {
    async fn tiering(&self, _: Request<pb::TieringRequest>) -> Result<Response<pb::TieringResponse>, Status> {
        let status = self.0.tiering().await.map_err(to_status)?;
        Ok(Response::new(convert::status_to(status)))
    }

    async fn move_studies(
        &self,
        request: Request<pb::MoveStudiesRequest>,
    ) -> Result<Response<pb::MoveStudiesResponse>, Status> {
        let moves = convert::moves_from(request.into_inner()).map_err(to_status)?;
        let waiting = self.0.move_studies(moves).await.map_err(to_status)?;
        Ok(Response::new(pb::MoveStudiesResponse { waiting }))
    }

    type MovesStream = Answers<pb::QueuedMove>;

    async fn moves(&self, _: Request<pb::MovesRequest>) -> Result<Response<Self::MovesStream>, Status> {
        let found = self.0.moves().await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::queued_to)))
    }
}
