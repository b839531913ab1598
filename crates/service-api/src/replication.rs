//! Replication: another site kept in step, and how far behind it is.

use crate::{
    AnswerStream, Error,
    ingest::Body,
    schedule::Schedule,
    site::{Decision, Grounds, SiteStatus},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{EventId, Incarnation, ObjectKey, Offset, Partition, Position, PositionVector, SiteId};
use cairn_store_api::{HandedKey, ObjectRef, Record};
use std::time::Duration;

/// How far events of one origin go, by place and by name: a log that was restored from a backup has another event there,
/// or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Site at which the events became facts.
    pub site: SiteId,
    /// Life of that site's log.
    pub incarnation: Incarnation,
    /// Partition of that log.
    pub partition: Partition,
    /// First offset of that log that is not meant.
    pub end: Offset,
    /// The last event that is meant.
    pub last: EventId,
}

/// Who calls, and what it holds of the site that it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The calling site.
    pub site: SiteId,
    /// Life of its log.
    pub incarnation: Incarnation,
    /// Partitions of its log; both sites have as many.
    pub partitions: u16,
    /// What it holds of the called site's own events, a partition each: the called site's log must have them.
    pub marks: Vec<Mark>,
}

/// Who is called, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Names the process that answers. A later one of the same site may stand over an older log: what is said to it in the
    /// name of this meeting it refuses.
    pub process: u64,
    /// The called site.
    pub site: SiteId,
    /// Life of its log.
    pub incarnation: Incarnation,
    /// Partitions of its log.
    pub partitions: u16,
    /// Everything it holds, by origin; its own events too.
    pub holds: Vec<Mark>,
    /// Partitions in which its log does not have what the caller holds of it: it was restored from a backup.
    pub strayed: Vec<Partition>,
}

/// Consecutive events of one partition of the caller's log, those left out that the called site is known to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The process that was met.
    pub process: u64,
    /// The calling site.
    pub site: SiteId,
    /// Life of its log.
    pub incarnation: Incarnation,
    /// Partition, at both sites.
    pub partition: Partition,
    /// Offset in the caller's log with which this begins.
    pub from: Offset,
    /// Offset in the caller's log before which this ends.
    pub to: Offset,
    /// Events as they stand in the caller's log, each with its origin.
    pub records: Vec<Record>,
    /// Objects that they name and that are erased, so that they are not sent: the event that says so follows.
    pub erased: Vec<ObjectKey>,
    /// The keys that they are sealed under.
    pub keys: Vec<HandedKey>,
}

/// A delivery is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Events that it held already.
    pub repeated: u32,
}

/// What is acknowledged at one site and not known to be durable at another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    /// Events.
    pub events: u64,
    /// Instances among them.
    pub instances: u64,
    /// Bytes of the objects that they name.
    pub bytes: u64,
    /// When the oldest of them was acknowledged, in milliseconds since the Unix epoch by the clock of the site that has it.
    pub oldest_ms: Option<u64>,
}

impl Risk {
    /// The recovery point that a loss of the site at `now_ms` would leave.
    pub fn age(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest)))
    }
}

/// What a site tells its peer all the time, so that the peer, when it is all that is left, can say what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The site that tells.
    pub site: SiteId,
    /// By its clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it has that the site told is not known to have.
    pub risk: Risk,
}

/// What one site asks of another.
#[async_trait]
pub trait Peer: Send + Sync {
    /// Introduces the caller, and learns what the called site holds.
    ///
    /// # Errors
    /// `Denied`: it is no peer. `Conflict`: the two can't be kept in step as they are; the message says why.
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error>;

    /// Those of the objects that the called site does not have, by their index.
    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error>;

    /// Hands over an object. It is durable on return; one that is there already changes nothing.
    ///
    /// # Errors
    /// `Corrupt`: what arrived is not what `object` says; nothing is kept of it.
    /// # Cancel safety
    /// Dropped, it may be there or not.
    async fn put_object(&self, object: ObjectRef, body: Body<'_>) -> Result<(), Error>;

    /// The bytes of an object, for a site that has lost them; verified as they leave.
    ///
    /// # Errors
    /// `Denied`: the caller is no peer. `NotFound`: it is not here, or not as `object` says. `Corrupt`, also within the
    /// stream: it is damaged here too.
    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error>;

    /// Hands over events whose objects are there. They are durable on return.
    ///
    /// # Errors
    /// `NotFound`: an object that they name is not there. `Conflict`: they don't go on where the last delivery of the
    /// same partition ended, or another process was met. `Invalid`: they are of another partition, or their origins are not in order. Nothing is kept.
    /// # Cancel safety
    /// Dropped, they may be there or not.
    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error>;

    /// Takes note of what the caller has that is not known to be here.
    ///
    /// # Errors
    /// `Conflict`: another process was met.
    async fn tell(&self, process: u64, report: Report) -> Result<(), Error>;

    /// Gives authority up in favour of the calling site, which then takes it; gives everything that the called site holds
    /// since. Doing it again changes nothing.
    ///
    /// # Errors
    /// `Conflict`: the called site has no authority, and did not give it to the caller. `Denied`: the caller is no peer.
    /// # Cancel safety
    /// Dropped, it may be given up or not.
    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error>;
}

/// How the connection to a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not met since the start.
    Connecting,
    /// Events go there.
    Up,
    /// By an operator's wish nothing goes there.
    Paused,
    /// The last attempt failed, and is made again.
    Failing(String),
    /// It can't be kept in step as it is: an operator has to do something.
    Refused(String),
}

