//! What ingest promises, against ports in memory.

mod conflicts;
mod failures;
mod receipts;
mod refusals;
mod storing;
mod support;
