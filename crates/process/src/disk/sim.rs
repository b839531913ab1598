//! A disk in memory that loses what was not synced.
//!
//! Every write, sync and change of a name is a numbered operation. [`SimDisk::crash`] gives the disk as it may be found
//! after a crash between any two of them. Faults are set at run time: room, failing operations, syncs that lie.

mod state;
#[cfg(test)]
mod tests;

use super::{Disk, DiskFile};
use bytes::Bytes;
use state::{Change, Content, Inode, Naming, Node, Op, Replay, rename_all};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use state::Loss;

/// What an operation is about to do, as hooks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of a file are written, or its room or length is changed.
    Write(&'a Path),
    /// Bytes of a file are synced.
    SyncData(&'a Path),
    /// A name is created, renamed (the new name is told) or removed.
    Name(&'a Path),
    /// Names of a directory are synced.
    SyncDir(&'a Path),
}

/// What a hook lets an operation do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What it should.
    Proceed,
    /// Nothing, but tell success: a sync that was left out, or a device that lies.
    Pretend,
    /// Nothing, and fail. After a failed data sync, what it should have covered never becomes durable by a later one.
    Fail(io::ErrorKind),
}

type Hook = Arc<dyn Fn(Event<'_>) -> Verdict + Send + Sync>;

/// A directory tree in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    names: BTreeMap<PathBuf, Node>,
    files: HashMap<Inode, Content>,
    next_inode: Inode,
    handles: HashMap<Inode, usize>,
    locked: HashSet<PathBuf>,
    capacity: u64,
    hook: Option<Hook>,
    /// Operations so far; `None` when they are not recorded.
    ops: Option<Vec<Op>>,
    count: usize,
    /// Where recording began, and its number.
    start: Replay,
    /// Replay as far as the last crash asked for, so that ascending crash points cost one pass.
    cursor: Replay,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk with the directory `/`, which records its operations: the bytes written stay in memory.
    pub fn new() -> Self {
        Self::with(BTreeMap::from([(PathBuf::from("/"), Node::Dir)]), HashMap::new(), true)
    }

    /// An empty disk that can't be asked for crashes, for runs that write much.
    pub fn unrecorded() -> Self {
        Self::with(BTreeMap::from([(PathBuf::from("/"), Node::Dir)]), HashMap::new(), false)
    }

    fn with(names: BTreeMap<PathBuf, Node>, files: HashMap<Inode, Content>, record: bool) -> Self {
        let start = Replay::new(names.clone(), files.clone());
        Self(Arc::new(Mutex::new(State {
            next_inode: files.keys().max().map_or(0, |inode| inode + 1),
            names,
            files,
            handles: HashMap::new(),
            locked: HashSet::new(),
            capacity: u64::MAX,
            hook: None,
            ops: record.then(Vec::new),
            count: 0,
            cursor: start.clone(),
            start,
        })))
    }

    /// Number of operations so far: crash points are `0..=operations()`. An acknowledgement seen at a count must hold
    /// at every crash point from that count on.
    pub fn operations(&self) -> usize {
        self.state().count
    }

    /// The disk as found after a crash when `at` operations had been done. Nothing is open or locked on it, it has no
    /// faults, and it records anew. Asked for in ascending order, all crash points together cost one pass.
    ///
    /// # Panics
    /// When operations are not recorded.
    pub fn crash(&self, at: usize, loss: Loss) -> SimDisk {
        let mut state = self.state();
        let state = &mut *state;
        assert!(state.ops.is_some(), "operations of this disk are not recorded");
        let ops = state.ops.as_deref().unwrap_or_default();
        if state.cursor.done > at {
            state.cursor = state.start.clone();
        }
        let first = state.start.done;
        ops[state.cursor.done - first..at - first].iter().for_each(|op| state.cursor.step(op));
        let (names, files) = state.cursor.crash(loss);
        Self::with(names, files, true)
    }

    /// The disk as found after the process alone ended when `at` operations had been done: everything is there, and
    /// what was not synced is lost if the machine crashes before it is. Operations are numbered on from `at`.
    ///
    /// # Panics
    /// When operations are not recorded.
    pub fn kill(&self, at: usize) -> SimDisk {
        let killed = self.crash(at, Loss::Nothing);
        let state = self.state();
        let mut after = killed.state();
        after.count = at;
        after.next_inode = state.next_inode;
        after.start = state.cursor.clone();
        after.cursor = state.cursor.clone();
        drop(after);
        killed
    }

    /// Bytes of room from now on.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes of room in use.
    pub fn allocated(&self) -> u64 {
        self.state().allocated()
    }

    /// Asks `hook` before each operation from now on. It runs without the disk's lock, on the caller's thread: it may
    /// wait, so that others' operations come between the start of a sync and its end.
    pub fn set_hook(&self, hook: impl Fn(Event<'_>) -> Verdict + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// Asks no hook any more.
    pub fn clear_hook(&self) {
        self.state().hook = None;
    }

    /// Changes bytes behind everyone's back, as a failing medium does; for use before opening or between reads.
    pub fn damage(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.file(path)?;
        state.files.entry(inode).or_default().apply(&Change::Write(offset, Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to go on; `false` to pretend.
    fn ask(&self, event: Event<'_>) -> io::Result<bool> {
        let hook = self.state().hook.clone();
        match hook.map_or(Verdict::Proceed, |hook| hook(event)) {
            Verdict::Proceed => Ok(true),
            Verdict::Pretend => Ok(false),
            Verdict::Fail(kind) => Err(io::Error::new(kind, "injected fault")),
        }
    }

    fn opened(&self, state: &mut State, path: &Path, inode: Inode) -> Arc<dyn DiskFile> {
        *state.handles.entry(inode).or_default() += 1;
        Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), inode })
    }
}

impl State {
    fn allocated(&self) -> u64 {
        self.files.values().map(Content::allocated).sum()
    }

    fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn record(&mut self, op: Op) {
        self.count += 1;
        if let Some(ops) = &mut self.ops {
            ops.push(op);
        }
    }

    fn name(&mut self, naming: Naming) {
        let inode = |node: &Node| if let Node::File(inode) = node { Some(*inode) } else { None };
        let before: Vec<Inode> = naming.iter().filter_map(|(path, _)| self.names.get(path).and_then(inode)).collect();
        rename_all(&mut self.names, &naming);
        before.into_iter().for_each(|inode| self.forget(inode));
        self.record(Op::Name(naming));
    }

    /// Gives back the room of a file that has neither a name nor a handle.
    fn forget(&mut self, inode: Inode) {
        if !self.handles.contains_key(&inode) && !self.names.values().any(|node| *node == Node::File(inode)) {
            self.files.remove(&inode);
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<Inode> {
        self.dir(path.parent().unwrap_or(path))?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, Content::default());
        self.name(vec![(path.to_owned(), Some(Node::File(inode)))]);
        Ok(inode)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            let node = self.state().names.get(dir).copied();
            match node {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    if self.ask(Event::Name(dir))? {
                        self.state().name(vec![(dir.to_owned(), Some(Node::Dir))]);
                    }
                }
            }
        }
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.ask(Event::Name(path))?;
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.create(path)?;
        Ok(self.opened(&mut state, path, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let inode = state.file(path)?;
        Ok(self.opened(&mut state, path, inode))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.dir(path)?;
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Event::Name(to))?;
        let mut state = self.state();
        let inode = state.file(from)?;
        state.dir(to.parent().unwrap_or(to))?;
        state.name(vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(inode)))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Event::Name(path))?;
        let mut state = self.state();
        state.file(path)?;
        state.name(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state().dir(path)?;
        if self.ask(Event::SyncDir(path))? {
            self.state().record(Op::SyncDir(path.to_owned()));
        }
        Ok(())
    }

    fn available(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.allocated()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            state.create(path)?;
        }
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.clone(), path.to_owned())))
    }
}