/// How one peer is kept in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub site: SiteId,
    /// Where it is called.
    pub addresses: Vec<String>,
    /// The connection.
    pub link: Link,
    /// When the peer last made something durable, or said that it holds all, in milliseconds since the Unix epoch.
    pub answered_at_ms: Option<u64>,
    /// What it is not known to have.
    pub risk: Risk,
    /// The most that the age of the oldest event at risk should be.
    pub rpo_target: Duration,
    /// How fast bytes of objects may go there.
    pub schedule: Schedule,
    /// Events delivered since the start of the process, repeats included.
    pub events_delivered: u64,
    /// Objects sent since then.
    pub objects_sent: u64,
    /// Bytes of objects sent since then.
    pub bytes_sent: u64,
    /// Objects of this site since then whose bytes were damaged or missing, and came from there again.
    pub objects_repaired: u64,
    /// What the peer last told of what it has and this site has not, and when that came, by this site's clock.
    pub told: Option<(u64, Report)>,
}

/// What a log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Events.
    pub events: u64,
    /// Instances among them.
    pub instances: u64,
    /// Bytes of the objects that they name.
    pub bytes: u64,
}

/// How a site's peers are kept in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// This site.
    pub site: SiteId,
    /// Life of its log.
    pub incarnation: Incarnation,
    /// When this was so, in milliseconds since the Unix epoch by this site's clock.
    pub at_ms: u64,
    /// What became a fact at this site since its log began.
    pub own: Held,
    /// Bytes that objects can still take here before stores are refused; `None`: there is no known bound.
    pub available_bytes: Option<u64>,
    /// In the order of their names.
    pub peers: Vec<PeerStatus>,
}

/// An event that a peer is not known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// Where it stands in this site's log.
    pub position: Position,
    /// When it was acknowledged, in milliseconds since the Unix epoch by this site's clock.
    pub acknowledged_at_ms: u64,
    /// `ce_id`.
    pub event: EventId,
    /// `ce_type`.
    pub kind: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// SOP Instance UID, where the event stores an instance.
    pub sop_instance_uid: Option<String>,
    /// Bytes of the objects that it names.
    pub bytes: u64,
}

/// Objects that may be damaged or missing at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// Those that the events of a study name, by its Study Instance UID.
    Study(String),
    /// One, found where an event names it.
    Object(ObjectKey),
    /// One of which it is known what it should be.
    Known(ObjectRef),
}

/// An object that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes; 0 where nobody says.
    pub length: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an object that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it should be.
    Whole,
    /// It was damaged or missing, and is whole again.
    Repaired {
        /// The site that had it.
        from: SiteId,
    },
    /// It is damaged or missing, and no other site gave it; why.
    Lost(String),
}

/// Replication, as operators see it.
#[async_trait]
pub trait Replication: Send + Sync {
    /// How each peer is kept in step.
    async fn status(&self) -> Result<ReplicationStatus, Error>;

    /// What a peer is not known to have, partition by partition in log order.
    ///
    /// # Errors
    /// `NotFound`: there is no such peer.
    async fn at_risk(&self, peer: &SiteId) -> Result<AnswerStream<AtRisk>, Error>;

    /// Waits until so many peers hold everything up to an event of this site's log; gives how many do then.
    ///
    /// # Errors
    /// `Unavailable` (`NotConfirmed`): not within `timeout`. `Invalid`: there are not so many peers.
    /// # Cancel safety
    /// Nothing is changed.
    async fn confirm(&self, position: &Position, sites: u32, timeout: Duration) -> Result<u32, Error>;

    /// Reads objects that events name, and brings those that are damaged or missing here again from the peers.
    ///
    /// # Errors
    /// `NotFound`: no event names such an object.
    /// # Cancel safety
    /// Dropped, those that were told of are done.
    async fn repair(&self, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error>;

    /// Stops sending to a peer, or goes on. Lasts until the process ends.
    ///
    /// # Errors
    /// `NotFound`: there is no such peer.
    async fn set_paused(&self, peer: &SiteId, paused: bool) -> Result<(), Error>;

    /// Which site has authority, and what is known of the others.
    async fn site(&self) -> Result<SiteStatus, Error>;

    /// Decides something about sites. It is durable on return, and counts here from then on.
    ///
    /// # Errors
    /// `Conflict`: it is not for this site to decide, or not now; the message says why. `NotFound`: there is no such site.
    /// `Unavailable`: another site, or the log, does not answer; what was decided may become known later.
    /// # Cancel safety
    /// Dropped, it may be decided or not.
    async fn decide(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error>;
}
