//! What the store counts. Label values come from closed sets.

use metrics::{counter, histogram};
use std::time::Duration;

pub(crate) fn answered(what: &'static str, took: Duration) {
    histogram!("cairn_index_store_request_duration_seconds", "what" => what).record(took);
}

pub(crate) fn retried(what: &'static str) {
    counter!("cairn_index_store_retries_total", "what" => what).increment(1);
}

pub(crate) fn written(batches: usize, rows: usize) {
    counter!("cairn_index_store_batches_total").increment(batches as u64);
    counter!("cairn_index_store_rows_written_total").increment(rows as u64);
}

pub(crate) fn conflicted() {
    counter!("cairn_index_store_conflicts_total").increment(1);
}
