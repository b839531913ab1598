//! Frames that only decoding the data set gives: of deflated data sets, and those that begin within a byte.

use crate::{
    byte_order::{self, StoredValue},
    decoded::{Inflated, shifted},
    frames::{bad_table, no_frame},
    read,
    service::Service,
    side::side_header,
};
use bytes::Bytes;
use cairn_archive::events::BulkDataEntry;
use cairn_dicom::{Header, HeaderWalker, Tag, TransferSyntax, WalkLimits, tags, transfer_syntax::Encoding};
use cairn_service_api::{AnswerStream, Error, ErrorKind, index::InstanceRecord, retrieval::Frame};
use futures_util::{TryStreamExt, stream};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Pixel Data in its three forms.
const PIXEL_TAGS: [Tag; 3] = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];

/// The value of top-level Pixel Data.
struct PixelValue {
    tag: Tag,
    /// From the first byte of the data set, inflated if it is deflated.
    offset: u64,
    length: u64,
    /// The value itself, where it is so short that it is in the header.
    in_header: Option<Bytes>,
    /// Bytes of a unit to be turned round; 1: none.
    unit: u64,
}

/// A frame within the Pixel Data value.
struct Derived {
    number: u32,
    /// Bit of the first byte at which it begins.
    first_bit: u32,
    bits: u64,
    /// Bytes of the value that have it.
    range: Range<u64>,
}

/// What a stream of derived frames goes through.
struct Decoding {
    service: Arc<Service>,
    record: InstanceRecord,
    deflated: bool,
    pixels: PixelValue,
    frames: VecDeque<Derived>,
    /// The data set, inflated up to the end of the frame given last.
    inflated: Option<Inflated>,
}

fn not_separable() -> Error {
    Error::new(ErrorKind::Invalid, "frames of the instance cannot be told apart")
}

impl Service {
    /// Streams frames that have no ranges.
    pub(crate) async fn derived_frames(
        self: Arc<Self>,
        record: InstanceRecord,
        numbers: &[u32],
    ) -> Result<AnswerStream<Frame>, Error> {
        let syntax = TransferSyntax::from(&record.transfer_syntax_uid);
        let header = self.header_of(&record, &syntax).await?;
        let pixels = pixel_value(&record, Header::new(&header)).ok_or_else(not_separable)?;
        let bits = frame_bits(Header::new(&header), &pixels, record.frames).ok_or_else(not_separable)?;
        if bits % 8 != 0 && syntax.encoding == Encoding::ExplicitBig {
            return Err(not_separable());
        }
        let derived = |number: &u32| {
            let start = u64::from(number.saturating_sub(1)).checked_mul(bits).ok_or_else(bad_table)?;
            let end = start.checked_add(bits).ok_or_else(bad_table)?.div_ceil(8);
            let range = start / 8..end;
            let frame = Derived { number: *number, first_bit: (start % 8) as u32, bits, range };
            if end > pixels.length { Err(no_frame(*number)) } else { Ok(frame) }
        };
        let frames = numbers.iter().map(derived).collect::<Result<VecDeque<_>, Error>>()?;
        let deflated = syntax.encoding.is_deflated();
        let decoding = Decoding { service: self, record, deflated, pixels, frames, inflated: None };
        Ok(Box::pin(stream::unfold(decoding, |mut decoding| async move {
            let frame = decoding.frames.pop_front()?;
            Some((Ok(decoding.frame(frame).await), decoding))
        })))
    }

    /// The header: at hand, in the side object, or walked from the stored data set.
    async fn header_of(&self, record: &InstanceRecord, syntax: &TransferSyntax) -> Result<Bytes, Error> {
        if !record.header.is_empty() {
            return Ok(record.header.clone());
        }
        if let Some(object) = record.side_object {
            return Ok(side_header(self.side(&object).await?.as_ref()));
        }
        let end = if record.pixel_data_offset > 0 { record.pixel_data_offset } else { record.object.length };
        let mut bytes = read::open(self.objects.as_ref(), &record.object, record.data_set_offset..end).await?;
        let mut walker = HeaderWalker::new(syntax, WalkLimits::default());
        let too_large = |error: cairn_dicom::walk::WalkError| Error::new(ErrorKind::Exhausted, error.to_string());
        while let Some(chunk) = bytes.try_next().await? {
            walker.push(&chunk).map_err(too_large)?;
            tokio::task::yield_now().await;
        }
        Ok(walker.finish().map_err(too_large)?.header.into())
    }

    /// The data set through an inflater.
    pub(crate) fn inflated(&self, record: &InstanceRecord) -> Inflated {
        let range = record.data_set_offset..record.object.length;
        let bytes = read::open_later(self.objects.clone(), record.object, range);
        Inflated::new(bytes, self.config.inflated_bytes_max)
    }
}

