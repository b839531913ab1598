//! What the log has is put into sealed ranges, too, so that it can be read should the log lose it.

use crate::{
    append::Appender,
    config::SealingConfig,
    metrics,
    notes::{Change, Kind, Notes},
};
use bytes::Bytes;
use cairn_archive::{
    Incarnation, ObjectKey, Offset, Partition, authority,
    events::{Event, Object, RangeSealed},
};
use cairn_sealed_log::{SealedRange, SealedRanges};
use cairn_service_api::{Error, notary::SealedPartition};
use cairn_store_api::{EventLog, LogRecord, ObjectStore};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};

/// Events and bytes that are read at a time, to see how much there is.
const BATCH: (usize, usize) = (1_000, 1 << 20);
/// `ce_type` of what sealing itself appends.
const OWN_TYPE: &str = "cairn.log.range-sealed.v1";

/// What is not sealed yet of a partition, as far as it was read.
#[derive(Clone, Copy, Default)]
struct Unsealed {
    from: Offset,
    to: Offset,
    bytes: u64,
    /// When the log took the first event that is worth it: ranges tell of each other without end otherwise.
    since_ms: Option<u64>,
}

impl Unsealed {
    fn add(&mut self, record: &LogRecord) {
        self.to = record.offset.next();
        self.bytes += record.record.payload.len() as u64;
        if record.record.envelope.kind != OWN_TYPE {
            self.since_ms = self.since_ms.or(Some(record.appended_at_ms));
        }
    }
}

/// The last range of a partition that an event names.
#[derive(Clone, Copy, PartialEq, Message)]
struct NamedNote {
    #[prost(uint32, tag = "1")]
    incarnation: u32,
    #[prost(uint64, tag = "2")]
    ordinal: u64,
}

impl NamedNote {
    fn of(range: &SealedRange) -> Self {
        Self { incarnation: range.name.incarnation.0, ordinal: range.name.ordinal }
    }

    fn place(self) -> (Incarnation, u64) {
        (Incarnation(self.incarnation), self.ordinal)
    }
}

/// Seals a site's log. One process does.
pub(crate) struct Sealing {
    log: Arc<dyn EventLog>,
    ranges: SealedRanges,
    notes: Arc<Notes>,
    appender: Arc<Appender>,
    config: SealingConfig,
    /// By partition. Held while something is sealed.
    unsealed: tokio::sync::Mutex<Vec<Unsealed>>,
    trouble: Mutex<Option<String>>,
}

