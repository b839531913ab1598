//! In which character set new values stand beside old ones, whose bytes stay as they are.

use crate::{CharacterSet, Vr, charset::Term};

/// A character set for these texts in which whatever is written in `own` means the same; `own` where nothing better is known.
///
/// What is in the default repertoire is UTF-8 too. Any other set of ISO 2022 goes on meaning the same with further sets beside
/// it, to which escape sequences lead (PS3.3 section C.12.1.1.2, edition 2025c).
pub(super) fn suited<'a>(own: CharacterSet, texts: impl Iterator<Item = (Vr, &'a str)> + Clone) -> CharacterSet {
    let fits = |set: &CharacterSet| texts.clone().all(|(vr, text)| set.encode(vr, text).is_ok());
    if fits(&own) {
        return own;
    }
    if own == CharacterSet::DEFAULT {
        return CharacterSet::UTF_8;
    }
    let mut set = own;
    for (vr, text) in texts.clone() {
        for character in text.chars() {
            let mut one = [0; 4];
            let one: &str = character.encode_utf8(&mut one);
            if set.encode(vr, one).is_err() {
                set = Term::all()
                    .filter_map(|term| beside(set, term))
                    .find(|set| set.encode(vr, one).is_ok())
                    .unwrap_or(set);
            }
        }
    }
    set
}

/// A set with one more repertoire beside it.
fn beside(set: CharacterSet, term: Term) -> Option<CharacterSet> {
    let more = CharacterSet::single(term).to_value();
    let alone = set.terms().iter().chain([&term]).any(|term| term.stands_alone());
    if alone || more.is_empty() && !term.is_multi_byte() {
        return None;
    }
    set.with(term)
}

/// The text as far as the set can carry it; what it can't is a question mark.
pub(super) fn carried(set: &CharacterSet, vr: Vr, text: &str) -> String {
    let can = |character: char| set.encode(vr, character.encode_utf8(&mut [0; 4])).is_ok();
    text.chars().map(|character| if can(character) { character } else { '?' }).collect()
}
