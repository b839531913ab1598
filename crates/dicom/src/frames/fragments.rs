//! From fragments to frames.

use super::{FragmentedFrames, FrameTable, PixelFacts};
use crate::{
    finding::{FindingKind, Findings},
    tags,
    transfer_syntax::{PixelCoding, TransferSyntax},
    walk::PixelData,
};

/// A fragment begins with the first bytes of a codestream.
const BEGINS: u8 = 1;
/// A fragment ends with the last bytes of a codestream.
const ENDS: u8 = 2;
/// A stray byte stands before the fragment's item tag.
const SHIFTED: u8 = 4;

/// Length of an item tag and its length.
const ITEM_HEAD: u64 = 8;

/// What was seen of top-level Pixel Data in fragments: 5 bytes each, since they follow each other.
#[derive(Debug)]
pub(crate) struct FragmentLog {
    coding: Coding,
    fragments_max: usize,
    table_bytes_max: usize,
    basic: Table,
    extended: Table,
    extended_lengths: Table,
    first: u64,
    next: u64,
    lengths: Vec<u32>,
    flags: Vec<u8>,
    too_many: bool,
    cut: bool,
    current: Option<Current>,
}

/// An offset table as far as it is kept.
#[derive(Debug, Default)]
pub(crate) struct Table {
    bytes: Vec<u8>,
    too_long: bool,
    /// Whether there is one, be it empty.
    present: bool,
}

impl Table {
    pub(crate) fn add(&mut self, bytes: &[u8], max: usize) {
        self.present = true;
        if self.bytes.len() + bytes.len() > max {
            self.too_long = true;
            self.bytes = Vec::new();
        }
        if !self.too_long {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn u32s(&self) -> Option<impl ExactSizeIterator<Item = u64> + Clone> {
        (!self.too_long && self.bytes.len().is_multiple_of(4))
            .then(|| self.bytes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))))
    }

    fn u64s(&self) -> Option<impl ExactSizeIterator<Item = u64> + Clone> {
        let number = |b: &[u8]| b.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        (!self.too_long && self.bytes.len().is_multiple_of(8)).then(|| self.bytes.chunks_exact(8).map(number))
    }
}

/// How codestreams begin and end, as far as the syntax says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// Marks in the bytes tell.
    Marked,
    Rle,
    /// One stream for all frames.
    Video,
}

#[derive(Debug)]
struct Current {
    is_table: bool,
    length: u32,
    seen: u32,
    head: [u8; 12],
    tail: [u8; 3],
}

impl FragmentLog {
    /// Bytes that are listed and kept.
    pub(crate) fn memory(&self) -> usize {
        let tables = [&self.basic, &self.extended, &self.extended_lengths];
        let tables: usize = tables.iter().map(|table| table.bytes.len()).sum();
        tables + self.lengths.len() * size_of::<u32>() + self.flags.len()
    }

    pub(crate) fn new(syntax: &TransferSyntax, fragments_max: usize, table_bytes_max: usize) -> Self {
        let uid = syntax.uid();
        let coding = match uid {
            "1.2.840.10008.1.2.5" => Coding::Rle,
            _ if syntax.pixels == PixelCoding::Lossy && uid.starts_with("1.2.840.10008.1.2.4.10") => Coding::Video,
            _ => Coding::Marked,
        };
        Self {
            coding,
            fragments_max,
            table_bytes_max,
            basic: Table::default(),
            extended: Table::default(),
            extended_lengths: Table::default(),
            first: 0,
            next: 0,
            lengths: Vec::new(),
            flags: Vec::new(),
            too_many: false,
            cut: false,
            current: None,
        }
    }

    /// A piece of the Extended Offset Table, or of its lengths.
    pub(crate) fn extended(&mut self, lengths: bool, bytes: &[u8]) {
        let table = if lengths { &mut self.extended_lengths } else { &mut self.extended };
        table.add(bytes, self.table_bytes_max);
    }