impl Sealing {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        objects: Arc<dyn ObjectStore>,
        notes: Arc<Notes>,
        appender: Arc<Appender>,
        config: SealingConfig,
    ) -> Self {
        let ranges = SealedRanges::new(&*log, objects);
        let unsealed = vec![Unsealed::default(); usize::from(log.partitions())];
        Self { log, ranges, notes, appender, config, unsealed: unsealed.into(), trouble: Mutex::default() }
    }

    /// Seals what is due, for ever.
    pub(crate) async fn run(&self) {
        if !self.config.enabled {
            return;
        }
        loop {
            let done = self.turn(false).await;
            if let Err(error) = &done {
                tracing::warn!(%error, "the log is not sealed on");
            }
            metrics::sealing(done.is_ok());
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = done.err().map(|error| error.message);
            tokio::time::sleep(self.config.look_interval).await;
        }
    }

    /// Why it does not go on; `None`: it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals what is due; `all`: everything that the log has now.
    pub(crate) async fn turn(&self, all: bool) -> Result<(), Error> {
        let mut unsealed = self.unsealed.lock().await;
        // Events about ranges stand in one partition, which comes last.
        let last = authority::partition(self.log.partitions());
        let others = (0..self.log.partitions()).map(Partition).filter(|partition| *partition != last);
        for partition in others.chain([last]) {
            if let Some(unsealed) = unsealed.get_mut(usize::from(partition.0)) {
                self.partition(partition, unsealed, all).await?;
            }
        }
        Ok(())
    }

    async fn partition(&self, partition: Partition, unsealed: &mut Unsealed, all: bool) -> Result<(), Error> {
        let end = self.log.end(partition).await?;
        if end <= unsealed.to && !all && unsealed.since_ms.is_none() {
            return Ok(());
        }
        let ranges = self.ranges.of(partition).await?;
        self.name(partition, &ranges).await?;
        let sealed_to = ranges.last().map(|range| range.offsets.end).unwrap_or_default();
        if unsealed.from != sealed_to {
            *unsealed = Unsealed { from: sealed_to, to: sealed_to, ..Unsealed::default() };
        }
        loop {
            self.measure(partition, unsealed, end).await?;
            if !self.is_due(unsealed, all) {
                return Ok(());
            }
            let Some(range) = self.ranges.seal(&*self.log, partition, unsealed.to).await? else { return Ok(()) };
            *unsealed = Unsealed { from: range.offsets.end, to: range.offsets.end, ..Unsealed::default() };
            metrics::sealed(range.object.length);
            self.name(partition, &[range]).await?;
        }
    }

    /// Reads on, until there is enough for a range.
    async fn measure(&self, partition: Partition, unsealed: &mut Unsealed, end: Offset) -> Result<(), Error> {
        while unsealed.to < end && unsealed.bytes < self.config.range_bytes {
            let batch = self.log.read(partition, unsealed.to, BATCH.0, BATCH.1).await?;
            if batch.records.is_empty() {
                return Ok(());
            }
            for record in batch.records.iter().filter(|record| record.offset < end) {
                if unsealed.bytes >= self.config.range_bytes {
                    break;
                }
                self.appender.observe(&record.record.envelope);
                unsealed.add(record);
            }
        }
        Ok(())
    }

    fn is_due(&self, unsealed: &Unsealed, all: bool) -> bool {
        let age_max = u64::try_from(self.config.age_max.as_millis()).unwrap_or(u64::MAX);
        let is_old = |since: u64| self.appender.now_ms().saturating_sub(since) >= age_max;
        unsealed.bytes >= self.config.range_bytes || unsealed.since_ms.is_some_and(|since| all || is_old(since))
    }

    /// Makes it a fact that these ranges are there, of those of which it is none yet.
    async fn name(&self, partition: Partition, ranges: &[SealedRange]) -> Result<(), Error> {
        if ranges.is_empty() {
            return Ok(());
        }
        let named = self.named(partition).await?;
        let is_new = |range: &&SealedRange| named.is_none_or(|named| NamedNote::of(range).place() > named.place());
        for range in ranges.iter().filter(is_new) {
            self.appender.append(&Event::RangeSealed(fact(range)), None).await?;
            self.note(partition, NamedNote::of(range)).await?;
            let (first, end) = (range.offsets.start.0, range.offsets.end.0);
            tracing::info!(partition = partition.0, first, end, "a range of the log is sealed");
        }
        Ok(())
    }

    async fn note(&self, partition: Partition, note: NamedNote) -> Result<(), Error> {
        let key = partition.0.to_be_bytes();
        self.notes.change(vec![Change::put(Kind::RangeNamed, &key, &note)]).await
    }

    /// The last range of a partition that an event names. Without a note of it the log is read.
    async fn named(&self, partition: Partition) -> Result<Option<NamedNote>, Error> {
        if let Some(noted) = self.notes.get(Kind::RangeNamed, &partition.0.to_be_bytes()).await? {
            return Ok(Some(noted));
        }
        let (home, mut next) = (authority::partition(self.log.partitions()), Offset(0));
        let mut named: Option<NamedNote> = None;
        loop {
            let batch = self.log.read(home, next, BATCH.0, BATCH.1).await?;
            let Some(last) = batch.records.last() else { break };
            next = last.offset.next();
            let found = batch.records.iter().filter_map(|record| self.named_by(record, partition));
            named = found.chain(named).max_by_key(|named| named.place());
        }
        if let Some(named) = named {
            self.note(partition, named).await?;
        }
        Ok(named)
    }

    fn named_by(&self, record: &LogRecord, partition: Partition) -> Option<NamedNote> {
        let envelope = &record.record.envelope;
        if envelope.kind != OWN_TYPE || envelope.site != *self.log.site() {
            return None;
        }
        match Event::decode(&envelope.kind, record.record.payload.clone()).ok()? {
            Event::RangeSealed(event) if event.partition == u32::from(partition.0) => {
                Some(NamedNote { incarnation: event.incarnation, ordinal: event.ordinal })
            }
            _ => None,
        }
    }

    /// Keys of the objects that ranges are in.
    pub(crate) async fn keys(&self) -> Result<Vec<ObjectKey>, Error> {
        let mut keys = Vec::new();
        for partition in (0..self.log.partitions()).map(Partition) {
            keys.extend(self.ranges.of(partition).await?.iter().map(|range| range.object.key));
        }
        Ok(keys)
    }

    /// What is sealed of each partition.
    pub(crate) async fn sealed(&self) -> Result<Vec<SealedPartition>, Error> {
        let mut partitions = Vec::with_capacity(usize::from(self.log.partitions()));
        for partition in (0..self.log.partitions()).map(Partition) {
            let ranges = self.ranges.of(partition).await?;
            partitions.push(SealedPartition {
                partition,
                ranges: ranges.len() as u64,
                bytes: ranges.iter().map(|range| range.object.length).sum(),
                sealed_to: ranges.last().map(|range| range.offsets.end).unwrap_or_default(),
                log_begin: self.log.beginning(partition).await?,
                log_end: self.log.end(partition).await?,
            });
        }
        Ok(partitions)
    }
}

