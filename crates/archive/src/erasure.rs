//! Erasure: what is asked for, what each site confirms, and what follows for the versions named (I6).
//!
//! Two folds, both functions of the set of events (I11, I12). [`Erasures`] knows of every erasure how far it is.
//! [`StudyFacts`] knows what the log has of one study, and [`judge`] says of each version that a request names whether
//! it is erased: not if a hold covers it, and not if the request did not see everything that came of its instance.

mod judge;
mod keys;
mod ledger;

pub use judge::{Judged, StudyFacts, judge};
pub use keys::{NeededBy, StudyKeys, judged_keys};
pub use ledger::{Confirmation, Destroyed, Effect, Erasure, Erasures, Requested, Stage};

/// What types of events about erasures begin with; but [`VERSIONS_ERASED`].
pub const KINDS: &str = "cairn.erasure.";

/// The type of the event by which versions are erased.
pub const VERSIONS_ERASED: &str = "cairn.instance.versions-erased.v1";
