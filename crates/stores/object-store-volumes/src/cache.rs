//! Verified hashes of objects read lately, in bounded memory.

use crate::layout::Entry;
use crate::lock;
use blake3::hazmat::ChainingValue;
use cairn_archive::ObjectKey;
use cairn_store_api::tree::Hashes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// An object whose hashes are known.
pub(crate) struct Known {
    pub(crate) entry: Arc<Entry>,
    pub(crate) hashes: Hashes,
}

/// Memory that an entry takes beside its hashes.
const OVERHEAD: usize = 256;

#[derive(Clone)]
enum Cached {
    Object(Arc<Known>),
    Page(Arc<Vec<ChainingValue>>),
}

impl Cached {
    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Object(known) => known.hashes.bytes() + known.entry.extents.len() * 24,
                Self::Page(page) => page.len() * 32,
            }
    }
}

/// Pages are beside their object under their number plus one.
type Name = (ObjectKey, u64);

#[derive(Default)]
struct Halves {
    /// What was used since the halves changed places, and its size.
    young: HashMap<Name, Cached>,
    bytes: usize,
    old: HashMap<Name, Cached>,
}

/// Forgets what was not used for the longest time, half by half.
pub(crate) struct HashCache {
    halves: Mutex<Halves>,
    bytes_max: usize,
}

impl HashCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { halves: Mutex::default(), bytes_max }
    }

    pub(crate) fn object(&self, key: ObjectKey) -> Option<Arc<Known>> {
        match self.get((key, 0)) {
            Some(Cached::Object(known)) => Some(known),
            _ => None,
        }
    }

    pub(crate) fn page(&self, key: ObjectKey, page: u64) -> Option<Arc<Vec<ChainingValue>>> {
        match self.get((key, page + 1)) {
            Some(Cached::Page(page)) => Some(page),
            _ => None,
        }
    }

    pub(crate) fn insert_object(&self, known: Arc<Known>) {
        self.insert((known.entry.key(), 0), Cached::Object(known));
    }

    pub(crate) fn insert_page(&self, key: ObjectKey, page: u64, values: Arc<Vec<ChainingValue>>) {
        self.insert((key, page + 1), Cached::Page(values));
    }

    /// Forgets a deleted object. Its pages are of no use without it, and age out.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        let mut halves = lock(&self.halves);
        halves.old.remove(&(*key, 0));
        if let Some(cached) = halves.young.remove(&(*key, 0)) {
            halves.bytes = halves.bytes.saturating_sub(cached.bytes());
        }
    }

    fn get(&self, name: Name) -> Option<Cached> {
        let mut halves = lock(&self.halves);
        if let Some(cached) = halves.young.get(&name) {
            return Some(cached.clone());
        }
        let cached = halves.old.remove(&name)?;
        self.put(&mut halves, name, cached.clone());
        Some(cached)
    }

    fn insert(&self, name: Name, cached: Cached) {
        self.put(&mut lock(&self.halves), name, cached);
    }

    fn put(&self, halves: &mut Halves, name: Name, cached: Cached) {
        let bytes = cached.bytes();
        if halves.bytes + bytes > self.bytes_max / 2 {
            halves.old = std::mem::take(&mut halves.young);
            halves.bytes = 0;
        }
        if bytes <= self.bytes_max / 2 {
            halves.bytes += bytes;
            if let Some(before) = halves.young.insert(name, cached) {
                halves.bytes = halves.bytes.saturating_sub(before.bytes());
            }
        }
    }
}
