//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Configuration of the replication role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// The other sites, by name. With none there is no replication.
    pub peers: BTreeMap<String, PeerConfig>,
    /// Events of one delivery at most.
    pub delivery_events_max: usize,
    /// Bytes of events of one delivery, about.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub delivery_bytes_max: u64,
    /// Deliveries under way to one peer, each of another partition of the log.
    pub deliveries_max: usize,
    /// Objects under way to one peer.
    pub objects_max: usize,
    /// Objects under way from all peers; more are refused, and brought again later.
    pub incoming_objects_max: usize,
    /// First pause after a failure; it doubles up to `retry_pause_max`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
    /// Longest pause between attempts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause_max: Duration,
    /// How often the recovery point is measured, and each peer told what it lacks.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub tell_interval: Duration,
    /// How often it is noted down how far each peer is: what a restart looks at again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub notes_interval: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            delivery_events_max: 256,
            delivery_bytes_max: 1 << 20,
            deliveries_max: 16,
            objects_max: 16,
            incoming_objects_max: 64,
            retry_pause: Duration::from_millis(200),
            retry_pause_max: Duration::from_secs(10),
            tell_interval: Duration::from_secs(1),
            notes_interval: Duration::from_secs(1),
        }
    }
}

/// Another site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// HOST:PORT of its gRPC listeners that have replication.
    pub addresses: Vec<String>,
    /// The most that may be lost with this site, as the age of the oldest event that the peer does not have.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub rpo_target: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self { addresses: Vec::new(), rpo_target: Duration::from_secs(60) }
    }
}
