//! The ports in memory, and faults in front of them.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cairn_archive::{Digest, Incarnation, ObjectKey, Offset, Partition, SiteId};
use cairn_store_api::{
    ByteStream, EventLog, Lives, LogBatch, LogRecord, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter,
    Record, StoreError, StoreErrorKind, StoreSpace,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// What a fault does to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails, and nothing was done.
    Before(StoreErrorKind),
    /// Fails although it was done.
    After(StoreErrorKind),
    /// Never comes back, and nothing was done.
    HangBefore,
    /// Never comes back although it was done.
    HangAfter,
}

/// Calls that faults can be set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Append,
    Put,
    Write,
    Finish,
    Delete,
    Read,
}

/// Faults to come, in order for each call; a fault for the n-th of a call is set with n - 1 `None` before it.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Vec<Coming>>>);

type Coming = (Call, VecDeque<Option<Fault>>);

impl Faults {
    pub(crate) fn set(&self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) {
        let mut set = self.0.lock().expect("not poisoned");
        set.retain(|(other, _)| *other != call);
        set.push((call, faults.into_iter().collect()));
    }

    fn next(&self, call: Call) -> Option<Fault> {
        let mut set = self.0.lock().expect("not poisoned");
        set.iter_mut().find(|(other, _)| *other == call).and_then(|(_, faults)| faults.pop_front()).flatten()
    }

    async fn before(&self, fault: Option<Fault>) -> Result<(), StoreError> {
        match fault {
            Some(Fault::Before(kind)) => Err(StoreError::new(kind, "a fault that was set")),
            Some(Fault::HangBefore) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn after<T>(&self, fault: Option<Fault>, done: T) -> Result<T, StoreError> {
        match fault {
            Some(Fault::After(kind)) => Err(StoreError::new(kind, "a fault that was set, after the fact")),
            Some(Fault::HangAfter) => std::future::pending().await,
            _ => Ok(done),
        }
    }
}

/// A log in memory.
pub(crate) struct MemoryLog {
    site: SiteId,
    lives: Lives,
    partitions: Mutex<Vec<Vec<LogRecord>>>,
    in_order: Mutex<Vec<Record>>,
    appended: Notify,
    pub(crate) faults: Faults,
}

impl MemoryLog {
    pub(crate) fn new(faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            site: "test".parse().expect("a name"),
            lives: Lives::new(Incarnation(1)),
            partitions: Mutex::new(vec![Vec::new(); 4]),
            in_order: Mutex::default(),
            appended: Notify::new(),
            faults,
        })
    }

    /// Every record, in the order appended.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.in_order.lock().expect("not poisoned").clone()
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn site(&self) -> &SiteId {
        &self.site
    }

    fn lives(&self) -> &Lives {
        &self.lives
    }

    fn partitions(&self) -> u16 {
        4
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        let fault = self.faults.next(Call::Append);
        self.faults.before(fault).await?;
        // As with a real log, others run before an append is done.
        tokio::task::yield_now().await;
        let first = {
            let mut partitions = self.partitions.lock().expect("not poisoned");
            let place = &mut partitions[usize::from(partition.0)];
            let first = Offset(place.len() as u64);
            for record in &records {
                let offset = Offset(place.len() as u64);
                let appended_at_ms = record.envelope.hlc.wall_ms;
                place.push(LogRecord { offset, appended_at_ms, record: record.clone() });
            }
            self.in_order.lock().expect("not poisoned").extend(records);
            first
        };
        self.appended.notify_waiters();
        self.faults.after(fault, first).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        _bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        let partitions = self.partitions.lock().expect("not poisoned");
        let place = &partitions[usize::from(partition.0)];
        let records = place.iter().skip(from.0 as usize).take(records_max).cloned().collect();
        Ok(LogBatch { records, end: Offset(place.len() as u64) })
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        Ok(Offset(self.partitions.lock().expect("not poisoned")[usize::from(partition.0)].len() as u64))
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        loop {
            let appended = self.appended.notified();
            let end = self.end(partition).await?;
            if end > offset {
                return Ok(end);
            }
            appended.await;
        }
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        let partitions = self.partitions.lock().expect("not poisoned");
        let place = &partitions[usize::from(partition.0)];
        Ok(Offset(place.iter().take_while(|record| record.appended_at_ms < unix_ms).count() as u64))
    }

    async fn renew(&self, _: Incarnation, _: Vec<Offset>) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::Invalid, "this log has one life"))
    }
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Held {
    bytes: Bytes,
    digest: Digest,
    /// Offset of a byte that is not what was stored.
    damaged: Option<u64>,
}

