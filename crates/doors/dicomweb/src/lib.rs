//! The DICOMweb door (PS3.18, edition 2025c): STOW-RS, QIDO-RS, WADO-RS and storage commitment over HTTP/1.1.
//!
//! It holds the services' traits and nothing else: stores go to ingest, queries to the index, bytes come from retrieval.
//! Bodies pass through in the chunks in which they arrive; memory does not grow with a body, an instance or a study.
//!
//! Beyond the Standard: `Cairn-Read-After` (a token from a store; a later request that carries it waits until the index
//! knows of that store), and `.../instances/{uid}/versions` with `.../versions/{blake3}`, where every version of an
//! instance can be fetched, shown or not.
#![forbid(unsafe_code)]

pub mod agent;
mod body;
mod commitment;
mod conditional;
mod config;
mod door;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod media_type;
mod metrics;
mod multipart;
mod problem;
mod qido;
mod render;
mod request;
mod respond;
mod server;
mod stow;
mod wado;

pub use config::{DicomWebConfig, Limits, PublicUrl, Timeouts};
pub use server::{PeerAddress, serve};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::from_fn_with_state,
    routing::{MethodRouter, get},
};
use cairn_service_api::{Commitments, Index, Ingest, Retrieval};
use door::Door;
use problem::{Answer, Problem};
use request::Call;
use std::{future::Future, sync::Arc};

/// The services behind the door.
#[derive(Clone)]
pub struct Services {
    /// Takes instances.
    pub ingest: Arc<dyn Ingest>,
    /// Answers queries.
    pub index: Arc<dyn Index>,
    /// Gives instances back.
    pub retrieval: Arc<dyn Retrieval>,
    /// Takes requests for storage commitment; `None`: it is not offered.
    pub commitments: Option<Arc<dyn Commitments>>,
}

/// The resources, under `DicomWebConfig::base_path`.
pub fn router(services: Services, config: DicomWebConfig) -> Router {
    let door = Arc::new(Door::new(services, config));
    let resources = Router::new()
        .route("/studies", resource(qido::studies).post(stow::store))
        .route("/studies/{study}", resource(wado::instances).post(stow::store))
        .route("/commitment-requests/{transaction}", resource(commitment::result).post(commitment::request))
        .merge(searches())
        .merge(retrievals())
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take this method")
        });
    let base = door.config.base_path.trim_end_matches('/').to_owned();
    let routes = if base.is_empty() { resources } else { Router::new().nest(&base, resources) };
    routes.layer(from_fn_with_state(Arc::clone(&door), door::admit)).with_state(door)
}

fn searches() -> Router<Arc<Door>> {
    Router::new()
        .route("/patients", resource(qido::patients))
        .route("/series", resource(qido::series))
        .route("/instances", resource(qido::instances))
        .route("/studies/{study}/series", resource(qido::series))
        .route("/studies/{study}/instances", resource(qido::instances))
        .route("/studies/{study}/series/{series}/instances", resource(qido::instances))
}

fn retrievals() -> Router<Arc<Door>> {
    let instance = |rest: &str| format!("/studies/{{study}}/series/{{series}}/instances/{{instance}}{rest}");
    Router::new()
        .route("/studies/{study}/metadata", resource(wado::metadata))
        .route("/studies/{study}/series/{series}", resource(wado::instances))
        .route("/studies/{study}/series/{series}/metadata", resource(wado::metadata))
        .route(&instance(""), resource(wado::instances))
        .route(&instance("/metadata"), resource(wado::metadata))
        .route(&instance("/frames/{list}"), resource(wado::frames))
        .route(&instance("/pixeldata"), resource(wado::pixel_data))
        .route(&instance("/bulkdata/{*path}"), resource(wado::bulk_data))
        .route(&instance("/versions"), resource(wado::versions))
        .route(&instance("/versions/{digest}"), resource(wado::version))
}

/// A resource that is read: GET and HEAD.
fn resource<H, F>(handler: H) -> MethodRouter<Arc<Door>>
where
    H: Fn(Arc<Door>, Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    get(async move |State(door): State<Arc<Door>>, request: Request| -> Answer {
        let (parts, _body) = request.into_parts();
        let call = Call::read(&parts, &door.config)?;
        door.wait_for_index(&call).await?;
        handler(door, call).await
    })
}
