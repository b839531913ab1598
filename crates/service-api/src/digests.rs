//! State digests from the whole down to single events: how two indexes that should hold the same are compared, wherever
//! each of them is.

use cairn_archive::{EventId, Position, PositionVector, SiteId, digest::Leaves};
use cairn_dicom::Uid;

/// The digest tree of the serving generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestTree {
    /// The site whose index it is.
    pub site: SiteId,
    /// Version of the fold that S is of.
    pub fold_version: u32,
    /// What has been folded, by origin too. What is in the tree is this or more.
    pub folded: PositionVector,
    /// Sums by leaf.
    pub leaves: Leaves,
}

/// Which studies' digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Those of these leaves of the tree, by date. A study of which nothing was stored yet is on no list and not among them.
    Leaves(Vec<u8>),
    /// These, where they are there.
    Studies(Vec<Uid>),
}

/// Digests of one study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyDigest {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// E: sum of the hashes of the events folded.
    pub events: [u8; 32],
    /// S: hash of the canonical state.
    pub state: [u8; 32],
}

/// An event that is folded in a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedEvent {
    /// Series and SOP Instance UID that it is a fact about; `None`: it changes nothing shown.
    pub about: Option<(Uid, Uid)>,
    /// `ce_id`.
    pub event: EventId,
    /// `ce_type`.
    pub kind: String,
    /// Site at which it became a fact.
    pub site: SiteId,
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub happened_at_ms: u64,
    /// Where it became a fact, if that was asked for and the log has it where it was folded.
    pub origin: Option<Position>,
    /// Where it stands in this site's log, under the same condition.
    pub position: Option<Position>,
}

impl FoldedEvent {
    /// What events of a study are ordered by, at every site alike: facts by instance, then the rest; by `ce_id`.
    pub fn order(&self) -> (bool, Option<&(Uid, Uid)>, EventId) {
        (self.about.is_none(), self.about.as_ref(), self.event)
    }
}
