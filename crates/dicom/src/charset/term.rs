//! The Standard's repertoires and their spellings (PS3.3 Tables C.12-2 to C.12-5, edition 2025c).

use encoding_rs::Encoding;

use super::{CharsetFinding, tables::CodeSet};

/// A repertoire that Specific Character Set can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Default repertoire, ASCII.
    Ir6,
    /// Japanese: JIS X 0201 Romaji and Katakana.
    Ir13,
    /// Latin alphabet No. 1.
    Ir100,
    /// Latin alphabet No. 2.
    Ir101,
    /// Latin alphabet No. 3.
    Ir109,
    /// Latin alphabet No. 4.
    Ir110,
    /// Greek.
    Ir126,
    /// Arabic.
    Ir127,
    /// Hebrew.
    Ir138,
    /// Cyrillic.
    Ir144,
    /// Latin alphabet No. 5.
    Ir148,
    /// Thai.
    Ir166,
    /// Latin alphabet No. 9.
    Ir203,
    /// Japanese Kanji: JIS X 0208.
    Ir87,
    /// Japanese supplementary Kanji: JIS X 0212.
    Ir159,
    /// Korean: KS X 1001.
    Ir149,
    /// Simplified Chinese: GB 2312.
    Ir58,
    /// Unicode in UTF-8.
    Ir192,
    /// Chinese: GB 18030.
    Gb18030,
    /// Simplified Chinese: GBK.
    Gbk,
    /// An encoding that real files name but the Standard does not know.
    Other(&'static Encoding),
}

/// Repertoire, value without code extensions, value with them.
const SPELLINGS: [(Term, Option<&str>, Option<&str>); 20] = [
    (Term::Ir6, None, None),
    (Term::Ir13, Some("ISO_IR 13"), Some("ISO 2022 IR 13")),
    (Term::Ir100, Some("ISO_IR 100"), Some("ISO 2022 IR 100")),
    (Term::Ir101, Some("ISO_IR 101"), Some("ISO 2022 IR 101")),
    (Term::Ir109, Some("ISO_IR 109"), Some("ISO 2022 IR 109")),
    (Term::Ir110, Some("ISO_IR 110"), Some("ISO 2022 IR 110")),
    (Term::Ir126, Some("ISO_IR 126"), Some("ISO 2022 IR 126")),
    (Term::Ir127, Some("ISO_IR 127"), Some("ISO 2022 IR 127")),
    (Term::Ir138, Some("ISO_IR 138"), Some("ISO 2022 IR 138")),
    (Term::Ir144, Some("ISO_IR 144"), Some("ISO 2022 IR 144")),
    (Term::Ir148, Some("ISO_IR 148"), Some("ISO 2022 IR 148")),
    (Term::Ir166, Some("ISO_IR 166"), Some("ISO 2022 IR 166")),
    (Term::Ir203, Some("ISO_IR 203"), Some("ISO 2022 IR 203")),
    (Term::Ir87, None, Some("ISO 2022 IR 87")),
    (Term::Ir159, None, Some("ISO 2022 IR 159")),
    (Term::Ir149, None, Some("ISO 2022 IR 149")),
    (Term::Ir58, None, Some("ISO 2022 IR 58")),
    (Term::Ir192, Some("ISO_IR 192"), None),
    (Term::Gb18030, Some("GB18030"), None),
    (Term::Gbk, Some("GBK"), None),
];

impl Term {
    /// Every repertoire of the Standard.
    pub fn all() -> impl Iterator<Item = Term> {
        SPELLINGS.iter().map(|(term, ..)| *term)
    }

    /// Whether it excludes code extensions (PS3.3 Table C.12-5).
    pub fn stands_alone(self) -> bool {
        matches!(self, Self::Ir192 | Self::Gb18030 | Self::Gbk | Self::Other(_))
    }

    /// Whether it is a multi-byte set that escape sequences designate (PS3.3 Table C.12-4).
    pub fn is_multi_byte(self) -> bool {
        matches!(self, Self::Ir87 | Self::Ir159 | Self::Ir149 | Self::Ir58)
    }

