//! Giving a data set out with other attributes than it came with, and with what they were in its Original Attributes Sequence
//! (PS3.3 section C.12.1.1.9, edition 2025c).
//!
//! What comes out is a list of pieces: ranges of the data set as it stands, and the few bytes that are new. So no value that
//! stays is touched or held, the length is known before the first byte is given, and any range can be.

mod charset;
mod places;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::{
    CharacterSet, Tag, Vr,
    convert::rules,
    dataset::{DataSet, DecodeLimits, Element, Value},
    parse::{Parser, head::Form},
    tags,
    transfer_syntax::Encoding,
};
use places::{Found, Places, Slot};
use std::{collections::BTreeMap, ops::Range};

/// Sequences open at once while a data set is looked at.
const NESTING_MAX: usize = 1024;

/// Attributes are given other values.
#[derive(Clone, Debug, PartialEq)]
pub struct Modification {
    /// The new values, of top-level elements below group 7FE0, none of them a sequence; an empty one takes the value away.
    pub elements: DataSet,
    /// Attribute Modification DateTime.
    pub at: String,
    /// Modifying System.
    pub by: String,
    /// Source of Previous Values; may be empty.
    pub source: String,
}

/// A piece of the data set to give out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the one that is stored. An end of `u64::MAX` is the end of it.
    Stored(Range<u64>),
    /// These bytes.
    Made(Bytes),
}

/// The pieces of a data set, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The last is the rest of what is stored.
    pub pieces: Vec<Piece>,
    /// Whether every character of the new values could be written; what could not is a question mark.
    pub is_whole: bool,
}

/// Finds out of which pieces a data set is made. Memory is bounded: some bytes for each top-level element that stands apart.
pub struct Rewriter {
    parser: Parser<Places>,
    encoding: Encoding,
    modifications: Vec<Modification>,
    default: CharacterSet,
}

impl Rewriter {
    /// For a data set in an encoding (a deflated one is looked at inflated) with the character set to assume where it names none.
    /// Modifications in their order: each finds what the one before left.
    pub fn new(encoding: Encoding, modifications: Vec<Modification>, default: CharacterSet) -> Self {
        let modified = modifications.iter().flat_map(|modification| modification.elements.elements());
        let mut wanted: Vec<Tag> = modified.map(|element| element.tag).collect();
        wanted.extend([tags::SPECIFIC_CHARACTER_SET, tags::ORIGINAL_ATTRIBUTES_SEQUENCE]);
        wanted.sort_unstable();
        wanted.dedup();
        let parser = Parser::new(encoding, rules(NESTING_MAX, false), Places::new(wanted));
        Self { parser, encoding, modifications, default }
    }

    /// Takes the next bytes of the data set. Returns whether more are wanted.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        self.parser.push(bytes);
        self.parser.sink.rest.is_none()
    }

    /// The pieces.
    pub fn finish(mut self) -> Rewritten {
        if self.parser.sink.rest.is_none() {
            self.parser.end();
        }
        let places = &mut self.parser.sink;
        let rest = places.finish();
        let own = CharacterSet::parse(&places.charset, self.default).0;
        let texts = self.modifications.iter().flat_map(|modification| modification.elements.elements());
        let texts = texts.flat_map(|element| element.value.texts().iter().map(move |text| (element.vr, text.as_str())));
        let set = charset::suited(own, texts.clone());
        let is_whole = texts.clone().all(|(vr, text)| set.encode(vr, text).is_ok());
        let is_named = !places.charset.is_empty() || texts.clone().all(|(_, text)| text.is_ascii());
        let writer = Writer { encoding: places.form.map_or(self.encoding, encoding_of), charset: set };
        let charset = (set != own || !is_named).then(|| writer.charset_element());
        let (current, items) = modify(&self.modifications, &places.found, &writer);
        let mut pieces = Pieces::default();
        for slot in std::mem::take(&mut places.slots) {
            match slot {
                Slot::Kept(range) => pieces.stored(range),
                Slot::Place(tags::SPECIFIC_CHARACTER_SET) => match &charset {
                    Some(element) => pieces.made(element),
                    None => places
                        .found
                        .get(&tags::SPECIFIC_CHARACTER_SET)
                        .into_iter()
                        .for_each(|f| pieces.stored(f.element.clone())),
                },
                Slot::Place(tags::ORIGINAL_ATTRIBUTES_SEQUENCE) => {
                    let before = places.found.get(&tags::ORIGINAL_ATTRIBUTES_SEQUENCE);
                    let mut all = Pieces::default();
                    before.and_then(|found| found.items.clone()).into_iter().for_each(|items| all.stored(items));
                    all.append(items.clone());
                    pieces.append(writer.sequence(tags::ORIGINAL_ATTRIBUTES_SEQUENCE, all));
                }
                Slot::Place(tag) => match current.get(&tag) {
                    Some(Current::Made(element)) => pieces.made(&writer.element(element)),
                    Some(Current::Stored(range)) => pieces.stored(range.clone()),
                    None => {}
                },
            }
        }
        pieces.stored(rest..u64::MAX);
        Rewritten { pieces: pieces.0, is_whole }
    }
}

