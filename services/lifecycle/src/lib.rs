//! Lifecycle: what was stored stays what it is, and somebody looks.
//!
//! Responsible for: reading every object that the log names, within a period; saying what is damaged or gone, as an event;
//! having it whole again from another copy; taking requests for storage commitment, deciding them, telling requesters; what is
//! held, and what is erased and then destroyed; which studies are moved between a hot store and a cold one. Reads: the event log,
//! every type; objects; the index, for other copies and for what a request is about. Writes: events about objects, storage
//! commitment, holds and erasures; objects only as a repair, which brings the same bytes (OS-14), for long lists of references,
//! and for sealed ranges of the log; it removes those that no event names; and its own notes, which cost reading when they are
//! lost. Holds I4 (nothing is rewritten with other bytes), I6 (nothing else destroys them), I9 and I10.
#![forbid(unsafe_code)]

mod append;
mod commitment;
mod config;
mod copies;
mod fixity;
mod metrics;
mod named;
mod notary;
mod notes;
mod orphans;
mod policies;
mod retention;
mod sealing;
mod service;
mod tiering;

pub use config::{
    CommitmentConfig, ErasureConfig, FixityConfig, LifecycleConfig, NotaryConfig, OrphansConfig, PoliciesConfig,
    SealingConfig, TieringConfig,
};
pub use notary::{NotaryService, Signer, verify_log};
pub use policies::PolicyService;
pub use retention::RetentionService;
pub use service::{Behind, LifecycleService};
pub use tiering::TieringService;
