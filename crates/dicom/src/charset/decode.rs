//! Bytes to text.

use std::borrow::Cow;

use super::{CharacterSet, Decoded, Term, tables::CodeSet};
use crate::Vr;

const ESC: u8 = 0x1B;

pub(super) fn decode<'a>(set: &CharacterSet, vr: Vr, bytes: &'a [u8]) -> Decoded<'a> {
    let many = vr.is_multi_valued_text();
    if is_plain(set, many, bytes)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Decoded { text: Cow::Borrowed(text), lossy: false };
    }
    if let Some(encoding) = set.first().encoding() {
        let (text, lossy) = encoding.decode_without_bom_handling(bytes);
        return Decoded { text, lossy: lossy || !vr.is_charset_text() };
    }
    let (g0, g1) = initial(set);
    let text = String::with_capacity(bytes.len() + bytes.len() / 2);
    let mut decoder = Decoder { set, bytes, at: 0, many, person: vr == Vr::PN, g0, g1, text, lossy: false };
    decoder.run();
    Decoded { text: Cow::Owned(decoder.text), lossy: decoder.lossy || !vr.is_charset_text() }
}

/// Whether the bytes are ASCII and mean themselves.
fn is_plain(set: &CharacterSet, many: bool, bytes: &[u8]) -> bool {
    if set.first() == Term::Ir192 {
        return true;
    }
    let romaji = set.first() == Term::Ir13;
    bytes.is_ascii() && !bytes.contains(&ESC) && !(romaji && (bytes.contains(&b'~') || !many && bytes.contains(&b'\\')))
}

/// The code elements in force at the start of a value and after each delimiter.
pub(super) fn initial(set: &CharacterSet) -> (CodeSet, CodeSet) {
    let (g0, g1) = set.first().code_sets();
    (if g0.double().is_some() { CodeSet::Ascii } else { g0 }, g1)
}

/// The designation that an escape sequence (without its ESC) makes: its length, whether it is of G0, the set.
///
/// Sequences of PS3.3 Tables C.12-3 and C.12-4, and those of their relatives that real files hold.
fn designation(rest: &[u8]) -> Option<(usize, bool, CodeSet)> {
    use CodeSet as S;
    Some(match rest {
        [b'(', b'B', ..] => (2, true, S::Ascii),
        [b'(', b'J', ..] => (2, true, S::Romaji),
        [b'(', b'I', ..] => (2, true, S::Katakana),
        [b')', b'I', ..] => (2, false, S::Katakana),
        [b'$', b'@' | b'B', ..] => (2, true, S::Jis0208),
        [b'$', b'(', b'@' | b'B', ..] => (3, true, S::Jis0208),
        [b'$', b'(', b'D', ..] => (3, true, S::Jis0212),
        [b'$', b'(', b'C', ..] => (3, true, S::Ksx1001),
        [b'$', b'A', ..] => (2, true, S::Gb2312),
        [b'$', b')', b'A', ..] => (3, false, S::Gb2312),
        [b'$', b')', b'C', ..] => (3, false, S::Ksx1001),
        [b'-', b'A', ..] => (2, false, S::Latin1),
        [b'-', b'B', ..] => (2, false, S::Latin2),
        [b'-', b'C', ..] => (2, false, S::Latin3),
        [b'-', b'D', ..] => (2, false, S::Latin4),
        [b'-', b'F', ..] => (2, false, S::Greek),
        [b'-', b'G', ..] => (2, false, S::Arabic),
        [b'-', b'H', ..] => (2, false, S::Hebrew),
        [b'-', b'L', ..] => (2, false, S::Cyrillic),
        [b'-', b'M', ..] => (2, false, S::Latin5),
        [b'-', b'T', ..] => (2, false, S::Thai),
        [b'-', b'b', ..] => (2, false, S::Latin9),
        _ => return None,
    })
}

