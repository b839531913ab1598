//! Turning byte order round in values that come in pieces.

/// Reverses the bytes of each unit of a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swapper {
    unit: usize,
    held: [u8; 8],
    count: usize,
}

impl Swapper {
    /// For units of 1 (or 0: nothing to do), 2, 4 or 8 bytes.
    pub fn new(unit: usize) -> Self {
        Self { unit, ..Self::default() }
    }

    /// Takes a piece and appends to `out` the units that are whole.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if self.unit <= 1 {
            out.extend_from_slice(bytes);
            return;
        }
        while self.count > 0 || bytes.len() < self.unit {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.held[self.count] = *first;
            self.count += 1;
            bytes = rest;
            if self.count == self.unit {
                out.extend(self.held[..self.unit].iter().rev());
                self.count = 0;
            }
        }
        let whole = bytes.len() - bytes.len() % self.unit;
        let start = out.len();
        out.extend_from_slice(&bytes[..whole]);
        for unit in out[start..].chunks_exact_mut(self.unit) {
            unit.reverse();
        }
        for byte in &bytes[whole..] {
            self.held[self.count] = *byte;
            self.count += 1;
        }
    }

    /// The value is over: what is left of a unit goes out as it is.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.held[..self.count]);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let bytes: Vec<u8> = (0..43).collect();
        for unit in [0, 1, 2, 4, 8] {
            let swap = |piece: usize| {
                let (mut swapper, mut out) = (Swapper::new(unit), Vec::new());
                bytes.chunks(piece).for_each(|part| swapper.push(part, &mut out));
                swapper.finish(&mut out);
                out
            };
            let whole = swap(43);
            assert_eq!(whole.first().copied(), Some(unit.max(1) as u8 - 1));
            assert_eq!(whole.last().copied(), Some(42));
            for piece in 1..20 {
                assert_eq!(swap(piece), whole, "{unit} {piece}");
            }
        }
    }
}
