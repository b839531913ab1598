//! The tree of one partition as it grows, in tiles.
//!
//! Of its nodes those of every sixth level are kept, from the sixth on: 64 in a tile, half a byte for each event. What is
//! below is hashed again from the log, which is 64 events at most; what is between, from a tile. Beside them stand the
//! leaves after the last 64, so that a restart goes on from where it was.

use cairn_archive::{
    Partition, SiteId,
    notary::{Frontier, Node, TreeHash, leaf_hash},
};
use cairn_store_api::LogRecord;
use std::collections::BTreeMap;

/// Levels between those that are kept.
pub(super) const LEVELS: u32 = 6;
/// Nodes of a tile; and leaves of a block, which has a node of its own.
pub(super) const BLOCK: u64 = 1 << LEVELS;

/// A tile: its level, and its number among those of the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tile {
    /// 0: the leaves after the last block, and always number 0.
    pub(super) level: u32,
    pub(super) index: u64,
}

impl Tile {
    /// The tile that a node is computed from, if that is kept, and where in it.
    pub(super) fn of(node: Node) -> (Self, std::ops::Range<usize>) {
        let level = node.level - node.level % LEVELS;
        let count = 1_u64 << (node.level % LEVELS);
        let first = node.index * count;
        let at = (first % BLOCK) as usize;
        (Self { level, index: first / BLOCK }, at..at + count as usize)
    }
}

/// A tree, and what of it was not kept yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    frontier: Frontier,
    /// By level, the last tile of each, which is not full.
    open: BTreeMap<u32, Vec<TreeHash>>,
    /// Full tiles since the last time that all was kept.
    full: Vec<(Tile, Vec<TreeHash>)>,
    last: Option<TreeHash>,
}

impl Tree {
    /// As it was kept: its size, its peaks and its open tiles.
    pub(super) fn kept(frontier: Frontier, open: BTreeMap<u32, Vec<TreeHash>>, last: Option<TreeHash>) -> Self {
        Self { frontier, open, full: Vec::new(), last }
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> TreeHash {
        self.frontier.root()
    }

    /// The last leaf.
    pub(super) fn last(&self) -> Option<TreeHash> {
        self.last
    }

    pub(super) fn push(&mut self, leaf: TreeHash) {
        let (open, full) = (&mut self.open, &mut self.full);
        self.frontier.push(leaf, |Node { level, index }, hash| {
            if !level.is_multiple_of(LEVELS) {
                return;
            }
            let tile = open.entry(level).or_default();
            tile.push(hash);
            if tile.len() as u64 == BLOCK {
                let hashes = std::mem::take(tile);
                if level > 0 {
                    full.push((Tile { level, index: index / BLOCK }, hashes));
                }
            }
        });
        self.last = Some(leaf);
    }

    /// Tiles that differ from what was kept, and are now.
    pub(super) fn take_changed(&mut self) -> Vec<(Tile, Vec<TreeHash>)> {
        let mut tiles = std::mem::take(&mut self.full);
        for (&level, hashes) in &self.open {
            let index = if level == 0 { 0 } else { (self.frontier.size() >> level) / BLOCK };
            tiles.push((Tile { level, index }, hashes.clone()));
        }
        tiles
    }
}

/// Hash of an event in its place.
pub(super) fn leaf_of(site: &SiteId, partition: Partition, record: &LogRecord) -> TreeHash {
    let place = (site, partition, record.offset);
    leaf_hash(place, record.appended_at_ms, &record.record.envelope, &record.record.payload)
}
