//! How to reach the processes of a service.

use crate::{log_proto::event_log_service_client::EventLogServiceClient, tls::Tls};
use cairn_process::trace;
use cairn_service_api::{Error, ErrorKind};
use std::time::Duration;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// The processes of one service, any of which may answer, and the bounds of talking to them.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Such as `http://127.0.0.1:50051`; `https` where [`Connection::tls`] is set.
    pub addresses: Vec<String>,
    /// Who we are and whom we trust; unset: plaintext.
    pub tls: Option<Tls>,
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// For an answer to begin, other processes that are asked instead included. Storing is bounded by the service.
    pub answer_timeout: Duration,
    /// A process that failed is passed over for this long; it doubles with each further failure.
    pub pause: Duration,
    /// Up to this.
    pub pause_max: Duration,
    /// Quiet time after which a connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// Time to give it; then the calls on that connection fail.
    pub keepalive_timeout: Duration,
    /// Longest message in either direction, in bytes.
    pub message_bytes_max: usize,
    /// Bytes of one stream that may be on their way, unread.
    pub stream_window_bytes: u32,
    /// Bytes of all streams of a connection that may be.
    pub connection_window_bytes: u32,
}

impl Connection {
    /// To one process, in plaintext, with bounds that suit a command.
    pub fn to(address: impl Into<String>) -> Self {
        Self {
            addresses: vec![address.into()],
            tls: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            message_bytes_max: 32 << 20,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
        }
    }

    /// Connects lazily, process by process: the first call finds out whether it is there, and later ones reconnect.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub(super) fn wires(&self) -> Result<Vec<(String, Wire)>, Error> {
        if self.addresses.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "no gRPC address"));
        }
        let wire = |address: &String| Ok((address.clone(), self.wire(address)?));
        self.addresses.iter().map(wire).collect()
    }

    fn wire(&self, address: &str) -> Result<Wire, Error> {
        let invalid = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Error::new(ErrorKind::Invalid, format!("gRPC address {address}: {error}{cause}"))
        };
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(invalid)?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .tcp_nodelay(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.client()).map_err(invalid)?;
        }
        Ok(InterceptedService::new(endpoint.connect_lazy(), SendTrace))
    }

    /// Reads the event log, at the first address.
    ///
    /// # Errors
    /// `Invalid` when the address or the certificates can't be used, or there is no address.
    pub fn event_log(&self) -> Result<EventLogServiceClient<Wire>, Error> {
        let (_, wire) = self.wires()?.swap_remove(0);
        Ok(EventLogServiceClient::new(wire).max_decoding_message_size(self.message_bytes_max))
    }
}

/// A connection whose calls carry the trace that they belong to.
pub type Wire = InterceptedService<Channel, SendTrace>;

/// Sends the current span as `traceparent`.
#[derive(Clone, Copy, Debug)]
pub struct SendTrace;

impl Interceptor for SendTrace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = trace::traceparent().and_then(|text| text.parse().ok()) {
            request.metadata_mut().insert("traceparent", value);
        }
        Ok(request)
    }
}
