//! The one thread that writes: it drains the queue, writes what it found as one group, syncs once, and answers all.

use crate::{
    files::{self, WriteError},
    format::{self, GROUP_HEAD, GroupHead, GroupKind, RecordHead},
    index::{Place, SegmentIndex, Summary},
    recovery::{self, OpenSegment},
    shared::Shared,
};
use bytes::BytesMut;
use cairn_archive::{Offset, Partition};
use cairn_process::disk::DiskFile;
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{io, sync::Arc, thread::JoinHandle};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Larger group buffers are not kept.
const BUFFER_KEPT: usize = 1 << 20;

/// An append that waits.
pub(crate) struct Pending {
    pub(crate) partition: Partition,
    /// Records without place and time.
    pub(crate) frames: BytesMut,
    pub(crate) reply: oneshot::Sender<Result<Offset, StoreError>>,
    /// Room in the queue.
    pub(crate) room: OwnedSemaphorePermit,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Pending>,
    open: OpenSegment,
    last_ms: u64,
    /// The open segment's index is written: it takes no further group.
    indexed: bool,
    /// Bytes after the last group that a failed write may have left.
    dirty: Option<(u32, u32)>,
    /// The next segment, made while this one fills.
    next: Option<Preparing>,
    buffer: BytesMut,
}

enum Preparing {
    Running(JoinHandle<io::Result<Arc<dyn DiskFile>>>),
    Ready(Arc<dyn DiskFile>, u32),
}

