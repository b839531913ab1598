//! What an operator can set: one documented TOML file, layered.
//!
//! Layers, later ones winning: defaults, the file, `conf.d/*.toml` beside it in name order, environment variables
//! `CAIRN__SECTION__KEY`, command-line flags. Unknown keys are refused in every layer.

mod ae;
mod cluster;
mod copies;
mod keys;
mod layers;
mod roles;
mod tiers;

pub use ae::{AeConfig, CommitmentReport, Destination, ServiceName, check_ae_title, titles};
pub use cluster::{
    CqlConfig, IndexKind, KafkaConfig, LogKind, ObjectsKind, PeersConfig, S3Config, StoresConfig, TlsConfig,
};
pub use copies::CopiesConfig;
pub use keys::KeysConfig;
pub use layers::{ConfigError, Layers, Loaded};
pub use tiers::{ColdKind, TiersConfig};

use cairn_dicomweb::DicomWebConfig;
use cairn_index::IndexConfig;
use cairn_ingest::IngestConfig;
use cairn_lifecycle::LifecycleConfig;
use cairn_process::units;
use cairn_replication::ReplicationConfig;
use cairn_retrieval::RetrievalConfig;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// The whole configuration of a process, whichever roles it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which site and tenant this is.
    pub site: SiteConfig,
    /// Where data is kept.
    pub data: DataConfig,
    /// Which adapter is under each port.
    pub stores: StoresConfig,
    /// The event log in Kafka, where `stores.log` says so.
    pub kafka: KafkaConfig,
    /// The object store in an S3, where `stores.objects` says so.
    pub s3: S3Config,
    /// A second object store, for what is seldom wanted.
    pub tiers: TiersConfig,
    /// A second object store, for copies of what is stored.
    pub copies: CopiesConfig,
    /// The index in Cassandra or ScyllaDB, where `stores.index` says so.
    pub cql: CqlConfig,
    /// Where services are that this process does not have.
    pub peers: PeersConfig,
    /// Mutual TLS between processes. Unset: plaintext, on loopback only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// The DIMSE listener.
    pub dicom: DicomConfig,
    /// The HTTP listener: DICOMweb, health, metrics.
    pub http: HttpConfig,
    /// The gRPC listener.
    pub grpc: GrpcConfig,
    /// Application Entities by AE title: who may call, what is assumed of them, where C-MOVE sends.
    pub ae: BTreeMap<String, AeConfig>,
    /// The ingest role.
    pub ingest: IngestConfig,
    /// The index role.
    pub index: IndexConfig,
    /// The retrieval role.
    pub retrieval: RetrievalConfig,
    /// The lifecycle role.
    pub lifecycle: LifecycleConfig,
    /// The replication role: which other sites there are, and how they are kept in step.
    pub replication: ReplicationConfig,
    /// Keys under which patient attributes in events are sealed.
    pub keys: KeysConfig,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
}

/// Which site and tenant this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// Name of the site: written into every event, so it can't be changed once data is there.
    pub name: String,
    /// Tenant that owns what arrives.
    pub tenant: String,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self { name: "main".into(), tenant: cairn_service_api::DEFAULT_TENANT.into() }
    }
}

/// Where data is kept, and how much room the stores may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Directory of the embedded stores: `objects`, `log`, `index`, `keys`, `quarantine`; and of the notes of replication and lifecycle.
    pub directory: PathBuf,
    /// Partitions of the log; fixed once data is there.
    pub partitions: u16,
    /// Size of one volume file of the object store.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub volume_bytes: u64,
    /// Room left free on the disk: stores are refused before it is touched.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub reserve_bytes: u64,
    /// Room for objects that is filled with zeros ahead of them, at least; a larger archive keeps more. Stores are faster
    /// where blocks were written before.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub prewritten_bytes: u64,
    /// Size of the quarantine.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub quarantine_bytes: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            directory: "data".into(),
            partitions: cairn_archive::position::DEFAULT_PARTITIONS,
            volume_bytes: 1 << 30,
            reserve_bytes: 512 << 20,
            prewritten_bytes: 256 << 20,
            quarantine_bytes: 1 << 30,
        }
    }
}

/// The DIMSE listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DicomConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Our AE title.
    pub ae_title: String,
    /// Further AE titles that are answered to.
    pub other_ae_titles: Vec<String>,
    /// Whether calling AE titles without an `[ae.TITLE]` section are admitted. Unset: only while every listener is on
    /// loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_unknown_callers: Option<bool>,
    /// Whether private SOP Classes, and those unknown to this edition, are taken for storage.
    pub accept_unknown_storage_classes: bool,
    /// Whether the retired Patient/Study Only information model is offered.
    pub patient_study_only: bool,
    /// Bounds of connections, associations and messages.
    pub limits: cairn_dimse::Limits,
}

impl Default for DicomConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 11112)),
            ae_title: "CAIRN".into(),
            other_ae_titles: Vec::new(),
            accept_unknown_callers: None,
            accept_unknown_storage_classes: true,
            patient_study_only: false,
            limits: cairn_dimse::Limits::default(),
        }
    }
}

/// The HTTP listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether anyone who reaches the listener may use it; needed for a listener beyond loopback.
    pub accept_any_client: bool,
    /// DICOMweb under `/dicom-web`.
    pub dicomweb: DicomWebConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            accept_any_client: false,
            dicomweb: DicomWebConfig::default(),
        }
    }
}

/// The gRPC listener, and connections to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Address and port; port 0 takes a free one. Beyond loopback it needs `[tls]`.
    pub listen: SocketAddr,
    /// Speak plaintext beyond loopback too: whoever reaches the network then reads and changes everything.
    pub plaintext_beyond_loopback: bool,
    /// Longest message in either direction.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub message_bytes_max: u64,
    /// Bytes of one stream that may be on their way, unread.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub stream_window_bytes: u64,
    /// Bytes of all streams of a connection that may be.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub connection_window_bytes: u64,
    /// Calls under way at once on one connection; more wait.
    pub streams_max: u32,
    /// Quiet time after which a connection is asked for a sign of life.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub keepalive_interval: Duration,
    /// Time to give it; then the calls on that connection fail.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub keepalive_timeout: Duration,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            plaintext_beyond_loopback: false,
            message_bytes_max: 32 << 20,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
            streams_max: 1_024,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// Logs, traces and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged, as `level` or `target=level` joined by commas.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// OTLP endpoint that traces go to over gRPC, such as `http://127.0.0.1:4317`. Unset: no traces leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".into(), log_format: LogFormat::Text, otlp_endpoint: None }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Stopping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Longest time that associations and requests under way get to end.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(20) }
    }
}

#[cfg(test)]
mod tests;
