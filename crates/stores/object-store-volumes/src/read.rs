//! Reading: every byte is verified before it is given out.

use crate::cache::Known;
use crate::layout::Entry;
use crate::shared::Shared;
use crate::volumes::{Patience, Volumes};
use blake3::hazmat::ChainingValue;
use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_store_api::tree::{GROUP, Hashes, PAGE_DATA, Shape, page_of, verify_groups, verify_whole};
use cairn_store_api::{ByteStream, ObjectRef, StoreError, StoreErrorKind};
use futures_util::stream;
use std::{io, ops::Range, sync::Arc};
use tokio::task::JoinHandle;

/// Bytes that are hashed at once after they were read, while the processor has them: a multiple of the group.
const VERIFIED_STEP: usize = 256 * 1024;

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
    /// Finds the object and what is needed to verify it; `None`: only the disk knows. Blocking with full patience.
    fn open(
        shared: Arc<Shared>,
        object: &ObjectRef,
        range: Range<u64>,
        patience: Patience,
    ) -> Result<Option<Self>, StoreError> {
        let known = match shared.cache.object(object.key) {
            Some(known) => known,
            None if patience == Patience::None && shared.index.may_read(object.key) => return Ok(None),
            None => {
                let entry = shared.index.get(object.key)?.ok_or_else(|| not_found(object.key))?;
                let hashes = load(&shared.volumes, &entry, patience);
                let Some(hashes) = hashes.map_err(|error| deleted_or(&shared, &entry, error))? else { return Ok(None) };
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
        Ok(Some(Self { shared, known, range, page: None }))
    }

    /// Reads and verifies the next bytes, at least one; `None`: they are not in memory. Blocking with full patience.
    fn next(&mut self, patience: Patience) -> Result<Option<Bytes>, StoreError> {
        let object = self.known.entry.info.object;
        let group = GROUP as u64;
        let from = self.range.start / group * group;
        let to = (from + self.shared.config.read_chunk_bytes as u64).min(self.range.end.next_multiple_of(group));
        // A chunk lies within one page, so that its bytes are in one piece.
        let to = to.min((page_of(from) + 1) * PAGE_DATA).min(object.length);
        let mut bytes = self.shared.chunks.take((to - from) as usize);
        match self.read(from, bytes.as_mut(), patience) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                self.shared.cache.remove(&object.key);
                return Err(deleted_or(&self.shared, &self.known.entry, error));
            }
        }
        let end = to.min(self.range.end);
        let part = Bytes::from_owner(bytes).slice((self.range.start - from) as usize..(end - from) as usize);
        self.range.start = end;
        Ok(Some(part))
    }

    /// The next bytes on their way, if there are more.
    fn ahead(self) -> Option<Ahead> {
        (!self.range.is_empty()).then(|| read_ahead(self))
    }

    /// Fills a buffer with verified bytes.
    fn read(&mut self, from: u64, buffer: &mut [u8], patience: Patience) -> Result<bool, StoreError> {
        let place = Shape::of(self.known.entry.info.object.length).data(from);
        for (step, bytes) in (0..).step_by(VERIFIED_STEP).zip(buffer.chunks_mut(VERIFIED_STEP)) {
            let here = self.shared.volumes.read_run(&self.known.entry, place + step, bytes, patience);
            if !here.map_err(|error| failed(&self.known.entry, &error))?
                || !self.verify(from + step, bytes, patience)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether these bytes could be verified; an error if they are wrong.
    fn verify(&mut self, from: u64, bytes: &[u8], patience: Patience) -> Result<bool, StoreError> {
        let group = from / GROUP as u64;
        let good = match &self.known.hashes {
            Hashes::Digest(digest) => verify_whole(digest, bytes),
            Hashes::Page(page) => verify_groups(page, group, bytes),
            Hashes::Pages(_) => match self.page(page_of(from), patience)? {
                Some(page) => verify_groups(&page, group, bytes),
                None => return Ok(false),
            },
        };
        if good { Ok(true) } else { Err(corrupt(self.known.entry.key())) }
    }

    fn page(&mut self, page: u64, patience: Patience) -> Result<Option<Arc<Vec<ChainingValue>>>, StoreError> {
        if let Some((number, values)) = &self.page
            && *number == page
        {
            return Ok(Some(values.clone()));
        }
        let key = self.known.entry.key();
        let values = match self.shared.cache.page(key, page) {
            Some(values) => values,
            None => {
                let values = load_page(&self.shared.volumes, &self.known, page, patience)?;
                let Some(values) = values.map(Arc::new) else { return Ok(None) };
                self.shared.cache.insert_page(key, page, values.clone());
                values
            }
        };
        self.page = Some((page, values.clone()));
        Ok(Some(values))
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

fn load(volumes: &Volumes, entry: &Entry, patience: Patience) -> Result<Option<Hashes>, StoreError> {
    let object = entry.info.object;
    let shape = Shape::of(object.length);
    let place = shape.top().or_else(|| (shape.pages() == 1).then(|| shape.page(0)));
    let mut bytes = Vec::new();
    if let Some((at, length)) = place {
        bytes.resize(length, 0);
        let here = volumes.read_run(entry, at, &mut bytes, patience);
        if !here.map_err(|error| failed(entry, &error))? {
            return Ok(None);
        }
    }
    Hashes::verify(shape, &object.digest.0, &bytes).ok_or_else(|| corrupt(object.key)).map(Some)
}

fn load_page(
    volumes: &Volumes,
    known: &Known,
    page: u64,
    patience: Patience,
) -> Result<Option<Vec<ChainingValue>>, StoreError> {
    let (at, length) = Shape::of(known.entry.info.object.length).page(page);
    let mut bytes = vec![0; length];
    let here = volumes.read_run(&known.entry, at, &mut bytes, patience);
    if !here.map_err(|error| failed(&known.entry, &error))? {
        return Ok(None);
    }
    known.hashes.verify_page(page, &bytes).ok_or_else(|| corrupt(known.entry.key())).map(Some)
}

/// Whether all of an object is on the disk as its record says, hashes included; for a restart.
pub(crate) fn is_whole(volumes: &Volumes, entry: &Arc<Entry>, chunk: usize) -> Result<bool, StoreError> {
    let damaged = |error: StoreError| if error.kind() == StoreErrorKind::Corrupt { Ok(false) } else { Err(error) };
    let hashes = match load(volumes, entry, Patience::Full) {
        Ok(Some(hashes)) => hashes,
        Ok(None) => return Ok(false),
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
        if let Err(error) = volumes.read_run(entry, Shape::of(length).data(at), bytes, Patience::Full) {
            return damaged(failed(entry, &error));
        }
        let good = match &known.hashes {
            Hashes::Digest(digest) => verify_whole(digest, bytes),
            Hashes::Page(page) => verify_groups(page, at / GROUP as u64, bytes),
            Hashes::Pages(_) => {
                let number = page_of(at);
                if page.as_ref().is_none_or(|(known, _)| *known != number) {
                    match load_page(volumes, &known, number, Patience::Full) {
                        Ok(values) => page = values.map(|values| (number, values)),
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

type Ahead = JoinHandle<(Reader, Result<Bytes, StoreError>)>;

/// The next bytes, from the disk if need be. Blocking.
fn waited(mut reader: Reader) -> (Reader, Result<Bytes, StoreError>) {
    let next = reader.next(Patience::Full);
    let next = next.and_then(|next| next.ok_or_else(|| corrupt(reader.known.entry.key())));
    (reader, next)
}

fn read_ahead(reader: Reader) -> Ahead {
    tokio::task::spawn_blocking(move || waited(reader))
}

fn panicked(error: &tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Internal, format!("reading an object: {error}"))
}

/// The first bytes, if memory has them and all that is needed to verify them. Whatever is wrong is left to who waits for the
/// disk.
fn at_once(shared: &Arc<Shared>, object: &ObjectRef, range: &Range<u64>) -> Option<(Reader, Bytes)> {
    let mut reader = Reader::open(shared.clone(), object, range.clone(), Patience::None).ok()??;
    let first = reader.next(Patience::None).ok()??;
    Some((reader, first))
}

/// Opens a read and gives its bytes, one chunk being read while the one before is used.
pub(crate) async fn stream(
    shared: Arc<Shared>,
    object: ObjectRef,
    range: Range<u64>,
) -> Result<ByteStream, StoreError> {
    // Waking a thread costs as much as reading a little of what the page cache has.
    if !range.is_empty()
        && let Some((reader, first)) = at_once(&shared, &object, &range)
    {
        return Ok(Box::pin(stream::unfold(Step::Ready(Ok(first), reader.ahead()), Step::next)));
    }
    // One visit to a thread opens and reads the first chunk: most reads are a frame, and end there.
    let first = tokio::task::spawn_blocking(move || {
        let reader = Reader::open(shared, &object, range, Patience::Full)?.ok_or_else(|| not_found(object.key))?;
        Ok(if reader.range.is_empty() { None } else { Some(waited(reader)) })
    });
    let step = match first.await.map_err(|error| panicked(&error))?? {
        None => Step::End,
        Some((_, Err(error))) => Step::Ready(Err(error), None),
        Some((reader, Ok(first))) => Step::Ready(Ok(first), reader.ahead()),
    };
    Ok(Box::pin(stream::unfold(step, Step::next)))
}

/// A chunk to give out now, and the one being read.
enum Step {
    Ready(Result<Bytes, StoreError>, Option<Ahead>),
    Reading(Ahead),
    End,
}

impl Step {
    async fn next(self) -> Option<(Result<Bytes, StoreError>, Self)> {
        match self {
            Self::End => None,
            Self::Ready(item, ahead) => Some((item, ahead.map_or(Self::End, Self::Reading))),
            Self::Reading(ahead) => match ahead.await {
                Err(error) => Some((Err(panicked(&error)), Self::End)),
                Ok((_, Err(error))) => Some((Err(error), Self::End)),
                Ok((reader, Ok(bytes))) => Some((Ok(bytes), reader.ahead().map_or(Self::End, Self::Reading))),
            },
        }
    }
}
