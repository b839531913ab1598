//! Writing Explicit VR Little Endian.

use crate::{tag::Tag, vr::Vr};

/// The two letters and whether the length has 32 bits, by [`Vr`].
static LETTERS: [([u8; 2], bool); Vr::ALL.len()] = letters();

const fn letters() -> [([u8; 2], bool); Vr::ALL.len()] {
    let mut table = [([0; 2], false); Vr::ALL.len()];
    let mut i = 0;
    while i < Vr::ALL.len() {
        let code = Vr::ALL[i].as_str().as_bytes();
        table[i] = ([code[0], code[1]], Vr::ALL[i].has_long_length());
        i += 1;
    }
    table
}

/// Tag, VR and length. The caller sees to it that the length fits the VR.
#[inline]
pub(crate) fn head(out: &mut Vec<u8>, element: Tag, vr: Vr, length: u32) {
    let [a, b] = element.group().to_le_bytes();
    let [c, d] = element.element().to_le_bytes();
    let ([e, f], long) = LETTERS[vr as usize];
    let [w, x, y, z] = length.to_le_bytes();
    if long {
        out.extend_from_slice(&[a, b, c, d, e, f, 0, 0, w, x, y, z]);
    } else {
        out.extend_from_slice(&[a, b, c, d, e, f, w, x]);
    }
}

/// An item whose length is yet to be written into its last four bytes.
pub(crate) fn item(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0]);
}

/// A value, with the bytes of each unit reversed; what is left of a unit at the end stays as it is.
#[inline]
pub(crate) fn value(out: &mut Vec<u8>, value: &[u8], unit: usize) {
    let start = out.len();
    out.extend_from_slice(value);
    if unit > 1 {
        for piece in out[start..].chunks_exact_mut(unit) {
            piece.reverse();
        }
    }
}
