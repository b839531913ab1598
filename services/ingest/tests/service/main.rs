//! What ingest promises, against ports in memory and against the embedded stores on a simulated disk.

mod conflicts;
mod embedded;
mod failures;
mod receipts;
mod refusals;
mod storing;
mod support;
