//! The trees of a log, kept in a store of lifecycle's own. It can all be had again from the log.

use super::tree::{BLOCK, LEVELS, Tile, Tree, leaf_of};
use bytes::Bytes;
use cairn_archive::{
    Incarnation, Offset, Partition,
    notary::{Frontier, Node, Span, TreeHash},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{Commit, EventLog, Generation, IndexStore, LogRecord, Mutation, Table};
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};

/// Beside the notes of lifecycle: a table and a filling of its own.
const TABLE: Table = Table { id: 2, name: "notary" };
const GENERATION: Generation = Generation(2);
const INCARNATION: Incarnation = Incarnation(1);
/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 512;
const READ_BYTES: usize = 1 << 20;
/// Events hashed before their tree is kept.
const KEEP_EVENTS: u64 = 8 * BLOCK * BLOCK;

/// What is kept beside the tiles of a tree.
#[derive(Clone, PartialEq, Message)]
struct TreeNote {
    #[prost(uint64, tag = "1")]
    size: u64,
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    /// Hash of the last leaf.
    #[prost(bytes = "bytes", tag = "3")]
    last: Bytes,
}

/// The latest checkpoint, as it is written down.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LatestNote {
    #[prost(string, tag = "1")]
    pub(super) document: String,
    /// Where its event stands.
    #[prost(uint64, optional, tag = "2")]
    pub(super) offset: Option<u64>,
}

/// All trees.
pub(super) struct Trees {
    log: Arc<dyn EventLog>,
    kept: Kept,
    /// By partition; `None`: it is to be read from what was kept.
    trees: Vec<Option<Tree>>,
}

impl Trees {
    pub(super) fn new(log: Arc<dyn EventLog>, kept: Kept) -> Self {
        let trees = (0..log.partitions()).map(|_| None).collect();
        Self { log, kept, trees }
    }

    /// Brings a tree up to the end that its partition has now; `seen` is shown each event.
    ///
    /// # Errors
    /// Those of the log and the store; what was kept until then stays.
    pub(super) async fn catch_up(
        &mut self,
        partition: Partition,
        mut seen: impl FnMut(&LogRecord) + Send,
    ) -> Result<(), Error> {
        let end = self.log.end(partition).await?;
        let mut tree = match self.trees.get_mut(usize::from(partition.0)).and_then(Option::take) {
            Some(tree) => tree,
            None => self.restored(partition, end).await?,
        };
        while tree.size() < end.0 {
            let kept_at = tree.size();
            while tree.size() < end.0 && tree.size() - kept_at < KEEP_EVENTS {
                let batch = self.log.read(partition, Offset(tree.size()), READ_RECORDS, READ_BYTES).await?;
                for record in &batch.records {
                    tree.push(leaf_of(self.log.site(), partition, record));
                    seen(record);
                }
                if batch.records.is_empty() {
                    return Err(Error::new(ErrorKind::Unavailable, "the log gives less than it has"));
                }
            }
            self.kept.keep(partition, &mut tree).await?;
        }
        if let Some(place) = self.trees.get_mut(usize::from(partition.0)) {
            *place = Some(tree);
        }
        Ok(())
    }

    /// The tree as it was kept, if the log still is what it was of; else one without leaves.
    async fn restored(&self, partition: Partition, end: Offset) -> Result<Tree, Error> {
        let Some(TreeNote { size, root, last }) = self.kept.note(partition).await? else {
            return Ok(Tree::default());
        };
        let (root, last) = (hash(&root), hash(&last));
        let is_of_log = match size.checked_sub(1) {
            None => true,
            Some(_) if size > end.0 => false,
            Some(before) => {
                let batch = self.log.read(partition, Offset(before), 1, 1).await?;
                batch.records.first().map(|record| leaf_of(self.log.site(), partition, record)) == last
            }
        };
        let restored = self.kept.tree(partition, size, last).await?;
        let restored = restored.filter(|tree| is_of_log && Some(tree.root()) == root);
        Ok(restored.unwrap_or_else(|| {
            // Tiles of the other tree are written over before they are read: a tree only grows.
            tracing::warn!(partition = partition.0, is_of_log, "notary: a tree is made anew from the log");
            Tree::default()
        }))
    }

