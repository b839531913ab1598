//! The file of keys.

use crate::{
    FILE_NAME, KeyCounts,
    master::Master,
    slot::{self, SLOT, Said, Slot},
};
use cairn_archive::{KeyId, sealing::KeyBytes};
use cairn_process::disk::{Disk, DiskFile};
use cairn_store_api::{KeyPage, KeyState, StoreError, StoreErrorKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;

/// Slots that are read at once.
const READ_AT_ONCE: usize = 8192;
/// What the first slot has under the master key.
const HEAD: KeyBytes = KeyBytes(*b"cairn key store: the master key.");

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here(u64),
    Destroyed,
    /// Nowhere, and nobody waits for it.
    Abandoned,
}

pub(crate) struct KeyFile {
    file: Arc<dyn DiskFile>,
    /// To write with; `None`: it is open for reading alone.
    room: Option<Room>,
    master: Master,
    keys: BTreeMap<KeyId, Place>,
    /// Where the next slot goes.
    end: u64,
    /// Slots that can't be read.
    damaged: BTreeSet<u64>,
    /// Slots that are to be overwritten, because what they had is destroyed or was never whole.
    stale: BTreeSet<u64>,
    /// A sync failed: what is on the disk is not known until the next opening.
    is_broken: bool,
}

/// What a file that is written to needs.
pub(crate) struct Room {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) reserve_bytes: u64,
    /// Nobody else writes to it meanwhile.
    pub(crate) _lock: Box<dyn Send + Sync>,
}

fn io_error(error: &io::Error) -> StoreError {
    StoreError::io("write key store", error)
}

fn at(slot: u64) -> u64 {
    slot * SLOT as u64
}

fn corrupt(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, message)
}

impl KeyFile {
    /// Makes an empty one where there is none.
    pub(crate) fn create(disk: &dyn Disk, directory: &Path, master: &KeyBytes) -> Result<(), StoreError> {
        let (path, new) = (directory.join(FILE_NAME), directory.join("keys.new"));
        match disk.open_to_read(&path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open key store", &error)),
        }
        let id = KeyId(Uuid::now_v7());
        let head = Slot { id, batch: 0, said: Said::Head(Master::new(master)?.wrap(id, &HEAD)?) };
        let written = || {
            match disk.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = disk.create_new(&new)?;
            file.write_all_at(&head.encode(), 0)?;
            file.sync_data()?;
            disk.rename(&new, &path)?;
            disk.sync_dir(directory)
        };
        written().map_err(|error| io_error(&error))
    }

