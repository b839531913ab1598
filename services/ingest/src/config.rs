//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_archive::events::ResendPolicy;
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Configuration of the ingest role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Applies to senders that have no profile of their own, and to what a profile leaves out.
    pub default_profile: ProfileConfig,
    /// Profiles by calling AE title.
    pub profiles: BTreeMap<String, ProfileConfig>,
    /// Longest time an append to the log may take. Far below the grace period after which lifecycle removes objects
    /// that no event names, so that no event comes after its object is gone.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub append_deadline: Duration,
    /// Longest wait for other sites to hold an instance, where its sender wants that; then it is told to try again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub confirm_timeout: Duration,
    /// Room in the object store below which no more instances are taken.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub reserved_room: u64,
    /// Encoded events stay under this; a larger header or table goes to a side object.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub event_bytes_max: u64,
    /// Bytes held back while File Meta Information and identifiers of a file have not been read yet.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub held_bytes_max: u64,
    /// Longest data set header kept; what is beyond it is listed as bulk data.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub header_bytes_max: u64,
    /// Header and tables of an instance that take more memory than this make it one of those with a large header.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub large_header_bytes: u64,
    /// Instances with a large header taken at once: a flood of them must not take all memory.
    pub large_headers_max: usize,
    /// For another one to wait for its turn; then it is refused for want of resources.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub large_header_wait: Duration,
    /// Time that one of them may make us wait for its bytes while others wait for their turn; then it is refused for want of
    /// resources. While nobody waits it may be as slow as it is.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub large_header_hold: Duration,
    /// What is asked of the index before an answer.
    pub hint: HintConfig,
    /// Associations, STOW-RS requests and imports.
    pub receipts: ReceiptConfig,
    /// When the wall clock is not believed.
    pub clock: ClockConfig,
    /// Comparing versions after the answer.
    pub compare: CompareConfig,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            default_profile: ProfileConfig::default(),
            profiles: BTreeMap::new(),
            append_deadline: Duration::from_secs(30),
            confirm_timeout: Duration::from_secs(10),
            reserved_room: 256 << 20,
            event_bytes_max: 512 << 10,
            held_bytes_max: 1 << 20,
            header_bytes_max: 16 << 20,
            large_header_bytes: 1 << 20,
            large_headers_max: 8,
            large_header_wait: Duration::from_secs(30),
            large_header_hold: Duration::from_secs(10),
            hint: HintConfig::default(),
            receipts: ReceiptConfig::default(),
            clock: ClockConfig::default(),
            compare: CompareConfig::default(),
        }
    }
}

/// What the archive assumes of a sender, and how it treats what it sends. Fields left out are those of the default
/// profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// Issuer of Patient ID where the data set names none. Empty by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_of_patient_id: Option<String>,
    /// Character set where the data set names none: a value of Specific Character Set (PS3.3 C.12.1.1.2), several
    /// joined by a backslash. Empty by default: the default repertoire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_character_set: Option<String>,
    /// Time zone where the data set names none, as Timezone Offset From UTC (`+0100`). Empty by default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What happens when an instance differs from the one that is there. `keep` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_policy: Option<ResendPolicyConfig>,
    /// Largest instance taken. 64 GiB by default.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_size")]
    pub object_bytes_max: Option<u64>,
    /// Other sites that must hold an instance before its sender hears of success. 0 by default: durable here is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed_sites: Option<u32>,
}

/// What happens when an instance differs from the one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResendPolicyConfig {
    /// Both are kept, the first stays shown.
    Keep,
    /// Both are kept; one that comes from the same source as the first is shown.
    SupersedeSameSource,
    /// It is refused where the conflict is known before the answer; else kept and not shown.
    Refuse,
}

impl From<ResendPolicyConfig> for ResendPolicy {
    fn from(policy: ResendPolicyConfig) -> Self {
        match policy {
            ResendPolicyConfig::Keep => Self::Keep,
            ResendPolicyConfig::SupersedeSameSource => Self::SupersedeSameSource,
            ResendPolicyConfig::Refuse => Self::Refuse,
        }
    }
}

/// What is asked of the index. Its answer is a hint: the fold over the log decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HintConfig {
    /// Longest wait for what the index knows of an instance, counted from when its identifiers were read.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub lookup_timeout: Duration,
    /// Longest wait until the index confirms that the first copy of a repeat is live; after it the second is kept.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub repeat_timeout: Duration,
    /// Longest wait for the index to have folded what the log has of a study, and to say what was stored of the instances that
    /// a rejection note names; after it the note hides whatever is stored of them, before or after.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub rejection_timeout: Duration,
    /// Instances remembered of those that this process stored lately.
    pub recent_instances_max: usize,
}

impl Default for HintConfig {
    fn default() -> Self {
        Self {
            lookup_timeout: Duration::from_millis(100),
            repeat_timeout: Duration::from_secs(2),
            rejection_timeout: Duration::from_secs(10),
            recent_instances_max: 16_384,
        }
    }
}

/// Bounds of receipts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiptConfig {
    /// Receipts open at once.
    pub open_max: usize,
    /// Studies counted in one receipt; beyond it the study touched longest ago is summed up before the receipt ends.
    pub studies_max: usize,
    /// A receipt that nobody used for this long is closed when room for another is needed.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub idle_max: Duration,
}

impl Default for ReceiptConfig {
    fn default() -> Self {
        Self { open_max: 4_096, studies_max: 1_024, idle_max: Duration::from_secs(3_600) }
    }
}

