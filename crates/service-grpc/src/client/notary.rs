use super::{
    Connection, Wire,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
};
use crate::{
    convert::position_to,
    lifecycle_proto::{self as pb, notary_service_client::NotaryServiceClient},
    notary as convert,
};
use async_trait::async_trait;
use cairn_archive::Position;
use cairn_service_api::{
    Error, Notary,
    notary::{LogSealing, NotaryStatus, SignedCheckpoint},
};

/// A [`Notary`] somewhere else.
#[derive(Clone)]
pub struct NotaryClient(Peers<NotaryServiceClient<Wire>>);

impl NotaryClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| NotaryServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Notary for NotaryClient {
    async fn notary(&self) -> Result<NotaryStatus, Error> {
        convert::status_from(call!(self.0, Safe, notary, pb::NotaryRequest {})?)
    }

    async fn checkpoint(&self, accept_breaks: bool) -> Result<SignedCheckpoint, Error> {
        convert::signed_from(call!(self.0, Unsent, checkpoint, pb::CheckpointRequest { accept_breaks })?.signed)
    }

    async fn prove_event(&self, position: &Position, with_payload: bool) -> Result<String, Error> {
        let request = pb::ProveEventRequest { position: Some(position_to(position)), with_payload };
        Ok(call!(self.0, Safe, prove_event, request)?.document)
    }

    async fn prove_consistency(&self, older: &str, newer: Option<&str>) -> Result<String, Error> {
        let request = pb::ProveConsistencyRequest { older: older.to_owned(), newer: newer.map(str::to_owned) };
        Ok(call!(self.0, Safe, prove_consistency, request)?.document)
    }

    async fn sealed(&self) -> Result<LogSealing, Error> {
        convert::sealed_from(call!(self.0, Safe, sealed, pb::SealedRequest {})?)
    }

    async fn seal(&self) -> Result<(), Error> {
        // Sealing what is sealed does nothing.
        call!(self.0, Safe, seal, pb::SealRequest {}).map(|pb::SealResponse {}| ())
    }
}
