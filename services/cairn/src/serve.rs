//! `cairn serve`: all roles in one process, on embedded stores.
//!
//! Order of starting: bind every port (a taken one is said before anything else happens), open stores, start roles, open
//! doors, say where. Order of stopping: doors stop taking, what is under way gets its grace, receipts are summed up,
//! the index commits, stores close.

use crate::{
    commands::Failure,
    config::Config,
    endpoints::Endpoints,
    http::{self, Health},
    stores::Stores,
    telemetry,
};
use cairn_dicomweb::Services;
use cairn_index::IndexService;
use cairn_ingest::IngestService;
use cairn_retrieval::RetrievalService;
use cairn_service_api::Index;
use cairn_service_grpc::server::{Served, routes};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// The three listeners, bound.
struct Listeners {
    dicom: TcpListener,
    http: TcpListener,
    grpc: TcpListener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            dicom: bind("dicom.listen", "--dicom", config.dicom.listen).await?,
            http: bind("http.listen", "--http", config.http.listen).await?,
            grpc: bind("grpc.listen", "--grpc", config.grpc.listen).await?,
        })
    }

    fn endpoints(&self) -> Result<Endpoints, Failure> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(Failure::failed);
        let (dicom, http, grpc) = (address(&self.dicom)?, address(&self.http)?, address(&self.grpc)?);
        Ok(Endpoints { dicom, http, grpc, pid: std::process::id() })
    }
}

async fn bind(key: &str, flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!("{key}: {address} can't be listened on: {error}; set another with {flag} ADDR:PORT (port 0 takes a free one)"))
    })
}

/// The roles, running.
struct Roles {
    stores: Stores,
    ingest: Arc<IngestService>,
    index: Arc<IndexService>,
    retrieval: Arc<RetrievalService>,
}

impl Roles {
    async fn start(config: &Config) -> Result<Self, Failure> {
        let stores = Stores::open(config).await?;
        let index = IndexService::open(stores.log.clone(), stores.index.clone(), config.index.clone()).await?;
        let known: Arc<dyn Index> = index.clone();
        let ingest = IngestService::open(
            stores.log.clone(),
            stores.objects.clone(),
            Some(known.clone()),
            stores.quarantine.clone(),
            stores.clock.clone(),
            config.ingest_config(),
        );
        let ingest = Arc::new(ingest.await?);
        let retrieval = Arc::new(RetrievalService::new(known, stores.objects.clone(), config.retrieval.clone()));
        Ok(Self { stores, ingest, index, retrieval })
    }

    fn services(&self) -> Services {
        Services { ingest: self.ingest.clone(), index: self.index.clone(), retrieval: self.retrieval.clone() }
    }

    async fn stop(self) {
        if let Err(error) = self.ingest.close().await {
            tracing::warn!(%error, "receipts were not summed up");
        }
        if let Err(error) = self.index.close().await {
            tracing::warn!(%error, "the index did not stop in order");
        }
        self.stores.close().await;
    }
}

/// Runs the archive until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), Failure> {
    let archive = Archive::start(config).await?;
    archive.announce();
    wait_for_signal().await?;
    archive.stop().await;
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
pub async fn wait_for_signal() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// A running archive.
pub struct Archive {
    config: Config,
    telemetry: telemetry::Telemetry,
    /// Where it listens.
    pub endpoints: Endpoints,
    roles: Roles,
    drain: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    doors: JoinSet<()>,
}

