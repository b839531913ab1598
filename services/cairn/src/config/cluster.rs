//! What a process needs to be one of several: which stores it shares, where the others are, who they are.

use super::ConfigError;
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Which adapter is under each port. What several processes share must be reached over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoresConfig {
    /// Where events are: `embedded` in `data.directory`, for one process; `kafka`, as `[kafka]` says.
    pub log: LogKind,
    /// Where objects are: `volumes` in `data.directory`, for one process; `s3`, as `[s3]` says.
    pub objects: ObjectsKind,
    /// Where the index's rows are: `embedded` in `data.directory`, for one process; `cql`, as `[cql]` says.
    pub index: IndexKind,
    /// First pause before a store that can't be reached is tried again while a process starts; it doubles.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub open_pause: Duration,
    /// Up to this.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub open_pause_max: Duration,
}

impl Default for StoresConfig {
    fn default() -> Self {
        Self {
            log: LogKind::default(),
            objects: ObjectsKind::default(),
            index: IndexKind::default(),
            open_pause: Duration::from_millis(250),
            open_pause_max: Duration::from_secs(5),
        }
    }
}

impl StoresConfig {
    /// Whether this executable was built with what is chosen.
    ///
    /// # Errors
    /// The key of a store that it was built without.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (chosen, built, key, feature) in [
            (self.log == LogKind::Kafka, cfg!(feature = "kafka"), "stores.log", "kafka"),
            (self.objects == ObjectsKind::S3, cfg!(feature = "s3"), "stores.objects", "s3"),
            (self.index == IndexKind::Cql, cfg!(feature = "cql"), "stores.index", "cql"),
        ] {
            if chosen && !built {
                let message = format!("this executable was built without {feature:?} (cargo build --features cluster)");
                return Err(ConfigError::new(key, message));
            }
        }
        Ok(())
    }
}

/// A section of a store that this executable was built without.
#[cfg(not(all(feature = "kafka", feature = "s3", feature = "cql")))]
pub type NotBuilt = std::collections::BTreeMap<String, serde_json::Value>;
#[cfg(feature = "kafka")]
pub use cairn_event_log_kafka::KafkaConfig;
#[cfg(not(feature = "kafka"))]
pub type KafkaConfig = NotBuilt;
#[cfg(feature = "s3")]
pub use cairn_object_store_s3::S3Config;
#[cfg(not(feature = "s3"))]
pub type S3Config = NotBuilt;
#[cfg(feature = "cql")]
pub use cairn_index_store_cql::CqlIndexConfig as CqlConfig;
#[cfg(not(feature = "cql"))]
pub type CqlConfig = NotBuilt;

/// Adapters of the event log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Segment files in the data directory.
    #[default]
    Embedded,
    /// A topic of Apache Kafka.
    Kafka,
}

/// Adapters of the object store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectsKind {
    /// Volume files in the data directory.
    #[default]
    Volumes,
    /// A bucket of an S3.
    S3,
}

/// Adapters of the index store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    /// Ordered rows in the data directory.
    #[default]
    Embedded,
    /// A keyspace of Cassandra or ScyllaDB.
    Cql,
}

/// Where the services are that this process does not have itself, and the bounds of calling them. Each may be several
/// processes: calls go round them, and what failed is asked of another where that is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeersConfig {
    /// gRPC addresses of ingest processes, `HOST:PORT` each.
    pub ingest: Vec<String>,
    /// gRPC addresses of index processes.
    pub index: Vec<String>,
    /// gRPC addresses of retrieval processes.
    pub retrieval: Vec<String>,
    /// gRPC address of the lifecycle process: retrieval tells it of objects that it could not read.
    pub lifecycle: Vec<String>,
    /// gRPC addresses of the replication process: ingest asks it whether other sites hold what was stored.
    pub replication: Vec<String>,
    /// For a connection to be made.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// For an answer to begin, processes that are asked instead included.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub answer_timeout: Duration,
    /// A process that failed is passed over for this long; it doubles with each further failure.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub pause: Duration,
    /// Up to this.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub pause_max: Duration,
    /// For an answer about readiness; one that takes longer counts as not ready.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub health_timeout: Duration,
    /// Time between two looks at our own readiness for gRPC's health service.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub health_interval: Duration,
    /// Time between two questions to replication what is decided of sites.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub sites_interval: Duration,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            ingest: Vec::new(),
            index: Vec::new(),
            retrieval: Vec::new(),
            lifecycle: Vec::new(),
            replication: Vec::new(),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(30),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            health_timeout: Duration::from_secs(2),
            health_interval: Duration::from_secs(1),
            sites_interval: Duration::from_millis(500),
        }
    }
}

/// Mutual TLS between processes: gRPC listeners take only callers whose certificate chains to the authority, and callers
/// only listeners whose certificate does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate of this process, and those between it and the authority.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the certificates of the authority.
    pub authority: PathBuf,
    /// Name that the certificates of other processes' listeners must have; unset: the host that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}
