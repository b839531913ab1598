//! Choices taken from the input.

/// The first bytes choose, the rest is input.
pub(crate) fn split_at_choice<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk::<N>().map(|(choice, rest)| (*choice, rest))
}

/// Pieces of a size that the choice decides; 0: byte by byte, growing.
pub(crate) fn pieces(data: &[u8], choice: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut step) = (data, 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = if choice == 0 { step } else { usize::from(choice) }.min(rest.len());
        step = step % 97 + 1;
        let (piece, left) = rest.split_at(length);
        rest = left;
        Some(piece)
    })
}
