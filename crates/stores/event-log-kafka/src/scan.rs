//! Reading through the log from anywhere: places are kept where a reader left off, so that it goes on without starting over.

use crate::{
    client::{self, Context, failed},
    config::KafkaConfig,
    record,
    topic::Life,
};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{LogRecord, StoreError, StoreErrorKind};
use futures_util::FutureExt;
use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{Consumer, StreamConsumer, stream_consumer::StreamPartitionQueue},
    error::KafkaError,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, MutexGuard};

/// How long a broker keeps an answer back: a reader that begins elsewhere waits for it.
const WAIT: Duration = Duration::from_millis(5);
/// A place that nobody reads from is given up after this time, with what was read ahead.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) struct Scans {
    config: Arc<KafkaConfig>,
    life: Life,
    clients: Vec<Arc<StreamConsumer<Context>>>,
    /// By partition, one for each client.
    places: Vec<Vec<Mutex<Place>>>,
}

struct Place {
    queue: Option<StreamPartitionQueue<Context>>,
    next: u64,
    used: Instant,
}

impl Scans {
    pub(crate) fn new(config: Arc<KafkaConfig>, life: Life) -> Result<Self, StoreError> {
        let client = || {
            let client = client::consumer(&config, "cairn-scan", WAIT);
            let client = StreamConsumer::from_config_and_context(&client, Context);
            client.map(Arc::new).map_err(|error| failed("kafka log", &error))
        };
        let clients = (0..config.scans_max).map(|_| client()).collect::<Result<Vec<_>, _>>()?;
        let place = || Mutex::new(Place { queue: None, next: 0, used: Instant::now() });
        let places = (0..config.partitions).map(|_| clients.iter().map(|_| place()).collect()).collect();
        Ok(Self { config, life, clients, places })
    }

    /// Serves the clients and gives up places nobody uses, until dropped.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            let deadline = tokio::time::Instant::now() + IDLE / 2;
            for client in &self.clients {
                // What is not about one partition: the client logs it, and readers have deadlines.
                while let Ok(event) = tokio::time::timeout_at(deadline, client.recv()).await {
                    if let Err(error) = event {
                        tracing::debug!(%error, "kafka log scan");
                    }
                }
            }
            tokio::time::sleep_until(deadline).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        for (partition, places) in (0..).map(Partition).zip(&self.places) {
            for (client, place) in self.clients.iter().zip(places) {
                if let Ok(mut place) = place.try_lock()
                    && place.queue.is_some()
                    && place.used.elapsed() > IDLE
                {
                    self.leave(client, partition, &mut place);
                }
            }
        }
    }

    /// Reads events that are there from `from` on: one at least.
    pub(crate) async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let (client, mut place) = self.choose(partition, from).await?;
        let deadline = tokio::time::Instant::now() + self.config.request_timeout;
        let mut attempts = 0;
        loop {
            if place.queue.is_none() || place.next != from.0 {
                self.go_to(client, partition, from, &mut place)?;
            }
            let read = tokio::time::timeout_at(deadline, place.read(&self.life, records_max, bytes_max)).await;
            let late = || StoreError::new(StoreErrorKind::Unavailable, "read log: the brokers did not answer in time");
            match read.unwrap_or_else(|_| Err(Stopped::Failed(late()))) {
                Ok(records) => {
                    // It was a look at one event: nobody reads on from here, and much is read ahead.
                    if records_max == 1 {
                        self.leave(client, partition, &mut place);
                    }
                    return Ok(records);
                }
                // Once it may be what was fetched before; twice it is how the log is.
                Err(Stopped::Elsewhere(_)) if attempts == 0 => attempts += 1,
                Err(stopped) => {
                    self.leave(client, partition, &mut place);
                    return Err(stopped.into());
                }
            }
            self.leave(client, partition, &mut place);
        }
    }

    /// A place that stands at `from`, or one that can be moved.
    async fn choose(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<(&Arc<StreamConsumer<Context>>, MutexGuard<'_, Place>), StoreError> {
        let absent = || StoreError::new(StoreErrorKind::Invalid, format!("event log has no partition {}", partition.0));
        let places = self.places.get(usize::from(partition.0)).ok_or_else(absent)?;
        let free = self.clients.iter().zip(places).filter_map(|(client, place)| Some((client, place.try_lock().ok()?)));
        let best = free.max_by_key(|(_, place)| {
            let stands = place.queue.is_some() && place.next == from.0;
            (stands, place.queue.is_none(), place.used.elapsed())
        });
        match (best, self.clients.first(), places.first()) {
            (Some(best), ..) => Ok(best),
            (None, Some(client), Some(place)) => Ok((client, place.lock().await)),
            _ => Err(absent()),
        }
    }

    fn go_to(
        &self,
        client: &Arc<StreamConsumer<Context>>,
        partition: Partition,
        from: Offset,
        place: &mut Place,
    ) -> Result<(), StoreError> {
        self.leave(client, partition, place);
        let queue = client.split_partition_queue(&self.config.topic, i32::from(partition.0));
        let absent = || StoreError::new(StoreErrorKind::Unavailable, "read log: partition is not known");
        let queue = queue.ok_or_else(absent)?;
        let at = self.list(partition, from.0)?;
        client.incremental_assign(&at).map_err(|error| failed("read log", &error))?;
        (place.queue, place.next) = (Some(queue), from.0);
        Ok(())
    }

    fn leave(&self, client: &Arc<StreamConsumer<Context>>, partition: Partition, place: &mut Place) {
        let Some(queue) = place.queue.take() else { return };
        let left = self
            .list(partition, 0)
            .and_then(|list| client.incremental_unassign(&list).map_err(|error| failed("read log", &error)));
        match left {
            // What the client has read ahead is not left to it: several MiB of each partition.
            Ok(()) => while queue.recv().now_or_never().is_some() {},
            // It may go on reading: there would be no end to take.
            Err(error) => tracing::warn!(%error, "a partition can't be let go"),
        }
    }

    fn list(&self, partition: Partition, offset: u64) -> Result<TopicPartitionList, StoreError> {
        let mut list = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let added = list.add_partition_offset(&self.config.topic, i32::from(partition.0), offset);
        added.map_err(|error| failed("read log", &error))?;
        Ok(list)
    }
}

