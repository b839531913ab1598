//! Graphic character sets that the code elements G0 and G1 can hold (ISO/IEC 2022), as tables made once from
//! encoding_rs.

use std::sync::LazyLock;

use encoding_rs::Encoding;

/// A graphic character set, designated to G0 or G1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeSet {
    None,
    Ascii,
    Romaji,
    Katakana,
    Latin1,
    Latin2,
    Latin3,
    Latin4,
    Latin5,
    Latin9,
    Greek,
    Arabic,
    Hebrew,
    Cyrillic,
    Thai,
    Jis0208,
    Jis0212,
    Ksx1001,
    Gb2312,
}

/// Characters of the codes 128 to 255; 0 where there is none.
pub(super) type Upper = [u16; 128];

/// Characters of a 94 by 94 set, both ways.
pub(super) struct Double {
    forward: Vec<u16>,
    /// (character, code), in order of characters; only codes that the national standard itself assigns.
    reverse: Vec<(u16, u16)>,
}

impl CodeSet {
    /// The table of a set with one byte a character, other than ASCII and Romaji.
    pub(super) fn upper(self) -> Option<&'static Upper> {
        use encoding_rs as e;
        macro_rules! upper {
            ($encoding:expr) => {{
                static TABLE: LazyLock<Upper> = LazyLock::new(|| upper_of($encoding));
                Some(&*TABLE)
            }};
        }
        match self {
            Self::Latin1 => upper!(e::WINDOWS_1252),
            Self::Latin2 => upper!(e::ISO_8859_2),
            Self::Latin3 => upper!(e::ISO_8859_3),
            Self::Latin4 => upper!(e::ISO_8859_4),
            Self::Latin5 => upper!(e::WINDOWS_1254),
            Self::Latin9 => upper!(e::ISO_8859_15),
            Self::Greek => upper!(e::ISO_8859_7),
            Self::Arabic => upper!(e::ISO_8859_6),
            Self::Hebrew => upper!(e::ISO_8859_8),
            Self::Cyrillic => upper!(e::ISO_8859_5),
            Self::Thai => upper!(e::WINDOWS_874),
            Self::Katakana => {
                static TABLE: LazyLock<Upper> = LazyLock::new(|| {
                    let mut table = [0; 128];
                    for (slot, character) in table.iter_mut().skip(0x21).zip(0xFF61..=0xFF9F) {
                        *slot = character;
                    }
                    table
                });
                Some(&*TABLE)
            }
            _ => None,
        }
    }

    /// The table of a set with two bytes a character.
    pub(super) fn double(self) -> Option<&'static Double> {
        use encoding_rs as e;
        macro_rules! double {
            ($prefix:expr, $encoding:expr, $fix:expr, $assigned:expr) => {{
                static TABLE: LazyLock<Double> = LazyLock::new(|| Double::of($prefix, $encoding, $fix, $assigned));
                Some(&*TABLE)
            }};
        }
        match self {
            // Rows 13 and 89 to 92 are vendors' additions to JIS X 0208.
            Self::Jis0208 => double!(None, e::EUC_JP, &JIS_0208_FIX, |row, _| row < 85 && row != 13),
            Self::Jis0212 => double!(Some(0x8F), e::EUC_JP, &JIS_0212_FIX, |_, _| true),
            Self::Ksx1001 => double!(None, e::EUC_KR, &[], |_, _| true),
            Self::Gb2312 => double!(None, e::GBK, &[], in_gb2312),
            _ => None,
        }
    }

    /// Whether codes 128 to 159 of the table are the Windows code page's, read because real files have them.
    pub(super) fn lookup_upper(self, byte: u8) -> Option<char> {
        let code = *self.upper()?.get(usize::from(byte).checked_sub(128)?)?;
        char::from_u32(u32::from(code)).filter(|c| *c != '\0')
    }

    /// The byte of a character in a set with one byte a character, as its national standard assigns it.
    pub(super) fn reverse_upper(self, character: char) -> Option<u8> {
        let code = u16::try_from(u32::from(character)).ok().filter(|c| *c != 0)?;
        let index = self.upper()?.iter().skip(32).position(|c| *c == code)?;
        let byte = u8::try_from(index + 160).ok()?;
        // Later additions, which other readers of the set of PS3.3 need not know.
        let later = match self {
            Self::Greek => matches!(byte, 0xA4 | 0xA5 | 0xAA),
            Self::Hebrew => matches!(byte, 0xFD | 0xFE),
            Self::Thai => byte == 0xA0,
            _ => false,
        };
        (!later).then_some(byte)
    }
}

