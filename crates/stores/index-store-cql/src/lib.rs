//! The index store of a cluster, over CQL. It is tested on one node of Apache Cassandra;
//! ScyllaDB speaks the same protocol, and it was never run on it, nor on several nodes.
//!
//! **Rows.** Each generation has a table of its own, so that dropping it leaves no tombstones. Partition keys of the port
//! that one commit often changes together share a partition of the table (see `schemas/index/tables.md`):
//! all rows of a study, and lists by hash; so most rows go in unlogged batches of one partition, which are applied whole.
//!
//! **Commits.** A commit takes, or still holds, the latest epoch of its partition of the log by a lightweight transaction;
//! writes its rows under timestamps of epoch and offset; and advances the offset by a lightweight transaction that only the
//! holder of the latest epoch passes. A writer that was frozen and wakes up can't advance the offset, and what it still
//! writes loses against everything that was written since. Rows that lead to studies come before the studies' own rows,
//! removals last, as the projector's order asks: a commit that was cut off left hints too many, or its mark on the state.
//!
//! **Offsets, generations, pointer** are in tables that only lightweight transactions change.
//!
//! Rows are as durable as the cluster's replication and commit log make them at the configured consistency.
#![forbid(unsafe_code)]

mod claim;
mod commit;
mod config;
mod error;
mod generations;
mod metrics;
mod placement;
mod schema;
mod session;
mod store;

pub use config::{ConsistencyLevel, CqlIndexConfig, Secret};
pub use schema::SCHEMA_VERSION;
pub use store::CqlIndexStore;
