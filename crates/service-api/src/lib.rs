//! What the services do, in domain terms: one trait each, implemented by the local service and by its gRPC client, so
//! that a door cannot tell which it holds.
#![forbid(unsafe_code)]

pub mod commitment;
pub mod correction;
pub mod digests;
mod error;
pub mod index;
pub mod ingest;
pub mod lifecycle;
pub mod notary;
pub mod orphans;
pub mod parked;
pub mod patients;
pub mod policies;
pub mod rejection;
pub mod replication;
pub mod retention;
pub mod retrieval;
pub mod schedule;
pub mod site;
pub mod survey;
pub mod tiering;

pub use commitment::Commitments;
pub use error::{Error, ErrorKind, Reason};
pub use index::Index;
pub use ingest::Ingest;
pub use lifecycle::Lifecycle;
pub use notary::Notary;
pub use policies::Policies;
pub use replication::{Peer, Replication};
pub use retention::Retention;
pub use retrieval::Retrieval;
pub use tiering::Tiering;

use futures_core::Stream;
use std::pin::Pin;

/// Answers as they are found. An error ends the stream. Dropping it cancels the work behind it.
pub type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>;

/// The tenant of a site that has only one.
pub const DEFAULT_TENANT: &str = "default";
