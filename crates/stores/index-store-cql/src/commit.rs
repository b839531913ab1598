//! Rows of a commit, in batches of one partition.

use crate::{
    config::{CqlIndexConfig, KEY_BYTES_MAX, NOTE_BYTES_MAX, VALUE_BYTES_MAX},
    error,
    generations::Life,
    metrics,
    placement::{is_of_study, neighbours, within},
    session::Cql,
};
use bytes::Bytes;
use cairn_store_api::{Commit, Mutation, StoreError, StoreErrorKind, Table};
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::statement::batch::{Batch, BatchType};
use std::ops::Range;
use tokio::time::Instant;

/// Refuses a commit with something over its bound.
pub(crate) fn check(commit: &Commit) -> Result<(), StoreError> {
    let over = |what, length, most| {
        let message = format!("index row: {what} of {length} bytes is over {most}");
        Err(StoreError::new(StoreErrorKind::Invalid, message))
    };
    if commit.note.len() > NOTE_BYTES_MAX {
        return over("note", commit.note.len(), NOTE_BYTES_MAX);
    }
    for mutation in &commit.mutations {
        let (pk, ck, length) = match mutation {
            Mutation::Put { pk, ck, value, .. } => (pk, ck, value.len()),
            Mutation::Delete { pk, ck, .. } => (pk, ck, 0),
        };
        if let Some(key) = [pk, ck].into_iter().find(|key| key.len() > KEY_BYTES_MAX) {
            return over("key", key.len(), KEY_BYTES_MAX);
        }
        if length > VALUE_BYTES_MAX {
            return over("value", length, VALUE_BYTES_MAX);
        }
    }
    Ok(())
}

/// A change of one row, and where the row lies.
struct Change<'a> {
    neighbours: Bytes,
    table: Table,
    pk: Bytes,
    ck: &'a Bytes,
    value: Option<&'a Bytes>,
}

impl<'a> Change<'a> {
    fn of(mutation: &'a Mutation) -> Self {
        let (table, pk, ck, value) = match mutation {
            Mutation::Put { table, pk, ck, value } => (*table, pk, ck, Some(value)),
            Mutation::Delete { table, pk, ck } => (*table, pk, ck, None),
        };
        Self { neighbours: neighbours(table, pk), table, pk: within(table, pk), ck, value }
    }

    fn bytes(&self) -> usize {
        self.neighbours.len() + self.pk.len() + self.ck.len() + self.value.map_or(0, Bytes::len) + 16
    }

    /// Rows that lead to a study first, those of studies next, removals last.
    fn turn(&self) -> u8 {
        match self.value {
            None => 2,
            Some(_) => u8::from(is_of_study(self.table)),
        }
    }
}

fn kind(table: Table) -> i16 {
    i16::from(table.id)
}

/// Writes the rows of a commit. Batches of one partition keep the commit's order.
pub(crate) async fn write(
    cql: &Cql,
    life: &Life,
    commit: &Commit,
    timestamp: i64,
    deadline: Instant,
) -> Result<(), StoreError> {
    let mut changes: Vec<Change<'_>> = commit.mutations.iter().map(Change::of).collect();
    // Stable: what is of one partition keeps its order.
    changes.sort_by(|a, b| (a.turn(), &a.neighbours).cmp(&(b.turn(), &b.neighbours)));
    let mut batches = 0;
    for turn in runs(&changes, 0..changes.len(), |a, b| a.turn() == b.turn()) {
        let partitions = runs(&changes, turn, |a, b| a.neighbours == b.neighbours);
        let changes = &changes;
        let writes = partitions.into_iter().map(|partition| async move {
            let cuts = cut(&cql.config, changes, partition);
            let count = cuts.len();
            for batch in cuts {
                write_batch(cql, life, changes.get(batch).unwrap_or_default(), timestamp, deadline).await?;
            }
            Ok::<_, StoreError>(count)
        });
        let in_flight = usize::from(cql.config.batches_in_flight_max);
        let counts = stream::iter(writes).buffer_unordered(in_flight);
        batches += counts.try_fold(0, |sum, count| std::future::ready(Ok(sum + count))).await?;
    }
    metrics::written(batches, changes.len());
    Ok(())
}

