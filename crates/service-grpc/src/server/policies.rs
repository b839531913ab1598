use super::{Answers, answers};
use crate::{
    error::to_status,
    lifecycle_proto::{self as pb, policy_service_server::PolicyService},
    policies as convert,
    retention::grounds_from,
};
use cairn_service_api::Policies;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// Serves [`Policies`].
pub struct PolicyServer(pub(super) Arc<dyn Policies>);

#[async_trait]
impl PolicyService for PolicyServer {
    async fn adopt_policy(
        &self,
        request: Request<pb::AdoptPolicyRequest>,
    ) -> Result<Response<pb::AdoptPolicyResponse>, Status> {
        let policy = convert::policy_from(request.into_inner()).map_err(to_status)?;
        let version = self.0.adopt_policy(policy).await.map_err(to_status)?;
        Ok(Response::new(pb::AdoptPolicyResponse { version }))
    }

    async fn withdraw_policy(
        &self,
        request: Request<pb::WithdrawPolicyRequest>,
    ) -> Result<Response<pb::WithdrawPolicyResponse>, Status> {
        let pb::WithdrawPolicyRequest { tenant, name, grounds } = request.into_inner();
        let grounds = grounds_from(grounds).map_err(to_status)?;
        self.0.withdraw_policy(&tenant, &name, grounds).await.map_err(to_status)?;
        Ok(Response::new(pb::WithdrawPolicyResponse {}))
    }

    type PoliciesStream = Answers<pb::PolicyStatus>;

    async fn policies(&self, _: Request<pb::PoliciesRequest>) -> Result<Response<Self::PoliciesStream>, Status> {
        let found = self.0.policies().await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::status_to)))
    }

    type WhatIfStream = Answers<pb::Forecast>;

    async fn what_if(&self, request: Request<pb::WhatIfRequest>) -> Result<Response<Self::WhatIfStream>, Status> {
        let (of, studies_max) = convert::what_if_from(request.into_inner()).map_err(to_status)?;
        let found = self.0.what_if(of, studies_max).await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::forecast_to)))
    }

    async fn accept_clock(
        &self,
        request: Request<pb::AcceptClockRequest>,
    ) -> Result<Response<pb::AcceptClockResponse>, Status> {
        let grounds = grounds_from(request.into_inner().grounds).map_err(to_status)?;
        self.0.accept_clock(grounds).await.map_err(to_status)?;
        Ok(Response::new(pb::AcceptClockResponse {}))
    }
}
