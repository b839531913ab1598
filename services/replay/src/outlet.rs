//! Where instances go: another archive, by C-STORE or STOW-RS.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_dicomweb::agent::{Agent, AgentError, StowAnswer};
use cairn_dimse::{
    AssociationError,
    scu::{Remote, ScuError, StoreAnswer, StoreScu},
};
use cairn_service_api::{AnswerStream, Error, ErrorKind, index::InstanceRecord, retrieval::Part};

/// Another archive.
#[derive(Clone)]
pub enum Destination {
    /// By C-STORE, and C-FIND to reconcile.
    Dimse(Box<Remote>),
    /// By STOW-RS, and QIDO-RS to reconcile.
    Web(Agent),
    /// Nowhere: what would go is noted down alone.
    Nowhere,
}

/// How an instance was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Stored,
    /// Stored, with this warning.
    Warned(String),
    /// Not stored, with this status.
    Refused(String),
    /// Not sent, because nothing is.
    Noted,
}

/// Why it is not known to be taken.
#[derive(Debug)]
pub(crate) enum Untaken {
    /// The archive can't be reached, or the connection broke.
    Unreachable(String),
    /// The archive is busy or full for now, and said this.
    Busy(String),
    /// Nothing can go there as it is.
    Hopeless(String),
    /// This archive could not give it.
    Source(Error),
}

/// One connection to a destination.
#[async_trait]
pub(crate) trait Outlet: Send {
    /// What of an instance goes; `None`: nothing.
    fn part(&self) -> Option<Part>;

    /// Sends one instance.
    async fn send(&mut self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> Result<Taken, Untaken>;

    /// Ends the connection.
    async fn close(&mut self);
}

impl Destination {
    pub(crate) fn open(&self) -> Box<dyn Outlet> {
        match self {
            Self::Dimse(remote) => Box::new(Dimse(StoreScu::new((**remote).clone()))),
            Self::Web(agent) => Box::new(Web(agent.clone())),
            Self::Nowhere => Box::new(Nowhere),
        }
    }
}

struct Dimse(StoreScu);

#[async_trait]
impl Outlet for Dimse {
    fn part(&self) -> Option<Part> {
        Some(Part::DataSet)
    }

    async fn send(&mut self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> Result<Taken, Untaken> {
        match self.0.store(record, bytes).await {
            Ok(StoreAnswer::Status(status)) if status.0 == 0 => Ok(Taken::Stored),
            Ok(StoreAnswer::Status(status)) if status.is_warning() => Ok(Taken::Warned(status.to_string())),
            // Refused: out of resources (PS3.4 table B.2-1), the whole range.
            Ok(StoreAnswer::Status(status)) if status.0 & 0xFF00 == 0xA700 => Err(Untaken::Busy(status.to_string())),
            Ok(StoreAnswer::Status(status)) => Ok(Taken::Refused(status.to_string())),
            Ok(StoreAnswer::NoContext) => Ok(Taken::Refused("no presentation context accepted".into())),
            Err(ScuError::Source(error)) => Err(Untaken::Source(error)),
            Err(ScuError::Association(AssociationError::Rejected(reject))) if reject.result == 1 => {
                Err(Untaken::Hopeless(reject.to_string()))
            }
            Err(error) => Err(Untaken::Unreachable(error.to_string())),
        }
    }

    async fn close(&mut self) {
        self.0.release().await;
    }
}

struct Web(Agent);

#[async_trait]
impl Outlet for Web {
    fn part(&self) -> Option<Part> {
        Some(Part::File)
    }

    async fn send(&mut self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> Result<Taken, Untaken> {
        let text = |reason: u16| if reason < 600 { format!("HTTP {reason}") } else { format!("{reason:04X}H") };
        let unknown = || Error::new(ErrorKind::Internal, "retrieval did not say how long the instance is");
        let length = record.given_length().ok_or_else(unknown).map_err(Untaken::Source)?;
        match self.0.store(length, bytes).await {
            Ok(StowAnswer::Stored(None)) => Ok(Taken::Stored),
            Ok(StowAnswer::Stored(Some(warning))) => Ok(Taken::Warned(text(warning))),
            Ok(StowAnswer::Refused(reason)) if reason & 0xFF00 == 0xA700 => Err(Untaken::Busy(text(reason))),
            Ok(StowAnswer::Refused(reason)) => Ok(Taken::Refused(text(reason))),
            Err(AgentError::Source(error)) => Err(Untaken::Source(error)),
            Err(AgentError::Connection(what)) => Err(Untaken::Unreachable(what)),
            Err(error @ AgentError::Status(status)) if error.is_passing() => Err(Untaken::Busy(text(status))),
            Err(error) => Err(Untaken::Hopeless(error.to_string())),
        }
    }

    async fn close(&mut self) {}
}

struct Nowhere;

#[async_trait]
impl Outlet for Nowhere {
    fn part(&self) -> Option<Part> {
        None
    }

    async fn send(&mut self, _: &InstanceRecord, _: AnswerStream<Bytes>) -> Result<Taken, Untaken> {
        Ok(Taken::Noted)
    }

    async fn close(&mut self) {}
}
