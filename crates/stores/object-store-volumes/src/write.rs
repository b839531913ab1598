//! An object on its way in. It is hashed as it comes. A small one is held until it is whole, and written by the thread that
//! makes it durable: waking another would cost more than writing it. A larger one is collected in buffers, each written by a
//! thread of its own while the next fills and is hashed. What is small depends on whether the disk has work.

use crate::buffers::Buffer;
use crate::commit::Request;
use crate::layout::{BLOCK, Extent};
use crate::shared::Shared;
use crate::unavailable;
use crate::volumes::{Piece, Reservation};
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use cairn_archive::{Digest, ObjectKey};
use cairn_store_api::tree::{GROUP, PAGE_DATA, Shape, TreeHasher};
use cairn_store_api::{ObjectInfo, ObjectRef, ObjectWriter, StoreError, StoreErrorKind};
use std::sync::{Arc, atomic::Ordering};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    task::JoinHandle,
};

/// Room taken at once for an object that turns out larger than its first reservation.
const STEP_MIN: u64 = 1024 * 1024;
const STEP_MAX: u64 = 64 * 1024 * 1024;
/// What may follow the data of a small object in its buffer: hashes, and zeros up to the end of a block.
pub(crate) const BEHIND_DATA: usize = 2 * BLOCK as usize;

/// The run of an object: its data and their hashes, on the way into its room.
pub(crate) struct Run {
    shared: Arc<Shared>,
    pub(crate) room: Reservation,
    hint: Option<u64>,
    /// Bytes of the run written.
    written: u64,
}

/// The last bytes of a run, up to the end of a block, and where they go.
pub(crate) struct Last {
    pub(crate) bytes: Buffer,
    pub(crate) places: Vec<Extent>,
}

impl Last {
    /// What to write.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        pieces(&self.places, &self.bytes)
    }
}

/// Deals bytes to the places that they go to.
fn pieces<'a>(places: &'a [Extent], bytes: &'a [u8]) -> impl Iterator<Item = Piece<'a>> {
    let mut left = bytes;
    places.iter().map(move |place| {
        let (now, later) = left.split_at(left.len().min(place.length as usize));
        left = later;
        Piece { volume: place.volume, offset: place.offset, bytes: now }
    })
}

impl Run {
    /// Takes room for the next bytes; gives where they go.
    fn place(&mut self, length: u64) -> Result<Vec<Extent>, StoreError> {
        let end = self.written + length;
        if let Some(missing) = end.checked_sub(self.room.length()).filter(|missing| *missing > 0) {
            self.room.grow(missing, self.wanted(missing))?;
        }
        let (mut places, mut start) = (Vec::new(), 0);
        for extent in self.room.extents() {
            let (from, to) = (self.written.max(start), end.min(start + extent.length));
            if from < to {
                places.push(Extent { offset: extent.offset + (from - start), length: to - from, ..*extent });
            }
            start += extent.length;
        }
        self.written = end;
        Ok(places)
    }

    /// Writes the next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let places = self.place(bytes.len() as u64)?;
        self.write(pieces(&places, bytes))
    }

    fn write<'a>(&self, pieces: impl Iterator<Item = Piece<'a>>) -> Result<(), StoreError> {
        let written = self.shared.volumes.write(&pieces.collect::<Vec<_>>());
        written.map_err(|error| StoreError::io("writing an object", &error))
    }

    /// Takes room for the last bytes and gives back what is left. They are still to be written.
    fn end(&mut self, mut bytes: Buffer) -> Result<Last, StoreError> {
        let run = self.written + bytes.len() as u64;
        // A block written in part would have to be read first.
        bytes.pad(bytes.len().next_multiple_of(BLOCK as usize));
        let places = self.place(bytes.len() as u64)?;
        self.room.trim(run);
        self.shared.typical.store(run.next_multiple_of(BLOCK), Ordering::Relaxed);
        Ok(Last { bytes, places })
    }

    /// Writes the last bytes now.
    fn end_written(&mut self, bytes: Buffer) -> Result<(), StoreError> {
        let last = self.end(bytes)?;
        self.write(last.pieces())?;
        self.shared.buffers.give_back(last.bytes);
        Ok(())
    }

    /// Takes room for the last bytes; gives them if they can be written with those of others. Where room may turn out to be
    /// missing as they are written, that is done now, so that this object alone fails.
    pub(crate) fn end_with_others(&mut self, bytes: Buffer) -> Result<Option<Last>, StoreError> {
        let last = self.end(bytes)?;
        if self.shared.volumes.is_prewritten(&last.places) {
            return Ok(Some(last));
        }
        self.write(last.pieces())?;
        self.shared.buffers.give_back(last.bytes);
        Ok(None)
    }

    /// Writes the last bytes and makes all of them durable, so that nobody else waits for them.
    fn end_synced(mut self, last: Buffer) -> Result<Self, StoreError> {
        self.end_written(last)?;
        let synced = self.shared.volumes.sync(&self.room.volumes());
        synced.map_err(|error| self.shared.poison("making an object durable", &error))?;
        Ok(self)
    }

    /// Bytes of room to take: what was announced, else as much as the last object took, then ever more.
    fn wanted(&self, missing: u64) -> u64 {
        if self.written > 0 {
            return missing.max(self.written.clamp(STEP_MIN, STEP_MAX));
        }
        let announced = self.hint.map(|hint| Shape::of(hint.min(self.shared.config.object_bytes_max)).run());
        let likely = announced.unwrap_or_else(|| self.shared.typical.load(Ordering::Relaxed));
        missing.max(likely.min(if announced.is_some() { STEP_MAX } else { 16 * STEP_MIN }))
    }
}

