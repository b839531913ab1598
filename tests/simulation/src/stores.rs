//! The three ports in memory. What they hold outlives the services, as a disk does; services hold it through handles that
//! fail once their process has crashed.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cairn_archive::{Digest, EventId, Incarnation, ObjectKey, Offset, Partition, Position, SiteId};
use cairn_process::clock::Clock;
use cairn_replication::renew::Elsewhere;
use cairn_service_api::Error;
use cairn_store_api::{
    ByteStream, CkRange, Commit, EventLog, Generation, IndexStore, Lives, LogBatch, LogRecord, Mutation, ObjectInfo,
    ObjectPage, ObjectRef, ObjectStore, ObjectWriter, Page, Record, Row, StoreError, StoreErrorKind, StoreSpace, Table,
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, Range},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// A process that uses stores, until it crashes.
#[derive(Clone, Default)]
pub struct Process(Arc<AtomicBool>);

impl Process {
    /// From now on it changes nothing, though what ran in it may be dropped later.
    pub fn crash(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(StoreError::new(StoreErrorKind::Unavailable, "the process has crashed")),
            false => Ok(()),
        }
    }
}

/// A log, as one process has it open.
pub struct MemoryLog {
    kept: Arc<KeptLog>,
    process: Process,
    lives: Lives,
}

struct KeptLog {
    site: SiteId,
    clock: Arc<dyn Clock>,
    partitions: Mutex<Vec<Vec<LogRecord>>>,
    lives: Mutex<Lives>,
    appended: Notify,
}

impl MemoryLog {
    pub fn new(site: SiteId, partitions: u16, clock: Arc<dyn Clock>) -> Arc<Self> {
        let partitions = Mutex::new(vec![Vec::new(); usize::from(partitions)]);
        let lives = Lives::new(Incarnation(1));
        let appended = Notify::new();
        let kept = Arc::new(KeptLog { site, clock, partitions, lives: Mutex::new(lives.clone()), appended });
        Arc::new(Self { kept, process: Process::default(), lives })
    }

    /// The same log for a process.
    pub fn open(&self, process: &Process) -> Arc<Self> {
        let lives = lock(&self.kept.lives).clone();
        Arc::new(Self { kept: self.kept.clone(), process: process.clone(), lives })
    }

    /// Everything, partition by partition.
    pub fn records(&self) -> Vec<Vec<LogRecord>> {
        lock(&self.kept.partitions).clone()
    }

    /// Its lives as they are now.
    pub fn lives_now(&self) -> Lives {
        lock(&self.kept.lives).clone()
    }

