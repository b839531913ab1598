//! The services' traits, implemented by calling a server.

mod index;
mod ingest;
mod retrieval;

pub use index::IndexClient;
pub use ingest::IngestClient;
pub use retrieval::RetrievalClient;

use crate::{error::from_status, log_proto::event_log_service_client::EventLogServiceClient};
use cairn_service_api::{AnswerStream, Error};
use futures_util::{StreamExt, future::ready};
use std::time::Duration;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Such as `http://127.0.0.1:50051`.
    pub address: String,
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// Longest message in either direction, in bytes.
    pub message_bytes_max: usize,
}

impl Connection {
    /// Connects lazily: the first call finds out whether the server is there, and later ones reconnect.
    ///
    /// # Errors
    /// `Invalid` when the address is none.
    pub fn channel(&self) -> Result<Channel, Error> {
        let endpoint = Endpoint::from_shared(self.address.clone())
            .map_err(|error| Error::new(cairn_service_api::ErrorKind::Invalid, format!("gRPC address: {error}")))?;
        Ok(endpoint.connect_timeout(self.connect_timeout).tcp_nodelay(true).connect_lazy())
    }

    /// Reads the event log.
    ///
    /// # Errors
    /// As [`Connection::channel`].
    pub fn event_log(&self) -> Result<EventLogServiceClient<Channel>, Error> {
        let client = EventLogServiceClient::new(self.channel()?);
        Ok(client.max_decoding_message_size(self.message_bytes_max))
    }
}

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
