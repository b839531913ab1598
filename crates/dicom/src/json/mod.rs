//! DICOM JSON Model (PS3.18 Annex F, edition 2025c), written straight from an extracted header or a [`DataSet`] into
//! a buffer, with no tree between.
//!
//! Text is UTF-8, whatever it was stored in. IS and DS are numbers where a reader of double precision gets the very
//! number that was stored, else strings. Elements with more than the Standard allows (too long, private) are written
//! like any other.

mod number;
mod series;
#[cfg(test)]
mod tests;
mod text;

pub use series::HeaderSeries;

use std::borrow::Cow;

use text::Scan;

use crate::{
    CharacterSet, DataSet, Tag, Vr,
    charset::Term,
    dataset::Value,
    header::{Element, Header},
    tags,
};

/// Levels of nesting that are written; a sequence further down has no value.
const DEPTH_MAX: usize = 128;

/// A value that is not in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk<'a> {
    /// Tags and 0-based item indices from the top: tag, item, tag, ..., tag.
    pub path: &'a [u32],
    /// Its VR.
    pub vr: Vr,
}

/// Writes one object, from the Explicit VR Little Endian header of an instance and the list of values that are not
/// in it, which must be in data set order.
///
/// Each of these becomes a `BulkDataURI`, whose text `uri` appends. `default` is the character set of text where the
/// header names none. Bytes that can not be read as elements end the object; the output is valid JSON whatever the
/// header is.
pub fn write_header<'b>(
    out: &mut Vec<u8>,
    header: Header<'_>,
    default: CharacterSet,
    bulk: impl IntoIterator<Item = Bulk<'b>>,
    mut uri: impl FnMut(Bulk<'b>, &mut String),
) {
    HeaderWriter::new(out, bulk.into_iter(), &mut uri).object(header, default, 0);
}

/// Writes one object from a data set in memory.
pub fn write_data_set(out: &mut Vec<u8>, set: &DataSet) {
    object(out, set, 0);
}

/// What an attribute begins with; the first byte is a brace at the first of an object.
const NO_VALUE: &[u8; 22] = b",\"GGGGEEEE\":{\"vr\":\"XX\"";
const VALUE: &[u8; 32] = b",\"GGGGEEEE\":{\"vr\":\"XX\",\"Value\":[";
const TEXT: &[u8; 33] = b",\"GGGGEEEE\":{\"vr\":\"XX\",\"Value\":[\"";
const NAME: &[u8; 47] = b",\"GGGGEEEE\":{\"vr\":\"XX\",\"Value\":[{\"Alphabetic\":\"";
const BINARY: &[u8; 39] = b",\"GGGGEEEE\":{\"vr\":\"XX\",\"InlineBinary\":\"";
const REFERENCE: &[u8; 37] = b",\"GGGGEEEE\":{\"vr\":\"XX\",\"BulkDataURI\":";

/// Where an attribute goes: all that writing it needs but its value.
struct Slot<'o> {
    out: &'o mut Vec<u8>,
    lead: u8,
    tag: Tag,
    vr: Vr,
}

