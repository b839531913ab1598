//! A data set to bytes.

use super::{DataSet, Element, Value};
use crate::{CharacterSet, Tag, Vr, dictionary, tags, transfer_syntax::Encoding};

/// Why a data set cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The character set has no code for a character of this element's text.
    #[error("text of element {0} has a character outside the character set")]
    NotEncodable(Tag),
    /// A value or an item is longer than a length field can say.
    #[error("element {0} is too long")]
    TooLong(Tag),
}

/// The longest even length that 16 bits can say.
const SHORT_MAX: usize = 0xFFFE;

impl DataSet {
    /// Writes the data set without File Meta Information, sequences and items with defined lengths (but see below), and
    /// (0008,0005) as the character set demands in place of those that it has. A sequence that no VR field and no
    /// dictionary tells from other values, such as a private one in Implicit VR, is told by an undefined length; another
    /// value under the tag of a sequence can't be told in Implicit VR and is left empty. A deflated encoding is left to the caller.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, encoding: Encoding, charset: CharacterSet) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer { out: Vec::new(), encoding, charset };
        let term = charset.to_value();
        let term = Element { tag: tags::SPECIFIC_CHARACTER_SET, vr: Vr::CS, value: Value::text(Vr::CS, &term) };
        let mut own = (charset != CharacterSet::DEFAULT).then_some(&term);
        for element in self.elements.iter().filter(|e| e.tag != term.tag) {
            if let Some(term) = own.take_if(|term| term.tag < element.tag) {
                writer.element(term)?;
            }
            writer.element(element)?;
        }
        own.map_or(Ok(()), |term| writer.element(term))?;
        Ok(writer.out)
    }

    /// As [`DataSet::encode`] in the preferred character set if that can carry all text, else in ISO_IR 192; says
    /// which it was.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn encode_preferring(
        &self,
        encoding: Encoding,
        preferred: CharacterSet,
    ) -> Result<(Vec<u8>, CharacterSet), EncodeError> {
        if preferred.is_standard() {
            match self.encode(encoding, preferred) {
                Ok(bytes) => return Ok((bytes, preferred)),
                Err(EncodeError::NotEncodable(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok((self.encode(encoding, CharacterSet::UTF_8)?, CharacterSet::UTF_8))
    }
}

/// Turns the byte order of a value round; one that is no whole number of units has none.
fn reverse_units(vr: Vr, value: &mut [u8]) {
    let unit = vr.unit_bytes();
    if unit > 1 && value.len().is_multiple_of(unit) {
        value.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    }
}

struct Writer {
    out: Vec<u8>,
    encoding: Encoding,
    charset: CharacterSet,
}

impl Writer {
    fn u16(&mut self, value: u16) {
        let big = self.encoding.is_big_endian();
        self.out.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(&mut self, value: u32) {
        let big = self.encoding.is_big_endian();
        self.out.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u64(&mut self, value: u64) {
        let big = self.encoding.is_big_endian();
        self.out.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn tag(&mut self, tag: Tag) {
        self.u16(tag.group());
        self.u16(tag.element());
    }

    /// Overwrites the four bytes at `at` with what was written since.
    fn patch(&mut self, at: usize, tag: Tag) -> Result<(), EncodeError> {
        let length = u32::try_from(self.out.len() - at - 4).ok().filter(|length| *length < u32::MAX);
        let length = length.ok_or(EncodeError::TooLong(tag))?;
        let big = self.encoding.is_big_endian();
        let bytes = if big { length.to_be_bytes() } else { length.to_le_bytes() };
        if let Some(slot) = self.out.get_mut(at..at + 4) {
            slot.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// Overwrites the four bytes at `at` with an undefined length, and ends the sequence.
    fn undefined_length(&mut self, at: usize) -> Result<(), EncodeError> {
        if let Some(slot) = self.out.get_mut(at..at + 4) {
            slot.fill(0xFF);
        }
        self.tag(tags::SEQUENCE_DELIMITATION_ITEM);
        self.u32(0);
        Ok(())
    }

    fn element(&mut self, element: &Element) -> Result<(), EncodeError> {
        self.tag(element.tag);
        let explicit = self.encoding.is_explicit();
        // What does not fit a 16-bit length is written as UN (PS3.5 section 6.2.2, note 3): decided from the value
        // once written, for text alone can be as long as that without being countable before.
        let header = self.out.len();
        if explicit {
            self.out.extend(element.vr.as_str().as_bytes());
            self.u16(0);
        }
        self.u32(0);
        let value = self.out.len();
        let unclear = !explicit && (element.vr == Vr::SQ) != (dictionary::vr_of(element.tag) == Some(Vr::SQ));
        match element.vr {
            Vr::SQ if unclear => {
                self.value(element)?;
                return self.undefined_length(value - 4);
            }
            _ if unclear => {}
            _ => self.value(element)?,
        }
        if self.out.len() % 2 == 1 {
            let text = element.vr.is_text() && element.vr != Vr::UI;
            self.out.push(if text { b' ' } else { 0 });
        }
        let length = self.out.len() - value;
        if !explicit || element.vr.has_long_length() {
            return self.patch(value - 4, element.tag);
        }
        if length > SHORT_MAX {
            // And what is UN is little endian inside.
            if self.encoding.is_big_endian() {
                reverse_units(element.vr, self.out.get_mut(value..).unwrap_or_default());
            }
            if let Some(slot) = self.out.get_mut(header..header + 2) {
                slot.copy_from_slice(b"UN");
            }
            return self.patch(value - 4, element.tag);
        }
        let length = length as u16;
        let big = self.encoding.is_big_endian();
        let bytes = if big { length.to_be_bytes() } else { length.to_le_bytes() };
        self.out.splice(header + 2..value, bytes);
        Ok(())
    }

    fn value(&mut self, element: &Element) -> Result<(), EncodeError> {
        match &element.value {
            Value::Empty => {}
            Value::Text(texts) => {
                let refused = EncodeError::NotEncodable(element.tag);
                match texts.as_slice() {
                    [only] => self.text(element.vr, only).ok_or(refused)?,
                    several => self.text(element.vr, &several.join("\\")).ok_or(refused)?,
                }
            }
            Value::Signed(values) => values.iter().for_each(|v| self.number(element.vr, *v as u64)),
            Value::Unsigned(values) => values.iter().for_each(|v| self.number(element.vr, *v)),
            Value::Float(values) => {
                for value in values {
                    match element.vr {
                        Vr::FL => self.u32((*value as f32).to_bits()),
                        _ => self.u64(value.to_bits()),
                    }
                }
            }
            Value::Tags(values) => values.iter().for_each(|tag| self.tag(*tag)),
            Value::Bytes(bytes) => {
                let start = self.out.len();
                self.out.extend_from_slice(bytes);
                if self.encoding.is_big_endian() {
                    // The pad byte is the last of a word too.
                    if element.vr.unit_bytes() > 1 && bytes.len() % 2 == 1 {
                        self.out.push(0);
                    }
                    reverse_units(element.vr, self.out.get_mut(start..).unwrap_or_default());
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    self.item(element.tag, item)?;
                }
            }
        }
        Ok(())
    }

    fn number(&mut self, vr: Vr, value: u64) {
        match vr.unit_bytes() {
            2 => self.u16(value as u16),
            4 => self.u32(value as u32),
            _ => self.u64(value),
        }
    }

    fn text(&mut self, vr: Vr, text: &str) -> Option<()> {
        self.out.extend_from_slice(&self.charset.encode(vr, text).ok()?);
        Some(())
    }

    fn item(&mut self, sequence: Tag, item: &DataSet) -> Result<(), EncodeError> {
        self.tag(tags::ITEM);
        let length_at = self.out.len();
        self.u32(0);
        // An item has the character set of what is around it: its own would contradict what is written here.
        for element in item.elements.iter().filter(|e| e.tag != tags::SPECIFIC_CHARACTER_SET) {
            self.element(element)?;
        }
        self.patch(length_at, sequence)
    }
}
