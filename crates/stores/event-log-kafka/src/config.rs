use cairn_archive::position::DEFAULT_PARTITIONS;
use cairn_process::units;
use cairn_store_api::{StoreError, StoreErrorKind};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Which topic the log is, what it is checked for, and how much may be under way. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to begin with, as `host:port`, joined by commas.
    pub brokers: String,
    /// Topic that is the log.
    pub topic: String,
    /// Partitions of the log, fixed when the topic is created; the topic has one more, which says what the log is.
    pub partitions: u16,
    /// Brokers that hold each partition; checked at start.
    pub replication_factor: u16,
    /// Brokers that must have a record before it is acknowledged; checked at start. With 1 the topic must sync each record.
    pub min_insync_replicas: u16,
    /// Whether to run on a topic whose settings don't keep what is acknowledged. It is said loudly, and a metric shows it.
    pub accept_weak_topic: bool,
    /// Longest event, envelope included.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub record_bytes_max: u64,
    /// Longest time an append may take. Beyond it the outcome is unknown. Not above ingest's own deadline.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub append_timeout: Duration,
    /// How long records wait for company. None by default: while a batch is under way the next one gathers.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// How events are compressed.
    pub compression: Compression,
    /// Bytes of appends under way; callers wait beyond that.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub queue_bytes_max: u64,
    /// Longest time that a read, or a question to the brokers, may take.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How long an opening goes on without having heard that the log has no new life. Who begins one waits as long, and an
    /// append's and a request's time more.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub life_lease: Duration,
    /// Bytes of the newest events kept for those who follow the log.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub tail_bytes_max: u64,
    /// Bytes read ahead of each partition that is read through.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub read_ahead_bytes: u64,
    /// Places at which one partition can be read through at the same time without starting over.
    pub scans_max: u16,
    /// Time after which a process that is not heard of loses its share of the partitions.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub session_timeout: Duration,
    /// Longest time that partitions given up are waited for before others get them.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub handover_timeout: Duration,
    /// Further properties of the client, such as `security.protocol`. Those that the log's promises rest on can't be set.
    pub properties: BTreeMap<String, String>,
}

/// How events are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// By LZ4.
    Lz4,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic: "cairn-events".into(),
            partitions: DEFAULT_PARTITIONS,
            replication_factor: 3,
            min_insync_replicas: 2,
            accept_weak_topic: false,
            record_bytes_max: 1 << 20,
            append_timeout: Duration::from_secs(20),
            linger: Duration::ZERO,
            compression: Compression::Lz4,
            queue_bytes_max: 32 << 20,
            request_timeout: Duration::from_secs(10),
            life_lease: Duration::from_secs(30),
            tail_bytes_max: 32 << 20,
            read_ahead_bytes: 1 << 20,
            scans_max: 2,
            session_timeout: Duration::from_secs(10),
            handover_timeout: Duration::from_secs(5),
            properties: BTreeMap::new(),
        }
    }
}

/// Begins of names of properties that decide where to connect and as whom; nothing else may be set from outside.
const FREE_PROPERTIES: [&str; 8] =
    ["security.", "sasl.", "ssl.", "client.", "socket.", "broker.address.", "enable.ssl.", "debug"];

impl KafkaConfig {
    /// Longest message of the topic: a batch of one record, with what the protocol puts around it.
    pub(crate) fn message_bytes_max(&self) -> u64 {
        self.record_bytes_max + (64 << 10)
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid = |what: String| Err(StoreError::new(StoreErrorKind::Invalid, format!("kafka log: {what}")));
        if self.partitions == 0 || self.replication_factor == 0 || self.min_insync_replicas == 0 || self.scans_max == 0
        {
            return invalid("partitions, replication_factor, min_insync_replicas, scans_max must not be 0".into());
        }
        if self.min_insync_replicas > self.replication_factor {
            return invalid("min_insync_replicas is over replication_factor".into());
        }
        if !(1 << 10..=64 << 20).contains(&self.record_bytes_max) {
            return invalid("record_bytes_max must be between 1 KiB and 64 MiB".into());
        }
        if self.queue_bytes_max < self.message_bytes_max() || self.queue_bytes_max > 1 << 31 {
            return invalid("queue_bytes_max must hold a record and be 2 GiB at most".into());
        }
        if self.append_timeout < Duration::from_secs(1) || self.request_timeout < Duration::from_millis(100) {
            return invalid("append_timeout is under 1 s or request_timeout under 100 ms".into());
        }
        if self.life_lease < Duration::from_secs(1) {
            return invalid("life_lease is under 1 s".into());
        }
        let fixed = self.properties.keys().find(|key| !FREE_PROPERTIES.iter().any(|free| key.starts_with(free)));
        fixed.map_or(Ok(()), |key| invalid(format!("property {key} can't be set")))
    }
}
