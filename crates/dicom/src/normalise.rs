//! One canonical stream for all encodings of the same content, to compare two data sets by digest.
//!
//! Equal content gives equal bytes whether it was implicit or explicit, little or big endian, deflated or not, with
//! defined or undefined lengths, with group lengths, padding or offset tables or without. It is not a data set: each
//! value is followed by a record of 15 bytes (length, VR, tag, kind), so that no two contents give one stream.

use crate::{
    convert::{ConvertError, rules},
    dictionary,
    finding::{Finding, FindingKind, Findings},
    inflate::{InflateLimits, Inflater},
    parse::{
        At, Parser, Sink,
        head::{Form, Head, ITEM},
        swap::Swapper,
    },
    tag::Tag,
    tags,
    transfer_syntax::TransferSyntax,
    vr::Vr,
};

/// Feeds the canonical stream of one data set to `put`, such as a hasher. Memory is bounded: a few ten KiB.
pub struct Normaliser<F> {
    parser: Parser<CanonSink<F>>,
    inflater: Option<Box<Inflater>>,
}

impl<F: FnMut(&[u8])> Normaliser<F> {
    /// A normaliser for a data set in this syntax.
    pub fn new(syntax: &TransferSyntax, limits: InflateLimits, put: F) -> Self {
        let sink = CanonSink {
            put,
            vr: Vr::UN,
            tag: Tag(0),
            length: 0,
            held: Vec::new(),
            swapper: Swapper::default(),
            buffer: Vec::new(),
            skip: false,
            skip_fragment: false,
            signed: false,
            begun: None,
            findings: Findings::new(64),
            too_deep: false,
        };
        Self {
            parser: Parser::new(syntax.encoding, rules(1024, true), sink),
            inflater: syntax.encoding.is_deflated().then(|| Box::new(Inflater::new(limits))),
        }
    }

    /// Takes the next bytes of the data set.
    ///
    /// # Errors
    /// [`ConvertError::Inflate`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        match &mut self.inflater {
            None => self.parser.push(bytes),
            Some(inflater) => inflater.push(bytes, |piece| self.parser.push(piece))?,
        }
        Ok(())
    }

    /// The data set is over. Findings say whether anything was skipped or broke off; if so, equality proves less.
    ///
    /// # Errors
    /// [`ConvertError::NestingTooDeep`], [`ConvertError::Inflate`].
    pub fn finish(mut self) -> Result<Vec<Finding>, ConvertError> {
        if let Some(mut inflater) = self.inflater.take() {
            inflater.finish(|piece| self.parser.push(piece))?;
        }
        self.parser.end();
        let sink = self.parser.sink;
        if sink.too_deep { Err(ConvertError::NestingTooDeep) } else { Ok(sink.findings.into_vec()) }
    }
}

struct CanonSink<F> {
    put: F,
    vr: Vr,
    tag: Tag,
    length: u64,
    /// Pad bytes at the end of what has come of a text so far, in runs of one byte.
    held: Vec<(u8, u64)>,
    swapper: Swapper,
    buffer: Vec<u8>,
    /// The value that is coming is left out.
    skip: bool,
    skip_fragment: bool,
    signed: bool,
    /// A sequence that has begun, until its first item: an empty one is told from an empty value by no encoding.
    begun: Option<Tag>,
    findings: Findings,
    too_deep: bool,
}

/// Runs of padding held back; text with more is taken as it is.
const HELD_MAX: usize = 64;

impl<F: FnMut(&[u8])> CanonSink<F> {
    fn record(&mut self, kind: u8, length: u64, vr: Vr, tag: Tag) {
        let mut record = [0; 15];
        record[..8].copy_from_slice(&length.to_le_bytes());
        record[8..10].copy_from_slice(vr.as_str().as_bytes());
        record[10..14].copy_from_slice(&tag.0.to_le_bytes());
        record[14] = kind;
        (self.put)(&record);
    }

