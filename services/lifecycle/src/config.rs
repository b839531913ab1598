//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Configuration of the lifecycle role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleConfig {
    /// Reading everything, to know that it is still what it was.
    pub fixity: FixityConfig,
    /// Copying what is stored to a second object store, where the site has one (`[copies]`).
    pub copies: CopiesConfig,
    /// Removing what no event names.
    pub orphans: OrphansConfig,
    /// Signing what the log is, to prove later that it was not altered.
    pub notary: NotaryConfig,
    /// Keeping what the log has in the object store, too.
    pub sealing: SealingConfig,
    /// Storage commitment.
    pub commitment: CommitmentConfig,
    /// Holding, and erasing.
    pub erasure: ErasureConfig,
    /// What is done with studies by itself.
    pub policies: PoliciesConfig,
    /// Moving studies between a hot store and a cold one, where the site has two (`[tiers]`).
    pub tiering: TieringConfig,
}

/// Copying what is stored to a second object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CopiesConfig {
    /// Bytes a second that are copied at most, so that what comes in goes first.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub bytes_per_second_max: u64,
    /// Objects copied at once.
    pub objects_at_once: usize,
    /// Time between two looks at the log.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
    /// Pause after something could not be copied.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
}

impl Default for CopiesConfig {
    fn default() -> Self {
        Self {
            bytes_per_second_max: 256 << 20,
            objects_at_once: 4,
            look_interval: Duration::from_secs(1),
            retry_pause: Duration::from_secs(5),
        }
    }
}

/// Moving studies between a hot store and a cold one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TieringConfig {
    /// Bytes a second that are moved to the cold store at most, so that what comes in goes first. What is recalled is moved as
    /// fast as it can be.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub bytes_per_second_max: u64,
    /// Objects moved at once.
    pub objects_at_once: usize,
    /// Studies that wait to be moved at most; further ones are refused.
    pub waiting_max: usize,
    /// Pause after a study could not be moved.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
    /// Time between two looks whether something is to be tried again, and between two looks at both stores.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
    /// A store that takes longer to say what room it has is said to be away.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_timeout: Duration,
    /// Time that a move waits for the index to know all that the log has of the study. Then it is tried again later.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub index_wait: Duration,
}

impl Default for TieringConfig {
    fn default() -> Self {
        Self {
            bytes_per_second_max: 64 << 20,
            objects_at_once: 4,
            waiting_max: 100_000,
            retry_pause: Duration::from_secs(60),
            look_interval: Duration::from_secs(10),
            look_timeout: Duration::from_secs(5),
            index_wait: Duration::from_secs(30),
        }
    }
}

/// What is done with studies by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoliciesConfig {
    /// Time at work between two runs of a policy. The first run comes with the next look.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// Time between two looks at what is to be done.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
    /// Time that the wall clock may have gone on beyond the time that passed since it was last found right; while the archive
    /// was down nobody counts. Beyond it nothing is done by any policy until the clock is right again, or an operator says that
    /// it is (`cairn policy accept-clock`).
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub clock_ahead_max: Duration,
    /// Time that the wall clock may be behind the newest event.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub clock_behind_max: Duration,
    /// Time that a run waits for the index to know all that the log has.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub index_wait: Duration,
    /// Policies in force at most; further ones are refused.
    pub policies_max: usize,
    /// Studies that a policy may act on in one run at most; one that may act on more is refused.
    pub studies_max: u64,
}

impl Default for PoliciesConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(6 * 3600),
            look_interval: Duration::from_secs(30),
            clock_ahead_max: Duration::from_secs(7 * 24 * 3600),
            clock_behind_max: Duration::from_secs(60),
            index_wait: Duration::from_secs(60),
            policies_max: 100,
            studies_max: 100_000,
        }
    }
}

/// Removing objects that no event names: what a store left that failed on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrphansConfig {
    /// Whether it is looked for them without being asked (`cairn orphans look`).
    pub enabled: bool,
    /// Time at work between two looks. Each reads the whole log.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// Time at work between the look that finds one and its removal, by a later look: far longer than an append may take
    /// (`ingest.append_deadline`).
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub grace: Duration,
    /// More of them at once, or more than half of all objects, are kept until an operator releases them: something else is wrong then.
    pub unattended_max: usize,
    /// Orphans that are noted down at most; the others are found by later looks.
    pub noted_max: usize,
    /// Memory for the keys that the log names, during a look. With less than two bytes for each, a look passes over more orphans.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub memory_max: u64,
    /// Events a second that a look reads at most.
    pub events_per_second_max: u64,
}