    /// Size and root of a tree; `None`: it was not caught up yet.
    pub(super) fn head(&self, partition: Partition) -> Option<(u64, TreeHash)> {
        let tree = self.trees.get(usize::from(partition.0))?.as_ref()?;
        Some((tree.size(), tree.root()))
    }

    /// Events in all trees.
    pub(super) fn events(&self) -> u64 {
        self.trees.iter().flatten().map(Tree::size).sum()
    }
}

fn hash(bytes: &[u8]) -> Option<TreeHash> {
    bytes.try_into().ok().map(TreeHash)
}

/// Root of a complete subtree.
pub(super) fn complete(hashes: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::default();
    hashes.iter().for_each(|hash| frontier.push(*hash, |_, _| {}));
    frontier.root()
}

/// What is kept.
#[derive(Clone)]
pub(super) struct Kept {
    store: Arc<dyn IndexStore>,
    /// Held while something is kept: commits are numbered.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Kept {
    pub(super) fn new(store: Arc<dyn IndexStore>) -> Self {
        Self { store, turn: Arc::default() }
    }

    async fn note(&self, partition: Partition) -> Result<Option<TreeNote>, Error> {
        let row = self.store.get(GENERATION, TABLE, TREES, &partition.0.to_be_bytes()).await?;
        // One that can't be read is of no tree: it is made anew.
        Ok(row.map(|row| TreeNote::decode(row).unwrap_or_default()))
    }

    /// A tile, if there is one.
    pub(super) async fn tile(&self, partition: Partition, tile: Tile) -> Result<Option<Vec<TreeHash>>, Error> {
        let row = self.store.get(GENERATION, TABLE, &tile_pk(partition, tile), &tile.index.to_be_bytes()).await?;
        let read = |row: Bytes| row.chunks(32).map(hash).collect::<Option<Vec<_>>>();
        Ok(row.and_then(read))
    }

    /// A tree of this size; `None` if something of it is missing.
    async fn tree(&self, partition: Partition, size: u64, last: Option<TreeHash>) -> Result<Option<Tree>, Error> {
        let (mut open, mut peaks) = (BTreeMap::new(), Vec::new());
        for level in (0..64).step_by(LEVELS as usize) {
            let complete = size >> level;
            let count = (complete % BLOCK) as usize;
            if count > 0 {
                let tile = Tile { level, index: if level == 0 { 0 } else { complete / BLOCK } };
                let hashes = self.tile(partition, tile).await?;
                let Some(hashes) = hashes.and_then(|hashes| Some(hashes.get(..count)?.to_vec())) else {
                    return Ok(None);
                };
                open.insert(level, hashes);
            }
        }
        for node in Span::all(size).nodes() {
            // It is one of an open tile, or above nodes of one.
            let (tile, range) = Tile::of(node);
            let Some(hashes) = open.get(&tile.level).and_then(|hashes| hashes.get(range)) else { return Ok(None) };
            peaks.push(complete(hashes));
        }
        Ok(Frontier::of_peaks(size, peaks).map(|frontier| Tree::kept(frontier, open, last)))
    }

    async fn keep(&self, partition: Partition, tree: &mut Tree) -> Result<(), Error> {
        let put = |(tile, hashes): (Tile, Vec<TreeHash>)| {
            let value = hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>();
            put(&tile_pk(partition, tile), &tile.index.to_be_bytes(), value)
        };
        let mut mutations: Vec<_> = tree.take_changed().into_iter().map(put).collect();
        let bytes = |hash: TreeHash| Bytes::copy_from_slice(&hash.0);
        let last = tree.last().map(bytes).unwrap_or_default();
        let note = TreeNote { size: tree.size(), root: bytes(tree.root()), last };
        mutations.push(self::put(TREES, &partition.0.to_be_bytes(), note.encode_to_vec()));
        self.commit(mutations).await
    }

