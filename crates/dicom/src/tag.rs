//! Data Element Tags (PS3.5 section 7.1.1, edition 2025c).

use std::fmt;

/// A Data Element Tag: group number in the upper, element number in the lower 16 bits, so that numeric order is
/// the order of elements in a data set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag(pub u32);

impl Tag {
    /// The tag `(group,element)`.
    pub const fn new(group: u16, element: u16) -> Self {
        Self(((group as u32) << 16) | element as u32)
    }

    /// Group number.
    pub const fn group(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Element number.
    pub const fn element(self) -> u16 {
        self.0 as u16
    }

    /// Whether the group number is odd: a private element (PS3.5 section 7.8).
    pub const fn is_private(self) -> bool {
        self.group() & 1 == 1
    }

    /// Whether this is `(gggg,0000)`, a group length.
    pub const fn is_group_length(self) -> bool {
        self.element() == 0
    }

    /// Reads `GGGGEEEE` or `GGGG,EEEE`, hexadecimal, with or without parentheses, in either case.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let text = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(text);
        let (group, element) = match text.split_once(',') {
            Some(pair) => pair,
            None if text.len() == 8 && text.is_ascii() => text.split_at(4),
            None => return None,
        };
        let hex = |part: &str| {
            (part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u16::from_str_radix(part, 16).ok())
                .flatten()
        };
        Some(Self::new(hex(group)?, hex(element)?))
    }
}

/// `GGGGEEEE`, upper case, as DICOM JSON spells it (PS3.18 section F.2.2).
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:04X},{:04X})", self.group(), self.element())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_spellings_that_clients_send() {
        for text in ["00100020", "0010,0020", "(0010,0020)"] {
            assert_eq!(Tag::parse_hex(text), Some(Tag::new(0x0010, 0x0020)), "{text}");
        }
        for text in ["", "0010002", "+0100020", "0010,+020", "0010 0020", "é0100020"] {
            assert_eq!(Tag::parse_hex(text), None, "{text}");
        }
    }
}
