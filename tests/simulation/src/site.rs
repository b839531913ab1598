//! A site: its stores, and the services that run over them until it crashes.

use crate::{
    instances::Instance,
    stores::{MemoryLog, MemoryObjects, MemoryRows, Process, Seen},
};
use cairn_archive::{
    ObjectKey, Position, SiteId,
    events::{Door as By, Event, ReceiptEnd},
    fold::EventOrder,
    patients::{PatientFact, Resolution},
};
use cairn_index::{IndexConfig, IndexService};
use cairn_ingest::{IngestConfig, IngestService, Quarantine, QuarantineConfig};
use cairn_lifecycle::{Behind, LifecycleConfig, LifecycleService, RetentionService};
use cairn_process::{clock::Clock, disk::sim::SimDisk};
use cairn_replication::{
    PeerConfig, PeerConnection, ReplicationConfig, ReplicationService,
    renew::{self, Found, Holder},
};
use cairn_service_api::{
    Error, ErrorKind, Index, Ingest, Peer, Replication,
    correction::{Correction, CorrectionRevocation},
    index::Conflict,
    ingest::{InstanceOffer, OfferedForm, Sender, Stored},
    patients::{FactsOf, KnownFact, PatientChange, PatientRevocation, PatientStatement},
    rejection::Revocation,
    replication::ReplicationStatus,
};
use cairn_store_api::{EventLog, Lives, LogRecord, ObjectInfo, WholeLog};
use futures_util::TryStreamExt;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// 2026-06-01
const BEGIN_MS: i64 = 1_780_272_000_000;
/// Partitions of each log.
pub const PARTITIONS: u16 = 4;

/// Virtual time, and how far off it the site is.
pub struct SkewedClock {
    start: Instant,
    skew_ms: AtomicI64,
}

impl Clock for SkewedClock {
    fn unix_ms(&self) -> u64 {
        let since = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        (BEGIN_MS + since + self.skew_ms.load(Ordering::Relaxed)) as u64
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Where a site's replication is asked; nobody answers while it is down.
#[derive(Default)]
pub struct Door(Mutex<Option<(Arc<ReplicationService>, watch::Receiver<bool>)>>);

impl Door {
    /// Calls who answers now. When the site crashes the call ends where it is.
    pub async fn call<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(Arc<dyn Peer>) -> F,
    ) -> Result<T, Error> {
        let away = || Error::new(ErrorKind::Unavailable, "the site is down");
        let (service, mut crashed) = self.0.lock().unwrap().clone().ok_or_else(away)?;
        tokio::select! {
            answer = call(service) => answer,
            _ = crashed.changed() => Err(away()),
        }
    }
}

struct Running {
    ingest: IngestService,
    replication: Arc<ReplicationService>,
    lifecycle: Option<Arc<LifecycleService>>,
    crash: watch::Sender<bool>,
    process: Process,
}

/// A site.
pub struct Site {
    pub name: SiteId,
    pub log: Arc<MemoryLog>,
    pub objects: Arc<MemoryObjects>,
    pub clock: Arc<SkewedClock>,
    pub door: Arc<Door>,
    /// Limit of what it sends to each peer, from its next start on.
    pub bytes_per_second: Option<u64>,
    notes: Arc<MemoryRows>,
    /// With it the site holds and erases.
    lifecycle: Option<LifecycleConfig>,
    lifecycle_notes: Arc<MemoryRows>,
    disk: SimDisk,
    running: Option<Running>,
}

/// What a backup of a site has.
pub struct Backup {
    log: Vec<Vec<LogRecord>>,
    lives: Lives,
    objects: BTreeMap<ObjectKey, (ObjectInfo, bytes::Bytes)>,
    notes: Arc<MemoryRows>,
}

impl Site {
    pub fn new(name: &str) -> Self {
        let name: SiteId = name.parse().unwrap();
        let clock = Arc::new(SkewedClock { start: Instant::now(), skew_ms: 0.into() });
        Self {
            log: MemoryLog::new(name.clone(), PARTITIONS, clock.clone()),
            objects: Arc::default(),
            clock,
            door: Arc::default(),
            bytes_per_second: None,
            notes: Arc::default(),
            lifecycle: None,
            lifecycle_notes: Arc::default(),
            disk: SimDisk::new(),
            running: None,
            name,
        }
    }

