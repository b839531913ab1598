//! The data dictionary (PS3.6 chapters 6 to 9) and the registry of UIDs (PS3.6 Annex A), edition 2025c.

pub use crate::tables::{Element, UidEntry, UidKind};
use crate::tables::{
    elements::{BY_KEYWORD, ELEMENTS, REPEATING},
    uids::UIDS,
};
use crate::{tag::Tag, vr::Vr};

/// What reading an implicit data set asks of each element, in eight bytes.
#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    /// Index into `ELEMENTS`, or [`EMPTY`].
    index: u16,
    /// As [`vr_of`] gives it, by its place in [`Vr::ALL`]; [`NO_VR`] for none.
    vr: u8,
    may_be_signed: bool,
}

// Open addressing over a power of two of at least three times the entries: an implicit data set asks once per
// element, and a binary search would cost more than all the rest of reading it.
const SLOTS: usize = 16_384;
const EMPTY: u16 = u16::MAX;
const NO_VR: u8 = u8::MAX;
static SLOT_OF_TAG: [Slot; SLOTS] = slots();

const fn hash(tag: u32) -> usize {
    (tag.wrapping_mul(0x9E37_79B1) >> 18) as usize
}

const fn slots() -> [Slot; SLOTS] {
    let mut slots = [Slot { tag: 0, index: EMPTY, vr: NO_VR, may_be_signed: false }; SLOTS];
    let mut i = 0;
    while i < ELEMENTS.len() {
        let mut slot = hash(ELEMENTS[i].tag.0);
        while slots[slot].index != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        let vrs = ELEMENTS[i].vrs;
        let (vr, may_be_signed) = choose(vrs);
        slots[slot] = Slot { tag: ELEMENTS[i].tag.0, index: i as u16, vr, may_be_signed };
        i += 1;
    }
    slots
}

const fn choose(vrs: &[Vr]) -> (u8, bool) {
    if vrs.is_empty() {
        return (NO_VR, false);
    }
    let (mut vr, mut may_be_signed) = (vrs[0] as u8, false);
    let mut i = 0;
    while i < vrs.len() {
        if matches!(vrs[i], Vr::OW) {
            vr = Vr::OW as u8;
        }
        may_be_signed |= matches!(vrs[i], Vr::SS);
        i += 1;
    }
    (vr, may_be_signed && vr == Vr::US as u8)
}

#[inline]
fn find(tag: Tag) -> Option<&'static Slot> {
    let mut at = hash(tag.0);
    loop {
        let slot = &SLOT_OF_TAG[at];
        if slot.index == EMPTY {
            return None;
        }
        if slot.tag == tag.0 {
            return Some(slot);
        }
        at = (at + 1) % SLOTS;
    }
}

/// The dictionary's entry of a tag, repeating groups such as `(60xx,3000)` included; `None` for private,
/// group length and unknown elements.
pub fn element(tag: Tag) -> Option<&'static Element> {
    match find(tag) {
        Some(slot) => ELEMENTS.get(usize::from(slot.index)),
        None => repeating(tag),
    }
}

fn repeating(tag: Tag) -> Option<&'static Element> {
    if tag.is_private() {
        return None;
    }
    REPEATING.iter().find(|r| tag.0 & r.mask == r.element.tag.0).map(|r| &r.element)
}

/// The VR to assume where an encoding does not state one; `None` if nothing is known.
///
/// Where the Standard leaves a choice: `OW` before `OB` and `US`, as Implicit VR Little Endian prescribes (PS3.5
/// section A.1), and `US` before `SS`, which a reader that knows Pixel Representation can settle with
/// [`vr_with_sign`]. A private creator is `LO`, a group length is `UL`.
pub fn vr_of(tag: Tag) -> Option<Vr> {
    vr_with_sign(tag, false)
}

/// As [`vr_of`], with `SS` where the Standard says "US or SS" and Pixel Representation says signed.
#[inline]
pub fn vr_with_sign(tag: Tag, signed: bool) -> Option<Vr> {
    if tag.is_group_length() {
        return Some(Vr::UL);
    }
    if tag.is_private() {
        return is_private_creator(tag).then_some(Vr::LO);
    }
    let (vr, may_be_signed) = match find(tag) {
        Some(slot) => (slot.vr, slot.may_be_signed),
        None => choose(repeating(tag)?.vrs),
    };
    if signed && may_be_signed { Some(Vr::SS) } else { Vr::ALL.get(usize::from(vr)).copied() }
}

