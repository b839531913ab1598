//! The one thread that makes objects durable. It takes all that wait, writes their records, syncs once, and tells them.
//!
//! A group's records are written only after the sync of the group before has succeeded. So a restart that finds a
//! later group knows an earlier one to be durable, and has to check the bytes of the last group alone.

use crate::buffers::Buffer;
use crate::layout::{BLOCK, Entry, JournalBlock, Record, split_records};
use crate::maintain::Checkpoint;
use crate::shared::Shared;
use crate::volumes::{JournalPlace, Piece, Reservation};
use crate::write::{Last, Run};
use crate::{exhausted, lock, unavailable};
use cairn_archive::ObjectKey;
use cairn_store_api::{ObjectInfo, ObjectRef, StoreError, StoreErrorKind};
use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
};
use tokio::sync::oneshot;

/// Bytes given out after which there may be something to maintain.
const MAINTENANCE_BYTES: u64 = 1024 * 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What waits for a shared sync.
pub(crate) enum Request {
    /// All bytes of the object but the last are written; all of them are and durable too when there is no `last`.
    /// One that `repairs` may take the place of the same object: a crash before it is durable leaves that, so there is no
    /// `last`.
    Put { object: ObjectRef, run: Run, last: Option<Buffer>, repairs: bool, reply: Reply<ObjectInfo> },
    /// Gives the extents that are free then.
    Delete { key: ObjectKey, reply: Reply<Option<Arc<Entry>>> },
    /// The volume holds no object: move what its journal still says, then remove it.
    Evacuate { volume: u32 },
}

/// Requests on their way to the thread.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    woken: Condvar,
}

#[derive(Default)]
struct QueueState {
    requests: VecDeque<Request>,
    /// A group is being made durable.
    at_work: bool,
    ended: bool,
}

impl Queue {
    /// Adds a request, if there is room and the store is open.
    pub(crate) fn push(&self, request: Request, max: usize) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.ended {
            return Err(unavailable("object store is closed"));
        }
        if state.requests.len() >= max {
            return Err(exhausted("too many objects wait to be made durable"));
        }
        state.requests.push_back(request);
        self.woken.notify_one();
        Ok(())
    }

    /// Waits for requests; `None` once the queue is ended and empty.
    fn take(&self, max: usize) -> Option<Vec<Request>> {
        let mut state = lock(&self.state);
        state.at_work = false;
        while state.requests.is_empty() {
            if state.ended {
                return None;
            }
            state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.at_work = true;
        let count = state.requests.len().min(max);
        Some(state.requests.drain(..count).collect())
    }

    /// Whether a request that comes now would have to wait for others.
    pub(crate) fn is_busy(&self) -> bool {
        let state = lock(&self.state);
        state.at_work || !state.requests.is_empty()
    }

    /// Takes no more requests; the thread ends after those here.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.woken.notify_all();
    }
}

enum Waiting {
    /// With what it takes the place of.
    Put(ObjectInfo, Reservation, Option<Arc<Entry>>, Reply<ObjectInfo>),
    Delete(ObjectKey, Option<Arc<Entry>>, Reply<Option<Arc<Entry>>>),
}

