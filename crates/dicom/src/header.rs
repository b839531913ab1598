//! Reading a header, or any well-formed Explicit VR Little Endian data set, without copying.

use crate::{parse::head, tag::Tag, vr::Vr};

/// Elements in Explicit VR Little Endian, as [`crate::walk::Walked::header`] holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a>(&'a [u8]);

/// One element of a [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The tag.
    pub tag: Tag,
    /// The VR.
    pub vr: Vr,
    /// The value with its padding, numbers little endian; of a sequence, its items.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// Takes the bytes as they are; what cannot be read ends the iteration.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The encoded elements.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The elements of this level, in their order.
    pub fn elements(self) -> Elements<'a> {
        Elements { left: self.0 }
    }

    /// The first element with this tag, at this level.
    pub fn get(self, tag: Tag) -> Option<Element<'a>> {
        self.elements().find(|element| element.tag == tag)
    }

    /// The first value of a text element, without padding; `None` if it is absent or empty.
    pub fn text(self, tag: Tag) -> Option<&'a [u8]> {
        self.get(tag).map(|element| element.text()).filter(|text| !text.is_empty())
    }

    /// The first value of a US element.
    pub fn u16(self, tag: Tag) -> Option<u16> {
        self.get(tag)?.value.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// The first item of a sequence.
    pub fn first_item(self, tag: Tag) -> Option<Header<'a>> {
        self.get(tag)?.items().next()
    }
}

impl<'a> Element<'a> {
    /// The first of the values that backslashes separate, without spaces and NULs around it. A character set in
    /// which a backslash may be part of a character (PS3.5 section 6.1.2.3) is not taken into account: for identifiers
    /// and numbers.
    pub fn text(&self) -> &'a [u8] {
        first_text(self.value)
    }

    /// The items of a sequence; none for any other VR.
    pub fn items(&self) -> Items<'a> {
        Items { left: if self.vr == Vr::SQ { self.value } else { &[] } }
    }
}

/// See [`Element::text`].
pub(crate) fn first_text(value: &[u8]) -> &[u8] {
    let first = value.split(|byte| *byte == b'\\').next().unwrap_or_default();
    let is_padding = |byte: &u8| matches!(byte, 0 | b' ');
    let start = first.iter().position(|b| !is_padding(b)).unwrap_or(first.len());
    let end = first.iter().rposition(|b| !is_padding(b)).map_or(start, |at| at + 1);
    first.get(start..end).unwrap_or_default()
}

/// The elements of one level.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    left: &'a [u8],
}

impl<'a> Elements<'a> {
    #[inline]
    fn split(&self) -> Option<(Element<'a>, &'a [u8])> {
        let b = self.left.first_chunk::<8>()?;
        let tag = Tag::new(u16::from_le_bytes([b[0], b[1]]), u16::from_le_bytes([b[2], b[3]]));
        let vr = head::vr_of_letters(b[4], b[5])?;
        let (start, length) = if vr.has_long_length() {
            let b = self.left.first_chunk::<12>()?;
            (12, u32::from_le_bytes([b[8], b[9], b[10], b[11]]))
        } else {
            (8, u32::from(u16::from_le_bytes([b[6], b[7]])))
        };
        let end = usize::try_from(length).ok()?.checked_add(start)?;
        let value = self.left.get(start..end)?;
        Some((Element { tag, vr, value }, &self.left[end..]))
    }

    /// Bytes that were not read yet.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Whether all bytes were read as elements.
    pub fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        let (element, left) = self.split()?;
        self.left = left;
        Some(element)
    }
}

/// The items of a sequence.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    left: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let b = self.left.first_chunk::<8>()?;
        if b[..4] != [0xFE, 0xFF, 0x00, 0xE0] {
            return None;
        }
        let length = usize::try_from(u32::from_le_bytes([b[4], b[5], b[6], b[7]])).ok()?;
        let end = length.checked_add(8)?;
        let item = self.left.get(8..end)?;
        self.left = &self.left[end..];
        Some(Header(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags;

    const HEADER: &[u8] = b"\x08\x00\x18\x00UI\x06\x001.2.3\0\
        \x08\x00\x40\x11SQ\0\0\x26\0\0\0\
        \xFE\xFF\x00\xE0\x0C\0\0\0\x08\x00\x50\x11UI\x04\x001.2\0\
        \xFE\xFF\x00\xE0\x0A\0\0\0\x08\x00\x55\x11UI\x02\x009\0\
        \x28\x00\x10\x00US\x02\x00\x00\x02";

    #[test]
    fn elements_items_and_values() {
        let header = Header::new(HEADER);
        assert_eq!(header.elements().count(), 3);
        assert_eq!(header.text(tags::SOP_INSTANCE_UID), Some(&b"1.2.3"[..]));
        assert_eq!(header.u16(tags::ROWS), Some(512));
        let items: Vec<_> =
            header.get(tags::REFERENCED_IMAGE_SEQUENCE).into_iter().flat_map(|sequence| sequence.items()).collect();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].text(tags::REFERENCED_SOP_CLASS_UID), Some(&b"1.2"[..]));
        assert_eq!(items[1].text(tags::REFERENCED_SOP_CLASS_UID), None);
        assert_eq!(header.get(tags::PATIENT_ID), None);
    }

    #[test]
    fn a_cut_header_ends_early_and_says_so() {
        for length in 0..HEADER.len() {
            let mut elements = Header::new(&HEADER[..length]).elements();
            assert!(elements.by_ref().count() < 3);
            assert_eq!(elements.is_at_end(), matches!(length, 0 | 14 | 64), "{length}");
        }
    }
}
