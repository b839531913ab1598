//! What the HTTP listener serves beside DICOMweb, and in processes without that door: health and metrics.

use crate::health::{Check, Readiness, is_ready};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;

/// What is served.
#[derive(Clone)]
pub struct Health {
    pub readiness: Readiness,
    pub metrics: PrometheusHandle,
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

async fn metrics(State(health): State<Health>) -> Response {
    if health.readiness.roles.index
        && let Some(index) = health.readiness.services.index()
        && let Ok(status) = index.status().await
    {
        metrics::gauge!("cairn_projection_lag_events", "projection" => "index").set(status.lag_events as f64);
        metrics::gauge!("cairn_index_parked_events").set(status.parked as f64);
    }
    health.metrics.run_upkeep();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, health.metrics.render()).into_response()
}
