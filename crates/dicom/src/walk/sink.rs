//! What the walker keeps of what the parser finds.

use super::{BulkEntry, PixelData, WalkLimits};
use crate::{
    finding::{FindingKind, Findings},
    frames::{FragmentLog, FrameTable, PixelFacts},
    parse::{At, Sink, head::Head, write},
    tag::Tag,
    tags,
    transfer_syntax::{PixelCoding, TransferSyntax},
    vr::Vr,
};

/// Elements whose values are wanted, early or to find the frames; they are in the header whatever its limit.
const MARKS: usize = 15;
/// Class, instance, study and series.
const IDENTIFYING: u16 = 0b1111;
/// Pixel Representation.
const SIGNED: usize = 14;

#[inline]
fn mark_of(tag: Tag) -> Option<usize> {
    // Most elements are told from these by their group alone.
    if !matches!(tag.group(), 0x0008 | 0x0010 | 0x0020 | 0x0028) {
        return None;
    }
    Some(match tag {
        tags::SOP_CLASS_UID => 0,
        tags::SOP_INSTANCE_UID => 1,
        tags::STUDY_INSTANCE_UID => 2,
        tags::SERIES_INSTANCE_UID => 3,
        tags::SPECIFIC_CHARACTER_SET => 4,
        tags::TIMEZONE_OFFSET_FROM_UTC => 5,
        tags::PATIENT_ID => 6,
        tags::ISSUER_OF_PATIENT_ID => 7,
        tags::SAMPLES_PER_PIXEL => 8,
        tags::PHOTOMETRIC_INTERPRETATION => 9,
        tags::NUMBER_OF_FRAMES => 10,
        tags::ROWS => 11,
        tags::COLUMNS => 12,
        tags::BITS_ALLOCATED => 13,
        tags::PIXEL_REPRESENTATION => SIGNED,
        _ => return None,
    })
}

/// Room for the header of most images.
const HEADER_GUESS: usize = 8192;

/// What the value in pieces that is coming belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Nothing,
    Bulk,
    /// The Extended Offset Table (`false`) or its lengths.
    Table(bool),
    Fragment,
}

pub(crate) struct WalkSink {
    limits: WalkLimits,
    pixels: PixelCoding,
    out: Vec<u8>,
    /// Where the lengths of open sequences and items stand in `out`.
    open: Vec<usize>,
    /// Where their values stand in `out`: start and length.
    marks: [(u32, u32); MARKS],
    marked: u16,
    signed: bool,
    bulk: Vec<BulkEntry>,
    /// Of all paths in `bulk`.
    path_words: usize,
    findings: Findings,
    pixel_data: Option<PixelData>,
    fragments: FragmentLog,
    stream: Stream,
    /// Whether the value that is coming is the last of `bulk`.
    listed: bool,
    /// Whether the value that is coming is `pixel_data`.
    in_pixel_data: bool,
    root_sequence: RootSequence,
}

/// The top-level sequence that is open, so that one too large for the header can be taken back out of it.
#[derive(Clone, Copy, Debug, Default)]
struct RootSequence {
    tag: Tag,
    value: u64,
    out: usize,
    bulk: usize,
    /// It did not fit: nothing more of it is kept.
    taken_out: bool,
    big_endian: bool,
}

/// As [`crate::Uid::is_strict`] of a value with its padding, without making a UID; a value that is no UID at all is
/// another matter.
fn is_strict_uid(value: &[u8]) -> bool {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    // As if there were a dot before the first component.
    let (mut before, mut last) = (0, b'.');
    for byte in value[..end].iter().chain(b".") {
        let empty = last == b'.' && *byte == b'.';
        let leading_zero = before == b'.' && last == b'0' && byte.is_ascii_digit();
        if empty || leading_zero {
            return false;
        }
        (before, last) = (last, *byte);
    }
    true
}

/// What is left of a [`WalkSink`].
pub(crate) struct Parts {
    pub(crate) header: Vec<u8>,
    pub(crate) bulk: Vec<BulkEntry>,
    pub(crate) findings: Findings,
    pub(crate) pixel_data: Option<PixelData>,
}

impl WalkSink {
    pub(crate) fn new(limits: WalkLimits, syntax: &TransferSyntax) -> Self {
        Self {
            pixels: syntax.pixels,
            out: Vec::with_capacity(HEADER_GUESS.min(limits.header_bytes_max)),
            open: Vec::new(),
            marks: [(0, 0); MARKS],
            marked: 0,
            signed: false,
            bulk: Vec::new(),
            path_words: 0,
            findings: Findings::new(limits.findings_max),
            pixel_data: None,
            fragments: FragmentLog::new(syntax, limits.fragments_max, limits.offset_table_bytes_max),
            stream: Stream::Nothing,
            listed: false,
            in_pixel_data: false,
            root_sequence: RootSequence::default(),
            limits,
        }
    }

    pub(crate) fn identifiers_seen(&self) -> bool {
        self.marked & IDENTIFYING == IDENTIFYING
    }

