//! A small data set owned in memory: query identifiers, their answers, and other sets of a few hundred elements.
//! Text is UTF-8 here, whatever its encoding was.
//!
//! Stored objects are not held in this form: they are walked as bytes.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, DecodeLimits, DecodeReport};
pub use encode::EncodeError;

use bytes::Bytes;

use crate::{Tag, Uid, Vr, dictionary};

/// Elements in order of tags, each tag once, without group lengths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSet {
    elements: Vec<Element>,
}

/// One Data Element.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Tag.
    pub tag: Tag,
    /// Value Representation.
    pub vr: Vr,
    /// Value.
    pub value: Value,
}

/// The value of an element, in the form that suits its VR.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// Length zero, or nothing but padding.
    #[default]
    Empty,
    /// Text VRs: the values, one or more, some perhaps empty, without trailing padding. VRs in which a backslash
    /// is no delimiter have one.
    Text(Vec<String>),
    /// SL, SS, SV.
    Signed(Vec<i64>),
    /// UL, US, UV.
    Unsigned(Vec<u64>),
    /// FD and FL, the latter widened.
    Float(Vec<f64>),
    /// AT.
    Tags(Vec<Tag>),
    /// Everything else, in little endian byte order.
    Bytes(Bytes),
    /// SQ: its items, perhaps none.
    Sequence(Vec<DataSet>),
}

impl Value {
    /// One text, split at backslashes if the VR has many values, without trailing padding.
    pub fn text(vr: Vr, text: &str) -> Self {
        // Spaces before the value carry no meaning in these (PS3.5 Table 6.2-1).
        let leading = matches!(vr, Vr::AE | Vr::CS | Vr::DS | Vr::IS | Vr::UI);
        let trim = |part: &str| {
            let part = part.trim_end_matches([' ', '\0']);
            (if leading { part.trim_start_matches(' ') } else { part }).to_owned()
        };
        let parts: Vec<String> =
            if vr.is_multi_valued_text() { text.split('\\').map(trim).collect() } else { vec![trim(text)] };
        match parts.as_slice() {
            [only] if only.is_empty() => Self::Empty,
            _ => Self::Text(parts),
        }
    }

    /// Whether there is nothing: no bytes, or no items.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(v) => v.iter().all(String::is_empty),
            Self::Signed(v) => v.is_empty(),
            Self::Unsigned(v) => v.is_empty(),
            Self::Float(v) => v.is_empty(),
            Self::Tags(v) => v.is_empty(),
            Self::Bytes(v) => v.is_empty(),
            Self::Sequence(v) => v.is_empty(),
        }
    }

    /// The texts; none if the value is of another form.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::Text(texts) => texts,
            _ => &[],
        }
    }

    /// The items; none if the value is of another form.
    pub fn items(&self) -> &[DataSet] {
        match self {
            Self::Sequence(items) => items,
            _ => &[],
        }
    }
}

impl DataSet {
    /// No elements.
    pub const fn new() -> Self {
        Self { elements: Vec::new() }
    }

    /// The elements, in order of tags.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn position(&self, tag: Tag) -> Result<usize, usize> {
        self.elements.binary_search_by_key(&tag, |e| e.tag)
    }

    /// The element with this tag.
    pub fn get(&self, tag: Tag) -> Option<&Element> {
        self.position(tag).ok().and_then(|at| self.elements.get(at))
    }

    /// The first text of the element with this tag, unless that is empty.
    pub fn text(&self, tag: Tag) -> Option<&str> {
        self.texts(tag).first().map(String::as_str).filter(|t| !t.is_empty())
    }

    /// The first value of the element with this tag as a UID; `None` if it is none.
    pub fn uid(&self, tag: Tag) -> Option<Uid> {
        self.text(tag).and_then(|text| text.parse().ok())
    }

    /// The texts of the element with this tag.
    pub fn texts(&self, tag: Tag) -> &[String] {
        self.get(tag).map(|e| e.value.texts()).unwrap_or_default()
    }

    /// The items of the sequence with this tag.
    pub fn items(&self, tag: Tag) -> &[DataSet] {
        self.get(tag).map(|e| e.value.items()).unwrap_or_default()
    }

    /// Puts an element, in place of one with the same tag. Group lengths are not kept.
    pub fn put(&mut self, tag: Tag, vr: Vr, value: Value) {
        if tag.is_group_length() {
            return;
        }
        let element = Element { tag, vr, value };
        match self.elements.last() {
            Some(last) if last.tag >= tag => match self.position(tag) {
                Ok(at) => self.elements[at] = element,
                Err(at) => self.elements.insert(at, element),
            },
            _ => self.elements.push(element),
        }
    }

    /// Puts a text under the dictionary's VR (`LO` for a tag that it does not know); backslashes split it.
    pub fn put_text(&mut self, tag: Tag, text: &str) {
        let vr = dictionary::vr_of(tag).filter(|vr| vr.is_text()).unwrap_or(Vr::LO);
        self.put(tag, vr, Value::text(vr, text));
    }

    /// Puts an element of length zero under the dictionary's VR (`UN` for a tag that it does not know).
    pub fn put_empty(&mut self, tag: Tag) {
        self.put(tag, dictionary::vr_of(tag).unwrap_or(Vr::UN), Value::Empty);
    }

    /// Takes the element with this tag out.
    pub fn remove(&mut self, tag: Tag) -> Option<Element> {
        self.position(tag).ok().map(|at| self.elements.remove(at))
    }
}

/// Sorts; of elements with one tag the first stays.
impl FromIterator<Element> for DataSet {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        let mut elements: Vec<Element> = elements.into_iter().filter(|e| !e.tag.is_group_length()).collect();
        if !elements.is_sorted_by(|a, b| a.tag < b.tag) {
            elements.sort_by_key(|e| e.tag);
            elements.dedup_by_key(|e| e.tag);
        }
        Self { elements }
    }
}