impl Decoding {
    async fn frame(&mut self, frame: Derived) -> Frame {
        let bytes = self.bytes(&frame.range).await;
        let aligned = frame.bits.is_multiple_of(8);
        let bytes = if aligned { bytes } else { shifted(bytes, frame.first_bit, frame.bits) };
        Frame { number: frame.number, length: frame.bits.div_ceil(8), bytes }
    }

    /// Bytes of the Pixel Data value.
    async fn bytes(&mut self, range: &Range<u64>) -> AnswerStream<Bytes> {
        if let Some(value) = &self.pixels.in_header {
            let piece = value.slice(range.start as usize..range.end as usize);
            return Box::pin(stream::iter([Ok(piece)]));
        }
        let offset = self.pixels.offset;
        let range = offset + range.start..offset + range.end;
        if !self.deflated {
            let start = self.record.data_set_offset;
            let range = start + range.start..start + range.end;
            let value =
                StoredValue { range: start + offset..start + offset + self.pixels.length, unit: self.pixels.unit };
            return byte_order::open_later(self.service.objects.clone(), self.record.object, &value, range);
        }
        if range.end - range.start > self.service.config.frame_batch_bytes {
            return self.service.inflated(&self.record).stream(range);
        }
        // Small frames in ascending order cost one pass for all of them.
        let going_on = self.inflated.take().filter(|inflated| inflated.position() <= range.start);
        let mut inflated = going_on.unwrap_or_else(|| self.service.inflated(&self.record));
        let bytes = inflated.collect(&range).await;
        if bytes.is_ok() {
            self.inflated = Some(inflated);
        }
        Box::pin(stream::iter([bytes]))
    }
}

/// Top-level Pixel Data among the bulk data, unless its value is so short that it is in the header.
pub(crate) fn pixel_entry(record: &InstanceRecord) -> Option<&BulkDataEntry> {
    let is_pixels = |path: &[u32]| matches!(path, [tag] if PIXEL_TAGS.contains(&Tag(*tag)));
    record.bulk_data.iter().find(|entry| is_pixels(&entry.path))
}

fn pixel_value(record: &InstanceRecord, header: Header<'_>) -> Option<PixelValue> {
    if let Some(entry) = pixel_entry(record) {
        let tag = Tag(*entry.path.first()?);
        let unit = byte_order::unit_of(record, entry);
        let value = PixelValue { tag, offset: entry.offset, length: entry.length_bytes, in_header: None, unit };
        return (!entry.encapsulated).then_some(value);
    }
    let element = PIXEL_TAGS.iter().find_map(|tag| header.get(*tag))?;
    let value = Bytes::copy_from_slice(element.value);
    Some(PixelValue { tag: element.tag, offset: 0, length: value.len() as u64, in_header: Some(value), unit: 1 })
}

/// Bits of one frame, as the image size makes them (PS3.3 section C.7.6.3.1, edition 2025c).
fn frame_bits(header: Header<'_>, pixels: &PixelValue, frames: u32) -> Option<u64> {
    let number = |tag| header.u16(tag).map(u64::from).filter(|number| *number > 0);
    let whole = (frames == 1).then(|| pixels.length.saturating_mul(8));
    let (Some(rows), Some(columns)) = (number(tags::ROWS), number(tags::COLUMNS)) else { return whole };
    let bits = match pixels.tag {
        tags::FLOAT_PIXEL_DATA => Some(32),
        tags::DOUBLE_FLOAT_PIXEL_DATA => Some(64),
        _ => number(tags::BITS_ALLOCATED),
    };
    let Some(one_sample) = bits.and_then(|bits| (rows * columns).checked_mul(bits)) else { return whole };
    let full = one_sample.checked_mul(number(tags::SAMPLES_PER_PIXEL).unwrap_or(1))?;
    // Chrominance is shared by two pixels (422) or four (420); real files say so and write it in full.
    let sub_sampled = match header.text(tags::PHOTOMETRIC_INTERPRETATION) {
        Some(b"YBR_FULL_422" | b"YBR_PARTIAL_422") => one_sample.checked_mul(2),
        Some(b"YBR_PARTIAL_420") => one_sample.checked_mul(3).map(|bits| bits / 2),
        _ => None,
    };
    let fits = |bits: &u64| {
        let all = bits.checked_mul(u64::from(frames)).map(|all| all.div_ceil(8));
        all.is_some_and(|all| all == pixels.length || all + 1 == pixels.length)
    };
    Some(sub_sampled.filter(|sub| !fits(&full) && fits(sub)).unwrap_or(full))
}
