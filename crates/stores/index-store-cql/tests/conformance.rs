//! The port's clauses, against a real Cassandra. Each trial has a keyspace of its own.

mod support;

use async_trait::async_trait;
use cairn_conformance::index_store::{Faults, IndexStoreBackend, trials};
use cairn_index_store_cql::CqlIndexStore;
use cairn_store_api::{IndexStore, StoreError};
use std::sync::Arc;
use support::Keyspace;

fn main() {
    let trials = trials("cql_on_cassandra", || Box::new(Cassandra::default()));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit();
}

/// Made when it is first opened: trials that are not run need no engine.
#[derive(Default)]
struct Cassandra(tokio::sync::OnceCell<Keyspace>);

#[async_trait]
impl IndexStoreBackend for Cassandra {
    async fn open(&self) -> Result<Arc<dyn IndexStore>, StoreError> {
        let keyspace = self.0.get_or_init(Keyspace::migrated).await;
        Ok(Arc::new(CqlIndexStore::open(keyspace.config()).await?))
    }

    /// What a machine's crash takes is a matter of the cluster: copies on other machines, and each node's commit log.
    fn faults(&self) -> Faults {
        Faults { crash: false, exclusive: false }
    }

    async fn crash(&self, _store: Arc<dyn IndexStore>) {
        unreachable!("not among the faults")
    }
}