    pub(super) fn single_value(self) -> Option<&'static str> {
        SPELLINGS.iter().find(|(term, ..)| *term == self).and_then(|(_, single, _)| *single)
    }

    pub(super) fn code_extension_value(self) -> Option<&'static str> {
        SPELLINGS.iter().find(|(term, ..)| *term == self).and_then(|(.., extended)| *extended)
    }

    /// The encoding of a set that stands alone.
    pub(super) fn encoding(self) -> Option<&'static Encoding> {
        match self {
            Self::Ir192 => Some(encoding_rs::UTF_8),
            Self::Gb18030 => Some(encoding_rs::GB18030),
            Self::Gbk => Some(encoding_rs::GBK),
            Self::Other(encoding) => Some(encoding),
            _ => None,
        }
    }

    /// The code elements G0 and G1 that the term stands for, in force from the start when it is the first value.
    pub(super) fn code_sets(self) -> (CodeSet, CodeSet) {
        use CodeSet as S;
        match self {
            Self::Ir13 => (S::Romaji, S::Katakana),
            Self::Ir87 => (S::Jis0208, S::None),
            Self::Ir159 => (S::Jis0212, S::None),
            Self::Ir149 => (S::Ascii, S::Ksx1001),
            Self::Ir58 => (S::Ascii, S::Gb2312),
            Self::Ir100 => (S::Ascii, S::Latin1),
            Self::Ir101 => (S::Ascii, S::Latin2),
            Self::Ir109 => (S::Ascii, S::Latin3),
            Self::Ir110 => (S::Ascii, S::Latin4),
            Self::Ir126 => (S::Ascii, S::Greek),
            Self::Ir127 => (S::Ascii, S::Arabic),
            Self::Ir138 => (S::Ascii, S::Hebrew),
            Self::Ir144 => (S::Ascii, S::Cyrillic),
            Self::Ir148 => (S::Ascii, S::Latin5),
            Self::Ir166 => (S::Ascii, S::Thai),
            Self::Ir203 => (S::Ascii, S::Latin9),
            Self::Ir6 | Self::Ir192 | Self::Gb18030 | Self::Gbk | Self::Other(_) => (S::Ascii, S::None),
        }
    }
}

/// Reads one value of (0008,0005); `None` if it means nothing to us.
pub(super) fn read(part: &str) -> Option<(Vec<Term>, Option<CharsetFinding>)> {
    if matches!(part, "" | "ISO_IR 6" | "ISO 2022 IR 6") {
        return Some((vec![Term::Ir6], None));
    }
    let exact = SPELLINGS.iter().find(|(_, single, extended)| *single == Some(part) || *extended == Some(part));
    if let Some((term, ..)) = exact {
        return Some((vec![*term], None));
    }
    let key: String = part.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    let misspelled = Some(CharsetFinding::Misspelled);
    match key.as_str() {
        "ASCII" | "USASCII" | "ISO646" | "ISO646IRV" | "ANSIX341968" => return Some((vec![Term::Ir6], misspelled)),
        "ISO2022JP" => return Some((vec![Term::Ir6, Term::Ir87, Term::Ir159], misspelled)),
        _ => {}
    }
    let bare = |value: &str| value.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    // `ISO_IR 87` for `ISO 2022 IR 87`, `ISO 2022 GBK` for `GBK`, `ISO 2022 58`, `IR 100`: only letters and the
    // number count, whichever prefix is there.
    let number = |key: &str| {
        let rest = key.strip_prefix("ISO").unwrap_or(key);
        let rest = rest.strip_prefix("2022").filter(|r| !r.is_empty()).unwrap_or(rest);
        rest.strip_prefix("IR").unwrap_or(rest).to_owned()
    };
    let wanted = number(&key);
    if wanted == "6" {
        return Some((vec![Term::Ir6], misspelled));
    }
    let meant = SPELLINGS.iter().find(|(_, single, extended)| {
        [single, extended].into_iter().flatten().any(|value| number(&bare(value)) == wanted)
    });
    if let Some((term, ..)) = meant {
        return Some((vec![*term], misspelled));
    }
    by_label(part).map(|term| (vec![term], Some(CharsetFinding::Unknown)))
}

/// An encoding by its name on the Web (`iso-8859-1`, `windows-1252`, `Shift_JIS`).
fn by_label(part: &str) -> Option<Term> {
    use encoding_rs as e;
    let squeezed: String = part.chars().filter(|c| !matches!(c, ' ' | '_')).collect();
    let encoding = Encoding::for_label_no_replacement(part.as_bytes())
        .or_else(|| Encoding::for_label_no_replacement(part.replace([' ', '_'], "-").as_bytes()))
        .or_else(|| Encoding::for_label_no_replacement(squeezed.as_bytes()))?;
    let known = [
        (e::UTF_8, Term::Ir192),
        (e::GB18030, Term::Gb18030),
        (e::GBK, Term::Gbk),
        (e::ISO_8859_2, Term::Ir101),
        (e::ISO_8859_3, Term::Ir109),
        (e::ISO_8859_4, Term::Ir110),
        (e::ISO_8859_5, Term::Ir144),
        (e::ISO_8859_6, Term::Ir127),
        (e::ISO_8859_7, Term::Ir126),
        (e::ISO_8859_8, Term::Ir138),
        (e::ISO_8859_15, Term::Ir203),
        (e::WINDOWS_1252, Term::Ir100),
        (e::WINDOWS_1254, Term::Ir148),
        (e::WINDOWS_874, Term::Ir166),
    ];
    if let Some((_, term)) = known.into_iter().find(|(known, _)| *known == encoding) {
        return Some(term);
    }
    (encoding.is_ascii_compatible() && encoding.is_single_byte()
        || [e::SHIFT_JIS, e::EUC_JP, e::EUC_KR, e::BIG5].contains(&encoding))
    .then_some(Term::Other(encoding))
}
