//! Frames whose ranges are known.

use crate::{
    byte_order::{self, StoredValue},
    read,
    service::Service,
};
use bytes::Bytes;
use cairn_archive::events::{FragmentedFrames, FrameTable, frame_table::Layout};
use cairn_service_api::{AnswerStream, Error, ErrorKind, retrieval::Frame};
use cairn_store_api::ObjectRef;
use futures_util::{StreamExt, stream};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// A frame and the ranges of the object that make it.
pub(crate) struct Planned {
    number: u32,
    ranges: Vec<Range<u64>>,
}

impl Planned {
    pub(crate) fn length(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// The frames asked for, each with its ranges in the object; `None` where only decoding the data set gives them.
pub(crate) fn plan(table: &FrameTable, numbers: &[u32], data_set_offset: u64) -> Result<Option<Vec<Planned>>, Error> {
    let planned = match &table.layout {
        Some(Layout::Native(native)) => numbers
            .iter()
            .map(|number| {
                let index = index_of(*number, native.frames)?;
                let start = u64::from(index).checked_mul(native.frame_length_bytes);
                let start =
                    start.and_then(|start| start.checked_add(native.first_offset)?.checked_add(data_set_offset));
                let range = start.and_then(|start| Some(start..start.checked_add(native.frame_length_bytes)?));
                Ok(Planned { number: *number, ranges: vec![range.ok_or_else(bad_table)?] })
            })
            .collect::<Result<Vec<_>, Error>>()?,
        Some(Layout::Fragmented(fragmented)) => fragments(fragmented, numbers, data_set_offset)?,
        Some(Layout::DerivedFrames(frames)) => {
            numbers.iter().try_for_each(|number| index_of(*number, *frames).map(|_| ()))?;
            return Ok(None);
        }
        None => return Err(no_frame(numbers.first().copied().unwrap_or(0))),
    };
    Ok(Some(planned))
}

pub(crate) fn no_frame(number: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("instance has no frame {number}"))
}

pub(crate) fn bad_table() -> Error {
    Error::new(ErrorKind::Internal, "frame table of the instance contradicts itself")
}

fn index_of(number: u32, frames: u32) -> Result<u32, Error> {
    number.checked_sub(1).filter(|index| *index < frames).ok_or_else(|| no_frame(number))
}

fn fragments(table: &FragmentedFrames, numbers: &[u32], data_set_offset: u64) -> Result<Vec<Planned>, Error> {
    let frames = table.range_ends.len() as u32;
    let mut ranges = Vec::with_capacity(table.range_lengths.len());
    let mut end = data_set_offset;
    if table.range_start_gaps.len() != table.range_lengths.len() {
        return Err(bad_table());
    }
    for (gap, length) in table.range_start_gaps.iter().zip(&table.range_lengths) {
        let start = end.checked_add(*gap).ok_or_else(bad_table)?;
        end = start.checked_add(*length).ok_or_else(bad_table)?;
        ranges.push(start..end);
    }
    let of_frame = |number: u32| {
        let index = index_of(number, frames)? as usize;
        let first = index.checked_sub(1).and_then(|before| table.range_ends.get(before)).copied().unwrap_or(0);
        let last = table.range_ends.get(index).copied().unwrap_or(0);
        let ranges = ranges.get(first as usize..last as usize).ok_or_else(bad_table)?;
        Ok(Planned { number, ranges: ranges.to_vec() })
    };
    numbers.iter().map(|number| of_frame(*number)).collect()
}

/// Frames that lie together, small enough to be read at once; or one frame.
struct Batch {
    frames: Vec<Planned>,
    span: Range<u64>,
}

fn batches(planned: Vec<Planned>, bytes_max: u64) -> VecDeque<Batch> {
    let mut batches = VecDeque::<Batch>::new();
    for frame in planned {
        let start = frame.ranges.first().map_or(0, |range| range.start);
        let end = frame.ranges.last().map_or(0, |range| range.end);
        if let Some(last) = batches.back_mut()
            && start >= last.span.end
            // A gap of a few item headers and offset tables costs less than another read.
            && end - last.span.start <= bytes_max
            && start - last.span.end <= bytes_max / 8
        {
            last.span.end = end;
            last.frames.push(frame);
        } else {
            batches.push_back(Batch { frames: vec![frame], span: start..end });
        }
    }
    batches
}

impl Service {
    /// Streams frames of a value in the other byte order: each by itself, since none is common.
    pub(crate) fn turned_frames(
        self: Arc<Self>,
        object: ObjectRef,
        planned: Vec<Planned>,
        value: StoredValue,
    ) -> AnswerStream<Frame> {
        let frame = move |planned: Planned| {
            let range = planned.ranges.first().cloned().unwrap_or_default();
            let bytes = byte_order::open_later(self.objects.clone(), object, &value, range);
            Ok(Frame { number: planned.number, length: planned.length(), bytes })
        };
        Box::pin(stream::iter(planned.into_iter().map(frame)))
    }

    /// Streams frames whose places are known.
    pub(crate) fn planned_frames(self: Arc<Self>, object: ObjectRef, planned: Vec<Planned>) -> AnswerStream<Frame> {
        let batches = batches(planned, self.config.frame_batch_bytes);
        let frames = stream::unfold((self, batches), move |(service, mut batches)| async move {
            let batch = batches.pop_front()?;
            let frames = service.read_batch(object, batch).await;
            Some((stream::iter(frames.into_iter().map(Ok)), (service, batches)))
        });
        Box::pin(frames.flatten())
    }

    async fn read_batch(&self, object: ObjectRef, batch: Batch) -> Vec<Frame> {
        let at_once = match batch.frames.len() {
            0 | 1 => None,
            _ => read::collect(self.objects.as_ref(), &object, batch.span.clone()).await.ok(),
        };
        let frame = |planned: Planned| {
            let length = planned.length();
            let bytes = match &at_once {
                Some(chunks) => {
                    let pieces = planned.ranges.iter().flat_map(|range| slices(chunks, batch.span.start, range));
                    let pieces: Vec<_> = pieces.map(Ok).collect();
                    Box::pin(stream::iter(pieces)) as AnswerStream<Bytes>
                }
                // Alone, or the batch is damaged somewhere: each frame fails or not by itself.
                None => read::open_ranges(self.objects.clone(), object, planned.ranges),
            };
            Frame { number: planned.number, length, bytes }
        };
        batch.frames.into_iter().map(frame).collect()
    }
}

/// A piece of a read that was made at once.
fn slices(chunks: &[Bytes], start: u64, range: &Range<u64>) -> Vec<Bytes> {
    let mut at = start;
    let mut pieces = Vec::new();
    for chunk in chunks {
        let end = at + chunk.len() as u64;
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            pieces.push(chunk.slice((from - at) as usize..(to - at) as usize));
        }
        at = end;
    }
    pieces
}