    /// Header, list of bulk values and list of fragments, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let bulk = self.bulk.len() * size_of::<BulkEntry>() + self.path_words * size_of::<u32>();
        self.out.len() + bulk + self.fragments.memory()
    }

    /// A finding if Pixel Data is not in the form that the syntax prescribes.
    fn check_coding(&mut self, tag: Tag, encapsulated: bool) {
        match self.pixels {
            PixelCoding::Other => {}
            PixelCoding::Native if encapsulated => self.findings.add(FindingKind::PixelDataEncapsulated, Some(tag)),
            PixelCoding::Native => {}
            _ if !encapsulated => self.findings.add(FindingKind::PixelDataNative, Some(tag)),
            _ => {}
        }
    }

    pub(crate) fn marked(&self, tag: Tag) -> Option<&[u8]> {
        let mark = mark_of(tag).filter(|mark| self.marked & (1 << mark) != 0)?;
        let (start, length) = self.marks[mark];
        self.out.get(start as usize..)?.get(..length as usize)
    }

    /// The frames of Pixel Data, if there is any, and what is to be said about them and the UIDs.
    pub(crate) fn frames(&mut self, deflated: bool) -> Option<FrameTable> {
        let data = self.pixel_data?;
        let mut findings = std::mem::take(&mut self.findings);
        let facts = PixelFacts::read(|tag| self.marked(tag), data.tag, &mut findings);
        let table = match deflated {
            true => FrameTable::Derived { frames: facts.frames },
            false => self.fragments.table(data, &facts, &mut findings),
        };
        self.findings = findings;
        Some(table)
    }

    pub(crate) fn check_uids(&mut self) {
        for tag in [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            if !self.marked(tag).is_none_or(is_strict_uid) {
                self.findings.add(FindingKind::UidNotStrict, Some(tag));
            }
        }
    }

    pub(crate) fn into_parts(self) -> Parts {
        Parts { header: self.out, bulk: self.bulk, findings: self.findings, pixel_data: self.pixel_data }
    }

    /// Whether an element of this size is kept in the header. One at the top that does not fit becomes bulk data,
    /// one inside a sequence takes the sequence with it.
    #[inline]
    fn fits(&mut self, at: At<'_>, size: usize) -> bool {
        if self.root_sequence.taken_out {
            return false;
        }
        if self.out.len() + size <= self.limits.header_bytes_max {
            return true;
        }
        self.header_is_full(at);
        false
    }

    #[cold]
    fn header_is_full(&mut self, at: At<'_>) {
        self.findings.add(FindingKind::HeaderTooLarge, None);
        if !at.is_root() {
            self.out.truncate(self.root_sequence.out);
            self.bulk.truncate(self.root_sequence.bulk);
            self.open.clear();
            self.root_sequence.taken_out = true;
        }
    }

    /// Notes where a value stands; the first one of a tag counts.
    #[inline]
    fn mark(&mut self, mark: usize, value: usize, length: usize) {
        if self.marked & (1 << mark) == 0 {
            self.marked |= 1 << mark;
            self.marks[mark] = (value as u32, length as u32);
            if mark == SIGNED {
                self.signed = self.out.get(value) == Some(&1);
            }
        }
    }

    fn list(&mut self, at: At<'_>, tag: Tag, vr: Vr, length: u64, encapsulated: bool, big_endian: bool) -> bool {
        if self.root_sequence.taken_out {
            return false;
        }
        let words = at.stack.len() + 1;
        let full = self.bulk.len() >= self.limits.bulk_values_max
            || self.path_words + words > self.limits.bulk_values_max.saturating_mul(4);
        if full && !self.in_pixel_data {
            self.findings.add(FindingKind::TooManyBulkValues, None);
            return false;
        }
        self.path_words += words;
        let mut path = Vec::with_capacity(words);
        for container in at.containers() {
            path.push(if container.is_item { container.index } else { container.tag.0 });
        }
        path.push(tag.0);
        self.bulk.push(BulkEntry { path: path.into(), vr, offset: at.value, length, encapsulated, big_endian });
        true
    }

    fn see_pixel_data(&mut self, at: At<'_>, tag: Tag, encapsulated: bool) {
        let is_pixel_data = matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA);
        self.in_pixel_data = at.is_root() && is_pixel_data && self.pixel_data.is_none();
        if self.in_pixel_data {
            self.pixel_data = Some(PixelData { tag, offset: at.value, length: 0, encapsulated });
            self.check_coding(tag, encapsulated);
        }
    }

    fn end_value(&mut self, position: u64) {
        if let Some(entry) = self.bulk.last_mut().filter(|_| self.listed) {
            entry.length = position.saturating_sub(entry.offset);
        }
        if let Some(data) = self.pixel_data.as_mut().filter(|_| self.in_pixel_data) {
            data.length = position.saturating_sub(data.offset);
        }
        (self.listed, self.in_pixel_data) = (false, false);
    }

    fn patch(&mut self) {
        let Some(at) = self.open.pop() else { return };
        let length = (self.out.len() - at - 4) as u32;
        if let Some(place) = self.out.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

impl Sink for WalkSink {
    fn whole(&mut self, at: At<'_>, head: &Head, value: &[u8]) {
        let mark = if at.is_root() { mark_of(head.tag) } else { None };
        if mark.is_none() && !self.fits(at, value.len() + 12) {
            if at.is_root() {
                self.list(at, head.tag, head.vr, value.len() as u64, false, head.form.big);
            }
            return;
        }
        write::head(&mut self.out, head.tag, head.vr, value.len() as u32);
        let start = self.out.len();
        write::value(&mut self.out, value, if head.form.big { head.vr.unit_bytes() } else { 1 });
        match mark {
            Some(mark) => self.mark(mark, start, value.len()),
            None if !at.is_root() => {}
            None if head.tag == tags::EXTENDED_OFFSET_TABLE => self.fragments.extended(false, value),
            None if head.tag == tags::EXTENDED_OFFSET_TABLE_LENGTHS => self.fragments.extended(true, value),
            None => {}
        }
    }

    #[inline]
    fn plain(&mut self, at: At<'_>, tag: Tag, vr: Vr, raw: &[u8]) {
        let mark = if at.is_root() { mark_of(tag) } else { None };
        if mark.is_none() && !self.fits(at, raw.len()) {
            if at.is_root() {
                self.list(at, tag, vr, raw.len() as u64 - 8, false, false);
            }
            return;
        }
        let start = self.out.len() + 8;
        self.out.extend_from_slice(raw);
        if let Some(mark) = mark {
            self.mark(mark, start, raw.len() - 8);
        }
    }

    fn begin(&mut self, at: At<'_>, head: &Head) {
        self.see_pixel_data(at, head.tag, false);
        self.listed = head.tag.group() != 0xFFFE && self.list(at, head.tag, head.vr, 0, false, head.form.big);
        self.stream = match head.tag {
            tags::EXTENDED_OFFSET_TABLE if at.is_root() => Stream::Table(false),
            tags::EXTENDED_OFFSET_TABLE_LENGTHS if at.is_root() => Stream::Table(true),
            _ => Stream::Bulk,
        };
        if let Stream::Table(lengths) = self.stream {
            self.fragments.extended(lengths, &[]);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.stream {
            Stream::Fragment => self.fragments.bytes(bytes),
            Stream::Table(lengths) => self.fragments.extended(lengths, bytes),
            Stream::Nothing | Stream::Bulk => {}
        }
    }

    fn end(&mut self, position: u64) {
        match self.stream {
            Stream::Fragment => self.fragments.end(),
            Stream::Bulk | Stream::Table(_) => self.end_value(position),
            Stream::Nothing => {}
        }
        self.stream = Stream::Nothing;
    }

    fn sequence(&mut self, at: At<'_>, head: &Head) {
        if at.is_root() {
            self.root_sequence = RootSequence {
                tag: head.tag,
                value: at.value,
                out: self.out.len(),
                bulk: self.bulk.len(),
                taken_out: false,
                big_endian: head.form.big,
            };
            // Room for the sequence itself is judged as if it were inside.
            if self.out.len() + 12 > self.limits.header_bytes_max {
                self.findings.add(FindingKind::HeaderTooLarge, None);
                self.root_sequence.taken_out = true;
            }
        } else if !self.fits(at, 12) {
            return;
        }
        if !self.root_sequence.taken_out {
            write::head(&mut self.out, head.tag, Vr::SQ, 0);
            self.open.push(self.out.len() - 4);
        }
    }

    fn item(&mut self) {
        if self.root_sequence.taken_out {
            return;
        }
        write::item(&mut self.out);
        self.open.push(self.out.len() - 4);
    }

    fn item_end(&mut self) {
        self.patch();
    }

    fn sequence_end(&mut self, root: bool, position: u64) {
        self.patch();
        if !root {
            return;
        }
        let sequence = std::mem::take(&mut self.root_sequence);
        if sequence.taken_out {
            let at = At { stack: &[], top: None, value: sequence.value };
            let length = position.saturating_sub(sequence.value);
            self.list(at, sequence.tag, Vr::SQ, length, false, sequence.big_endian);
        }
    }

    fn encapsulated(&mut self, at: At<'_>, head: &Head) {
        self.see_pixel_data(at, head.tag, true);
        self.listed = self.list(at, head.tag, head.vr, 0, true, head.form.big);
    }

    fn fragment(&mut self, value: u64, length: u32) {
        if self.in_pixel_data {
            self.fragments.begin(value, length);
            self.stream = Stream::Fragment;
        }
    }

    fn encapsulated_end(&mut self, position: u64) {
        self.end_value(position);
    }

    fn is_signed(&self) -> bool {
        self.signed
    }

    fn found(&mut self, kind: FindingKind, tag: Option<Tag>) {
        self.findings.add(kind, tag);
    }
}
