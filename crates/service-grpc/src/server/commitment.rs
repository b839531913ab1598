use super::{Answers, answers};
use crate::{
    commitment as convert,
    error::to_status,
    lifecycle_proto::{self as pb, commitment_service_server::CommitmentService},
};
use cairn_service_api::{Commitments, commitment::Reported};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, async_trait};

/// Serves [`Commitments`].
pub struct CommitmentServer(pub(super) Arc<dyn Commitments>);

#[async_trait]
impl CommitmentService for CommitmentServer {
    async fn request_commitment(
        &self,
        request: Request<pb::RequestCommitmentRequest>,
    ) -> Result<Response<pb::RequestCommitmentResponse>, Status> {
        let request = convert::request_from(request.into_inner()).map_err(to_status)?;
        let commitment = self.0.request_commitment(request).await.map_err(to_status)?;
        let commitment = Some(convert::commitment_to(commitment));
        Ok(Response::new(pb::RequestCommitmentResponse { commitment }))
    }

    async fn commitment(
        &self,
        request: Request<pb::CommitmentRequest>,
    ) -> Result<Response<pb::CommitmentResponse>, Status> {
        let request = request.into_inner();
        let transaction = convert::transaction_from(request.transaction).map_err(to_status)?;
        let wait = Duration::from_millis(request.wait_ms);
        let commitment = self.0.commitment(&transaction, wait).await.map_err(to_status)?;
        Ok(Response::new(pb::CommitmentResponse { commitment: Some(convert::commitment_to(commitment)) }))
    }

    type CommitmentOutcomesStream = Answers<pb::CommitmentOutcomesResponse>;

    async fn commitment_outcomes(
        &self,
        request: Request<pb::CommitmentOutcomesRequest>,
    ) -> Result<Response<Self::CommitmentOutcomesStream>, Status> {
        let transaction = convert::transaction_from(request.into_inner().transaction).map_err(to_status)?;
        let found = self.0.commitment_outcomes(&transaction).await.map_err(to_status)?;
        Ok(Response::new(answers(found, convert::outcome_to)))
    }

    type CommitmentsStream = Answers<pb::CommitmentsResponse>;

    async fn commitments(
        &self,
        request: Request<pb::CommitmentsRequest>,
    ) -> Result<Response<Self::CommitmentsStream>, Status> {
        let selection = convert::selection_from(request.into_inner()).map_err(to_status)?;
        let found = self.0.commitments(selection).await.map_err(to_status)?;
        let message = |of| pb::CommitmentsResponse { commitment: Some(convert::commitment_to(of)) };
        Ok(Response::new(answers(found, message)))
    }

    async fn commitment_reported(
        &self,
        request: Request<pb::CommitmentReportedRequest>,
    ) -> Result<Response<pb::CommitmentReportedResponse>, Status> {
        let request = request.into_inner();
        let transaction = convert::transaction_from(request.transaction).map_err(to_status)?;
        let reported = if request.taken { Reported::Taken } else { Reported::NotTaken };
        self.0.commitment_reported(&transaction, reported).await.map_err(to_status)?;
        Ok(Response::new(pb::CommitmentReportedResponse {}))
    }
}
