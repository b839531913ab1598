//! A running process of the archive, whichever roles and doors it has: `cairn serve` has all of them.
//!
//! Order of starting: bind every port (a taken one is said before anything else happens), open stores, start roles, open
//! doors, say where. Order of stopping: readiness ends, doors stop taking, what is under way gets its grace, receipts are
//! summed up, the index commits, stores close.

use crate::{
    commands::Failure,
    config::Config,
    endpoints::Endpoints,
    health::{self, Readiness},
    http::{self, Health, Measured},
    peers,
    roles::Roles,
    senders,
    services::{Running, Services},
    stores, telemetry,
};
use cairn_dimse::Partners;
use cairn_process::clock::SystemClock;
use cairn_service_grpc::server::{Served, Server, SiteCertificates};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// The listeners, bound.
struct Listeners {
    dicom: Option<TcpListener>,
    http: TcpListener,
    grpc: TcpListener,
}

impl Listeners {
    async fn bind(config: &Config, roles: Roles) -> Result<Self, Failure> {
        let dicom = if roles.dimse { Some(bind("dicom.listen", "--dicom", config.dicom.listen).await?) } else { None };
        let http = bind("http.listen", "--http", config.http.listen).await?;
        Ok(Self { dicom, http, grpc: bind("grpc.listen", "--grpc", config.grpc.listen).await? })
    }

    fn endpoints(&self, tls: bool) -> Result<Endpoints, Failure> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(Failure::failed);
        let dicom = self.dicom.as_ref().map(address).transpose()?;
        Ok(Endpoints { dicom, http: address(&self.http)?, grpc: address(&self.grpc)?, tls, pid: std::process::id() })
    }
}

async fn bind(key: &str, flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!("{key}: {address} can't be listened on: {error}; set another with {flag} ADDR:PORT (port 0 takes a free one)"))
    })
}

/// Runs a process until SIGTERM or SIGINT.
pub async fn run(config: Config, roles: Roles) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let mut process = Process::start(config, roles).await?;
    process.announce();
    let outcome = tokio::select! {
        () = signals.wait() => Ok(()),
        failure = process.roles_here.failed() => Err(failure),
    };
    process.stop().await;
    outcome
}

/// SIGTERM and SIGINT. To be listened to before anyone is told that the process is there.
pub struct Signals(Signal, Signal);

