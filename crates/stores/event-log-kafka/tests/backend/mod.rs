//! A topic of its own for each trial, on the brokers that `tools/engines` started.

pub(crate) mod own;

use async_trait::async_trait;
use cairn_archive::{Incarnation, SiteId};
use cairn_conformance::event_log::{EventLogBackend, Faults};
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog, create_topic};
use cairn_store_api::{EventLog, StoreError};
use std::{path::Path, sync::Arc};

/// The brokers' addresses.
pub(crate) fn brokers() -> String {
    if let Ok(brokers) = std::env::var("CAIRN_TEST_KAFKA") {
        return brokers;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/engines/endpoints.env");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("CAIRN_TEST_KAFKA="));
    line.expect("no Kafka to test with: run tools/engines start").trim_matches('"').to_owned()
}

/// One topic on one broker or several.
pub(crate) fn config(brokers: &str, partitions: u16) -> KafkaConfig {
    let copies = brokers.split(',').count().min(3) as u16;
    KafkaConfig {
        topic: format!("test-{}", uuid::Uuid::now_v7()),
        brokers: brokers.to_owned(),
        partitions,
        replication_factor: copies,
        min_insync_replicas: if copies > 1 { 2 } else { 1 },
        record_bytes_max: 128 << 10,
        // Small, so that trials go beyond what is kept in memory.
        tail_bytes_max: 64 << 10,
        read_ahead_bytes: 64 << 10,
        ..KafkaConfig::default()
    }
}

/// Who begins a new life waits for all three.
pub(crate) fn quick_to_renew(config: KafkaConfig) -> KafkaConfig {
    let (short, lease) = (std::time::Duration::from_secs(5), std::time::Duration::from_secs(3));
    KafkaConfig { life_lease: lease, append_timeout: short, request_timeout: short, ..config }
}

pub(crate) struct Topic {
    config: KafkaConfig,
}

impl Topic {
    pub(crate) fn new() -> Self {
        Self { config: config(&brokers(), 0) }
    }
}

#[async_trait]
impl EventLogBackend for Topic {
    async fn open(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partitions: u16,
    ) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = KafkaConfig { partitions, ..self.config.clone() };
        create_topic(&config, site, incarnation).await?;
        Ok(Arc::new(KafkaEventLog::open(config, site.clone()).await?))
    }

    async fn open_to_renew(&self, site: &SiteId, partitions: u16) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = quick_to_renew(KafkaConfig { partitions, ..self.config.clone() });
        Ok(Arc::new(KafkaEventLog::open_alone(config, site.clone()).await?))
    }

    fn record_bytes_max(&self) -> usize {
        self.config.record_bytes_max as usize
    }

    /// These brokers serve all trials at once, so none is harmed.
    fn faults(&self) -> Faults {
        Faults::default()
    }

    async fn crash(&self) {
        unreachable!("not declared");
    }

    async fn fill(&self, _full: bool) {
        unreachable!("not declared");
    }

    async fn damage(&self, _payload: &[u8]) {
        unreachable!("not declared");
    }
}
