//! What lifecycle counts.

use crate::commitment::UnderWay;
use cairn_archive::{
    commitment::FailureReason,
    events::{CommitmentReportOutcome, Damage, Door},
    policies::{Action, Policy},
};
use cairn_service_api::{ErrorKind, lifecycle::FixityStatus, notary::NotaryStatus, tiering::TieringStatus};
use cairn_store_api::Tier;
use metrics::{counter, gauge, histogram};
use std::time::Duration;

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

/// How far second copies are behind the log.
pub(crate) fn copies_behind(events: u64) {
    gauge!("cairn_copies_behind_events").set(events as f64);
}

pub(crate) fn copied(bytes: u64) {
    counter!("cairn_copies_made_total").increment(1);
    counter!("cairn_copies_made_bytes_total").increment(bytes);
}

pub(crate) fn copy_made_anew() {
    counter!("cairn_copies_made_anew_total").increment(1);
}

/// Orphans that the last look left, and whether they wait for an operator.
pub(crate) fn orphans(left: u64, are_kept: bool) {
    gauge!("cairn_orphans").set(left as f64);
    gauge!("cairn_orphans_kept").set(f64::from(u8::from(are_kept)));
}

pub(crate) fn orphans_removed(objects: u64, bytes: u64) {
    counter!("cairn_orphans_removed_total").increment(objects);
    counter!("cairn_orphans_removed_bytes_total").increment(bytes);
}

pub(crate) fn notary(status: &NotaryStatus) {
    gauge!("cairn_notary_in_order").set(f64::from(u8::from(status.trouble.is_none())));
    gauge!("cairn_notary_events").set(status.events.0 as f64);
    if let Some(latest) = &status.latest {
        let ago = status.at_ms.saturating_sub(latest.at_ms);
        gauge!("cairn_notary_last_checkpoint_age_seconds").set(ago as f64 / 1000.0);
    }
}

/// Policies in force now.
pub(crate) fn policies_in_force(count: usize) {
    gauge!("cairn_policies_in_force").set(count as f64);
}

/// A policy ran, or is halted.
pub(crate) fn policy_ran(policy: &Policy, asked: u64, is_halted: bool) {
    gauge!("cairn_policy_halted", "policy" => policy.name.clone()).set(f64::from(u8::from(is_halted)));
    match policy.action {
        Action::Erase => counter!("cairn_policy_erasures_requested_total", "policy" => policy.name.clone()),
        Action::Move => counter!("cairn_policy_moves_asked_total", "policy" => policy.name.clone()),
    }
    .increment(asked);
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Hot => "hot",
        Tier::Cold => "cold",
    }
}

/// An object was moved.
pub(crate) fn moved(to: Tier, bytes: u64) {
    counter!("cairn_tier_moved_objects_total", "to" => name(to)).increment(1);
    counter!("cairn_tier_moved_bytes_total", "to" => name(to)).increment(bytes);
}

pub(crate) fn tiering(status: &TieringStatus) {
    gauge!("cairn_tier_waiting_studies", "to" => name(Tier::Hot)).set(status.to_hot as f64);
    gauge!("cairn_tier_waiting_studies", "to" => name(Tier::Cold)).set(status.to_cold as f64);
    for tier in &status.tiers {
        gauge!("cairn_tier_reachable", "tier" => name(tier.tier)).set(f64::from(u8::from(tier.space.is_ok())));
        if let Ok(space) = &tier.space {
            gauge!("cairn_tier_used_bytes", "tier" => name(tier.tier)).set(space.used as f64);
        }
    }
}

pub(crate) fn sealed(bytes: u64) {
    counter!("cairn_log_sealed_ranges_total").increment(1);
    counter!("cairn_log_sealed_bytes_total").increment(bytes);
}

pub(crate) fn sealing(in_order: bool) {
    gauge!("cairn_log_sealing_in_order").set(f64::from(u8::from(in_order)));
}

/// A request for storage commitment was taken or refused.
pub(crate) fn requested(door: Door, taken: Result<&(), ErrorKind>) {
    let door = match door {
        Door::Dimse => "dimse",
        Door::Dicomweb => "dicomweb",
        _ => "other",
    };
    let outcome = match taken {
        Ok(()) => "taken",
        Err(ErrorKind::Conflict) => "duplicate",
        Err(ErrorKind::Exhausted) => "too-many",
        Err(_) => "failed",
    };
    counter!("cairn_commitment_requests_total", "door" => door, "outcome" => outcome).increment(1);
}

/// A request was decided.
pub(crate) fn decided(outcomes: &[Option<FailureReason>], took: Duration) {
    histogram!("cairn_commitment_decision_duration_seconds").record(took);
    for outcome in outcomes {
        let outcome = match *outcome {
            None => "committed",
            Some(FailureReason::NO_SUCH_OBJECT_INSTANCE) => "no-such-instance",
            Some(FailureReason::CLASS_INSTANCE_CONFLICT) => "class-conflict",
            Some(FailureReason::SOP_CLASS_NOT_SUPPORTED) => "class-not-supported",
            Some(FailureReason::RESOURCE_LIMITATION) => "resource-limitation",
            Some(_) => "processing-failure",
        };
        counter!("cairn_commitment_instances_total", "outcome" => outcome).increment(1);
    }
}

/// A requester was told, or given up.
pub(crate) fn reported(outcome: CommitmentReportOutcome) {
    let outcome = match outcome {
        CommitmentReportOutcome::SameAssociation => "same-association",
        CommitmentReportOutcome::GivenUp => "given-up",
        _ => "new-association",
    };
    counter!("cairn_commitment_reports_total", "outcome" => outcome).increment(1);
}

/// A requester could not be told.
pub(crate) fn report_failed() {
    counter!("cairn_commitment_report_failures_total").increment(1);
}

/// Requests that are not done.
pub(crate) fn commitments_under_way(pending: &UnderWay, unreported: &UnderWay) {
    for (state, of) in [("pending", pending), ("unreported", unreported)] {
        gauge!("cairn_commitment_requests", "state" => state).set(of.count as f64);
        gauge!("cairn_commitment_oldest_seconds", "state" => state).set(of.oldest.as_secs_f64());
    }
}
