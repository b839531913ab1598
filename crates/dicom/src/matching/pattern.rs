//! Wild cards (PS3.4 section C.2.2.2.4, edition 2025c): `*` is any characters, also none; `?` is any one.

use super::fold::{fold_name, trigrams};

/// A text with wild cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, wild cards and all.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every match begins with.
    pub fn prefix(&self) -> &str {
        self.0.split(['*', '?']).next().unwrap_or_default()
    }

    /// What every match holds, in this order.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.split(['*', '?']).filter(|part| !part.is_empty())
    }

    pub(super) fn trigrams(&self) -> Vec<String> {
        let mut all: Vec<String> = self.literals().flat_map(|part| trigrams(&fold_name(part))).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a text is of this pattern as a whole, every character counting. Takes time in proportion to the
    /// product of both lengths at worst.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at_pattern, mut at_text) = (0, 0);
        // Where to go on when what follows the last star does not fit: one character further on in the text.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (pattern.get(at_pattern), text.get(at_text)) {
                (Some(b'*'), _) => {
                    at_pattern += 1;
                    if at_pattern == pattern.len() {
                        return true;
                    }
                    star = Some((at_pattern, at_text));
                    continue;
                }
                (None, None) => return true,
                (Some(b'?'), Some(first)) => {
                    at_pattern += 1;
                    at_text += width(*first);
                    continue;
                }
                (Some(p), Some(t)) if p == t => {
                    at_pattern += 1;
                    at_text += 1;
                    continue;
                }
                _ => {}
            }
            let Some((after_star, from)) = star else { return false };
            let Some(first) = text.get(from) else { return false };
            let next = from + width(*first);
            star = Some((after_star, next));
            (at_pattern, at_text) = (after_star, next);
        }
    }
}

/// Bytes of the character that this byte begins in UTF-8.
fn width(first: u8) -> usize {
    match first {
        0..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}
