use super::{Answers, answers};
use crate::{
    convert::{
        conflict_to, detail_from, level_from, record_to, returning_from, selection_from, state_digest_to, status_to,
        titles_from, vector_from, vector_to,
    },
    digests,
    error::to_status,
    generations::{change_from, changed_to, diff_from, difference_to, generation_to},
    identifier,
    index_proto::{self as pb, index_service_server::IndexService},
    parked, patients, survey,
};
use cairn_service_api::{
    Error, Index,
    index::{Query, QueryOptions},
};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, async_trait};

/// Serves an [`Index`].
pub struct IndexServer(pub(super) Arc<dyn Index>);

fn query(request: pb::QueryRequest) -> Result<Query, Error> {
    Ok(Query {
        tenant: request.tenant,
        level: level_from(request.level)?,
        identifier: identifier::decode(&request.identifier)?,
        options: QueryOptions {
            fuzzy_person_names: request.fuzzy_person_names,
            combined_date_time: request.combined_date_time,
            time_zone_adjustment: request.time_zone_adjustment,
            empty_value: request.empty_value,
            multiple_value: request.multiple_value,
        },
        returning: returning_from(request.returning, request.include)?,
        offset: request.offset,
        limit: request.limit,
        generation: request.generation,
        sees_rejected: titles_from(&request.sees_rejected)?,
    })
}

#[async_trait]
impl IndexService for IndexServer {
    type QueryStream = Answers<pb::QueryResponse>;

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let query = query(request.into_inner()).map_err(to_status)?;
        let found = self.0.query(query).await.map_err(to_status)?;
        let message = |data_set| identifier::encode(&data_set).map(|data_set| pb::QueryResponse { data_set });
        Ok(Response::new(Box::pin(found.map(move |found| found.and_then(message).map_err(to_status)))))
    }

    type InstancesStream = Answers<pb::InstancesResponse>;

    async fn instances(
        &self,
        request: Request<pb::InstancesRequest>,
    ) -> Result<Response<Self::InstancesStream>, Status> {
        let request = request.into_inner();
        let selection = selection_from(request.selection).map_err(to_status)?;
        let detail = detail_from(request.detail).map_err(to_status)?;
        let found = self.0.instances(selection, detail).await.map_err(to_status)?;
        Ok(Response::new(answers(found, |record| pb::InstancesResponse { record: Some(record_to(&record)) })))
    }

    async fn wait_for(&self, request: Request<pb::WaitForRequest>) -> Result<Response<pb::WaitForResponse>, Status> {
        let request = request.into_inner();
        let after = vector_from(request.after.unwrap_or_default()).map_err(to_status)?;
        let timeout = Duration::from_millis(request.timeout_ms);
        self.0.wait_for(&after, timeout).await.map_err(to_status)?;
        Ok(Response::new(pb::WaitForResponse {}))
    }

    type ConflictsStream = Answers<pb::ConflictsResponse>;

    async fn conflicts(
        &self,
        request: Request<pb::ConflictsRequest>,
    ) -> Result<Response<Self::ConflictsStream>, Status> {
        let request = request.into_inner();
        let found = self.0.conflicts(&request.tenant, request.include_other_encodings).await.map_err(to_status)?;
        Ok(Response::new(answers(found, |conflict| conflict_to(&conflict))))
    }

    type ParkedStream = Answers<pb::ParkedResponse>;

    async fn parked(&self, request: Request<pb::ParkedRequest>) -> Result<Response<Self::ParkedStream>, Status> {
        let found = self.0.parked(parked::selection_from(request.into_inner())).await.map_err(to_status)?;
        Ok(Response::new(answers(found, parked::parked_to)))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.0.status().await.map_err(to_status)?;
        Ok(Response::new(status_to(&status)))
    }

    async fn digest(&self, _: Request<pb::DigestRequest>) -> Result<Response<pb::DigestResponse>, Status> {
        let (digest, position) = self.0.digest().await.map_err(to_status)?;
        let (digest, position) = (Some(state_digest_to(&digest)), Some(vector_to(&position)));
        Ok(Response::new(pb::DigestResponse { digest, position }))
    }

    async fn generations(
        &self,
        _: Request<pb::GenerationsRequest>,
    ) -> Result<Response<pb::GenerationsResponse>, Status> {
        let generations = self.0.generations().await.map_err(to_status)?;
        Ok(Response::new(pb::GenerationsResponse { generations: generations.iter().map(generation_to).collect() }))
    }

    async fn manage(&self, request: Request<pb::ManageRequest>) -> Result<Response<pb::ManageResponse>, Status> {
        let change = change_from(request.into_inner()).map_err(to_status)?;
        let changed = self.0.manage(change).await.map_err(to_status)?;
        Ok(Response::new(changed_to(&changed)))
    }

    type DiffStream = Answers<pb::DiffResponse>;

    async fn diff(&self, request: Request<pb::DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        let found = self.0.diff(diff_from(request.into_inner())).await.map_err(to_status)?;
        Ok(Response::new(answers(found, |difference| difference_to(&difference))))
    }

    async fn digest_tree(&self, _: Request<pb::DigestTreeRequest>) -> Result<Response<pb::DigestTreeResponse>, Status> {
        let tree = self.0.digest_tree().await.map_err(to_status)?;
        Ok(Response::new(digests::tree_to(&tree)))
    }

    type StudyDigestsStream = Answers<pb::StudyDigestsResponse>;

    async fn study_digests(
        &self,
        request: Request<pb::StudyDigestsRequest>,
    ) -> Result<Response<Self::StudyDigestsStream>, Status> {
        let (tenant, of) = digests::digests_from(request.into_inner()).map_err(to_status)?;
        let found = self.0.study_digests(&tenant, of).await.map_err(to_status)?;
        Ok(Response::new(answers(found, |digest| digests::digest_to(&digest))))
    }

    type StudyEventsStream = Answers<pb::StudyEventsResponse>;

    async fn study_events(
        &self,
        request: Request<pb::StudyEventsRequest>,
    ) -> Result<Response<Self::StudyEventsStream>, Status> {
        let request = request.into_inner();
        let (study, only) = digests::events_from(&request).map_err(to_status)?;
        let found = self.0.study_events(&request.tenant, &study, only).await.map_err(to_status)?;
        Ok(Response::new(answers(found, digests::event_to)))
    }

    type PatientFactsStream = Answers<pb::PatientFactsResponse>;

    async fn patient_facts(
        &self,
        request: Request<pb::PatientFactsRequest>,
    ) -> Result<Response<Self::PatientFactsStream>, Status> {
        let (tenant, of) = patients::facts_from(request.into_inner()).map_err(to_status)?;
        let found = self.0.patient_facts(&tenant, of).await.map_err(to_status)?;
        Ok(Response::new(answers(found, patients::fact_to)))
    }

    type SurveyStream = Answers<pb::SurveyResponse>;

    async fn survey(&self, request: Request<pb::SurveyRequest>) -> Result<Response<Self::SurveyStream>, Status> {
        let survey = survey::survey_from(request.into_inner());
        let found = self.0.survey(survey).await.map_err(to_status)?;
        Ok(Response::new(answers(found, survey::surveyed_to)))
    }
}
