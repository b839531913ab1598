//! The engine with its generations, on threads that may block.

use crate::{
    config::{IndexStoreConfig, KEY_BYTES_MAX, NOTE_BYTES_MAX, VALUE_BYTES_MAX},
    generation::{GenerationState, encode_offset, lists_options, rows_options},
    key,
};
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_process::disk::{Disk, RealDisk};
use cairn_store_api::{CkRange, Commit, Generation, Mutation, Page, Row, StoreError, StoreErrorKind, Table};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, compaction::Leveled};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

const STORE_KEYSPACE: &str = "store";
const POINTER: &[u8] = b"pointer";
/// There while something is to be purged.
pub(crate) const PURGE: &[u8] = b"purge";
const GENERATION_KEYSPACE: &str = "generation-";
const LISTS_KEYSPACE: &str = "lists-";
/// Rows recovered from the journal beyond this are written to tables at once, so that they leave memory.
const RECOVERED_KEPT: u64 = 1 << 20;

/// Free room without which the engine is not opened anew.
const MENDING_BYTES: u64 = 16 << 20;
/// Tables that were flushed, from which on they are merged into the next level.
const L0_TABLES: usize = 4;
/// Below the number at which the engine halts writes, which is 30.
const L0_TABLES_MAX: usize = 20;

pub(crate) struct Engine {
    pub(crate) database: Database,
    path: PathBuf,
    reserve_bytes: u64,
    /// The engine takes no more writes since one of its own failed.
    broken: AtomicBool,
    memtable_bytes: u64,
    compaction: Arc<Leveled>,
    /// Why tables can't be merged at present.
    compaction_failure: Mutex<Option<StoreError>>,
    /// Holds the pointer.
    pub(crate) store: Keyspace,
    pointer: Mutex<Bytes>,
    pub(crate) generations: RwLock<HashMap<Generation, Arc<GenerationState>>>,
    /// Something was committed since the last sync.
    unsynced: AtomicBool,
    /// Commits so far that asked for a purge.
    pub(crate) purges: AtomicU64,
    /// When the next purge may begin.
    pub(crate) purge_rests_until: Mutex<Option<Instant>>,
}

impl Engine {
    pub(crate) fn open(path: &Path, config: &IndexStoreConfig) -> Result<Self, StoreError> {
        let database = Database::builder(path)
            .cache_size(config.cache_bytes)
            .worker_threads(1)
            .max_cached_files(Some(config.open_files_max.max(10)))
            .max_journaling_size(config.journal_bytes_max.max(64 << 20))
            .open()
            .map_err(|error| failed("open index store", &error))?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(1 << 20);
        let store = database.keyspace(STORE_KEYSPACE, options).map_err(|error| failed("open index store", &error))?;
        let pointer = store.get(POINTER).map_err(|error| failed("read pointer", &error))?;
        let pointer = pointer.map(|pointer| Bytes::copy_from_slice(&pointer)).unwrap_or_default();
        let engine = Self {
            database,
            path: path.to_owned(),
            reserve_bytes: config.reserve_bytes,
            broken: AtomicBool::new(false),
            memtable_bytes: config.memtable_bytes,
            compaction: compaction(config.memtable_bytes),
            compaction_failure: Mutex::new(None),
            store,
            pointer: Mutex::new(pointer),
            generations: RwLock::default(),
            unsynced: AtomicBool::new(false),
            purges: AtomicU64::new(0),
            purge_rests_until: Mutex::default(),
        };
        engine.load_generations()?;
        Ok(engine)
    }

