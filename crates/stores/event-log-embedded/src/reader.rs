//! Reading: offsets to places, places to bytes, bytes to records.

use crate::{
    format::{self, RecordHead},
    index::{IndexFile, Place, TimeMark},
    recovery,
    shared::{self, Shared},
};
use bytes::{Bytes, BytesMut};
use cairn_archive::{Offset, Partition, envelope::compact};
use cairn_process::disk::DiskFile;
use cairn_store_api::{LogBatch, LogRecord, Record, StoreError, StoreErrorKind};
use std::{io, sync::Arc};

/// Records of one append or of one group stand this close: they are read at once.
const GAP: u32 = 256;

/// What to read.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) partition: Partition,
    pub(crate) from: Offset,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

/// Records of one segment, to be read without the lock.
struct Span {
    file: Arc<dyn DiskFile>,
    places: Vec<Place>,
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Full,
}

/// Bytes that are read at once at most: copied and checked on a thread that has others to serve.
const AT_ONCE_MAX: usize = 256 << 10;

/// Reads records. Blocking.
pub(crate) fn read(shared: &Shared, request: Request) -> Result<LogBatch, StoreError> {
    let (span, end) = locate(shared, request)?;
    let records = span.map_or(Ok(None), |span| read_span(shared, request, &span, Patience::Full))?;
    Ok(LogBatch { records: records.unwrap_or_default(), end: Offset(end) })
}

/// Reads records of the open segment that are in memory, as those are that were just appended: no thread needs to be woken
/// for that. `None`: only [`read`] can tell.
pub(crate) fn read_at_once(shared: &Shared, request: Request) -> Result<Option<LogBatch>, StoreError> {
    if request.from.0 < shared.read().index.bases[usize::from(request.partition.0)] {
        return Ok(None);
    }
    let (span, end) = locate(shared, request)?;
    let Some(span) = span else { return Ok(Some(LogBatch { records: Vec::new(), end: Offset(end) })) };
    if span.places.iter().map(|place| place.length as usize).sum::<usize>() > AT_ONCE_MAX {
        return Ok(None);
    }
    let records = read_span(shared, request, &span, Patience::None)?;
    Ok(records.map(|records| LogBatch { records, end: Offset(end) }))
}

/// `None` without patience: they are not in memory, or not as they should be.
fn read_span(
    shared: &Shared,
    request: Request,
    span: &Span,
    patience: Patience,
) -> Result<Option<Vec<LogRecord>>, StoreError> {
    let (file, partition) = (span.file.as_ref(), request.partition);
    let mut records = Vec::with_capacity(span.places.len());
    let mut offset = request.from;
    let mut places = &span.places[..];
    while !places.is_empty() {
        let run = run_length(places);
        let Some(bytes) = read_run(file, &places[..run], patience)? else { return Ok(None) };
        let start = places[0].position;
        for place in &places[..run] {
            let from = (place.position - start) as usize;
            let frame = bytes.slice(from..from + place.length as usize);
            let again = || decode(shared, read_run(file, &[*place], patience).ok()??, partition, offset);
            match decode(shared, frame, partition, offset).or_else(again) {
                Some(record) => records.push(record),
                None if patience == Patience::None => return Ok(None),
                None if records.is_empty() => return Err(damage(shared, partition, offset)),
                // The reader that goes on from here is told.
                None => return Ok(Some(records)),
            }
            offset = offset.next();
        }
        places = &places[run..];
    }
    Ok(Some(records))
}