impl Slot<'_> {
    /// Begins the attribute. One copy of a known size: most of what is written is this.
    #[inline]
    fn begin<const N: usize>(&mut self, template: &[u8; N]) {
        let mut head = *template;
        let [a, b, c, d] = self.tag.0.to_be_bytes();
        head[0] = self.lead;
        head[2..4].copy_from_slice(&text::HEX[usize::from(a)]);
        head[4..6].copy_from_slice(&text::HEX[usize::from(b)]);
        head[6..8].copy_from_slice(&text::HEX[usize::from(c)]);
        head[8..10].copy_from_slice(&text::HEX[usize::from(d)]);
        head[19..21].copy_from_slice(&text::VR[self.vr as usize]);
        self.out.extend_from_slice(&head);
    }

    fn no_value(mut self) {
        self.begin(NO_VALUE);
        self.out.push(b'}');
    }

    /// One string that is JSON as it stands.
    #[inline]
    fn plain_text(mut self, text: &[u8]) {
        self.begin(TEXT);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\"]}");
    }

    fn inline_binary(mut self, value: &[u8]) {
        self.begin(BINARY);
        text::base64(self.out, value);
        self.out.extend_from_slice(b"\"}");
    }

    /// Values from a list, if there are any.
    #[inline]
    fn list<T>(mut self, values: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
        let mut values = values.into_iter();
        let Some(first) = values.next() else { return self.no_value() };
        self.begin(VALUE);
        write(self.out, first);
        for value in values {
            self.out.push(b',');
            write(self.out, value);
        }
        self.out.extend_from_slice(b"]}");
    }

    /// Values that backslashes separate; of several, empty ones are `null`.
    #[inline]
    fn split(self, value: &[u8], mut write: impl FnMut(&mut Vec<u8>, &[u8])) {
        let value = trim(value);
        if value.is_empty() {
            return self.no_value();
        }
        self.list(value.split(|byte| *byte == b'\\'), |out, part| match trim(part) {
            [] => out.extend_from_slice(b"null"),
            part => write(out, part),
        });
    }

    /// Numbers of a fixed size; a rest that is no whole number is left out.
    #[inline]
    fn units<const N: usize>(self, value: &[u8], mut write: impl FnMut(&mut Vec<u8>, [u8; N])) {
        let (units, _) = value.as_chunks::<N>();
        self.list(units, |out, unit| write(out, *unit));
    }

    /// IS and DS.
    #[inline]
    fn decimals(mut self, value: &[u8]) {
        let value = unindent(trim(value));
        if !number::are_plain(value) {
            return self.split(value, number::decimal);
        }
        // As they are, but for what separates them.
        self.begin(VALUE);
        let start = self.out.len();
        self.out.extend_from_slice(value);
        for byte in self.out.get_mut(start..).unwrap_or_default() {
            *byte = if *byte == b'\\' { b',' } else { *byte };
        }
        self.out.extend_from_slice(b"]}");
    }

    /// A name of one component group that is JSON as it stands.
    #[inline]
    fn plain_name(mut self, name: &[u8]) {
        self.begin(NAME);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\"}]}");
    }

    /// Text of one value, in UTF-8.
    fn narrative(self, text: &[u8]) {
        let text = trim(text);
        self.list((!text.is_empty()).then_some(text), text::quoted);
    }

    /// Text of values that backslashes separate, in UTF-8.
    fn texts(self, text: &[u8]) {
        let indented = !matches!(self.vr, Vr::AE | Vr::CS | Vr::UI);
        self.split(text, |out, part| text::quoted(out, if indented { part } else { unindent(part) }));
    }
}

struct HeaderWriter<'w, 'b, I, U> {
    out: &'w mut Vec<u8>,
    bulk: I,
    next: Option<Bulk<'b>>,
    /// Bulk values before the next one.
    passed: usize,
    uri: &'w mut U,
    scratch: String,
    /// Tag and item of every level above the one that is written.
    path: Vec<u32>,
    /// Whether the object that is written has no attribute yet.
    first: bool,
}

