//! What ingest counts. Label values come from closed sets; none is of a patient, a study or an address.

use cairn_archive::events::Door;
use cairn_service_api::ingest::StoreOutcome;
use metrics::{counter, gauge, histogram};
use std::time::Duration;

fn door(door: Door) -> &'static str {
    match door {
        Door::Dimse => "dimse",
        Door::Dicomweb => "dicomweb",
        Door::Import => "import",
        Door::Grpc => "grpc",
        Door::Unspecified => "unknown",
    }
}

pub(crate) fn stored(by: Door, outcome: StoreOutcome, bytes: u64, took: Duration) {
    let outcome = match outcome {
        StoreOutcome::New => "new",
        StoreOutcome::Repeat => "repeat",
        StoreOutcome::Conflict { .. } => "conflict",
        StoreOutcome::ElsewhereToo => "elsewhere",
    };
    counter!("cairn_ingest_instances_total", "door" => door(by), "outcome" => outcome).increment(1);
    counter!("cairn_ingest_received_bytes_total", "door" => door(by)).increment(bytes);
    histogram!("cairn_ingest_store_duration_seconds", "door" => door(by)).record(took);
}

/// `reason` is one of the stable codes of quarantine.
pub(crate) fn refused(by: Door, reason: &'static str) {
    counter!("cairn_ingest_instances_total", "door" => door(by), "outcome" => "refused").increment(1);
    counter!("cairn_ingest_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn failed(by: Door) {
    counter!("cairn_ingest_instances_total", "door" => door(by), "outcome" => "failed").increment(1);
}

pub(crate) fn append_took(took: Duration) {
    histogram!("cairn_ingest_append_duration_seconds").record(took);
}

pub(crate) fn clock_behind_log(by: Duration, alarm: bool) {
    gauge!("cairn_ingest_clock_behind_log_seconds").set(by.as_secs_f64());
    gauge!("cairn_ingest_clock_alarm").set(if alarm { 1.0 } else { 0.0 });
}

pub(crate) fn receipts_open(count: usize) {
    gauge!("cairn_ingest_receipts_open").set(count as f64);
}

pub(crate) fn quarantined(entries: usize, bytes: u64) {
    gauge!("cairn_ingest_quarantine_entries").set(entries as f64);
    gauge!("cairn_ingest_quarantine_bytes").set(bytes as f64);
}

/// A refused input was counted but not kept: too many came at once, or the disk failed.
pub(crate) fn not_quarantined() {
    counter!("cairn_ingest_quarantine_dropped_total").increment(1);
}

pub(crate) fn compared(result: &'static str) {
    counter!("cairn_ingest_comparisons_total", "result" => result).increment(1);
}

/// An object that no event names could not be removed at once; lifecycle does so later.
pub(crate) fn orphan_left() {
    counter!("cairn_ingest_orphans_left_total").increment(1);
}

/// The index gave no hint in time.
pub(crate) fn hint_missed() {
    counter!("cairn_ingest_hints_missed_total").increment(1);
}

/// A repeat was stored in full: the index did not confirm in time that the first copy is live.
pub(crate) fn repeat_not_confirmed() {
    counter!("cairn_ingest_repeats_not_confirmed_total").increment(1);
}
