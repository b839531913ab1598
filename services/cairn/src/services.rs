//! The services as this process has them: its own roles over stores, those of other processes over gRPC.

use crate::{
    commands::Failure,
    config::{Config, LogKind},
    late::Late,
    peers,
    reporter::CallingReporter,
    roles::Roles,
    senders,
    signing::Key,
    stores::Stores,
};
use cairn_archive::events::SendersConfigured;
use cairn_index::IndexService;
use cairn_ingest::IngestService;
use cairn_lifecycle::{Behind, LifecycleService, Signer};
use cairn_process::disk::RealDisk;
use cairn_replication::{PeerConnection, ReplicationService};
use cairn_retrieval::{RetrievalService, Told};
use cairn_service_api::{
    Commitments, Index, Ingest, Lifecycle, Notary, Peer, Policies, Replication, Retention, Retrieval, Tiering,
    site::SiteStatus, tiering::TierStatus,
};
use cairn_service_grpc::{
    client::{
        CommitmentsClient, IndexClient, IngestClient, LifecycleClient, NotaryClient, PeerClient, PoliciesClient,
        ReplicationClient, RetentionClient, RetrievalClient, TieringClient,
    },
    server::{LateLog, ServedLog},
};
use cairn_store_api::{ObjectStore, Tier};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// Replication, for operators and for other sites.
#[derive(Clone)]
pub struct OwnReplication {
    pub operated: Arc<Late<dyn Replication>>,
    pub peer: Arc<Late<dyn Peer>>,
}

/// The services that this process has or knows. Its own are there once they are opened.
#[derive(Clone)]
pub struct Services {
    roles: Roles,
    own_ingest: Arc<Late<dyn Ingest>>,
    own_index: Arc<Late<dyn Index>>,
    own_retrieval: Arc<Late<dyn Retrieval>>,
    own_lifecycle: Arc<Late<dyn Lifecycle>>,
    own_notary: Arc<Late<dyn Notary>>,
    own_commitments: Arc<Late<dyn Commitments>>,
    own_retention: Arc<Late<dyn Retention>>,
    own_policies: Arc<Late<dyn Policies>>,
    own_tiering: Arc<Late<dyn Tiering>>,
    /// Where there are other sites.
    replication: Option<OwnReplication>,
    pub objects: Arc<Late<dyn ObjectStore>>,
    pub log: LateLog,
    other_ingest: Option<Arc<IngestClient>>,
    other_index: Option<Arc<IndexClient>>,
    other_retrieval: Option<Arc<RetrievalClient>>,
    other_lifecycle: Option<Arc<LifecycleClient>>,
    other_notary: Option<Arc<NotaryClient>>,
    other_commitments: Option<Arc<CommitmentsClient>>,
    other_retention: Option<Arc<RetentionClient>>,
    other_policies: Option<Arc<PoliciesClient>>,
    other_tiering: Option<Arc<TieringClient>>,
    other_replication: Option<Arc<ReplicationClient>>,
    /// What is known of sites, once it was asked: where there are others.
    sites: watch::Sender<Option<SiteStatus>>,
}

impl Services {
    /// Those of other processes can be called at once, those of this one when opened.
    ///
    /// # Errors
    /// An address or a certificate that can't be used.
    pub fn new(config: &Config, roles: Roles) -> Result<Self, Failure> {
        let peers = &config.peers;
        let connection = |here: bool, addresses: &[String]| match here {
            true => Ok(None),
            false => peers::connection(config, addresses),
        };
        let (ingest, index, retrieval, lifecycle, replication) = (
            connection(roles.ingest, &peers.ingest)?,
            connection(roles.index, &peers.index)?,
            connection(roles.retrieval, &peers.retrieval)?,
            connection(roles.lifecycle, &peers.lifecycle)?,
            connection(roles.replication, &peers.replication)?,
        );
        Ok(Self {
            roles,
            own_ingest: Late::new("ingest"),
            own_index: Late::new("the index"),
            own_retrieval: Late::new("retrieval"),
            own_lifecycle: Late::new("lifecycle"),
            own_notary: Late::new("the notary"),
            own_commitments: Late::new("lifecycle"),
            own_retention: Late::new("lifecycle"),
            own_policies: Late::new("lifecycle"),
            own_tiering: Late::new("lifecycle"),
            replication: (roles.replication && !config.replication.peers.is_empty())
                .then(|| OwnReplication { operated: Late::new("replication"), peer: Late::new("replication") }),
            objects: Late::new("the object store"),
            log: LateLog::default(),
            other_ingest: ingest.map(|to| IngestClient::new(&to).map(Arc::new)).transpose()?,
            other_index: index.map(|to| IndexClient::new(&to).map(Arc::new)).transpose()?,
            other_retrieval: retrieval.map(|to| RetrievalClient::new(&to).map(Arc::new)).transpose()?,
            other_notary: lifecycle.as_ref().map(|to| NotaryClient::new(to).map(Arc::new)).transpose()?,
            other_retention: lifecycle.as_ref().map(|to| RetentionClient::new(to).map(Arc::new)).transpose()?,
            other_policies: lifecycle.as_ref().map(|to| PoliciesClient::new(to).map(Arc::new)).transpose()?,
            other_tiering: lifecycle.as_ref().map(|to| TieringClient::new(to).map(Arc::new)).transpose()?,
            other_lifecycle: lifecycle.as_ref().map(|to| LifecycleClient::new(to).map(Arc::new)).transpose()?,
            other_commitments: lifecycle.map(|to| CommitmentsClient::new(&to).map(Arc::new)).transpose()?,
            other_replication: replication.map(|to| ReplicationClient::new(&to).map(Arc::new)).transpose()?,
            sites: watch::Sender::default(),
        })
    }

