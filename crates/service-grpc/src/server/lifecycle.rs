use super::{Answers, answers};
use crate::{
    convert::object_key,
    error::to_status,
    lifecycle as convert,
    lifecycle_proto::{self as pb, lifecycle_service_server::LifecycleService},
    orphans,
};
use cairn_service_api::Lifecycle;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// Serves a [`Lifecycle`].
pub struct LifecycleServer(pub(super) Arc<dyn Lifecycle>);

#[async_trait]
impl LifecycleService for LifecycleServer {
    async fn fixity(&self, _: Request<pb::FixityRequest>) -> Result<Response<pb::FixityResponse>, Status> {
        let status = self.0.fixity().await.map_err(to_status)?;
        Ok(Response::new(convert::fixity_to(&status)))
    }

    type DamagedStream = Answers<pb::DamagedResponse>;

    async fn damaged(&self, _: Request<pb::DamagedRequest>) -> Result<Response<Self::DamagedStream>, Status> {
        let found = self.0.damaged().await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::damaged_to)))
    }

    async fn scrub(&self, _: Request<pb::ScrubRequest>) -> Result<Response<pb::ScrubResponse>, Status> {
        self.0.scrub().await.map_err(to_status)?;
        Ok(Response::new(pb::ScrubResponse {}))
    }

    async fn suspect(&self, request: Request<pb::SuspectRequest>) -> Result<Response<pb::SuspectResponse>, Status> {
        let request = request.into_inner();
        let named = convert::named_from(request.named).map_err(to_status)?;
        let found_by = convert::found_by_from(request.found_by).map_err(to_status)?;
        let whole = self.0.suspect(named, found_by).await.map_err(to_status)?;
        Ok(Response::new(pb::SuspectResponse { whole }))
    }

    async fn orphans_status(
        &self,
        _: Request<pb::OrphansStatusRequest>,
    ) -> Result<Response<pb::OrphansStatusResponse>, Status> {
        let status = self.0.orphans_status().await.map_err(to_status)?;
        Ok(Response::new(orphans::status_to(&status)))
    }

    type OrphansStream = Answers<pb::OrphansResponse>;

    async fn orphans(&self, _: Request<pb::OrphansRequest>) -> Result<Response<Self::OrphansStream>, Status> {
        let found = self.0.orphans().await.map_err(to_status)?;
        Ok(Response::new(answers(found, orphans::orphan_to)))
    }

    async fn look_for_orphans(
        &self,
        _: Request<pb::LookForOrphansRequest>,
    ) -> Result<Response<pb::LookForOrphansResponse>, Status> {
        self.0.look_for_orphans().await.map_err(to_status)?;
        Ok(Response::new(pb::LookForOrphansResponse {}))
    }

    async fn release_orphans(
        &self,
        request: Request<pb::ReleaseOrphansRequest>,
    ) -> Result<Response<pb::ReleaseOrphansResponse>, Status> {
        self.0.release_orphans(request.into_inner().look).await.map_err(to_status)?;
        Ok(Response::new(pb::ReleaseOrphansResponse {}))
    }

    type ReadOrphanStream = Answers<pb::ReadOrphanResponse>;

    async fn read_orphan(
        &self,
        request: Request<pb::ReadOrphanRequest>,
    ) -> Result<Response<Self::ReadOrphanStream>, Status> {
        let key = object_key(&request.into_inner().key).map_err(to_status)?;
        let bytes = self.0.read_orphan(key).await.map_err(to_status)?;
        Ok(Response::new(answers(bytes, |chunk| pb::ReadOrphanResponse { chunk })))
    }
}