impl Archive {
    /// Starts everything; doors are open on return.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let telemetry = telemetry::start(&config.telemetry, &config.site.name)?;
        let listeners = Listeners::bind(&config).await?;
        let endpoints = listeners.endpoints()?;
        let roles = Roles::start(&config).await?;
        let (drain, drained) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let mut doors = JoinSet::new();
        let health = Health {
            ingest: roles.ingest.clone(),
            index: roles.index.clone(),
            metrics: telemetry.metrics.clone(),
            draining: draining.clone(),
        };
        open_dimse(&config, listeners.dicom, &roles, drained.clone(), &mut doors);
        open_http(&config, listeners.http, &roles, health, drained.clone(), &mut doors);
        open_grpc(&config, listeners.grpc, &roles, drained, &mut doors).await?;
        endpoints.write(&config.data.directory).map_err(Failure::failed)?;
        Ok(Self { config, telemetry, endpoints, roles, drain, draining, doors })
    }

    /// Says where it listens and what to try next.
    pub fn announce(&self) {
        let Endpoints { dicom, http, grpc, .. } = self.endpoints;
        let title = &self.config.dicom.ae_title;
        let data = self.config.data.directory.display();
        println!("Cairn {} serves site {} from {data}", env!("CARGO_PKG_VERSION"), self.config.site.name);
        println!("  DICOM     {title}@{dicom}");
        println!("  DICOMweb  http://{http}{}", self.config.http.dicomweb.base_path);
        println!("  gRPC      {grpc}");
        println!("  health    http://{http}/readyz   metrics http://{http}/metrics");
        println!("Try: storescu -aec {title} {} {} FILE.dcm", dicom.ip(), dicom.port());
        println!("     cairn query studies --data {data}      Ctrl-C stops it");
    }

    /// Drains and stops.
    pub async fn stop(mut self) {
        let grace = self.config.shutdown.grace;
        tracing::info!(grace_seconds = grace.as_secs(), "draining");
        self.draining.store(true, Ordering::Release);
        self.drain.send_replace(true);
        let ended = async { while self.doors.join_next().await.is_some() {} };
        if tokio::time::timeout(grace + std::time::Duration::from_secs(5), ended).await.is_err() {
            tracing::warn!("connections did not end in time and were cut");
        }
        self.doors.shutdown().await;
        self.roles.stop().await;
        Endpoints::remove(&self.config.data.directory);
        tracing::info!("stopped");
        self.telemetry.shutdown();
    }
}

/// Resolves once draining has begun.
async fn begun(mut drained: watch::Receiver<bool>) {
    // An error means that the archive is gone, which ends doors too.
    let _archive_gone = drained.wait_for(|drain| *drain).await;
}

fn open_dimse(
    config: &Config,
    listener: TcpListener,
    roles: &Roles,
    drained: watch::Receiver<bool>,
    doors: &mut JoinSet<()>,
) {
    let backends = cairn_dimse::Backends {
        ingest: Some(roles.ingest.clone()),
        index: Some(roles.index.clone()),
        retrieval: Some(roles.retrieval.clone()),
    };
    let (limits, implementation) = (config.dicom.limits.clone(), cairn_dimse::Implementation::default());
    let door = cairn_dimse::Door::new(&config.site.tenant, config.dimse_policy(), limits, implementation, backends)
        .with_destinations(config.destinations());
    let server = cairn_dimse::server::Server::new(listener, door);
    let grace = config.shutdown.grace;
    doors.spawn(async move { server.serve(begun(drained), grace).await });
}

fn open_http(
    config: &Config,
    listener: TcpListener,
    roles: &Roles,
    health: Health,
    drained: watch::Receiver<bool>,
    doors: &mut JoinSet<()>,
) {
    let web = cairn_dicomweb::DicomWebConfig { tenant: config.site.tenant.clone(), ..config.http.dicomweb.clone() };
    let router = cairn_dicomweb::router(roles.services(), web.clone()).merge(http::routes(health));
    doors.spawn(async move {
        if let Err(error) = cairn_dicomweb::serve(listener, router, &web, begun(drained)).await {
            tracing::error!(%error, "the HTTP listener failed");
        }
    });
}

async fn open_grpc(
    config: &Config,
    listener: TcpListener,
    roles: &Roles,
    drained: watch::Receiver<bool>,
    doors: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let served = Served {
        ingest: Some(roles.ingest.clone()),
        index: Some(roles.index.clone()),
        retrieval: Some(roles.retrieval.clone()),
        log: Some(roles.stores.log.clone()),
    };
    let message_bytes_max = usize::try_from(config.grpc.message_bytes_max).unwrap_or(usize::MAX);
    let (routes, _health) = routes(served, message_bytes_max).await?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = cairn_service_grpc::transport::Server::builder().tcp_nodelay(true).add_routes(routes);
    doors.spawn(async move {
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, begun(drained)).await {
            tracing::error!(%error, "the gRPC listener failed");
        }
    });
    Ok(())
}
