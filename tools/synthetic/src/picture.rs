//! Phantoms: a few ellipses and noise, with SYNTHETIC burnt in.

use crate::Random;

/// A square greyscale picture of 12 significant bits.
pub(crate) fn phantom(side: usize, slice: f64, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    let ellipses = [
        (0.0, 0.0, 0.85, 0.95, 900.0),
        (0.0, 0.0, 0.78, 0.88, -500.0),
        (-0.3, 0.1, 0.2, 0.35, 350.0),
        (0.35, -0.1, 0.18, 0.3, 420.0),
    ];
    let grow = 1.0 - 0.6 * (slice - 0.5).abs();
    let mut pixels = Vec::with_capacity(side * side);
    for row in 0..side {
        let y = 2.0 * row as f64 / side as f64 - 1.0;
        for column in 0..side {
            let x = 2.0 * column as f64 / side as f64 - 1.0;
            let inside = ellipses.iter().filter(|(cx, cy, rx, ry, _)| {
                let (dx, dy) = ((x - cx) / (rx * grow), (y - cy) / (ry * grow));
                dx * dx + dy * dy < 1.0
            });
            let value: f64 = 24.0 + inside.map(|(.., value)| value).sum::<f64>() + random.below(64) as f64;
            pixels.push(value.clamp(0.0, 4095.0) as u16);
        }
    }
    burn(&mut pixels, side);
    pixels
}

/// 5x7 letters of "SYNTHETIC", a bit per dot, top row first.
const LETTERS: [[u8; 7]; 9] = [
    [0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E],
    [0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04],
    [0x11, 0x19, 0x19, 0x15, 0x13, 0x13, 0x11],
    [0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
    [0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11],
    [0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F],
    [0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
    [0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E],
    [0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E],
];

fn burn(pixels: &mut [u16], side: usize) {
    if side < 64 {
        return;
    }
    for (index, letter) in LETTERS.iter().enumerate() {
        for (row, bits) in letter.iter().enumerate() {
            for column in 0..5 {
                if bits >> (4 - column) & 1 == 1 {
                    pixels[(4 + row) * side + 4 + index * 6 + column] = 4095;
                }
            }
        }
    }
}