/// A record of the group at hand.
struct Stamped {
    partition: usize,
    place: Place,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Pending>, open: OpenSegment) -> Self {
        let last_ms = shared.read().index.last_ms();
        Self { shared, queue, open, last_ms, indexed: false, dirty: None, next: None, buffer: BytesMut::new() }
    }

    /// Works until all senders of the queue are gone.
    pub(crate) fn run(mut self) {
        let mut group = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            self.gather(first, &mut group);
            self.commit(&mut group);
            if self.buffer.capacity() > BUFFER_KEPT {
                self.buffer = BytesMut::new();
            }
        }
        self.finish();
    }

    fn gather(&mut self, first: Pending, group: &mut Vec<Pending>) {
        let mut bytes = first.frames.len();
        group.push(first);
        if !self.shared.config.linger.is_zero() {
            std::thread::sleep(self.shared.config.linger);
        }
        while bytes < self.shared.config.group_bytes_max as usize {
            let Ok(pending) = self.queue.try_recv() else { break };
            bytes += pending.frames.len();
            group.push(pending);
        }
    }

    fn commit(&mut self, group: &mut Vec<Pending>) {
        let outcome = self.shared.check_appendable().and_then(|()| self.append(group));
        match outcome {
            Ok(firsts) => {
                for (pending, first) in group.drain(..).zip(firsts) {
                    drop(pending.room);
                    // A caller that has gone away does not want to know.
                    let _ = pending.reply.send(Ok(first));
                }
            }
            Err(error) => group.drain(..).for_each(|pending| _ = pending.reply.send(Err(error.clone()))),
        }
    }

    /// Writes a group and makes it durable, then readable. Gives the first offset of each append.
    fn append(&mut self, group: &[Pending]) -> Result<Vec<Offset>, StoreError> {
        let frames: usize = group.iter().map(|pending| pending.frames.len()).sum();
        let length = format::padded(GROUP_HEAD + frames);
        if self.indexed || length > (self.open.capacity - self.open.end) as usize {
            self.roll()?;
        }
        self.clean()?;
        let time_ms = self.shared.clock.unix_ms().max(self.last_ms);
        let (stamped, firsts) = self.assemble(group, length, time_ms);
        let position = self.open.end;
        if let Err(error) = self.open.file.write_all_at(&self.buffer, u64::from(position)) {
            self.dirty = Some((position, position + length as u32));
            // Tried at once, so that nothing of it is found after a crash; else before the next group.
            let _ = self.clean();
            return Err(StoreError::io("write event log", &error));
        }
        self.open.file.sync_data().map_err(|error| self.poison("sync event log", &error))?;
        self.open.end += length as u32;
        self.open.next_sequence += 1;
        self.open.unproven = true;
        self.last_ms = time_ms;
        self.publish(&stamped, time_ms, position);
        self.prepare_next();
        Ok(firsts)
    }

    /// Fills the buffer with the group.
    fn assemble(&mut self, group: &[Pending], length: usize, time_ms: u64) -> (Vec<Stamped>, Vec<Offset>) {
        let (mut stamped, mut firsts) = (Vec::new(), Vec::new());
        let mut next: Vec<u64> = self.shared.ends.iter().map(|end| *end.borrow()).collect();
        self.buffer.clear();
        self.buffer.resize(GROUP_HEAD, 0);
        for pending in group {
            let partition = usize::from(pending.partition.0);
            firsts.push(Offset(next[partition]));
            let mut at = self.buffer.len();
            self.buffer.extend_from_slice(&pending.frames);
            while let Some(head) = self.buffer.get(at..).and_then(RecordHead::read) {
                let end = at + head.length();
                format::stamp_record(
                    &mut self.buffer[at..end],
                    Offset(next[partition]),
                    time_ms,
                    self.shared.meta.seed,
                );
                let place = Place { position: self.open.end + at as u32, length: head.length() as u32 };
                stamped.push(Stamped { partition, place });
                next[partition] += 1;
                at = end;
            }
        }
        self.buffer.resize(length, 0);
        let head = GroupHead {
            kind: GroupKind::Records,
            sequence: self.open.next_sequence,
            segment: self.open.number,
            position: self.open.end,
            length: length as u32,
            time_ms,
            records: stamped.len() as u32,
        };
        head.write(&mut self.buffer, self.shared.meta.seed);
        (stamped, firsts)
    }

    /// Shows a durable group to readers.
    fn publish(&self, stamped: &[Stamped], time_ms: u64, position: u32) {
        let mut state = self.shared.write();
        state.index.mark_time(time_ms, position);
        for record in stamped {
            state.index.places[record.partition].push(record.place);
        }
        let ends: Vec<(usize, u64)> = stamped.iter().map(|r| (r.partition, state.index.end(r.partition))).collect();
        drop(state);
        for (partition, end) in ends {
            self.shared.ends[partition].send_if_modified(|known| std::mem::replace(known, end) != end);
        }
    }

    /// Clears what a failed write left.
    fn clean(&mut self) -> Result<(), StoreError> {
        if let Some((from, to)) = self.dirty {
            recovery::zero(self.open.file.as_ref(), from, to)
                .map_err(|error| StoreError::io("clear event log", &error))?;
            self.dirty = None;
        }
        Ok(())
    }

    /// Seals the open segment and opens the next one.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.clean()?;
        // The next segment is durable before the index is: where an index is, the segment after it must be.
        let (file, capacity) = self.take_next()?;
        let index = self.shared.read().index.clone();
        if !self.indexed {
            let bytes = index.to_bytes(self.open.number, self.open.next_sequence, self.open.end, self.shared.meta.seed);
            let name = files::index_name(self.open.number);
            if let Err(error) = files::write_new(self.shared.disk.as_ref(), &self.shared.dir, &name, &bytes) {
                self.next = Some(Preparing::Ready(file, capacity));
                return Err(match &error {
                    WriteError::Clean(error) => StoreError::io("write segment index", error),
                    WriteError::Unknown(error) => self.poison("write segment index", error),
                });
            }
            self.indexed = true;
        }
        let next_index = SegmentIndex::new(index.ends(), index.last_ms());
        let (number, next_sequence) = (self.open.number + 1, self.open.next_sequence);
        let mut open = OpenSegment { number, file, capacity, end: 0, next_sequence, unproven: false };
        recovery::write_opening(&mut open, &next_index, self.shared.meta.seed)
            .map_err(|error| self.poison("open segment", &error))?;
        let mut state = self.shared.write();
        state.sealed.push(Summary { bases: index.bases, floor_ms: index.floor_ms, last_ms: next_index.floor_ms });
        state.index = next_index;
        state.file = open.file.clone();
        drop(state);
        self.open = open;
        self.indexed = false;
        Ok(())
    }

    /// Begins to make the next segment early in this one: a burst must not wait for it.
    fn prepare_next(&mut self) {
        if self.next.is_some() || self.open.end < self.open.capacity / 8 {
            return;
        }
        let (shared, number) = (self.shared.clone(), self.open.number + 1);
        let prepare = move || prepare(&shared, number);
        // Without a thread it is made when it is needed.
        let spawned = std::thread::Builder::new().name("cairn-log-prepare".to_owned()).spawn(prepare);
        self.next = spawned.ok().map(Preparing::Running);
    }

    fn take_next(&mut self) -> Result<(Arc<dyn DiskFile>, u32), StoreError> {
        let capacity = self.shared.config.segment_bytes;
        let prepared = match self.next.take() {
            Some(Preparing::Ready(file, capacity)) => return Ok((file, capacity)),
            Some(Preparing::Running(thread)) => thread.join().ok().and_then(Result::ok),
            None => None,
        };
        // What failed some time ago may go well now.
        let prepared = prepared.map_or_else(|| prepare(&self.shared, self.open.number + 1), Ok);
        prepared.map(|file| (file, capacity)).map_err(|error| StoreError::io("prepare segment", &error))
    }

    fn poison(&self, what: &str, error: &io::Error) -> StoreError {
        self.shared.poison();
        tracing::error!(error = %error, "event log takes no more appends: {what} failed");
        StoreError::new(StoreErrorKind::Unavailable, format!("{what}: {error}"))
    }

    /// Proves the last group, so that damage to it is told from an unfinished tail.
    fn finish(mut self) {
        if let Some(Preparing::Running(thread)) = self.next.take() {
            let _ = thread.join();
        }
        let room = self.open.end as usize + GROUP_HEAD <= self.open.capacity as usize;
        let sound = self.shared.check_appendable().is_ok() && self.dirty.is_none() && !self.indexed;
        if self.open.unproven && room && sound {
            // Without it the log is as after a crash, which is sound too.
            let _ = recovery::write_marker(&mut self.open, self.last_ms, self.shared.meta.seed);
        }
    }
}

fn prepare(shared: &Shared, number: u64) -> io::Result<Arc<dyn DiskFile>> {
    let config = &shared.config;
    files::prepare_segment(shared.disk.as_ref(), &shared.dir, number, config.segment_bytes, config.reserve_bytes)
}