    /// Goes back to what it was.
    pub fn restore(&self, backup: Vec<Vec<LogRecord>>, lives: Lives) {
        *lock(&self.kept.partitions) = backup;
        *lock(&self.kept.lives) = lives;
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn site(&self) -> &SiteId {
        &self.kept.site
    }

    fn lives(&self) -> &Lives {
        &self.lives
    }

    fn partitions(&self) -> u16 {
        lock(&self.kept.partitions).len() as u16
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        self.process.check()?;
        let first = {
            let mut partitions = lock(&self.kept.partitions);
            let place = &mut partitions[usize::from(partition.0)];
            let first = place.len() as u64;
            // Append times never decrease, whatever the clock does.
            let appended_at_ms = place.last().map_or(0, |last| last.appended_at_ms).max(self.kept.clock.unix_ms());
            let record = |(offset, record)| LogRecord { offset: Offset(offset), appended_at_ms, record };
            place.extend((first..).zip(records).map(record));
            first
        };
        // As with a real log, it may be done before who appends hears of it.
        self.kept.appended.notify_waiters();
        tokio::task::yield_now().await;
        Ok(Offset(first))
    }

    async fn read(&self, partition: Partition, from: Offset, max: usize, bytes: usize) -> Result<LogBatch, StoreError> {
        self.process.check()?;
        let partitions = lock(&self.kept.partitions);
        let place = &partitions[usize::from(partition.0)];
        let mut size = 0;
        let fits = |record: &&LogRecord| {
            let fits = size < bytes;
            size += record.record.payload.len();
            fits
        };
        let records = place.iter().skip(from.0 as usize).take(max).take_while(fits).cloned().collect();
        Ok(LogBatch { records, end: Offset(place.len() as u64) })
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.process.check()?;
        Ok(Offset(lock(&self.kept.partitions)[usize::from(partition.0)].len() as u64))
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        loop {
            let appended = self.kept.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let end = self.end(partition).await?;
            if end > offset {
                return Ok(end);
            }
            appended.await;
        }
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        let partitions = lock(&self.kept.partitions);
        let place = &partitions[usize::from(partition.0)];
        Ok(Offset(place.partition_point(|record| record.appended_at_ms < unix_ms) as u64))
    }

    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError> {
        self.process.check()?;
        let ends: Vec<_> = lock(&self.kept.partitions).iter().map(|place| Offset(place.len() as u64)).collect();
        *lock(&self.kept.lives) = self.lives.renewed(incarnation, begins, &ends)?;
        self.process.crash();
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A log as other sites see it.
pub struct Seen(pub Arc<MemoryLog>);

#[async_trait]
impl Elsewhere for Seen {
    async fn end(&self, partition: Partition) -> Result<Offset, Error> {
        Ok(self.0.end(partition).await?)
    }

    async fn origins(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<(Position, EventId)>, Error> {
        let batch = self.0.read(partition, from, (to.0 - from.0) as usize, usize::MAX).await?;
        let envelopes = batch.records.into_iter().map(|record| record.record.envelope);
        Ok(envelopes.filter_map(|envelope| Some((envelope.origin?, envelope.id))).collect())
    }
}

/// Objects, as one process has them open.
#[derive(Default)]
pub struct MemoryObjects {
    kept: Arc<KeptObjects>,
    process: Process,
}

#[derive(Default)]
struct KeptObjects {
    held: Mutex<BTreeMap<ObjectKey, ObjectAndBytes>>,
    damaged: Mutex<HashSet<ObjectKey>>,
    full: Mutex<bool>,
}

type ObjectAndBytes = (ObjectInfo, Bytes);

impl MemoryObjects {
    /// The same objects for a process.
    pub fn open(&self, process: &Process) -> Arc<Self> {
        Arc::new(Self { kept: self.kept.clone(), process: process.clone() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, ObjectAndBytes>> {
        lock(&self.kept.held)
    }

    fn writer(&self, key: ObjectKey, repairs: Option<ObjectRef>) -> Writer {
        Writer { key, repairs, bytes: BytesMut::new(), kept: self.kept.clone(), process: self.process.clone() }
    }

    /// The bytes of an object.
    pub fn bytes(&self, key: ObjectKey) -> Option<Bytes> {
        self.held().get(&key).map(|(_, bytes)| bytes.clone())
    }

    /// Whether reads of an object fail as damaged.
    pub fn set_damaged(&self, key: ObjectKey, damaged: bool) {
        let mut set = lock(&self.kept.damaged);
        if damaged {
            set.insert(key)
        } else {
            set.remove(&key)
        };
    }

    /// Whether there is no room.
    pub fn set_full(&self, full: bool) {
        *lock(&self.kept.full) = full;
    }

    /// Goes back to what it was.
    pub fn restore(&self, backup: BTreeMap<ObjectKey, ObjectAndBytes>) {
        *self.held() = backup;
    }

    /// Everything.
    pub fn backup(&self) -> BTreeMap<ObjectKey, ObjectAndBytes> {
        self.held().clone()
    }
}

struct Writer {
    key: ObjectKey,
    /// The object that is repaired.
    repairs: Option<ObjectRef>,
    bytes: BytesMut,
    kept: Arc<KeptObjects>,
    process: Process,
}

fn conflict() -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, "object is there already")
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        self.end(None).await
    }

    async fn finish_as(self: Box<Self>, length: u64, digest: Digest) -> Result<ObjectInfo, StoreError> {
        let expected = ObjectRef { key: self.key, length, digest };
        self.end(Some(expected)).await
    }
}

impl Writer {
    async fn end(self: Box<Self>, expected: Option<ObjectRef>) -> Result<ObjectInfo, StoreError> {
        tokio::task::yield_now().await;
        let digest = Digest(*blake3::hash(&self.bytes).as_bytes());
        let object = ObjectRef { key: self.key, length: self.bytes.len() as u64, digest };
        let info = ObjectInfo { object, put_ended_at_ms: 0 };
        self.process.check()?;
        let mut held = lock(&self.kept.held);
        if expected.or(self.repairs).is_some_and(|expected| expected != object) {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "not what was said"));
        }
        match self.repairs {
            Some(_) => drop(lock(&self.kept.damaged).remove(&self.key)),
            None if held.contains_key(&self.key) => return Err(conflict()),
            None => {}
        }
        held.insert(self.key, (info, self.bytes.freeze()));
        Ok(info)
    }
}

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn put(&self, key: ObjectKey, _length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.process.check()?;
        if *lock(&self.kept.full) {
            return Err(StoreError::new(StoreErrorKind::Exhausted, "no room"));
        }
        if self.held().contains_key(&key) {
            return Err(conflict());
        }
        Ok(Box::new(self.writer(key, None)))
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.process.check()?;
        if self.held().get(&object.key).is_some_and(|(info, _)| info.object != *object) {
            return Err(conflict());
        }
        Ok(Box::new(self.writer(object.key, Some(*object))))
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        if lock(&self.kept.damaged).contains(&object.key) {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "object is damaged"));
        }
        let (info, bytes) = self.held().get(&object.key).cloned().ok_or_else(absent)?;
        if info.object != *object {
            return Err(StoreError::new(StoreErrorKind::Invalid, "not what was stored"));
        }
        // In pieces, so that others run, and faults strike, within an object.
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        let pieces: Vec<_> = bytes.chunks(512).map(|piece| Ok(bytes.slice_ref(piece))).collect();
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.held().get(&key).map(|(info, _)| *info).ok_or_else(absent)
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        let held = self.held();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut objects: Vec<_> =
            held.range((from, Bound::Unbounded)).take(max + 1).map(|(_, (info, _))| *info).collect();
        let more = objects.len() > max;
        objects.truncate(max);
        Ok(ObjectPage { objects, more })
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.held().remove(&key);
        Ok(())
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        Ok(StoreSpace { available: None, used: 0 })
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn absent() -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "no such object")
}

