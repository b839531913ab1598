//! A set of object keys in bounded memory.

use cairn_archive::ObjectKey;
use std::hash::{DefaultHasher, Hasher};

/// Bits for each key where memory allows: one key in 400 that is not in the set is then taken for one that is.
const BITS_PER_KEY: u64 = 16;
/// Bits that a key sets.
const PROBES: u64 = 4;
const BITS_MIN: u64 = 1 << 16;

/// Keys that were added, and a few that only look so: which those are depends on the salt, so that another look finds what this
/// one passes over. (A Bloom filter.)
pub(super) struct Names {
    bits: Vec<u64>,
    salt: u64,
}

impl Names {
    /// A set for about `keys` keys, in at most `bytes_max` bytes.
    pub(super) fn new(keys: u64, bytes_max: u64, salt: u64) -> Self {
        let bits = keys.saturating_mul(BITS_PER_KEY).max(BITS_MIN).min(bytes_max.saturating_mul(8).max(BITS_MIN));
        Self { bits: vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(usize::MAX)], salt }
    }

    pub(super) fn add(&mut self, key: &ObjectKey) {
        for (word, bit) in self.places(key) {
            if let Some(word) = self.bits.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// False only of keys that were not added.
    pub(super) fn may_have(&self, key: &ObjectKey) -> bool {
        self.places(key).into_iter().all(|(word, bit)| self.bits.get(word).is_some_and(|word| word & bit != 0))
    }

    /// Words, and a bit of each.
    fn places(&self, key: &ObjectKey) -> [(usize, u64); PROBES as usize] {
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(salt);
            hasher.write(key.as_bytes());
            hasher.finish()
        };
        let (first, step) = (hash(self.salt), hash(!self.salt) | 1);
        let bits = self.bits.len() as u64 * 64;
        std::array::from_fn(|probe| {
            let place = first.wrapping_add(step.wrapping_mul(probe as u64)) % bits;
            ((place / 64) as usize, 1 << (place % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> ObjectKey {
        ObjectKey::from_slice(&[[0; 8], number.to_be_bytes()].concat()).unwrap()
    }

    #[test]
    fn what_was_added_is_there_and_few_others_look_so_under_one_salt_or_another() {
        let count = 10_000;
        let taken_for_named = |salt| {
            let mut names = Names::new(count, u64::MAX, salt);
            (0..count).for_each(|number| names.add(&key(number)));
            assert!((0..count).all(|number| names.may_have(&key(number))));
            (count..2 * count).filter(|number| names.may_have(&key(*number))).collect::<Vec<_>>()
        };
        let (one, other) = (taken_for_named(1), taken_for_named(2));
        assert!(one.len() < 100 && other.len() < 100, "{} {}", one.len(), other.len());
        assert!(one.iter().filter(|number| other.contains(number)).count() < 10);
    }

    #[test]
    fn memory_keeps_its_bound_and_nothing_named_is_missed() {
        let mut names = Names::new(u64::MAX, 16 << 10, 7);
        assert_eq!(names.bits.len(), 2048);
        (0..50_000).for_each(|number| names.add(&key(number)));
        assert!((0..50_000).all(|number| names.may_have(&key(number))));
    }
}
