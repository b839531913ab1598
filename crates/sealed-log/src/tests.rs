//! Ranges of the embedded log in the embedded object store, and a log that loses its beginning.

use crate::{SealedEventLog, SealedRanges};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Envelope, EventId, Hlc, Incarnation, Offset, Partition, SiteId};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::Clock,
    disk::{Disk, sim::SimDisk},
};
use cairn_store_api::{EventLog, Lives, LogBatch, LogRecord, ObjectStore, Record, StoreError, StoreErrorKind};
use proptest::prelude::*;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const P: Partition = Partition(1);

fn site() -> SiteId {
    "main".parse().unwrap()
}

/// Goes on by a millisecond each time that it is asked.
#[derive(Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn unix_ms(&self) -> u64 {
        1_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A log that has lost its beginning, or will.
struct Beheaded {
    log: Arc<dyn EventLog>,
    begins: AtomicU64,
}

#[async_trait]
impl EventLog for Beheaded {
    fn site(&self) -> &SiteId {
        self.log.site()
    }

    fn lives(&self) -> &Lives {
        self.log.lives()
    }

    fn partitions(&self) -> u16 {
        self.log.partitions()
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        self.log.append(partition, records).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        if from < self.beginning(partition).await? {
            return Err(StoreError::new(StoreErrorKind::NotFound, "it is lost"));
        }
        self.log.read(partition, from, records_max, bytes_max).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.log.end(partition).await
    }

    async fn beginning(&self, partition: Partition) -> Result<Offset, StoreError> {
        let begins = self.begins.load(Ordering::Relaxed);
        Ok(Offset(if partition == P { begins } else { 0 }))
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        self.log.wait_beyond(partition, offset).await
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        Ok(self.log.offset_at(partition, unix_ms).await?.max(self.beginning(partition).await?))
    }

    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError> {
        self.log.renew(incarnation, begins).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.log.close().await
    }
}

/// A machine with a log and objects.
struct Machine {
    disk: Arc<dyn Disk>,
    clock: Arc<Steps>,
    objects: Arc<dyn ObjectStore>,
}

impl Machine {
    fn new() -> Self {
        let (disk, clock): (Arc<dyn Disk>, _) = (Arc::new(SimDisk::unrecorded()), Arc::new(Steps::default()));
        let volumes = VolumeConfig {
            volume_bytes_first: 1 << 20,
            volume_bytes_max: 64 << 20,
            prewrite_bytes_min: 0,
            reserve_bytes: 0,
            ..VolumeConfig::new("/objects")
        };
        let objects = Arc::new(VolumeStore::open(disk.clone(), volumes, clock.clone()).unwrap());
        Self { disk, clock, objects }
    }

    async fn log(&self, at: &str) -> Arc<dyn EventLog> {
        let config = EventLogConfig {
            partitions: 2,
            segment_bytes: 8 << 20,
            append_bytes_max: 2 << 20,
            record_bytes_max: 1 << 20,
            group_bytes_max: 2 << 20,
            reserve_bytes: 0,
            ..EventLogConfig::new(site())
        };
        let log = EmbeddedEventLog::open(self.disk.clone(), self.clock.clone(), Path::new(at).into(), config);
        Arc::new(log.await.unwrap())
    }

    fn ranges(&self, log: &dyn EventLog) -> SealedRanges {
        SealedRanges::new(log, self.objects.clone())
    }

    async fn beheaded(&self, log: &Arc<dyn EventLog>, begins: u64) -> Result<SealedEventLog, StoreError> {
        let log = Arc::new(Beheaded { log: log.clone(), begins: AtomicU64::new(begins) });
        SealedEventLog::open(log, self.objects.clone()).await
    }
}

