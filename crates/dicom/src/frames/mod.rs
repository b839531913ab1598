//! Where the frames of top-level Pixel Data lie (PS3.5 sections 8.2 and A.4, PS3.3 section C.7.6.3, edition 2025c).

mod fragments;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use fragments::FragmentLog;

use crate::{
    finding::{FindingKind, Findings},
    header::first_text,
    tag::Tag,
    tags,
    walk::PixelData,
};

/// Where each frame is, as ranges of the data set's bytes. Frames count from 0 here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameTable {
    /// Uncompressed frames, back to back.
    Native {
        /// Offset of the first.
        first_offset: u64,
        /// Bytes of each.
        frame_length: u64,
        /// How many are wholly there.
        frames: u32,
    },
    /// Each frame is a range or several.
    Fragmented(FragmentedFrames),
    /// Frames begin within a byte, or inside a deflated data set, or cannot be told apart: only who decodes the data
    /// set can say where they are.
    Derived {
        /// How many the data set says there are.
        frames: u32,
    },
}

impl FrameTable {
    /// How many frames.
    pub fn frames(&self) -> u32 {
        match self {
            Self::Native { frames, .. } | Self::Derived { frames } => *frames,
            Self::Fragmented(fragmented) => fragmented.frames(),
        }
    }

    /// The ranges of a frame, in order; `None` past the last, and of derived ones.
    pub fn ranges(&self, index: u32) -> Option<Vec<Range<u64>>> {
        match self {
            Self::Native { first_offset, frame_length, frames } => {
                let start = first_offset + frame_length * u64::from(index);
                (index < *frames).then(|| Vec::from([Range { start, end: start + frame_length }]))
            }
            Self::Fragmented(fragmented) => fragmented.frame_ranges(index),
            Self::Derived { .. } => None,
        }
    }
}

/// Frames as ranges, flattened: 8 bytes a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FragmentedFrames {
    /// Frame `n` has the ranges `ends[n - 1]..ends[n]`; empty if each has exactly one.
    ends: Vec<u32>,
    first: u64,
    /// Of each range: bytes since the end of the one before (none for the first), length.
    ranges: Vec<(u32, u32)>,
}

impl FragmentedFrames {
    /// Takes ranges in ascending order, and for each frame the number of ranges up to and with its own. `None` where
    /// these contradict each other, or lie more than 4 GiB apart.
    pub fn new(
        ranges: impl IntoIterator<Item = Range<u64>>,
        ends: impl IntoIterator<Item = u32>,
    ) -> Option<FragmentedFrames> {
        let mut made = Self::default();
        let mut end = None;
        for range in ranges {
            let gap = range.start.checked_sub(*end.get_or_insert(range.start))?;
            if made.ranges.is_empty() {
                made.first = range.start;
            }
            let length = range.end.checked_sub(range.start)?;
            made.ranges.push((u32::try_from(gap).ok()?, u32::try_from(length).ok()?));
            end = Some(range.end);
        }
        made.ends = ends.into_iter().collect();
        let ascending = made.ends.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ascending || made.ends.last().copied().unwrap_or_default() as usize != made.ranges.len() {
            return None;
        }
        if made.ends.iter().zip(1..).all(|(end, n)| *end == n) {
            made.ends = Vec::new();
        }
        Some(made)
    }

    /// How many frames.
    pub fn frames(&self) -> u32 {
        if self.ends.is_empty() { self.ranges.len() as u32 } else { self.ends.len() as u32 }
    }

    /// For each frame the number of ranges up to and with its own.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        (0..self.frames()).map(|n| self.end(n))
    }

    /// All ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = self.first;
        self.ranges.iter().map(move |(gap, length)| {
            let start = at + u64::from(*gap);
            at = start + u64::from(*length);
            start..at
        })
    }

    fn end(&self, frame: u32) -> u32 {
        self.ends.get(frame as usize).copied().unwrap_or(frame + 1)
    }

    fn frame_ranges(&self, index: u32) -> Option<Vec<Range<u64>>> {
        if index >= self.frames() {
            return None;
        }
        let first = if index == 0 { 0 } else { self.end(index - 1) } as usize;
        Some(self.ranges().take(self.end(index) as usize).skip(first).collect())
    }
}

