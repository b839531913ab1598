//! Ingest: accepting SOP Instances, and operators' decisions about them.
//!
//! Responsible for: object bytes, then the events that make them facts (`InstanceStored`, `InstanceReceivedAgain`,
//! `ReceiptClosed`, `VersionsCompared`, `VersionChosen`), and the quarantine of what is refused. Reads: the log, once at
//! start, to go on where its clock was; the index, as a hint alone.
//!
//! Holds I1 (bytes are durable before the event that names them), I2 (nothing is answered before the event is durable),
//! I4, I5 (a repeat, a conflict, a refusal each leaves a trace) and I9. It needs only log and objects: with the index
//! away, stores go on.
#![forbid(unsafe_code)]

mod append;
mod compare;
pub mod config;
mod correction;
pub mod crash;
mod in_flight;
mod intake;
mod metrics;
mod others;
pub mod patients;
mod quarantine;
mod receipts;
mod refusal;
mod rejection;
mod repair;
mod service;
mod store;
mod stored_event;
mod unnamed;
mod versions;

pub use config::IngestConfig;
pub use quarantine::{Quarantine, QuarantineConfig};
pub use service::IngestService;
