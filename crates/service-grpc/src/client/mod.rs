//! The services' traits, implemented by calling a server.

mod commitment;
mod connection;
mod index;
mod ingest;
mod lifecycle;
mod log;
mod notary;
mod peers;
mod policies;
mod replication;
mod retention;
mod retrieval;
mod tiering;
mod upload;

pub use commitment::CommitmentsClient;
pub use connection::{Connection, SendTrace, Wire};
pub use index::IndexClient;
pub use ingest::IngestClient;
pub use lifecycle::LifecycleClient;
pub use log::{LogClient, LogDescription, ReadFrom};
pub use notary::NotaryClient;
pub use policies::PoliciesClient;
pub use replication::{PeerClient, ReplicationClient};
pub use retention::RetentionClient;
pub use retrieval::RetrievalClient;
pub use tiering::TieringClient;

use crate::error::from_status;
use cairn_service_api::{AnswerStream, Error};
use futures_util::{StreamExt, future::ready};
use tonic::Streaming;

/// Maps a call's messages to answers; the first failure ends them.
fn answers<M, T>(messages: Streaming<M>, answer: impl Fn(M) -> Result<T, Error> + Send + 'static) -> AnswerStream<T>
where
    M: Send + 'static,
    T: Send + 'static,
{
    let mapped = messages.map(move |message| message.map_err(from_status).and_then(&answer));
    let mut failed = false;
    Box::pin(mapped.take_while(move |answer| ready(!std::mem::replace(&mut failed, answer.is_err()))))
}
