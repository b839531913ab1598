//! Contents and names of the simulated disk, and what a crash leaves of them.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Unit of allocation.
pub(super) const PAGE: u64 = 4096;
/// Unit that the device writes whole or not at all.
const SECTOR: u64 = 512;

pub(super) type Inode = u64;

/// Bytes of a file: pages shared between snapshots until one is written.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Option<Arc<[u8]>>>,
    pub(super) len: u64,
}

impl Content {
    /// Bytes of room taken.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Room that a write or reservation of a range would take in addition.
    pub(super) fn missing(&self, offset: u64, length: u64) -> u64 {
        if length == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE, (offset + length - 1) / PAGE);
        (last - first + 1 - self.pages.range(first..=last).count() as u64) * PAGE
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let take = (buffer.len() - done).min(PAGE as usize - within);
            match self.pages.get(&(at / PAGE)) {
                Some(Some(page)) => buffer[done..done + take].copy_from_slice(&page[within..within + take]),
                _ => buffer[done..done + take].fill(0),
            }
            done += take;
        }
    }

    /// Writes bytes without changing the length.
    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let take = (bytes.len() - done).min(PAGE as usize - within);
            let page = self.pages.entry(at / PAGE).or_default();
            let page = page.get_or_insert_with(|| vec![0; PAGE as usize].into());
            if Arc::get_mut(page).is_none() {
                *page = page.to_vec().into();
            }
            if let Some(page) = Arc::get_mut(page) {
                page[within..within + take].copy_from_slice(&bytes[done..done + take]);
            }
            done += take;
        }
    }

    fn zero(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let end = to.min((at / PAGE + 1) * PAGE);
            if self.pages.get(&(at / PAGE)).is_some_and(Option::is_some) {
                self.write(&vec![0; (end - at) as usize], at);
            }
            at = end;
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                self.write(bytes, *offset);
                self.len = self.len.max(offset + bytes.len() as u64);
            }
            Change::SetLen(length) => self.set_len(*length),
            Change::Preallocate(length) => {
                (self.len / PAGE..length.div_ceil(PAGE)).for_each(|page| {
                    self.pages.entry(page).or_default();
                });
                self.len = self.len.max(*length);
            }
            Change::Punch(offset, length) => {
                let end = (offset + length).min(self.len.max(*offset));
                self.zero(*offset, end);
                (offset.div_ceil(PAGE)..end / PAGE).for_each(|page| {
                    self.pages.remove(&page);
                });
            }
        }
    }

    pub(super) fn set_len(&mut self, length: u64) {
        self.zero(length, length.next_multiple_of(PAGE));
        self.pages.split_off(&length.div_ceil(PAGE));
        self.len = length;
    }
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write(u64, Bytes),
    SetLen(u64),
    Preallocate(u64),
    Punch(u64, u64),
}

impl Change {
    /// The bytes that are written.
    fn range(&self) -> (u64, u64) {
        match self {
            Self::Write(offset, bytes) => (*offset, offset + bytes.len() as u64),
            Self::Punch(offset, length) => (*offset, offset + length),
            Self::SetLen(_) | Self::Preallocate(_) => (0, 0),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(Inode),
}

/// A change of one name.
pub(super) type Naming = Vec<(PathBuf, Option<Node>)>;

/// A recorded operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Name(Naming),
    SyncDir(PathBuf),
    Change(Inode, Change),
    /// Covers the operations numbered below the second field.
    Sync(Inode, usize),
    /// The changes not yet durable never will be.
    SyncFailed(Inode),
}

/// Durable state and what is pending, after a number of operations.
#[derive(Clone, Default)]
pub(super) struct Replay {
    pub(super) done: usize,
    names: BTreeMap<PathBuf, Node>,
    files: HashMap<Inode, Content>,
    pending_names: Vec<Naming>,
    pending: BTreeMap<Inode, Vec<(usize, Change)>>,
}

impl Replay {
    pub(super) fn new(names: BTreeMap<PathBuf, Node>, files: HashMap<Inode, Content>) -> Self {
        Self { names, files, ..Self::default() }
    }

