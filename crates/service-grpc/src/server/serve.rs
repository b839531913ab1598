//! The listener: bounds, mutual TLS, traces, and an end in order.

use super::{
    EventLogServer, IndexServer, IngestServer, LifecycleServer, PeerServer, ReplicationServer, RetrievalServer, Served,
    routes,
};
use crate::{
    index_proto::index_service_server::IndexServiceServer,
    ingest_proto::ingest_service_server::IngestServiceServer,
    lifecycle_proto::lifecycle_service_server::LifecycleServiceServer,
    log_proto::event_log_service_server::EventLogServiceServer,
    replication_proto::{peer_service_server::PeerServiceServer, replication_service_server::ReplicationServiceServer},
    retrieval_proto::retrieval_service_server::RetrievalServiceServer,
    tls::Tls,
};
use cairn_process::trace;
use cairn_service_api::{Error, ErrorKind};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::Span;

/// Bounds of a gRPC listener.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Longest message in either direction, in bytes.
    pub message_bytes_max: usize,
    /// Bytes of one stream that may be on their way, unread.
    pub stream_window_bytes: u32,
    /// Bytes of all streams of a connection that may be.
    pub connection_window_bytes: u32,
    /// Calls under way at once on one connection; more wait.
    pub streams_max: u32,
    /// Quiet time after which a connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// Time to give it.
    pub keepalive_timeout: Duration,
    /// Who we are and whom we let in; unset: plaintext, and anyone.
    pub tls: Option<Tls>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            message_bytes_max: 32 << 20,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
            streams_max: 1_024,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// Services ready to be served, and what the health service says of them.
pub struct Server {
    routes: Routes,
    health: HealthReporter,
    config: ServerConfig,
}

impl Server {
    /// Serves what there is, with health and reflection beside it.
    ///
    /// # Errors
    /// `Internal` when the descriptors that were compiled in do not decode.
    pub async fn new(served: Served, config: ServerConfig) -> Result<Self, Error> {
        let (routes, health) = routes(served, config.message_bytes_max).await?;
        Ok(Self { routes, health, config })
    }

    /// What sets the services' health; it may be kept while serving.
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Serves until `stop` resolves and what is under way has ended.
    ///
    /// # Errors
    /// `Invalid` when the certificates can't be used, `Unavailable` when the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let config = &self.config;
        let mut server = transport::Server::builder()
            .trace_fn(|request| call_span(request.headers().get("traceparent"), request.uri().path()))
            .initial_stream_window_size(config.stream_window_bytes)
            .initial_connection_window_size(config.connection_window_bytes)
            .max_concurrent_streams(config.streams_max)
            .http2_keepalive_interval(Some(config.keepalive_interval))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            .tcp_nodelay(true);
        if let Some(tls) = &config.tls {
            server = server.tls_config(tls.server()).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Error::new(ErrorKind::Invalid, format!("certificates of the gRPC listener: {error}{cause}"))
            })?;
        }
        let incoming = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |accepted| {
            accepted.inspect(|stream| {
                // Without it answers come late; they come all the same.
                let _refused = stream.set_nodelay(true);
            })
        });
        let served = server.add_routes(self.routes).serve_with_incoming_shutdown(incoming, stop).await;
        served.map_err(|error| Error::new(ErrorKind::Unavailable, format!("gRPC listener: {error}")))
    }
}

/// The span of a call that belongs to a trace; others make none.
fn call_span(traceparent: Option<&tonic::codegen::http::HeaderValue>, path: &str) -> Span {
    let Some(parent) = traceparent.and_then(|value| value.to_str().ok()) else { return Span::none() };
    let span = tracing::info_span!(parent: None, "grpc.call", path);
    trace::follow(&span, parent);
    span
}

/// What the health service says.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Says of each service named whether it can be used now: `ingest`, `index`, `retrieval`, `log`, `peer`, `replication`,
    /// `lifecycle`, and `""` for all.
    pub async fn set(&self, service: &str, serving: bool) {
        use tonic::server::NamedService;
        let name = match service {
            "ingest" => <IngestServiceServer<IngestServer> as NamedService>::NAME,
            "index" => <IndexServiceServer<IndexServer> as NamedService>::NAME,
            "retrieval" => <RetrievalServiceServer<RetrievalServer> as NamedService>::NAME,
            "log" => <EventLogServiceServer<EventLogServer> as NamedService>::NAME,
            "peer" => <PeerServiceServer<PeerServer> as NamedService>::NAME,
            "replication" => <ReplicationServiceServer<ReplicationServer> as NamedService>::NAME,
            "lifecycle" => <LifecycleServiceServer<LifecycleServer> as NamedService>::NAME,
            all => all,
        };
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.set_service_status(name, status).await;
    }
}