impl Signals {
    /// From now on neither ends the process by itself.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::failed);
        Ok(Self(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
    }

    /// Waits for one of them.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// The roles of a process, and the stores under them.
enum RolesHere {
    /// It has none.
    None,
    /// Stores of a cluster may take a while.
    Opening(tokio::task::JoinHandle<Result<Running, Failure>>),
    Open(Box<Running>),
}

impl RolesHere {
    /// Embedded stores are open on return, or the process can't start. Those of a cluster are waited for: meanwhile the
    /// process says that it is not ready.
    async fn open(config: &Config, roles: Roles, services: &Services) -> Result<Self, Failure> {
        // The futures of client libraries are deep.
        let open = Box::pin(Running::open(config.clone(), services.clone()));
        Ok(match roles.data() {
            false => Self::None,
            true if stores::are_embedded(&config.stores) => Self::Open(Box::new(open.await?)),
            true => Self::Opening(tokio::spawn(open)),
        })
    }

    /// Ends if they can't be opened, and not before.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn failed(&mut self) -> Failure {
        match self.opened().await {
            Ok(()) => std::future::pending().await,
            Err(failure) => failure,
        }
    }

    async fn opened(&mut self) -> Result<(), Failure> {
        let Self::Opening(opening) = self else { return Ok(()) };
        let opened = opening.await.map_err(Failure::failed).flatten();
        let running = opened.inspect_err(|_| *self = Self::None)?;
        tracing::info!("stores are open and roles have begun");
        *self = Self::Open(Box::new(running));
        Ok(())
    }

    async fn stop(self) {
        match self {
            Self::None => {}
            Self::Open(running) => running.stop().await,
            Self::Opening(opening) => opening.abort(),
        }
    }
}

/// A running process.
pub struct Process {
    config: Config,
    roles: Roles,
    telemetry: telemetry::Telemetry,
    /// Where it listens.
    pub endpoints: Endpoints,
    roles_here: RolesHere,
    drain: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    doors: JoinSet<()>,
    /// Those who follow what is decided of sites.
    sites: JoinSet<()>,
    health: tokio::task::JoinHandle<()>,
}

impl Process {
    /// Starts everything; doors are open on return. Peers need not be there: what needs them fails until they are.
    pub async fn start(config: Config, roles: Roles) -> Result<Self, Failure> {
        roles.check(&config)?;
        let telemetry = telemetry::start(&config.telemetry, &config.site.name)?;
        let listeners = Listeners::bind(&config, roles).await?;
        let endpoints = listeners.endpoints(config.tls.is_some())?;
        let services = Services::new(&config, roles)?;
        if roles.data() {
            let directory = &config.data.directory;
            let failed = |error| Failure::failed(format!("{}: {error}", directory.display()));
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let roles_here = RolesHere::open(&config, roles, &services).await?;
        let (drain, drained) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let readiness = Readiness {
            roles,
            services: services.clone(),
            draining: draining.clone(),
            timeout: config.peers.health_timeout,
        };
        let (mut doors, mut sites) = (JoinSet::new(), JoinSet::new());
        sites.spawn(services.clone().ask_about_sites(config.peers.sites_interval));
        if let Some(listener) = listeners.dicom {
            open_dimse(&config, listener, &services, drained.clone(), &mut doors, &mut sites);
        }
        let (log, objects) = (services.log.clone(), services.objects.clone());
        let measured = Measured { log, objects, clock: Arc::new(SystemClock::new()) };
        let health = Health { readiness: readiness.clone(), measured, metrics: telemetry.metrics.clone() };
        open_http(&config, roles, listeners.http, &services, health, drained.clone(), &mut doors);
        let server =
            Server::new(served(roles, &services, peers::site_certificates(&config)?), peers::listener(&config)?)
                .await?;
        let health = tokio::spawn(health::keep(readiness, server.health(), config.peers.health_interval));
        doors.spawn(async move {
            if let Err(error) = server.serve(listeners.grpc, begun(drained)).await {
                tracing::error!(%error, "the gRPC listener failed");
            }
        });
        if roles.data() {
            endpoints.write(&config.data.directory).map_err(Failure::failed)?;
        }
        Ok(Self { config, roles, telemetry, endpoints, roles_here, drain, draining, doors, sites, health })
    }

    /// Waits until its roles have begun.
    ///
    /// # Errors
    /// Why they can't.
    pub async fn opened(&mut self) -> Result<(), Failure> {
        self.roles_here.opened().await
    }

    /// Says where it listens and what to try next.
    pub fn announce(&self) {
        let Endpoints { dicom, http, grpc, .. } = self.endpoints;
        let title = &self.config.dicom.ae_title;
        let data = self.config.data.directory.display();
        let (version, site) = (env!("CARGO_PKG_VERSION"), &self.config.site.name);
        match self.roles {
            Roles::ALL => println!("Cairn {version} serves site {site} from {data}"),
            roles => println!("Cairn {version} is a process of site {site}: {}", roles.name),
        }
        if let Some(dicom) = dicom {
            println!("  DICOM     {title}@{dicom}");
        }
        if self.roles.dicomweb {
            println!("  DICOMweb  http://{http}{}", self.config.http.dicomweb.base_path);
        }
        println!("  gRPC      {grpc}{}", if self.endpoints.tls { " (mutual TLS)" } else { "" });
        println!("  health    http://{http}/readyz   metrics http://{http}/metrics");
        if let (Some(dicom), Roles::ALL) = (dicom, self.roles) {
            println!("Try: storescu -aec {title} {} {} FILE.dcm", dicom.ip(), dicom.port());
            println!("     cairn query studies --data {data}      Ctrl-C stops it");
        }
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
        self.sites.shutdown().await;
        self.health.abort();
        self.roles_here.stop().await;
        if self.roles.data() {
            Endpoints::remove(&self.config.data.directory);
        }
        tracing::info!("stopped");
        self.telemetry.shutdown();
    }
}

/// Resolves once draining has begun.
async fn begun(mut drained: watch::Receiver<bool>) {
    // An error means that the process is gone, which ends doors too.
    let _process_gone = drained.wait_for(|drain| *drain).await;
}

fn open_dimse(
    config: &Config,
    listener: TcpListener,
    services: &Services,
    drained: watch::Receiver<bool>,
    doors: &mut JoinSet<()>,
    sites: &mut JoinSet<()>,
) {
    let backends = cairn_dimse::Backends {
        ingest: services.ingest(),
        index: services.index(),
        retrieval: services.retrieval(),
        commitments: services.commitments(),
    };
    let (limits, implementation) = (config.dicom.limits.clone(), cairn_dimse::Implementation::default());
    let Partners { policy, destinations } = senders::partners(config);
    let door = cairn_dimse::Door::new(&config.site.tenant, policy, limits, implementation, backends)
        .with_destinations(destinations);
    let door = Arc::new(door);
    let server = cairn_dimse::server::Server::new(listener, door.clone());
    let grace = config.shutdown.grace;
    let (following, own) = (services.clone(), config.clone());
    sites.spawn(async move {
        following.follow_sites(own, |config, _| door.set_partners(senders::partners(config))).await;
    });
    doors.spawn(async move { server.serve(begun(drained), grace).await });
}

fn open_http(
    config: &Config,
    roles: Roles,
    listener: TcpListener,
    services: &Services,
    health: Health,
    drained: watch::Receiver<bool>,
    doors: &mut JoinSet<()>,
) {
    let web = cairn_dicomweb::DicomWebConfig { tenant: config.site.tenant.clone(), ..config.http.dicomweb.clone() };
    let mut router = http::routes(health);
    if let (Some(ingest), Some(index), Some(retrieval), true) =
        (services.ingest(), services.index(), services.retrieval(), roles.dicomweb)
    {
        let behind = cairn_dicomweb::Services { ingest, index, retrieval, commitments: services.commitments() };
        router = cairn_dicomweb::router(behind, web.clone()).merge(router);
    }
    doors.spawn(async move {
        if let Err(error) = cairn_dicomweb::serve(listener, router, &web, begun(drained)).await {
            tracing::error!(%error, "the HTTP listener failed");
        }
    });
}

/// What gRPC serves: the roles that are here; beside doors also the others, so that commands need one address alone.
fn served(roles: Roles, services: &Services, site_certificates: SiteCertificates) -> Served {
    let (all, none) = (roles.doors(), Served::default());
    Served {
        ingest: if all || roles.ingest { services.ingest() } else { none.ingest },
        index: if all || roles.index { services.index() } else { none.index },
        retrieval: if all || roles.retrieval { services.retrieval() } else { none.retrieval },
        peer: services.replication().map(|own| own.peer.clone() as _),
        site_certificates,
        replication: services.replication().map(|own| own.operated.clone() as _),
        lifecycle: if all || roles.lifecycle { services.lifecycle() } else { none.lifecycle },
        notary: if all || roles.lifecycle { services.notary() } else { none.notary },
        commitments: if all || roles.lifecycle { services.commitments() } else { none.commitments },
        retention: if all || roles.lifecycle { services.retention() } else { none.retention },
        policies: if all || roles.lifecycle { services.policies() } else { none.policies },
        tiering: if all || roles.lifecycle { services.tiering() } else { none.tiering },
        log: roles.log().then(|| services.log.clone()),
    }
}