    /// The item with the Basic Offset Table, if it is the first, or a fragment.
    pub(crate) fn begin(&mut self, value: u64, length: u32) {
        let is_table = self.first == 0;
        let item = value - ITEM_HEAD;
        let mut flags = 0;
        if is_table {
            self.first = value + u64::from(length);
        } else if item != self.next {
            flags = SHIFTED;
        }
        if !is_table {
            if self.lengths.len() >= self.fragments_max {
                self.too_many = true;
            } else {
                self.lengths.push(length);
                self.flags.push(flags);
            }
        }
        self.next = value + u64::from(length);
        self.current = Some(Current { is_table, length, seen: 0, head: [0; 12], tail: [0; 3] });
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else { return };
        if current.is_table {
            self.basic.add(bytes, self.table_bytes_max);
        }
        if let Some(free) = current.head.get_mut(current.seen as usize..) {
            let n = free.len().min(bytes.len());
            free[..n].copy_from_slice(&bytes[..n]);
        }
        match bytes.last_chunk::<3>() {
            Some(tail) => current.tail = *tail,
            None => {
                for byte in bytes {
                    current.tail = [current.tail[1], current.tail[2], *byte];
                }
            }
        }
        current.seen = current.seen.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }

    pub(crate) fn end(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.cut |= current.seen < current.length;
        if current.is_table || self.too_many {
            return;
        }
        if let (Some(length), Some(flags)) = (self.lengths.last_mut(), self.flags.last_mut()) {
            *length = current.seen;
            *flags |= if begins(self.coding, &current.head, current.seen) { BEGINS } else { 0 };
            *flags |= if matches!(current.tail, [_, 0xFF, 0xD9] | [0xFF, 0xD9, _]) { ENDS } else { 0 };
        }
    }

