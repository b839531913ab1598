//! What the HTTP listener serves beside DICOMweb, and in processes without that door: health and metrics.

use crate::{
    health::{Check, Readiness, is_ready},
    late::Late,
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cairn_process::clock::Clock;
use cairn_service_grpc::server::LateLog;
use cairn_store_api::ObjectStore;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;

/// What is served.
#[derive(Clone)]
pub struct Health {
    pub readiness: Readiness,
    pub measured: Measured,
    pub metrics: PrometheusHandle,
}

/// What `/metrics` measures: the stores of this process.
#[derive(Clone)]
pub struct Measured {
    pub log: LateLog,
    pub objects: Arc<Late<dyn ObjectStore>>,
    pub clock: Arc<dyn Clock>,
}

/// `/livez` and `/startupz` (the process answers), `/readyz` (it can do all of its work), `/readyz/stores` (it can take
/// instances, found at once or not) and `/metrics` (Prometheus text).
pub fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/readyz/stores", get(ready_for_stores))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    answer(&health.readiness.checks().await)
}

async fn ready_for_stores(State(health): State<Health>) -> Response {
    let mut checks = health.readiness.checks().await;
    checks.retain(|check| matches!(check.name, "process" | "ingest"));
    answer(&checks)
}

fn answer(checks: &[Check]) -> Response {
    let line = |check: &Check| {
        let (mark, text) = match (&check.outcome, check.needed) {
            (Ok(text), _) => ("ok", text),
            (Err(text), true) => ("not ready", text),
            (Err(text), false) => ("away, and not needed", text),
        };
        format!("{}: {mark} {text}\n", check.name)
    };
    let lines: String = checks.iter().map(line).collect();
    let status = if is_ready(checks) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response()
}

/// Sets what is measured when it is asked for. What can't be measured now keeps its last value.
async fn measure(health: &Health) {
    let Measured { log, objects, clock } = &health.measured;
    if health.readiness.roles.index
        && let Some(index) = health.readiness.services.index()
        && let Ok(status) = index.status().await
    {
        metrics::gauge!("cairn_projection_lag_events", "projection" => "index").set(status.lag_events as f64);
        let behind_ms = status.oldest_unfolded_ms.map_or(0, |oldest| clock.unix_ms().saturating_sub(oldest));
        metrics::gauge!("cairn_projection_lag_seconds", "projection" => "index").set(behind_ms as f64 / 1000.0);
        metrics::gauge!("cairn_index_parked_events").set(status.parked as f64);
        metrics::gauge!("cairn_index_incomplete_studies").set(status.incomplete_studies as f64);
    }
    if let Some(log) = log.get()
        && let Ok(Some(bytes)) = log.stored.file_bytes().await
    {
        metrics::gauge!("cairn_log_bytes").set(bytes as f64);
    }
    let Ok(objects) = objects.get() else { return };
    if let Ok(Some(bytes)) = objects.file_bytes().await {
        metrics::gauge!("cairn_objects_file_bytes").set(bytes as f64);
    }
    if let Ok(space) = objects.space().await {
        metrics::gauge!("cairn_objects_bytes").set(space.used as f64);
        if let Some(available) = space.available {
            metrics::gauge!("cairn_objects_available_bytes").set(available as f64);
        }
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    measure(&health).await;
    health.metrics.run_upkeep();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, health.metrics.render()).into_response()
}
