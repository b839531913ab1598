//! Index: the query projections, queries, rebuild.
//!
//! Responsible for: everything that is found by something else than an object key. Reads: the event log, every type.
//! Writes: the index store alone; it appends nothing.
//!
//! Holds I3 (the index can be dropped and rebuilt to the same answers, and digests prove it), I11 and I12 (order and
//! repetition of delivery change nothing), I9 and I10. A query never changes anything; what ingest accepts is found
//! once it is folded, which `wait_for` waits for.
#![forbid(unsafe_code)]

mod answering;
mod config;
mod conflicts;
mod diff;
mod digests;
mod duties;
mod facts;
mod instances;
mod keeper;
mod lag;
mod manage;
mod metrics;
mod parked;
mod people;
mod pointer;
mod project;
mod query;
mod rows;
mod service;
mod survey;

pub use config::IndexConfig;
pub use service::IndexService;
