//! The notary: what this site's log is, in words that are signed, and proofs of what is in it.

use crate::Error;
use async_trait::async_trait;
use cairn_archive::{Offset, Partition, Position, SiteId};

/// A checkpoint that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// Among the checkpoints of the site, from 1.
    pub number: u64,
    /// When, in milliseconds since the Unix epoch by the site's clock.
    pub at_ms: u64,
    /// Events in its trees.
    pub events: u64,
    /// Partitions that do not go on from what the checkpoint before had of them.
    pub breaks: u64,
    /// The signed note.
    pub document: String,
}

/// How far the notary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotaryStatus {
    /// The site.
    pub site: SiteId,
    /// When this was so, in milliseconds since the Unix epoch by its clock.
    pub at_ms: u64,
    /// Whether there is a key to sign with: without it nothing is done.
    pub has_key: bool,
    /// Events in trees, and in the log.
    pub events: (u64, u64),
    /// The latest checkpoint.
    pub latest: Option<SignedCheckpoint>,
    /// Number of the latest one that is in the export directory with all before it; `None`: none, or there is no directory.
    pub exported: Option<u64>,
    /// Why it does not go on; `None`: it does.
    pub trouble: Option<String>,
}

/// What is in sealed ranges of a partition of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedPartition {
    /// The partition.
    pub partition: Partition,
    /// How many.
    pub ranges: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// First offset that is in none.
    pub sealed_to: Offset,
    /// First offset that the log itself can give: past 0 where it has lost what is older.
    pub log_begin: Offset,
    /// Its end.
    pub log_end: Offset,
}

/// What is sealed of a site's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSealing {
    /// The site.
    pub site: SiteId,
    /// In order.
    pub partitions: Vec<SealedPartition>,
    /// Why it does not go on; `None`: it does.
    pub trouble: Option<String>,
}

/// Signs what the log is, and proves what is in it.
#[async_trait]
pub trait Notary: Send + Sync {
    /// How far it is.
    async fn notary(&self) -> Result<NotaryStatus, Error>;

    /// Signs a checkpoint of everything that the log has now. It is in the log, and exported where there is a directory, on return.
    ///
    /// # Errors
    /// `Conflict`: the log does not go on from the latest checkpoint, or one of this number was exported that the log does
    /// not have, and `accept_breaks` is not set; nothing is signed. `Invalid`: there is no key. `Unavailable`: it may be signed or not.
    async fn checkpoint(&self, accept_breaks: bool) -> Result<SignedCheckpoint, Error>;

    /// Proves that the event at this place of the site's log is in its latest checkpoint: a document for `cairn audit verify`.
    /// With its payload it may have patient attributes.
    ///
    /// # Errors
    /// `NotFound`: no event stands there, or not in the latest checkpoint yet. `Corrupt`: it is not, or not so, what the
    /// checkpoint has there.
    async fn prove_event(&self, position: &Position, with_payload: bool) -> Result<String, Error>;

    /// Proves that a checkpoint of this site goes on from an older one; `newer`: the latest, if there is none.
    ///
    /// # Errors
    /// `Invalid`: these are no two checkpoints of this site, the older first. `Conflict`: it does not go on from it, naming the
    /// partition.
    async fn prove_consistency(&self, older: &str, newer: Option<&str>) -> Result<String, Error>;

    /// What of the log is in sealed ranges.
    async fn sealed(&self) -> Result<LogSealing, Error>;

    /// Seals everything that the log has now; what it says of that itself comes after it.
    ///
    /// # Errors
    /// `Conflict`: the log lacks what was sealed; it was restored from a backup, or is another one. `Corrupt`: a range is
    /// damaged. `Unavailable`, `Exhausted`: some of it may be sealed.
    async fn seal(&self) -> Result<(), Error>;
}
