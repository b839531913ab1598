//! What the port's trials can't show: topics that are not what they should be, brokers that go away, shares of partitions.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the conformance trials, which use more of it")]
mod backend;

mod faults {
    mod brokers;
    mod sharing;
    mod topics;

    use cairn_archive::{Incarnation, Partition, SiteId};
    use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog, create_topic};
    use std::sync::Arc;

    const P0: Partition = Partition(0);

    fn site() -> SiteId {
        "main".parse().unwrap()
    }

    async fn open(config: &KafkaConfig) -> Arc<KafkaEventLog> {
        create_topic(config, &site(), Incarnation(1)).await.unwrap();
        Arc::new(KafkaEventLog::open(config.clone(), site()).await.unwrap())
    }

    /// A topic on the brokers that all tests share.
    fn shared(partitions: u16) -> KafkaConfig {
        crate::backend::config(&crate::backend::brokers(), partitions)
    }
}