/// Rows in order, as one process has them open.
#[derive(Default)]
pub struct MemoryRows(Arc<Mutex<Rows>>, Process);

type RowKey = (Generation, u8, Bytes, Bytes);

#[derive(Clone, Default)]
struct Rows {
    rows: BTreeMap<RowKey, Bytes>,
    offsets: BTreeMap<(Generation, Partition), (Incarnation, Offset, Bytes)>,
    pointer: Bytes,
}

impl MemoryRows {
    /// A copy as it is now.
    pub fn backup(&self) -> Self {
        Self(Arc::new(Mutex::new(lock(&self.0).clone())), Process::default())
    }

    /// The same rows for a process.
    pub fn open(&self, process: &Process) -> Arc<Self> {
        Arc::new(Self(self.0.clone(), process.clone()))
    }
}

#[async_trait]
impl IndexStore for MemoryRows {
    fn is_exact(&self) -> bool {
        true
    }

    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let key = (generation, table.id, Bytes::copy_from_slice(pk), Bytes::copy_from_slice(ck));
        Ok(lock(&self.0).rows.get(&key).cloned())
    }

    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let rows = &lock(&self.0).rows;
        let get = |(pk, ck): &(Bytes, Bytes)| rows.get(&(generation, table.id, pk.clone(), ck.clone())).cloned();
        Ok(keys.iter().map(get).collect())
    }

    async fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError> {
        let state = lock(&self.0);
        let pk = Bytes::copy_from_slice(pk);
        let from = (generation, table.id, pk.clone(), range.from.clone().unwrap_or_default());
        let of_key = state.rows.range(from..).take_while(|((g, t, p, ck), _)| {
            (*g, *t, p) == (generation, table.id, &pk) && range.to.as_ref().is_none_or(|to| ck < to)
        });
        let mut rows: Vec<_> = of_key.map(|((.., ck), value)| Row { ck: ck.clone(), value: value.clone() }).collect();
        if reverse {
            rows.reverse();
        }
        let more = rows.len() > max;
        rows.truncate(max);
        Ok(Page { rows, more })
    }

    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError> {
        self.1.check()?;
        let mut state = lock(&self.0);
        let place = (generation, commit.partition);
        let committed = state.offsets.get(&place).filter(|(life, ..)| *life == commit.incarnation);
        if committed.map_or(Offset(0), |(_, offset, _)| *offset) != commit.from {
            return Err(StoreError::new(StoreErrorKind::Conflict, "does not go on"));
        }
        for mutation in commit.mutations {
            match mutation {
                Mutation::Put { table, pk, ck, value } => {
                    drop(state.rows.insert((generation, table.id, pk, ck), value))
                }
                Mutation::Delete { table, pk, ck } => drop(state.rows.remove(&(generation, table.id, pk, ck))),
            }
        }
        state.offsets.insert(place, (commit.incarnation, commit.to, commit.note));
        Ok(())
    }

    async fn offsets(
        &self,
        generation: Generation,
    ) -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError> {
        let state = lock(&self.0);
        let of = state.offsets.iter().filter(|((of, _), _)| *of == generation);
        Ok(of.map(|((_, partition), (life, offset, note))| (*life, *partition, *offset, note.clone())).collect())
    }

    async fn pointer(&self) -> Result<Bytes, StoreError> {
        Ok(lock(&self.0).pointer.clone())
    }

    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        let mut state = lock(&self.0);
        let same = state.pointer == expected;
        if same {
            state.pointer = new;
        }
        Ok(same)
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        let mut state = lock(&self.0);
        state.rows.retain(|(of, ..), _| *of != generation);
        state.offsets.retain(|(of, _), _| *of != generation);
        Ok(())
    }

    async fn sync(&self, _close: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