impl Default for OrphansConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(7 * 24 * 3600),
            grace: Duration::from_secs(24 * 3600),
            unattended_max: 100,
            noted_max: 100_000,
            memory_max: 64 << 20,
            events_per_second_max: 50_000,
        }
    }
}

/// Signing what the log is, to prove later that it was not altered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NotaryConfig {
    /// Private key that checkpoints are signed with: a file that `cairn audit key` made. Without one nothing is signed: a
    /// key that a tool made unseen would prove nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Time between checkpoints, where something was appended meanwhile.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// How often the log is followed, and what could not be exported is tried again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub follow_interval: Duration,
    /// Directory that each checkpoint is written to as a file, which is best on storage that nothing can be removed from; unset:
    /// they are in the log alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_directory: Option<PathBuf>,
}

impl Default for NotaryConfig {
    fn default() -> Self {
        Self {
            key: None,
            interval: Duration::from_secs(3600),
            follow_interval: Duration::from_secs(10),
            export_directory: None,
        }
    }
}

/// Keeping what the log has in the object store, too, from which it is read should the log lose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SealingConfig {
    /// Whether it is done.
    pub enabled: bool,
    /// Bytes of events that make a range of a partition.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub range_bytes: u64,
    /// Time after which fewer make one.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub age_max: Duration,
    /// Time between two looks at what there is.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
}

impl Default for SealingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            range_bytes: 64 << 20,
            age_max: Duration::from_secs(24 * 3600),
            look_interval: Duration::from_secs(300),
        }
    }
}

/// Holding, and erasing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ErasureConfig {
    /// Time that each site lets pass, at work, after it learnt that something is to be erased. It is counted by a clock that
    /// is not set, and the wall clock must say so too.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub delay: Duration,
    /// Time that passes, counted in the same way, after a site was declared dead (`cairn site dead`), before an erasure takes effect
    /// without its word.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub dead_site_delay: Duration,
    /// Time between two looks at what is to be done.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
    /// Holds in force at most; further ones are refused.
    pub holds_max: usize,
    /// Studies that one hold names at most.
    pub hold_studies_max: usize,
}

impl Default for ErasureConfig {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(7 * 24 * 3600),
            dead_site_delay: Duration::from_secs(7 * 24 * 3600),
            look_interval: Duration::from_secs(30),
            holds_max: 10_000,
            hold_studies_max: 100_000,
        }
    }
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

/// Storage commitment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommitmentConfig {
    /// How long instances that are not there yet, not confirmed yet, or not the version that is shown are awaited, from the
    /// request on.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub instances_wait: Duration,
    /// Time between two looks for them, at first; it doubles, up to `look_interval_max`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval: Duration,
    /// The longest time between two looks.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub look_interval_max: Duration,
    /// How long a request stays undecided while index, objects or log can't be read; then what could not be looked at is not
    /// committed (0213H).
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub decision_timeout: Duration,
    /// Instances that one request may be about.
    pub references_max: usize,
    /// Requests of one requester that are not decided, or not reported, at once; beyond it they are refused.
    pub pending_per_requester_max: usize,
    /// The same of all requesters together.
    pub pending_max: usize,
    /// Requests that are worked on at once. Each holds its references in memory, some 200 bytes an instance.
    pub requests_at_once: usize,
    /// Objects that are read back at once, for all of them.
    pub objects_at_once: usize,
    /// How long the requester's own association has to take a report, where it is to be told there.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub same_association_wait: Duration,
    /// Time between two attempts to tell a requester, at first; it doubles, up to `report_interval_max`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub report_interval: Duration,
    /// The longest time between two attempts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub report_interval_max: Duration,
    /// How long it is tried to tell a requester, from the decision on, over any restarts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub report_give_up: Duration,
    /// Requesters that are called at once.
    pub requesters_at_once: usize,
}

impl Default for CommitmentConfig {
    fn default() -> Self {
        Self {
            instances_wait: Duration::from_secs(120),
            look_interval: Duration::from_millis(500),
            look_interval_max: Duration::from_secs(15),
            decision_timeout: Duration::from_secs(3600),
            references_max: 100_000,
            pending_per_requester_max: 1_000,
            pending_max: 10_000,
            requests_at_once: 4,
            objects_at_once: 4,
            same_association_wait: Duration::from_secs(30),
            report_interval: Duration::from_secs(10),
            report_interval_max: Duration::from_secs(3600),
            report_give_up: Duration::from_secs(7 * 24 * 3600),
            requesters_at_once: 8,
        }
    }
}
