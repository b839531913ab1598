//! Specific Character Set: what the bytes of text values mean (PS3.3 section C.12.1.1.2, PS3.5 section 6.1,
//! edition 2025c).
//!
//! Decoding never fails: what has no meaning becomes U+FFFD, or is guessed where one guess is plainly the likely
//! one, and [`Decoded::lossy`] says so. Encoding is exact or refused, so that a caller can fall back to UTF-8.

mod decode;
mod encode;
mod tables;
mod term;
#[cfg(test)]
mod tests;

pub use encode::NotEncodable;
pub use term::Term;

use std::{borrow::Cow, fmt};

use crate::Vr;

/// Defined terms kept of one Specific Character Set; more than that no repertoire of the Standard needs.
const TERMS_MAX: usize = 8;

/// The meaning of Specific Character Set (0008,0005): one repertoire, or several with code extensions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CharacterSet {
    len: u8,
    terms: [Term; TERMS_MAX],
}

/// What was odd about a Specific Character Set that was read leniently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CharsetFinding {
    /// A defined term is spelled in another way than the Standard's, but it is plain which is meant.
    Misspelled,
    /// A term is none of the Standard's; it is ignored, or read as the encoding of that name.
    Unknown,
    /// Terms that cannot be combined stand together (ISO_IR 192, GB18030 and GBK stand alone).
    NotCombinable,
    /// More terms than any text can need; those beyond the first eight are ignored.
    TooMany,
}

/// Text made of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text; borrowed if the bytes were its UTF-8 form already.
    pub text: Cow<'a, str>,
    /// Whether some byte has no meaning in the character set: it was replaced by U+FFFD or guessed.
    pub lossy: bool,
}

impl CharacterSet {
    /// The default repertoire, ISO_IR 6 (ASCII).
    pub const DEFAULT: Self = Self::single(Term::Ir6);
    /// ISO_IR 192: Unicode in UTF-8.
    pub const UTF_8: Self = Self::single(Term::Ir192);

    /// The character set with one repertoire and no code extensions.
    pub const fn single(term: Term) -> Self {
        let mut terms = [Term::Ir6; TERMS_MAX];
        terms[0] = term;
        Self { len: 1, terms }
    }

    /// Reads the bytes of (0008,0005), which may be padded. An empty value means `default` (what the sender's
    /// profile says it uses), and so does one in which no term is known.
    ///
    /// # Source
    /// PS3.3 section C.12.1.1.2, edition 2025c. Spellings such as `ISO-IR 100` and `ISO_IR_100` and terms with code
    /// extensions that stand alone are read, with a finding where they break the Standard.
    pub fn parse(value: &[u8], default: Self) -> (Self, Vec<CharsetFinding>) {
        let text = String::from_utf8_lossy(value);
        let mut findings = Vec::new();
        let mut terms = Vec::new();
        if text.trim_matches(['\0', ' ']).is_empty() {
            return (default, findings);
        }
        for part in text.split('\\').map(|part| part.trim_matches(['\0', ' '])) {
            match term::read(part) {
                Some((found, finding)) => {
                    terms.extend(found);
                    findings.extend(finding);
                }
                None => findings.push(CharsetFinding::Unknown),
            }
        }
        (Self::combine(&terms, default, &mut findings), findings)
    }

    fn combine(terms: &[Term], default: Self, findings: &mut Vec<CharsetFinding>) -> Self {
        let Some(first) = terms.first() else { return default };
        if terms.len() > 1 {
            // Being supersets of ASCII, the stand-alone repertoires can stand in for an empty first value.
            let alone = terms.iter().find(|t| t.stands_alone());
            if let Some(alone) = alone {
                findings.push(CharsetFinding::NotCombinable);
                if first.stands_alone() || *first == Term::Ir6 {
                    return Self::single(*alone);
                }
            }
        }
        let mut set = Self { len: 0, terms: [Term::Ir6; TERMS_MAX] };
        // Multi-byte repertoires have no meaning without a single-byte one beside them.
        let implied = first.is_multi_byte().then_some(&Term::Ir6);
        for term in implied.into_iter().chain(terms).filter(|t| !t.stands_alone() || terms.len() == 1) {
            if set.terms().contains(term) {
                continue;
            }
            let Some(slot) = set.terms.get_mut(usize::from(set.len)) else {
                findings.push(CharsetFinding::TooMany);
                break;
            };
            *slot = *term;
            set.len += 1;
        }
        set
    }

    /// This set with one more repertoire that escape sequences lead to; `None` where it is there, or there is no room.
    pub(crate) fn with(mut self, term: Term) -> Option<Self> {
        if self.terms().contains(&term) {
            return None;
        }
        *self.terms.get_mut(usize::from(self.len))? = term;
        self.len += 1;
        Some(self)
    }

    /// The repertoires, in the order of (0008,0005); never empty.
    pub fn terms(&self) -> &[Term] {
        self.terms.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn first(&self) -> Term {
        self.terms[0]
    }

    /// Whether escape sequences switch between repertoires.
    pub fn has_code_extensions(&self) -> bool {
        self.len > 1
    }

    /// The value of (0008,0005) in the Standard's spelling, with backslashes and without padding; empty for the
    /// default repertoire and for sets that the Standard has no term for.
    pub fn to_value(&self) -> String {
        if !self.has_code_extensions() {
            return self.first().single_value().unwrap_or_default().into();
        }
        let parts: Vec<&str> = self.terms().iter().map(|t| t.code_extension_value().unwrap_or_default()).collect();
        parts.join("\\")
    }

    /// Whether the Standard has a term for this set, so that a data set can be written in it.
    pub fn is_standard(&self) -> bool {
        !matches!(self.first(), Term::Other(_))
    }

    /// Decodes the bytes of an element of this VR, padding and delimiters included. A backslash in the text is a
    /// delimiter if the VR has many values: bytes of that code inside multi-byte characters do not become one.
    ///
    /// # Source
    /// PS3.5 sections 6.1.2.2 to 6.1.2.5, edition 2025c.
    pub fn decode<'a>(&self, vr: Vr, bytes: &'a [u8]) -> Decoded<'a> {
        decode::decode(self, vr, bytes)
    }

    /// Encodes text, in which backslashes are delimiters if the VR has many values, with the escape sequences
    /// that it needs. The result is not padded.
    ///
    /// # Errors
    /// [`NotEncodable`] if the set has no code for some character.
    /// # Source
    /// PS3.5 sections 6.1.2.2 to 6.1.2.5, edition 2025c.
    pub fn encode<'a>(&self, vr: Vr, text: &'a str) -> Result<Cow<'a, [u8]>, NotEncodable> {
        encode::encode(self, vr, text)
    }
}

/// ISO_IR 6.
impl Default for CharacterSet {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for CharacterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.terms()).finish()
    }
}
