//! What the log counts. Label values come from closed sets.

use metrics::{counter, gauge};

pub(crate) fn appended(records: usize) {
    counter!("cairn_event_log_appended_total").increment(records as u64);
}

pub(crate) fn append_failed(reason: &'static str) {
    counter!("cairn_event_log_append_failures_total", "reason" => reason).increment(1);
}

pub(crate) fn queue_bytes(bytes: u64) {
    gauge!("cairn_event_log_queue_bytes").set(bytes as f64);
}

/// Events read: from memory, or fetched for a reader.
pub(crate) fn read(from: &'static str, records: usize) {
    counter!("cairn_event_log_read_total", "from" => from).increment(records as u64);
}

pub(crate) fn client_error() {
    counter!("cairn_event_log_client_errors_total").increment(1);
}

pub(crate) fn weak_topic(weak: bool) {
    gauge!("cairn_event_log_weak_topic").set(if weak { 1.0 } else { 0.0 });
}

pub(crate) fn share_changed() {
    counter!("cairn_event_log_share_changes_total").increment(1);
}