    /// Ingest, here or elsewhere.
    pub fn ingest(&self) -> Option<Arc<dyn Ingest>> {
        let other = self.other_ingest.clone().map(|client| client as Arc<dyn Ingest>);
        if self.roles.ingest { Some(self.own_ingest.clone()) } else { other }
    }

    /// The index, here or elsewhere.
    pub fn index(&self) -> Option<Arc<dyn Index>> {
        let other = self.other_index.clone().map(|client| client as Arc<dyn Index>);
        if self.roles.index { Some(self.own_index.clone()) } else { other }
    }

    /// Retrieval, here or elsewhere.
    pub fn retrieval(&self) -> Option<Arc<dyn Retrieval>> {
        let other = self.other_retrieval.clone().map(|client| client as Arc<dyn Retrieval>);
        if self.roles.retrieval { Some(self.own_retrieval.clone()) } else { other }
    }

    /// Lifecycle, here or elsewhere.
    pub fn lifecycle(&self) -> Option<Arc<dyn Lifecycle>> {
        let other = self.other_lifecycle.clone().map(|client| client as Arc<dyn Lifecycle>);
        if self.roles.lifecycle { Some(self.own_lifecycle.clone()) } else { other }
    }

    /// The notary, which is of lifecycle, here or elsewhere.
    pub fn notary(&self) -> Option<Arc<dyn Notary>> {
        let other = self.other_notary.clone().map(|client| client as Arc<dyn Notary>);
        if self.roles.lifecycle { Some(self.own_notary.clone()) } else { other }
    }

    /// Storage commitment, here or elsewhere.
    pub fn commitments(&self) -> Option<Arc<dyn Commitments>> {
        let other = self.other_commitments.clone().map(|client| client as Arc<dyn Commitments>);
        if self.roles.lifecycle { Some(self.own_commitments.clone()) } else { other }
    }

    /// Holds and erasures, which are lifecycle's.
    pub fn retention(&self) -> Option<Arc<dyn Retention>> {
        let other = self.other_retention.clone().map(|client| client as Arc<dyn Retention>);
        if self.roles.lifecycle { Some(self.own_retention.clone()) } else { other }
    }

    /// Policies, which are lifecycle's.
    pub fn policies(&self) -> Option<Arc<dyn Policies>> {
        let other = self.other_policies.clone().map(|client| client as Arc<dyn Policies>);
        if self.roles.lifecycle { Some(self.own_policies.clone()) } else { other }
    }

    /// Tiering, which is lifecycle's.
    pub fn tiering(&self) -> Option<Arc<dyn Tiering>> {
        let other = self.other_tiering.clone().map(|client| client as Arc<dyn Tiering>);
        if self.roles.lifecycle { Some(self.own_tiering.clone()) } else { other }
    }

    /// Replication, if it is here and there are other sites.
    pub fn replication(&self) -> Option<&OwnReplication> {
        self.replication.as_ref()
    }