/// When the wall clock is not believed. Order never depends on it, but what it says is written down for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClockConfig {
    /// Milliseconds since the Unix epoch before which it can't be: this release did not exist then.
    pub not_before_ms: u64,
    /// Milliseconds since the Unix epoch after which it can't be.
    pub not_after_ms: u64,
    /// Where several processes append to one log: how often the last event of a partition is looked at, so that events made
    /// here are later in the order of events.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub observe_interval: Duration,
    /// A log ahead of the wall clock by more than this is an alarm.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub behind_log_alarm: Duration,
    /// A log ahead of the wall clock by more than this stops ingest. Not set by default: a site that received events
    /// from one with a wrong clock must go on.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub behind_log_max: Option<Duration>,
    /// Take instances whatever the clock says.
    pub accept_implausible: bool,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self {
            // 2026-01-01 and 2076-01-01
            not_before_ms: 1_767_225_600_000,
            not_after_ms: 3_345_062_400_000,
            observe_interval: Duration::from_millis(100),
            behind_log_alarm: Duration::from_secs(60),
            behind_log_max: None,
            accept_implausible: false,
        }
    }
}

/// Comparing versions under one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompareConfig {
    /// Pairs waiting at once; more are found again through the index.
    pub waiting_max: usize,
    /// Earlier versions that a new one is compared with.
    pub versions_max: usize,
    /// Time between looks for pairs that were not compared.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub search_interval: Duration,
    /// Longest time for one comparison; what takes longer is given up and found again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub comparison_max: Duration,
    /// Longest comparison made before an answer, for senders whose conflicts are refused.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub before_answer_max: Duration,
    /// Tenants whose conflicts are looked through.
    pub tenants: Vec<String>,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self {
            waiting_max: 1_024,
            versions_max: 8,
            search_interval: Duration::from_secs(300),
            comparison_max: Duration::from_secs(900),
            before_answer_max: Duration::from_secs(10),
            tenants: vec![cairn_service_api::DEFAULT_TENANT.into()],
        }
    }
}

/// A sender's profile with every field resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Issuer where the data set names none.
    pub(crate) issuer_of_patient_id: String,
    /// Name of the rule that gave it.
    pub(crate) issuer_rule: String,
    pub(crate) default_character_set: String,
    pub(crate) time_zone: String,
    pub(crate) resend_policy: ResendPolicy,
    pub(crate) object_bytes_max: u64,
    pub(crate) confirmed_sites: u32,
}

const OBJECT_BYTES_MAX: u64 = 64 << 30;

impl IngestConfig {
    /// What applies to a calling AE title according to `profiles`, with the issuer that the receipt gives, if any.
    pub(crate) fn profile(
        &self,
        profiles: &BTreeMap<String, ProfileConfig>,
        calling_ae_title: &str,
        issuer_of_receipt: Option<&str>,
    ) -> Arc<Profile> {
        let title = calling_ae_title.trim();
        let own = profiles.get(title).filter(|_| !title.is_empty());
        let default = &self.default_profile;
        let text = |field: fn(&ProfileConfig) -> &Option<String>| {
            own.and_then(|own| field(own).clone()).or_else(|| field(default).clone()).unwrap_or_default()
        };
        let (issuer_of_patient_id, issuer_rule) = match issuer_of_receipt {
            Some(issuer) => (issuer.to_owned(), "receipt".to_owned()),
            None if own.is_some_and(|own| own.issuer_of_patient_id.is_some()) => {
                (text(|profile| &profile.issuer_of_patient_id), format!("ae:{title}"))
            }
            None => (text(|profile| &profile.issuer_of_patient_id), "default".to_owned()),
        };
        let policy = own.and_then(|own| own.resend_policy).or(default.resend_policy);
        let bytes_max = own.and_then(|own| own.object_bytes_max).or(default.object_bytes_max);
        Arc::new(Profile {
            issuer_of_patient_id,
            issuer_rule,
            default_character_set: text(|profile| &profile.default_character_set),
            time_zone: text(|profile| &profile.time_zone),
            resend_policy: policy.unwrap_or(ResendPolicyConfig::Keep).into(),
            object_bytes_max: bytes_max.unwrap_or(OBJECT_BYTES_MAX),
            confirmed_sites: own.and_then(|own| own.confirmed_sites).or(default.confirmed_sites).unwrap_or(0),
        })
    }
}

mod optional_size {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => cairn_process::units::size::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        cairn_process::units::size::deserialize(deserializer).map(Some)
    }
}

mod optional_duration {
    use serde::{Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => cairn_process::units::duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        cairn_process::units::duration::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_takes_from_the_default_what_it_leaves_out() {
        let mut config = IngestConfig::default();
        config.default_profile.issuer_of_patient_id = Some("MAIN".into());
        config.default_profile.time_zone = Some("+0100".into());
        let own = ProfileConfig {
            issuer_of_patient_id: Some("EAST".into()),
            resend_policy: Some(ResendPolicyConfig::Refuse),
            ..ProfileConfig::default()
        };
        config.profiles.insert("CT1".into(), own);
        let ct1 = config.profile(&config.profiles, "CT1 ", None);
        assert_eq!((ct1.issuer_of_patient_id.as_str(), ct1.issuer_rule.as_str()), ("EAST", "ae:CT1"));
        assert_eq!((ct1.time_zone.as_str(), ct1.resend_policy), ("+0100", ResendPolicy::Refuse));
        let other = config.profile(&config.profiles, "MR1", None);
        assert_eq!((other.issuer_of_patient_id.as_str(), other.issuer_rule.as_str()), ("MAIN", "default"));
        let given = config.profile(&config.profiles, "CT1", Some("IMPORTED"));
        assert_eq!((given.issuer_of_patient_id.as_str(), given.issuer_rule.as_str()), ("IMPORTED", "receipt"));
        assert_eq!((other.resend_policy, other.object_bytes_max), (ResendPolicy::Keep, OBJECT_BYTES_MAX));
    }
}