/// Hashes the data as they come, in whole groups.
struct Hashing {
    hasher: TreeHasher,
    /// Data bytes hashed.
    hashed: u64,
    /// Data bytes in the buffers before this one.
    before: u64,
}

impl Hashing {
    /// Hashes what is not hashed yet of a buffer.
    fn hash(&mut self, buffer: &[u8]) {
        let done = self.hashed.saturating_sub(self.before) as usize;
        let new = buffer.get(done..).unwrap_or_default();
        self.hasher.update(new);
        self.hashed += new.len() as u64;
    }

    /// Hashes those groups of a buffer that are whole.
    fn hash_groups(&mut self, buffer: &[u8]) {
        self.hash(&buffer[..buffer.len() / GROUP * GROUP]);
    }

    /// The buffer is full and another follows. Gives what stands between them: the hashes of the page, if this was its last.
    /// Buffers do not cross pages: a page's data is a multiple of them.
    fn next_buffer(&mut self, full: &[u8]) -> Vec<u8> {
        self.hash(full);
        self.before += full.len() as u64;
        if self.before.is_multiple_of(PAGE_DATA) { self.hasher.end_page() } else { Vec::new() }
    }

    /// The last buffer; gives length and digest of the object, and the hashes behind its data.
    fn finish(mut self, last: &[u8]) -> (u64, Digest, Vec<u8>) {
        self.hash(last);
        let (digest, tail) = self.hasher.finish();
        (self.hashed, Digest(*digest.as_bytes()), tail)
    }
}

type Working = JoinHandle<(Result<Box<Run>, StoreError>, Buffer)>;

enum Work {
    Idle(Box<Run>),
    Busy(Working),
    Failed(StoreError),
}

pub(crate) struct VolumeWriter {
    shared: Arc<Shared>,
    key: ObjectKey,
    hashing: Hashing,
    work: Work,
    buffer: Buffer,
    /// The other buffer, when no thread has it.
    other: Buffer,
    received: u64,
    /// Bytes that the buffer takes before it is flushed.
    size: usize,
    /// The object is not a small one: a buffer was handed on.
    flushed: bool,
    /// The object whose bytes are brought again.
    repairs: Option<ObjectRef>,
    /// Last, so that a store being closed waits for the room to be given back.
    _permit: OwnedSemaphorePermit,
}

impl VolumeWriter {
    pub(crate) fn new(shared: Arc<Shared>, key: ObjectKey, hint: Option<u64>, permit: OwnedSemaphorePermit) -> Self {
        let room = Reservation::new(shared.volumes.clone());
        let run = Box::new(Run { shared: shared.clone(), room, hint, written: 0 });
        let hashing = Hashing { hasher: TreeHasher::new(), hashed: 0, before: 0 };
        let (buffer, other) = Default::default();
        let size = shared.config.write_buffer_bytes;
        let work = Work::Idle(run);
        Self {
            shared,
            key,
            hashing,
            work,
            buffer,
            other,
            received: 0,
            size,
            flushed: false,
            repairs: None,
            _permit: permit,
        }
    }

    /// Takes the place of the bytes of an object that is there, if it is the same.
    pub(crate) fn repairing(mut self, object: ObjectRef) -> Self {
        self.repairs = Some(object);
        self
    }

