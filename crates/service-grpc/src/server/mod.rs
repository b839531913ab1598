//! Serving a service's trait over gRPC.

mod body;
mod callers;
mod commitment;
mod index;
mod ingest;
mod lifecycle;
mod log;
mod notary;
mod policies;
mod replication;
mod retention;
mod retrieval;
mod serve;
mod tiering;

pub use callers::SiteCertificates;
pub use commitment::CommitmentServer;
pub use index::IndexServer;
pub use ingest::IngestServer;
pub use lifecycle::LifecycleServer;
pub use log::{EventLogServer, LateLog, ServedLog};
pub use notary::NotaryServer;
pub use policies::PolicyServer;
pub use replication::{PeerServer, ReplicationServer};
pub use retention::RetentionServer;
pub use retrieval::RetrievalServer;
pub use serve::{Health, Server, ServerConfig};
pub use tiering::TieringServer;

use crate::{
    error::to_status,
    index_proto::index_service_server::IndexServiceServer,
    ingest_proto::ingest_service_server::IngestServiceServer,
    lifecycle_proto::{
        commitment_service_server::CommitmentServiceServer, lifecycle_service_server::LifecycleServiceServer,
        notary_service_server::NotaryServiceServer, policy_service_server::PolicyServiceServer,
        retention_service_server::RetentionServiceServer, tiering_service_server::TieringServiceServer,
    },
    log_proto::event_log_service_server::EventLogServiceServer,
    proto::DESCRIPTORS,
    replication_proto::{peer_service_server::PeerServiceServer, replication_service_server::ReplicationServiceServer},
    retrieval_proto::retrieval_service_server::RetrievalServiceServer,
};
use cairn_service_api::{
    AnswerStream, Commitments, Error, Index, Ingest, Lifecycle, Notary, Peer, Policies, Replication, Retention,
    Retrieval, Tiering,
};
use futures_util::{Stream, StreamExt};
use std::{pin::Pin, sync::Arc};
use tonic::{Status, service::Routes};

/// Answers of a streaming call.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The services of one process; those that it does not have are `None`.
#[derive(Clone, Default)]
pub struct Served {
    /// Ingest.
    pub ingest: Option<Arc<dyn Ingest>>,
    /// Index.
    pub index: Option<Arc<dyn Index>>,
    /// Retrieval.
    pub retrieval: Option<Arc<dyn Retrieval>>,
    /// Reading the event log.
    pub log: Option<LateLog>,
    /// What other sites ask.
    pub peer: Option<Arc<dyn Peer>>,
    /// Which sites' certificates are looked at when they ask that.
    pub site_certificates: SiteCertificates,
    /// Replication, as operators see it.
    pub replication: Option<Arc<dyn Replication>>,
    /// Lifecycle.
    pub lifecycle: Option<Arc<dyn Lifecycle>>,
    /// The notary, which is of lifecycle.
    pub notary: Option<Arc<dyn Notary>>,
    /// Lifecycle's storage commitment.
    pub commitments: Option<Arc<dyn Commitments>>,
    /// Lifecycle's holds and erasures.
    pub retention: Option<Arc<dyn Retention>>,
    /// Lifecycle's policies.
    pub policies: Option<Arc<dyn Policies>>,
    /// Lifecycle's tiering.
    pub tiering: Option<Arc<dyn Tiering>>,
}

/// Routes for the services there are, with health and reflection beside them, and the handle that sets their health.
///
/// Messages are at most `message_bytes_max` long in either direction.
///
/// # Errors
/// `Internal` when the descriptors that were compiled in do not decode.
pub(crate) async fn routes(
    served: Served,
    message_bytes_max: usize,
) -> Result<(Routes, tonic_health::server::HealthReporter), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::new(cairn_service_api::ErrorKind::Internal, format!("descriptors: {error}")))?;
    let mut routes = Routes::new(health_service).add_service(reflection);
    macro_rules! serve {
        ($service:expr, $wrapper:ident, $server:ident) => {
            if let Some(service) = $service {
                let server = $server::new($wrapper(service));
                let server = server.max_decoding_message_size(message_bytes_max);
                routes = routes.add_service(server.max_encoding_message_size(message_bytes_max));
                health.set_serving::<$server<$wrapper>>().await;
            }
        };
    }
    serve!(served.ingest, IngestServer, IngestServiceServer);
    serve!(served.index, IndexServer, IndexServiceServer);
    serve!(served.retrieval, RetrievalServer, RetrievalServiceServer);
    serve!(served.log, EventLogServer, EventLogServiceServer);
    let peer = served.peer.map(|peer| (peer, served.site_certificates));
    serve!(peer, PeerServer, PeerServiceServer);
    serve!(served.replication, ReplicationServer, ReplicationServiceServer);
    serve!(served.lifecycle, LifecycleServer, LifecycleServiceServer);
    serve!(served.notary, NotaryServer, NotaryServiceServer);
    serve!(served.commitments, CommitmentServer, CommitmentServiceServer);
    serve!(served.retention, RetentionServer, RetentionServiceServer);
    serve!(served.policies, PolicyServer, PolicyServiceServer);
    serve!(served.tiering, TieringServer, TieringServiceServer);
    Ok((routes, health))
}

/// Maps a trait's answers to messages.
fn answers<T: 'static, M: 'static>(stream: AnswerStream<T>, message: impl Fn(T) -> M + Send + 'static) -> Answers<M> {
    Box::pin(stream.map(move |item| item.map(&message).map_err(to_status)))
}
