//! What the door counts. Label values come from closed sets; none is of a patient or an address.

use axum::http::{Method, StatusCode};
use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// A connection was turned away because too many were open.
pub(crate) fn connection_refused() {
    counter!("cairn_dicomweb_connections_refused_total").increment(1);
}

/// Connections open at the moment.
pub(crate) fn open(connections: usize) {
    gauge!("cairn_dicomweb_connections_open").set(connections as f64);
}

/// A request got its status; the body of its answer may still be on its way.
pub(crate) fn answered(method: &Method, resource: &'static str, status: StatusCode, took: Duration) {
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let labels =
        [("method", method.to_owned()), ("resource", resource.to_owned()), ("status", status.as_str().to_owned())];
    counter!("cairn_dicomweb_requests_total", &labels).increment(1);
    histogram!("cairn_dicomweb_request_duration_seconds", "method" => method, "resource" => resource).record(took);
}

/// An instance of a STOW-RS request was dealt with.
pub(crate) fn instance(outcome: &'static str) {
    counter!("cairn_dicomweb_instances_total", "outcome" => outcome).increment(1);
}

/// Which kind of resource a path names.
pub(crate) fn resource(path: &str) -> &'static str {
    const KINDS: [&str; 10] = [
        "metadata",
        "frames",
        "bulkdata",
        "pixeldata",
        "versions",
        "instances",
        "series",
        "studies",
        "patients",
        "commitment-requests",
    ];
    KINDS.into_iter().find(|kind| path.split('/').any(|segment| segment == *kind)).unwrap_or("other")
}
