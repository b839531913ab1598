//! What replication counts. Label values are names of configured sites.

use cairn_archive::SiteId;
use cairn_service_api::replication::{Link, Risk};
use metrics::{counter, gauge, histogram};
use std::time::Duration;

pub(crate) fn delivered(peer: &SiteId, events: usize) {
    counter!("cairn_replication_events_delivered_total", "peer" => peer.to_string()).increment(events as u64);
}

/// How long an event was at risk, from its append here to its append there.
pub(crate) fn was_at_risk(peer: &SiteId, time: Duration) {
    histogram!("cairn_replication_delay_seconds", "peer" => peer.to_string()).record(time);
}

pub(crate) fn sent(peer: &SiteId, bytes: u64) {
    counter!("cairn_replication_objects_sent_total", "peer" => peer.to_string()).increment(1);
    counter!("cairn_replication_bytes_sent_total", "peer" => peer.to_string()).increment(bytes);
}

pub(crate) fn received(peer: &SiteId, events: usize, repeated: u32) {
    counter!("cairn_replication_events_received_total", "peer" => peer.to_string()).increment(events as u64);
    counter!("cairn_replication_events_repeated_total", "peer" => peer.to_string()).increment(repeated.into());
}

pub(crate) fn repaired(peer: &SiteId) {
    counter!("cairn_replication_objects_repaired_total", "peer" => peer.to_string()).increment(1);
}

pub(crate) fn refused_object() {
    counter!("cairn_replication_objects_refused_total").increment(1);
}

pub(crate) fn measured(peer: &SiteId, link: &Link, risk: &Risk, age: Duration, target: Duration) {
    let is = |so: bool| f64::from(u8::from(so));
    gauge!("cairn_replication_peer_up", "peer" => peer.to_string()).set(is(*link == Link::Up));
    gauge!("cairn_replication_peer_refused", "peer" => peer.to_string()).set(is(matches!(link, Link::Refused(_))));
    gauge!("cairn_replication_rpo_target_seconds", "peer" => peer.to_string()).set(target.as_secs_f64());
    gauge!("cairn_replication_at_risk_events", "peer" => peer.to_string()).set(risk.events as f64);
    gauge!("cairn_replication_at_risk_instances", "peer" => peer.to_string()).set(risk.instances as f64);
    gauge!("cairn_replication_at_risk_bytes", "peer" => peer.to_string()).set(risk.bytes as f64);
    gauge!("cairn_replication_rpo_seconds", "peer" => peer.to_string()).set(age.as_secs_f64());
}
