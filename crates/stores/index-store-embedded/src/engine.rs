//! The engine with its generations, on threads that may block.

use crate::{
    config::{IndexStoreConfig, KEY_BYTES_MAX, NOTE_BYTES_MAX, VALUE_BYTES_MAX},
    key,
};
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_process::disk::{Disk, RealDisk};
use cairn_store_api::{CkRange, Commit, Generation, Mutation, Page, Row, StoreError, StoreErrorKind, Table};
use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, compaction::Leveled,
    config::PartitioningPolicy,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

const STORE_KEYSPACE: &str = "store";
const POINTER: &[u8] = b"pointer";
const GENERATION_KEYSPACE: &str = "generation-";
/// Rows recovered from the journal beyond this are written to tables at once, so that they leave memory.
const RECOVERED_KEPT: u64 = 1 << 20;

/// Free room without which the engine is not opened anew.
const MENDING_BYTES: u64 = 16 << 20;
/// Tables that were flushed, from which on they are merged into the next level.
const L0_TABLES: usize = 4;
/// Below the number at which the engine halts writes, which is 30.
const L0_TABLES_MAX: usize = 20;

pub(crate) struct Engine {
    database: Database,
    path: PathBuf,
    reserve_bytes: u64,
    /// The engine takes no more writes since one of its own failed.
    broken: AtomicBool,
    memtable_bytes: u64,
    compaction: Arc<Leveled>,
    /// Why tables can't be merged at present.
    compaction_failure: Mutex<Option<StoreError>>,
    /// Holds the pointer.
    store: Keyspace,
    pointer: Mutex<Bytes>,
    generations: RwLock<HashMap<Generation, Arc<GenerationState>>>,
    /// Something was committed since the last sync.
    unsynced: AtomicBool,
}

struct GenerationState {
    keyspace: Keyspace,
    /// What was committed last in each partition. Held while a commit is applied.
    committed: Mutex<Committed>,
}

#[derive(Default)]
struct Committed {
    /// Newest of all partitions.
    incarnation: Incarnation,
    offsets: BTreeMap<Partition, (Incarnation, Offset, Bytes)>,
    dropped: bool,
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
        };
        engine.load_generations()?;
        Ok(engine)
    }

    fn load_generations(&self) -> Result<(), StoreError> {
        let recovered = self.database.write_buffer_size() > RECOVERED_KEPT;
        for name in self.database.list_keyspace_names() {
            let number = name.strip_prefix(GENERATION_KEYSPACE).and_then(|number| number.parse().ok());
            let Some(generation) = number.map(Generation) else { continue };
            let keyspace = self.keyspace(generation)?;
            if recovered {
                keyspace.rotate_memtable().map_err(|error| failed("flush recovered rows", &error))?;
            }
            let state = GenerationState::load(keyspace)?;
            self.generations.write().unwrap_or_else(PoisonError::into_inner).insert(generation, Arc::new(state));
        }
        Ok(())
    }

    fn keyspace(&self, generation: Generation) -> Result<Keyspace, StoreError> {
        let options = || generation_options(self.memtable_bytes);
        let name = format!("{GENERATION_KEYSPACE}{}", generation.0);
        self.database.keyspace(&name, options).map_err(|error| failed("open generation", &error))
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
        let state = Arc::new(GenerationState::load(self.keyspace(generation)?)?);
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
            let more = from < to && state.keyspace.range(from..to).next().is_some();
            return Ok(Page { rows: Vec::new(), more });
        }
        let mut rows = state.keyspace.range(from..to);
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
            self.check_piled_up(&state.keyspace)?;
            let mut committed = state.lock();
            if committed.dropped {
                continue; // by another caller just now: this one begins it anew
            }
            committed.check(commit)?;
            self.apply(&state.keyspace, commit)?;
            let place = (commit.incarnation, commit.to, commit.note.clone());
            committed.incarnation = commit.incarnation;
            committed.offsets.insert(commit.partition, place);
            return Ok(state.keyspace.l0_table_count() >= L0_TABLES);
        }
    }

    /// Whether the engine is safe from a full disk for the time being.
    fn check_room(&self) -> Result<(), StoreError> {
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

    fn failed(&self, what: &str, error: &fjall::Error) -> StoreError {
        if matches!(error, fjall::Error::Poisoned | fjall::Error::Io(_) | fjall::Error::Storage(_)) {
            self.broken.store(true, Ordering::Release);
        }
        failed(what, error)
    }

    /// Refuses a commit that would be halted for as long as compaction fails. While compaction works, the engine itself bounds
    /// the tables: it halts commits until there are fewer.
    fn check_piled_up(&self, keyspace: &Keyspace) -> Result<(), StoreError> {
        let failure = self.compaction_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failure {
            Some(error) if keyspace.l0_table_count() >= L0_TABLES_MAX => Err(error),
            _ => Ok(()),
        }
    }

    /// Does one step of compaction in each generation; tells whether there may be more to do.
    pub(crate) fn compact(&self) -> Result<bool, StoreError> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut more = false;
        for state in generations.values() {
            let before = shape(&state.keyspace);
            let watermark = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            let compacted = self.check_room().and_then(|()| {
                let compacted = state.keyspace.tree.compact(self.compaction.clone(), watermark);
                compacted.map_err(|error| failed("compact index store", &error.into()))
            });
            let failure = compacted.err();
            *self.compaction_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure.clone();
            if let Some(error) = failure {
                return Err(error);
            }
            more |= shape(&state.keyspace) != before;
        }
        Ok(more)
    }

    fn apply(&self, keyspace: &Keyspace, commit: &Commit) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        let mut key = Vec::new();
        for mutation in &commit.mutations {
            match mutation {
                Mutation::Put { table, pk, ck, value } => {
                    key::write_row(&mut key, *table, pk, ck);
                    batch.insert(keyspace, &key[..], &value[..]);
                }
                Mutation::Delete { table, pk, ck } => {
                    key::write_row(&mut key, *table, pk, ck);
                    batch.remove(keyspace, &key[..]);
                }
            }
        }
        batch.insert(keyspace, &key::offset(commit.partition)[..], encode_offset(commit));
        batch.commit().map_err(|error| self.failed("commit rows", &error))?;
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
        self.database.delete_keyspace(state.keyspace.clone()).map_err(|error| failed("drop generation", &error))?;
        committed.dropped = true;
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

