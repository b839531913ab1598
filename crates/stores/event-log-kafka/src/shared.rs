//! What the parts of an open log know together.

use cairn_archive::{Offset, Partition};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub(crate) struct Shared {
    ends: Vec<watch::Sender<Offset>>,
    /// By partition, the first offset that the brokers still have, as far as it is known.
    begins: Vec<AtomicU64>,
    /// By partition, the first offset found damaged; `u64::MAX` for none.
    damaged: Vec<AtomicU64>,
    closed: AtomicBool,
    broken: OnceLock<String>,
    /// Milliseconds from `opened` to the last moment at which the log was known to have no new life.
    alive: AtomicU64,
    opened: Instant,
    lease: Duration,
}

impl Shared {
    pub(crate) fn new(partitions: u16, lease: Duration) -> Self {
        let ends = (0..partitions).map(|_| watch::Sender::new(Offset(0))).collect();
        let begins = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        let damaged = (0..partitions).map(|_| AtomicU64::new(u64::MAX)).collect();
        let (closed, alive) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { ends, begins, damaged, closed, broken: OnceLock::new(), alive, opened: Instant::now(), lease }
    }

    /// At that moment the log had no new life.
    pub(crate) fn is_alive_at(&self, asked: Instant) {
        let since = asked.saturating_duration_since(self.opened).as_millis();
        self.alive.fetch_max(u64::try_from(since).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// The end as far as it is known here.
    pub(crate) fn known_end(&self, partition: Partition) -> Offset {
        self.ends.get(usize::from(partition.0)).map(|end| *end.borrow()).unwrap_or_default()
    }

    pub(crate) fn learn_end(&self, partition: Partition, end: Offset) {
        if let Some(known) = self.ends.get(usize::from(partition.0)) {
            known.send_if_modified(|known| end > *known && std::mem::replace(known, end) != end);
        }
    }

    /// The beginning as far as it is known here.
    pub(crate) fn known_begin(&self, partition: Partition) -> Offset {
        Offset(self.begins.get(usize::from(partition.0)).map_or(0, |begin| begin.load(Ordering::Acquire)))
    }

    pub(crate) fn learn_begin(&self, partition: Partition, begin: Offset) {
        if let Some(known) = self.begins.get(usize::from(partition.0)) {
            known.fetch_max(begin.0, Ordering::AcqRel);
        }
    }

    /// The first offset found damaged, if it stands before `from`.
    pub(crate) fn damage_before(&self, partition: Partition, from: Offset) -> Option<Offset> {
        let damaged = self.damaged.get(usize::from(partition.0))?.load(Ordering::Acquire);
        (damaged < from.0).then_some(Offset(damaged))
    }

    pub(crate) fn found_damage(&self, partition: Partition, at: Offset) {
        if let Some(damaged) = self.damaged.get(usize::from(partition.0)) {
            damaged.fetch_min(at.0, Ordering::AcqRel);
        }
    }

    /// Another replica gives what one had damaged.
    pub(crate) fn damage_is_gone(&self, partition: Partition) {
        if let Some(damaged) = self.damaged.get(usize::from(partition.0)) {
            damaged.store(u64::MAX, Ordering::Release);
        }
    }

    /// Changes when more is known.
    pub(crate) fn watch(&self, partition: Partition) -> Result<watch::Receiver<Offset>, StoreError> {
        let end = self.ends.get(usize::from(partition.0)).map(watch::Sender::subscribe);
        end.ok_or_else(|| Self::absent(partition))
    }

    /// Whether anybody waits for the partition's end to move.
    pub(crate) fn is_watched(&self, partition: Partition) -> bool {
        self.ends.get(usize::from(partition.0)).is_some_and(|end| end.receiver_count() > 0)
    }

    pub(crate) fn check_partition(&self, partition: Partition) -> Result<(), StoreError> {
        if usize::from(partition.0) < self.ends.len() { Ok(()) } else { Err(Self::absent(partition)) }
    }

    fn absent(partition: Partition) -> StoreError {
        StoreError::new(StoreErrorKind::Invalid, format!("event log has no partition {}", partition.0))
    }

    /// Refuses everything from now on: the topic is not the one that was opened.
    pub(crate) fn break_off(&self, why: &str) -> StoreError {
        tracing::error!("kafka log takes and gives nothing until it is opened again: {why}");
        let _ = self.broken.set(why.to_owned());
        self.wake();
        StoreError::new(StoreErrorKind::Corrupt, format!("kafka log: {why}"))
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if let Some(why) = self.broken.get() {
            return Err(StoreError::new(StoreErrorKind::Corrupt, format!("kafka log: {why}")));
        }
        if self.is_closed() {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "kafka log is closed"));
        }
        let alive = Duration::from_millis(self.alive.load(Ordering::Acquire));
        if self.opened.elapsed().saturating_sub(alive) > self.lease {
            let what = "kafka log: it is not known whether a new life of it is begun";
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.ends.iter().for_each(|end| end.send_modify(|_| {}));
    }
}
