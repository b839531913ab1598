//! Trials of [`IndexStore`].

mod commits;
mod rows;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Mutation, Page, StoreError, Table};
use libtest_mimic::Trial;
use std::{pin::Pin, sync::Arc};

/// A place in which one store lives, and what can be done to it from outside.
#[async_trait]
pub trait IndexStoreBackend: Send + Sync {
    /// Opens the store; the first opening creates it.
    async fn open(&self) -> Result<Arc<dyn IndexStore>, StoreError>;

    /// What the backend can be made to suffer.
    fn faults(&self) -> Faults;

    /// The machine loses power while this store is open, and has it again; a part of what was not synced is lost. The
    /// store is of no use any more.
    async fn crash(&self, store: Arc<dyn IndexStore>);
}

/// What a backend can be made to suffer. Trials that need more are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// [`IndexStoreBackend::crash`].
    pub crash: bool,
    /// Only one process may have it open (IS-11).
    pub exclusive: bool,
}

type Backend = Box<dyn IndexStoreBackend>;
type Run = fn(Backend) -> Pin<Box<dyn Future<Output = ()>>>;
type Needs = fn(Faults) -> bool;

macro_rules! table {
    ($($name:literal, $needs:expr, $function:path;)*) => {
        [$(($name, $needs as Needs, (|backend| Box::pin($function(backend))) as Run)),*]
    };
}

/// The trials of the port, as `index_store::{name}::{clause}_{what}`.
pub fn trials(name: &str, backend: impl Fn() -> Backend + Clone + Send + 'static) -> Vec<Trial> {
    let any: Needs = |_| true;
    let table = table! {
        "IS-01_the_last_write_of_a_row_counts", any, rows::the_last_write_of_a_row_counts;
        "IS-01_many_rows_come_in_the_order_asked_for", any, rows::many_rows_come_in_the_order_asked_for;
        "IS-02_rows_come_in_byte_order_both_ways", any, rows::rows_come_in_byte_order_both_ways;
        "IS-02_partition_keys_do_not_mix", any, rows::partition_keys_do_not_mix;
        "IS-03_resumed_scans_give_each_row_once", any, rows::resumed_scans_give_each_row_once;
        "IS-04_generations_do_not_see_each_other", any, commits::generations_do_not_see_each_other;
        "IS-05_committed_is_seen_rows_no_later_than_offset", any, commits::committed_is_seen;
        "IS-06_a_commit_out_of_place_changes_no_answer", any, commits::a_commit_out_of_place_changes_no_answer;
        "IS-06_of_racing_commits_one_counts", any, commits::of_racing_commits_one_counts;
        "IS-06_a_new_incarnation_begins_at_0", any, commits::a_new_incarnation_begins_at_0;
        "IS-07_after_a_crash_offset_and_rows_agree", |f| f.crash, commits::after_a_crash_offset_and_rows_agree;
        "IS-08_of_racing_pointer_changes_one_wins", any, commits::of_racing_pointer_changes_one_wins;
        "IS-08_the_pointer_is_durable", |f| f.crash, commits::the_pointer_is_durable;
        "IS-09_a_dropped_generation_is_empty", any, commits::a_dropped_generation_is_empty;
        "IS-10_reopened_it_has_what_it_had", any, commits::reopened_it_has_what_it_had;
        "IS-10_any_history_reads_like_a_map", any, rows::any_history_reads_like_a_map;
        "IS-11_a_second_opening_is_a_conflict", |f| f.exclusive, commits::a_second_opening_is_a_conflict;
        "IS-12_over_long_rows_are_invalid", any, rows::over_long_rows_are_invalid;
        "IS-13_where_rows_are_exact_a_page_shows_whole_commits", any, commits::a_page_shows_whole_commits;
        "IS-14_a_purge_takes_nothing_that_is_there", any, commits::a_purge_takes_nothing_that_is_there;
        "closed_it_refuses", any, commits::closed_it_refuses;
    };
    let trial = |(clause, needs, run): (&str, Needs, Run)| {
        let make = backend.clone();
        let ignored = !needs(make().faults());
        crate::trial(format!("index_store::{name}::{clause}"), move || run(make())).with_ignored_flag(ignored)
    };
    table.into_iter().map(trial).collect()
}

const G1: Generation = Generation(1);
const STUDIES: Table = Table { id: 1, name: "studies" };
const NAMES: Table = Table { id: 2, name: "names" };
const LIFE: Incarnation = Incarnation(1);

fn put(table: Table, pk: impl AsRef<[u8]>, ck: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Mutation {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    Mutation::Put { table, pk: bytes(pk.as_ref()), ck: bytes(ck.as_ref()), value: bytes(value.as_ref()) }
}

fn delete(table: Table, pk: impl AsRef<[u8]>, ck: impl AsRef<[u8]>) -> Mutation {
    Mutation::Delete { table, pk: Bytes::copy_from_slice(pk.as_ref()), ck: Bytes::copy_from_slice(ck.as_ref()) }
}

/// A commit of partition 0 in the first life.
fn commit(from: u64, to: u64, mutations: Vec<Mutation>) -> Commit {
    let note = Bytes::from(format!("note {to}"));
    Commit {
        incarnation: LIFE,
        partition: Partition(0),
        from: Offset(from),
        to: Offset(to),
        note,
        mutations,
        purge: false,
    }
}

async fn get(store: &dyn IndexStore, pk: impl AsRef<[u8]>, ck: impl AsRef<[u8]>) -> Option<Bytes> {
    store.get(G1, STUDIES, pk.as_ref(), ck.as_ref()).await.unwrap()
}

/// Clustering keys of a whole partition key.
async fn keys(store: &dyn IndexStore, generation: Generation, table: Table, pk: &[u8], reverse: bool) -> Vec<Bytes> {
    let page = store.scan(generation, table, pk, &CkRange::default(), reverse, usize::MAX).await.unwrap();
    assert!(!page.more);
    keys_of(page)
}

fn keys_of(page: Page) -> Vec<Bytes> {
    page.rows.into_iter().map(|row| row.ck).collect()
}
