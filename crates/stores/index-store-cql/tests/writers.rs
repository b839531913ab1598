//! What a real cluster makes of late writers, commits that are cut off, removals and schemas.

mod support;

use bytes::Bytes;
use cairn_archive::{
    Incarnation, Offset, Partition,
    index_rows::{POSTINGS, STUDIES, TableDef},
};
use cairn_index_store_cql::{CqlIndexConfig, CqlIndexStore, SCHEMA_VERSION};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Mutation, StoreErrorKind, Table};
use std::time::{Duration, Instant};
use support::Keyspace;

const G1: Generation = Generation(1);

const fn table(of: TableDef) -> Table {
    Table { id: of.id, name: of.name }
}

fn put(ck: &str, value: &str) -> Mutation {
    let (ck, value) = (Bytes::copy_from_slice(ck.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Mutation::Put { table: table(STUDIES), pk: "s".into(), ck, value }
}

fn delete(ck: &str) -> Mutation {
    Mutation::Delete { table: table(STUDIES), pk: "s".into(), ck: Bytes::copy_from_slice(ck.as_bytes()) }
}

fn commit(from: u64, to: u64, mutations: Vec<Mutation>) -> Commit {
    Commit {
        incarnation: Incarnation(1),
        partition: Partition(0),
        from: Offset(from),
        to: Offset(to),
        note: Bytes::from_static(b"note"),
        mutations,
        purge: false,
    }
}

async fn open(keyspace: &Keyspace) -> CqlIndexStore {
    CqlIndexStore::open(keyspace.config()).await.expect("opens")
}

async fn get(store: &CqlIndexStore, ck: &str) -> Option<Bytes> {
    store.get(G1, table(STUDIES), b"s", ck.as_bytes()).await.expect("reads")
}

async fn end(store: &CqlIndexStore) -> u64 {
    store.offsets(G1).await.expect("reads").first().map_or(0, |(_, _, offset, _)| offset.0)
}

/// The table of generation 1.
async fn rows_table(keyspace: &Keyspace, session: &scylla::client::session::Session) -> String {
    let text = format!("SELECT life FROM {}.generations WHERE generation = 1", keyspace.name());
    let rows = session.query_unpaged(text, ()).await.expect("reads").into_rows_result().expect("rows");
    let (life,) = rows.first_row::<(String,)>().expect("a generation");
    format!("{}.rows_{life}", keyspace.name())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_changes_nothing() {
    let keyspace = Keyspace::migrated().await;
    let (store, session) = (open(&keyspace).await, keyspace.session().await);
    store.commit(G1, commit(0, 5, vec![put("a", "old"), put("b", "old")])).await.expect("commits");
    let table = rows_table(&keyspace, &session).await;
    let text = format!("SELECT neighbours, WRITETIME(value) FROM {table} WHERE ck = 0x61 ALLOW FILTERING");
    let rows = session.query_unpaged(text, ()).await.expect("reads").into_rows_result().expect("rows");
    let (neighbours, early) = rows.first_row::<(Vec<u8>, i64)>().expect("a row");
    store.commit(G1, commit(5, 9, vec![put("a", "new"), delete("b")])).await.expect("commits");
    let late = format!(
        "INSERT INTO {table} (neighbours, kind, pk, ck, value) VALUES (?, 1, 0x, ?, ?) USING TIMESTAMP {}",
        early + 3
    );
    for ck in [&b"a"[..], b"b"] {
        session.query_unpaged(late.as_str(), (&neighbours, ck, &b"late"[..])).await.expect("writes");
    }
    assert_eq!(get(&store, "a").await, Some(Bytes::from("new")));
    assert_eq!(get(&store, "b").await, None, "what was removed stays so");
    // The same with a later timestamp does change them: the trial can tell.
    let later = late.replace(&(early + 3).to_string(), &(early + 5).to_string());
    session.query_unpaged(later, (&neighbours, &b"b"[..], &b"later"[..])).await.expect("writes");
    assert_eq!(get(&store, "b").await, Some(Bytes::from("later")));
}

/// Two processes believe that a partition is theirs. The one that was frozen wakes in the midst of a longer commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_frozen_neither_advances_nor_overwrites() {
    let keyspace = Keyspace::migrated().await;
    let (frozen, other) = (open(&keyspace).await, open(&keyspace).await);
    frozen.commit(G1, commit(0, 10, vec![put("a", "0"), put("b", "0")])).await.expect("commits");
    // Its rows are under way, with a higher offset than the other's will have; its offset is not.
    let mut large: Vec<_> = (0..4_000).map(|n| put(&format!("filling {n}"), "stray")).collect();
    large.splice(0..0, [put("a", "stray")]);
    let stalled = tokio::time::timeout(Duration::from_millis(5), frozen.commit(G1, commit(10, 1_000, large))).await;
    assert!(stalled.is_err(), "it is cut off within its rows");
    other.commit(G1, commit(10, 20, vec![put("a", "1")])).await.expect("takes over");
    let refused = frozen.commit(G1, commit(10, 1_000, vec![put("a", "stray")])).await.expect_err("too late");
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
    for store in [&frozen, &other] {
        assert_eq!((end(store).await, get(store, "a").await), (20, Some(Bytes::from("1"))));
        assert_eq!(get(store, "b").await, Some(Bytes::from("0")));
    }
    // And the partition comes back without an operator.
    frozen.commit(G1, commit(20, 30, vec![put("a", "2")])).await.expect("takes over again");
    assert_eq!((end(&other).await, get(&other, "a").await), (30, Some(Bytes::from("2"))));
}

/// After a commit that was cut off anywhere, what is said to be committed is there, and repeating it gives its rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_is_repeated_to_the_same_rows() {
    let keyspace = Keyspace::migrated().await;
    let store = open(&keyspace).await;
    let mut next = 0;
    for round in 0..30_u64 {
        let value = round.to_string();
        let rows = || (0..300).map(|n| put(&format!("{n}"), &value)).chain([delete("gone")]).collect::<Vec<_>>();
        let cut = Duration::from_micros(round * 900);
        let done = tokio::time::timeout(cut, store.commit(G1, commit(next, next + 10, rows()))).await;
        let stored = end(&store).await;
        assert!(stored == next || stored == next + 10, "{stored}");
        if stored == next {
            // A shorter one than before, as where fewer events are read again.
            assert!(done.is_err());
            if let Err(error) = store.commit(G1, commit(next, next + 4, rows())).await {
                // What was on its way when it was cut off has come there in the end.
                assert_eq!((error.kind(), end(&store).await), (StoreErrorKind::Conflict, next + 10));
            }
        }
        next = end(&store).await;
        for n in [0, 150, 299] {
            assert_eq!(get(&store, &n.to_string()).await, Some(Bytes::from(value.clone())), "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_row_stays_away_and_can_come_back() {
    let keyspace = Keyspace::migrated().await;
    let store = open(&keyspace).await;
    for round in 0..20 {
        store.commit(G1, commit(2 * round, 2 * round + 1, vec![put("a", "x"), put("b", "x")])).await.expect("commits");
        store.commit(G1, commit(2 * round + 1, 2 * round + 2, vec![delete("a")])).await.expect("commits");
        assert_eq!((get(&store, "a").await, get(&store, "b").await), (None, Some(Bytes::from("x"))));
    }
    let page = store.scan(G1, table(STUDIES), b"s", &CkRange::default(), false, 10).await.expect("scans");
    assert_eq!(page.rows.len(), 1);
}

/// A generation that one process drops is empty for another, also when its number is used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_dropped_under_other_processes() {
    let keyspace = Keyspace::migrated().await;
    let (one, two) = (open(&keyspace).await, open(&keyspace).await);
    let posting = Mutation::Put { table: table(POSTINGS), pk: "p".into(), ck: "o".into(), value: Bytes::new() };
    one.commit(G1, commit(0, 5, vec![put("a", "first"), posting])).await.expect("commits");
    assert_eq!(get(&two, "a").await, Some(Bytes::from("first")));
    one.drop_generation(G1).await.expect("drops");
    assert_eq!((get(&two, "a").await, end(&two).await), (None, 0));
    let refused = one.commit(G1, commit(5, 6, vec![put("a", "late")])).await.expect_err("nothing to continue");
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
    one.commit(G1, commit(0, 1, vec![put("b", "second")])).await.expect("begins anew");
    assert_eq!((get(&two, "a").await, get(&two, "b").await), (None, Some(Bytes::from("second"))));
    assert_eq!(end(&two).await, 1);
}

/// The table of generation 1 is there, and its id is the generation's life: whoever else makes it makes the same one.
async fn table_has_the_id_of_its_life(keyspace: &Keyspace) -> uuid::Uuid {
    let session = keyspace.session().await;
    let table = rows_table(keyspace, &session).await;
    let table = table.split_once('.').expect("qualified").1;
    let text = "SELECT id FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let rows = session.query_unpaged(text, (keyspace.name(), table)).await.expect("reads");
    let (id,) = rows.into_rows_result().expect("rows").first_row::<(uuid::Uuid,)>().expect("a table");
    assert_eq!(format!("rows_{}", id.simple()), table);
    id
}

/// Commits of several processes at once, each of a partition of its own, to a generation that is not ready; all are there.
async fn processes_begin_at_once(keyspace: &Keyspace) {
    let stores = [open(keyspace).await, open(keyspace).await, open(keyspace).await];
    let commits = stores.iter().zip(0..).flat_map(|(store, process)| {
        (0..8).map(move |n| {
            let partition = Partition(process * 8 + n);
            store.commit(G1, Commit { partition, ..commit(0, 1, vec![put(&partition.0.to_string(), "row")]) })
        })
    });
    for done in futures_util::future::join_all(commits).await {
        done.expect("commits");
    }
    for store in &stores {
        let page = store.scan(G1, table(STUDIES), b"s", &CkRange::default(), false, 100).await.expect("scans");
        assert_eq!((page.rows.len(), store.offsets(G1).await.expect("reads").len()), (24, 24));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_begin_at_once_agree_on_one_table() {
    let keyspace = Keyspace::migrated().await;
    processes_begin_at_once(&keyspace).await;
    table_has_the_id_of_its_life(&keyspace).await;
}

/// A process that died while it made a generation's table, before or after the table was there: others finish it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_maker_died_is_made_by_others_at_once() {
    for half_made in [false, true] {
        let keyspace = Keyspace::migrated().await;
        let session = keyspace.session().await;
        let life = uuid::Uuid::now_v7();
        if half_made {
            // One by a maker that is slow rather than dead comes to the same: it names the same id.
            let make = include_str!("../../../../schemas/index/cql/generation.cql").replace("{id}", &life.to_string());
            let make = make.replace("{table}", &format!("{}.rows_{}", keyspace.name(), life.simple()));
            session.query_unpaged(make.trim().trim_end_matches(';'), ()).await.expect("makes");
        }
        let begun = "INSERT INTO {}.generations (generation, life, state) VALUES (1, ?, 'making') IF NOT EXISTS";
        let begun = begun.replace("{}", keyspace.name());
        session.query_unpaged(begun, (life.simple().to_string(),)).await.expect("begins");
        let started = Instant::now();
        processes_begin_at_once(&keyspace).await;
        assert!(started.elapsed() < CqlIndexConfig::default().schema_timeout / 4, "{:?}", started.elapsed());
        assert_eq!(table_has_the_id_of_its_life(&keyspace).await, life);
    }
}

/// A maker that comes after the generation was dropped leaves no table behind.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_generation_that_is_dropped_while_it_is_made() {
    let keyspace = Keyspace::migrated().await;
    let (makes, drops) = (open(&keyspace).await, open(&keyspace).await);
    for round in 0..10 {
        let cut = Duration::from_millis(round * 7);
        let make = makes.commit(G1, commit(0, 1, vec![put("a", "row")]));
        let drop = async {
            tokio::time::sleep(cut).await;
            drops.drop_generation(G1).await
        };
        // The commit may have lost its table, or begun the generation anew.
        let (_made, dropped) = tokio::join!(make, drop);
        dropped.expect("drops");
        drops.drop_generation(G1).await.expect("drops");
    }
    let text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let rows = keyspace.session().await.query_unpaged(text, (keyspace.name(),)).await.expect("reads");
    let rows = rows.into_rows_result().expect("rows");
    let names: Vec<String> = rows.rows::<(String,)>().expect("names").map(|row| row.expect("a name").0).collect();
    assert!(!names.iter().any(|name| name.starts_with("rows_")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_be_repeated_and_other_versions_are_refused() {
    let keyspace = Keyspace::new();
    let kind = |opened: Result<CqlIndexStore, cairn_store_api::StoreError>| opened.err().map(|error| error.kind());
    assert_eq!(kind(CqlIndexStore::open(keyspace.config()).await), Some(StoreErrorKind::Invalid), "no keyspace");
    for _ in 0..2 {
        assert_eq!(CqlIndexStore::migrate(keyspace.config()).await.expect("migrates"), SCHEMA_VERSION);
    }
    open(&keyspace).await.commit(G1, commit(0, 1, vec![put("a", "kept")])).await.expect("commits");
    CqlIndexStore::migrate(keyspace.config()).await.expect("migrates");
    assert_eq!(get(&open(&keyspace).await, "a").await, Some(Bytes::from("kept")));
    let session = keyspace.session().await;
    let versions = format!("{}.schema_versions", keyspace.name());
    let newer = format!("INSERT INTO {versions} (id, version) VALUES (0, {})", SCHEMA_VERSION + 1);
    session.query_unpaged(newer, ()).await.expect("writes");
    assert_eq!(kind(CqlIndexStore::open(keyspace.config()).await), Some(StoreErrorKind::Invalid), "newer");
    let refused = CqlIndexStore::migrate(keyspace.config()).await.expect_err("never back");
    assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    session.query_unpaged(format!("TRUNCATE {versions}"), ()).await.expect("empties");
    assert_eq!(kind(CqlIndexStore::open(keyspace.config()).await), Some(StoreErrorKind::Invalid), "older");
    CqlIndexStore::migrate(keyspace.config()).await.expect("migrates");
    assert_eq!(get(&open(&keyspace).await, "a").await, Some(Bytes::from("kept")));
}
