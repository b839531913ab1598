//! Reading: every byte is verified before it is given out.

use crate::cache::Known;
use crate::layout::Entry;
use crate::shared::Shared;
use crate::volumes::Volumes;
use blake3::hazmat::ChainingValue;
use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_store_api::tree::{GROUP, Hashes, PAGE_DATA, Shape, page_of, verify_groups, verify_whole};
use cairn_store_api::{ByteStream, ObjectRef, StoreError, StoreErrorKind};
use futures_util::stream;
use std::{io, ops::Range, sync::Arc};
use tokio::task::JoinHandle;

pub(crate) fn not_found(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("object {key} does not exist"))
}

fn corrupt(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("object {key} is damaged on the disk"))
}

/// A medium that gives an I/O error, or less than was written, has lost the bytes.
fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) || error.raw_os_error() == Some(EIO)
}

/// An open read.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    known: Arc<Known>,
    range: Range<u64>,
    /// The page of an object of several that was used last.
    page: Option<(u64, Arc<Vec<ChainingValue>>)>,
}

impl Reader {
    /// Finds the object and what is needed to verify it. Blocking.
    pub(crate) fn open(shared: Arc<Shared>, object: &ObjectRef, range: Range<u64>) -> Result<Self, StoreError> {
        let known = match shared.cache.object(object.key) {
            Some(known) => known,
            None => {
                let entry = shared.index.get(object.key)?.ok_or_else(|| not_found(object.key))?;
                let hashes = load(&shared.volumes, &entry).map_err(|error| deleted_or(&shared, &entry, error))?;
                let known = Arc::new(Known { entry, hashes });
                shared.cache.insert_object(known.clone());
                if shared.index.get(object.key)?.is_none() {
                    // Deleted meanwhile: the deletion may have come before the cache knew it.
                    shared.cache.remove(&object.key);
                    return Err(not_found(object.key));
                }
                known
            }
        };
        if known.entry.info.object != *object {
            let message = format!("object {} is of another length or digest", object.key);
            return Err(StoreError::new(StoreErrorKind::Invalid, message));
        }
        if range.start > range.end || range.end > object.length {
            let message =
                format!("bytes {}..{} are not in object {} of {}", range.start, range.end, object.key, object.length);
            return Err(StoreError::new(StoreErrorKind::Invalid, message));
        }
        Ok(Self { shared, known, range, page: None })
    }

    /// Reads and verifies the next bytes; `None` at the end. Blocking.
    fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let entry = self.known.entry.clone();
        let object = entry.info.object;
        let group = GROUP as u64;
        let from = self.range.start / group * group;
        let to = (from + self.shared.config.read_chunk_bytes as u64).min(self.range.end.next_multiple_of(group));
        // A chunk lies within one page, so that its bytes are in one piece.
        let to = to.min((page_of(from) + 1) * PAGE_DATA).min(object.length);
        let mut bytes = vec![0; (to - from) as usize];
        let read = self.shared.volumes.read_run(&entry, Shape::of(object.length).data(from), &mut bytes);
        let verified = read.map_err(|error| failed(&entry, &error)).and_then(|()| self.verify(from, &bytes));
        if let Err(error) = verified {
            self.shared.cache.remove(&object.key);
            return Err(deleted_or(&self.shared, &entry, error));
        }
        let end = to.min(self.range.end);
        let part = Bytes::from(bytes).slice((self.range.start - from) as usize..(end - from) as usize);
        self.range.start = end;
        Ok(Some(part))
    }

    fn verify(&mut self, from: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let group = from / GROUP as u64;
        let good = match &self.known.hashes {
            Hashes::Digest(digest) => verify_whole(digest, bytes),
            Hashes::Page(page) => verify_groups(page, group, bytes),
            Hashes::Pages(_) => verify_groups(&self.page(page_of(from))?, group, bytes),
        };
        if good { Ok(()) } else { Err(corrupt(self.known.entry.key())) }
    }

    fn page(&mut self, page: u64) -> Result<Arc<Vec<ChainingValue>>, StoreError> {
        if let Some((number, values)) = &self.page
            && *number == page
        {
            return Ok(values.clone());
        }
        let key = self.known.entry.key();
        let values = match self.shared.cache.page(key, page) {
            Some(values) => values,
            None => {
                let values = Arc::new(load_page(&self.shared.volumes, &self.known, page)?);
                self.shared.cache.insert_page(key, page, values.clone());
                values
            }
        };
        self.page = Some((page, values.clone()));
        Ok(values)
    }
}

fn failed(entry: &Entry, error: &io::Error) -> StoreError {
    if is_damage(error) { corrupt(entry.key()) } else { StoreError::io("reading an object", error) }
}

/// A deleted object's bytes may be gone under a reader: that is no damage.
fn deleted_or(shared: &Shared, entry: &Entry, error: StoreError) -> StoreError {
    match shared.index.get(entry.key()) {
        Ok(None) => not_found(entry.key()),
        _ => error,
    }
}

