//! Migration: instances of this archive to another one ([`replay`], [`unchanged`]), and of another one to this ([`import`]).
//!
//! Both are resumable by a journal, go no faster than they are told, and end with a reconciliation that names every
//! instance which is not at its destination as it should be. Memory does not grow with the number of instances: it is bounded
//! by what is under way, and by the largest study.
#![forbid(unsafe_code)]

pub mod compare;
pub mod import;
mod journal;
mod outlet;
mod pace;
pub mod reconcile;
pub mod replay;
pub mod report;
mod select;
mod source;
pub mod unchanged;

pub use journal::{JournalError, Notes};
pub use outlet::Destination;
pub use pace::Pace;
pub use select::{Filter, Selection, VARIABLES};
pub use source::{Listed, Remotes};

use async_trait::async_trait;
use cairn_archive::{KeyId, Offset, Partition, PositionVector, SiteId};
use cairn_service_api::{AnswerStream, Error, ErrorKind};
use cairn_store_api::{HandedKey, LogRecord};
use std::time::Duration;

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With this offset.
    Offset(Offset),
    /// With the first event that this log took at this time or later, in milliseconds since the Unix epoch.
    Time(u64),
}

/// What the log is, and how far it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExtent {
    /// Site whose log it is.
    pub site: SiteId,
    /// Its present life.
    pub incarnation: u32,
    /// Of each partition, the first offset that is not there yet.
    pub ends: Vec<Offset>,
    /// The same, as the index is asked for it.
    pub end: PositionVector,
}

/// Reads the log of the archive.
#[async_trait]
pub trait LogReader: Send + Sync {
    /// What it is, and how far it goes now.
    async fn describe(&self) -> Result<LogExtent, Error>;

    /// The records of a partition in order, up to its end. Each has its origin, those that became facts here too.
    async fn read(&self, partition: Partition, start: Start) -> Result<AnswerStream<LogRecord>, Error>;

    /// The same as the log has them: what of them is sealed, stays so.
    async fn read_as_stored(&self, partition: Partition, start: Start) -> Result<AnswerStream<LogRecord>, Error>;

    /// Keys that events are sealed under.
    async fn keys(&self, ids: &[KeyId]) -> Result<Vec<HandedKey>, Error>;
}

/// Why a run ended before its end. What was done is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The other archive can't be reached, after as many attempts as it was given.
    #[error("{0}")]
    Unreachable(String),
    /// This archive can't.
    #[error("{0}")]
    Away(String),
    /// It can't go on as it is.
    #[error("{0}")]
    Refused(String),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operator.
    #[error("interrupted")]
    Interrupted,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Unavailable => Self::Away(error.message),
            _ => Self::Refused(error.message),
        }
    }
}

/// How often, and how patiently, something is tried again that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in all.
    pub attempts: u32,
    /// Pause after the first; it doubles with each further one.
    pub pause: Duration,
    /// Up to this.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 6, pause: Duration::from_millis(250), pause_max: Duration::from_secs(10) }
    }
}

impl Patience {
    /// Waits before the next attempt; false when there is none left.
    pub(crate) async fn wait(&self, attempt: &mut u32) -> bool {
        *attempt += 1;
        if *attempt >= self.attempts {
            return false;
        }
        let doubled = self.pause.saturating_mul(1_u32.checked_shl(*attempt - 1).unwrap_or(u32::MAX));
        tokio::time::sleep(doubled.min(self.pause_max)).await;
        true
    }
}