/// Where the records are, and the partition's end; no span at the end.
fn locate(shared: &Shared, request: Request) -> Result<(Option<Span>, u64), StoreError> {
    let (partition, from) = (usize::from(request.partition.0), request.from.0);
    let state = shared.read();
    if shared.is_closed() {
        return Err(shared::closed());
    }
    let end = state.index.end(partition);
    let damaged = state.damaged_from[partition];
    if from >= damaged {
        return Err(corrupt(request.partition, Offset(damaged)));
    }
    if from >= end || request.records_max == 0 {
        return Ok((None, end));
    }
    let most = request.records_max.min(usize::try_from(damaged - from).unwrap_or(usize::MAX));
    let base = state.index.bases[partition];
    if from >= base {
        let places = choose(&state.index.places[partition][(from - base) as usize..], most, request.bytes_max);
        return Ok((Some(Span { file: state.file.clone(), places }), end));
    }
    // The first segment begins every partition at 0, so there is one before.
    let segment = state.sealed.partition_point(|summary| summary.bases[partition] <= from).saturating_sub(1);
    let base = state.sealed[segment].bases[partition];
    drop(state);
    let places = sealed_places(shared, segment as u64, partition)?;
    let rest = places.get((from - base) as usize..).filter(|rest| !rest.is_empty());
    let rest = rest.ok_or_else(|| damage(shared, request.partition, request.from))?;
    let places = choose(rest, most, request.bytes_max);
    let file = segment_file(shared, segment as u64)?;
    Ok((Some(Span { file, places }), end))
}

fn choose(places: &[Place], records_max: usize, bytes_max: usize) -> Vec<Place> {
    let mut bytes = 0;
    let wanted = places.iter().take(records_max).take_while(|place| {
        let take = bytes == 0 || bytes < bytes_max;
        bytes += place.length as usize;
        take
    });
    wanted.copied().collect()
}

/// How many of the places, at least one, are read at once.
fn run_length(places: &[Place]) -> usize {
    let apart = |pair: &[Place]| {
        let end = pair[0].position + pair[0].length;
        pair[1].position < end || pair[1].position - end > GAP
    };
    places.windows(2).position(apart).map_or(places.len(), |last| last + 1)
}

fn read_run(file: &dyn DiskFile, run: &[Place], patience: Patience) -> Result<Option<Bytes>, StoreError> {
    let [first, .., last] = run else {
        return read_bytes(file, run[0].position, run[0].length as usize, patience);
    };
    read_bytes(file, first.position, (last.position - first.position + last.length) as usize, patience)
}

fn read_bytes(
    file: &dyn DiskFile,
    position: u32,
    length: usize,
    patience: Patience,
) -> Result<Option<Bytes>, StoreError> {
    let mut bytes = BytesMut::zeroed(length);
    let read = match patience {
        Patience::None => file.read_at_once(&mut bytes, u64::from(position)),
        Patience::Full => file.read_exact_at(&mut bytes, u64::from(position)).map(|()| true),
    };
    match read {
        // A file that was cut: what is missing reads as zero and fails its checksum.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(StoreError::io("read event log", &error)),
        Ok(false) => return Ok(None),
        Ok(true) => {}
    }
    Ok(Some(bytes.freeze()))
}

fn decode(shared: &Shared, frame: Bytes, partition: Partition, offset: Offset) -> Option<LogRecord> {
    let head = RecordHead::read(&frame)?;
    if head.partition != partition || head.offset != offset || !format::verify_record(&head, &frame, shared.meta.seed) {
        return None;
    }
    let (envelope, payload) = format::split_record(&head, frame);
    let envelope = compact::decode(&envelope, &shared.meta.site)?;
    Some(LogRecord { offset, appended_at_ms: head.time_ms, record: Record { envelope, payload } })
}

/// Takes note that a partition can't be read from this offset on.
fn damage(shared: &Shared, partition: Partition, offset: Offset) -> StoreError {
    let mut state = shared.write();
    let from = &mut state.damaged_from[usize::from(partition.0)];
    *from = (*from).min(offset.0);
    tracing::error!(partition = partition.0, offset = offset.0, "event log record is damaged");
    corrupt(partition, offset)
}

pub(crate) fn corrupt(partition: Partition, offset: Offset) -> StoreError {
    let what = format!("event log partition {} is damaged from offset {}", partition.0, offset.0);
    StoreError::new(StoreErrorKind::Corrupt, what)
}

