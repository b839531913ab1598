//! Reading one element's tag, VR and length, also where they are not what was declared.

use crate::{dictionary, finding::FindingKind, tag::Tag, transfer_syntax::Encoding, vr::Vr};

/// The length field of a value of undefined length.
pub(crate) const UNDEFINED: u32 = u32::MAX;

pub(crate) const ITEM: Tag = Tag::new(0xFFFE, 0xE000);
pub(crate) const ITEM_END: Tag = Tag::new(0xFFFE, 0xE00D);
pub(crate) const SEQUENCE_END: Tag = Tag::new(0xFFFE, 0xE0DD);

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) explicit: bool,
    pub(crate) big: bool,
}

impl Form {
    pub(crate) const IMPLICIT_LITTLE: Self = Self { explicit: false, big: false };

    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(crate) fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    pub(crate) fn tag(self, b: &[u8; 8]) -> Tag {
        Tag::new(self.u16([b[0], b[1]]), self.u16([b[2], b[3]]))
    }
}

impl From<Encoding> for Form {
    fn from(encoding: Encoding) -> Self {
        Self { explicit: encoding.is_explicit(), big: encoding.is_big_endian() }
    }
}

/// An element up to its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) tag: Tag,
    /// As stated or, where none is stated or it says `UN`, as the dictionary knows it.
    pub(crate) vr: Vr,
    /// [`UNDEFINED`] or a number of bytes.
    pub(crate) length: u32,
    /// Bytes of tag, VR and length.
    pub(crate) size: u8,
    /// How the value, and elements within it, are written.
    pub(crate) form: Form,
    pub(crate) odd_thing: Option<FindingKind>,
}

/// Two letters to VR without a search: indexed by five bits of each letter.
static VR_OF_LETTERS: [u8; 1024] = letters();
const NO_VR: u8 = u8::MAX;

const fn slot(a: u8, b: u8) -> usize {
    ((a as usize & 31) << 5) | (b as usize & 31)
}

const fn letters() -> [u8; 1024] {
    let mut table = [NO_VR; 1024];
    let mut i = 0;
    while i < Vr::ALL.len() {
        let code = Vr::ALL[i].as_str().as_bytes();
        table[slot(code[0], code[1])] = i as u8;
        i += 1;
    }
    table
}

/// The VR of two bytes, if they are one.
#[inline]
pub(crate) fn vr_of_letters(a: u8, b: u8) -> Option<Vr> {
    // Bits 5 to 7 of an upper-case letter are 010.
    if a & 0xE0 != 0x40 || b & 0xE0 != 0x40 {
        return None;
    }
    Vr::ALL.get(usize::from(VR_OF_LETTERS[slot(a, b)])).copied()
}

/// Reads a head. `remaining` is the number of bytes left in the container, `u64::MAX` if unknown. `Err` is the
/// number of bytes that must be at hand.
#[inline]
pub(crate) fn read(bytes: &[u8], form: Form, remaining: u64, signed: bool) -> Result<Head, usize> {
    let Some(b) = bytes.first_chunk::<8>() else { return Err(8) };
    let tag = form.tag(b);
    let long = form.u32([b[4], b[5], b[6], b[7]]);
    let head = |vr, length, size| Head { tag, vr, length, size, form, odd_thing: None };
    if tag.group() == 0xFFFE {
        return Ok(head(Vr::UN, long, 8));
    }
    if !form.explicit {
        if b[4].is_ascii_uppercase() && b[5].is_ascii_uppercase() && may_be_explicit(tag, b) {
            let explicit = read(bytes, Form { explicit: true, ..form }, remaining, signed)?;
            // A value of odd length is no value of Implicit VR, whatever follows.
            let odd = b[4] & 1 == 1;
            if odd
                || explicit.size > 8
                || is_followed_in_either(bytes, 8 + explicit.length as usize, form, tag, remaining)?
            {
                return Ok(Head { odd_thing: Some(FindingKind::MixedVrEncoding), ..explicit });
            }
        }
        return Ok(head(implicit_vr(tag, long, signed), long, 8));
    }
    match vr_of_letters(b[4], b[5]) {
        Some(vr) if !vr.has_long_length() => Ok(head(vr, u32::from(form.u16([b[6], b[7]])), 8)),
        Some(vr) => {
            let Some(b) = bytes.first_chunk::<12>() else { return Err(12) };
            let mut head = head(vr, form.u32([b[8], b[9], b[10], b[11]]), 12);
            if b[6] != 0 || b[7] != 0 {
                head.odd_thing = Some(FindingKind::ReservedBytesNotZero);
            }
            if vr == Vr::UN {
                known_as_un(&mut head, signed);
            }
            Ok(head)
        }
        None => read_without_vr(bytes, b, form, remaining, signed),
    }
}

/// A value written as `UN` is in Implicit VR Little Endian inside (PS3.5 section 6.2.2), whatever is around it.
fn known_as_un(head: &mut Head, signed: bool) {
    let known = dictionary::vr_with_sign(head.tag, signed);
    if head.length == UNDEFINED {
        head.vr = implicit_vr(head.tag, UNDEFINED, signed);
        head.form = Form::IMPLICIT_LITTLE;
    } else if let Some(vr) = known {
        head.vr = vr;
        head.form = Form::IMPLICIT_LITTLE;
    }
}