impl Waiting {
    fn fail(self, error: &StoreError) {
        match self {
            Self::Put(_, room, _, reply) => {
                drop(room);
                drop(reply.send(Err(error.clone())));
            }
            Self::Delete(_, _, reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// What becomes durable by one sync.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    waiting: Vec<Waiting>,
    /// Bytes of objects that are written with the records.
    lasts: Vec<Last>,
    /// Volumes to be synced, beside those that get the records.
    dirty: BTreeSet<u32>,
    /// Keys with a record here.
    put: HashSet<ObjectKey>,
    deleted: HashSet<ObjectKey>,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// Last group written.
    group: u64,
    /// Fresh bytes when maintenance was last woken.
    fresh: u64,
    /// The journal blocks of a group, as they are written.
    encoded: Buffer,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, group: u64) -> Self {
        Self { shared, group, fresh: 0, encoded: Buffer::default() }
    }

    pub(crate) fn group(&self) -> u64 {
        self.group
    }

    /// Runs until the queue is ended.
    pub(crate) fn run(mut self) {
        while let Some(requests) = self.shared.queue.take(self.shared.config.group_objects_max) {
            let frees = requests.iter().any(|request| !matches!(request, Request::Put { .. }));
            self.commit(requests);
            self.checkpoint_if_due();
            self.wake_maintenance(frees);
        }
        self.checkpoint(true);
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let mut group = Group::default();
        let mut empty = Vec::new();
        let now = self.shared.clock.unix_ms();
        for request in requests {
            match request {
                Request::Put { object, run, last, repairs, reply } => {
                    let info = ObjectInfo { object, put_ended_at_ms: now };
                    self.add_put(&mut group, info, run, (last, repairs), reply);
                }
                Request::Delete { key, reply } => self.add_delete(&mut group, key, reply),
                Request::Evacuate { volume } => empty.push(volume),
            }
        }
        // Last, so that what this group changes is known to be of no use.
        empty.retain(|volume| self.add_useful(&mut group, *volume));
        let Group { mut records, waiting, lasts, dirty, .. } = group;
        let written = self.write_group(&mut records, &lasts, dirty);
        lasts.into_iter().for_each(|last| self.shared.buffers.give_back(last.bytes));
        match written {
            Ok(()) => {
                self.apply(records, waiting);
                empty.into_iter().for_each(|volume| self.remove(volume));
            }
            Err(error) => waiting.into_iter().for_each(|waiting| waiting.fail(&error)),
        }
    }

    fn add_put(
        &self,
        group: &mut Group,
        info: ObjectInfo,
        mut run: Run,
        (last, repairs): (Option<Buffer>, bool),
        reply: Reply<ObjectInfo>,
    ) {
        let key = info.object.key;
        let (synced, mut replaced) = (last.is_none(), None);
        let is_free = !group.put.contains(&key) && !group.deleted.contains(&key);
        let added = match self.shared.index.get(key) {
            Err(error) => Err(error),
            Ok(Some(there)) if repairs && is_free && synced && there.info.object == info.object => {
                replaced = Some(there);
                Ok(None)
            }
            Ok(None) if !group.put.contains(&key) => last.map_or(Ok(None), |last| run.end_with_others(last)),
            Ok(_) => Err(StoreError::new(StoreErrorKind::Conflict, format!("object {key} is there already"))),
        };
        let room = run.room;
        match added {
            Ok(last) => group.lasts.extend(last),
            Err(error) => {
                // The room first: whoever hears of the failure finds it free.
                drop(room);
                let _ = reply.send(Err(error));
                return;
            }
        }
        group.put.insert(key);
        if !synced {
            group.dirty.extend(room.volumes());
        }
        let entry = Entry { info, home: 0, synced, extents: room.extents().to_vec() };
        group.records.push(Record::Put(Arc::new(entry)));
        group.waiting.push(Waiting::Put(info, room, replaced, reply));
    }

    fn add_delete(&self, group: &mut Group, key: ObjectKey, reply: Reply<Option<Arc<Entry>>>) {
        match self.shared.index.get(key) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(None) => drop(reply.send(Ok(None))),
            // Which of the two runs of bytes is to go would be known too late.
            Ok(Some(_)) if group.put.contains(&key) => {
                drop(reply.send(Err(unavailable("the object is being repaired"))));
            }
            Ok(Some(entry)) if group.deleted.insert(key) => {
                group.records.push(Record::Delete(key, entry.home));
                group.waiting.push(Waiting::Delete(key, Some(entry), reply));
            }
            // The second of two waits with the first, but frees nothing.
            Ok(Some(_)) => group.waiting.push(Waiting::Delete(key, None, reply)),
        }
    }

    /// Adds what the journal of an empty volume says that nothing else does; tells whether that is known.
    fn add_useful(&self, group: &mut Group, volume: u32) -> bool {
        match self.shared.useful_records(volume) {
            Ok(mut useful) => {
                let changed = |key| group.put.contains(&key) || group.deleted.contains(&key);
                useful.retain(|record| record.key().is_some_and(|key| !changed(key)));
                group.records.append(&mut useful);
                true
            }
            Err(error) => {
                tracing::warn!(volume, %error, "journal of an empty volume can't be read; the volume stays");
                false
            }
        }
    }

    /// Writes records, and bytes of objects with them, and syncs these and the volumes given. On success the records know
    /// their home.
    pub(crate) fn write_group(
        &mut self,
        records: &mut [Record],
        lasts: &[Last],
        mut dirty: BTreeSet<u32>,
    ) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        self.shared.check_writable()?;
        let counts = split_records(records);
        // Fails without harm when the disk is full: nothing of the group is written yet.
        let places = self.shared.volumes.take_journal(counts.len())?;
        let group = self.group + 1;
        let (mut rest, mut blocks) = (records, Vec::with_capacity(counts.len()));
        for ((count, place), index) in counts.iter().zip(&places).zip(0..) {
            let (now, later) = rest.split_at_mut(*count);
            now.iter_mut().for_each(|record| set_home(record, place.volume));
            blocks.push(self.block(*place, group, index, counts.len() as u32, now.to_vec()));
            dirty.insert(place.volume);
            rest = later;
        }
        // From here on a failure leaves the outcome unknown to us too, and what a failed sync left in memory is never
        // trusted again: the store takes no more writes.
        let written = self.write_all(lasts, &blocks).and_then(|()| self.shared.volumes.sync(&dirty));
        written.map_err(|error| self.shared.poison("making objects durable", &error))?;
        self.group = group;
        Ok(())
    }

