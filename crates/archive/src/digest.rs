//! State digests: what proves that two indexes hold the same.
//!
//! Per study **E** is the order-free sum of the hashes of the folded `ce_id`s, and **S** the hash of the canonical
//! state. Both are summed over the studies in leaves by a fixed hash of the key (never by partition), so that the
//! digest of a whole index costs what its leaves cost, and unequal leaves name what differs.

use crate::ids::EventId;

/// Version of the fold. Digests of S compare only under one version.
pub const FOLD_VERSION: u32 = 8;

/// Leaves of the digest tree.
pub const LEAVES: usize = 256;

/// A sum of hashes modulo 2^256: adding and taking away in any order gives the same.
///
/// It detects differences that nobody planned; it is no commitment against somebody who may choose the hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct HashSum([u64; 4]);

impl HashSum {
    /// Adds a hash.
    pub fn add(&mut self, hash: &[u8; 32]) {
        self.add_sum(&Self::from_bytes(hash));
    }

    /// Takes a hash away that was added before.
    pub fn subtract(&mut self, hash: &[u8; 32]) {
        self.subtract_sum(&Self::from_bytes(hash));
    }

    /// Adds all that another sum holds.
    pub fn add_sum(&mut self, other: &Self) {
        let mut carry = 0;
        for (own, other) in self.0.iter_mut().zip(other.0) {
            let sum = u128::from(*own) + u128::from(other) + carry;
            *own = sum as u64;
            carry = sum >> 64;
        }
    }

    /// Takes away all that another sum holds.
    pub fn subtract_sum(&mut self, other: &Self) {
        let mut borrow = false;
        for (own, other) in self.0.iter_mut().zip(other.0) {
            let (first, under) = own.overflowing_sub(other);
            let (second, under_again) = first.overflowing_sub(u64::from(borrow));
            *own = second;
            borrow = under || under_again;
        }
    }

    /// Little endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Little endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Self(words)
    }
}

/// The hash of a folded event: what E is the sum of.
pub fn event_hash(id: &EventId) -> [u8; 32] {
    *blake3::hash(id.as_bytes()).as_bytes()
}

/// Which leaf a study is summed in: the first byte of the BLAKE3 of tenant, a zero byte and Study Instance UID.
pub fn leaf_of(tenant: &str, study_instance_uid: &str) -> u8 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tenant.as_bytes()).update(&[0]).update(study_instance_uid.as_bytes());
    hasher.finalize().as_bytes()[0]
}

/// Sums over the studies of one leaf, and counts of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leaf {
    /// Sum of E.
    pub events: HashSum,
    /// Sum of S.
    pub state: HashSum,
    /// Studies with an event folded.
    pub studies: u64,
    /// Series with a shown instance.
    pub series: u64,
    /// Shown instances.
    pub instances: u64,
}

impl Leaf {
    /// Adds another leaf's sums.
    pub fn add(&mut self, other: &Self) {
        self.events.add_sum(&other.events);
        self.state.add_sum(&other.state);
        self.studies = self.studies.wrapping_add(other.studies);
        self.series = self.series.wrapping_add(other.series);
        self.instances = self.instances.wrapping_add(other.instances);
    }

    /// Takes another leaf's sums away.
    pub fn subtract(&mut self, other: &Self) {
        self.events.subtract_sum(&other.events);
        self.state.subtract_sum(&other.state);
        self.studies = self.studies.wrapping_sub(other.studies);
        self.series = self.series.wrapping_sub(other.series);
        self.instances = self.instances.wrapping_sub(other.instances);
    }
}

/// The whole: all leaves, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves(Box<[Leaf; LEAVES]>);

impl Default for Leaves {
    fn default() -> Self {
        Self(Box::new([Leaf::default(); LEAVES]))
    }
}

impl Leaves {
    /// The leaf of this number.
    pub fn get(&self, leaf: u8) -> &Leaf {
        &self.0[usize::from(leaf)]
    }

    /// The leaf of this number.
    pub fn get_mut(&mut self, leaf: u8) -> &mut Leaf {
        &mut self.0[usize::from(leaf)]
    }

    /// Adds leaf by leaf, as the partitions of a log sum up to the whole.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(own, other)| own.add(other));
    }

    /// Sums over all leaves.
    pub fn total(&self) -> Leaf {
        self.0.iter().fold(Leaf::default(), |mut total, leaf| {
            total.add(leaf);
            total
        })
    }

    /// E and S of the whole: the sum of E, and the hash over the leaves' sums of S in order.
    pub fn roots(&self) -> ([u8; 32], [u8; 32]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FOLD_VERSION.to_le_bytes());
        self.0.iter().for_each(|leaf| {
            hasher.update(&leaf.state.to_bytes());
        });
        (self.total().events.to_bytes(), *hasher.finalize().as_bytes())
    }

    /// Numbers of the leaves that differ.
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        (0..=u8::MAX).filter(|leaf| self.get(*leaf) != other.get(*leaf)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_free_of_order(hashes in prop::collection::vec(any::<[u8; 32]>(), 0..20), split in any::<prop::sample::Index>()) {
            let mut forward = HashSum::default();
            hashes.iter().for_each(|hash| forward.add(hash));
            let mut backward = HashSum::default();
            hashes.iter().rev().for_each(|hash| backward.add(hash));
            prop_assert_eq!(forward, backward);
            prop_assert_eq!(HashSum::from_bytes(&forward.to_bytes()), forward);
            let at = split.index(hashes.len() + 1);
            let mut rest = forward;
            hashes[..at].iter().for_each(|hash| rest.subtract(hash));
            let mut expected = HashSum::default();
            hashes[at..].iter().for_each(|hash| expected.add(hash));
            prop_assert_eq!(rest, expected);
        }
    }

    #[test]
    fn one_changed_study_changes_one_leaf_and_the_roots() {
        let mut before = Leaves::default();
        before.get_mut(leaf_of("default", "1.2.3")).state.add(&[7; 32]);
        let mut after = before.clone();
        after.get_mut(leaf_of("default", "1.2.4")).state.add(&[8; 32]);
        assert_eq!(before.differing(&after), vec![leaf_of("default", "1.2.4")]);
        assert_ne!(before.roots(), after.roots());
        assert_eq!(before.roots().0, after.roots().0, "E does not change with S");
    }
}
