//! Bytes to a data set.

use bytes::Bytes;

use super::{DataSet, Element, Value};
use crate::{CharacterSet, Tag, Vr, charset::CharsetFinding, dictionary, tags, transfer_syntax::Encoding};

/// Bounds of [`DataSet::decode`].
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Sequences within sequences.
    pub depth_max: usize,
    /// Elements and items in all.
    pub elements_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { depth_max: 32, elements_max: 1 << 20 }
    }
}

/// What was noticed while text was decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodeReport {
    /// Oddities of (0008,0005), at any level.
    pub charset: Vec<CharsetFinding>,
    /// Tags of text elements, at any level, with bytes that mean nothing in their character set.
    pub lossy: Vec<Tag>,
}

/// Why bytes are no data set. Offsets are in bytes from their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within an element, or within a sequence of undefined length.
    #[error("data set ends within an element at byte {0}")]
    Truncated(usize),
    /// A length reaches beyond the sequence or item that it is in.
    #[error("element at byte {0} is longer than what holds it")]
    TooLong(usize),
    /// Two bytes that are no VR.
    #[error("element at byte {0} has no known value representation")]
    UnknownVr(usize),
    /// Something else where an item or a delimiter must be.
    #[error("sequence has no item at byte {0}")]
    NoItem(usize),
    /// An undefined length where only a sequence may have one.
    #[error("element at byte {0} has no defined length")]
    UndefinedLength(usize),
    /// More nesting than the limit.
    #[error("data set is nested more than {0} levels deep")]
    TooDeep(usize),
    /// More elements than the limit.
    #[error("data set has more than {0} elements")]
    TooMany(usize),
}

const UNDEFINED: u32 = u32::MAX;

impl DataSet {
    /// Reads a data set without File Meta Information; a deflated one must be inflated before.
    ///
    /// Text is decoded by the (0008,0005) of its item or the nearest one around it, else by `default`. Text in
    /// [`Value::Bytes`] shares memory with `bytes`. Elements of VR UN are read as the dictionary knows them (PS3.5
    /// section 6.2.2).
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is allocated in proportion to a length that the bytes do not back.
    pub fn decode(
        bytes: &Bytes,
        encoding: Encoding,
        default: CharacterSet,
        limits: &DecodeLimits,
    ) -> Result<(Self, DecodeReport), DecodeError> {
        let mut reader = Reader { bytes, at: 0, limits, elements: 0 };
        let mut set = reader.elements(bytes.len(), false, Form::of(encoding), 0)?;
        let mut report = DecodeReport::default();
        set.decode_text(default, &mut report);
        Ok((set, report))
    }

    /// Turns the bytes of text elements into text, level by level: only now is each level's character set known.
    fn decode_text(&mut self, inherited: CharacterSet, report: &mut DecodeReport) {
        let own = match self.get(tags::SPECIFIC_CHARACTER_SET) {
            Some(Element { value: Value::Bytes(raw), .. }) => {
                let (set, findings) = CharacterSet::parse(raw, inherited);
                report.charset.extend(findings);
                set
            }
            _ => inherited,
        };
        for element in &mut self.elements {
            match &mut element.value {
                Value::Sequence(items) => items.iter_mut().for_each(|item| item.decode_text(own, report)),
                Value::Bytes(raw) if element.vr.is_text() => {
                    let decoded = own.decode(element.vr, raw);
                    if decoded.lossy {
                        report.lossy.push(element.tag);
                    }
                    element.value = Value::text(element.vr, &decoded.text);
                }
                _ => {}
            }
        }
    }
}

/// How elements are written.
#[derive(Clone, Copy)]
struct Form {
    explicit: bool,
    big: bool,
}

impl Form {
    const IMPLICIT: Self = Self { explicit: false, big: false };

