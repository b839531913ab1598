//! The services' suite on an embedded site: on the local services, and on their gRPC clients over loopback.

mod serving;

use async_trait::async_trait;
use cairn_conformance::services::{
    Site, commitment, lifecycle, notary, policies, replication, replication::Reached, retention, tiering, trials,
};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index::{IndexConfig, IndexService};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_ingest::{IngestConfig, IngestService, Quarantine, QuarantineConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use cairn_retrieval::{RetrievalConfig, RetrievalService};
use cairn_service_api::{Index, Ingest, Retrieval};
use cairn_service_grpc::{
    client::{
        CommitmentsClient, Connection, IndexClient, IngestClient, LifecycleClient, NotaryClient, PeerClient,
        PoliciesClient, ReplicationClient, RetentionClient, RetrievalClient, TieringClient,
    },
    server::{Served, ServedLog, ServerConfig},
};
use cairn_store_api::{EventLog, IndexStore, ObjectStore, WholeLog};
use serving::{Serving, serve};
use std::{
    future::ready,
    sync::{Arc, Mutex, OnceLock},
};

fn main() {
    let mut all = trials("local", || Box::pin(async { Box::new(Embedded::open().await) as Box<dyn Site> }));
    all.extend(trials("grpc", || Box::pin(async { Box::new(Remote::open().await) as Box<dyn Site> })));
    all.extend(replication::trials("local", |site| {
        Box::pin(ready(Reached { peer: site.clone(), replication: site, stop: Box::pin(ready(())) }))
    }));
    all.extend(replication::trials("grpc", |site| {
        Box::pin(async {
            let served = Served { peer: Some(site.clone()), replication: Some(site), ..Served::default() };
            let (connection, serving) = reach(served).await;
            Reached {
                peer: Arc::new(PeerClient::new(&connection).expect("client")),
                replication: Arc::new(ReplicationClient::new(&connection).expect("client")),
                stop: Box::pin(serving.stop()),
            }
        })
    }));
    all.extend(lifecycle::trials("local", |scripted| {
        Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })
    }));
    all.extend(lifecycle::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { lifecycle: Some(scripted), ..Served::default() }).await;
            let client = LifecycleClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    all.extend(notary::trials("local", |scripted| Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })));
    all.extend(notary::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { notary: Some(scripted), ..Served::default() }).await;
            let client = NotaryClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    all.extend(commitment::trials("local", |scripted| {
        Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })
    }));
    all.extend(commitment::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { commitments: Some(scripted), ..Served::default() }).await;
            let client = CommitmentsClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    all.extend(retention::trials("local", |scripted| {
        Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })
    }));
    all.extend(retention::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { retention: Some(scripted), ..Served::default() }).await;
            let client = RetentionClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    all.extend(policies::trials("local", |scripted| {
        Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })
    }));
    all.extend(policies::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { policies: Some(scripted), ..Served::default() }).await;
            let client = PoliciesClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    all.extend(tiering::trials("local", |scripted| Box::pin(async move { (scripted as _, Box::pin(ready(())) as _) })));
    all.extend(tiering::trials("grpc", |scripted| {
        Box::pin(async move {
            let (connection, serving) = reach(Served { tiering: Some(scripted), ..Served::default() }).await;
            let client = TieringClient::new(&connection).expect("client");
            (Arc::new(client) as _, Box::pin(serving.stop()) as _)
        })
    }));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}

/// A site in one process.
struct Embedded {
    ingest: Arc<IngestService>,
    index: Arc<IndexService>,
    retrieval: Arc<RetrievalService>,
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    rows: Arc<dyn IndexStore>,
    _folder: tempfile::TempDir,
}

impl Embedded {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let at = |name: &str| folder.path().join(name);
        let config = EventLogConfig { partitions: 8, ..EventLogConfig::new("main".parse().expect("site")) };
        let log = EmbeddedEventLog::open(disk.clone(), clock.clone(), at("log"), config).await.expect("log");
        let log: Arc<dyn EventLog> = Arc::new(log);
        let volumes = VolumeConfig { volume_bytes_first: 4 << 20, ..VolumeConfig::new(at("objects")) };
        let objects = VolumeStore::open(disk.clone(), volumes, clock.clone()).expect("objects");
        let objects: Arc<dyn ObjectStore> = Arc::new(objects);
        let rows = EmbeddedIndexStore::open(at("index"), IndexStoreConfig::default()).await.expect("index store");
        let rows: Arc<dyn IndexStore> = Arc::new(rows);
        let share = Box::new(WholeLog::new(log.partitions()));
        let index = IndexService::open(log.clone(), rows.clone(), share, IndexConfig::default()).await.expect("index");
        let quarantine = Quarantine::open(disk, at("quarantine"), QuarantineConfig::default()).expect("quarantine");
        let hint: Arc<dyn Index> = index.clone();
        let config = IngestConfig::default();
        let ingest = IngestService::open(log.clone(), objects.clone(), Some(hint.clone()), quarantine, clock, config);
        let ingest = Arc::new(ingest.await.expect("ingest"));
        let retrieval = Arc::new(RetrievalService::new(hint, objects.clone(), RetrievalConfig::default()));
        Self { ingest, index, retrieval, log, objects, rows, _folder: folder }
    }
}

#[async_trait]
impl Site for Embedded {
    fn ingest(&self) -> Arc<dyn Ingest> {
        self.ingest.clone()
    }

    fn index(&self) -> Arc<dyn Index> {
        self.index.clone()
    }

    fn retrieval(&self) -> Arc<dyn Retrieval> {
        self.retrieval.clone()
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone()
    }

    async fn stop(&self) {
        self.ingest.close().await.expect("ingest stops");
        self.index.close().await.expect("index stops");
        self.rows.sync(true).await.expect("index store closes");
        self.log.close().await.expect("log closes");
        self.objects.close().await.expect("objects close");
    }
}

/// The same site, asked over gRPC.
struct Remote {
    site: Embedded,
    connection: Connection,
    serving: Mutex<Option<Serving>>,
}

/// The services at the other end of a connection.
async fn reach(served: Served) -> (Connection, Serving) {
    let config = ServerConfig { message_bytes_max: 4 << 20, ..ServerConfig::default() };
    let serving = serve(served, config, None).await;
    (Connection { message_bytes_max: 4 << 20, ..Connection::to(format!("http://{}", serving.address)) }, serving)
}

impl Remote {
    async fn open() -> Self {
        let site = Embedded::open().await;
        let served = Served {
            ingest: Some(site.ingest()),
            index: Some(site.index()),
            retrieval: Some(site.retrieval()),
            log: Some(Arc::new(OnceLock::from(ServedLog {
                opened: site.log.clone(),
                stored: site.log.clone(),
                keys: None,
            }))),
            ..Served::default()
        };
        let (connection, serving) = reach(served).await;
        Self { site, connection, serving: Mutex::new(Some(serving)) }
    }
}

#[async_trait]
impl Site for Remote {
    fn ingest(&self) -> Arc<dyn Ingest> {
        Arc::new(IngestClient::new(&self.connection).expect("client"))
    }

    fn index(&self) -> Arc<dyn Index> {
        Arc::new(IndexClient::new(&self.connection).expect("client"))
    }

    fn retrieval(&self) -> Arc<dyn Retrieval> {
        Arc::new(RetrievalClient::new(&self.connection).expect("client"))
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.site.log.clone()
    }

    async fn stop(&self) {
        let serving = self.serving.lock().expect("not poisoned").take();
        if let Some(serving) = serving {
            serving.stop().await;
        }
        self.site.stop().await;
    }
}