/// A value as far as modifications were gone through.
#[derive(Clone)]
enum Current {
    Stored(Range<u64>),
    Made(Element),
}

/// What the values come to, and the items that say what they were.
fn modify(
    modifications: &[Modification],
    found: &BTreeMap<Tag, Found>,
    writer: &Writer,
) -> (BTreeMap<Tag, Current>, Pieces) {
    let mut current: BTreeMap<Tag, Current> =
        found.iter().map(|(tag, found)| (*tag, Current::Stored(found.element.clone()))).collect();
    let mut items = Pieces::default();
    for modification in modifications {
        let mut before = Pieces::default();
        for element in modification.elements.elements() {
            match current.insert(element.tag, Current::Made(element.clone())) {
                Some(Current::Stored(range)) => before.stored(range),
                Some(Current::Made(element)) => before.made(&writer.element(&element)),
                None => before.made(&writer.element(&Element { value: Value::Empty, ..element.clone() })),
            }
        }
        let mut item = writer.sequence(tags::MODIFIED_ATTRIBUTES_SEQUENCE, writer.item(before));
        for (tag, text) in [
            (tags::ATTRIBUTE_MODIFICATION_DATE_TIME, modification.at.as_str()),
            (tags::MODIFYING_SYSTEM, modification.by.as_str()),
            (tags::SOURCE_OF_PREVIOUS_VALUES, modification.source.as_str()),
            (tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION, "CORRECT"),
        ] {
            item.made(&writer.text(tag, text));
        }
        items.append(writer.item(item));
    }
    (current, items)
}

/// A header that is at hand, in Explicit VR Little Endian, with modifications. Where its character set can't carry the new
/// values, all of it is written in UTF-8.
pub fn rewrite(header: &Bytes, modifications: &[Modification], default: CharacterSet) -> Bytes {
    let (made, is_whole) = rewrite_once(header, modifications, default);
    if is_whole {
        return made;
    }
    let limits = DecodeLimits { depth_max: 128, ..DecodeLimits::default() };
    let decoded = DataSet::decode(header, Encoding::ExplicitLittle, default, &limits).ok();
    let in_utf_8 = decoded.and_then(|(set, _)| set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).ok());
    in_utf_8.map_or(made, |header| rewrite_once(&header.into(), modifications, CharacterSet::UTF_8).0)
}

fn rewrite_once(header: &Bytes, modifications: &[Modification], default: CharacterSet) -> (Bytes, bool) {
    let mut rewriter = Rewriter::new(Encoding::ExplicitLittle, modifications.to_vec(), default);
    rewriter.push(header);
    let Rewritten { pieces, is_whole } = rewriter.finish();
    let mut out = Vec::with_capacity(header.len() + 512);
    for piece in pieces {
        match piece {
            Piece::Made(bytes) => out.extend_from_slice(&bytes),
            Piece::Stored(range) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(header.len());
                out.extend_from_slice(header.get(at(range.start)..at(range.end)).unwrap_or_default());
            }
        }
    }
    (out.into(), is_whole)
}