struct Lock(SimDisk, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.state().locked.remove(&self.1);
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: Inode,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if let Some(count) = state.handles.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                state.handles.remove(&self.inode);
                state.forget(self.inode);
            }
        }
    }
}

impl SimFile {
    fn change(&self, change: Change, from: u64, length: u64) -> io::Result<()> {
        if !self.disk.ask(Event::Write(&self.path))? {
            return Ok(());
        }
        let mut state = self.disk.state();
        let state = &mut *state;
        let missing = state.files.get(&self.inode).map_or(0, |content| content.missing(from, length));
        if missing > 0 && state.allocated().saturating_add(missing) > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(content) = state.files.get_mut(&self.inode) {
            content.apply(&change);
            state.record(Op::Change(self.inode, change));
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let content = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > content.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(buffer, offset);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, Bytes::copy_from_slice(bytes)), offset, bytes.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let covers = self.disk.state().count;
        let asked = self.disk.ask(Event::SyncData(&self.path));
        let mut state = self.disk.state();
        match asked {
            Ok(true) => state.record(Op::Sync(self.inode, covers)),
            Ok(false) => {}
            Err(_) => state.record(Op::SyncFailed(self.inode)),
        }
        asked.map(|_| ())
    }

    fn start_writeback(&self, _offset: u64, _length: u64) {}

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files.get(&self.inode).map_or(0, |content| content.len))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::SetLen(length), 0, 0)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let len = self.len()?;
        if len >= length {
            return Ok(());
        }
        self.change(Change::Preallocate(length), len, length - len)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.change(Change::Punch(offset, length), 0, 0)
    }
}