fn fact(range: &SealedRange) -> RangeSealed {
    let object = Object {
        key: Bytes::copy_from_slice(range.object.key.as_bytes()),
        length_bytes: range.object.length,
        blake3: Bytes::copy_from_slice(&range.object.digest.0),
    };
    RangeSealed {
        site: range.name.site.to_string(),
        incarnation: range.name.incarnation.0,
        partition: range.name.partition.0.into(),
        ordinal: range.name.ordinal,
        first_offset: range.offsets.start.0,
        end_offset: range.offsets.end.0,
        object: Some(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notary::tests::{Machine, record};
    use cairn_store_api::IndexStore;
    use std::{sync::atomic::Ordering, time::Duration};

    const HOUR_MS: u64 = 3_600_000;

    struct Running {
        log: Arc<dyn EventLog>,
        store: Arc<dyn IndexStore>,
        objects: Arc<dyn ObjectStore>,
        sealing: Sealing,
    }

    impl Running {
        async fn new(machine: &Machine) -> Self {
            let (log, store, objects) = (machine.log().await, machine.store().await, machine.objects());
            let sealing = Self::sealing(machine, &log, &store, &objects);
            Self { log, store, objects, sealing }
        }

        fn sealing(
            machine: &Machine,
            log: &Arc<dyn EventLog>,
            store: &Arc<dyn IndexStore>,
            objects: &Arc<dyn ObjectStore>,
        ) -> Sealing {
            let notes = Arc::new(Notes::new(store.clone()));
            let appender = Arc::new(Appender::new(log.clone(), machine.clock.clone()));
            let age_max = Duration::from_millis(24 * HOUR_MS);
            let config = SealingConfig { range_bytes: 1_000, age_max, ..SealingConfig::default() };
            Sealing::new(log.clone(), objects.clone(), notes, appender, config)
        }

        /// As another process, which has only what is durable; without notes if they are lost.
        async fn again(self, machine: &Machine, no_notes: Option<&Machine>) -> Self {
            let Self { log, mut store, objects, .. } = self;
            if let Some(no_notes) = no_notes {
                store = no_notes.store().await;
            }
            let sealing = Self::sealing(machine, &log, &store, &objects);
            Self { log, store, objects, sealing }
        }

        async fn append(&self, partition: u16, numbers: std::ops::Range<u64>) {
            let records = numbers.map(|number| record(number, b'p')).collect();
            self.log.append(Partition(partition), records).await.unwrap();
        }

        async fn sealed_to(&self, partition: u16) -> u64 {
            self.sealing.sealed().await.unwrap()[usize::from(partition)].sealed_to.0
        }

        /// Partition and ordinal of ranges that events name, in the order of the log.
        async fn named(&self) -> Vec<(u32, u64)> {
            let home = authority::partition(self.log.partitions());
            let read = self.log.read(home, Offset(0), 1_000, 1 << 20).await.unwrap().records;
            let events = read.into_iter().map(|read| Event::decode(&read.record.envelope.kind, read.record.payload));
            events
                .filter_map(|event| match event {
                    Ok(Event::RangeSealed(event)) => Some((event.partition, event.ordinal)),
                    _ => None,
                })
                .collect()
        }
    }

    /// A partition that events about ranges do not stand in.
    fn other() -> u16 {
        u16::from(authority::partition(3) == Partition(0))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_range_is_made_of_enough_bytes_or_of_old_events() {
        let machine = Machine::new();
        let running = Running::new(&machine).await;
        let payload = record(0, b'p').payload.len() as u64;
        let enough = 1_000_u64.div_ceil(payload);
        running.append(other(), 0..enough + 1).await;
        running.sealing.turn(false).await.unwrap();
        assert_eq!(running.sealed_to(other()).await, enough, "the rest waits for more");
        machine.clock.0.fetch_add(24 * HOUR_MS, Ordering::Relaxed);
        running.sealing.turn(false).await.unwrap();
        assert_eq!(running.sealed_to(other()).await, enough + 1);
        assert_eq!(running.named().await, [(u32::from(other()), 0), (u32::from(other()), 1)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_about_ranges_alone_are_no_reason_for_another() {
        let machine = Machine::new();
        let running = Running::new(&machine).await;
        running.append(other(), 0..1).await;
        running.sealing.turn(true).await.unwrap();
        for _ in 0..3 {
            machine.clock.0.fetch_add(25 * HOUR_MS, Ordering::Relaxed);
            running.sealing.turn(true).await.unwrap();
        }
        assert_eq!(running.named().await, [(u32::from(other()), 0)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_range_is_named_once_whoever_comes_after_and_whatever_was_noted() {
        let (machine, fresh) = (Machine::new(), Machine::new());
        let mut running = Running::new(&machine).await;
        running.append(other(), 0..1).await;
        running.sealing.turn(true).await.unwrap();
        for no_notes in [None, Some(&fresh)] {
            running = running.again(&machine, no_notes).await;
            running.sealing.turn(true).await.unwrap();
            assert_eq!(running.named().await, [(u32::from(other()), 0)], "notes are lost: {}", no_notes.is_some());
        }
        // Whoever sealed it died before it could say so.
        running.append(other(), 1..2).await;
        running.sealing.ranges.seal(&*running.log, Partition(other()), Offset(2)).await.unwrap();
        running = running.again(&machine, None).await;
        running.append(other(), 2..3).await;
        running.sealing.turn(true).await.unwrap();
        assert_eq!(running.named().await, [0, 1, 2].map(|ordinal| (u32::from(other()), ordinal)));
        running.store.sync(true).await.unwrap();
    }
}
