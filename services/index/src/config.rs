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
    /// How often the pointer is looked at, by which the processes of the index agree on generations; and longest pause
    /// between two looks at what others have folded, for those who wait.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub pointer_poll: Duration,
    /// First pause between two looks at what others have folded, for those who wait; it doubles.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub elsewhere_poll: Duration,
    /// Time between two comparisons of a filled generation, that waits, with the serving one.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub compare_every: Duration,
    /// How long the generation that served before is kept up, so that it can serve again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub keep_previous: Duration,
    /// How long after the decision to drop it a generation is removed: queries that still read it end meanwhile.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub drop_grace: Duration,
    /// Generations at the same time.
    pub generations_max: usize,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            batch_events_max: 1_024,
            batch_bytes_max: 4 << 20,
            fold_concurrency_max: 2,
            linger: Duration::from_millis(15),
            retry_pause: Duration::from_millis(50),
            retry_pause_max: Duration::from_secs(2),
            fold_attempts_max: 3,
            queries_max: 64,
            answers_ahead_max: 64,
            page_rows_max: 256,
            sort_rows_max: 4_096,
            header_cache_bytes: 2 << 20,
            wait_max: Duration::from_secs(60),
            pointer_poll: Duration::from_secs(1),
            elsewhere_poll: Duration::from_millis(20),
            compare_every: Duration::from_secs(10),
            keep_previous: Duration::from_secs(60 * 60),
            drop_grace: Duration::from_secs(60),
            generations_max: 6,
        }
    }
}