impl<'w, 'b, I, U> HeaderWriter<'w, 'b, I, U>
where
    I: Iterator<Item = Bulk<'b>>,
    U: FnMut(Bulk<'b>, &mut String),
{
    fn new(out: &'w mut Vec<u8>, mut bulk: I, uri: &'w mut U) -> Self {
        let next = bulk.next();
        Self { out, bulk, next, passed: 0, uri, scratch: String::new(), path: Vec::new(), first: true }
    }

    fn object(&mut self, header: Header<'_>, inherited: CharacterSet, depth: usize) {
        self.first = true;
        let mut charset = inherited;
        let mut last = None;
        if header.elements().is_sorted_by(|a, b| a.tag < b.tag) {
            for element in header.elements() {
                self.element(element, &mut charset, last.replace(element.tag), depth);
            }
        } else {
            // The Model's order is that of tags, each once: the first with a tag stays.
            let mut elements: Vec<Element<'_>> = header.elements().collect();
            elements.sort_by_key(|element| element.tag);
            elements.dedup_by_key(|element| element.tag);
            for element in elements {
                self.element(element, &mut charset, last.replace(element.tag), depth);
            }
        }
        self.close(last);
    }

    /// Ends an object after its last element.
    fn close(&mut self, last: Option<Tag>) {
        self.bulk_before(None, last);
        self.out.extend_from_slice(if self.first { b"{}" } else { b"}" });
        self.first = false;
    }

    #[inline]
    fn slot(&mut self, tag: Tag, vr: Vr) -> Slot<'_> {
        let lead = if std::mem::replace(&mut self.first, false) { b'{' } else { b',' };
        Slot { out: self.out, lead, tag, vr }
    }

    #[inline]
    fn element(&mut self, element: Element<'_>, charset: &mut CharacterSet, last: Option<Tag>, depth: usize) {
        let Element { tag, vr, value } = element;
        if self.next.is_some() {
            self.bulk_before(Some(tag), last);
        }
        if tag.is_group_length() || tag.group() == 0x0002 {
            return;
        }
        if vr == Vr::SQ {
            self.sequence(&element, *charset, depth);
        } else if tag == tags::SPECIFIC_CHARACTER_SET {
            *charset = CharacterSet::parse(value, *charset).0;
            let slot = self.slot(tag, vr);
            if trim(value).is_empty() { slot.no_value() } else { slot.plain_text(b"ISO_IR 192") }
        } else {
            primitive(self.slot(tag, vr), value, charset);
        }
    }

    fn sequence(&mut self, sequence: &Element<'_>, charset: CharacterSet, depth: usize) {
        let mut slot = self.slot(sequence.tag, Vr::SQ);
        let mut items = sequence.items().peekable();
        if depth >= DEPTH_MAX || items.peek().is_none() {
            return slot.no_value();
        }
        slot.begin(VALUE);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.path.extend([sequence.tag.0, u32::try_from(index).unwrap_or(u32::MAX)]);
            self.object(item, charset, depth + 1);
            self.path.truncate(self.path.len() - 2);
        }
        self.out.extend_from_slice(b"]}");
    }

    /// Writes the bulk values of this level that come before a tag, and passes over those whose place is gone by.
    fn bulk_before(&mut self, tag: Option<Tag>, last: Option<Tag>) {
        while let Some(bulk) = self.next {
            let here = bulk.path.len() == self.path.len() + 1 && bulk.path.starts_with(&self.path);
            let own = Tag(bulk.path.last().copied().unwrap_or_default());
            if here && tag.is_none_or(|tag| own < tag) {
                if last.is_none_or(|last| own > last) {
                    self.reference(bulk, own);
                }
            } else if here || !self.is_gone(bulk.path, tag) {
                return;
            }
            self.next = self.bulk.next();
            self.passed += 1;
        }
    }

    /// Whether a path lies before the element with this tag at this level, or before the end of the level.
    fn is_gone(&self, path: &[u32], tag: Option<Tag>) -> bool {
        match path.get(..self.path.len()) {
            Some(above) if above == self.path => match (path.get(self.path.len()), tag) {
                (Some(below), Some(tag)) => *below < tag.0,
                _ => true,
            },
            _ => path < self.path.as_slice(),
        }
    }

    #[cold]
    fn reference(&mut self, bulk: Bulk<'b>, tag: Tag) {
        if tag.is_group_length() || tag.group() == 0x0002 {
            return;
        }
        // A sequence can not stand behind an address: it is what nobody looked into.
        self.slot(tag, if bulk.vr == Vr::SQ { Vr::UN } else { bulk.vr }).begin(REFERENCE);
        self.scratch.clear();
        (self.uri)(bulk, &mut self.scratch);
        text::quoted(self.out, self.scratch.as_bytes());
        self.out.push(b'}');
    }
}

/// An element of a header that is no sequence.
#[inline]
fn primitive(slot: Slot<'_>, value: &[u8], charset: &CharacterSet) {
    let vr = slot.vr;
    match vr {
        Vr::US => slot.units(value, |out, unit: [u8; 2]| number::unsigned(out, u16::from_le_bytes(unit).into())),
        Vr::SS => slot.units(value, |out, unit: [u8; 2]| number::signed(out, i16::from_le_bytes(unit).into())),
        Vr::UL => slot.units(value, |out, unit: [u8; 4]| number::unsigned(out, u32::from_le_bytes(unit).into())),
        Vr::SL => slot.units(value, |out, unit: [u8; 4]| number::signed(out, i32::from_le_bytes(unit).into())),
        Vr::UV => slot.units(value, |out, unit: [u8; 8]| number::unsigned(out, u64::from_le_bytes(unit))),
        Vr::SV => slot.units(value, |out, unit: [u8; 8]| number::signed(out, i64::from_le_bytes(unit))),
        Vr::FL => slot.units(value, |out, unit: [u8; 4]| number::single(out, f32::from_le_bytes(unit))),
        Vr::FD => slot.units(value, |out, unit: [u8; 8]| number::double(out, f64::from_le_bytes(unit))),
        Vr::AT => slot.units(value, |out, [a, b, c, d]: [u8; 4]| text::tag(out, [b, a, d, c])),
        Vr::OB | Vr::OW | Vr::OD | Vr::OF | Vr::OL | Vr::OV | Vr::UN => match value {
            [] => slot.no_value(),
            value => slot.inline_binary(value),
        },
        Vr::SQ => slot.no_value(),
        Vr::DS | Vr::IS if value.is_ascii() => slot.decimals(value),
        Vr::DS | Vr::IS => slot.decimals(decoded(vr, value, charset).as_bytes()),
        Vr::PN => match trim(value) {
            [] => slot.no_value(),
            name if text::scan(name) == Scan::Plain && !name.contains(&b'=') && is_ascii_itself(vr, charset) => {
                slot.plain_name(name);
            }
            _ => slot.split(decoded(vr, value, charset).as_bytes(), text::name),
        },
        Vr::LT | Vr::ST | Vr::UT | Vr::UR => match text::scan(trim(value)) {
            Scan::Plain if is_ascii_itself(vr, charset) && !trim(value).is_empty() => slot.plain_text(trim(value)),
            _ => slot.narrative(decoded(vr, value, charset).as_bytes()),
        },
        _ => {
            let plain = if matches!(vr, Vr::AE | Vr::CS | Vr::UI) { unindent(trim(value)) } else { trim(value) };
            match text::scan(plain) {
                _ if plain.is_empty() => slot.no_value(),
                Scan::Other => slot.texts(decoded(vr, value, charset).as_bytes()),
                _ if !is_ascii_itself(vr, charset) => slot.texts(decoded(vr, value, charset).as_bytes()),
                Scan::Plain => slot.plain_text(plain),
                Scan::Backslashes => slot.texts(plain),
            }
        }
    }
}