/// What the header says about Pixel Data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelFacts {
    /// Number of Frames; 1 where it is absent or nonsense.
    pub(crate) frames: u32,
    /// Bits of one frame as the image size makes them, and with chrominance sub-sampled as Photometric Interpretation says.
    bits: Option<(u64, Option<u64>)>,
}

impl PixelFacts {
    /// Takes the values of top-level elements from `value`.
    pub(crate) fn read<'a>(value: impl Fn(Tag) -> Option<&'a [u8]>, tag: Tag, findings: &mut Findings) -> Self {
        let frames = match value(tags::NUMBER_OF_FRAMES).map(first_text).filter(|text| !text.is_empty()) {
            None => 1,
            Some(text) => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
                number.filter(|n| *n > 0).unwrap_or_else(|| {
                    findings.add(FindingKind::NumberOfFramesInvalid, Some(tags::NUMBER_OF_FRAMES));
                    1
                })
            }
        };
        Self { frames, bits: frame_bits(value, tag) }
    }

    /// Native Pixel Data as frames.
    fn native(&self, data: PixelData, findings: &mut Findings) -> FrameTable {
        let derived = FrameTable::Derived { frames: self.frames };
        let Some((full, sub_sampled)) = self.bits.filter(|(full, _)| *full > 0) else {
            findings.add(FindingKind::ImageSizeMissing, Some(data.tag));
            return derived;
        };
        let frames = u64::from(self.frames);
        let bytes_of_all = |bits: u64| bits.checked_mul(frames).map(|all| all.div_ceil(8));
        let fits = |bits: &u64| bytes_of_all(*bits).is_some_and(|all| all == data.length || all + 1 == data.length);
        let bits = sub_sampled.filter(|sub| !fits(&full) && fits(sub)).unwrap_or(full);
        let all = bytes_of_all(bits).unwrap_or(u64::MAX);
        if data.length < all {
            findings.add(FindingKind::PixelDataTooShort, Some(data.tag));
        } else if data.length - all > 1 {
            findings.add(FindingKind::PixelDataTooLong, Some(data.tag));
        }
        if bits % 8 != 0 && frames > 1 {
            return derived;
        }
        let frame_length = bits.div_ceil(8);
        let whole = (data.length / frame_length).min(frames);
        FrameTable::Native { first_offset: data.offset, frame_length, frames: u32::try_from(whole).unwrap_or(u32::MAX) }
    }
}

fn frame_bits<'a>(value: impl Fn(Tag) -> Option<&'a [u8]>, tag: Tag) -> Option<(u64, Option<u64>)> {
    let number = |tag| value(tag)?.first_chunk::<2>().map(|bytes| u64::from(u16::from_le_bytes(*bytes)));
    let pixels = number(tags::ROWS)? * number(tags::COLUMNS)?;
    let bits = match tag {
        tags::FLOAT_PIXEL_DATA => 32,
        tags::DOUBLE_FLOAT_PIXEL_DATA => 64,
        _ => number(tags::BITS_ALLOCATED)?,
    };
    let samples = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let full = pixels.checked_mul(bits)?;
    // PS3.3 section C.7.6.3.1.2: two chrominance samples for each two (422) or four (420) pixels.
    let sub_sampled = match value(tags::PHOTOMETRIC_INTERPRETATION).map(first_text) {
        Some(b"YBR_FULL_422" | b"YBR_PARTIAL_422") => full.checked_mul(2),
        Some(b"YBR_PARTIAL_420") => full.checked_mul(3).map(|bits| bits / 2),
        _ => None,
    };
    Some((full.checked_mul(samples)?, sub_sampled))
}
