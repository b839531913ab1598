//! Purging: what was overwritten or removed leaves the files too. The engine keeps it in its journal and its tables for as long as it
//! likes, so the journal is turned over, and every table written anew.

use crate::engine::{Engine, PURGE, failed};
use cairn_store_api::{StoreError, StoreErrorKind};
use fjall::{AbstractTree, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// A keyspace of noise, there while the journal is turned over.
const NOISE_KEYSPACE: &str = "noise";
/// The engine begins another journal when one is longer than 64 MB.
const NOISE_VALUES: u64 = 68;
const NOISE_VALUE_BYTES: usize = 1 << 20;
const NOISE_MEMTABLE_BYTES: u64 = 8 << 20;
/// How large tables are written.
const TABLE_BYTES: u64 = 64 << 20;
/// How long the engine may take to write what it has in memory.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(60);
const FLUSH_POLL: Duration = Duration::from_millis(5);
/// Turns after which the journal before is gone, if nothing is wrong.
const TURNS_MAX: usize = 8;
/// A purge writes the whole store: it takes no more than one part in so many of the time.
const PAUSE: u32 = 10;

impl Engine {
    /// Whether a commit asked for a purge that was not done.
    pub(crate) fn is_purge_due(&self) -> Result<bool, StoreError> {
        self.store.contains_key(PURGE).map_err(|error| failed("read index store", &error))
    }

    /// Purges, if it is due; tells whether it is to be tried again.
    pub(crate) fn purge(&self) -> Result<bool, StoreError> {
        if !self.is_purge_due()? {
            return Ok(false);
        }
        let mut rests_until = self.purge_rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        if rests_until.is_some_and(|until| Instant::now() < until) {
            return Ok(true);
        }
        self.check_room()?;
        let (asked, began) = (self.purges.load(Ordering::Acquire), Instant::now());
        let removed_before = self.database.supervisor.snapshot_tracker.get();
        self.write_tables_anew()?;
        let is_turned = self.turn_journal()?;
        // Who reads what was there before keeps it in the tables.
        let is_purged = self.write_tables_anew()? >= removed_before && is_turned;
        let is_over = is_purged && self.purges.load(Ordering::Acquire) == asked;
        if is_over {
            self.store.remove(PURGE).map_err(|error| self.failed("purge index store", &error))?;
            self.database.persist(PersistMode::SyncAll).map_err(|error| self.failed("purge index store", &error))?;
            tracing::info!(took = ?began.elapsed(), "what was removed is purged from the index store");
        }
        *rests_until = Instant::now().checked_add(began.elapsed() * PAUSE);
        Ok(!is_over)
    }

    fn keyspaces(&self) -> Vec<Keyspace> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = generations.values().flat_map(|state| state.keyspaces()).cloned();
        own.chain([self.store.clone()]).collect()
    }

    /// Gives up to when what was overwritten is left out.
    fn write_tables_anew(&self) -> Result<u64, StoreError> {
        let mut left_out = u64::MAX;
        for keyspace in self.keyspaces() {
            flush(&keyspace)?;
            let watermark = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            let compacted = keyspace.tree.major_compact(TABLE_BYTES, watermark);
            compacted.map_err(|error| failed("purge index store", &error.into()))?;
            left_out = left_out.min(watermark);
        }
        Ok(left_out)
    }

    /// Fills the journal until the engine begins another one, and has everything in tables that stands in those before: then they
    /// are removed. Tells whether they are.
    fn turn_journal(&self) -> Result<bool, StoreError> {
        let failed = |error: fjall::Error| self.failed("turn the journal over", &error);
        let options = || KeyspaceCreateOptions::default().max_memtable_size(NOISE_MEMTABLE_BYTES);
        let noise = self.database.keyspace(NOISE_KEYSPACE, options).map_err(failed)?;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for number in 0..NOISE_VALUES {
            noise.insert(number.to_be_bytes().to_vec(), noise_value(&mut state)).map_err(failed)?;
        }
        for turn in 0..TURNS_MAX {
            noise.insert(u64::MAX.to_be_bytes().to_vec(), vec![turn as u8]).map_err(failed)?;
            flush(&noise)?;
            for keyspace in self.keyspaces() {
                flush(&keyspace)?;
            }
            if self.database.journal_count() <= 1 {
                break;
            }
        }
        let is_turned = self.database.journal_count() <= 1;
        self.database.delete_keyspace(noise).map_err(failed)?;
        Ok(is_turned)
    }
}

/// Nothing that compresses.
fn noise_value(state: &mut u64) -> Vec<u8> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    };
    (0..NOISE_VALUE_BYTES / 8).flat_map(|_| next()).collect()
}

/// Has what is in memory written to a table.
fn flush(keyspace: &Keyspace) -> Result<(), StoreError> {
    keyspace.rotate_memtable().map_err(|error| failed("flush index store", &error))?;
    let began = Instant::now();
    while keyspace.tree.sealed_memtable_count() > 0 {
        if began.elapsed() > FLUSH_TIME_MAX {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the index store takes too long to write"));
        }
        std::thread::sleep(FLUSH_POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IndexStoreConfig;
    use bytes::Bytes;
    use cairn_archive::{Incarnation, Offset, Partition, index_rows::FACTS};
    use cairn_store_api::{CkRange, Commit, Generation, Mutation, Table};
    use std::{fs, path::Path};

    const TABLE: Table = Table { id: FACTS.id, name: FACTS.name };

    fn has(directory: &Path, text: &[u8]) -> bool {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
            true => has(&path, text),
            false => fs::read(&path).unwrap().windows(text.len()).any(|window| window == text),
        })
    }

    fn row(ck: u8, value: &'static [u8]) -> Mutation {
        let (pk, ck) = (Bytes::from_static(b"study"), Bytes::copy_from_slice(&[ck]));
        Mutation::Put { table: TABLE, pk, ck, value: Bytes::from_static(value) }
    }

    fn commit(engine: &Engine, from: u64, mutations: Vec<Mutation>, purge: bool) {
        let (incarnation, partition, note) = (Incarnation(1), Partition(0), Bytes::new());
        let (from, to) = (Offset(from), Offset(from + 1));
        let commit = Commit { incarnation, partition, from, to, note, mutations, purge };
        engine.commit(Generation(1), &commit).unwrap();
    }

    #[test]
    fn what_was_removed_is_in_no_file_after_a_purge_which_a_restart_does_not_forget() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Engine::open(dir.path(), &IndexStoreConfig::default()).unwrap();
        {
            let engine = open();
            commit(&engine, 0, vec![row(1, b"PATIENT^ONE"), row(2, b"PATIENT^TWO")], false);
            commit(&engine, 1, vec![row(1, b"nobody")], false);
            engine.sync().unwrap();
            assert!(has(dir.path(), b"PATIENT^ONE"));
            assert!(!engine.is_purge_due().unwrap());
            commit(&engine, 2, vec![row(3, b"more")], true);
            engine.sync().unwrap();
        }
        let engine = open();
        assert!(engine.is_purge_due().unwrap());
        engine.purge().unwrap();
        assert!(!engine.is_purge_due().unwrap());
        assert!(!has(dir.path(), b"PATIENT^ONE"));
        let page = engine.scan(Generation(1), TABLE, b"study", &CkRange::default(), false, 9).unwrap();
        let values: Vec<_> = page.rows.iter().map(|row| &row.value[..]).collect();
        assert_eq!(values, [&b"nobody"[..], b"PATIENT^TWO", b"more"]);
        drop(engine);
        assert_eq!(open().offsets(Generation(1)).len(), 1);
    }
}
