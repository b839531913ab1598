use super::{
    Connection, Wire, answers,
    peers::{Again::Safe, Peers, call},
};
use crate::{
    commitment as convert,
    lifecycle_proto::{self as pb, commitment_service_client::CommitmentServiceClient},
};
use async_trait::async_trait;
use cairn_service_api::{
    AnswerStream, Commitments, Error,
    commitment::{Commitment, Outcome, Reported, Request, Selection, Transaction},
};
use std::time::Duration;

/// [`Commitments`] somewhere else.
#[derive(Clone)]
pub struct CommitmentsClient(Peers<CommitmentServiceClient<Wire>>);

impl CommitmentsClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let max = connection.message_bytes_max;
        let client =
            |wire| CommitmentServiceClient::new(wire).max_decoding_message_size(max).max_encoding_message_size(max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Commitments for CommitmentsClient {
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error> {
        // A repeat is answered as the first was.
        let response = call!(self.0, Safe, request_commitment, convert::request_to(&request))?;
        convert::commitment_from(response.commitment)
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = pb::CommitmentRequest { transaction: Some(convert::transaction_to(transaction)), wait_ms };
        convert::commitment_from(call!(self.0, Safe, commitment, request)?.commitment)
    }

    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<Outcome>, Error> {
        let request = pb::CommitmentOutcomesRequest { transaction: Some(convert::transaction_to(transaction)) };
        Ok(answers(call!(self.0, Safe, commitment_outcomes, request)?, convert::outcome_from))
    }

    async fn commitments(&self, selection: Selection) -> Result<AnswerStream<Commitment>, Error> {
        let found = call!(self.0, Safe, commitments, convert::selection_to(selection))?;
        Ok(answers(found, |message: pb::CommitmentsResponse| convert::commitment_from(message.commitment)))
    }

    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error> {
        let (transaction, taken) = (Some(convert::transaction_to(transaction)), reported == Reported::Taken);
        call!(self.0, Safe, commitment_reported, pb::CommitmentReportedRequest { transaction, taken })?;
        Ok(())
    }
}