    /// The latest checkpoint that was seen or signed.
    pub(super) async fn latest(&self) -> Result<Option<LatestNote>, Error> {
        let row = self.store.get(GENERATION, TABLE, LATEST, &[]).await?;
        Ok(row.and_then(|row| LatestNote::decode(row).ok()))
    }

    pub(super) async fn keep_latest(&self, latest: &LatestNote) -> Result<(), Error> {
        self.commit(vec![put(LATEST, &[], latest.encode_to_vec())]).await
    }

    async fn commit(&self, mutations: Vec<Mutation>) -> Result<(), Error> {
        let _one = self.turn.lock().await;
        let from = self.store.offset(GENERATION, COMMITS).await?.map_or(Offset(0), |(_, offset, _)| offset);
        let (incarnation, partition, note) = (INCARNATION, COMMITS, Bytes::new());
        let commit = Commit { incarnation, partition, from, to: from.next(), note, mutations, purge: false };
        Ok(self.store.commit(GENERATION, commit).await?)
    }
}

/// Partition keys: what is known of each tree, and the latest checkpoint.
const TREES: &[u8] = b"trees";
const LATEST: &[u8] = b"latest";
/// All commits are of it: what they are of, their rows say.
const COMMITS: Partition = Partition(0);

fn put(pk: &[u8], ck: &[u8], value: Vec<u8>) -> Mutation {
    let (pk, ck) = (Bytes::copy_from_slice(pk), Bytes::copy_from_slice(ck));
    Mutation::Put { table: TABLE, pk, ck, value: value.into() }
}

fn tile_pk(partition: Partition, tile: Tile) -> Bytes {
    let [a, b] = partition.0.to_be_bytes();
    Bytes::copy_from_slice(&[b'-', a, b, tile.level as u8])
}

/// Nodes of one tree, from what is kept and the log.
pub(super) struct Nodes<'a> {
    pub(super) log: &'a dyn EventLog,
    pub(super) kept: &'a Kept,
    pub(super) partition: Partition,
    blocks: BTreeMap<u64, Vec<TreeHash>>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(log: &'a dyn EventLog, kept: &'a Kept, partition: Partition) -> Self {
        Self { log, kept, partition, blocks: BTreeMap::new() }
    }

    /// Roots of these parts of the tree.
    pub(super) async fn roots(&mut self, spans: &[Span]) -> Result<Vec<TreeHash>, Error> {
        let mut roots = Vec::with_capacity(spans.len());
        for span in spans {
            let mut hashes = Vec::new();
            for node in span.nodes() {
                hashes.push(self.node(node).await?);
            }
            roots.push(Span::root(&hashes));
        }
        Ok(roots)
    }

    async fn node(&mut self, node: Node) -> Result<TreeHash, Error> {
        let (tile, range) = Tile::of(node);
        let hashes = match tile.level {
            0 => self.leaves(tile.index, range.end).await?.get(range).map(complete),
            _ => self.kept.tile(self.partition, tile).await?.and_then(|hashes| hashes.get(range).map(complete)),
        };
        hashes.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the trees of the log are being made anew"))
    }

    /// At least the first leaves of a block, hashed again from the log.
    async fn leaves(&mut self, block: u64, count: usize) -> Result<&[TreeHash], Error> {
        let Self { log, partition, blocks, .. } = self;
        let leaves = blocks.entry(block).or_default();
        while leaves.len() < count {
            let from = Offset(block * BLOCK + leaves.len() as u64);
            let batch = log.read(*partition, from, BLOCK as usize - leaves.len(), READ_BYTES).await?;
            if batch.records.is_empty() {
                break;
            }
            leaves.extend(batch.records.iter().map(|record| leaf_of(log.site(), *partition, record)));
        }
        Ok(leaves)
    }
}
