//! What the HTTP listener serves beside DICOMweb: health and metrics.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cairn_service_api::{Index, Ingest};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What health depends on.
#[derive(Clone)]
pub struct Health {
    pub ingest: Arc<dyn Ingest>,
    pub index: Arc<dyn Index>,
    pub metrics: PrometheusHandle,
    pub draining: Arc<AtomicBool>,
}

/// `/livez` (the process answers), `/readyz` (it can take and find instances), `/startupz` (it has started) and
/// `/metrics` (Prometheus text).
pub fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    let mut ok = true;
    let mut lines = String::new();
    let mut check = |name: &str, outcome: Result<String, String>| {
        ok &= outcome.is_ok();
        let (mark, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("not ready", text),
        };
        lines.push_str(&format!("{name}: {mark} {text}\n"));
    };
    let draining = health.draining.load(Ordering::Acquire);
    check("process", if draining { Err("draining".into()) } else { Ok(String::new()) });
    check("ingest", health.ingest.ready().await.map(|()| String::new()).map_err(|error| error.message));
    let index = health.index.status().await;
    check("index", index.map(|status| format!("{} events behind", status.lag_events)).map_err(|error| error.message));
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    if let Ok(status) = health.index.status().await {
        metrics::gauge!("cairn_projection_lag_events", "projection" => "index").set(status.lag_events as f64);
        metrics::gauge!("cairn_index_parked_events").set(status.parked as f64);
    }
    health.metrics.run_upkeep();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, health.metrics.render()).into_response()
}