struct Decoder<'a> {
    set: &'a CharacterSet,
    bytes: &'a [u8],
    at: usize,
    many: bool,
    person: bool,
    g0: CodeSet,
    g1: CodeSet,
    text: String,
    lossy: bool,
}

impl Decoder<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                ESC => self.escape(),
                // Before control characters the first set is in force again (PS3.5 section 6.1.2.5.3).
                0..0x20 | 0x7F => self.delimiter(byte),
                b' ' => self.text.push(' '),
                0x21..0x7F => self.lower(byte),
                0x80.. => self.upper(byte),
            }
        }
    }

    fn escape(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match designation(rest) {
            Some((length, true, set)) => (self.at, self.g0) = (self.at + length, set),
            Some((length, false, set)) => (self.at, self.g1) = (self.at + length, set),
            None => self.replace(),
        }
    }

    fn delimiter(&mut self, byte: u8) {
        (self.g0, self.g1) = initial(self.set);
        self.text.push(char::from(byte));
    }

    fn replace(&mut self) {
        self.text.push(char::REPLACEMENT_CHARACTER);
        self.lossy = true;
    }

    fn is_delimiter(&self, byte: u8) -> bool {
        self.many && byte == b'\\' || self.person && matches!(byte, b'^' | b'=')
    }

    /// A byte of G0.
    fn lower(&mut self, byte: u8) {
        if let Some(double) = self.g0.double() {
            let second = self.bytes.get(self.at).copied().filter(|b| (0x21..0x7F).contains(b));
            return match second {
                Some(second) => {
                    self.at += 1;
                    match double.get(byte, second) {
                        Some(character) => self.text.push(character),
                        None => self.replace(),
                    }
                }
                // A writer that did not switch back before a delimiter.
                None if self.is_delimiter(byte) => self.delimiter(byte),
                None => self.replace(),
            };
        }
        if self.is_delimiter(byte) {
            return self.delimiter(byte);
        }
        match (self.g0, byte) {
            (CodeSet::Romaji, b'\\') => self.text.push('¥'),
            (CodeSet::Romaji, b'~') => self.text.push('‾'),
            (CodeSet::Katakana, _) => match CodeSet::Katakana.lookup_upper(byte | 0x80) {
                Some(character) => self.text.push(character),
                None => self.replace(),
            },
            _ => self.text.push(char::from(byte)),
        }
    }

    /// A byte of G1.
    fn upper(&mut self, byte: u8) {
        if self.g1 == CodeSet::None {
            return self.undesignated();
        }
        let character = match self.g1.double() {
            Some(double) => {
                let second = self.bytes.get(self.at).copied().filter(|b| *b >= 0xA1);
                self.at += usize::from(second.is_some());
                second.and_then(|second| double.get(byte & 0x7F, second & 0x7F)).filter(|_| byte >= 0xA1)
            }
            None => {
                // Codes 128 to 159 are no graphic characters of any set: a guess at the Windows code page.
                self.lossy |= byte < 0xA0;
                self.g1.lookup_upper(byte)
            }
        };
        match character {
            Some(character) => self.text.push(character),
            None => self.replace(),
        }
    }

    /// A byte above 127 where nothing says what such bytes mean: take the set that could have been meant, else
    /// UTF-8 if it is that, else Latin alphabet No. 1.
    fn undesignated(&mut self) {
        self.lossy = true;
        self.at -= 1;
        let declared = self.set.terms().iter().map(|t| t.code_sets().1).find(|g1| *g1 != CodeSet::None);
        if let Some(declared) = declared {
            self.g1 = declared;
            return;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let run = rest.iter().position(u8::is_ascii).and_then(|end| rest.get(..end)).unwrap_or(rest);
        match std::str::from_utf8(run) {
            Ok(text) => self.text.push_str(text),
            Err(_) => {
                let latin = run.iter().map(|b| CodeSet::Latin1.lookup_upper(*b).unwrap_or(char::REPLACEMENT_CHARACTER));
                self.text.extend(latin);
            }
        }
        self.at += run.len();
    }
}