/// Why a place gives nothing.
enum Stopped {
    /// The next event is not the one that should come.
    Elsewhere(String),
    Failed(StoreError),
}

impl From<Stopped> for StoreError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Elsewhere(what) => Self::new(StoreErrorKind::Corrupt, what),
            Stopped::Failed(error) => error,
        }
    }
}

impl Place {
    async fn read(&mut self, life: &Life, records_max: usize, bytes_max: usize) -> Result<Vec<LogRecord>, Stopped> {
        self.used = Instant::now();
        let Some(queue) = &self.queue else {
            let what = StoreError::new(StoreErrorKind::Internal, "read log: no place");
            return Err(Stopped::Failed(what));
        };
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        while records.len() < records_max.max(1) && (records.is_empty() || bytes < bytes_max) {
            let message = if records.is_empty() { Some(queue.recv().await) } else { queue.recv().now_or_never() };
            let message = match message {
                None => break,
                Some(Ok(message)) => message,
                // The one after next begins anew and says it.
                Some(Err(_)) if !records.is_empty() => {
                    self.next = u64::MAX;
                    return Ok(records);
                }
                Some(Err(error)) if passes(&error) => continue,
                Some(Err(error)) => return Err(Stopped::Failed(failed("read log", &error))),
            };
            if message.offset() != i64::try_from(self.next).unwrap_or(i64::MAX) {
                let what = format!("kafka log: offset {} is missing before {}", self.next, message.offset());
                if records.is_empty() {
                    return Err(Stopped::Elsewhere(what));
                }
                self.next = u64::MAX;
                return Ok(records);
            }
            let record = record::decode(&message, life);
            bytes += record.record.payload.len();
            records.push(record);
            self.next += 1;
        }
        Ok(records)
    }
}

/// Whether the client gets over it by itself.
fn passes(error: &KafkaError) -> bool {
    failed("", error).kind() == StoreErrorKind::Unavailable
}