/// Ranges of changes that are alike.
fn runs(
    changes: &[Change<'_>],
    within: Range<usize>,
    alike: impl Fn(&Change<'_>, &Change<'_>) -> bool,
) -> Vec<Range<usize>> {
    let mut start = within.start;
    let of = changes.get(within).unwrap_or_default();
    let lengths = of.chunk_by(alike).map(<[_]>::len);
    let range = |length| {
        start += length;
        start - length..start
    };
    lengths.map(range).collect()
}

/// Cuts changes of one partition into batches within the bounds.
fn cut(config: &CqlIndexConfig, changes: &[Change<'_>], partition: Range<usize>) -> Vec<Range<usize>> {
    let (rows_max, bytes_max) = (usize::from(config.batch_rows_max), config.batch_bytes_max as usize);
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, change) in partition.clone().zip(changes.get(partition).unwrap_or_default()) {
        let fits = |last: &Range<usize>| last.len() < rows_max && bytes + change.bytes() <= bytes_max;
        match cuts.last_mut() {
            Some(last) if fits(last) => last.end = at + 1,
            _ => {
                bytes = 0;
                cuts.push(at..at + 1);
            }
        }
        bytes += change.bytes();
    }
    cuts
}

async fn write_batch(
    cql: &Cql,
    life: &Life,
    changes: &[Change<'_>],
    timestamp: i64,
    deadline: Instant,
) -> Result<(), StoreError> {
    let Some(first) = changes.first() else { return Ok(()) };
    let is_put = first.value.is_some();
    let put = |change: &Change<'_>| {
        let value = change.value.cloned().unwrap_or_default();
        (change.neighbours.clone(), kind(change.table), change.pk.clone(), change.ck.clone(), value, timestamp)
    };
    let removed = |change: &Change<'_>| {
        (timestamp, change.neighbours.clone(), kind(change.table), change.pk.clone(), change.ck.clone())
    };
    match (changes.len(), is_put) {
        (1, true) => cql.execute("put", deadline, &life.insert, put(first)).await.map(drop),
        (1, false) => cql.execute("delete", deadline, &life.delete, removed(first)).await.map(drop),
        (rows, true) => {
            let batch = batch(&life.insert, rows);
            cql.batch(deadline, &batch, &changes.iter().map(put).collect::<Vec<_>>()).await
        }
        (rows, false) => {
            let batch = batch(&life.delete, rows);
            cql.batch(deadline, &batch, &changes.iter().map(removed).collect::<Vec<_>>()).await
        }
    }
}

fn batch(statement: &scylla::statement::prepared::PreparedStatement, rows: usize) -> Batch {
    let statements = vec![statement.clone().into(); rows];
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    batch.set_is_idempotent(true);
    batch
}

/// A generation that was dropped under a commit.
pub(crate) fn dropped() -> StoreError {
    error::new(StoreErrorKind::Conflict, "commit", "the generation was dropped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::index_rows::{POSTINGS, STUDIES};

    fn put(id: u8, name: &'static str, pk: &'static str, length: usize) -> Mutation {
        Mutation::Put { table: Table { id, name }, pk: pk.into(), ck: "ck".into(), value: vec![0; length].into() }
    }

    #[test]
    fn batches_keep_to_their_bounds_and_their_order() {
        let config = CqlIndexConfig { batch_rows_max: 3, batch_bytes_max: 1_000, ..CqlIndexConfig::default() };
        let lengths = [100, 100, 100, 100, 900, 900, 5_000, 1, 1];
        let mutations: Vec<_> = lengths.iter().map(|length| put(STUDIES.id, STUDIES.name, "s", *length)).collect();
        let changes: Vec<_> = mutations.iter().map(Change::of).collect();
        let cuts = cut(&config, &changes, 0..changes.len());
        assert_eq!(cuts, [0..3, 3..4, 4..5, 5..6, 6..7, 7..9]);
        assert!(cut(&config, &[], 0..0).is_empty());
        assert_eq!(runs(&changes, 1..7, |a, b| a.bytes() == b.bytes()), [1..4, 4..6, 6..7]);
    }

    #[test]
    fn what_leads_to_a_study_comes_before_it_and_removals_last() {
        let (posting, study) = (put(POSTINGS.id, POSTINGS.name, "p", 1), put(STUDIES.id, STUDIES.name, "s", 1));
        let table = Table { id: POSTINGS.id, name: POSTINGS.name };
        let removed = Mutation::Delete { table, pk: "p".into(), ck: "old".into() };
        let turns = [&posting, &study, &removed].map(|mutation| Change::of(mutation).turn());
        assert_eq!(turns, [0, 1, 2]);
    }
}
