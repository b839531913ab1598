//! The index store of one machine, on the LSM engine fjall.
//!
//! Each generation is a keyspace of the engine, which holds its rows and its offsets; so dropping a generation drops
//! its files, and leaves no tombstones that scans must pass over. A commit is one atomic batch of rows and offset,
//! appended to the engine's journal without a sync. The journal is a prefix of what was committed, whatever a crash
//! leaves of it, and a table that is flushed holds whole batches alone; so the offset found after a crash has its rows.
//! The journal is synced from time to time, and when the pointer changes. The index is derived: what a power cut takes
//! of its last moments is folded again from the log.
//!
//! Rows never share blocks with the event log: it has files of its own, so that an index commit does not delay an append.
#![forbid(unsafe_code)]

mod background;
mod config;
mod engine;
mod generation;
mod key;
mod purge;
mod store;

pub use config::IndexStoreConfig;
pub use store::EmbeddedIndexStore;