fn load(volumes: &Volumes, entry: &Entry) -> Result<Hashes, StoreError> {
    let object = entry.info.object;
    let shape = Shape::of(object.length);
    let place = shape.top().or_else(|| (shape.pages() == 1).then(|| shape.page(0)));
    let mut bytes = Vec::new();
    if let Some((at, length)) = place {
        bytes.resize(length, 0);
        volumes.read_run(entry, at, &mut bytes).map_err(|error| failed(entry, &error))?;
    }
    Hashes::verify(shape, &object.digest.0, &bytes).ok_or_else(|| corrupt(object.key))
}

fn load_page(volumes: &Volumes, known: &Known, page: u64) -> Result<Vec<ChainingValue>, StoreError> {
    let (at, length) = Shape::of(known.entry.info.object.length).page(page);
    let mut bytes = vec![0; length];
    volumes.read_run(&known.entry, at, &mut bytes).map_err(|error| failed(&known.entry, &error))?;
    known.hashes.verify_page(page, &bytes).ok_or_else(|| corrupt(known.entry.key()))
}

/// Whether all of an object is on the disk as its record says, hashes included; for a restart.
pub(crate) fn is_whole(volumes: &Volumes, entry: &Arc<Entry>, chunk: usize) -> Result<bool, StoreError> {
    let damaged = |error: StoreError| if error.kind() == StoreErrorKind::Corrupt { Ok(false) } else { Err(error) };
    let hashes = match load(volumes, entry) {
        Ok(hashes) => hashes,
        Err(error) => return damaged(error),
    };
    let known = Known { entry: entry.clone(), hashes };
    let length = entry.info.object.length;
    let (mut at, mut page) = (0, None);
    let mut buffer = vec![0; chunk];
    // The hashes of an empty object say nothing: its digest does.
    loop {
        let to = (at + chunk as u64).min((page_of(at) + 1) * PAGE_DATA).min(length);
        let bytes = buffer.get_mut(..(to - at) as usize).unwrap_or_default();
        if let Err(error) = volumes.read_run(entry, Shape::of(length).data(at), bytes) {
            return damaged(failed(entry, &error));
        }
        let good = match &known.hashes {
            Hashes::Digest(digest) => verify_whole(digest, bytes),
            Hashes::Page(page) => verify_groups(page, at / GROUP as u64, bytes),
            Hashes::Pages(_) => {
                let number = page_of(at);
                if page.as_ref().is_none_or(|(known, _)| *known != number) {
                    match load_page(volumes, &known, number) {
                        Ok(values) => page = Some((number, values)),
                        Err(error) => return damaged(error),
                    }
                }
                page.as_ref().is_some_and(|(_, values)| verify_groups(values, at / GROUP as u64, bytes))
            }
        };
        at = to;
        if !good || at >= length {
            return Ok(good);
        }
    }
}

type Ahead = JoinHandle<(Reader, Result<Option<Bytes>, StoreError>)>;

fn read_ahead(mut reader: Reader) -> Ahead {
    tokio::task::spawn_blocking(move || {
        let next = reader.next();
        (reader, next)
    })
}

fn panicked(error: &tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Internal, format!("reading an object: {error}"))
}

/// Opens a read and gives its bytes, one chunk being read while the one before is used.
pub(crate) async fn stream(
    shared: Arc<Shared>,
    object: ObjectRef,
    range: Range<u64>,
) -> Result<ByteStream, StoreError> {
    // One visit to a thread opens and reads the first chunk: most reads are a frame, and end there.
    let first = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::open(shared, &object, range)?;
        let first = reader.next();
        Ok((reader, first))
    });
    let (reader, first) = first.await.map_err(|error| panicked(&error))??;
    let first = first.transpose().map(|first| (first, reader));
    let ahead = first.map(|(first, reader)| {
        let more = first.is_ok() && !reader.range.is_empty();
        (first, more.then(|| read_ahead(reader)))
    });
    Ok(Box::pin(stream::unfold(Step::from(ahead), Step::next)))
}

/// A chunk to give out now, and the one being read.
enum Step {
    Ready(Result<Bytes, StoreError>, Option<Ahead>),
    Reading(Ahead),
    End,
}

impl From<Option<(Result<Bytes, StoreError>, Option<Ahead>)>> for Step {
    fn from(first: Option<(Result<Bytes, StoreError>, Option<Ahead>)>) -> Self {
        first.map_or(Self::End, |(first, ahead)| Self::Ready(first, ahead))
    }
}

impl Step {
    async fn next(self) -> Option<(Result<Bytes, StoreError>, Self)> {
        match self {
            Self::End => None,
            Self::Ready(item, ahead) => Some((item, ahead.map_or(Self::End, Self::Reading))),
            Self::Reading(ahead) => match ahead.await {
                Err(error) => Some((Err(panicked(&error)), Self::End)),
                Ok((_, Err(error))) => Some((Err(error), Self::End)),
                Ok((_, Ok(None))) => None,
                Ok((reader, Ok(Some(bytes)))) => {
                    let rest = if reader.range.is_empty() { Self::End } else { Self::Reading(read_ahead(reader)) };
                    Some((Ok(bytes), rest))
                }
            },
        }
    }
}
