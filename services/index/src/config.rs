//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Configuration of the index role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IndexConfig {
    /// Events folded in one commit at most.
    pub batch_events_max: usize,
    /// Bytes of events read for one commit, about.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub batch_bytes_max: u64,
    /// Partitions of the log folded at the same time.
    pub fold_concurrency_max: usize,
    /// Shortest time between two commits of one partition while events keep coming and nobody waits for one:
    /// those between are folded together.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// First pause after a failure of log or index store; it doubles up to `retry_pause_max`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
    /// Longest pause between attempts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause_max: Duration,
    /// How often a batch is folded that meets a defect, before its studies are folded each alone and what meets it still
    /// is parked. A store that is away is waited for without end.
    pub fold_attempts_max: u32,
    /// Queries and listings answered at the same time; more wait.
    pub queries_max: usize,
    /// Answers made ahead of a slow reader.
    pub answers_ahead_max: usize,
    /// Rows read at once.
    pub page_rows_max: usize,
    /// Rows held for sorting; a larger set is gone through several times.
    pub sort_rows_max: usize,
    /// Bytes of decompressed headers held by one query.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub header_cache_bytes: u64,
    /// Longest wait for a position.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub wait_max: Duration,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            batch_events_max: 1_024,
            batch_bytes_max: 4 << 20,
            fold_concurrency_max: 2,
            linger: Duration::from_millis(15),
            retry_pause: Duration::from_millis(50),
            retry_pause_max: Duration::from_secs(10),
            fold_attempts_max: 3,
            queries_max: 64,
            answers_ahead_max: 64,
            page_rows_max: 256,
            sort_rows_max: 4_096,
            header_cache_bytes: 2 << 20,
            wait_max: Duration::from_secs(60),
        }
    }
}
