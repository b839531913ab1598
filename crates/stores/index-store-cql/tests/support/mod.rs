//! A keyspace for one trial.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part")]

use cairn_index_store_cql::{CqlIndexConfig, CqlIndexStore};
use scylla::client::session_builder::SessionBuilder;
use std::{path::Path, time::Duration};

/// Where Cassandra listens: `CAIRN_TEST_CQL`, else what `tools/engines start` has written.
pub fn endpoint() -> String {
    const NAME: &str = "CAIRN_TEST_CQL";
    if let Ok(endpoint) = std::env::var(NAME) {
        return endpoint;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/engines/endpoints.env");
    let written = std::fs::read_to_string(file).unwrap_or_default();
    let found = written.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix('='));
    found.expect("no Cassandra to test against: run tools/engines start").to_owned()
}

/// A keyspace, dropped at the end.
pub struct Keyspace {
    name: String,
    endpoint: String,
}

impl Keyspace {
    /// A name that nobody has.
    pub fn new() -> Self {
        Self { name: format!("trial_{}", uuid::Uuid::now_v7().simple()), endpoint: endpoint() }
    }

    /// One with the schema.
    pub async fn migrated() -> Self {
        let keyspace = Self::new();
        CqlIndexStore::migrate(keyspace.config()).await.expect("migrates");
        keyspace
    }

    pub fn config(&self) -> CqlIndexConfig {
        CqlIndexConfig {
            contact_points: vec![self.endpoint.clone()],
            keyspace: self.name.clone(),
            copies: 1,
            request_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(60),
            ..CqlIndexConfig::default()
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A session beside the store's.
    pub async fn session(&self) -> scylla::client::session::Session {
        SessionBuilder::new().known_node(&self.endpoint).build().await.expect("connects")
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let (name, endpoint) = (self.name.clone(), self.endpoint.clone());
        // A thread with a runtime of its own: this may run within one.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                if let Ok(session) = SessionBuilder::new().known_node(&endpoint).build().await {
                    // What is left is wiped with the engine.
                    let _ = session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await;
                }
            });
        });
        let _ = dropping.join();
    }
}