/// Whether plain ASCII bytes are their own meaning: Romaji has another character at the code of the tilde.
#[inline]
fn is_ascii_itself(vr: Vr, charset: &CharacterSet) -> bool {
    !vr.is_charset_text() || charset.terms().first() != Some(&Term::Ir13)
}

#[inline]
fn decoded<'a>(vr: Vr, value: &'a [u8], charset: &CharacterSet) -> Cow<'a, str> {
    charset.decode(vr, value).text
}

/// Without padding behind.
#[inline]
fn trim(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |at| at + 1);
    value.get(..end).unwrap_or_default()
}

/// Without padding in front.
#[inline]
fn unindent(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| *byte != b' ').unwrap_or(value.len());
    value.get(start..).unwrap_or_default()
}

fn object(out: &mut Vec<u8>, set: &DataSet, depth: usize) {
    let mut lead = b'{';
    for element in set.elements().iter().filter(|e| !e.tag.is_group_length() && e.tag.group() != 0x0002) {
        let slot = Slot { out: &mut *out, lead, tag: element.tag, vr: element.vr };
        if element.tag == tags::SPECIFIC_CHARACTER_SET && !element.value.is_empty() {
            slot.plain_text(b"ISO_IR 192");
        } else {
            value(slot, &element.value, depth);
        }
        lead = b',';
    }
    out.extend_from_slice(if lead == b'{' { b"{}" } else { b"}" });
}

fn value(slot: Slot<'_>, value: &Value, depth: usize) {
    let vr = slot.vr;
    match value {
        Value::Text(texts) if matches!(texts.as_slice(), [only] if only.is_empty()) => slot.no_value(),
        Value::Text(texts) => slot.list(texts, |out, text| match (text.as_bytes(), vr) {
            ([], _) => out.extend_from_slice(b"null"),
            (bytes, Vr::DS | Vr::IS) => number::decimal(out, bytes),
            (bytes, Vr::PN) => text::name(out, bytes),
            (bytes, _) => text::quoted(out, bytes),
        }),
        Value::Signed(numbers) => slot.list(numbers, |out, n| number::signed(out, *n)),
        Value::Unsigned(numbers) => slot.list(numbers, |out, n| number::unsigned(out, *n)),
        Value::Float(numbers) if vr == Vr::FL => slot.list(numbers, |out, n| number::single(out, *n as f32)),
        Value::Float(numbers) => slot.list(numbers, |out, n| number::double(out, *n)),
        Value::Tags(tags) => slot.list(tags, |out, tag| text::tag(out, tag.0.to_be_bytes())),
        Value::Bytes(bytes)
            if matches!(vr, Vr::OB | Vr::OW | Vr::OD | Vr::OF | Vr::OL | Vr::OV | Vr::UN) && !bytes.is_empty() =>
        {
            slot.inline_binary(bytes);
        }
        Value::Sequence(items) if depth < DEPTH_MAX => slot.list(items, |out, item| object(out, item, depth + 1)),
        // Bytes that are no whole numbers of their VR have no form at all.
        Value::Empty | Value::Bytes(_) | Value::Sequence(_) => slot.no_value(),
    }
}
