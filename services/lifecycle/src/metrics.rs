//! What lifecycle counts.

use cairn_archive::events::Damage;
use cairn_service_api::{lifecycle::FixityStatus, notary::NotaryStatus};
use metrics::{counter, gauge};

pub(crate) fn read(bytes: u64) {
    counter!("cairn_fixity_objects_read_total").increment(1);
    counter!("cairn_fixity_bytes_read_total").increment(bytes);
}

pub(crate) fn damaged(damage: Damage) {
    let what = if damage == Damage::Gone { "gone" } else { "bytes" };
    counter!("cairn_fixity_objects_damaged_total", "damage" => what).increment(1);
}

pub(crate) fn repaired(source: &'static str) {
    counter!("cairn_fixity_objects_repaired_total", "source" => source).increment(1);
}

pub(crate) fn measured(status: &FixityStatus) {
    gauge!("cairn_fixity_damaged_objects").set(status.damaged as f64);
    gauge!("cairn_fixity_period_kept").set(f64::from(u8::from(status.period_is_kept)));
    if let Some(round) = &status.round {
        let done = if round.events_total == 0 { 1.0 } else { round.events as f64 / round.events_total as f64 };
        gauge!("cairn_fixity_round_progress_ratio").set(done);
    }
    if let Some(whole) = &status.last_whole {
        let ago = status.at_ms.saturating_sub(whole.began_at_ms);
        gauge!("cairn_fixity_last_round_age_seconds").set(ago as f64 / 1000.0);
    }
}

pub(crate) fn notary(status: &NotaryStatus) {
    gauge!("cairn_notary_in_order").set(f64::from(u8::from(status.trouble.is_none())));
    gauge!("cairn_notary_events").set(status.events.0 as f64);
    if let Some(latest) = &status.latest {
        let ago = status.at_ms.saturating_sub(latest.at_ms);
        gauge!("cairn_notary_last_checkpoint_age_seconds").set(ago as f64 / 1000.0);
    }
}
