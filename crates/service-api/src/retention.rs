//! Retention: what is held, and what is erased.

use crate::{AnswerStream, Error};
use async_trait::async_trait;
use cairn_archive::{
    EventId, HoldId, KeyId, SiteId,
    erasure::{Destroyed, Stage},
    events::KeptVersion,
};
use cairn_dicom::Uid;

/// A hold to be placed. Nothing of what it names is erased while it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewHold {
    /// Whose studies.
    pub tenant: String,
    /// Patient ID of a patient all of whose studies are held, and its issuer; without an issuer, whoever issued it.
    pub patient: Option<(String, Option<String>)>,
    /// Studies that are held.
    pub studies: Vec<Uid>,
    /// The query that found the studies, as it was asked; empty: none did.
    pub query: String,
    /// Who places it.
    pub by: String,
    /// Why. It may name a patient.
    pub reason: String,
}

/// A hold in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldInForce {
    /// The hold.
    pub id: HoldId,
    /// What was placed; of a hold that this build can't read, without patient and reason.
    pub hold: NewHold,
    /// Whether it can't be read here: then it holds everything of its tenant.
    pub is_unreadable: bool,
    /// Site at which it was placed.
    pub site: String,
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub placed_at_ms: u64,
}

/// What is to be erased: a study, or some series of it, or some instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureScope {
    /// Whose study.
    pub tenant: String,
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UIDs; none: all.
    pub series: Vec<Uid>,
    /// SOP Instance UIDs; none: all.
    pub instances: Vec<Uid>,
}

/// Who decides about an erasure, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasureGrounds {
    /// Who.
    pub by: String,
    /// Why. It may name a patient.
    pub reason: String,
}

/// How far an erasure is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureStatus {
    /// `ce_id` of its request.
    pub id: EventId,
    /// Whose study.
    pub tenant: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// How far it is.
    pub stage: Stage,
    /// Versions asked for.
    pub versions: u64,
    /// Site at which it was asked for.
    pub site: String,
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub requested_at_ms: u64,
    /// Milliseconds that each site lets pass after it learnt of it.
    pub delay_ms: u64,
    /// Who asked.
    pub requested_by: String,
    /// Who withdrew it; empty: nobody.
    pub withdrawn_by: String,
    /// Sites that confirmed it.
    pub confirmed: Vec<SiteId>,
    /// Sites whose confirmation it waits for.
    pub waits_for: Vec<SiteId>,
    /// Versions that were erased.
    pub erased: u64,
    /// Versions that were kept.
    pub kept: u64,
    /// What sites destroyed.
    pub destroyed: Vec<(SiteId, Destroyed)>,
}

/// An object that an erasure names, as it is in the stores of the site that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedObject {
    /// Series Instance UID.
    pub series_instance_uid: String,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// `ce_id` of the store event.
    pub store_event: EventId,
    /// Its key.
    pub key: cairn_archive::ObjectKey,
    /// Whether the object store still has something under its key.
    pub is_stored: bool,
    /// Whether the index still answers with it; `None`: it could not be asked.
    pub is_answered: Option<bool>,
}

/// A key that an erasure destroyed, as it is in the key store of the site that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedKey {
    /// The key.
    pub id: KeyId,
    /// Whether it is destroyed there; `None`: that site has no key store.
    pub is_destroyed: Option<bool>,
}

/// A key that something erased is sealed under, and that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptKey {
    /// The key: of one patient's part of the erasure's study.
    pub id: KeyId,
    /// `ce_id` of the event that shows why: of one that stored what is live, of one that can't be read, or of the last under the key.
    pub needed_by: EventId,
    /// A site that may seal something live under it, that is not known yet: it has neither confirmed nor destroyed.
    pub may_be_used_at: Option<SiteId>,
}

/// What one site can show of an erasure, by its stores as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct ErasureReport {
    /// The site that was asked.
    pub at_site: SiteId,
    /// When, in milliseconds since the Unix epoch by its clock.
    pub at_ms: u64,
    /// How far the erasure is.
    pub status: ErasureStatus,
    /// Why, in the words of who asked.
    pub reason: String,
    /// What was erased, object by object.
    pub objects: Vec<ErasedObject>,
    /// What was kept, and why.
    pub kept: Vec<KeptVersion>,
    /// Keys that are destroyed with it.
    pub keys: Vec<ErasedKey>,
    /// Keys that something erased is sealed under and that are kept, and why, as the log now is.
    pub kept_keys: Vec<KeptKey>,
    /// Sites that say that they destroyed the keys, and when: milliseconds since the Unix epoch by the clock of the order of events.
    pub keys_destroyed: Vec<(SiteId, u64)>,
}

/// Holds and erasures.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Places a hold; it is durable on return.
    ///
    /// # Errors
    /// `Invalid`: it names nothing, or too much. `Exhausted`: as many are in force as may be.
    /// # Cancel safety
    /// Dropped, it may be placed or not, also for some of its studies.
    async fn place_hold(&self, hold: NewHold) -> Result<HoldId, Error>;

    /// Releases a hold. Only the site with authority does.
    ///
    /// # Errors
    /// `NotFound`: no such hold is in force. `Conflict`: this site has no authority.
    async fn release_hold(&self, id: HoldId, grounds: ErasureGrounds) -> Result<(), Error>;

    /// The holds in force at this site, by id.
    async fn holds(&self) -> Result<AnswerStream<HoldInForce>, Error>;

    /// Asks that something be erased: by everything that this site knows of it now. Only the site with authority does. One of
    /// many instances is asked for by several requests. `delay_ms`: at least so long is let pass, and never less than is
    /// configured.
    ///
    /// # Errors
    /// `NotFound`: there is nothing to erase. `Conflict`: it is held, or this site has no authority.
    /// # Cancel safety
    /// Dropped, it may be asked for or not, also in part.
    async fn request_erasure(
        &self,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error>;

    /// Withdraws an erasure that has not taken effect.
    ///
    /// # Errors
    /// `NotFound`: it is not known here. `Conflict`: it took effect, or does not count, or this site has no authority.
    async fn withdraw_erasure(&self, id: EventId, grounds: ErasureGrounds) -> Result<(), Error>;

    /// How far erasures are, by id.
    async fn erasures(&self) -> Result<AnswerStream<ErasureStatus>, Error>;

    /// What this site can show of an erasure: its stores are read for it.
    ///
    /// # Errors
    /// `NotFound`: it is not known here.
    async fn erasure_report(&self, id: EventId) -> Result<ErasureReport, Error>;
}
