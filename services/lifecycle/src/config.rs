//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Configuration of the lifecycle role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleConfig {
    /// Reading everything, to know that it is still what it was.
    pub fixity: FixityConfig,
}

/// Reading everything, to know that it is still what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FixityConfig {
    /// Time in which every object is to be read once.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub period: Duration,
    /// Bytes a second that are read at most for it, also when the period can't be kept so.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub bytes_per_second_max: u64,
    /// Objects read at once.
    pub objects_at_once: usize,
    /// Time between two attempts to have damaged objects whole again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub repair_interval: Duration,
    /// Pause after a store could not be read or written.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
    /// How often it is noted down how far a round is: what a restart reads again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub notes_interval: Duration,
}

impl Default for FixityConfig {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(30 * 24 * 3600),
            bytes_per_second_max: 256 << 20,
            objects_at_once: 2,
            repair_interval: Duration::from_secs(600),
            retry_pause: Duration::from_secs(2),
            notes_interval: Duration::from_secs(10),
        }
    }
}