    /// Reads one; what can be told from it is known then, and nothing is changed.
    pub(crate) fn read(disk: &dyn Disk, path: &Path, master: &KeyBytes) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io("read key store", &error);
        let file = disk.open_to_read(path).map_err(failed)?;
        let slots = file.len().map_err(failed)? / SLOT as u64;
        let mut read = Self {
            file,
            room: None,
            master: Master::new(master)?,
            keys: BTreeMap::new(),
            end: 0,
            damaged: BTreeSet::new(),
            stale: BTreeSet::new(),
            is_broken: false,
        };
        let mut last_batch = 0;
        let mut buffer = vec![0; SLOT * READ_AT_ONCE];
        for from in (0..slots).step_by(READ_AT_ONCE) {
            let bytes = (slots - from).min(READ_AT_ONCE as u64) as usize * SLOT;
            let chunk = buffer.get_mut(..bytes).unwrap_or_default();
            read.file.read_exact_at(chunk, at(from)).map_err(failed)?;
            for (number, bytes) in (from..).zip(chunk.as_chunks::<SLOT>().0) {
                match Slot::decode(bytes) {
                    Some(slot) => {
                        last_batch = slot.batch;
                        read.end = number + 1;
                        read.include(number, slot)?;
                    }
                    None if number == 0 => return Err(corrupt("the beginning of the key store is damaged")),
                    None => drop(read.damaged.insert(number)),
                }
            }
        }
        if read.end == 0 {
            return Err(corrupt("the key store is empty"));
        }
        // What was written last and is not whole was made durable for nobody.
        let unfinished: Vec<u64> = read.damaged.range(last_batch..).copied().collect();
        read.stale.extend(unfinished);
        let Self { damaged, stale, .. } = &mut read;
        damaged.retain(|slot| !stale.contains(slot));
        Ok(read)
    }

    fn include(&mut self, number: u64, Slot { id, said, .. }: Slot) -> Result<(), StoreError> {
        match said {
            Said::Head(wrapped) if number == 0 => match self.master.unwrap(id, &wrapped) {
                Some(head) if head == HEAD => {}
                _ => {
                    let message = "the key store is under another master key than the one that is configured";
                    return Err(StoreError::new(StoreErrorKind::Invalid, message));
                }
            },
            Said::Head(_) => return Err(corrupt("the key store has two beginnings")),
            Said::Key(_) => {
                let place = self.keys.entry(id).or_insert(Place::Abandoned);
                if *place == Place::Abandoned {
                    *place = Place::Here(number);
                }
            }
            Said::Abandoned => drop(self.keys.entry(id).or_insert(Place::Abandoned)),
            Said::Destroyed(slot) => {
                if let Some(Place::Here(slot)) = self.keys.insert(id, Place::Destroyed) {
                    self.stale.insert(slot);
                }
                // Overwriting it was cut off.
                self.stale.extend(slot.filter(|slot| self.damaged.contains(slot)));
            }
            Said::Nothing => {}
        }
        Ok(())
    }

    /// Makes it one to be written to: what an earlier process left half done is done first.
    pub(crate) fn settle(&mut self, room: Room) -> Result<(), StoreError> {
        let path = room.directory.join(FILE_NAME);
        self.file = room.disk.open(&path).map_err(|error| StoreError::io("open key store", &error))?;
        self.room = Some(room);
        let settled = || {
            self.file.set_len(at(self.end))?;
            self.file.sync_data()
        };
        settled().map_err(|error| io_error(&error))?;
        let end = self.end;
        self.stale.retain(|slot| *slot < end);
        self.overwrite_stale()?;
        if !self.damaged.is_empty() {
            tracing::error!(slots = self.damaged.len(), "keys in the key store can't be read: its backup is needed");
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> KeyCounts {
        let mut counts = KeyCounts { present: 0, destroyed: 0, abandoned: 0, damaged: self.damaged.len() as u64 };
        for place in self.keys.values() {
            match place {
                Place::Here(_) => counts.present += 1,
                Place::Destroyed => counts.destroyed += 1,
                Place::Abandoned => counts.abandoned += 1,
            }
        }
        counts
    }

    pub(crate) fn give_damaged_up(&mut self) -> Result<(), StoreError> {
        self.stale.append(&mut self.damaged);
        self.overwrite_stale()
    }

    pub(crate) fn list(&self, after: Bound<KeyId>, max: usize) -> KeyPage {
        let known = self.keys.range((after, Bound::Unbounded));
        let mut ids = known.filter(|(_, place)| **place != Place::Abandoned);
        let keys = ids.by_ref().take(max).map(|(id, place)| (*id, *place == Place::Destroyed)).collect();
        KeyPage { keys, more: ids.next().is_some() }
    }

    pub(crate) fn get(&self, id: KeyId) -> Result<KeyState, StoreError> {
        let slot = match self.keys.get(&id) {
            Some(Place::Here(slot)) => *slot,
            Some(Place::Destroyed) => return Ok(KeyState::Destroyed),
            Some(Place::Abandoned) => return Ok(KeyState::Abandoned),
            None if self.damaged.is_empty() => return Ok(KeyState::Absent),
            // It may be there.
            None => return Err(corrupt("keys in the key store can't be read, and this may be one of them")),
        };
        let mut bytes: slot::Bytes = [0; SLOT];
        self.file.read_exact_at(&mut bytes, at(slot)).map_err(|error| StoreError::io("read key store", &error))?;
        let key = match Slot::decode(&bytes) {
            Some(Slot { id: found, said: Said::Key(wrapped), .. }) if found == id => self.master.unwrap(id, &wrapped),
            _ => None,
        };
        key.map(KeyState::Key).ok_or_else(|| corrupt("a key in the key store can't be read"))
    }

    pub(crate) fn add(&mut self, keys: &[(KeyId, KeyBytes)]) -> Result<(), StoreError> {
        self.check_room()?;
        let (mut said, mut fresh) = (Vec::new(), BTreeMap::new());
        for (id, key) in keys {
            let known = match fresh.get(id) {
                Some(key) => KeyState::Key(KeyBytes::clone(key)),
                None if self.keys.contains_key(id) => self.get(*id)?,
                None => KeyState::Absent,
            };
            match known {
                KeyState::Destroyed => {}
                KeyState::Key(known) if known == *key => {}
                KeyState::Key(_) => {
                    return Err(StoreError::new(StoreErrorKind::Conflict, format!("another key is here as {id}")));
                }
                KeyState::Absent | KeyState::Abandoned => {
                    said.push((*id, Said::Key(self.master.wrap(*id, key)?)));
                    fresh.insert(*id, key.clone());
                }
            }
        }
        self.write(said)
    }

    pub(crate) fn destroy(&mut self, ids: &[KeyId]) -> Result<(), StoreError> {
        let mut said = Vec::new();
        for id in ids.iter().collect::<BTreeSet<_>>() {
            match self.keys.get(id) {
                Some(Place::Destroyed) => {}
                Some(Place::Here(slot)) => said.push((*id, Said::Destroyed(Some(*slot)))),
                Some(Place::Abandoned) | None => said.push((*id, Said::Destroyed(None))),
            }
        }
        self.write(said)?;
        self.overwrite_stale()
    }

    pub(crate) fn abandon(&mut self, ids: &[KeyId]) -> Result<(), StoreError> {
        let mut said = Vec::new();
        for id in ids.iter().collect::<BTreeSet<_>>() {
            let is = match self.get(*id)? {
                KeyState::Absent => {
                    said.push((*id, Said::Abandoned));
                    continue;
                }
                KeyState::Abandoned => continue,
                KeyState::Key(_) => "here",
                KeyState::Destroyed => "destroyed",
            };
            return Err(StoreError::new(StoreErrorKind::Conflict, format!("key {id} is {is}: nobody waits for it")));
        }
        self.write(said)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let Some(Room { disk, directory, reserve_bytes, .. }) = &self.room else { return Err(read_only()) };
        let free = disk.available(directory).map_err(|error| StoreError::io("ask for free room", &error))?;
        match free < *reserve_bytes {
            true => Err(StoreError::new(StoreErrorKind::Exhausted, "no room left on the key store's disk")),
            false => Ok(()),
        }
    }

    /// Writes slots at the end, durable on return, and known.
    fn write(&mut self, said: Vec<(KeyId, Said)>) -> Result<(), StoreError> {
        if self.room.is_none() {
            return Err(read_only());
        }
        if self.is_broken {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "a sync of the key store has failed: start it anew",
            ));
        }
        if said.is_empty() {
            return Ok(());
        }
        let batch = self.end;
        let slots: Vec<Slot> = said.into_iter().map(|(id, said)| Slot { id, batch, said }).collect();
        let bytes = slots.iter().flat_map(Slot::encode).collect::<Vec<u8>>();
        self.file.write_all_at(&bytes, at(batch)).map_err(|error| io_error(&error))?;
        self.sync()?;
        self.end += slots.len() as u64;
        for (number, slot) in (batch..).zip(slots) {
            self.include(number, slot)?;
        }
        Ok(())
    }

    /// Overwrites what is destroyed, or was never whole.
    fn overwrite_stale(&mut self) -> Result<(), StoreError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        for number in &self.stale {
            let nothing = Slot { id: KeyId(Uuid::nil()), batch: *number, said: Said::Nothing };
            self.file.write_all_at(&nothing.encode(), at(*number)).map_err(|error| io_error(&error))?;
        }
        self.sync()?;
        self.stale.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| {
            self.is_broken = true;
            io_error(&error)
        })
    }
}

fn read_only() -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, "the key store is open for reading alone")
}

#[cfg(test)]
mod tests;
