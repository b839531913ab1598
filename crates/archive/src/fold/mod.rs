//! The fold: what follows from the events about a study, in whatever order, how often and in whatever batches they
//! arrive (I11, I12).
//!
//! A study's state is spread over small rows (one per fact about an instance, one per series, one of the study), so
//! that a thousandth instance costs what the second did. [`StudyFold`] holds those that a batch touches: the caller
//! loads them, applies events, and writes what [`StudyFold::finish`] says.

mod attributes;
mod condition;
mod correction;
mod erasing;
mod event;
mod extract;
mod instance;
mod levels;
mod moved;
mod order;
mod rejection;
mod repair;
mod state;
mod study;
#[cfg(test)]
mod tests;

pub use attributes::{Attributes, VALUE_BYTES_MAX, VARIANT_BYTES_MAX, VARIANTS_MAX, Variant};
pub use condition::Condition;
pub use correction::{Correction, Corrections, CorrectionsRevoked, applied};
pub use erasing::{Erasing, ErasureStep};
pub use event::{Identity, Poison, Trace, TraceKind};
pub use extract::{HEADER_LIMITS, default_character_set, select};
pub use instance::{
    Because, Chosen, Compared, Fact, FactRef, Inserted, InstanceState, Relation, Resend, StoredObject, TablesAt,
    Verdict, Version,
};
pub use levels::{Level, level_of};
pub use moved::{Place, Places};
pub use order::{EventOrder, Stamp};
pub use rejection::{Rejected, Revoked};
pub use repair::Remedy;
pub use state::{
    DISTINCT_MAX, OpenChunks, PatientIdentity, SeriesState, SortKey, StudyKey, StudyState, sort_date, sort_time,
};
pub use study::{InstanceChange, Loaded, Needs, PendingHeader, Rescan, SeriesChange, StudyChange, StudyFold};
