//! What the index counts. Label values come from closed sets.

use metrics::{counter, histogram};
use std::time::Duration;

pub(crate) fn committed(events: usize, rows: usize, took: Duration) {
    counter!("cairn_index_events_folded_total").increment(events as u64);
    counter!("cairn_index_rows_written_total").increment(rows as u64);
    histogram!("cairn_index_commit_duration_seconds").record(took);
}

pub(crate) fn parked() {
    counter!("cairn_index_events_parked_total").increment(1);
}

pub(crate) fn queried(level: &'static str) {
    counter!("cairn_index_queries_total", "level" => level).increment(1);
}