    /// Waits until no thread is at work.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if let Work::Busy(working) = &mut self.work {
            self.work = match working.await {
                Ok((Ok(run), buffer)) => {
                    if self.other.capacity() == 0 && buffer.capacity() <= self.size + BEHIND_DATA {
                        self.other = buffer;
                    } else {
                        self.shared.buffers.give_back(buffer);
                    }
                    Work::Idle(run)
                }
                Ok((Err(error), _)) => Work::Failed(error),
                Err(error) => {
                    Work::Failed(StoreError::new(StoreErrorKind::Internal, format!("writing an object: {error}")))
                }
            };
        }
        match &self.work {
            Work::Failed(error) => Err(error.clone()),
            Work::Idle(_) | Work::Busy(_) => Ok(()),
        }
    }

    fn fail(&mut self, error: StoreError) -> StoreError {
        self.work = Work::Failed(error.clone());
        error
    }

    /// Whether a buffer so full is held on to: while few are at work, or while others are made durable, for which this
    /// object would have to wait anyway.
    fn holds_on(&mut self) -> bool {
        let held_max = self.shared.config.held_object_bytes_max;
        let held = || self.are_few() || self.shared.queue.is_busy();
        let more = self.buffer.len() < held_max && !self.flushed && held();
        if more {
            self.size = held_max;
        }
        more
    }

    /// Makes room for so many more bytes in the buffer.
    fn make_room(&mut self, more: usize) {
        let needed = self.buffer.len() + more;
        if self.buffer.capacity() >= needed {
            return;
        }
        let Self { shared, size, flushed, .. } = self;
        let config = &shared.config;
        // Small objects stay small; the rest get a buffer that needs not grow, with room for what follows the data.
        let mut larger = if !*flushed && needed <= config.write_buffer_bytes / 4 {
            Buffer::with_capacity(needed.next_multiple_of(BLOCK as usize) + BEHIND_DATA)
        } else if *flushed && *size < config.held_object_bytes_max {
            Buffer::with_capacity(*size + BEHIND_DATA)
        } else {
            shared.buffers.take()
        };
        larger.extend(&self.buffer);
        self.buffer = larger;
    }

    /// Hands the full buffer to a thread: a disk that stalls must not halt the caller's.
    async fn flush(&mut self) -> Result<(), StoreError> {
        self.settle().await?;
        self.flushed = true;
        let mut run = self.take_run()?;
        let mut full = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.other));
        let hashes = self.hashing.next_buffer(&full);
        self.size = self.next_size();
        self.work = Work::Busy(tokio::task::spawn_blocking(move || {
            let written = run.put(&full).and_then(|()| run.put(&hashes));
            full.clear();
            (written.map(|()| run), full)
        }));
        Ok(())
    }

    /// Bytes of the next buffer: many once the object proves to be long while few are at work, for each buffer is a thread
    /// woken; never across pages.
    fn next_size(&self) -> usize {
        let (config, begin) = (&self.shared.config, self.hashing.before);
        let long = self.are_few() && begin >= config.held_object_bytes_max as u64;
        let size = if long { config.held_object_bytes_max } else { config.write_buffer_bytes };
        size.min((PAGE_DATA - begin % PAGE_DATA) as usize)
    }

    fn are_few(&self) -> bool {
        let config = &self.shared.config;
        config.writers_max - self.shared.writers.available_permits() <= config.writers_few
    }

    /// The run; without it the writer has failed.
    fn take_run(&mut self) -> Result<Box<Run>, StoreError> {
        let cut_off = unavailable("writing an object was cut off");
        match std::mem::replace(&mut self.work, Work::Failed(cut_off.clone())) {
            Work::Idle(run) => Ok(run),
            Work::Busy(_) | Work::Failed(_) => Err(cut_off),
        }
    }
}

#[async_trait]
impl ObjectWriter for VolumeWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        if let Work::Failed(error) = &self.work {
            return Err(error.clone());
        }
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.shared.config.object_bytes_max {
            let error = StoreError::new(StoreErrorKind::Invalid, "object is longer than the store takes");
            return Err(self.fail(error));
        }
        while !bytes.is_empty() {
            // Flushed when more comes, not when full: the last buffer goes with the hashes in one write.
            if self.buffer.len() == self.size && !self.holds_on() {
                self.flush().await?;
            }
            let now = bytes.len().min(self.size - self.buffer.len());
            self.make_room(now);
            self.buffer.extend(bytes.chunk().get(..now).unwrap_or_default());
            bytes.advance(now);
            self.hashing.hash_groups(&self.buffer);
        }
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

impl VolumeWriter {
    async fn end(mut self: Box<Self>, expected: Option<ObjectRef>) -> Result<ObjectInfo, StoreError> {
        self.settle().await?;
        let mut run = *self.take_run()?;
        // Parts, for the permit stays until all is done.
        let Self { shared, key, hashing, buffer, repairs, _permit, .. } = *self;
        let mut last = buffer;
        let (length, digest, hashes) = hashing.finish(&last);
        last.extend(&hashes);
        debug_assert_eq!(run.written + last.len() as u64, Shape::of(length).run());
        let object = ObjectRef { key, length, digest };
        if expected.or(repairs).is_some_and(|expected| expected != object) {
            return Err(StoreError::new(StoreErrorKind::Corrupt, format!("what was brought is not object {key}")));
        }
        let repairs = repairs.is_some();
        let mut last = Some(last);
        if repairs || length > shared.config.shared_sync_bytes_max {
            let synced = tokio::task::spawn_blocking(move || run.end_synced(last.take().unwrap_or_default()));
            let synced = synced
                .await
                .map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("writing an object: {error}")));
            run = synced??;
            last = None;
        }
        let (reply, replied) = oneshot::channel();
        shared.queue.push(Request::Put { object, run, last, repairs, reply }, shared.config.writers_max)?;
        replied.await.map_err(|_| unavailable("object store ended"))?
    }
}
