use super::{
    Connection, Wire, answers,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
};
use crate::{
    convert::{
        conflict_from, detail_to, level_to, record_from, returning_to, selection_to, state_digest_from, status_from,
        titles_to, vector_from, vector_to,
    },
    digests,
    generations::{change_to, changed_from, diff_to, difference_from, generation_from},
    identifier,
    index_proto::{self as pb, index_service_client::IndexServiceClient},
    parked, patients, survey,
};
use async_trait::async_trait;
use cairn_archive::{EventId, PositionVector};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Error, Index,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
    parked::{ParkedEvent, ParkedSelection},
    patients::{FactsOf, KnownFact},
    survey::{Survey, Surveyed},
};
use std::time::Duration;

/// An [`Index`] somewhere else: in one process or in several, each of which can answer for all.
#[derive(Clone)]
pub struct IndexClient(Peers<IndexServiceClient<Wire>>);

impl IndexClient {
    /// Calls the processes at the other ends of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| IndexServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Index for IndexClient {
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error> {
        let (returning, include) = returning_to(&query.returning);
        let request = pb::QueryRequest {
            tenant: query.tenant,
            level: level_to(query.level).into(),
            identifier: identifier::encode(&query.identifier)?,
            fuzzy_person_names: query.options.fuzzy_person_names,
            combined_date_time: query.options.combined_date_time,
            time_zone_adjustment: query.options.time_zone_adjustment,
            empty_value: query.options.empty_value,
            multiple_value: query.options.multiple_value,
            returning: returning.into(),
            include,
            offset: query.offset,
            limit: query.limit,
            generation: query.generation,
            sees_rejected: titles_to(query.sees_rejected),
        };
        let found = call!(self.0, Safe, query, request)?;
        Ok(answers(found, |message| identifier::decode(&message.data_set)))
    }

    async fn instances(&self, selection: Selection, detail: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        let selection = Some(selection_to(&selection));
        let request = pb::InstancesRequest { selection, detail: detail_to(detail).into() };
        let found = call!(self.0, Safe, instances, request)?;
        Ok(answers(found, |message| record_from(message.record)))
    }

    async fn wait_for(&self, after: &PositionVector, timeout: Duration) -> Result<(), Error> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = pb::WaitForRequest { after: Some(vector_to(after)), timeout_ms };
        call!(self.0, Safe, wait_for, request)?;
        Ok(())
    }

    async fn conflicts(&self, tenant: &str, include_other_encodings: bool) -> Result<AnswerStream<Conflict>, Error> {
        let request = pb::ConflictsRequest { tenant: tenant.to_owned(), include_other_encodings };
        let found = call!(self.0, Safe, conflicts, request)?;
        Ok(answers(found, conflict_from))
    }

    async fn parked(&self, selection: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error> {
        let found = call!(self.0, Safe, parked, parked::selection_to(selection))?;
        Ok(answers(found, parked::parked_from))
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        status_from(call!(self.0, Safe, status, pb::StatusRequest {})?)
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        let response = call!(self.0, Safe, digest, pb::DigestRequest {})?;
        Ok((state_digest_from(response.digest)?, vector_from(response.position.unwrap_or_default())?))
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        let response = call!(self.0, Safe, generations, pb::GenerationsRequest {})?;
        response.generations.into_iter().map(generation_from).collect()
    }

    async fn manage(&self, change: Change) -> Result<Changed, Error> {
        changed_from(call!(self.0, Unsent, manage, change_to(&change))?)
    }

    async fn diff(&self, diff: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        let found = call!(self.0, Safe, diff, diff_to(diff))?;
        Ok(answers(found, difference_from))
    }

    async fn digest_tree(&self) -> Result<DigestTree, Error> {
        digests::tree_from(call!(self.0, Safe, digest_tree, pb::DigestTreeRequest {})?)
    }

    async fn study_digests(&self, tenant: &str, of: Of) -> Result<AnswerStream<StudyDigest>, Error> {
        let found = call!(self.0, Safe, study_digests, digests::digests_to(tenant, of))?;
        Ok(answers(found, digests::digest_from))
    }

    async fn study_events(
        &self,
        tenant: &str,
        study: &Uid,
        only: Vec<EventId>,
    ) -> Result<AnswerStream<FoldedEvent>, Error> {
        let found = call!(self.0, Safe, study_events, digests::events_to(tenant, study, &only))?;
        Ok(answers(found, digests::event_from))
    }

    async fn patient_facts(&self, tenant: &str, of: FactsOf) -> Result<AnswerStream<KnownFact>, Error> {
        let found = call!(self.0, Safe, patient_facts, patients::facts_to(tenant, of))?;
        Ok(answers(found, patients::fact_from))
    }

    async fn survey(&self, survey: Survey) -> Result<AnswerStream<Surveyed>, Error> {
        let found = call!(self.0, Safe, survey, survey::survey_to(survey))?;
        Ok(answers(found, survey::surveyed_from))
    }
}