    fn start(&mut self, head: &Head) {
        self.tag = head.tag;
        // The VR that any reader would give the element, so that what one encoding leaves out makes no difference.
        self.vr = dictionary::vr_of(head.tag).unwrap_or(Vr::UN);
        self.length = 0;
        self.held.clear();
        self.swapper = Swapper::new(if head.form.big { head.vr.unit_bytes() } else { 1 });
        self.skip = matches!(head.tag, tags::EXTENDED_OFFSET_TABLE | tags::EXTENDED_OFFSET_TABLE_LENGTHS);
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.skip || self.skip_fragment {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.swapper.push(bytes, &mut buffer);
        self.emit(&buffer);
        self.buffer = buffer;
    }

    /// Puts out little-endian bytes; padding at the end of a text is held back until something follows it.
    fn emit(&mut self, bytes: &[u8]) {
        if !self.vr.is_text() {
            self.length += bytes.len() as u64;
            (self.put)(bytes);
            return;
        }
        let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |at| at + 1);
        if end > 0 {
            self.release();
            self.length += end as u64;
            (self.put)(&bytes[..end]);
        }
        for byte in &bytes[end..] {
            match self.held.last_mut() {
                Some((same, count)) if same == byte => *count += 1,
                _ => {
                    if self.held.len() >= HELD_MAX {
                        self.release();
                    }
                    self.held.push((*byte, 1));
                }
            }
        }
    }

    fn release(&mut self) {
        for (byte, mut count) in self.held.drain(..) {
            self.length += count;
            while count > 0 {
                let n = count.min(64);
                (self.put)(&[byte; 64][..n as usize]);
                count -= n;
            }
        }
    }

    fn stop(&mut self, kind: u8) {
        if self.skip {
            self.skip = false;
            return;
        }
        let mut rest = Vec::new();
        self.swapper.finish(&mut rest);
        self.emit(&rest);
        if !self.vr.is_text() && self.length % 2 == 1 {
            self.length += 1;
            (self.put)(&[0]);
        }
        let (length, vr, tag) = (self.length, self.vr, self.tag);
        self.record(kind, length, vr, tag);
    }
}

impl<F: FnMut(&[u8])> Sink for CanonSink<F> {
    fn whole(&mut self, at: At<'_>, head: &Head, value: &[u8]) {
        self.start(head);
        self.take(value);
        self.stop(b'E');
        if at.is_root() && head.tag == tags::PIXEL_REPRESENTATION {
            self.signed = value.contains(&1);
        }
    }

    fn plain(&mut self, at: At<'_>, tag: Tag, vr: Vr, raw: &[u8]) {
        let value = raw.get(8..).unwrap_or_default();
        let form = Form { explicit: true, big: false };
        self.whole(at, &Head { tag, vr, length: value.len() as u32, size: 8, form, odd_thing: None }, value);
    }

    fn begin(&mut self, _: At<'_>, head: &Head) {
        self.too_deep |= head.vr == Vr::SQ && head.tag != ITEM;
        self.start(head);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.take(bytes);
    }

    fn end(&mut self, _: u64) {
        // The ends of fragments are none of the value.
        if self.skip_fragment || self.tag == Tag(0) {
            self.skip_fragment = false;
        } else {
            self.stop(b'E');
        }
    }

    fn sequence(&mut self, _: At<'_>, head: &Head) {
        self.begun = Some(head.tag);
    }

    fn item(&mut self) {
        if let Some(tag) = self.begun.take() {
            self.record(b'S', 0, Vr::SQ, tag);
        }
        self.record(b'I', 0, Vr::SQ, Tag(0));
    }

    fn item_end(&mut self) {
        self.record(b'i', 0, Vr::SQ, Tag(0));
    }

    fn sequence_end(&mut self, _: bool, _: u64) {
        match self.begun.take() {
            Some(tag) => self.record(b'E', 0, dictionary::vr_of(tag).unwrap_or(Vr::UN), tag),
            None => self.record(b's', 0, Vr::SQ, Tag(0)),
        }
    }

    fn encapsulated(&mut self, _: At<'_>, head: &Head) {
        self.start(head);
        self.record(b'F', 0, Vr::OB, head.tag);
        // What follows are fragments, the first of which is the offset table.
        self.tag = Tag(0);
        self.skip_fragment = true;
    }

    fn fragment(&mut self, _: u64, _: u32) {}

    fn encapsulated_end(&mut self, _: u64) {
        self.skip_fragment = false;
        self.stop(b'f');
    }

    fn is_signed(&self) -> bool {
        self.signed
    }

    fn found(&mut self, kind: FindingKind, tag: Option<Tag>) {
        self.findings.add(kind, tag);
    }
}
