//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use cairn_service_api::schedule::{Rule, Schedule};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Configuration of the replication role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// The other sites, by name. With none there is no replication.
    pub peers: BTreeMap<String, PeerConfig>,
    /// Whether a caller that says that it is a site must have a certificate that names it, where there are certificates
    /// (`[tls]`): by the site's name as DNS name, or by one of `certificate_names`.
    pub verify_site_certificate: bool,
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
    /// Longest time in which nothing comes of an object that is brought again from a peer.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub repair_silence_max: Duration,
    /// How often it is noted down how far each peer is: what a restart looks at again.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub notes_interval: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            verify_site_certificate: true,
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
            repair_silence_max: Duration::from_secs(60),
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
    /// Names of which the peer's certificate must have one (`verify_site_certificate`): DNS names or IP addresses; none: its
    /// name as a site.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificate_names: Vec<String>,
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
    /// What the calendar's times are ahead of UTC, such as `+01:00`; it does not change with the season.
    #[serde(skip_serializing_if = "UtcOffset::is_none")]
    pub utc_offset: UtcOffset,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            certificate_names: Vec::new(),
            rpo_target: Duration::from_secs(60),
            bytes_per_second: None,
            calendar: Vec::new(),
            utc_offset: UtcOffset::default(),
        }
    }
}

impl PeerConfig {
    /// How fast bytes may go there.
    pub fn schedule(&self) -> Schedule {
        let rules = self.calendar.iter().map(BandwidthRule::rule).collect();
        Schedule { always: self.bytes_per_second, rules, utc_offset_minutes: self.utc_offset.0.into() }
    }

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
    /// When it begins, in UTC or as `utc_offset` says.
    pub from: TimeOfDay,
    /// When it ends; not after its beginning: on the next day.
    pub to: TimeOfDay,
    /// Bytes a second that go there at most.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub bytes_per_second: u64,
}

impl BandwidthRule {
    fn rule(&self) -> Rule {
        let days = self.days.iter().fold(0, |days, day| days | 1 << (*day as u8));
        Rule { days, from: self.from.0, to: self.to.0, bytes_per_second: self.bytes_per_second }
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

/// Minutes ahead of UTC, as `+HH:MM` or `-HH:MM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(with = "String")]
#[serde(try_from = "String", into = "String")]
pub struct UtcOffset(i16);

impl UtcOffset {
    fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl std::str::FromStr for UtcOffset {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "an offset from UTC is +HH:MM or -HH:MM, of less than a day";
        let (sign, time) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(time), _) => (1, time),
            (_, Some(time)) => (-1, time),
            _ => return Err(bad),
        };
        let TimeOfDay(minutes) = time.parse().map_err(|_| bad)?;
        Ok(Self(sign * i16::try_from(minutes).map_err(|_| bad)?))
    }
}

impl TryFrom<String> for UtcOffset {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UtcOffset> for String {
    fn from(offset: UtcOffset) -> Self {
        let sign = if offset.0 < 0 { '-' } else { '+' };
        format!("{sign}{}", Self::from(TimeOfDay(offset.0.unsigned_abs())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_from_utc_are_read_as_they_are_written() {
        for (text, minutes) in [("+01:00", 60), ("-03:30", -210), ("+00:00", 0), ("+23:59", 1_439)] {
            let offset: UtcOffset = text.parse().expect(text);
            assert_eq!((offset.0, String::from(offset).as_str()), (minutes, text));
        }
        for text in ["01:00", "+1:00", "+24:00", "+01", "", "Europe/Berlin"] {
            assert!(text.parse::<UtcOffset>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_is_what_is_set() {
        let rule = BandwidthRule {
            days: vec![Day::Monday, Day::Sunday],
            from: TimeOfDay(60),
            to: TimeOfDay(30),
            bytes_per_second: 9,
        };
        let peer = PeerConfig { calendar: vec![rule], utc_offset: UtcOffset(-90), ..PeerConfig::default() };
        let rules = vec![Rule { days: 0b100_0001, from: 60, to: 30, bytes_per_second: 9 }];
        assert_eq!(peer.schedule(), Schedule { always: None, rules, utc_offset_minutes: -90 });
    }
}