fn segment_file(shared: &Shared, segment: u64) -> Result<Arc<dyn DiskFile>, StoreError> {
    if let Some(file) = shared.caches().files.get(segment) {
        return Ok(file);
    }
    let file = shared.disk.open(&shared.dir.join(crate::files::segment_name(segment)));
    let file = file.map_err(|error| sealed_error(segment, &error))?;
    shared.caches().files.insert(segment, file.clone(), 1);
    Ok(file)
}

/// Reads from the index of a sealed segment. A damaged one is made anew: the segment has all that it says.
fn from_index<T>(shared: &Shared, segment: u64, read: impl Fn(&IndexFile) -> io::Result<T>) -> Result<T, StoreError> {
    let path = shared.dir.join(crate::files::index_name(segment));
    let open = || IndexFile::open(shared.disk.as_ref(), &path, segment, shared.meta.partitions, shared.meta.seed);
    match open().and_then(|index| read(&index)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => {
            let _one = shared.rebuilding();
            let summary = shared.read().sealed.get(segment as usize).cloned();
            let summary = summary.ok_or_else(|| sealed_error(segment, &error))?;
            tracing::warn!(segment, "event log: index of a sealed segment is damaged and is made anew");
            recovery::rebuild_index(shared.disk.as_ref(), &shared.dir, &shared.meta, segment, &summary)?;
            open().and_then(|index| read(&index)).map_err(|error| sealed_error(segment, &error))
        }
        read => read.map_err(|error| sealed_error(segment, &error)),
    }
}

fn sealed_places(shared: &Shared, segment: u64, partition: usize) -> Result<Arc<[Place]>, StoreError> {
    if let Some(places) = shared.caches().places.get((segment, partition)) {
        return Ok(places);
    }
    let places: Arc<[Place]> = from_index(shared, segment, |index| index.places(partition))?.into();
    shared.caches().places.insert((segment, partition), places.clone(), 64 + size_of_val(&*places));
    Ok(places)
}

fn sealed_times(shared: &Shared, segment: u64) -> Result<Arc<[TimeMark]>, StoreError> {
    if let Some(times) = shared.caches().times.get(segment) {
        return Ok(times);
    }
    let times: Arc<[TimeMark]> = from_index(shared, segment, IndexFile::times)?.into();
    shared.caches().times.insert(segment, times.clone(), 64 + size_of_val(&*times));
    Ok(times)
}

fn sealed_error(segment: u64, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
            let what = format!("segment {segment} of the event log: {error}");
            StoreError::new(StoreErrorKind::Corrupt, what)
        }
        _ => StoreError::io("read sealed segment", error),
    }
}

/// First offset of the partition appended at or after a time.
pub(crate) fn offset_at(shared: &Shared, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
    let number = usize::from(partition.0);
    let state = shared.read();
    if shared.is_closed() {
        return Err(shared::closed());
    }
    let segment = state.sealed.partition_point(|summary| summary.last_ms < unix_ms);
    let Some(summary) = state.sealed.get(segment) else {
        let index = &state.index;
        let after = first_after(&index.places[number], &index.times, unix_ms);
        return Ok(Offset(index.bases[number] + after));
    };
    let base = summary.bases[number];
    drop(state);
    let (places, times) = (sealed_places(shared, segment as u64, number)?, sealed_times(shared, segment as u64)?);
    Ok(Offset(base + first_after(&places, &times, unix_ms)))
}

/// How many of the places bear an earlier time.
fn first_after(places: &[Place], times: &[TimeMark], unix_ms: u64) -> u64 {
    let mark = times.get(times.partition_point(|mark| mark.time_ms < unix_ms));
    let earlier = mark.map_or(places.len(), |mark| places.partition_point(|place| place.position < mark.position));
    earlier as u64
}