fn record(number: u64, length: usize) -> Record {
    let envelope = Envelope {
        id: EventId(uuid::Uuid::from_u128(number.into())),
        kind: "a.type".into(),
        site: site(),
        study_instance_uid: String::new(),
        tenant: String::new(),
        hlc: Hlc { wall_ms: number, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    Record { envelope, payload: vec![number as u8; length].into() }
}

async fn append(log: &dyn EventLog, numbers: std::ops::Range<u64>, length: usize) {
    for number in numbers {
        log.append(P, vec![record(number, length)]).await.unwrap();
    }
}

async fn read_all(log: &dyn EventLog, records_max: usize, bytes_max: usize) -> Vec<LogRecord> {
    let (mut records, mut next) = (Vec::<LogRecord>::new(), Offset(0));
    loop {
        let batch = log.read(P, next, records_max, bytes_max).await.unwrap();
        let Some(last) = batch.records.last() else { return records };
        assert!(batch.records.len() <= records_max && batch.end >= last.offset.next());
        next = last.offset.next();
        records.extend(batch.records);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_log_without_its_beginning_gives_what_the_whole_one_gives(
        lengths in prop::collection::vec((0..3_usize).prop_map(|kind| [10, 3_000, 300_000][kind]), 1..40),
        cuts in prop::collection::vec(1..12_u64, 1..6),
        begins in 0..40_u64,
        records_max in 1..9_usize,
        bytes_max in prop::sample::select(vec![1, 5_000, 1 << 20]),
    ) {
        run(async {
            let machine = Machine::new();
            let log = machine.log("/log").await;
            for (number, length) in (0..).zip(&lengths) {
                append(&*log, number..number + 1, *length).await;
            }
            let (ranges, mut to) = (machine.ranges(&*log), 0);
            for cut in cuts {
                to = (to + cut).min(lengths.len() as u64);
                ranges.seal(&*log, P, Offset(to)).await.unwrap();
            }
            let begins = begins.min(to);
            let sealed = machine.beheaded(&log, begins).await.unwrap();
            let whole = read_all(&*log, 100, 1 << 30).await;
            assert_eq!(read_all(&sealed, records_max, bytes_max).await, whole);
            for record in whole.iter().step_by(3) {
                for ms in [record.appended_at_ms - 1, record.appended_at_ms, record.appended_at_ms + 1] {
                    assert_eq!(sealed.offset_at(P, ms).await.unwrap(), log.offset_at(P, ms).await.unwrap());
                }
            }
        });
    }
}

#[tokio::test]
async fn what_was_lost_and_not_sealed_is_never_passed_over() {
    let machine = Machine::new();
    let log = machine.log("/log").await;
    append(&*log, 0..20, 10).await;
    machine.ranges(&*log).seal(&*log, P, Offset(8)).await.unwrap();
    let refused = machine.beheaded(&log, 9).await.err().unwrap();
    assert_eq!(refused.kind(), StoreErrorKind::Corrupt);

    let later = Arc::new(Beheaded { log: log.clone(), begins: AtomicU64::new(0) });
    let sealed = SealedEventLog::open(later.clone(), machine.objects.clone()).await.unwrap();
    assert_eq!(read_all(&sealed, 3, 1 << 20).await.len(), 20);
    later.begins.store(8, Ordering::Relaxed);
    assert_eq!(read_all(&sealed, 3, 1 << 20).await, read_all(&*log, 100, 1 << 20).await, "lost while it is open");
    later.begins.store(12, Ordering::Relaxed);
    let lost = sealed.read(P, Offset(8), 1, 1).await.unwrap_err();
    assert_eq!(lost.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn whoever_comes_after_goes_on_where_the_last_range_ended() {
    let machine = Machine::new();
    let log = machine.log("/log").await;
    append(&*log, 0..20, 10).await;
    let (first, second) = (machine.ranges(&*log), machine.ranges(&*log));
    let sealed = first.seal(&*log, P, Offset(5)).await.unwrap().unwrap();
    assert_eq!(second.seal(&*log, P, Offset(5)).await.unwrap(), None, "found with nothing but the objects");
    let next = second.seal(&*log, P, Offset(9)).await.unwrap().unwrap();
    assert_eq!((sealed.offsets.end, next.name.ordinal), (next.offsets.start, 1));
    assert_eq!(first.of(P).await.unwrap(), [sealed, next]);
    let rest = first.seal(&*log, P, Offset(99)).await.unwrap().unwrap();
    assert_eq!(rest.offsets, Offset(9)..Offset(20), "as much as there is");
}

#[tokio::test]
async fn a_log_that_lacks_what_was_sealed_is_not_sealed_on() {
    let machine = Machine::new();
    let (log, other) = (machine.log("/log").await, machine.log("/other").await);
    append(&*log, 0..5, 10).await;
    append(&*other, 100..109, 10).await;
    machine.ranges(&*log).seal(&*log, P, Offset(5)).await.unwrap();
    let refused = machine.ranges(&*other).seal(&*other, P, Offset(9)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
}

#[tokio::test]
async fn after_a_new_life_what_is_of_the_old_one_alone_is_not_read() {
    let machine = Machine::new();
    let log = machine.log("/log").await;
    append(&*log, 0..10, 10).await;
    machine.ranges(&*log).seal(&*log, P, Offset(8)).await.unwrap();
    // As a backup of six events would be, which went on by itself.
    let restored = machine.log("/restored").await;
    append(&*restored, 0..6, 10).await;
    append(&*restored, 200..206, 10).await;
    restored.renew(Incarnation(2), vec![Offset(0), Offset(6)]).await.unwrap();
    let restored = machine.log("/restored").await;
    let ranges = machine.ranges(&*restored);
    assert_eq!(ranges.of(P).await.unwrap().last().unwrap().offsets, Offset(0)..Offset(6));
    let next = ranges.seal(&*restored, P, Offset(9)).await.unwrap().unwrap();
    assert_eq!((next.offsets.clone(), next.name.ordinal, next.name.incarnation.0), (Offset(6)..Offset(9), 0, 2));
    let sealed = machine.beheaded(&restored, 9).await.unwrap();
    // The restored log took its first events at another time, which the copy of a log's files would not have.
    let events = |read: Vec<LogRecord>| read.into_iter().map(|read| (read.offset, read.record)).collect::<Vec<_>>();
    let whole = events(read_all(&*restored, 100, 1 << 20).await);
    assert_eq!(events(read_all(&sealed, 100, 1 << 20).await), whole);
}

#[tokio::test]
async fn an_object_that_is_no_range_is_corrupt() {
    let machine = Machine::new();
    let log = machine.log("/log").await;
    append(&*log, 0..5, 10).await;
    let name = crate::RangeName { site: site(), incarnation: log.incarnation(), partition: P, ordinal: 0 };
    let mut writer = machine.objects.put(name.key(), None).await.unwrap();
    writer.write(Bytes::from_static(b"something else altogether")).await.unwrap();
    writer.finish().await.unwrap();
    let refused = machine.ranges(&*log).seal(&*log, P, Offset(5)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_range_that_does_not_go_on_from_the_last_one_is_corrupt_however_often_it_is_asked_for() {
    let machine = Machine::new();
    let log = machine.log("/log").await;
    append(&*log, 0..9, 10).await;
    machine.ranges(&*log).seal(&*log, P, Offset(3)).await.unwrap();
    machine.ranges(&*log).seal(&*log, P, Offset(6)).await.unwrap();
    let name = |ordinal| crate::RangeName { site: site(), incarnation: log.incarnation(), partition: P, ordinal };
    // The first one again under its own key, shorter: the second one does not begin where it ends.
    machine.objects.delete(name(0).key()).await.unwrap();
    machine.ranges(&*log).seal(&*log, P, Offset(2)).await.unwrap();
    let missing = machine.ranges(&*log);
    assert_eq!(missing.of(P).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(missing.of(P).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}
