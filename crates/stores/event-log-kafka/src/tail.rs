//! Following the log: one thread fetches what is new in the partitions that somebody waits for, keeps the newest events in
//! memory and tells how far they go.

use crate::{
    client::{Context, failed},
    config::KafkaConfig,
    record,
    shared::Shared,
    topic::Life,
};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{LogRecord, StoreError};
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Longest time a broker keeps an answer back while there is nothing new: how soon a partition newly followed is seen.
pub(crate) const WAIT: Duration = Duration::from_millis(100);
/// A partition that nobody waited for this long is not fetched any more.
const IDLE: Duration = Duration::from_secs(5);
/// How soon those who wait notice that following began anew.
pub(crate) const RENEWED: Duration = Duration::from_millis(500);
/// Failures that follow one another sooner are told once: the client repeats itself while brokers are away.
const CALM: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// What an event takes in memory beside its payload, about.
const ENTRY_BYTES: usize = 768;

pub(crate) struct Tail {
    config: Arc<KafkaConfig>,
    life: Life,
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    partitions: HashMap<Partition, Recent>,
    /// Partitions in the order in which their events came, for forgetting the oldest.
    order: VecDeque<Partition>,
    bytes: usize,
}

struct Recent {
    events: VecDeque<LogRecord>,
    next: u64,
    wanted: Instant,
}

impl Tail {
    /// Starts the thread, which ends when the log is closed.
    pub(crate) fn start(
        config: Arc<KafkaConfig>,
        life: Life,
        shared: Arc<Shared>,
        consumer: Arc<BaseConsumer<Context>>,
    ) -> Result<Arc<Self>, StoreError> {
        let tail = Arc::new(Self { config, life, shared, consumer, followed: Mutex::default() });
        let running = tail.clone();
        let thread = std::thread::Builder::new().name("cairn-log-tail".into()).spawn(move || running.run());
        thread.map_err(|error| StoreError::io("start kafka log", &error))?;
        Ok(tail)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the partition is followed; if so it stays so for a while.
    pub(crate) fn is_following(&self, partition: Partition) -> bool {
        let mut followed = self.followed();
        let recent = followed.partitions.get_mut(&partition);
        recent.map(|recent| recent.wanted = Instant::now()).is_some()
    }

    /// Follows the partition from `end` on, if it is not followed yet.
    pub(crate) fn follow(&self, partition: Partition, end: Offset) -> Result<(), StoreError> {
        let mut followed = self.followed();
        if followed.partitions.contains_key(&partition) {
            return Ok(());
        }
        let place = self.place(partition, end.0)?;
        self.consumer.incremental_assign(&place).map_err(|error| failed("follow log", &error))?;
        let recent = Recent { events: VecDeque::new(), next: end.0, wanted: Instant::now() };
        followed.partitions.insert(partition, recent);
        Ok(())
    }

    fn place(&self, partition: Partition, offset: u64) -> Result<TopicPartitionList, StoreError> {
        let mut place = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let added = place.add_partition_offset(&self.config.topic, i32::from(partition.0), offset);
        added.map_err(|error| failed("follow log", &error))?;
        Ok(place)
    }

    /// Events from `from` on, if they are in memory.
    pub(crate) fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<LogRecord>> {
        let followed = self.followed();
        let recent = followed.partitions.get(&partition)?;
        let first = recent.events.front()?.offset;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let mut bytes = 0;
        let mut records = Vec::new();
        for event in recent.events.iter().skip(skip).take(records_max.max(1)) {
            records.push(event.clone());
            bytes += event.record.payload.len();
            if bytes >= bytes_max {
                break;
            }
        }
        (!records.is_empty()).then_some(records)
    }

    fn run(&self) {
        let mut swept = Instant::now();
        let mut failed: Option<Instant> = None;
        while !self.shared.is_closed() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => {
                    // Which partition it is about is not known: those who wait begin anew, and reading says what it is.
                    match failed.replace(Instant::now()) {
                        Some(before) if before.elapsed() < CALM => {
                            tracing::debug!(%error, "following the log fails again")
                        }
                        _ => tracing::warn!(%error, "following the log failed and begins anew"),
                    }
                    self.unfollow(|_, _| true);
                }
                None => {}
            }
            if swept.elapsed() > Duration::from_secs(1) {
                swept = Instant::now();
                let idle =
                    |partition, recent: &Recent| recent.wanted.elapsed() > IDLE && !self.shared.is_watched(partition);
                self.unfollow(idle);
            }
        }
        self.unfollow(|_, _| true);
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        let Ok(partition) = u16::try_from(message.partition()).map(Partition) else { return };
        let event = record::decode(message, &self.life);
        let offset = u64::try_from(message.offset()).unwrap_or_default();
        let mut followed = self.followed();
        let Followed { partitions, order, bytes } = &mut *followed;
        let Some(recent) = partitions.get_mut(&partition).filter(|recent| recent.next <= offset) else { return };
        // What was skipped is not hidden: a read of it goes to the brokers, and fails there.
        if recent.next != offset {
            let forgotten = recent.events.drain(..).map(|event| size(&event)).sum::<usize>();
            *bytes -= forgotten;
            order.retain(|of| *of != partition);
        }
        recent.next = offset + 1;
        *bytes += size(&event);
        order.push_back(partition);
        recent.events.push_back(event);
        followed.forget(usize::try_from(self.config.tail_bytes_max).unwrap_or(usize::MAX));
        drop(followed);
        self.shared.learn_end(partition, Offset(offset + 1));
    }

    fn unfollow(&self, which: impl Fn(Partition, &Recent) -> bool) {
        let mut followed = self.followed();
        let gone: Vec<Partition> = followed
            .partitions
            .iter()
            .filter(|(partition, recent)| which(**partition, recent))
            .map(|(p, _)| *p)
            .collect();
        for partition in gone {
            let place = self.place(partition, 0);
            let undone = place.and_then(|place| {
                self.consumer.incremental_unassign(&place).map_err(|error| failed("follow log", &error))
            });
            if let Err(error) = undone {
                tracing::warn!(%error, "a partition can't be let go");
            }
            if let Some(recent) = followed.partitions.remove(&partition) {
                followed.bytes -= recent.events.iter().map(size).sum::<usize>();
                followed.order.retain(|of| *of != partition);
            }
        }
    }
}

impl Followed {
    fn forget(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(oldest) = self.order.pop_front() else { return };
            let event = self.partitions.get_mut(&oldest).and_then(|recent| recent.events.pop_front());
            self.bytes -= event.as_ref().map_or(0, size);
        }
    }
}

fn size(event: &LogRecord) -> usize {
    ENTRY_BYTES + event.record.payload.len() + event.record.envelope.object_keys.len() * 16
}
