//! Verified hashes of objects read lately, in bounded memory.

use blake3::hazmat::ChainingValue;
use cairn_archive::{Digest, ObjectKey};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Memory that an entry takes beside its values.
const OVERHEAD: usize = 256;

/// The object's own values, or those of one of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Top,
    Page(u64),
}

/// Values that a digest stands for. Keys are of one content for ever.
pub(crate) type Values = Arc<(Digest, Vec<ChainingValue>)>;
type Names = HashMap<ObjectKey, Vec<(Which, Values)>>;

#[derive(Default)]
struct Halves {
    /// What was used since the halves changed places, and its size.
    young: Names,
    bytes: usize,
    old: Names,
}

/// Forgets what was not used for the longest time, half by half.
pub(crate) struct HashCache {
    halves: Mutex<Halves>,
    bytes_max: usize,
}

impl HashCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { halves: Mutex::default(), bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) }
    }

    pub(crate) fn get(&self, key: ObjectKey, which: Which, digest: &Digest) -> Option<Values> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |names: &Names| names.get(&key)?.iter().find(|(name, _)| *name == which).map(|(_, it)| it.clone());
        let found = find(&halves.young).or_else(|| {
            let found = find(&halves.old)?;
            self.put(&mut halves, key, which, found.clone());
            Some(found)
        });
        found.filter(|values| values.0 == *digest)
    }

    pub(crate) fn insert(&self, key: ObjectKey, which: Which, values: Values) {
        self.put(&mut self.halves.lock().unwrap_or_else(PoisonError::into_inner), key, which, values);
    }

    fn put(&self, halves: &mut Halves, key: ObjectKey, which: Which, values: Values) {
        let bytes = OVERHEAD + values.1.len() * 32;
        if halves.bytes + bytes > self.bytes_max / 2 {
            halves.old = std::mem::take(&mut halves.young);
            halves.bytes = 0;
        }
        if bytes <= self.bytes_max / 2 {
            halves.bytes += bytes;
            let entry = halves.young.entry(key).or_default();
            entry.retain(|(name, _)| *name != which);
            entry.push((which, values));
        }
    }

    pub(crate) fn remove(&self, key: ObjectKey) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.remove(&key);
        halves.old.remove(&key);
    }
}
