//! DICOM JSON Model (PS3.18 Annex F, edition 2025c), written straight from an extracted header or a [`DataSet`] into
//! a buffer, with no tree between.
//!
//! Text is UTF-8, whatever it was stored in. IS and DS are numbers where a reader of double precision gets the very
//! number that was stored, else strings. Elements with more than the Standard allows (too long, private) are written
//! like any other.

mod number;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;

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
    let mut bulk = bulk.into_iter();
    let next = bulk.next();
    let scratch = String::new();
    let mut writer = HeaderWriter { out, bulk, next, uri: &mut uri, scratch, path: Vec::new() };
    writer.object(header, default, 0);
}

/// Writes one object from a data set in memory.
pub fn write_data_set(out: &mut Vec<u8>, set: &DataSet) {
    object(out, set, 0);
}

/// `"GGGGEEEE":{"vr":"XX"` with a comma before it where one is due.
#[inline]
fn open(out: &mut Vec<u8>, tag: Tag, vr: Vr) {
    let mut head = *b",\"00000000\":{\"vr\":\"XX\"";
    let [a, b, c, d] = tag.0.to_be_bytes();
    head[2..4].copy_from_slice(&text::HEX[usize::from(a)]);
    head[4..6].copy_from_slice(&text::HEX[usize::from(b)]);
    head[6..8].copy_from_slice(&text::HEX[usize::from(c)]);
    head[8..10].copy_from_slice(&text::HEX[usize::from(d)]);
    head[19..21].copy_from_slice(vr.as_str().as_bytes());
    let first = out.last() == Some(&b'{');
    out.extend_from_slice(if first { &head[1..] } else { &head });
}

const VALUE: &[u8] = b",\"Value\":[";

struct HeaderWriter<'w, 'b, I, U> {
    out: &'w mut Vec<u8>,
    bulk: I,
    next: Option<Bulk<'b>>,
    uri: &'w mut U,
    scratch: String,
    /// Tag and item of every level above the one that is written.
    path: Vec<u32>,
}

impl<'b, I, U> HeaderWriter<'_, 'b, I, U>
where
    I: Iterator<Item = Bulk<'b>>,
    U: FnMut(Bulk<'b>, &mut String),
{
    fn object(&mut self, header: Header<'_>, inherited: CharacterSet, depth: usize) {
        self.out.push(b'{');
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
        self.bulk_before(None, last);
        self.out.push(b'}');
    }

    fn element(&mut self, element: Element<'_>, charset: &mut CharacterSet, last: Option<Tag>, depth: usize) {
        let Element { tag, vr, value } = element;
        if self.next.is_some() {
            self.bulk_before(Some(tag), last);
        }
        if tag.is_group_length() || tag.group() == 0x0002 {
            return;
        }
        open(self.out, tag, vr);
        if vr == Vr::SQ {
            self.items(&element, *charset, depth);
        } else if tag == tags::SPECIFIC_CHARACTER_SET {
            *charset = CharacterSet::parse(value, *charset).0;
            if value.iter().any(|byte| !matches!(byte, 0 | b' ')) {
                self.out.extend_from_slice(b",\"Value\":[\"ISO_IR 192\"]");
            }
        } else if !value.is_empty() {
            primitive(self.out, vr, value, charset);
        }
        self.out.push(b'}');
    }

    fn items(&mut self, sequence: &Element<'_>, charset: CharacterSet, depth: usize) {
        let mut items = sequence.items().peekable();
        if depth >= DEPTH_MAX || items.peek().is_none() {
            return;
        }
        self.out.extend_from_slice(VALUE);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.path.extend([sequence.tag.0, u32::try_from(index).unwrap_or(u32::MAX)]);
            self.object(item, charset, depth + 1);
            self.path.truncate(self.path.len() - 2);
        }
        self.out.push(b']');
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
        open(self.out, tag, if bulk.vr == Vr::SQ { Vr::UN } else { bulk.vr });
        self.out.extend_from_slice(b",\"BulkDataURI\":");
        self.scratch.clear();
        (self.uri)(bulk, &mut self.scratch);
        text::string(self.out, &self.scratch);
        self.out.push(b'}');
    }
}

