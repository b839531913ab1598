//! Appending: records of one append go into the partition's queue one after the other, and it has succeeded once the
//! brokers have reported each of them.

use crate::{
    client::{self, Context, failed},
    config::KafkaConfig,
    metrics, record,
    shared::Shared,
};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{Record, StoreError, StoreErrorKind};
use rdkafka::{
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Reports come in time or not at all; this is for those that the client itself keeps back.
const REPORT_GRACE: Duration = Duration::from_secs(2);

pub(crate) struct Appender {
    config: Arc<KafkaConfig>,
    shared: Arc<Shared>,
    producer: RwLock<FutureProducer<Context>>,
    /// Held while the records of one append are queued, so that they are adjacent.
    turns: Vec<Mutex<()>>,
    room: Semaphore,
    room_all: usize,
}

impl Appender {
    pub(crate) fn new(config: Arc<KafkaConfig>, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let producer = RwLock::new(producer(&config)?);
        let turns = (0..config.partitions).map(|_| Mutex::default()).collect();
        let room_all = usize::try_from(config.queue_bytes_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Ok(Self { config, shared, producer, turns, room: Semaphore::new(room_all), room_all })
    }

    pub(crate) async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        let (encoded, bytes) = self.encode(&records)?;
        let appended = self.append_encoded(partition, &records, encoded, bytes);
        let late = || StoreError::new(StoreErrorKind::Unavailable, "append: the brokers did not report in time");
        let outcome = tokio::time::timeout(self.config.append_timeout + REPORT_GRACE, appended).await;
        let outcome = outcome.unwrap_or_else(|_| Err(late()));
        match &outcome {
            Ok(_) => metrics::appended(records.len()),
            Err(error) => metrics::append_failed(reason(error.kind())),
        }
        outcome
    }

    fn encode(&self, records: &[Record]) -> Result<(Vec<OwnedHeaders>, usize), StoreError> {
        let mut all = 0;
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            let (headers, length) = record::encode(record);
            if length as u64 > self.config.record_bytes_max {
                let what = format!("event of {length} bytes is over {}", self.config.record_bytes_max);
                return Err(StoreError::new(StoreErrorKind::Invalid, what));
            }
            all += length;
            encoded.push(headers);
        }
        if all > self.room_all {
            let what = format!("append of {all} bytes is over {}", self.room_all);
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        Ok((encoded, all))
    }

    async fn append_encoded(
        &self,
        partition: Partition,
        records: &[Record],
        encoded: Vec<OwnedHeaders>,
        bytes: usize,
    ) -> Result<Offset, StoreError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let closed = || StoreError::new(StoreErrorKind::Unavailable, "kafka log is closed");
        let _room = self.room.acquire_many(permits).await.map_err(|_| closed())?;
        self.shared.check()?;
        metrics::queue_bytes((self.room_all - self.room.available_permits()) as u64);
        let before = self.shared.known_end(partition);
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = self.send(&producer, partition, records, encoded);
        let outcome = self.reports(sent, records.len()).await;
        let offsets = outcome.inspect_err(|_| self.renew_if_broken(&producer))?;
        if offsets.iter().any(|offset| *offset < before.0) {
            return Err(self
                .shared
                .break_off("an append came before what was there: the topic was truncated or made anew"));
        }
        let last = offsets.iter().copied().max().unwrap_or_default();
        self.shared.learn_end(partition, Offset(last + 1));
        Ok(Offset(offsets.first().copied().unwrap_or_default()))
    }

    /// Queues the records, as many as can be.
    fn send(
        &self,
        producer: &FutureProducer<Context>,
        partition: Partition,
        records: &[Record],
        encoded: Vec<OwnedHeaders>,
    ) -> Vec<Result<DeliveryFuture, KafkaError>> {
        let mut sent = Vec::with_capacity(records.len());
        let turn = self.turns.get(usize::from(partition.0));
        let _turn = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        for (record, headers) in records.iter().zip(encoded) {
            let message = FutureRecord::<(), [u8]>::to(&self.config.topic)
                .partition(i32::from(partition.0))
                .payload(&record.payload)
                .headers(headers);
            sent.push(producer.send_result(message).map_err(|(error, _)| error));
            if sent.last().is_some_and(Result::is_err) {
                // What comes after it must not be there without it.
                break;
            }
        }
        sent
    }

    async fn reports(
        &self,
        sent: Vec<Result<DeliveryFuture, KafkaError>>,
        records: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let mut offsets = Vec::with_capacity(sent.len());
        for sent in sent {
            let report = sent.map_err(|error| append_failed(&error, records))?.await;
            let gone = |_| StoreError::new(StoreErrorKind::Unavailable, "append: the client went away");
            let delivery = report.map_err(gone)?.map_err(|(error, _)| append_failed(&error, records))?;
            // A batch that was there already when it came again may be reported without its place.
            let nowhere =
                |_| StoreError::new(StoreErrorKind::Unavailable, "append: the brokers have it and don't say where");
            offsets.push(u64::try_from(delivery.offset).map_err(nowhere)?);
        }
        Ok(offsets)
    }

    /// A client that has given up for good is replaced.
    fn renew_if_broken(&self, broken: &FutureProducer<Context>) {
        let Some((code, reason)) = broken.client().fatal_error() else { return };
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if current.client().fatal_error().is_none() {
            return;
        }
        tracing::error!(%code, reason, "kafka client gave up and is replaced");
        match producer(&self.config) {
            Ok(new) => *current = new,
            Err(error) => tracing::error!(%error, "kafka client can't be replaced"),
        }
    }

    /// Waits for what is under way. Blocks.
    pub(crate) fn flush(&self) {
        self.room.close();
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = producer.flush(self.config.append_timeout) {
            tracing::warn!(%error, "not every append was reported before the log closed");
        }
    }
}

fn producer(config: &KafkaConfig) -> Result<FutureProducer<Context>, StoreError> {
    let producer = FutureProducer::from_config_and_context(&client::producer(config), Context);
    producer.map_err(|error| failed("kafka log", &error))
}

/// Whatever the client says, some of the records may be there, but for a single one that was too long.
fn append_failed(error: &KafkaError, records: usize) -> StoreError {
    let too_long = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
    let kind = if too_long && records == 1 { StoreErrorKind::Invalid } else { StoreErrorKind::Unavailable };
    StoreError::new(kind, format!("append: {error}"))
}

fn reason(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Unavailable => "unavailable",
        StoreErrorKind::Invalid => "invalid",
        StoreErrorKind::Corrupt => "log_changed",
        _ => "other",
    }
}
