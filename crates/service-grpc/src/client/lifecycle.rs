use super::{
    Connection, Wire, answers,
    peers::{Again::Safe, Peers, call},
};
use crate::{
    convert::copied,
    lifecycle as convert,
    lifecycle_proto::{self as pb, lifecycle_service_client::LifecycleServiceClient},
    orphans,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{ObjectKey, events::DamageFoundBy};
use cairn_service_api::{
    AnswerStream, Error, Lifecycle,
    lifecycle::{DamagedObject, FixityStatus, NamedObject},
    orphans::{Orphan, OrphansStatus},
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

    async fn orphans_status(&self) -> Result<OrphansStatus, Error> {
        orphans::status_from(call!(self.0, Safe, orphans_status, pb::OrphansStatusRequest {})?)
    }

    async fn orphans(&self) -> Result<AnswerStream<Orphan>, Error> {
        let found = call!(self.0, Safe, orphans, pb::OrphansRequest {})?;
        Ok(answers(found, orphans::orphan_from))
    }

    async fn look_for_orphans(&self) -> Result<(), Error> {
        call!(self.0, Safe, look_for_orphans, pb::LookForOrphansRequest {})?;
        Ok(())
    }

    async fn release_orphans(&self, look: u64) -> Result<(), Error> {
        call!(self.0, Safe, release_orphans, pb::ReleaseOrphansRequest { look })?;
        Ok(())
    }

    async fn read_orphan(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error> {
        let request = pb::ReadOrphanRequest { key: copied(key.as_bytes()) };
        let found = call!(self.0, Safe, read_orphan, request)?;
        Ok(answers(found, |piece: pb::ReadOrphanResponse| Ok(piece.chunk)))
    }
}
