//! The archive as a pure function of its events: what the facts are, how they are written down, in which order they
//! count, and what follows from them. No input or output, no clock, no randomness (I8).
#![forbid(unsafe_code)]

pub mod authority;
pub mod commitment;
pub mod correction;
pub mod digest;
pub mod envelope;
pub mod erasure;
pub mod events;
pub mod fold;
pub mod hlc;
pub mod holds;
pub mod ids;
pub mod index_rows;
pub mod notary;
pub mod patients;
pub mod plan;
pub mod policies;
pub mod position;
pub mod rejection;
pub mod sealing;

pub use envelope::Envelope;
pub use hlc::{Hlc, HybridClock};
pub use ids::{Digest, EventId, HoldId, KeyId, ObjectKey, SiteId};
pub use position::{Incarnation, Offset, Partition, Position, PositionVector};
