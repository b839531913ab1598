use super::{
    Connection, Wire, answers,
    peers::{Again::Safe, Peers, call},
};
use crate::{
    lifecycle as convert,
    lifecycle_proto::{self as pb, lifecycle_service_client::LifecycleServiceClient},
};
use async_trait::async_trait;
use cairn_archive::events::DamageFoundBy;
use cairn_service_api::{
    AnswerStream, Error, Lifecycle,
    lifecycle::{DamagedObject, FixityStatus, NamedObject},
};

/// A [`Lifecycle`] somewhere else.
#[derive(Clone)]
pub struct LifecycleClient(Peers<LifecycleServiceClient<Wire>>);

impl LifecycleClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| LifecycleServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Lifecycle for LifecycleClient {
    async fn fixity(&self) -> Result<FixityStatus, Error> {
        convert::fixity_from(call!(self.0, Safe, fixity, pb::FixityRequest {})?)
    }

    async fn damaged(&self) -> Result<AnswerStream<DamagedObject>, Error> {
        let found = call!(self.0, Safe, damaged, pb::DamagedRequest {})?;
        Ok(answers(found, convert::damaged_from))
    }

    async fn scrub(&self) -> Result<(), Error> {
        call!(self.0, Safe, scrub, pb::ScrubRequest {})?;
        Ok(())
    }

    async fn suspect(&self, named: NamedObject, found_by: DamageFoundBy) -> Result<bool, Error> {
        let request = pb::SuspectRequest { named: Some(convert::named_to(&named)), found_by: found_by.into() };
        Ok(call!(self.0, Safe, suspect, request)?.whole)
    }
}
