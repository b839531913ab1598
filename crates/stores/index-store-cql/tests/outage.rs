//! The engine stops answering for a while. In a binary of its own: other trials use the same engine.

mod support;

use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition, index_rows::STUDIES};
use cairn_index_store_cql::{CqlIndexConfig, CqlIndexStore};
use cairn_store_api::{Commit, Generation, IndexStore, Mutation, StoreErrorKind, Table};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::Keyspace;

const G1: Generation = Generation(1);
const TABLE: Table = Table { id: STUDIES.id, name: STUDIES.name };

fn commit(from: u64) -> Commit {
    let ck = Bytes::copy_from_slice(&from.to_be_bytes());
    Commit {
        incarnation: Incarnation(1),
        partition: Partition(0),
        from: Offset(from),
        to: Offset(from + 1),
        note: Bytes::new(),
        mutations: vec![Mutation::Put { table: TABLE, pk: "s".into(), ck, value: "row".into() }],
        purge: false,
    }
}

/// Stops or continues the engine that the trials use; it goes on when this is dropped, whatever happened.
struct Paused;

impl Paused {
    fn tool(verb: &str) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tools/engines");
        let done = Command::new(tool).args([verb, "cassandra"]).status().expect("tools/engines runs");
        assert!(done.success(), "tools/engines {verb} cassandra");
    }

    fn new() -> Self {
        Self::tool("pause");
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        Self::tool("resume");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_is_a_passing_failure_within_the_deadline() {
    let keyspace = Keyspace::migrated().await;
    let (request_timeout, deadline) = (Duration::from_millis(700), Duration::from_secs(2));
    let config = CqlIndexConfig { request_timeout, deadline, ..keyspace.config() };
    let store = CqlIndexStore::open(config).await.expect("opens");
    let patient = CqlIndexStore::open(keyspace.config()).await.expect("opens");
    patient.commit(G1, commit(0)).await.expect("commits");
    let paused = Paused::new();
    let begun = Instant::now();
    let failed = store.commit(G1, commit(1)).await.expect_err("nobody answers");
    assert_eq!(failed.kind(), StoreErrorKind::Unavailable);
    let failed = store.get(G1, TABLE, b"s", &0_u64.to_be_bytes()).await.expect_err("nobody answers");
    assert_eq!(failed.kind(), StoreErrorKind::Unavailable);
    assert!(begun.elapsed() < 4 * deadline, "{:?}", begun.elapsed());
    drop(paused);
    // The outcome was not known: what is stored says where to go on. Nobody opens anything anew.
    let again = Instant::now() + Duration::from_secs(60);
    let end = loop {
        match patient.offsets(G1).await {
            Ok(offsets) => break offsets[0].2.0,
            Err(error) => assert!(error.kind().is_retryable() && Instant::now() < again, "{error}"),
        }
    };
    assert!(end == 1 || end == 2);
    loop {
        match store.commit(G1, commit(end)).await {
            Ok(()) => break,
            Err(error) if error.kind() == StoreErrorKind::Conflict => break,
            Err(error) => assert!(error.kind().is_retryable() && Instant::now() < again, "{error}"),
        }
    }
    let offsets = patient.offsets(G1).await.expect("reads");
    assert_eq!(offsets[0].2, Offset(end + 1));
    for n in 0..=end {
        assert!(patient.get(G1, TABLE, b"s", &n.to_be_bytes()).await.expect("reads").is_some());
    }
}