    pub(super) fn step(&mut self, op: &Op) {
        match op {
            Op::Name(naming) => self.pending_names.push(naming.clone()),
            Op::SyncDir(path) => {
                let (durable, pending) = std::mem::take(&mut self.pending_names)
                    .into_iter()
                    .partition(|naming| naming.iter().any(|(name, _)| name.parent() == Some(path)));
                self.pending_names = pending;
                let durable: Vec<Naming> = durable;
                durable.iter().for_each(|naming| rename_all(&mut self.names, naming));
            }
            Op::Change(inode, change) => self.pending.entry(*inode).or_default().push((self.done, change.clone())),
            Op::Sync(inode, covers) => {
                let pending = self.pending.entry(*inode).or_default();
                let later = pending.partition_point(|(number, _)| number < covers);
                let content = self.files.entry(*inode).or_default();
                pending.drain(..later).for_each(|(_, change)| content.apply(&change));
            }
            Op::SyncFailed(inode) => {
                self.pending.remove(inode);
            }
        }
        self.done += 1;
    }

    /// Names and contents after a crash now.
    pub(super) fn crash(&self, loss: Loss) -> (BTreeMap<PathBuf, Node>, HashMap<Inode, Content>) {
        let (mut names, mut files) = (self.names.clone(), self.files.clone());
        let mut chance = Chance::new(loss);
        for naming in &self.pending_names {
            if chance.name_survives() {
                rename_all(&mut names, naming);
            }
        }
        let lost: Vec<PathBuf> = names.keys().filter(|path| !has_ancestors(&names, path)).cloned().collect();
        lost.iter().for_each(|path| {
            names.remove(path);
        });
        for (inode, pending) in &self.pending {
            chance.survivors(files.entry(*inode).or_default(), pending);
        }
        let inode = |node: &Node| if let Node::File(inode) = node { Some(*inode) } else { None };
        let named: BTreeSet<Inode> = names.values().filter_map(inode).collect();
        for inode in &named {
            files.entry(*inode).or_default();
        }
        files.retain(|inode, _| named.contains(inode));
        (names, files)
    }
}

fn has_ancestors(names: &BTreeMap<PathBuf, Node>, path: &Path) -> bool {
    path.ancestors().skip(1).all(|dir| dir.as_os_str().is_empty() || names.get(dir) == Some(&Node::Dir))
}

pub(super) fn rename_all(names: &mut BTreeMap<PathBuf, Node>, naming: &Naming) {
    for (path, node) in naming {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

/// What a crash leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it, as when only the process dies.
    Nothing,
    /// None of it.
    Everything,
    /// A part, chosen by this seed: whole writes, or sectors of 512 bytes each at one of its versions; some names.
    Seeded(u64),
}

#[derive(Clone, Copy)]
enum Style {
    All,
    None,
    /// Each write survives whole or not at all.
    Writes,
    /// Each sector is as some write left it.
    Sectors,
    /// Everything up to some write, and nothing after it.
    Prefix,
}

struct Chance {
    state: u64,
    style: Style,
}

impl Chance {
    fn new(loss: Loss) -> Self {
        let (state, style) = match loss {
            Loss::Nothing => (0, Style::All),
            Loss::Everything => (0, Style::None),
            Loss::Seeded(seed) => (seed, [Style::Writes, Style::Sectors, Style::Prefix][(mix(seed) % 3) as usize]),
        };
        Self { state, style }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state) % bound
    }

    fn name_survives(&mut self) -> bool {
        match self.style {
            Style::All => true,
            Style::None => false,
            _ => self.below(2) == 0,
        }
    }

    /// Applies what survives of a file's pending changes: of each sector one version, with all that was written to it
    /// before, and a length that the file once had.
    fn survivors(&mut self, content: &mut Content, pending: &[(usize, Change)]) {
        let prefix = match self.style {
            Style::None => return,
            Style::All => pending.len(),
            _ => self.below(pending.len() as u64 + 1) as usize,
        };
        let mut seen = content.clone();
        let mut length = content.len;
        let mut sector = [0; SECTOR as usize];
        for (index, (_, change)) in pending.iter().enumerate() {
            seen.apply(change);
            if index < prefix {
                length = seen.len;
            }
            let whole = match self.style {
                Style::Writes => self.below(2) == 0,
                _ => index < prefix,
            };
            let (from, to) = change.range();
            for number in from / SECTOR..to.div_ceil(SECTOR) {
                let survives = if let Style::Sectors = self.style { self.below(2) == 0 } else { whole };
                if survives {
                    seen.read(&mut sector, number * SECTOR);
                    content.write(&sector, number * SECTOR);
                }
            }
        }
        content.set_len(length);
    }
}

fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