    fn of(encoding: Encoding) -> Self {
        Self { explicit: encoding.is_explicit(), big: encoding.is_big_endian() }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

struct Header {
    start: usize,
    tag: Tag,
    vr: Option<Vr>,
    length: u32,
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    limits: &'a DecodeLimits,
    elements: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self, end: usize) -> Result<[u8; N], DecodeError> {
        let taken = self.bytes.get(self.at..end).and_then(|rest| rest.first_chunk::<N>());
        let taken = *taken.ok_or(DecodeError::Truncated(self.at))?;
        self.at += N;
        Ok(taken)
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.elements += 1;
        if self.elements > self.limits.elements_max {
            return Err(DecodeError::TooMany(self.limits.elements_max));
        }
        Ok(())
    }

    /// The header of an element, item or delimiter.
    fn header(&mut self, end: usize, form: Form) -> Result<Header, DecodeError> {
        self.count()?;
        let start = self.at;
        let [a, b, c, d] = self.take::<4>(end)?;
        let tag = Tag::new(form.u16([a, b]), form.u16([c, d]));
        if !form.explicit || tag.group() == 0xFFFE {
            let length = form.u32(self.take(end)?);
            return Ok(Header { start, tag, vr: None, length });
        }
        let vr = Vr::from_bytes(self.take(end)?).ok_or(DecodeError::UnknownVr(start))?;
        let length = if vr.has_long_length() {
            self.take::<2>(end)?;
            form.u32(self.take(end)?)
        } else {
            u32::from(form.u16(self.take(end)?))
        };
        Ok(Header { start, tag, vr: Some(vr), length })
    }

    /// The end of something of a defined length that must lie within `end`.
    fn end_of(&self, header: &Header, end: usize) -> Result<usize, DecodeError> {
        let wanted = usize::try_from(header.length).ok().and_then(|length| self.at.checked_add(length));
        wanted.filter(|wanted| *wanted <= end).ok_or(if end == self.bytes.len() {
            DecodeError::Truncated(header.start)
        } else {
            DecodeError::TooLong(header.start)
        })
    }

    /// Elements up to `end`, or up to an item delimiter if `delimited`.
    fn elements(&mut self, end: usize, delimited: bool, form: Form, depth: usize) -> Result<DataSet, DecodeError> {
        let mut elements = Vec::new();
        while self.at < end {
            let header = self.header(end, form)?;
            if header.tag.group() == 0xFFFE {
                if delimited && header.tag == tags::ITEM_DELIMITATION_ITEM {
                    return Ok(elements.into_iter().collect());
                }
                return Err(DecodeError::NoItem(header.start));
            }
            elements.push(self.element(&header, end, form, depth)?);
        }
        if delimited { Err(DecodeError::Truncated(self.at)) } else { Ok(elements.into_iter().collect()) }
    }

    fn element(&mut self, header: &Header, end: usize, form: Form, depth: usize) -> Result<Element, DecodeError> {
        let tag = header.tag;
        let stated = header.vr.filter(|vr| *vr != Vr::UN);
        let vr = stated.or_else(|| dictionary::vr_of(tag)).unwrap_or(Vr::UN);
        // Whatever is encoded as UN is encoded as in Implicit VR Little Endian (PS3.5 section 6.2.2).
        let inner = if header.vr == Some(Vr::UN) { Form::IMPLICIT } else { form };
        if header.length == UNDEFINED {
            if vr != Vr::SQ && stated.is_some() {
                return Err(DecodeError::UndefinedLength(header.start));
            }
            let items = self.items(end, true, inner, depth + 1)?;
            return Ok(Element { tag, vr: Vr::SQ, value: Value::Sequence(items) });
        }
        let value_end = self.end_of(header, end)?;
        let start = self.at;
        if vr == Vr::SQ {
            match self.items(value_end, false, inner, depth + 1) {
                Ok(items) => return Ok(Element { tag, vr, value: Value::Sequence(items) }),
                // The dictionary's word alone that these bytes are a sequence, and they are none.
                Err(_) if header.vr == Some(Vr::UN) => {
                    self.at = value_end;
                    return Ok(Element { tag, vr: Vr::UN, value: Value::Bytes(self.bytes.slice(start..value_end)) });
                }
                Err(error) => return Err(error),
            }
        }
        let raw = self.bytes.slice(self.at..value_end);
        self.at = value_end;
        Ok(Element { tag, vr, value: value_of(vr, raw, inner.big) })
    }

    /// Items up to `end`, or up to a sequence delimiter if `delimited`.
    fn items(&mut self, end: usize, delimited: bool, form: Form, depth: usize) -> Result<Vec<DataSet>, DecodeError> {
        if depth > self.limits.depth_max {
            return Err(DecodeError::TooDeep(self.limits.depth_max));
        }
        let mut items = Vec::new();
        while self.at < end {
            // Items and delimiters never state a VR.
            let header = self.header(end, Form { explicit: false, ..form })?;
            match header.tag {
                tags::ITEM if header.length == UNDEFINED => items.push(self.elements(end, true, form, depth)?),
                tags::ITEM => {
                    let item_end = self.end_of(&header, end)?;
                    items.push(self.elements(item_end, false, form, depth)?);
                }
                tags::SEQUENCE_DELIMITATION_ITEM if delimited => return Ok(items),
                _ => return Err(DecodeError::NoItem(header.start)),
            }
        }
        if delimited { Err(DecodeError::Truncated(self.at)) } else { Ok(items) }
    }
}

/// The value of anything but a sequence; text stays bytes until its character set is known.
fn value_of(vr: Vr, raw: Bytes, big: bool) -> Value {
    if raw.is_empty() {
        return Value::Empty;
    }
    let unit = vr.unit_bytes();
    if unit == 1 || !raw.len().is_multiple_of(unit) {
        return Value::Bytes(raw);
    }
    let units = raw.chunks_exact(unit).map(|chunk| {
        let fold = |acc: u64, byte: &u8| acc << 8 | u64::from(*byte);
        if big { chunk.iter().fold(0, fold) } else { chunk.iter().rev().fold(0, fold) }
    });
    match vr {
        Vr::US | Vr::UL | Vr::UV => Value::Unsigned(units.collect()),
        Vr::SS => Value::Signed(units.map(|u| i64::from(u as u16 as i16)).collect()),
        Vr::SL => Value::Signed(units.map(|u| i64::from(u as u32 as i32)).collect()),
        Vr::SV => Value::Signed(units.map(|u| u as i64).collect()),
        Vr::FL => Value::Float(units.map(|u| f64::from(f32::from_bits(u as u32))).collect()),
        Vr::FD => Value::Float(units.map(f64::from_bits).collect()),
        Vr::AT if raw.len().is_multiple_of(4) => {
            let halves: Vec<u16> = units.map(|u| u as u16).collect();
            Value::Tags(halves.chunks_exact(2).map(|pair| Tag::new(pair[0], pair[1])).collect())
        }
        _ if big => {
            let mut swapped = raw.to_vec();
            swapped.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
            Value::Bytes(swapped.into())
        }
        _ => Value::Bytes(raw),
    }
}
