//! Merkle trees of RFC 6962 section 2.1 and RFC 9162 section 2.1: hashes, the right edge of a growing tree, which nodes a proof
//! is of, and what a proof must come to.

use super::Unproven;
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// SHA-256, of a leaf or of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash(pub [u8; 32]);

impl TreeHash {
    /// Root of a tree without leaves: the hash of nothing.
    pub fn of_nothing() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// Hash of a leaf.
    pub fn of_leaf(bytes: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
    }

    /// Hash of a node above two others.
    pub fn of_node(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeHash {
    type Err = Unproven;

    fn from_str(text: &str) -> Result<Self, Unproven> {
        // As digests are written; and no other way, so that one hash has one text.
        let is_lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
        let parsed = text.parse::<crate::ids::Digest>().ok().filter(|_| is_lower);
        parsed.map(|digest| Self(digest.0)).ok_or(Unproven::Malformed("hash"))
    }
}

/// A complete subtree: 2^`level` leaves from `index` * 2^`level` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height: leaves are 0.
    pub level: u32,
    /// Number among those of its level, from the left.
    pub index: u64,
}

impl Node {
    fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / 2 }
    }
}

/// The right edge of a tree: all that it takes to add leaves, and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Hashes of complete subtrees, one for each one bit of `size`, the largest first.
    peaks: Vec<TreeHash>,
}

impl Frontier {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; tells of every node that is complete with it, leaf included, from below.
    pub fn push(&mut self, leaf: TreeHash, mut completed: impl FnMut(Node, TreeHash)) {
        let (mut node, mut hash) = (Node { level: 0, index: self.size }, leaf);
        completed(node, hash);
        while node.index % 2 == 1
            && let Some(left) = self.peaks.pop()
        {
            (node, hash) = (node.parent(), TreeHash::of_node(left, hash));
            completed(node, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The right edge of a tree of `size` leaves; `peaks` are the hashes of [`Span::nodes`] of all of it. `None`: they are not as many.
    pub fn of_peaks(size: u64, peaks: Vec<TreeHash>) -> Option<Self> {
        (u32::try_from(peaks.len()) == Ok(size.count_ones())).then_some(Self { size, peaks })
    }

    /// The same tree, where each leaf that was added is the root of a complete one of 2^`levels` leaves.
    pub fn above(self, levels: u32) -> Self {
        Self { size: self.size << levels, ..self }
    }

    /// Root of the tree.
    pub fn root(&self) -> TreeHash {
        Span::root(&self.peaks)
    }
}

/// Leaves from `from` up to `to`, exclusive, that are a subtree as RFC 6962 divides trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First leaf.
    pub from: u64,
    /// First leaf after it.
    pub to: u64,
}

impl Span {
    /// A whole tree.
    pub fn all(size: u64) -> Self {
        Self { from: 0, to: size }
    }

    /// The complete subtrees that it is made of, the largest first.
    pub fn nodes(self) -> Vec<Node> {
        let (mut at, mut nodes) = (self.from, Vec::new());
        while let Some(level) = self.to.saturating_sub(at).checked_ilog2() {
            nodes.push(Node { level, index: at >> level });
            at += 1 << level;
        }
        nodes
    }

    /// Its root, of the hashes of its nodes.
    pub fn root(nodes: &[TreeHash]) -> TreeHash {
        let root = nodes.iter().copied().rev().reduce(|right, left| TreeHash::of_node(left, right));
        root.unwrap_or_else(TreeHash::of_nothing)
    }

    fn split(self) -> Option<(Self, Self)> {
        // The largest power of two that is less than the number of leaves.
        let level = (self.to - self.from).checked_sub(1)?.checked_ilog2()?;
        let middle = self.from + (1 << level);
        Some((Self { to: middle, ..self }, Self { from: middle, ..self }))
    }
}

/// What the inclusion proof of leaf `index` in a tree of `size` leaves is made of; `None`: the tree has no such leaf.
///
/// # Source
/// RFC 9162 section 2.1.3.1.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Span>> {
    let (mut span, mut path) = (Span::all(size), Vec::new());
    if index >= size {
        return None;
    }
    while let Some((left, right)) = span.split() {
        let (inside, beside) = if index < left.to { (left, right) } else { (right, left) };
        path.push(beside);
        span = inside;
    }
    path.reverse();
    Some(path)
}

/// What the proof is made of that a tree of `new` leaves goes on from one of `old` leaves; `None`: it is the smaller one.
///
/// # Source
/// RFC 9162 section 2.1.4.1; of no leaves, and of as many, the proof is empty.
pub fn consistency(old: u64, new: u64) -> Option<Vec<Span>> {
    let (mut span, mut path) = (Span::all(new), Vec::new());
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(path);
    }
    while span.to != old
        && let Some((left, right)) = span.split()
    {
        let (inside, beside) = if old <= left.to { (left, right) } else { (right, left) };
        path.push(beside);
        span = inside;
    }
    // What the old tree's root is itself, the verifier has.
    if span.from != 0 {
        path.push(span);
    }
    path.reverse();
    Some(path)
}

/// Whether a tree with this size and root has the leaf.
///
/// # Source
/// RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(leaf: TreeHash, index: u64, size: u64, path: &[TreeHash], root: TreeHash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            hash = TreeHash::of_node(*beside, hash);
            while node % 2 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = TreeHash::of_node(hash, *beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// Whether the tree of the second size and root begins with all leaves of the first.
///
/// # Source
/// RFC 9162 section 2.1.4.2.
pub fn verify_consistency(old: (u64, TreeHash), new: (u64, TreeHash), path: &[TreeHash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size >= new_size {
        let is_same = old_size == new_size && old_root == new_root;
        return path.is_empty() && (is_same || (old_size == 0 && old_root == TreeHash::of_nothing()));
    }
    let own = old_size.is_power_of_two().then_some(old_root);
    let mut path = own.into_iter().chain(path.iter().copied());
    let Some(first) = path.next() else { return false };
    let shared = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> shared, (new_size - 1) >> shared);
    let (mut of_old, mut of_new) = (first, first);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            (of_old, of_new) = (TreeHash::of_node(beside, of_old), TreeHash::of_node(beside, of_new));
            while node % 2 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            of_new = TreeHash::of_node(of_new, beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && of_old == old_root && of_new == new_root
}

#[cfg(test)]
mod tests;