    /// Where the fragments lie: item tag and value.
    fn fragments(&self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> + Clone {
        let mut next = self.first;
        self.lengths.iter().zip(&self.flags).map(move |(length, flags)| {
            let item = next + u64::from(flags & SHIFTED != 0);
            next = item + ITEM_HEAD + u64::from(*length);
            (item, item + ITEM_HEAD..next)
        })
    }

    /// The frames of top-level Pixel Data, native ones too.
    pub(crate) fn table(&self, data: PixelData, facts: &PixelFacts, findings: &mut Findings) -> FrameTable {
        if !data.encapsulated {
            return facts.native(data, findings);
        }
        let frames = facts.frames as usize;
        if self.too_many {
            findings.add(FindingKind::TooManyFragments, Some(data.tag));
        } else if let Some(table) = self.fragmented(frames, findings) {
            return FrameTable::Fragmented(table);
        } else if !(self.coding == Coding::Video && frames > 1) {
            findings.add(FindingKind::FramesNotSeparable, Some(data.tag));
        }
        FrameTable::Derived { frames: facts.frames }
    }

    fn fragmented(&self, frames: usize, findings: &mut Findings) -> Option<FragmentedFrames> {
        if self.lengths.is_empty() {
            return None;
        }
        if self.extended.present || self.extended_lengths.present {
            match self.by_extended_table(frames) {
                Some(table) => return Some(table),
                None => findings.add(FindingKind::ExtendedOffsetTableInvalid, Some(tags::EXTENDED_OFFSET_TABLE)),
            }
        }
        if !self.basic.is_empty() {
            match self.by_basic_table(frames) {
                Some(table) => return Some(table),
                None => findings.add(FindingKind::BasicOffsetTableInvalid, Some(tags::PIXEL_DATA)),
            }
        }
        let values = || self.fragments().map(|(_, value)| value);
        let count = self.lengths.len();
        if self.coding == Coding::Video && frames > 1 {
            return None;
        }
        if frames == 1 {
            return FragmentedFrames::new(values(), [u32::try_from(count).ok()?]);
        }
        let all_begin = self.flags.iter().all(|flags| flags & BEGINS != 0);
        if count == frames || (count < frames && self.cut && all_begin) {
            return FragmentedFrames::new(values(), 1..=u32::try_from(count).ok()?);
        }
        self.starts_by_marks(frames).and_then(|starts| self.split_at_starts(&starts))
    }

    /// Indices of the fragments with which frames begin, if the marks in them give as many as there should be.
    fn starts_by_marks(&self, frames: usize) -> Option<Vec<usize>> {
        let begins = |n: &usize| self.flags[*n] & BEGINS != 0;
        let after_end = |n: &usize| *n == 0 || self.flags[*n - 1] & ENDS != 0;
        let all = 0..self.flags.len();
        let strict: Vec<_> = all.clone().filter(|n| begins(n) && after_end(n)).collect();
        let starts = if strict.len() == frames { strict } else { all.filter(begins).collect() };
        (starts.len() == frames && starts.first() == Some(&0)).then_some(starts)
    }

    fn split_at_starts(&self, starts: &[usize]) -> Option<FragmentedFrames> {
        let ends = starts.iter().skip(1).copied().chain([self.lengths.len()]).map(|end| end as u32);
        FragmentedFrames::new(self.fragments().map(|(_, value)| value), ends)
    }

    /// PS3.5 section A.4: offsets of first fragments' item tags from the first byte after the table.
    fn by_basic_table(&self, frames: usize) -> Option<FragmentedFrames> {
        let offsets = self.basic.u32s()?;
        if offsets.len() != frames {
            return None;
        }
        let mut items = self.fragments().map(|(item, _)| item - self.first).enumerate();
        let mut starts = Vec::with_capacity(frames.min(self.lengths.len()));
        for offset in offsets {
            // Ascending and each on an item: `items` only goes forward.
            starts.push(items.find(|(_, item)| *item == offset)?.0);
        }
        if starts.first() != Some(&0) {
            return None;
        }
        // A table may point at items and still lie: a frame begins where a codestream begins.
        let marked = self.flags.iter().any(|flags| flags & BEGINS != 0);
        if marked && starts.iter().any(|start| self.flags[*start] & BEGINS == 0) {
            return None;
        }
        self.split_at_starts(&starts)
    }

    /// PS3.3 section C.7.6.3: one fragment a frame, offsets as in the basic table, lengths without padding.
    fn by_extended_table(&self, frames: usize) -> Option<FragmentedFrames> {
        let (offsets, lengths) = (self.extended.u64s()?, self.extended_lengths.u64s()?);
        if offsets.len() != frames || lengths.len() != frames {
            return None;
        }
        let mut items = self.fragments();
        let mut ranges = Vec::with_capacity(frames.min(self.lengths.len()));
        for (offset, length) in offsets.zip(lengths) {
            let (_, value) = items.find(|(item, _)| item - self.first == offset)?;
            let there = value.end - value.start;
            if length > there || there - length > 1 {
                return None;
            }
            ranges.push(value.start..value.start + length);
        }
        FragmentedFrames::new(ranges, 1..=u32::try_from(frames).ok()?)
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.too_long
    }
}

fn begins(coding: Coding, head: &[u8; 12], seen: u32) -> bool {
    if coding == Coding::Rle {
        // PS3.5 section G.5: 1 to 15 segments, the first of which follows the 64 bytes of the header.
        return seen >= 64 && matches!(head, [1..=15, 0, 0, 0, 64, 0, 0, 0, ..]);
    }
    match head {
        // JPEG and JPEG-LS: SOI and another marker. JPEG 2000: SOC, SIZ, or a JP2 signature. JPEG XL: two forms.
        [0xFF, 0xD8, 0xFF, ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] | [0xFF, 0x0A, ..] => true,
        _ => head == b"\0\0\0\x0CjP  \r\n\x87\n" || head == b"\0\0\0\x0CJXL \r\n\x87\n",
    }
}