    /// A site that has lifecycle, too.
    pub fn with_lifecycle(name: &str, config: LifecycleConfig) -> Self {
        Self { lifecycle: Some(config), ..Self::new(name) }
    }

    pub fn set_skew(&self, skew_ms: i64) {
        self.clock.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the services over what the stores have.
    pub async fn start(&mut self, peers: Vec<(SiteId, Arc<dyn Peer>)>) {
        let mut config = IngestConfig::default();
        config.compare.search_interval = Duration::from_secs(36_000);
        config.clock.observe_interval = Duration::from_millis(50);
        let quarantine =
            Quarantine::open(Arc::new(self.disk.clone()), "/quarantine".into(), QuarantineConfig::default());
        let process = Process::default();
        let (log, objects) = (self.log.open(&process), self.objects.open(&process));
        let ingest =
            IngestService::open(log.clone(), objects.clone(), None, quarantine.unwrap(), self.clock.clone(), config);
        let ingest = ingest.await.unwrap();
        ingest.observe_others();
        let peers = peers.into_iter().map(|(site, peer)| PeerConnection {
            site,
            config: PeerConfig {
                rpo_target: Duration::from_secs(1),
                bytes_per_second: self.bytes_per_second,
                ..PeerConfig::default()
            },
            peer,
        });
        let replication = ReplicationService::open(
            log.clone(),
            objects.clone(),
            self.notes.open(&process),
            self.clock.clone(),
            None,
            ReplicationConfig { delivery_events_max: 7, ..ReplicationConfig::default() },
            peers.collect(),
        );
        let replication = replication.await.unwrap();
        ingest.set_replication(replication.clone());
        let lifecycle = match &self.lifecycle {
            None => None,
            Some(config) => {
                let behind = Behind {
                    log: log.clone(),
                    opened_log: log,
                    objects,
                    notes: self.lifecycle_notes.open(&process),
                    index: None,
                    replication: Some(replication.clone()),
                    reporter: None,
                    clock: self.clock.clone(),
                    disk: Arc::new(self.disk.clone()),
                    signer: None,
                    keys: None,
                    tiers: None,
                    copies: None,
                };
                Some(LifecycleService::open(behind, config.clone()).await.unwrap())
            }
        };
        let (crash, crashed) = watch::channel(false);
        *self.door.0.lock().unwrap() = Some((replication.clone(), crashed));
        self.running = Some(Running { ingest, replication, lifecycle, crash, process });
    }

    /// Ends the services where they are.
    pub fn crash(&mut self) {
        *self.door.0.lock().unwrap() = None;
        if let Some(running) = self.running.take() {
            running.process.crash();
            running.crash.send_replace(true);
        }
    }

    /// Sends an instance to the site, to be confirmed by so many others; `Err` when it is down or refuses.
    pub async fn store(&self, instance: Instance, confirmed_sites: u32) -> Result<Stored, Error> {
        self.store_file(instance.file(), confirmed_sites).await
    }

    /// The same of a file.
    pub async fn store_file(&self, file: bytes::Bytes, confirmed_sites: u32) -> Result<Stored, Error> {
        let running = self.running()?;
        let sender = Sender { tenant: "default".into(), door: By::Import, confirmed_sites, ..Sender::default() };
        let receipt = running.ingest.open_receipt(sender).await?;
        let offer = InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None };
        let body = futures_util::stream::iter([Ok(file)]);
        let stored = running.ingest.store(receipt, offer, Box::pin(body)).await;
        running.ingest.close_receipt(receipt, ReceiptEnd::Completed).await?;
        stored
    }

    /// Takes a rejection back that stands in the site's log.
    pub async fn revoke(&self, position: Position) -> Result<(), Error> {
        let revocation = Revocation { position, by: "operator".into(), reason: "simulated".into() };
        self.running()?.ingest.revoke_rejection(revocation).await.map(|_| ())
    }

    /// Corrects attributes at the site.
    pub async fn correct(&self, correction: Correction) -> Result<(), Error> {
        self.running()?.ingest.correct(correction).await.map(|_| ())
    }

    /// Takes a correction back that stands in the site's log.
    pub async fn revoke_correction(&self, position: Position) -> Result<(), Error> {
        let revocation = CorrectionRevocation { position, by: "operator".into(), reason: "simulated".into() };
        self.running()?.ingest.revoke_correction(revocation).await.map(|_| ())
    }