fn implicit_vr(tag: Tag, length: u32, signed: bool) -> Vr {
    let known = dictionary::vr_with_sign(tag, signed);
    match known {
        Some(Vr::OB | Vr::OW) if length == UNDEFINED => Vr::OB,
        _ if length == UNDEFINED => Vr::SQ,
        known => known.unwrap_or(Vr::UN),
    }
}

/// In an implicit data set, two letters where a length should be: explicit perhaps, when the dictionary allows that VR
/// here. VRs with the long form begin with a letter that makes an odd length, so they are; the length of a long value
/// may spell the others, such as `DS` 21,316 bytes, and what follows must tell.
fn may_be_explicit(tag: Tag, b: &[u8; 8]) -> bool {
    let Some(vr) = vr_of_letters(b[4], b[5]) else { return false };
    match dictionary::element(tag) {
        Some(element) => element.vrs.contains(&vr) || vr == Vr::UN,
        None if tag.is_group_length() => vr == Vr::UL,
        None if dictionary::is_private_creator(tag) => vr == Vr::LO,
        // A short private value: as an implicit length this would be over 64 KiB.
        None => tag.is_private() && !vr.has_long_length() && (b[6] != 0 || b[7] != 0),
    }
}

/// In an explicit data set, two bytes that are no VR.
#[cold]
fn read_without_vr(bytes: &[u8], b: &[u8; 8], form: Form, remaining: u64, signed: bool) -> Result<Head, usize> {
    let tag = form.tag(b);
    let long = form.u32([b[4], b[5], b[6], b[7]]);
    let head = |vr, length, size, form, odd| Head { tag, vr, length, size, form, odd_thing: Some(odd) };
    let letters = b[4].is_ascii_uppercase() && b[5].is_ascii_uppercase();
    if letters && b[6] == 0 && b[7] == 0 {
        // Every VR added since 1993 has the long form (PS3.5 section 7.1.2).
        let Some(b) = bytes.first_chunk::<12>() else { return Err(12) };
        let length = form.u32([b[8], b[9], b[10], b[11]]);
        // Pixel Data of undefined length is fragments, whatever its VR is called.
        let vr = if length == UNDEFINED { implicit_vr(tag, length, signed) } else { Vr::UN };
        return Ok(head(vr, length, 12, form, FindingKind::UnknownVr));
    }
    let short = u32::from(form.u16([b[6], b[7]]));
    let blank = b[4].is_ascii_graphic() || b[4] == b' ';
    if blank {
        // A writer that knew no VR put blanks or question marks, with a 16-bit length or with nothing at all after
        // them: what comes next tells.
        let vr = dictionary::vr_with_sign(tag, signed).filter(|vr| !vr.has_long_length()).unwrap_or(Vr::UN);
        if is_followed(bytes, 8 + short as usize, form, tag, remaining)? {
            return Ok(head(vr, short, 8, form, FindingKind::UnknownVr));
        }
        if is_followed(bytes, 6, form, tag, remaining)? && remaining > 6 {
            return Ok(head(vr, 0, 6, form, FindingKind::UnknownVr));
        }
    }
    let known = dictionary::vr_of(tag).is_some() || tag.is_private();
    let fits = match long {
        UNDEFINED => true,
        length if remaining == u64::MAX => length <= 1 << 24,
        length => u64::from(length) + 8 <= remaining,
    };
    if !letters && known && fits {
        let form = Form { explicit: false, ..form };
        return Ok(head(implicit_vr(tag, long, signed), long, 8, form, FindingKind::MixedVrEncoding));
    }
    Ok(head(Vr::UN, short, 8, form, FindingKind::UnknownVr))
}

/// Whether the container ends here, or what looks like an element begins.
fn is_followed(bytes: &[u8], at: usize, form: Form, tag: Tag, remaining: u64) -> Result<bool, usize> {
    // What lies beyond the container may be at hand or not.
    if at as u64 + 8 > remaining {
        return Ok(at as u64 == remaining);
    }
    if bytes.len() < at + 8 {
        return Err(at + 8);
    }
    Ok(bytes.get(at..).is_some_and(|rest| is_likely(rest, form, tag)))
}

/// As [`is_followed`], by an element with or without a VR.
fn is_followed_in_either(bytes: &[u8], at: usize, form: Form, tag: Tag, remaining: u64) -> Result<bool, usize> {
    let explicit = is_followed(bytes, at, Form { explicit: true, ..form }, tag, remaining)?;
    Ok(explicit || is_followed(bytes, at, Form { explicit: false, ..form }, tag, remaining)?)
}

/// Whether these bytes look like the beginning of an element that may follow `last`.
pub(crate) fn is_likely(bytes: &[u8], form: Form, last: Tag) -> bool {
    let Some(b) = bytes.first_chunk::<8>() else { return false };
    let tag = form.tag(b);
    if tag.group() == 0xFFFE {
        return matches!(tag, ITEM | ITEM_END | SEQUENCE_END);
    }
    tag >= last
        && if form.explicit {
            vr_of_letters(b[4], b[5]).is_some()
        } else {
            dictionary::element(tag).is_some() || dictionary::is_private_creator(tag)
        }
}
