//! Storage commitment (PS3.4 annex J, PS3.18 section 13, edition 2025c): what is asked for, and what became of it.

use crate::{AnswerStream, Error};
use async_trait::async_trait;
use cairn_archive::{
    commitment::{FailureReason, Reference, State},
    events::{CommitmentReporting, Door},
};
use cairn_dicom::Uid;
use std::time::Duration;

/// The name of a transaction at a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction {
    /// Whose instances.
    pub tenant: String,
    /// AE title of the requester; of DICOMweb the configured one, perhaps empty.
    pub requester: String,
    /// Transaction UID.
    pub transaction_uid: Uid,
}

/// Somebody asks whether the archive keeps instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Under which name.
    pub transaction: Transaction,
    /// Called AE title; empty by DICOMweb.
    pub called_ae_title: String,
    /// By which door.
    pub door: Door,
    /// Address and port of the peer.
    pub peer_address: String,
    /// What it asks about, in its order. At least one.
    pub references: Vec<Reference>,
    /// Other sites that must hold an instance before it is committed.
    pub confirmed_sites: u32,
    /// How it learns of the decision.
    pub reporting: CommitmentReporting,
}

/// How far a transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// Its name.
    pub transaction: Transaction,
    /// How far it is.
    pub state: State,
    /// By which door it was asked for.
    pub door: Door,
    /// When it was asked for, in milliseconds since the Unix epoch by the site's clock.
    pub requested_at_ms: u64,
    /// Instances asked about.
    pub references: u32,
    /// Other sites that must hold an instance.
    pub confirmed_sites: u32,
    /// When it was decided.
    pub decided_at_ms: Option<u64>,
    /// Instances committed.
    pub committed: u32,
    /// Instances that are not, by reason.
    pub failed: Vec<(FailureReason, u32)>,
    /// When the requester was told, or given up.
    pub reported_at_ms: Option<u64>,
    /// Why it could not be told when that was tried last; of a process that has started since: not known.
    pub report_failure: Option<String>,
}

/// What became of an instance asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub reference: Reference,
    /// Why it is not committed; `None`: it is.
    pub failure: Option<FailureReason>,
}

/// Which transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whose instances.
    pub tenant: String,
    /// Those of this requester.
    pub requester: Option<String>,
    /// Those under this Transaction UID.
    pub transaction_uid: Option<Uid>,
    /// Those that are so far.
    pub state: Option<State>,
}

/// A decision, for its requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The transaction.
    pub transaction: Transaction,
    /// AE title that the requester called.
    pub called_ae_title: String,
    /// All that was asked about, in its order.
    pub outcomes: Vec<Outcome>,
}

/// What a door can say of a report that it was to make on the requester's own association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The requester took it.
    Taken,
    /// The association is gone, or the requester did not take it.
    NotTaken,
}

/// Storage commitment, as doors and operators see it. One process of a site works on it.
#[async_trait]
pub trait Commitments: Send + Sync {
    /// Takes a request; it is durable on return, and will be decided. One that repeats another is answered as that one was;
    /// after its requester was told, it is told again.
    ///
    /// # Errors
    /// `Conflict`: the Transaction UID was used for other references. `Exhausted`: too many instances are asked about, or
    /// too many requests of the requester are under way. `Invalid`: nothing is asked about. `Unavailable`: it may be taken or not;
    /// a repeat is safe.
    /// # Cancel safety
    /// Dropped, it may be taken or not.
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error>;

    /// How far a transaction is, once it is decided, or after `wait`.
    ///
    /// # Errors
    /// `NotFound`: there is none.
    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error>;

    /// What became of each instance asked about, in the requester's order.
    ///
    /// # Errors
    /// `NotFound`: there is no such transaction, or it is not decided.
    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<Outcome>, Error>;

    /// Transactions by requester and Transaction UID.
    async fn commitments(&self, selection: Selection) -> Result<AnswerStream<Commitment>, Error>;

    /// What came of a report on the requester's own association: where it was not taken, the archive calls the requester.
    ///
    /// # Errors
    /// `NotFound`: there is no such transaction, or it is not decided.
    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error>;
}

/// Tells requesters of decisions, over associations of the archive's own.
#[async_trait]
pub trait Reporter: Send + Sync {
    /// Returns once the requester has taken the report.
    ///
    /// # Errors
    /// `NotFound`: no address of the requester is known. `Unavailable`: it can't be reached. `Denied`: it did not take it.
    /// # Cancel safety
    /// Dropped, the requester may have taken it or not.
    async fn report(&self, report: Report) -> Result<(), Error>;
}
