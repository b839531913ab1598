use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};

/// A table of the index schema. Ids are written down by the embedded adapter, names by the CQL one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Unique, never reused.
    pub id: u8,
    /// Lower case with underscores.
    pub name: &'static str,
}

/// One filling of the index from the log. A rebuild makes a new one beside the serving one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// One row: `ck` orders it among the rows of its partition key; `value` is opaque to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Clustering key.
    pub ck: Bytes,
    /// Encoded columns.
    pub value: Bytes,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Writes the row, whatever was there.
    Put {
        /// Table.
        table: Table,
        /// Partition key, at most 1 KiB.
        pk: Bytes,
        /// Clustering key, at most 1 KiB.
        ck: Bytes,
        /// Encoded columns, at most 1 MiB.
        value: Bytes,
    },
    /// Removes the row, if there.
    Delete {
        /// Table.
        table: Table,
        /// Partition key.
        pk: Bytes,
        /// Clustering key.
        ck: Bytes,
    },
}

/// What a projector derived from log records `from..to` of one partition.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Life of the log that was read.
    pub incarnation: Incarnation,
    /// Partition of the log that was read.
    pub partition: Partition,
    /// The offset committed before, from which this continues.
    pub from: Offset,
    /// First offset not folded yet; stored with the rows.
    pub to: Offset,
    /// Opaque note stored beside the offset: the `ce_id` of the last event folded.
    pub note: Bytes,
    /// Row changes, in order: derived rows first, state rows next. One row is changed at most once.
    pub mutations: Vec<Mutation>,
    /// Whether what was overwritten and removed up to now is to leave the store's files as well (IS-14).
    pub purge: bool,
}

/// Which rows of a partition key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CkRange {
    /// First clustering key (inclusive); `None`: from the first.
    pub from: Option<Bytes>,
    /// Clustering key before which to end (exclusive); `None`: to the last.
    pub to: Option<Bytes>,
}

/// Rows in clustering order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// At most as many as asked for.
    pub rows: Vec<Row>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Ordered rows by (table, partition key), as wide-column stores have them.
///
/// * IS-01 A row read is the one last put under its table, partition key and clustering key; deleted rows are absent.
/// * IS-02 Rows of a partition key come in the byte order of their clustering keys, ascending or descending; keys
///   that are prefixes of each other, empty keys and keys with zero bytes included.
/// * IS-03 A scan gives each row of the range once; resumed after the last row's key it gives the next one.
/// * IS-04 Generations do not see each other's rows or offsets.
/// * IS-05 After `commit` returns, reads by the same process see its rows and offset; rows are seen no later than the offset.
/// * IS-06 A commit whose `from` is not the committed offset, or whose incarnation is lower than the committed one,
///   changes no answer: it is `Conflict`, or its older writes lose.
/// * IS-07 After a crash of process or machine the offset read is one that was committed, and every row up to it is there:
///   replaying from that offset gives the same rows.
/// * IS-08 The pointer changes only by `compare_and_set_pointer` with its present value; of racing callers one wins.
/// * IS-09 A dropped generation is empty, and its room is freed sooner or later; others are not touched.
/// * IS-10 Reopened, the store has what it had.
/// * IS-11 While an embedded store is open no second process can open it: `Conflict`.
/// * IS-12 Rows and keys over their bounds are `Invalid`, and nothing of that commit is applied.
/// * IS-13 Where `is_exact`, a page shows each commit wholly or not at all, and a commit that failed shows nothing ever:
///   what one row says of another can be taken at its word.
/// * IS-14 What was overwritten or removed up to a commit with `purge`, that commit included, leaves the store's files soon, also
///   when a crash comes between; where an engine has a time of its own for that, after that time.
#[async_trait]
pub trait IndexStore: Send + Sync {
    /// Whether what rows say of each other needs no look at the other row (IS-13). Where commits can be torn, or come late
    /// from a writer that was replaced, it does.
    fn is_exact(&self) -> bool {
        false
    }

    /// One row.
    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError>;

    /// Many rows in one call, in the order asked for.
    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// At most `max` rows of a partition key in clustering order, or the reverse.
    async fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError>;

    /// Applies a projector's changes and advances its offset.
    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError>;

    /// Committed offset, and the note beside it, of each partition of the log in the newest incarnation committed.
    async fn offsets(&self, generation: Generation)
    -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError>;

    /// Committed offset, and the note beside it, of one partition of the log.
    async fn offset(
        &self,
        generation: Generation,
        partition: Partition,
    ) -> Result<Option<(Incarnation, Offset, Bytes)>, StoreError> {
        let all = self.offsets(generation).await?;
        let own = all.into_iter().find(|(_, of, ..)| *of == partition);
        Ok(own.map(|(incarnation, _, offset, note)| (incarnation, offset, note)))
    }

    /// The pointer (which generation serves, and what else the index keeps there); empty at first.
    async fn pointer(&self) -> Result<Bytes, StoreError>;

    /// Sets the pointer if it is still `expected`; tells whether it did. Durable on return.
    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError>;

    /// Removes every row and offset of a generation.
    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError>;

    /// Makes everything committed durable (also happens by itself within the adapter's configured time), and closes files when `close`.
    async fn sync(&self, close: bool) -> Result<(), StoreError>;
}
