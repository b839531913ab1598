//! Lifecycle: what was stored stays what it is, and somebody looks.

use crate::{
    AnswerStream, Error,
    orphans::{Orphan, OrphansStatus},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, ObjectKey, SiteId,
    events::{Damage, DamageFoundBy},
};
use cairn_store_api::ObjectRef;
use std::time::Duration;

/// An object, and the event that says what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedObject {
    /// What the event says of it.
    pub object: ObjectRef,
    /// `ce_id` of that event.
    pub named_by: EventId,
    /// Tenant of that event; this and the UIDs are empty where it is of no study, or can't be read.
    pub tenant: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Series Instance UID.
    pub series_instance_uid: String,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
}

/// One go through every object that the log names: each is read from end to end, and compared with its digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The first is 1.
    pub number: u64,
    /// When it began, in milliseconds since the Unix epoch by the site's clock.
    pub began_at_ms: u64,
    /// When everything was read; `None`: it goes on.
    pub ended_at_ms: Option<u64>,
    /// Events gone past.
    pub events: u64,
    /// Events to go past.
    pub events_total: u64,
    /// Objects read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were damaged or gone.
    pub damaged: u64,
    /// Of those, objects that were made whole again at once.
    pub repaired: u64,
}

/// Whether objects are what their events say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixityStatus {
    /// The site.
    pub site: SiteId,
    /// When this was so, in milliseconds since the Unix epoch by its clock.
    pub at_ms: u64,
    /// The round under way, or the last one.
    pub round: Option<Round>,
    /// The last round that came to its end.
    pub last_whole: Option<Round>,
    /// In what time everything is to be read once.
    pub period: Duration,
    /// Bytes a second at which that is done now.
    pub bytes_per_second: u64,
    /// Whether that is enough to read everything within the period.
    pub period_is_kept: bool,
    /// Objects that are damaged or gone now.
    pub damaged: u64,
    /// Second copies, where there are some.
    pub copies: Option<SecondCopies>,
}

/// Copies of what is stored in a second object store of the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondCopies {
    /// Events of the log whose objects were not copied yet.
    pub behind_events: u64,
    /// Copies that were found damaged or missing, and made anew, since the start.
    pub made_anew: u64,
    /// Whether the second store could not be reached when it was last wanted.
    pub is_away: bool,
}

/// An object that is damaged or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    /// Which.
    pub named: NamedObject,
    /// What is wrong with it.
    pub damage: Damage,
    /// What came upon it.
    pub found_by: DamageFoundBy,
    /// When, in milliseconds since the Unix epoch by the site's clock.
    pub found_at_ms: u64,
    /// `ce_id` of the event that says so.
    pub event: EventId,
    /// When it was last tried to have it whole again, and why that failed.
    pub tried: Option<(u64, String)>,
}

/// The lifecycle service.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// How far the reading of everything is, and how much is damaged.
    async fn fixity(&self) -> Result<FixityStatus, Error>;

    /// What is damaged or gone now, by key.
    async fn damaged(&self) -> Result<AnswerStream<DamagedObject>, Error>;

    /// Begins a round now, as fast as objects may be read at all; with one under way, that one goes on so.
    async fn scrub(&self) -> Result<(), Error>;

    /// Looks at an object that somebody could not read. Damage is written down, and it is tried to have it whole again;
    /// gives whether it is whole now.
    ///
    /// # Cancel safety
    /// Dropped, what was begun may be done or not.
    async fn suspect(&self, named: NamedObject, found_by: DamageFoundBy) -> Result<bool, Error>;

    /// What is known of objects that no event names.
    async fn orphans_status(&self) -> Result<OrphansStatus, Error>;

    /// Orphans that the last look found and left, by key.
    async fn orphans(&self) -> Result<AnswerStream<Orphan>, Error>;

    /// Looks for orphans now.
    async fn look_for_orphans(&self) -> Result<(), Error>;

    /// Says that the orphans which looks up to this one found may be removed when their time has come, though they would be kept.
    ///
    /// # Errors
    /// `Invalid`: there was no such look.
    async fn release_orphans(&self, look: u64) -> Result<(), Error>;

    /// Bytes of an orphan, verified.
    ///
    /// # Errors
    /// `NotFound`: the last look did not find it, or it is gone.
    async fn read_orphan(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error>;
}
