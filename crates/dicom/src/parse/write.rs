//! Writing Explicit VR Little Endian.

use crate::{tag::Tag, vr::Vr};

/// Tag, VR and length. The caller sees to it that the length fits the VR.
#[inline]
pub(crate) fn head(out: &mut Vec<u8>, element: Tag, vr: Vr, length: u32) {
    let letters = vr.as_str().as_bytes();
    let mut head = [0; 12];
    head[..2].copy_from_slice(&element.group().to_le_bytes());
    head[2..4].copy_from_slice(&element.element().to_le_bytes());
    head[4..6].copy_from_slice(letters);
    if vr.has_long_length() {
        head[8..].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&head);
    } else {
        head[6..8].copy_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&head[..8]);
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