/// The rest of an attribute object but its brace, for a value that has bytes.
#[inline]
fn primitive(out: &mut Vec<u8>, vr: Vr, value: &[u8], charset: &CharacterSet) {
    match vr {
        Vr::DS | Vr::IS if value.is_ascii() => array(out, value, number::decimal),
        Vr::DS | Vr::IS => array(out, decoded(vr, value, charset).as_bytes(), number::decimal),
        Vr::US => units(out, value, |out, unit: [u8; 2]| number::unsigned(out, u16::from_le_bytes(unit).into())),
        Vr::SS => units(out, value, |out, unit: [u8; 2]| number::signed(out, i16::from_le_bytes(unit).into())),
        Vr::UL => units(out, value, |out, unit: [u8; 4]| number::unsigned(out, u32::from_le_bytes(unit).into())),
        Vr::SL => units(out, value, |out, unit: [u8; 4]| number::signed(out, i32::from_le_bytes(unit).into())),
        Vr::UV => units(out, value, |out, unit: [u8; 8]| number::unsigned(out, u64::from_le_bytes(unit))),
        Vr::SV => units(out, value, |out, unit: [u8; 8]| number::signed(out, i64::from_le_bytes(unit))),
        Vr::FL => units(out, value, |out, unit: [u8; 4]| number::single(out, f32::from_le_bytes(unit))),
        Vr::FD => units(out, value, |out, unit: [u8; 8]| number::double(out, f64::from_le_bytes(unit))),
        Vr::AT => units(out, value, |out, [a, b, c, d]: [u8; 4]| text::tag(out, [b, a, d, c])),
        Vr::OB | Vr::OW | Vr::OD | Vr::OF | Vr::OL | Vr::OV | Vr::UN => inline(out, value),
        Vr::SQ => {}
        Vr::PN => {
            let decoded = decoded(vr, value, charset);
            array(out, decoded.as_bytes(), text::name);
        }
        Vr::LT | Vr::ST | Vr::UT | Vr::UR => {
            let decoded = decoded(vr, value, charset);
            let text = trim(decoded.as_bytes());
            if !text.is_empty() {
                out.extend_from_slice(VALUE);
                text::quoted(out, text);
                out.push(b']');
            }
        }
        _ => match text::plain(trim(value)) {
            // Romaji has another character at the code of the tilde.
            Some(text) if !(charset.terms().first() == Some(&Term::Ir13) && vr.is_charset_text()) => {
                let leading = matches!(vr, Vr::AE | Vr::CS | Vr::UI);
                let text = if leading { unindent(text) } else { text };
                if !text.is_empty() {
                    out.extend_from_slice(b",\"Value\":[\"");
                    out.extend_from_slice(text);
                    out.extend_from_slice(b"\"]");
                }
            }
            _ => {
                let leading = matches!(vr, Vr::AE | Vr::CS | Vr::UI);
                let decoded = decoded(vr, value, charset);
                array(out, decoded.as_bytes(), |out, part| {
                    text::quoted(out, if leading { unindent(part) } else { part });
                });
            }
        },
    }
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

/// `,"Value":[...]` from values that backslashes separate; of several, empty ones are `null`.
#[inline]
fn array(out: &mut Vec<u8>, value: &[u8], mut write: impl FnMut(&mut Vec<u8>, &[u8])) {
    let value = trim(value);
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(VALUE);
    for (index, part) in value.split(|byte| *byte == b'\\').enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match trim(part) {
            [] => out.extend_from_slice(b"null"),
            part => write(out, part),
        }
    }
    out.push(b']');
}

/// `,"Value":[...]` from numbers of a fixed size; a rest that is no whole number is left out.
#[inline]
fn units<const N: usize>(out: &mut Vec<u8>, value: &[u8], mut write: impl FnMut(&mut Vec<u8>, [u8; N])) {
    let (units, _) = value.as_chunks::<N>();
    if units.is_empty() {
        return;
    }
    out.extend_from_slice(VALUE);
    for (index, unit) in units.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, *unit);
    }
    out.push(b']');
}

fn inline(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b",\"InlineBinary\":\"");
    text::base64(out, value);
    out.push(b'"');
}

fn object(out: &mut Vec<u8>, set: &DataSet, depth: usize) {
    out.push(b'{');
    for element in set.elements().iter().filter(|e| !e.tag.is_group_length() && e.tag.group() != 0x0002) {
        open(out, element.tag, element.vr);
        if element.tag == tags::SPECIFIC_CHARACTER_SET && !element.value.is_empty() {
            out.extend_from_slice(b",\"Value\":[\"ISO_IR 192\"]");
        } else {
            value(out, element.vr, &element.value, depth);
        }
        out.push(b'}');
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, vr: Vr, value: &Value, depth: usize) {
    match value {
        Value::Empty => {}
        Value::Text(texts) if matches!(texts.as_slice(), [only] if only.is_empty()) => {}
        Value::Text(texts) => list(out, texts, |out, text| match (text.as_bytes(), vr) {
            ([], _) => out.extend_from_slice(b"null"),
            (bytes, Vr::DS | Vr::IS) => number::decimal(out, bytes),
            (bytes, Vr::PN) => text::name(out, bytes),
            (bytes, _) => text::quoted(out, bytes),
        }),
        Value::Signed(numbers) => list(out, numbers, |out, n| number::signed(out, *n)),
        Value::Unsigned(numbers) => list(out, numbers, |out, n| number::unsigned(out, *n)),
        Value::Float(numbers) if vr == Vr::FL => list(out, numbers, |out, n| number::single(out, *n as f32)),
        Value::Float(numbers) => list(out, numbers, |out, n| number::double(out, *n)),
        Value::Tags(tags) => list(out, tags, |out, tag| text::tag(out, tag.0.to_be_bytes())),
        // Bytes that are no whole numbers of their VR have no form but this one.
        Value::Bytes(bytes) if bytes.is_empty() => {}
        Value::Bytes(bytes) if matches!(vr, Vr::OB | Vr::OW | Vr::OD | Vr::OF | Vr::OL | Vr::OV | Vr::UN) => {
            inline(out, bytes);
        }
        Value::Bytes(_) => {}
        Value::Sequence(items) if depth < DEPTH_MAX => list(out, items, |out, item| object(out, item, depth + 1)),
        Value::Sequence(_) => {}
    }
}

fn list<T>(out: &mut Vec<u8>, values: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    if values.is_empty() {
        return;
    }
    out.extend_from_slice(VALUE);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
}
