//! Texts made alike: for comparing names, and as keys of an index.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, char::decompose_compatible, is_nfc};

/// Without case: composed (NFC) and in lower case. Borrowed if the text is so already.
pub fn fold_case(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    if text.is_ascii() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    let composed: Cow<'_, str> = if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) };
    // Both sigmas are one letter.
    Cow::Owned(composed.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).collect())
}

/// Without case, accents and differences of width, with single spaces for runs of spaces and of the `^` between
/// the components of a name, none around it.
///
/// Each character is folded by itself, so that the fold of a part of a text, its spaces trimmed, is a part of the
/// fold of the text: what an index needs. Japanese voicing marks become characters of their own, for they tell
/// names apart.
pub fn fold_name(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    each_folded(text, |character| {
        if matches!(character, ' ' | '^') || character.is_control() {
            space = true;
            return;
        }
        if std::mem::take(&mut space) && !folded.is_empty() {
            folded.push(' ');
        }
        folded.push(character);
    });
    folded
}

/// As [`fold_name`], but keeps a space at either end.
pub(super) fn fold_part(text: &str) -> String {
    let edge = |c: Option<char>| c.is_some_and(|c| matches!(c, ' ' | '^'));
    let (front, back) = (edge(text.chars().next()), edge(text.chars().next_back()));
    let folded = fold_name(text);
    match (folded.is_empty(), front, back) {
        (true, front, back) => {
            if front || back {
                " ".into()
            } else {
                folded
            }
        }
        (false, false, false) => folded,
        (false, front, back) => {
            format!("{}{folded}{}", if front { " " } else { "" }, if back { " " } else { "" })
        }
    }
}

fn each_folded(text: &str, mut emit: impl FnMut(char)) {
    for character in text.chars() {
        match character {
            _ if character.is_ascii() => emit(character.to_ascii_lowercase()),
            // Syllables stay whole: their letters would only make keys longer.
            '\u{AC00}'..='\u{D7A3}' => emit(character),
            _ => decompose_compatible(character, |part| {
                if !is_accent(part) {
                    part.to_lowercase().filter(|c| !is_accent(*c)).for_each(|c| letter(c, &mut emit));
                }
            }),
        }
    }
}

/// Letters that no decomposition leads back to the plain ones that people type for them.
fn letter(character: char, emit: &mut impl FnMut(char)) {
    let plain = match character {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ð' | 'đ' => "d",
        'þ' => "th",
        'ł' => "l",
        'ħ' => "h",
        'ı' => "i",
        'ŧ' => "t",
        'ŋ' => "n",
        'ĸ' => "k",
        'ς' => "σ",
        _ => return emit(character),
    };
    plain.chars().for_each(emit);
}

/// Marks above and below letters, Hebrew points and Arabic vowel signs; not the marks of Japanese or Thai.
fn is_accent(character: char) -> bool {
    matches!(u32::from(character),
        0x0300..=0x036F | 0x0483..=0x0489 | 0x0591..=0x05BD | 0x05BF | 0x05C1..=0x05C5 | 0x05C7
        | 0x0610..=0x061A | 0x0640 | 0x064B..=0x065F | 0x0670 | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF)
}

/// The words of a name or text, folded as [`fold_name`]: split at spaces, component and group delimiters, commas,
/// full stops and hyphens, without apostrophes.
pub fn name_words(text: &str) -> Vec<String> {
    let folded = fold_name(text);
    let splits = |c: char| c.is_whitespace() || matches!(c, '=' | ',' | ';' | '.' | '-' | '‐' | '‑' | '–' | '\\');
    folded
        .split(splits)
        .map(|word| word.chars().filter(|c| !matches!(c, '\'' | '’' | '‘' | 'ʼ' | '`')).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The runs of three characters in a text that is folded already, in order and each once.
pub fn trigrams(folded: &str) -> Vec<String> {
    let starts: Vec<usize> = folded.char_indices().map(|(at, _)| at).chain([folded.len()]).collect();
    let mut found: Vec<String> = starts.windows(4).filter_map(|w| folded.get(w[0]..w[3])).map(str::to_owned).collect();
    found.sort_unstable();
    found.dedup();
    found
}
