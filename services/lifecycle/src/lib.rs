//! Lifecycle: what was stored stays what it is, and somebody looks.
//!
//! Responsible for: reading every object that the log names, within a period; saying what is damaged or gone, as an event;
//! having it whole again from another copy; taking requests for storage commitment, deciding them, telling requesters. Reads:
//! the event log, every type; objects; the index, for other copies and for what a request is about. Writes: events about
//! objects and about storage commitment; objects only as a repair, which brings the same bytes (OS-14), and for long lists of
//! references; and its own notes, which cost reading when they are lost. Holds I4 (nothing is rewritten with other bytes), I9 and I10.
#![forbid(unsafe_code)]

mod append;
mod commitment;
mod config;
mod fixity;
mod metrics;
mod named;
mod notary;
mod notes;
mod service;

pub use config::{CommitmentConfig, FixityConfig, LifecycleConfig, NotaryConfig};
pub use notary::{NotaryService, Signer, verify_log};
pub use service::{Behind, LifecycleService};
