//! Writing what the parser finds in another encoding.

use super::ConvertError;
use crate::{
    finding::{Finding, FindingKind, Findings},
    parse::{
        At, Sink,
        head::{Form, Head, ITEM, ITEM_END, SEQUENCE_END, UNDEFINED},
        swap::Swapper,
    },
    tag::Tag,
    tags,
    vr::Vr,
};

pub(crate) struct ConvertSink {
    to: Form,
    from_native: bool,
    out: Vec<u8>,
    error: Option<ConvertError>,
    findings: Findings,
    /// Of open sequences: whether a delimiter is to be written.
    open: Vec<bool>,
    swapper: Swapper,
    /// A pad byte to follow the value that is coming.
    pad: Option<u8>,
    /// Bytes of that value that have not come yet.
    missing: u64,
    /// The data set broke off within a value: what is written breaks off there too, without delimiters that would be
    /// taken for the rest of the value.
    cut: bool,
    signed: bool,
}

impl ConvertSink {
    pub(crate) fn new(to: Form, from_native: bool, findings_max: usize) -> Self {
        Self {
            to,
            from_native,
            out: Vec::new(),
            error: None,
            findings: Findings::new(findings_max),
            open: Vec::new(),
            swapper: Swapper::default(),
            pad: None,
            missing: 0,
            cut: false,
            signed: false,
        }
    }

    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn error(&self) -> Option<ConvertError> {
        self.error
    }

    pub(crate) fn note(&mut self, kind: FindingKind) {
        self.findings.add(kind, None);
    }

    pub(crate) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::replace(&mut self.findings, Findings::new(0)).into_vec()
    }

    fn fail(&mut self, error: ConvertError) {
        self.error.get_or_insert(error);
    }

    fn u16(&mut self, number: u16) {
        self.out.extend_from_slice(&if self.to.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn u32(&mut self, number: u32) {
        self.out.extend_from_slice(&if self.to.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn tag(&mut self, tag: Tag) {
        self.u16(tag.group());
        self.u16(tag.element());
    }

    fn delimiter(&mut self, tag: Tag) {
        if !self.cut {
            self.tag(tag);
            self.u32(0);
        }
    }

    /// Writes a head; returns the VR that stands in it, or would.
    fn head(&mut self, tag: Tag, vr: Vr, length: u32) -> Vr {
        self.tag(tag);
        if !self.to.explicit {
            self.u32(length);
            return vr;
        }
        // PS3.5 section 6.2.2: what has no room in 16 bits becomes UN, which is little endian inside.
        let vr = if !vr.has_long_length() && length > 0xFFFF { Vr::UN } else { vr };
        self.out.extend_from_slice(vr.as_str().as_bytes());
        if vr.has_long_length() {
            self.out.extend_from_slice(&[0, 0]);
            self.u32(length);
        } else {
            self.u16(length as u16);
        }
        vr
    }

    /// Bytes of a unit to turn round between this value and what is written.
    fn unit(&self, head: &Head, written: Vr) -> usize {
        let to_big = self.to.big && written != Vr::UN;
        if head.form.big == to_big { 1 } else { head.vr.unit_bytes() }
    }

    fn begin_value(&mut self, head: &Head) {
        let padded = head.length.saturating_add(head.length & 1);
        let written = self.head(head.tag, head.vr, padded);
        self.swapper = Swapper::new(self.unit(head, written));
        let pad = if head.vr.is_text() && head.vr != Vr::UI { b' ' } else { 0 };
        self.pad = (padded != head.length).then_some(pad);
    }

    fn end_value(&mut self) {
        self.swapper.finish(&mut self.out);
        self.cut = self.missing > 0;
        if let Some(pad) = self.pad.take().filter(|_| !self.cut) {
            self.out.push(pad);
        }
    }

    fn check_pixel_data(&mut self, at: At<'_>, tag: Tag, encapsulated: bool) {
        let is_pixel_data = matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA);
        let root = at.is_root() && is_pixel_data;
        let no_fragments = encapsulated && (self.to.big || !self.to.explicit);
        if (root && (encapsulated || !self.from_native)) || no_fragments {
            self.fail(ConvertError::PixelDataNotNative);
        }
    }
}

impl Sink for ConvertSink {
    fn whole(&mut self, at: At<'_>, head: &Head, value: &[u8]) {
        self.missing = 0;
        self.begin_value(head);
        self.swapper.push(value, &mut self.out);
        self.end_value();
        if at.is_root() && head.tag == tags::PIXEL_REPRESENTATION {
            let low = if head.form.big { 1 } else { 0 };
            self.signed = value.get(low) == Some(&1);
        }
    }

    #[inline]
    fn plain(&mut self, at: At<'_>, tag: Tag, vr: Vr, raw: &[u8]) {
        if self.to == (Form { explicit: true, big: false }) {
            self.out.extend_from_slice(raw);
            return;
        }
        let value = raw.get(8..).unwrap_or_default();
        let form = Form { explicit: true, big: false };
        self.whole(at, &Head { tag, vr, length: value.len() as u32, size: 8, form, odd_thing: None }, value);
    }

    fn begin(&mut self, at: At<'_>, head: &Head) {
        if head.vr == Vr::SQ && head.tag != ITEM {
            self.fail(ConvertError::NestingTooDeep);
        }
        self.check_pixel_data(at, head.tag, false);
        if head.tag == ITEM {
            return;
        }
        self.missing = u64::from(head.length);
        self.begin_value(head);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.missing = self.missing.saturating_sub(bytes.len() as u64);
        self.swapper.push(bytes, &mut self.out);
    }

    fn end(&mut self, _: u64) {
        self.end_value();
    }

    fn sequence(&mut self, _: At<'_>, head: &Head) {
        let length = if head.length == 0 { 0 } else { UNDEFINED };
        self.head(head.tag, Vr::SQ, length);
        self.open.push(length == UNDEFINED);
    }

    fn item(&mut self) {
        self.tag(ITEM);
        self.u32(UNDEFINED);
    }

    fn item_end(&mut self) {
        self.delimiter(ITEM_END);
    }

    fn sequence_end(&mut self, _: bool, _: u64) {
        if self.open.pop() == Some(true) {
            self.delimiter(SEQUENCE_END);
        }
    }

    fn encapsulated(&mut self, at: At<'_>, head: &Head) {
        self.check_pixel_data(at, head.tag, true);
        self.head(head.tag, head.vr, UNDEFINED);
    }

    fn fragment(&mut self, _: u64, length: u32) {
        let padded = length.saturating_add(length & 1);
        self.tag(ITEM);
        self.u32(padded);
        self.missing = u64::from(length);
        self.swapper = Swapper::default();
        self.pad = (padded != length).then_some(0);
    }

    fn encapsulated_end(&mut self, _: u64) {
        self.delimiter(SEQUENCE_END);
    }

    fn is_signed(&self) -> bool {
        self.signed
    }

    fn found(&mut self, kind: FindingKind, tag: Option<Tag>) {
        self.findings.add(kind, tag);
    }
}