    fn block(&self, place: JournalPlace, group: u64, index: u32, blocks: u32, records: Vec<Record>) -> JournalBlock {
        let JournalPlace { volume, offset, previous } = place;
        JournalBlock { volume, offset, group, index, blocks, previous, records }
    }

    /// Writes bytes of objects and the journal: in one go where they lie side by side.
    fn write_all(&mut self, lasts: &[Last], blocks: &[JournalBlock]) -> io::Result<()> {
        self.encoded.clear();
        let secret = self.shared.volumes.secret();
        blocks.iter().for_each(|block| self.encoded.extend(&block.encode(secret)));
        let journal = blocks.iter().zip(self.encoded.chunks(BLOCK as usize));
        let journal = journal.map(|(block, bytes)| Piece { volume: block.volume, offset: block.offset, bytes });
        let pieces: Vec<Piece<'_>> = lasts.iter().flat_map(Last::pieces).chain(journal).collect();
        self.shared.volumes.write(&pieces)
    }

    /// Makes a durable group readable and tells those who wait.
    fn apply(&self, records: Vec<Record>, waiting: Vec<Waiting>) {
        for record in records {
            if let Err(error) = self.shared.apply(record) {
                tracing::error!(%error, "the object index can't be read; counts of room are off");
            }
        }
        for waiting in waiting {
            match waiting {
                Waiting::Put(info, room, replaced, reply) => {
                    room.commit();
                    if let Some(replaced) = replaced {
                        self.shared.leave(&replaced);
                        self.shared.cache.remove(&info.object.key);
                        if let Err(error) = self.shared.volumes.punch(&replaced.extents) {
                            tracing::warn!(%error, "room of damaged bytes can't be given back to the disk");
                        }
                    }
                    let _ = reply.send(Ok(info));
                }
                Waiting::Delete(key, entry, reply) => {
                    entry.iter().for_each(|entry| self.shared.leave(entry));
                    self.shared.cache.remove(&key);
                    let _ = reply.send(Ok(entry));
                }
            }
        }
    }

    fn remove(&self, volume: u32) {
        if let Err(error) = self.shared.volumes.remove(volume) {
            tracing::warn!(volume, %error, "an empty volume can't be removed");
        }
    }

    fn checkpoint_if_due(&self) {
        let config = &self.shared.config;
        if self.shared.index.changes() >= config.checkpoint_changes
            || self.shared.volumes.fresh() >= config.checkpoint_bytes
        {
            self.checkpoint(false);
        }
    }

    /// Not with every group: waking a thread costs as much as storing a small object.
    fn wake_maintenance(&mut self, frees: bool) {
        let fresh = self.shared.volumes.fresh();
        if frees || fresh.abs_diff(self.fresh) >= MAINTENANCE_BYTES {
            self.fresh = fresh;
            self.shared.maintenance.wake();
        }
    }

    /// Sets the index's changes aside, with the place up to which they know the journal. `last`: nothing comes after.
    fn checkpoint(&self, last: bool) {
        if last {
            self.shared.maintenance.settle();
        }
        if let Some(table) = self.shared.index.freeze() {
            let (objects, bytes) = self.shared.totals();
            let place = self.shared.volumes.checkpoint();
            let checkpoint = Checkpoint { group: self.group, place, table, objects, bytes, last };
            self.shared.maintenance.checkpoint(checkpoint);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Also when the thread has panicked: nobody waits for what will not come.
        self.shared.queue.end();
        lock(&self.shared.queue.state).requests.clear();
    }
}

fn set_home(record: &mut Record, volume: u32) {
    if let Record::Put(entry) = record {
        *record = Record::Put(Arc::new(Entry { home: volume, ..Entry::clone(entry) }));
    }
}