    fn load_generations(&self) -> Result<(), StoreError> {
        let recovered = self.database.write_buffer_size() > RECOVERED_KEPT;
        let names = self.database.list_keyspace_names();
        let with = |prefix: &'static str| {
            let numbers = names.iter().filter_map(move |name| name.strip_prefix(prefix)?.parse().ok().map(Generation));
            numbers.collect::<HashSet<Generation>>()
        };
        let (generations, lists) = (with(GENERATION_KEYSPACE), with(LISTS_KEYSPACE));
        for generation in &generations {
            let rows = self.rows(*generation)?;
            let lists = if lists.contains(generation) { self.lists(*generation)? } else { rows.clone() };
            if recovered {
                for keyspace in [&rows, &lists] {
                    keyspace.rotate_memtable().map_err(|error| failed("flush recovered rows", &error))?;
                }
            }
            let state = GenerationState::load(rows, lists)?;
            self.generations.write().unwrap_or_else(PoisonError::into_inner).insert(*generation, Arc::new(state));
        }
        // What is left where beginning or dropping a generation was cut off.
        for generation in lists.difference(&generations) {
            self.delete(self.lists(*generation)?)?;
        }
        Ok(())
    }

    fn rows(&self, generation: Generation) -> Result<Keyspace, StoreError> {
        self.keyspace(GENERATION_KEYSPACE, generation, || rows_options(self.memtable_bytes))
    }

    fn lists(&self, generation: Generation) -> Result<Keyspace, StoreError> {
        self.keyspace(LISTS_KEYSPACE, generation, || lists_options(self.memtable_bytes))
    }

    fn keyspace(
        &self,
        prefix: &str,
        generation: Generation,
        options: impl FnOnce() -> KeyspaceCreateOptions,
    ) -> Result<Keyspace, StoreError> {
        let name = format!("{prefix}{}", generation.0);
        self.database.keyspace(&name, options).map_err(|error| failed("open generation", &error))
    }

    fn delete(&self, keyspace: Keyspace) -> Result<(), StoreError> {
        self.database.delete_keyspace(keyspace).map_err(|error| failed("drop generation", &error))
    }

    fn generation(&self, generation: Generation) -> Option<Arc<GenerationState>> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned()
    }

    fn generation_or_new(&self, generation: Generation) -> Result<Arc<GenerationState>, StoreError> {
        if let Some(state) = self.generation(generation) {
            return Ok(state);
        }
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = generations.get(&generation) {
            return Ok(state.clone());
        }
        let lists = self.lists(generation)?;
        let state = Arc::new(GenerationState::load(self.rows(generation)?, lists)?);
        generations.insert(generation, state.clone());
        Ok(state)
    }

    pub(crate) fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        check_keys(table, pk, ck)?;
        let Some(state) = self.generation(generation) else { return Ok(None) };
        state.get(table, pk, ck)
    }

    pub(crate) fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().try_for_each(|(pk, ck)| check_keys(table, pk, ck))?;
        let Some(state) = self.generation(generation) else { return Ok(vec![None; keys.len()]) };
        keys.iter().map(|(pk, ck)| state.get(table, pk, ck)).collect()
    }

    pub(crate) fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError> {
        check_keys(table, pk, &[])?;
        let Some(state) = self.generation(generation) else { return Ok(Page::default()) };
        let prefix = key::prefix(table, pk);
        let bound = |ck: &Bytes| [&prefix[..], &ck[..]].concat();
        let from = range.from.as_ref().map_or_else(|| prefix.clone(), bound);
        let to = range.to.as_ref().map_or_else(|| key::after(&prefix), bound);
        if from >= to || max == 0 {
            let more = from < to && state.of(table).range(from..to).next().is_some();
            return Ok(Page { rows: Vec::new(), more });
        }
        // Of a commit under way nothing is seen.
        let mut rows = self.database.snapshot().range(state.of(table), from..to);
        let mut next = || if reverse { rows.next_back() } else { rows.next() };
        let mut page = Page::default();
        while let Some(row) = next() {
            if page.rows.len() == max {
                page.more = true;
                break;
            }
            let (key, value) = row.into_inner().map_err(|error| failed("scan rows", &error))?;
            let ck = Bytes::copy_from_slice(key.get(prefix.len()..).unwrap_or_default());
            page.rows.push(Row { ck, value: Bytes::copy_from_slice(&value) });
        }
        Ok(page)
    }

    /// Applies a commit; tells whether there is something to compact.
    pub(crate) fn commit(&self, generation: Generation, commit: &Commit) -> Result<bool, StoreError> {
        check_commit(commit)?;
        self.check_room()?;
        loop {
            let state = self.generation_or_new(generation)?;
            self.check_piled_up(&state)?;
            let mut committed = state.lock();
            if committed.dropped {
                continue; // by another caller just now: this one begins it anew
            }
            committed.check(commit)?;
            self.apply(&state, commit)?;
            let place = (commit.incarnation, commit.to, commit.note.clone());
            committed.incarnation = commit.incarnation;
            committed.offsets.insert(commit.partition, place);
            return Ok(state.l0_tables() >= L0_TABLES);
        }
    }

    /// Whether the engine is safe from a full disk for the time being.
    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        self.check_room_of(self.reserve_bytes)
    }

    fn check_room_of(&self, bytes: u64) -> Result<(), StoreError> {
        let available = RealDisk.available(&self.path);
        match available.map_err(|error| StoreError::io("ask for free room", &error))? {
            free if free >= bytes => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Exhausted, "no room left on the index store's disk")),
        }
    }

    /// Whether it must be opened anew to take writes again, and there is room to try.
    pub(crate) fn can_be_mended(&self) -> bool {
        self.broken.load(Ordering::Acquire) && self.check_room_of(self.reserve_bytes.max(MENDING_BYTES)).is_ok()
    }

    pub(crate) fn failed(&self, what: &str, error: &fjall::Error) -> StoreError {
        if matches!(error, fjall::Error::Poisoned | fjall::Error::Io(_) | fjall::Error::Storage(_)) {
            self.broken.store(true, Ordering::Release);
        }
        failed(what, error)
    }

    /// Refuses a commit that would be halted for as long as compaction fails. While compaction works, the engine itself bounds
    /// the tables: it halts commits until there are fewer.
    fn check_piled_up(&self, state: &GenerationState) -> Result<(), StoreError> {
        let failure = self.compaction_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failure {
            Some(error) if state.l0_tables() >= L0_TABLES_MAX => Err(error),
            _ => Ok(()),
        }
    }

    /// Does one step of compaction in each generation; tells whether there may be more to do.
    pub(crate) fn compact(&self) -> Result<bool, StoreError> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut more = false;
        for keyspace in generations.values().flat_map(|state| state.keyspaces()) {
            let before = shape(keyspace);
            let watermark = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            let compacted = self.check_room().and_then(|()| {
                let compacted = keyspace.tree.compact(self.compaction.clone(), watermark);
                compacted.map_err(|error| failed("compact index store", &error.into()))
            });
            let failure = compacted.err();
            *self.compaction_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure.clone();
            if let Some(error) = failure {
                return Err(error);
            }
            more |= shape(keyspace) != before;
        }
        Ok(more)
    }

    fn apply(&self, state: &GenerationState, commit: &Commit) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        let mut key = Vec::new();
        for mutation in &commit.mutations {
            match mutation {
                Mutation::Put { table, pk, ck, value } => {
                    key::write_row(&mut key, *table, pk, ck);
                    batch.insert(state.of(*table), &key[..], &value[..]);
                }
                Mutation::Delete { table, pk, ck } => {
                    key::write_row(&mut key, *table, pk, ck);
                    batch.remove(state.of(*table), &key[..]);
                }
            }
        }
        batch.insert(&state.rows, &key::offset(commit.partition)[..], encode_offset(commit));
        if commit.purge {
            batch.insert(&self.store, PURGE, b"");
        }
        batch.commit().map_err(|error| self.failed("commit rows", &error))?;
        self.purges.fetch_add(u64::from(commit.purge), Ordering::AcqRel);
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn offsets(&self, generation: Generation) -> Vec<(Incarnation, Partition, Offset, Bytes)> {
        let Some(state) = self.generation(generation) else { return Vec::new() };
        let committed = state.lock();
        let newest = committed.offsets.iter().filter(|(_, (incarnation, ..))| *incarnation == committed.incarnation);
        newest.map(|(partition, (life, offset, note))| (*life, *partition, *offset, note.clone())).collect()
    }

    pub(crate) fn pointer(&self) -> Bytes {
        self.pointer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        if new.len() > VALUE_BYTES_MAX {
            return Err(over("pointer", new.len(), VALUE_BYTES_MAX));
        }
        let mut pointer = self.pointer.lock().unwrap_or_else(PoisonError::into_inner);
        if pointer[..] != *expected {
            return Ok(false);
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.store, POINTER, &new[..]);
        batch.commit().map_err(|error| self.failed("set pointer", &error))?;
        *pointer = new;
        Ok(true)
    }

    pub(crate) fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        let Some(state) = self.generation(generation) else { return Ok(()) };
        let mut committed = state.lock();
        if committed.dropped {
            return Ok(());
        }
        self.delete(state.rows.clone())?;
        committed.dropped = true;
        if state.lists != state.rows {
            self.delete(state.lists.clone())?;
        }
        // Its files go with the last reader that still has it.
        self.generations.write().unwrap_or_else(PoisonError::into_inner).remove(&generation);
        Ok(())
    }

    /// Makes what was committed durable, if there is anything new.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.database.persist(PersistMode::SyncAll).map_err(|error| {
                self.unsynced.store(true, Ordering::Release);
                self.failed("sync index store", &error)
            })?;
        }
        Ok(())
    }

    /// The same, left for later while there is no room for what the engine writes with it.
    pub(crate) fn sync_with_room(&self) -> Result<(), StoreError> {
        self.check_room()?;
        self.sync()
    }
}

