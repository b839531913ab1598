//! Key -> where the object is. Changes since the last checkpoint are in memory, the rest in sorted segments on the disk;
//! what is newer hides what is older.

use crate::layout::{Entry, Record};
use crate::lock;
use crate::segment::{Cursor, KeyHash, Segment};
use cairn_archive::ObjectKey;
use cairn_store_api::{ObjectPage, StoreError};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::Bound,
    sync::{Arc, Mutex},
};

pub(crate) type Table = BTreeMap<ObjectKey, Record>;

#[derive(Default)]
pub(crate) struct Index(Mutex<State>);

#[derive(Default)]
struct State {
    active: Table,
    /// Being written to a segment.
    frozen: Option<Arc<Table>>,
    /// Oldest first.
    segments: Arc<Vec<Arc<Segment>>>,
}

impl Index {
    /// The object of this key, if there is one.
    pub(crate) fn get(&self, key: ObjectKey) -> Result<Option<Arc<Entry>>, StoreError> {
        let segments = {
            let state = lock(&self.0);
            let frozen = || state.frozen.as_ref().and_then(|frozen| frozen.get(&key));
            if let Some(record) = state.active.get(&key).or_else(frozen) {
                return Ok(entry(record.clone()));
            }
            state.segments.clone()
        };
        let hash = KeyHash::of(&key);
        for segment in segments.iter().rev() {
            if let Some(record) = segment.get(&key, hash)? {
                return Ok(entry(record));
            }
        }
        Ok(None)
    }

    /// Whether asking for a key may have to read the disk.
    pub(crate) fn may_read(&self, key: ObjectKey) -> bool {
        let hash = KeyHash::of(&key);
        self.segments().iter().any(|segment| segment.may_have(hash))
    }

    /// Takes a change.
    pub(crate) fn apply(&self, record: Record) {
        if let Some(key) = record.key() {
            lock(&self.0).active.insert(key, record);
        }
    }

    /// Number of changes in memory that no checkpoint has taken.
    pub(crate) fn changes(&self) -> usize {
        lock(&self.0).active.len()
    }

    /// Sets the changes aside for a checkpoint, unless the one before is not done.
    pub(crate) fn freeze(&self) -> Option<Arc<Table>> {
        let mut state = lock(&self.0);
        if state.frozen.is_some() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut state.active));
        state.frozen = Some(frozen.clone());
        Some(frozen)
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        lock(&self.0).segments.clone()
    }

    /// The segments are these now; those set aside are among them when `thawed`.
    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>, thawed: bool) {
        let mut state = lock(&self.0);
        state.segments = Arc::new(segments);
        if thawed {
            state.frozen = None;
        }
    }

    /// At most `max` objects after a key; at least one if there is one.
    pub(crate) fn list(&self, mut after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        loop {
            let (page, end) = self.list_part(after, max.max(1))?;
            if !page.objects.is_empty() || !page.more {
                return Ok(page);
            }
            after = end;
        }
    }

    /// A page, and the key up to which it says all.
    fn list_part(&self, after: Option<ObjectKey>, max: usize) -> Result<(ObjectPage, Option<ObjectKey>), StoreError> {
        let mut merge = {
            let state = lock(&self.0);
            let mut merge = Merge::of_segments(&state.segments, after);
            // Copied under the lock, and no further than this page can reach.
            let mut end = None;
            for table in state.frozen.as_deref().into_iter().chain([&state.active]) {
                let (rows, cut) = head(table, after, max);
                end = [end, cut].into_iter().flatten().min();
                merge.add(Source::Memory(rows.into_iter().peekable()));
            }
            merge.end = end;
            merge
        };
        let mut page = ObjectPage::default();
        while page.objects.len() < max {
            match merge.next()? {
                Some(record) => page.objects.extend(entry(record).map(|entry| entry.info)),
                None => {
                    page.more = merge.end.is_some();
                    return Ok((page, merge.end));
                }
            }
        }
        // Whether a live one follows is found out only if something does.
        while let Some(record) = merge.next()? {
            if entry(record).is_some() {
                page.more = true;
                break;
            }
        }
        page.more |= merge.end.is_some();
        Ok((page, merge.end))
    }
}

fn entry(record: Record) -> Option<Arc<Entry>> {
    match record {
        Record::Put(entry) => Some(entry),
        Record::Delete(..) | Record::Settled(_) => None,
    }
}

/// Rows after a key up to `max` objects; and the last row's key when there are more.
fn head(table: &Table, after: Option<ObjectKey>, max: usize) -> (Vec<Record>, Option<ObjectKey>) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (mut rows, mut objects) = (Vec::new(), 0);
    for (key, record) in table.range((from, Bound::Unbounded)) {
        objects += usize::from(matches!(record, Record::Put(_)));
        rows.push(record.clone());
        // One more than asked for, so that a page is not cut short by it.
        if objects > max {
            return (rows, Some(*key));
        }
    }
    (rows, None)
}

enum Source {
    Memory(std::iter::Peekable<std::vec::IntoIter<Record>>),
    Segment(Cursor),
}

impl Source {
    fn bound(&mut self) -> Option<ObjectKey> {
        match self {
            Self::Memory(rows) => rows.peek().and_then(Record::key),
            Self::Segment(cursor) => cursor.bound(),
        }
    }
}

/// Records of several sources in key order; of one key the newest.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// The least key a source may have next; of equal ones the newest source first.
    heap: BinaryHeap<Reverse<(ObjectKey, Reverse<usize>)>>,
    /// Nothing is given after this key.
    end: Option<ObjectKey>,
    last: Option<ObjectKey>,
}

impl Merge {
    /// Of segments, oldest first.
    pub(crate) fn of_segments(segments: &[Arc<Segment>], after: Option<ObjectKey>) -> Self {
        let mut merge = Self { sources: Vec::new(), heap: BinaryHeap::new(), end: None, last: None };
        segments.iter().for_each(|segment| merge.add(Source::Segment(segment.cursor(after))));
        merge
    }

    /// Adds a newer source.
    fn add(&mut self, mut source: Source) {
        if let Some(bound) = source.bound() {
            self.heap.push(Reverse((bound, Reverse(self.sources.len()))));
        }
        self.sources.push(source);
    }

    pub(crate) fn next(&mut self) -> Result<Option<Record>, StoreError> {
        while let Some(Reverse((bound, Reverse(index)))) = self.heap.pop() {
            if self.end.is_some_and(|end| bound > end) {
                return Ok(None);
            }
            let Some(source) = self.sources.get_mut(index) else { continue };
            let record = match source {
                Source::Memory(rows) => rows.next(),
                Source::Segment(cursor) if cursor.is_settled() => cursor.next(),
                Source::Segment(cursor) => {
                    cursor.settle()?;
                    None
                }
            };
            if let Some(bound) = source.bound() {
                self.heap.push(Reverse((bound, Reverse(index))));
            }
            let key = record.as_ref().and_then(Record::key);
            if let Some(record) = record
                && key > self.last
            {
                self.last = key;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}