/// Objects in memory.
pub(crate) struct MemoryObjects {
    held: Arc<Mutex<BTreeMap<ObjectKey, Held>>>,
    room: Arc<Mutex<Option<u64>>>,
    /// Bytes read, by everyone.
    pub(crate) bytes_read: Arc<Mutex<u64>>,
    pub(crate) faults: Faults,
}

impl MemoryObjects {
    pub(crate) fn new(faults: Faults) -> Arc<Self> {
        Arc::new(Self { held: Arc::default(), room: Arc::default(), bytes_read: Arc::default(), faults })
    }

    /// Room for so many bytes more; `None`: no bound.
    pub(crate) fn set_room(&self, room: Option<u64>) {
        *self.room.lock().expect("not poisoned") = room;
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.held.lock().expect("not poisoned").keys().copied().collect()
    }

    pub(crate) fn bytes(&self, key: ObjectKey) -> Option<Bytes> {
        self.held.lock().expect("not poisoned").get(&key).map(|held| held.bytes.clone())
    }

    /// Makes reads of the 64 KiB around this byte fail as damaged.
    pub(crate) fn damage(&self, key: ObjectKey, offset: u64) {
        if let Some(held) = self.held.lock().expect("not poisoned").get_mut(&key) {
            held.damaged = Some(offset);
        }
    }
}

struct Writer {
    key: ObjectKey,
    bytes: BytesMut,
    held: Arc<Mutex<BTreeMap<ObjectKey, Held>>>,
    room: Arc<Mutex<Option<u64>>>,
    faults: Faults,
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let fault = self.faults.next(Call::Write);
        self.faults.before(fault).await?;
        if let Some(room) = self.room.lock().expect("not poisoned").as_mut() {
            let full = || StoreError::new(StoreErrorKind::Exhausted, "the store is full");
            *room = room.checked_sub(bytes.len() as u64).ok_or_else(full)?;
        }
        self.bytes.extend_from_slice(&bytes);
        self.faults.after(fault, ()).await
    }

    /// Ingest never says what it is to be.
    async fn finish_as(self: Box<Self>, _length: u64, _digest: Digest) -> Result<ObjectInfo, StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "nobody knows beforehand"))
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        let fault = self.faults.next(Call::Finish);
        self.faults.before(fault).await?;
        tokio::task::yield_now().await;
        let digest = Digest(*blake3::hash(&self.bytes).as_bytes());
        let object = ObjectRef { key: self.key, length: self.bytes.len() as u64, digest };
        let held = Held { bytes: self.bytes.freeze(), digest, damaged: None };
        self.held.lock().expect("not poisoned").insert(self.key, held);
        self.faults.after(fault, ObjectInfo { object, put_ended_at_ms: 0 }).await
    }
}

const CHUNK: usize = 64 << 10;

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn put(&self, key: ObjectKey, _length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let fault = self.faults.next(Call::Put);
        self.faults.before(fault).await?;
        assert!(!self.keys().contains(&key), "a key is never used again");
        let (held, room, faults) = (self.held.clone(), self.room.clone(), self.faults.clone());
        self.faults.after(fault, Box::new(Writer { key, bytes: BytesMut::new(), held, room, faults }) as _).await
    }

    async fn repair(&self, _: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "ingest repairs nothing"))
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let fault = self.faults.next(Call::Read);
        self.faults.before(fault).await?;
        let held = self.held.lock().expect("not poisoned");
        let found = held.get(&object.key).ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "no such object"))?;
        let stored = (found.bytes.len() as u64, found.digest);
        if stored != (object.length, object.digest) || range.start > range.end || range.end > object.length {
            return Err(StoreError::new(StoreErrorKind::Invalid, "not what was stored"));
        }
        let mut chunks = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let group = at / CHUNK as u64;
            let end = ((group + 1) * CHUNK as u64).min(range.end);
            if found.damaged.is_some_and(|damaged| damaged / CHUNK as u64 == group) {
                chunks.push(Err(StoreError::new(StoreErrorKind::Corrupt, "object is damaged")));
                break;
            }
            *self.bytes_read.lock().expect("not poisoned") += end - at;
            chunks.push(Ok(found.bytes.slice(at as usize..end as usize)));
            at = end;
        }
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        let held = self.held.lock().expect("not poisoned");
        let found = held.get(&key).ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "no such object"))?;
        let object = ObjectRef { key, length: found.bytes.len() as u64, digest: found.digest };
        Ok(ObjectInfo { object, put_ended_at_ms: 0 })
    }

    async fn list(&self, _after: Option<ObjectKey>, _max: usize) -> Result<ObjectPage, StoreError> {
        Ok(ObjectPage::default())
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        let fault = self.faults.next(Call::Delete);
        self.faults.before(fault).await?;
        self.held.lock().expect("not poisoned").remove(&key);
        self.faults.after(fault, ()).await
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        Ok(StoreSpace { available: *self.room.lock().expect("not poisoned"), used: 0 })
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
