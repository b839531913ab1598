//! One generation in the engine: where its rows are, and what was committed last.

use crate::{engine::failed, key};
use bytes::Bytes;
use cairn_archive::{
    Incarnation, Offset, Partition,
    index_rows::{BUCKETS, BY_INSTANCE, BY_SERIES, CONFLICTS, FACTS, HEADERS, PATIENTS, POSTINGS, TableDef},
};
use cairn_store_api::{Commit, StoreError, StoreErrorKind, Table};
use fjall::{
    Keyspace, KeyspaceCreateOptions,
    compaction::Leveled,
    config::{FilterPolicy, PartitioningPolicy},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) struct GenerationState {
    /// Rows that are got by their keys, and offsets. There is a generation once this is there.
    pub(crate) rows: Keyspace,
    /// Rows that are scanned: many and small, so kept from the way of the others. Generations of earlier builds have them
    /// among the others.
    pub(crate) lists: Keyspace,
    /// What was committed last in each partition. Held while a commit is applied.
    committed: Mutex<Committed>,
}

#[derive(Default)]
pub(crate) struct Committed {
    /// Newest of all partitions.
    pub(crate) incarnation: Incarnation,
    pub(crate) offsets: BTreeMap<Partition, (Incarnation, Offset, Bytes)>,
    pub(crate) dropped: bool,
}

/// The engine compacts once or twice after each flush and never else. When tables pile up faster, it halts writes for
/// ever: with no write there is no flush, and with no flush no compaction. So its own compaction is given bounds that
/// are never reached, and [`Engine::compact`] does it, on a thread of its own, whenever there is something to do.
///
/// Filters and block indexes are cut into blocks: a cold one is read in parts, not whole, and only parts are cached.
pub(crate) fn rows_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    let never = Leveled::default().with_l0_threshold(u8::MAX).with_table_target_size(1 << 40);
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .compaction_strategy(Arc::new(never))
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

/// Nobody gets a row of a list by its key: filters would only cost.
pub(crate) fn lists_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    rows_options(memtable_bytes).filter_policy(FilterPolicy::disabled())
}

/// Tables of which rows are scanned.
const LISTS: [TableDef; 8] = [FACTS, HEADERS, BY_SERIES, BY_INSTANCE, POSTINGS, BUCKETS, PATIENTS, CONFLICTS];

impl GenerationState {
    pub(crate) fn load(rows: Keyspace, lists: Keyspace) -> Result<Self, StoreError> {
        let mut committed = Committed::default();
        for entry in rows.range(key::offsets()) {
            let (key, value) = entry.into_inner().map_err(|error| failed("read offsets", &error))?;
            let place = key::partition(&key).zip(decode_offset(&value));
            let (partition, place) = place
                .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "index store has an unreadable offset"))?;
            committed.incarnation = committed.incarnation.max(place.0);
            committed.offsets.insert(partition, place);
        }
        Ok(Self { rows, lists, committed: Mutex::new(committed) })
    }

    /// Where the rows of a table are.
    pub(crate) fn of(&self, table: Table) -> &Keyspace {
        if LISTS.iter().any(|list| list.id == table.id) { &self.lists } else { &self.rows }
    }

    pub(crate) fn keyspaces(&self) -> [&Keyspace; 2] {
        [&self.rows, &self.lists]
    }

    /// Tables not merged yet, of the keyspace that has more.
    pub(crate) fn l0_tables(&self) -> usize {
        self.keyspaces().into_iter().map(Keyspace::l0_table_count).max().unwrap_or_default()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, table: Table, pk: &[u8], ck: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.of(table).get(key::row(table, pk, ck)).map_err(|error| failed("read row", &error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }
}

impl Committed {
    /// Whether a commit goes on where the last one of its partition ended.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), StoreError> {
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

pub(crate) fn encode_offset(commit: &Commit) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::IndexStoreConfig, engine::Engine};
    use cairn_store_api::{CkRange, Generation, Mutation};

    const LIST: Table = Table { id: POSTINGS.id, name: POSTINGS.name };

    fn commit(from: u64, to: u64, mutations: Vec<Mutation>) -> Commit {
        let note = Bytes::from_static(b"note");
        let (incarnation, partition) = (Incarnation(1), Partition(3));
        Commit { incarnation, partition, from: Offset(from), to: Offset(to), note, mutations, purge: false }
    }

    #[test]
    fn generations_of_earlier_builds_are_gone_on_with_and_halves_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        {
            let database = fjall::Database::builder(dir.path()).open().expect("opens");
            let old = database.keyspace("generation-7", || rows_options(1 << 20)).expect("is made");
            old.insert(key::row(LIST, b"list", b"a"), b"").expect("is written");
            old.insert(key::offset(Partition(3)), encode_offset(&commit(0, 5, Vec::new()))).expect("is written");
            database.keyspace("lists-9", || lists_options(1 << 20)).expect("is made");
        }
        for round in 0..2_u8 {
            let engine = Engine::open(dir.path(), &IndexStoreConfig::default()).expect("opens");
            assert!(engine.offsets(Generation(9)).is_empty());
            let (pk, ck, value) = (Bytes::from_static(b"list"), Bytes::copy_from_slice(&[b'b' + round]), Bytes::new());
            let row = Mutation::Put { table: LIST, pk, ck, value };
            let from = 5 + u64::from(round);
            for generation in [7, 9] {
                let from = if generation == 7 { from } else { 0 };
                engine.commit(Generation(generation), &commit(from, from + 1, vec![row.clone()])).expect("goes on");
            }
            let keys = |generation| {
                let whole = CkRange::default();
                let page = engine.scan(Generation(generation), LIST, b"list", &whole, false, 9).expect("reads");
                page.rows.into_iter().map(|row| row.ck[0]).collect::<Vec<_>>()
            };
            assert_eq!(keys(7), (b'a'..=b'b' + round).collect::<Vec<_>>());
            assert_eq!(keys(9), [b'b' + round], "nothing is left of the generation before");
            engine.drop_generation(Generation(9)).expect("drops");
            assert!(keys(9).is_empty());
        }
    }
}