fn encoding_of(form: Form) -> Encoding {
    match (form.explicit, form.big) {
        (true, true) => Encoding::ExplicitBig,
        (true, false) => Encoding::ExplicitLittle,
        (false, _) => Encoding::ImplicitLittle,
    }
}

/// Pieces, neighbours joined.
#[derive(Clone, Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn stored(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(Piece::Stored(last)) if last.end == range.start => last.end = range.end,
            _ => self.0.push(Piece::Stored(range)),
        }
    }

    fn made(&mut self, bytes: &[u8]) {
        match self.0.last_mut() {
            Some(Piece::Made(last)) => *last = [last, bytes].concat().into(),
            _ => self.0.push(Piece::Made(Bytes::copy_from_slice(bytes))),
        }
    }

    fn length(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Stored(range) => range.end.saturating_sub(range.start),
            Piece::Made(bytes) => bytes.len() as u64,
        };
        self.0.iter().map(length).sum()
    }

    fn append(&mut self, others: Self) {
        for piece in others.0 {
            match piece {
                Piece::Stored(range) => self.stored(range),
                Piece::Made(bytes) => self.made(&bytes),
            }
        }
    }
}

/// Writes what is new as the data set is written.
struct Writer {
    encoding: Encoding,
    charset: CharacterSet,
}

impl Writer {
    fn element(&self, element: &Element) -> Vec<u8> {
        let carried = |text: &String| charset::carried(&self.charset, element.vr, text);
        let value = match &element.value {
            Value::Text(texts) => Value::Text(texts.iter().map(carried).collect()),
            other => other.clone(),
        };
        let set = DataSet::from_iter([Element { value, ..element.clone() }]);
        let written = set.encode(self.encoding, self.charset).unwrap_or_default();
        // Specific Character Set comes before everything that can be modified.
        written.get(self.charset_bytes()..).unwrap_or_default().to_vec()
    }

    fn text(&self, tag: Tag, text: &str) -> Vec<u8> {
        let mut set = DataSet::new();
        set.put_text(tag, text);
        set.get(tag).map(|element| self.element(element)).unwrap_or_default()
    }

    /// Bytes of Specific Character Set at the beginning of what [`DataSet::encode`] writes.
    fn charset_bytes(&self) -> usize {
        if self.charset == CharacterSet::DEFAULT { 0 } else { 8 + self.charset.to_value().len().next_multiple_of(2) }
    }

    fn charset_element(&self) -> Vec<u8> {
        let written = DataSet::new().encode(self.encoding, self.charset).unwrap_or_default();
        written.get(..self.charset_bytes()).unwrap_or_default().to_vec()
    }

    /// A sequence of these items.
    fn sequence(&self, tag: Tag, items: Pieces) -> Pieces {
        let mut head = self.tag(tag);
        if self.encoding.is_explicit() {
            head.extend_from_slice(Vr::SQ.as_str().as_bytes());
            head.extend_from_slice(&[0, 0]);
        }
        self.of_length(head, items)
    }

    fn item(&self, elements: Pieces) -> Pieces {
        self.of_length(self.tag(tags::ITEM), elements)
    }

    /// A head with the length of what follows it.
    fn of_length(&self, mut head: Vec<u8>, contents: Pieces) -> Pieces {
        // A data set that had items beyond this could not be read either.
        let length = u32::try_from(contents.length()).unwrap_or(u32::MAX);
        let big = self.encoding.is_big_endian();
        head.extend(if big { length.to_be_bytes() } else { length.to_le_bytes() });
        let mut pieces = Pieces::default();
        pieces.made(&head);
        pieces.append(contents);
        pieces
    }

    fn tag(&self, tag: Tag) -> Vec<u8> {
        let halves = [tag.group(), tag.element()];
        let big = self.encoding.is_big_endian();
        halves.iter().flat_map(|half| if big { half.to_be_bytes() } else { half.to_le_bytes() }).collect()
    }
}
