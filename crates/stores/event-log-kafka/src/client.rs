//! How clients of the brokers are made.

use crate::{
    config::{Compression, KafkaConfig},
    metrics,
};
use cairn_store_api::{StoreError, StoreErrorKind};
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::time::Duration;

/// What clients say goes to our log lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, "kafka client: {message}");
            }
            _ => tracing::debug!(facility, "kafka client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        metrics::client_error();
        tracing::debug!(%error, "kafka client: {reason}");
    }
}

impl ConsumerContext for Context {}

fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    config.properties.iter().for_each(|(key, value)| _ = client.set(key, value));
    client
        .set("bootstrap.servers", &config.brokers)
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.ms", "50")
        // An outage ends with the broker's return, not seconds later.
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "60000");
    client
}

/// Settings of the one that appends.
pub(crate) fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut client = base(config);
    let compression = match config.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
    };
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", config.append_timeout.as_millis().to_string())
        .set("linger.ms", config.linger.as_millis().to_string())
        .set("compression.type", compression)
        .set("message.max.bytes", config.message_bytes_max().to_string())
        .set("batch.size", "1000000")
        // The queue is bounded before it; this is for what abandoned calls leave in it.
        .set("queue.buffering.max.kbytes", (config.queue_bytes_max / 512).to_string())
        .set("queue.buffering.max.messages", "1000000");
    client
}

/// Settings of one that reads. `wait` is how long a broker may keep an answer back while there is nothing new.
pub(crate) fn consumer(config: &KafkaConfig, group: &str, wait: Duration) -> ClientConfig {
    let mut client = base(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", wait.as_millis().to_string())
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.message.max.bytes", config.read_ahead_bytes.clamp(64 << 10, 64 << 20).to_string())
        .set("fetch.max.bytes", config.message_bytes_max().max(16 << 20).to_string())
        .set("receive.message.max.bytes", (config.message_bytes_max().max(16 << 20) * 2).to_string())
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", (config.read_ahead_bytes / 1024).clamp(64, 65_536).to_string());
    client
}

/// What a caller does with a failure of the client. Its texts name topics and brokers, never what is in a record.
pub(crate) fn failed(what: &str, error: &KafkaError) -> StoreError {
    use RDKafkaErrorCode::{
        AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, OffsetOutOfRange, TopicAlreadyExists,
        UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    let kind = match error.rdkafka_error_code() {
        Some(BadMessage | InvalidMessage | BadCompression) => StoreErrorKind::Corrupt,
        Some(AutoOffsetReset | OffsetOutOfRange) => StoreErrorKind::Corrupt,
        Some(UnknownTopic | UnknownTopicOrPartition | UnknownPartition) => StoreErrorKind::NotFound,
        Some(TopicAlreadyExists) => StoreErrorKind::Conflict,
        _ if matches!(error, KafkaError::ClientConfig(..)) => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, format!("{what}: {error}"))
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::new(StoreErrorKind::Internal, format!("kafka log: {error}"))),
    }
}
