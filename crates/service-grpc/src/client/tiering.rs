use super::{
    Connection, Wire, answers,
    peers::{Again::Safe, Peers, call},
};
use crate::{
    lifecycle_proto::{self as pb, tiering_service_client::TieringServiceClient},
    tiering as convert,
};
use async_trait::async_trait;
use cairn_service_api::{
    AnswerStream, Error, Tiering,
    tiering::{NewMoves, QueuedMove, TieringStatus},
};

/// [`Tiering`] somewhere else.
#[derive(Clone)]
pub struct TieringClient(Peers<TieringServiceClient<Wire>>);

impl TieringClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| TieringServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Tiering for TieringClient {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        convert::status_from(call!(self.0, Safe, tiering, pb::TieringRequest {})?)
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        // A study that waits already does not wait twice.
        Ok(call!(self.0, Safe, move_studies, convert::moves_to(moves))?.waiting)
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        let found = call!(self.0, Safe, moves, pb::MovesRequest {})?;
        Ok(answers(found, convert::queued_from))
    }
}
