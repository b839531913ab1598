//! What the store counts. Label values come from closed sets.

use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// One try of a request ended.
pub(crate) fn request(operation: &'static str, result: &'static str, took: Duration) {
    counter!("cairn_object_store_s3_requests_total", "operation" => operation, "result" => result).increment(1);
    histogram!("cairn_object_store_s3_request_duration_seconds", "operation" => operation).record(took);
}

/// An outcome that nobody knew was found out by reading back.
pub(crate) fn read_back(found: bool) {
    let found = if found { "there" } else { "not-there" };
    counter!("cairn_object_store_s3_read_back_total", "found" => found).increment(1);
}

/// Bytes came that are not what was stored.
pub(crate) fn wrong_bytes() {
    counter!("cairn_object_store_s3_wrong_bytes_total").increment(1);
}

/// Received bytes held in memory.
pub(crate) fn memory(bytes: f64) {
    gauge!("cairn_object_store_s3_memory_bytes").increment(bytes);
}

/// Something that a process which ended had left was removed.
pub(crate) fn leftover(what: &'static str) {
    counter!("cairn_object_store_s3_leftovers_removed_total", "what" => what).increment(1);
}
