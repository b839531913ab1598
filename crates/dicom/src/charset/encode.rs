//! Text to bytes.

use std::borrow::Cow;

use super::{CharacterSet, decode::initial, tables::CodeSet};
use crate::Vr;

/// The character set has no code for a character of the text. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text has a character outside the character set")]
pub struct NotEncodable;

pub(super) fn encode<'a>(set: &CharacterSet, vr: Vr, text: &'a str) -> Result<Cow<'a, [u8]>, NotEncodable> {
    if let Some(encoding) = set.first().encoding() {
        if encoding == encoding_rs::UTF_8 {
            return Ok(Cow::Borrowed(text.as_bytes()));
        }
        // The Web's GBK has the euro sign at a code that GBK itself does not assign.
        if encoding == encoding_rs::GBK && text.contains('€') {
            return Err(NotEncodable);
        }
        let (bytes, _, unmappable) = encoding.encode(text);
        return if unmappable { Err(NotEncodable) } else { Ok(bytes) };
    }
    let (g0, g1) = initial(set);
    if g0 == CodeSet::Ascii && text.is_ascii() && !text.contains('\u{1B}') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let (many, person) = (vr.is_multi_valued_text(), vr == Vr::PN);
    let mut encoder = Encoder { set, g0, g1, bytes: Vec::with_capacity(text.len() + 8) };
    for character in text.chars() {
        match character {
            '\u{1B}' => return Err(NotEncodable),
            '\0'..' ' | '\u{7F}' => encoder.delimiter(character as u8),
            '\\' if many => encoder.delimiter(b'\\'),
            '^' | '=' if person => encoder.delimiter(character as u8),
            ' '..='~' => encoder.ascii(character as u8)?,
            _ => encoder.other(character)?,
        }
    }
    encoder.reset();
    Ok(Cow::Owned(encoder.bytes))
}

/// The escape sequence that designates a set to G0 or G1 (PS3.3 Tables C.12-3 and C.12-4, edition 2025c).
fn escape_sequence(set: CodeSet) -> &'static [u8] {
    match set {
        CodeSet::None => b"",
        CodeSet::Ascii => b"\x1B(B",
        CodeSet::Romaji => b"\x1B(J",
        CodeSet::Katakana => b"\x1B)I",
        CodeSet::Latin1 => b"\x1B-A",
        CodeSet::Latin2 => b"\x1B-B",
        CodeSet::Latin3 => b"\x1B-C",
        CodeSet::Latin4 => b"\x1B-D",
        CodeSet::Greek => b"\x1B-F",
        CodeSet::Arabic => b"\x1B-G",
        CodeSet::Hebrew => b"\x1B-H",
        CodeSet::Cyrillic => b"\x1B-L",
        CodeSet::Latin5 => b"\x1B-M",
        CodeSet::Thai => b"\x1B-T",
        CodeSet::Latin9 => b"\x1B-b",
        CodeSet::Jis0208 => b"\x1B$B",
        CodeSet::Jis0212 => b"\x1B$(D",
        CodeSet::Ksx1001 => b"\x1B$)C",
        CodeSet::Gb2312 => b"\x1B$)A",
    }
}

struct Encoder<'a> {
    set: &'a CharacterSet,
    g0: CodeSet,
    g1: CodeSet,
    bytes: Vec<u8>,
}

impl Encoder<'_> {
    fn designate_g0(&mut self, set: CodeSet) {
        if self.g0 != set {
            self.bytes.extend_from_slice(escape_sequence(set));
            self.g0 = set;
        }
    }

    fn designate_g1(&mut self, set: CodeSet) {
        if self.g1 != set {
            self.bytes.extend_from_slice(escape_sequence(set));
            self.g1 = set;
        }
    }

    /// Makes the first set active again, as it must be before delimiters (PS3.5 section 6.1.2.5.3).
    fn reset(&mut self) {
        let (g0, g1) = initial(self.set);
        self.designate_g0(g0);
        self.designate_g1(g1);
    }

    fn delimiter(&mut self, byte: u8) {
        self.reset();
        self.bytes.push(byte);
    }

    fn ascii(&mut self, byte: u8) -> Result<(), NotEncodable> {
        let (initial, _) = initial(self.set);
        // Romaji has other characters at these two codes.
        if initial == CodeSet::Romaji && matches!(byte, b'\\' | b'~') {
            return Err(NotEncodable);
        }
        self.designate_g0(initial);
        self.bytes.push(byte);
        Ok(())
    }

    fn other(&mut self, character: char) -> Result<(), NotEncodable> {
        // First what is active, so that no escape sequence is written without need.
        if self.put_g1(self.g1, character) || self.put_g0(self.g0, character) {
            return Ok(());
        }
        for term in self.set.terms() {
            let (g0, g1) = term.code_sets();
            if self.put_g1(g1, character) || self.put_g0(g0, character) {
                return Ok(());
            }
        }
        Err(NotEncodable)
    }

    fn put_g1(&mut self, set: CodeSet, character: char) -> bool {
        if let Some(byte) = set.reverse_upper(character) {
            self.designate_g1(set);
            self.bytes.push(byte);
            return true;
        }
        if matches!(set, CodeSet::Ksx1001 | CodeSet::Gb2312)
            && let Some([first, second]) = set.double().and_then(|double| double.code_of(character))
        {
            self.designate_g1(set);
            self.bytes.extend([first | 0x80, second | 0x80]);
            return true;
        }
        false
    }

    fn put_g0(&mut self, set: CodeSet, character: char) -> bool {
        let Some(code) = set.double().and_then(|double| double.code_of(character)) else { return false };
        self.designate_g0(set);
        self.bytes.extend(code);
        true
    }
}
