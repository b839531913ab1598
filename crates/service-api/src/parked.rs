//! Events that could not be folded: what the index says of them, and what an operator does about them. Their payloads, which
//! hold patient attributes, are not here: they are in the log.

use bytes::Bytes;
use cairn_archive::{EventId, Position};

/// Which parked events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedSelection {
    /// Tenant and Study Instance UID as envelopes name them; `None`: all. A study with a parked event is incomplete.
    pub study: Option<(String, String)>,
}

/// An event that could not be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Where it stands in this site's log.
    pub position: Position,
    /// Its `ce_id`.
    pub event: EventId,
    /// Its CloudEvents type.
    pub event_type: String,
    /// When it happened, in milliseconds since the Unix epoch (event order's clock).
    pub happened_at_ms: u64,
    /// Stable code of why it is parked.
    pub reason: String,
    /// The same in words.
    pub explanation: String,
    /// Tenant that its envelope names.
    pub tenant: String,
    /// Study that its envelope names; perhaps no UID.
    pub study_instance_uid: String,
    /// Version of the build that parked it.
    pub build: String,
}

/// What an operator does about an event that could not be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Where it stands.
    pub position: Position,
    /// What is done.
    pub remedy: RepairRemedy,
    /// Who decides.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What is done about an event that could not be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairRemedy {
    /// This stands in for its payload, in its place in the order of events.
    Replace {
        /// CloudEvents type of the payload.
        event_type: String,
        /// An event of the same tenant and study.
        payload: Bytes,
    },
    /// It means nothing, for good.
    Dismiss,
    /// It is folded again as it is: what kept it from being folded was a passing defect.
    FoldAgain,
}