/// Tables are small, so that what enters a level is merged with little more than itself.
fn compaction(memtable_bytes: u64) -> Arc<Leveled> {
    let target = memtable_bytes.saturating_mul(2);
    Arc::new(Leveled::default().with_l0_threshold(L0_TABLES as u8).with_table_target_size(target))
}

/// Changes with each step of compaction, and with each flush.
fn shape(keyspace: &Keyspace) -> u64 {
    keyspace.tree.current_version().id()
}

fn check_commit(commit: &Commit) -> Result<(), StoreError> {
    if commit.to < commit.from {
        return Err(StoreError::new(StoreErrorKind::Invalid, "commit ends before it begins"));
    }
    if commit.note.len() > NOTE_BYTES_MAX {
        return Err(over("note", commit.note.len(), NOTE_BYTES_MAX));
    }
    for mutation in &commit.mutations {
        match mutation {
            Mutation::Put { table, pk, ck, value } => {
                check_keys(*table, pk, ck)?;
                if value.len() > VALUE_BYTES_MAX {
                    return Err(over(table.name, value.len(), VALUE_BYTES_MAX));
                }
            }
            Mutation::Delete { table, pk, ck } => check_keys(*table, pk, ck)?,
        }
    }
    Ok(())
}

fn check_keys(table: Table, pk: &[u8], ck: &[u8]) -> Result<(), StoreError> {
    match pk.len().max(ck.len()) {
        length if length > KEY_BYTES_MAX => Err(over(table.name, length, KEY_BYTES_MAX)),
        _ => Ok(()),
    }
}

/// Names the table, never the key: keys hold patients' attributes.
fn over(what: &str, length: usize, most: usize) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, format!("{what}: {length} bytes are over {most}"))
}

pub(crate) fn failed(what: &str, error: &fjall::Error) -> StoreError {
    use fjall::Error;
    let kind = match error {
        Error::Io(io) | Error::Storage(fjall::LsmError::Io(io)) => return StoreError::io(what, io),
        Error::Locked => StoreErrorKind::Conflict,
        Error::Poisoned | Error::KeyspaceDeleted => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, format!("{what}: {error}"))
}