    /// Says something of patients at the site.
    pub async fn say_of_patients(&self, change: PatientChange) -> Result<Position, Error> {
        let (by, reason) = ("operator".into(), "simulated".into());
        let statement = PatientStatement { tenant: "default".into(), change, by, reason };
        self.running()?.ingest.say_of_patients(statement).await
    }

    /// Takes back what the site's log has of patients.
    pub async fn revoke_patient_fact(&self, position: Position) -> Result<(), Error> {
        let revocation = PatientRevocation { position, by: "operator".into(), reason: "simulated".into() };
        self.running()?.ingest.revoke_patient_fact(revocation).await.map(|_| ())
    }

    fn running(&self) -> Result<&Running, Error> {
        self.running.as_ref().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the site is down"))
    }

    /// What the site's log comes to of patients.
    pub fn patients(&self) -> Resolution {
        let read = |found: &LogRecord| {
            let event = Event::decode(&found.record.envelope.kind, found.record.payload.clone()).unwrap();
            PatientFact::read(EventOrder::of(&found.record.envelope), &event).map(Result::unwrap)
        };
        Resolution::of(self.log.records().iter().flatten().filter_map(read))
    }

    pub async fn status(&self) -> ReplicationStatus {
        self.replication().status().await.unwrap()
    }

    pub fn replication(&self) -> &Arc<ReplicationService> {
        &self.running.as_ref().unwrap().replication
    }

    /// What holds and erases here, while it is up.
    pub fn retention(&self) -> Option<Arc<RetentionService>> {
        Some(self.running.as_ref()?.lifecycle.as_ref()?.retention().clone())
    }

    /// Ends what lifecycle does by itself.
    pub async fn rest(&self) {
        if let Some(lifecycle) = self.running.as_ref().and_then(|running| running.lifecycle.as_ref()) {
            lifecycle.close().await.unwrap();
        }
    }

    pub fn backup(&self) -> Backup {
        let notes = Arc::new(self.notes.backup());
        Backup { log: self.log.records(), lives: self.log.lives_now(), objects: self.objects.backup(), notes }
    }

    /// Everything goes back to what it was; the site must be down.
    pub fn restore(&mut self, backup: Backup) {
        assert!(!self.is_up());
        self.log.restore(backup.log, backup.lives);
        self.objects.restore(backup.objects);
        self.notes = backup.notes;
    }

    /// Begins a new life of the log, if other sites, which are up, hold what it lacks; the site must be down.
    pub async fn renew(&self, others: &[&Site]) -> Result<Found, Error> {
        assert!(!self.is_up());
        let log = self.log.open(&Process::default());
        let seen: Vec<_> = others.iter().map(|other| Seen(other.log.clone())).collect();
        let holders = others.iter().zip(&seen).map(|(other, log)| {
            let peer: &dyn Peer = &**other.replication();
            Holder { site: other.name.clone(), peer, log }
        });
        let found = renew::find(&*log, &holders.collect::<Vec<_>>()).await?;
        if !found.lost.is_empty() {
            log.renew(found.incarnation, found.begins.clone()).await?;
        }
        Ok(found)
    }

    /// An index filled from the whole log: its digest, with what it makes of facts about patients, and the conflicts that it lists.
    pub async fn folded(&self) -> (Vec<u8>, Vec<Conflict>) {
        let log: Arc<dyn EventLog> = self.log.open(&Process::default());
        let mut end = cairn_archive::PositionVector::default();
        for (partition, records) in (0..).map(cairn_archive::Partition).zip(self.log.records()) {
            let key = (self.name.clone(), log.incarnation(), partition);
            end.0.insert(key, cairn_archive::Offset(records.len() as u64));
        }
        let join = Box::new(WholeLog::new(PARTITIONS));
        let index =
            IndexService::open(log, Arc::new(MemoryRows::default()), join, IndexConfig::default()).await.unwrap();
        index.wait_for(&end, Duration::from_secs(60)).await.unwrap();
        let (digest, _) = index.digest().await.unwrap();
        let conflicts = index.conflicts("default", true).await.unwrap().try_collect().await.unwrap();
        let facts: Vec<KnownFact> =
            index.patient_facts("default", FactsOf::Everybody).await.unwrap().try_collect().await.unwrap();
        let patients = Resolution::of(facts.iter().map(KnownFact::fact));
        index.close().await.unwrap();
        (format!("{digest:?} {patients:?}").into_bytes(), conflicts)
    }
}
