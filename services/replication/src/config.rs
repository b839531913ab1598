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
    /// How long after its start a process waits to have met every peer before it sends anything: meanwhile it learns whether
    /// its log was restored from a backup.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub first_meetings_wait: Duration,
    /// How often the recovery point is measured, and each peer told what it lacks.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub tell_interval: Duration,
    /// For a peer to answer to that; then the connection counts as failing.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub tell_timeout: Duration,
    /// For what the other site holds to come here, when its authority is taken over; then it is to be tried again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub take_over_timeout: Duration,
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
            first_meetings_wait: Duration::from_secs(5),
            tell_interval: Duration::from_secs(1),
            tell_timeout: Duration::from_secs(5),
            take_over_timeout: Duration::from_secs(20),
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
    /// Bytes a second that go there at most, at least 64 KiB; unset: as fast as it goes.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_size")]
    pub bytes_per_second: Option<u64>,
    /// Other limits at some times of the week; the first rule that holds counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calendar: Vec<BandwidthRule>,
}

impl Default for PeerConfig {
    fn default() -> Self {
        let (addresses, calendar) = (Vec::new(), Vec::new());
        Self { addresses, rpo_target: Duration::from_secs(60), bytes_per_second: None, calendar }
    }
}

impl PeerConfig {
    /// Checks its limits.
    ///
    /// # Errors
    /// Which is too low: a piece must go within the time that a silent peer is given.
    pub fn check(&self) -> Result<(), &'static str> {
        let limits = self.bytes_per_second.into_iter().chain(self.calendar.iter().map(|rule| rule.bytes_per_second));
        if limits.min().is_some_and(|least| least < 64 << 10) {
            return Err("at least 64 KiB a second");
        }
        Ok(())
    }
}

/// A limit at some times of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthRule {
    /// Days on which it begins; none: every day.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins, in UTC.
    pub from: TimeOfDay,
    /// When it ends, in UTC; not after its beginning: on the next day.
    pub to: TimeOfDay,
    /// Bytes a second that go there at most.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub bytes_per_second: u64,
}

impl BandwidthRule {
    /// Whether it holds in a minute of a day; day 0 is Monday.
    pub(crate) fn holds(&self, day: u64, minute: u64) -> bool {
        let begins_on = |day: u64| self.days.is_empty() || self.days.iter().any(|own| *own as u64 == day);
        let (from, to) = (self.from.0.into(), self.to.0.into());
        if from < to {
            return begins_on(day) && (from..to).contains(&minute);
        }
        begins_on(day) && minute >= from || begins_on((day + 6) % 7) && minute < to
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as they are")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Minutes since midnight, as `HH:MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(with = "String")]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl std::str::FromStr for TimeOfDay {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number =
            |text: &str, below: u16| text.parse().ok().filter(|number: &u16| text.len() == 2 && *number < below);
        let (hours, minutes) = text.split_once(':').ok_or("a time is HH:MM")?;
        let parts = number(hours, 24).zip(number(minutes, 60));
        parts.map(|(hours, minutes)| Self(hours * 60 + minutes)).ok_or("a time is HH:MM")
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        format!("{:02}:{:02}", time.0 / 60, time.0 % 60)
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