impl Double {
    fn of(
        prefix: Option<u8>,
        encoding: &'static Encoding,
        fix: &[(u16, u16)],
        assigned: fn(row: u16, cell: u16) -> bool,
    ) -> Self {
        let mut forward = Vec::with_capacity(94 * 94);
        let mut reverse = Vec::new();
        for row in 1..=94u16 {
            for cell in 1..=94u16 {
                let bytes: Vec<u8> = prefix.into_iter().chain([row as u8 + 0xA0, cell as u8 + 0xA0]).collect();
                let code = (row + 0x20) << 8 | (cell + 0x20);
                let decoded = single_character(encoding, &bytes).filter(|c| !(0xE000..0xF900).contains(c));
                let fixed = fix.iter().find(|(at, _)| *at == code).map(|(_, character)| *character);
                forward.push(fixed.or(decoded).unwrap_or(0));
                if assigned(row, cell) {
                    // Both readings of a code that implementations disagree on can be encoded.
                    reverse.extend(fixed.into_iter().chain(decoded).map(|character| (character, code)));
                }
            }
        }
        reverse.sort_unstable();
        reverse.dedup_by_key(|(character, _)| *character);
        Self { forward, reverse }
    }

    /// The character of a code whose bytes are 33 to 126 each.
    pub(super) fn get(&self, first: u8, second: u8) -> Option<char> {
        let (row, cell) = (first.checked_sub(0x21)?, second.checked_sub(0x21)?);
        if row >= 94 || cell >= 94 {
            return None;
        }
        let code = *self.forward.get(usize::from(row) * 94 + usize::from(cell))?;
        char::from_u32(u32::from(code)).filter(|c| *c != '\0')
    }

    /// The code of a character, its bytes 33 to 126 each.
    pub(super) fn code_of(&self, character: char) -> Option<[u8; 2]> {
        let wanted = u16::try_from(u32::from(character)).ok()?;
        let at = self.reverse.binary_search_by_key(&wanted, |(character, _)| *character).ok()?;
        self.reverse.get(at).map(|(_, code)| code.to_be_bytes())
    }
}

/// Codes of JIS X 0208 for which the Web's table has Microsoft's full-width reading.
const JIS_0208_FIX: [(u16, u16); 6] =
    [(0x2141, 0x301C), (0x2142, 0x2016), (0x215D, 0x2212), (0x2171, 0xA2), (0x2172, 0xA3), (0x224C, 0xAC)];

/// As [`JIS_0208_FIX`].
const JIS_0212_FIX: [(u16, u16); 1] = [(0x2237, 0x7E)];

/// What GB 2312-80 assigns of the cells that GBK fills.
fn in_gb2312(row: u16, cell: u16) -> bool {
    match row {
        1 | 3 | 16..=54 | 56..=87 => true,
        2 => (17..=66).contains(&cell) || (69..=78).contains(&cell) || (81..=92).contains(&cell),
        4 => cell <= 83,
        5 => cell <= 86,
        6 => cell <= 56,
        7 => true,
        8 => cell <= 26 || cell >= 37,
        9 => true,
        55 => cell <= 89,
        _ => false,
    }
}

fn upper_of(encoding: &'static Encoding) -> Upper {
    let mut table = [0; 128];
    for (slot, byte) in table.iter_mut().zip(128..=255u8) {
        *slot = single_character(encoding, &[byte]).unwrap_or(0);
    }
    // Controls have no place in text; only the Windows code pages have graphic characters there.
    for slot in table.iter_mut().take(32).filter(|c| **c < 0xA0) {
        *slot = 0;
    }
    table
}

fn single_character(encoding: &'static Encoding, bytes: &[u8]) -> Option<u16> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    let mut units = text.encode_utf16();
    match (units.next(), units.next()) {
        (Some(unit), None) => Some(unit),
        _ => None,
    }
}