/// The engine compacts once or twice after each flush and never else. When tables pile up faster, it halts writes for
/// ever: with no write there is no flush, and with no flush no compaction. So its own compaction is given bounds that
/// are never reached, and [`Engine::compact`] does it, on a thread of its own, whenever there is something to do.
///
/// Filters and block indexes are cut into blocks: a cold one is read in parts, not whole, and only parts are cached.
fn generation_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    let never = Leveled::default().with_l0_threshold(u8::MAX).with_table_target_size(1 << 40);
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .compaction_strategy(Arc::new(never))
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

/// Tables are small, so that what enters a level is merged with little more than itself.
fn compaction(memtable_bytes: u64) -> Arc<Leveled> {
    let target = memtable_bytes.saturating_mul(2);
    Arc::new(Leveled::default().with_l0_threshold(L0_TABLES as u8).with_table_target_size(target))
}

impl GenerationState {
    fn load(keyspace: Keyspace) -> Result<Self, StoreError> {
        let mut committed = Committed::default();
        for entry in keyspace.range(key::offsets()) {
            let (key, value) = entry.into_inner().map_err(|error| failed("read offsets", &error))?;
            let place = key::partition(&key).zip(decode_offset(&value));
            let (partition, place) = place
                .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "index store has an unreadable offset"))?;
            committed.incarnation = committed.incarnation.max(place.0);
            committed.offsets.insert(partition, place);
        }
        Ok(Self { keyspace, committed: Mutex::new(committed) })
    }

    fn lock(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, table: Table, pk: &[u8], ck: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.keyspace.get(key::row(table, pk, ck)).map_err(|error| failed("read row", &error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }
}

impl Committed {
    /// Whether a commit goes on where the last one of its partition ended.
    fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        let conflict = |what: String| Err(StoreError::new(StoreErrorKind::Conflict, what));
        let partition = commit.partition.0;
        if commit.incarnation < self.incarnation {
            return conflict(format!("incarnation {} is over: {}", commit.incarnation.0, self.incarnation.0));
        }
        let place = self.offsets.get(&commit.partition).filter(|(life, ..)| *life == commit.incarnation);
        let end = place.map_or(Offset(0), |(_, end, _)| *end);
        if commit.from != end {
            return conflict(format!("partition {partition} is committed to {}, not {}", end.0, commit.from.0));
        }
        Ok(())
    }
}

/// Changes with each step of compaction, and with each flush.
fn shape(keyspace: &Keyspace) -> u64 {
    keyspace.tree.current_version().id()
}

fn encode_offset(commit: &Commit) -> Vec<u8> {
    let mut value = Vec::with_capacity(12 + commit.note.len());
    value.extend_from_slice(&commit.incarnation.0.to_be_bytes());
    value.extend_from_slice(&commit.to.0.to_be_bytes());
    value.extend_from_slice(&commit.note);
    value
}

fn decode_offset(value: &[u8]) -> Option<(Incarnation, Offset, Bytes)> {
    let (incarnation, rest) = value.split_first_chunk()?;
    let (offset, note) = rest.split_first_chunk()?;
    let incarnation = Incarnation(u32::from_be_bytes(*incarnation));
    Some((incarnation, Offset(u64::from_be_bytes(*offset)), Bytes::copy_from_slice(note)))
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
