//! Ingest: accepting SOP Instances, and operators' decisions about them.

use crate::{
    AnswerStream, Error,
    correction::{Correction, CorrectionRevocation},
    parked::Repair,
    patients::{PatientRevocation, PatientStatement},
    rejection::Revocation,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, Position,
    events::{Door, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_dicom::Uid;
use futures_core::Stream;
use std::pin::Pin;

/// Bytes of one instance as they arrive. An error means that the rest will not come.
pub type Body<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send + 'a>>;

/// Who sends, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Tenant that the sender belongs to.
    pub tenant: String,
    /// By which door.
    pub door: Door,
    /// Calling AE title; for STOW-RS and import the configured or given one, else empty.
    pub calling_ae_title: String,
    /// Called AE title; empty for STOW-RS and import.
    pub called_ae_title: String,
    /// Address and port of the peer.
    pub peer_address: String,
    /// Implementation Class UID of the association; empty where there is none.
    pub implementation_class_uid: String,
    /// Implementation Version Name of the association; empty where there is none.
    pub implementation_version_name: String,
    /// W3C traceparent of the request, if traced.
    pub traceparent: Option<String>,
    /// Issuer of Patient ID that applies where a data set names none, ahead of the sender's profile (rule
    /// `receipt`); an import gives it.
    pub issuer_of_patient_id: Option<String>,
    /// Other sites that must hold an instance before success, where the sender's profile does not want more.
    pub confirmed_sites: u32,
}

/// What is known of an instance before its bytes arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceOffer {
    /// How the bytes are packed.
    pub form: OfferedForm,
    /// Total bytes, when announced; not trusted.
    pub length_hint: Option<u64>,
    /// Study that the request names (STOW-RS to a study); another one in the data set is refused as `DoesNotMatch`.
    pub study_instance_uid: Option<Uid>,
}

/// How an instance's bytes are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferedForm {
    /// A data set alone, with what the C-STORE request said of it.
    DataSet {
        /// Transfer syntax of the presentation context.
        transfer_syntax_uid: Uid,
        /// Affected SOP Class UID; must be the data set's.
        sop_class_uid: Uid,
        /// Affected SOP Instance UID; must be the data set's.
        sop_instance_uid: Uid,
    },
    /// A Part 10 file; preamble and File Meta Information may be missing.
    File,
}

/// What became of an instance that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// Digest of the stored object.
    pub digest: Digest,
    /// Length of the stored object in bytes.
    pub length: u64,
    /// Where the event that makes it a fact stands.
    pub position: Position,
    /// How it relates to what was there.
    pub outcome: StoreOutcome,
    /// Deviations from the Standard that were tolerated: stable codes with the element concerned.
    pub findings: Vec<(String, cairn_dicom::Tag)>,
    /// Other sites that were waited for, and hold it: the level of durability that was reached.
    pub confirmed_sites: u32,
    /// Of a rejection note: where the events stand that it led to.
    pub rejections: Vec<Position>,
}

/// How a stored instance relates to what was there, as far as could be known before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Nothing known under its identifiers.
    New,
    /// The same bytes are there: the second copy was not kept.
    Repeat,
    /// Another version is there under the same (study, series, SOP Instance UID); both are kept. Doors warn (B000).
    Conflict {
        /// Whether this version is the one shown from now on.
        shown: bool,
    },
    /// The same SOP Instance UID is in another study or series; both are kept. Doors warn (B000).
    ElsewhereToo,
}

/// An input that was refused, kept in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Names the entry.
    pub id: EventId,
    /// When it was refused, in milliseconds since the Unix epoch.
    pub refused_at_ms: u64,
    /// Stable code of the cause.
    pub reason: String,
    /// Calling AE title.
    pub calling_ae_title: String,
    /// Bytes kept.
    pub length: u64,
    /// Whether the kept bytes are the whole input.
    pub complete: bool,
}

/// The ingest service.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Opens a receipt for an association, STOW-RS request or import.
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error>;

    /// Stores one SOP Instance and returns once it is safe to acknowledge it (I1, I2). With a rejection note that is once the
    /// events are durable by which what it names is rejected.
    ///
    /// # Errors
    /// `Invalid` (`CannotUnderstand`, `DoesNotMatch`, `BadIdentifier`, `TransferSyntax`, `TooLarge`): refused, in quarantine.
    /// `Conflict` (`ConflictRefused`), `Exhausted`, `Unavailable`: nothing was stored as far as is known; a retry is safe.
    /// `Unavailable` (`ReadOnly`): the site takes no instances. `Unavailable` (`NotConfirmed`): it is stored, but not at as many other sites as wanted; a retry is a repeat.
    /// `Aborted`: the body ended early; nothing was stored.
    /// # Cancel safety
    /// Dropped before the append: nothing is stored. Dropped during it: it may be, unacknowledged.
    async fn store(&self, receipt: ReceiptId, offer: InstanceOffer, body: Body<'_>) -> Result<Stored, Error>;

    /// Closes a receipt: appends `ReceiptClosed` per study. Closing twice is `NotFound`.
    async fn close_receipt(&self, receipt: ReceiptId, end: ReceiptEnd) -> Result<(), Error>;

    /// Records an operator's choice of the version to show, named by its store event.
    async fn choose_version(
        &self,
        tenant: &str,
        identity: (Uid, Uid, Uid),
        store_event: EventId,
        chosen_by: &str,
        reason: &str,
    ) -> Result<Position, Error>;

    /// Records what an operator does about an event that could not be folded.
    ///
    /// # Errors
    /// `NotFound`: there is no event at that position. `Invalid`: the replacement can't be folded in its place.
    async fn repair(&self, repair: Repair) -> Result<Position, Error>;

    /// Takes a rejection back: what it said counts as never said.
    ///
    /// # Errors
    /// `NotFound`: there is no rejection at that position.
    async fn revoke_rejection(&self, revocation: Revocation) -> Result<Position, Error>;

    /// Corrects patient or study attributes: they are found and given out with other values from then on. Stored bytes stay as
    /// they are.
    ///
    /// # Errors
    /// `Invalid`: an attribute can't be corrected, or not to that value. `NotFound`: there is no such instance.
    async fn correct(&self, correction: Correction) -> Result<Position, Error>;

    /// Takes a correction back: it counts as never made.
    ///
    /// # Errors
    /// `NotFound`: there is no correction at that position.
    async fn revoke_correction(&self, revocation: CorrectionRevocation) -> Result<Position, Error>;

    /// Records a fact about patients: a merge, a link, or an update of a patient's attributes. Stored bytes stay as they are.
    ///
    /// # Errors
    /// `Invalid`: an identity or a value can't be used. `Conflict`: the merge would close a cycle, or the prior patient is merged
    /// already.
    async fn say_of_patients(&self, statement: PatientStatement) -> Result<Position, Error>;

    /// Takes a fact about patients back: it counts as never said.
    ///
    /// # Errors
    /// `NotFound`: there is no such fact at that position.
    async fn revoke_patient_fact(&self, revocation: PatientRevocation) -> Result<Position, Error>;

    /// Quarantined inputs, newest first.
    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error>;

    /// The kept bytes of a quarantined input.
    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error>;

    /// Whether instances can be taken now: `Ok`, or why not.
    async fn ready(&self) -> Result<(), Error>;
}
