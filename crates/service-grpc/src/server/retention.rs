use super::{Answers, answers};
use crate::{
    convert::{copied, event_id},
    error::to_status,
    lifecycle_proto::{self as pb, retention_service_server::RetentionService},
    retention as convert,
};
use cairn_service_api::Retention;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// Serves a [`Retention`].
pub struct RetentionServer(pub(super) Arc<dyn Retention>);

#[async_trait]
impl RetentionService for RetentionServer {
    async fn place_hold(
        &self,
        request: Request<pb::PlaceHoldRequest>,
    ) -> Result<Response<pb::PlaceHoldResponse>, Status> {
        let hold = convert::hold_from(request.into_inner().hold).map_err(to_status)?;
        let id = self.0.place_hold(hold).await.map_err(to_status)?;
        Ok(Response::new(pb::PlaceHoldResponse { hold_id: copied(id.as_bytes()) }))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::ReleaseHoldResponse>, Status> {
        let request = request.into_inner();
        let id = convert::hold_id(&request.hold_id).map_err(to_status)?;
        let grounds = convert::grounds_from(request.grounds).map_err(to_status)?;
        self.0.release_hold(id, grounds).await.map_err(to_status)?;
        Ok(Response::new(pb::ReleaseHoldResponse {}))
    }

    type HoldsStream = Answers<pb::HoldsResponse>;

    async fn holds(&self, _: Request<pb::HoldsRequest>) -> Result<Response<Self::HoldsStream>, Status> {
        let found = self.0.holds().await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::in_force_to)))
    }

    async fn request_erasure(
        &self,
        request: Request<pb::RequestErasureRequest>,
    ) -> Result<Response<pb::RequestErasureResponse>, Status> {
        let request = request.into_inner();
        let scope = convert::scope_from(&request).map_err(to_status)?;
        let grounds = convert::grounds_from(request.grounds).map_err(to_status)?;
        let ids = self.0.request_erasure(scope, request.delay_ms, grounds).await.map_err(to_status)?;
        let erasure_event_ids = ids.iter().map(|id| copied(id.as_bytes())).collect();
        Ok(Response::new(pb::RequestErasureResponse { erasure_event_ids }))
    }

    async fn withdraw_erasure(
        &self,
        request: Request<pb::WithdrawErasureRequest>,
    ) -> Result<Response<pb::WithdrawErasureResponse>, Status> {
        let request = request.into_inner();
        let id = event_id(&request.erasure_event_id).map_err(to_status)?;
        let grounds = convert::grounds_from(request.grounds).map_err(to_status)?;
        self.0.withdraw_erasure(id, grounds).await.map_err(to_status)?;
        Ok(Response::new(pb::WithdrawErasureResponse {}))
    }

    type ErasuresStream = Answers<pb::ErasureStatus>;

    async fn erasures(&self, _: Request<pb::ErasuresRequest>) -> Result<Response<Self::ErasuresStream>, Status> {
        let found = self.0.erasures().await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::status_to)))
    }

    async fn erasure_report(
        &self,
        request: Request<pb::ErasureReportRequest>,
    ) -> Result<Response<pb::ErasureReportResponse>, Status> {
        let id = event_id(&request.into_inner().erasure_event_id).map_err(to_status)?;
        let report = self.0.erasure_report(id).await.map_err(to_status)?;
        Ok(Response::new(convert::report_to(report)))
    }
}