/// Whether the tag is `(gggg,0010-00FF)` of an odd group, which names the owner of a block (PS3.5 section 7.8.1).
pub const fn is_private_creator(tag: Tag) -> bool {
    tag.is_private() && tag.element() >= 0x10 && tag.element() <= 0xFF
}

/// The keyword of a tag.
pub fn keyword_of(tag: Tag) -> Option<&'static str> {
    element(tag).map(|e| e.keyword)
}

/// The tag of a keyword, spelt exactly; of a repeating group, its first tag.
pub fn tag_of(keyword: &str) -> Option<Tag> {
    let keyword_at = |index: &u16| ELEMENTS[usize::from(*index)].keyword;
    match BY_KEYWORD.binary_search_by(|index| keyword_at(index).cmp(keyword)) {
        Ok(at) => Some(ELEMENTS[usize::from(BY_KEYWORD[at])].tag),
        Err(_) => REPEATING.iter().find(|r| r.element.keyword == keyword).map(|r| r.element.tag),
    }
}

/// The Value Multiplicity of a tag, as the Standard writes it.
pub fn vm(tag: Tag) -> Option<&'static str> {
    element(tag).map(|e| e.vm)
}

/// The registry's entry of a UID.
pub fn uid(uid: &str) -> Option<&'static UidEntry> {
    UIDS.binary_search_by(|entry| entry.uid.cmp(uid)).ok().map(|at| &UIDS[at])
}

/// The Standard's name of a UID.
pub fn uid_name(text: &str) -> Option<&'static str> {
    uid(text).map(|entry| entry.name)
}

/// Every UID of PS3.6 Annex A, in byte order.
pub fn uids() -> &'static [UidEntry] {
    &UIDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags;

    #[test]
    fn every_element_is_found_by_tag_and_by_keyword() {
        assert!(ELEMENTS.windows(2).all(|w| w[0].tag < w[1].tag));
        for entry in &ELEMENTS {
            assert_eq!(element(entry.tag).map(|e| e.keyword), Some(entry.keyword));
            assert_eq!(tag_of(entry.keyword), Some(entry.tag), "{}", entry.keyword);
        }
        for entry in &UIDS {
            assert_eq!(uid(entry.uid), Some(entry));
        }
        assert_eq!(tag_of("studyinstanceuid"), None);
    }

    #[test]
    fn repeating_groups_are_known_and_private_ones_are_not_taken_for_them() {
        assert_eq!(keyword_of(Tag::new(0x6002, 0x3000)), Some("OverlayData"));
        assert_eq!(vr_of(Tag::new(0x601E, 0x0010)), Some(Vr::US));
        assert_eq!(keyword_of(Tag::new(0x0020, 0x3101)), Some("SourceImageIDs"));
        assert_eq!(element(Tag::new(0x6001, 0x3000)).map(|e| e.keyword), None);
        assert_eq!(tag_of("OverlayData"), Some(tags::OVERLAY_DATA));
    }

    #[test]
    fn choices_of_vr_are_settled_as_implicit_encoding_needs() {
        assert_eq!(vr_of(tags::PIXEL_DATA), Some(Vr::OW));
        assert_eq!(vr_of(tags::LUT_DATA), Some(Vr::OW));
        assert_eq!(vr_of(tags::SMALLEST_IMAGE_PIXEL_VALUE), Some(Vr::US));
        assert_eq!(vr_with_sign(tags::SMALLEST_IMAGE_PIXEL_VALUE, true), Some(Vr::SS));
        assert_eq!(vr_with_sign(tags::ROWS, true), Some(Vr::US));
        assert_eq!(vr_of(Tag::new(0x0009, 0x0010)), Some(Vr::LO));
        assert_eq!(vr_of(Tag::new(0x0009, 0x1010)), None);
        assert_eq!(vr_of(Tag::new(0x0011, 0x0000)), Some(Vr::UL));
        assert_eq!(vr_of(tags::ITEM_DELIMITATION_ITEM), None);
    }
}