    /// Asks again and again what is known of sites, for those who follow it. While nobody answers, what was known holds.
    pub async fn ask_about_sites(self, interval: Duration) {
        let Some(replication) = self.replication_anywhere() else { return };
        loop {
            match replication.site().await {
                Ok(status) => {
                    measured(&status);
                    self.sites.send_replace(Some(status));
                }
                Err(error) => tracing::debug!(%error, "what is decided of sites is not known"),
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Calls `apply` whenever something else is known of sites than before, with the configuration that follows from it.
    pub async fn follow_sites(&self, config: Config, apply: impl Fn(&Config, &SiteStatus) + Send) {
        let mut sites = self.sites.subscribe();
        let mut known: Option<SiteStatus> = None;
        // The sender is of this process: it can't be gone.
        while let Ok(status) = sites.wait_for(Option::is_some).await.map(|status| status.clone()) {
            sites.mark_unchanged();
            let status = status.map(|status| SiteStatus { at_ms: 0, ..status });
            if let Some(status) = status.filter(|status| known.as_ref() != Some(status)) {
                apply(&senders::beside(&config, &status), &status);
                known = Some(status);
            }
            if sites.changed().await.is_err() {
                return;
            }
        }
    }

    /// Replication of this site, here or elsewhere.
    fn replication_anywhere(&self) -> Option<Arc<dyn Replication>> {
        let other = self.other_replication.clone().map(|client| client as Arc<dyn Replication>);
        self.replication.as_ref().map(|own| own.operated.clone() as _).or(other)
    }

    /// Whether retrieval, here or elsewhere, can give instances now.
    ///
    /// # Errors
    /// Why not.
    pub async fn retrieval_ready(&self) -> Result<(), cairn_service_api::Error> {
        match &self.other_retrieval {
            Some(client) if !self.roles.retrieval => client.ready().await,
            _ => {
                self.own_retrieval.get()?;
                Ok(self.objects.get()?.space().await.map(|_| ())?)
            }
        }
    }
}

/// The roles of this process, running.
pub struct Running {
    stores: Stores,
    ingest: Option<Arc<IngestService>>,
    index: Option<Arc<IndexService>>,
    lifecycle: Option<Arc<LifecycleService>>,
    replication: Option<Arc<ReplicationService>>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Opens stores and roles, and lets the services know.
    ///
    /// # Errors
    /// Those of stores and roles.
    pub async fn open(config: Config, services: Services) -> Result<Self, Failure> {
        let roles = services.roles;
        let stores = Stores::open(&config, roles).await?;
        let mut running =
            Self { stores, ingest: None, index: None, lifecycle: None, replication: None, tasks: JoinSet::new() };
        if let Err(failure) = running.open_roles(&config, &services).await {
            running.stop().await;
            return Err(failure);
        }
        Ok(running)
    }

    async fn open_roles(&mut self, config: &Config, services: &Services) -> Result<(), Failure> {
        let (join, stores, roles) = (self.stores.join.take(), &self.stores, services.roles);
        if let (Some(opened), Some(stored)) = (&stores.log, &stores.log_as_stored) {
            let served = ServedLog { opened: opened.clone(), stored: stored.clone(), keys: stores.keys.clone() };
            // Set once, here.
            let _already = services.log.set(served);
        }
        if let (Some(log), Some(rows), Some(join)) = (&stores.log, &stores.index, join) {
            let share = join().map_err(Failure::failed)?;
            let index = IndexService::open(log.clone(), rows.clone(), share, config.index.clone()).await?;
            services.own_index.set(index.clone());
            if let Some(tiering) = services.tiering() {
                self.tasks.spawn(follow_tiers(tiering, index.clone(), config.clone()));
            }
            self.index = Some(index);
        }
        if let (Some(log), Some(objects), Some(quarantine)) = (&stores.log, &stores.objects, &stores.quarantine) {
            // By other processes, or with what other sites bring.
            let log_is_shared = config.stores.log != LogKind::Embedded || stores.notes.is_some();
            let (clock, whole, config) = (stores.clock.clone(), config, config.ingest_config());
            let quarantine = quarantine.clone();
            let ingest = IngestService::open(log.clone(), objects.clone(), services.index(), quarantine, clock, config);
            let ingest = Arc::new(ingest.await?);
            if log_is_shared {
                ingest.observe_others();
            }
            if let Some(replication) = services.replication_anywhere() {
                ingest.set_replication(replication);
                let (following, ingest, config) = (services.clone(), ingest.clone(), whole.clone());
                self.tasks.spawn(async move {
                    let apply = |config: &Config, status: &SiteStatus| {
                        ingest.set_profiles(senders::profiles(config));
                        ingest.set_read_only(status.read_only);
                    };
                    following.follow_sites(config, apply).await;
                });
            }
            services.own_ingest.set(ingest.clone());
            self.ingest = Some(ingest);
        }
        if let (Some(log), Some(objects), Some(notes), Some(own)) =
            (&stores.log_as_stored, &stores.objects, &stores.notes, &services.replication)
        {
            let (log, objects, notes, clock) = (log.clone(), objects.clone(), notes.clone(), stores.clock.clone());
            let (peers, settings, keys) = (other_sites(config)?, config.replication.clone(), stores.keys.clone());
            let replication = ReplicationService::open(log, objects, notes, clock, keys, settings, peers).await?;
            own.operated.set(replication.clone());
            own.peer.set(replication.clone());
            self.tasks.spawn(declare(replication.clone(), senders::of(config), config.replication.retry_pause_max));
            self.replication = Some(replication);
        }
        if let Some(objects) = &stores.objects {
            services.objects.set(objects.clone());
        }
        if let (Some(objects), Some(index), true) = (&stores.objects, services.index(), roles.retrieval) {
            let (objects, settings) = (objects.clone(), config.retrieval.clone());
            let told = Told {
                lifecycle: services.lifecycle(),
                tiering: services.tiering(),
                tenant: config.site.tenant.clone(),
                recall_on_read: config.tiers.recall_on_read,
            };
            services.own_retrieval.set(Arc::new(RetrievalService::telling(told, index, objects, settings)));
        }
        if let (Some(log), Some(opened_log), Some(objects), Some(notes)) =
            (&stores.log_as_stored, &stores.log, &stores.objects, &stores.lifecycle_notes)
        {
            let reporter = Arc::new(CallingReporter::new(config));
            let behind = Behind {
                log: log.clone(),
                opened_log: opened_log.clone(),
                keys: stores.keys.clone(),
                objects: objects.clone(),
                tiers: stores.tiers.clone(),
                copies: stores.copies.clone(),
                notes: notes.clone(),
                index: services.index(),
                replication: services.replication_anywhere(),
                reporter: Some(reporter.clone()),
                clock: stores.clock.clone(),
                disk: Arc::new(RealDisk),
                signer: signer(config)?,
            };
            let lifecycle = LifecycleService::open(behind, config.lifecycle.clone()).await?;
            services.own_lifecycle.set(lifecycle.clone());
            services.own_notary.set(lifecycle.notary().clone());
            services.own_commitments.set(lifecycle.clone());
            let (following, own) = (services.clone(), config.clone());
            self.tasks.spawn(async move {
                following.follow_sites(own, |config, _| reporter.set_destinations(config)).await;
            });
            services.own_retention.set(lifecycle.retention().clone());
            services.own_policies.set(lifecycle.policies().clone());
            services.own_tiering.set(lifecycle.tiering().clone());
            self.lifecycle = Some(lifecycle);
        }
        Ok(())
    }

    /// Receipts are summed up, lifecycle stops working, replication notes down how far it is, the index commits, stores close.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Some(lifecycle) = self.lifecycle
            && let Err(error) = lifecycle.close().await
        {
            tracing::warn!(%error, "lifecycle did not stop in order");
        }
        if let Some(ingest) = self.ingest
            && let Err(error) = ingest.close().await
        {
            tracing::warn!(%error, "receipts were not summed up");
        }
        if let Some(replication) = self.replication
            && let Err(error) = replication.close().await
        {
            tracing::warn!(%error, "how far other sites are was not noted down");
        }
        if let Some(index) = self.index
            && let Err(error) = index.close().await
        {
            tracing::warn!(%error, "the index did not stop in order");
        }
        self.stores.close().await;
    }
}

/// Who signs checkpoints.
fn signer(config: &Config) -> Result<Option<Arc<dyn Signer>>, Failure> {
    let key = config.lifecycle.notary.key.as_deref().map(Key::read).transpose()?;
    Ok(key.map(|key| Arc::new(key) as _))
}

fn measured(status: &SiteStatus) {
    let is = |so: bool| f64::from(u8::from(so));
    metrics::gauge!("cairn_site_epoch").set(status.epoch as f64);
    metrics::gauge!("cairn_site_has_authority").set(is(status.primary.as_ref() == Some(&status.site)));
    metrics::gauge!("cairn_site_read_only").set(is(status.read_only));
}

/// Lets the index know whether the cold object store can be reached. While lifecycle is away, what was known holds.
async fn follow_tiers(tiering: Arc<dyn Tiering>, index: Arc<IndexService>, config: Config) {
    loop {
        match tiering.tiering().await {
            Ok(status) => {
                let is_away = |tier: &TierStatus| tier.tier == Tier::Cold && tier.space.is_err();
                index.set_cold_away(config.tiers.archives || status.tiers.iter().any(is_away));
            }
            Err(error) => tracing::debug!(%error, "whether the cold object store can be reached is not known"),
        }
        tokio::time::sleep(config.lifecycle.tiering.look_interval).await;
    }
}

/// Tells the other sites what this one knows of its senders. A log that is away is waited for.
async fn declare(replication: Arc<ReplicationService>, senders: SendersConfigured, pause: Duration) {
    while let Err(error) = replication.declare(senders.clone()).await {
        tracing::warn!(%error, "other sites can't be told of this one's senders");
        tokio::time::sleep(pause).await;
    }
}

/// The other sites, each called over gRPC.
fn other_sites(config: &Config) -> Result<Vec<PeerConnection>, Failure> {
    let mut sites = Vec::new();
    for (site, peer) in &config.replication.peers {
        let Some(connection) = peers::connection(config, &peer.addresses)? else { continue };
        sites.push(PeerConnection {
            site: site.parse().map_err(Failure::failed)?,
            config: peer.clone(),
            peer: Arc::new(PeerClient::new(&connection)?),
        });
    }
    Ok(sites)
}
