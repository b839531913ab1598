//! The service: everything that it keeps running, and what operators ask.

use crate::{
    config::{PeerConfig, ReplicationConfig},
    follow::Followed,
    metrics,
    notes::Notes,
    pace::paced,
    reached::{Reached, Totals},
    receive::{Receiver, Stores},
    repair::{self, Mender},
    risk,
    send::{Here, Sending},
    sites::Sites,
    standing::Standing,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Partition, Position, PositionVector, SiteId, authority};
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer, Reason, Replication,
    ingest::Body,
    replication::{
        AtRisk, Delivered, Delivery, Held, Inspected, Introduction, Link, Meeting, PeerStatus, ReplicationStatus,
        Report, Suspects,
    },
    site::{Decision, Grounds, SiteStatus},
};
use cairn_store_api::{EventLog, IndexStore, KeyRing, ObjectRef, ObjectStore};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// Another site, and how it is asked.
pub struct PeerConnection {
    /// Its name.
    pub site: SiteId,
    /// What is set for it.
    pub config: PeerConfig,
    /// How it is asked.
    pub peer: Arc<dyn Peer>,
}

/// Replication at one site.
pub struct ReplicationService {
    pub(crate) here: Arc<Here>,
    pub(crate) peers: BTreeMap<SiteId, Arc<Sending>>,
    pub(crate) sites: Arc<Sites>,
    receiver: Receiver,
    notes: Arc<Notes>,
    tasks: Mutex<JoinSet<()>>,
}

impl ReplicationService {
    /// Goes on from what was noted down. `log` is the one as it is stored, sealed; `notes` is an index store of its own; `keys`
    /// are what events are sealed under, where this site has a key store.
    ///
    /// # Errors
    /// The stores'; `Corrupt` when notes can't be read.
    pub async fn open(
        log: Arc<dyn EventLog>,
        objects: Arc<dyn ObjectStore>,
        notes: Arc<dyn IndexStore>,
        clock: Arc<dyn Clock>,
        keys: Option<Arc<KeyRing>>,
        config: ReplicationConfig,
        peers: Vec<PeerConnection>,
    ) -> Result<Arc<Self>, Error> {
        let notes = Arc::new(Notes::open(notes, log.incarnation()).await?);
        let mut followed = Vec::new();
        let mut sent: BTreeMap<SiteId, Vec<Reached>> = BTreeMap::new();
        for partition in (0..log.partitions()).map(Partition) {
            let mut noted = notes.partition(partition).await?;
            let (noted_to, noted_last) = (noted.own.to, noted.own.last);
            let mut own = Followed::new(log.clone(), partition, noted.own);
            if own.event_before(noted_to).await? != noted_last {
                tracing::error!(
                    partition = partition.0,
                    "the log is not the one that was read before: it is read anew"
                );
                (own, noted.peers) = (Followed::new(log.clone(), partition, Reached::default()), BTreeMap::new());
            }
            for peer in &peers {
                let reached = noted.peers.remove(&peer.site).unwrap_or_default();
                sent.entry(peer.site.clone()).or_default().push(reached);
            }
            followed.push(own);
        }
        let mut told = notes.told().await?;
        let told = peers.iter().map(|peer| (peer.site.clone(), told.remove(&peer.site))).collect();
        let followed: Arc<[Followed]> = followed.into();
        let sites = Arc::new(Sites::open(log.clone(), clock.clone(), notes.sites().await?).await?);
        let incoming = config.incoming_objects_max;
        let others = peers.iter().map(|peer| peer.site.clone()).collect();
        let standing = Arc::new(Standing::new(others, config.first_meetings_wait, notes.strayed().await?));
        let stores = Stores { log: log.clone(), objects: objects.clone(), notes: notes.clone(), keys: keys.clone() };
        let receiver = Receiver::new(stores, clock.clone(), followed.clone(), standing.clone(), told, incoming);
        let sources = peers.iter().map(|connection| (connection.site.clone(), connection.peer.clone())).collect();
        let mender = Mender::new(log.site().clone(), objects.clone(), sources, config.repair_silence_max);
        let here = Here { log, objects, clock, followed, standing, config, mender, notes: notes.clone(), keys };
        let here = Arc::new(here);
        let sending = |connection: PeerConnection| {
            let PeerConnection { site, config, peer } = connection;
            let sent = sent.remove(&site).unwrap_or_default();
            (site.clone(), Arc::new(Sending::new(here.clone(), site, &config, peer, sent)))
        };
        let peers = peers.into_iter().map(sending).collect();
        let service = Arc::new(Self { here, peers, sites, receiver, notes, tasks: Mutex::default() });
        service.begin();
        Ok(service)
    }

    fn begin(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = self.here.config.retry_pause;
        for partition in 0..self.here.followed.len() {
            let here = self.here.clone();
            tasks.spawn(async move {
                if let Some(followed) = here.followed.get(partition) {
                    followed.follow(&here.notes, pause).await;
                }
            });
        }
        let sites = self.sites.clone();
        tasks.spawn(async move { sites.follow(pause).await });
        for peer in self.peers.values() {
            tasks.spawn(peer.clone().run());
            tasks.spawn(tell(self.here.clone(), peer.clone()));
        }
        let (this, here) = (Arc::downgrade(self), self.here.clone());
        tasks.spawn(async move {
            loop {
                let interval = tokio::time::sleep(here.config.notes_interval);
                match here.standing.why_strayed() {
                    Some(_) => interval.await,
                    // At once: the next start knows it, whichever peers can be reached then.
                    None => tokio::select! {
                        () = interval => {}
                        _ = here.standing.until_strayed() => {}
                    },
                }
                let Some(this) = this.upgrade() else { return };
                if let Err(error) = this.note().await {
                    tracing::warn!(%error, "how far replication is could not be noted down");
                }
            }
        });
    }

    /// Notes down how far everything is.
    async fn note(&self) -> Result<(), Error> {
        for followed in self.here.followed.iter() {
            let own = followed.reached().clone();
            let partition = followed.place.partition;
            let peers = self.peers.values().map(|peer| (peer.site.clone(), peer.sent(partition)));
            // It is of no partition: the first one has it.
            let told =
                self.peers.keys().filter(|_| partition == Partition(0)).filter_map(|peer| self.receiver.told(peer));
            let sites = (partition == authority::partition(self.here.log.partitions())).then(|| self.sites.seen());
            let strayed = self.here.standing.why_strayed().filter(|_| partition == Partition(0));
            self.notes.note(partition, &own, peers, told, sites, strayed).await?;
        }
        Ok(())
    }

    /// Waits until the log has been read as far as it goes now, where it can be read.
    async fn read_to_the_end(&self) {
        for followed in self.here.followed.iter() {
            if let Ok(end) = self.here.log.end(followed.place.partition).await {
                followed.wait_for(end).await;
            }
        }
    }

    /// What became a fact here.
    fn held_here(&self) -> Held {
        let mut own = Totals::default();
        for followed in self.here.followed.iter() {
            let reached = followed.reached();
            let lives = reached.totals.iter().filter(|((site, _), _)| *site == followed.place.site);
            lives.for_each(|(_, totals)| own += *totals);
        }
        let Totals { events, instances, bytes } = own;
        Held { events, instances, bytes }
    }

    pub(crate) fn sending(&self, site: &SiteId) -> Result<&Arc<Sending>, Error> {
        self.peers.get(site).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{site} is no peer of this site")))
    }

    /// Stops sending and taking, and notes down how far it is.
    ///
    /// # Errors
    /// The notes' store's.
    pub async fn close(&self) -> Result<(), Error> {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.note().await?;
        self.notes.close().await
    }
}

/// Measures what a peer lacks, and tells it, again and again.
async fn tell(here: Arc<Here>, peer: Arc<Sending>) {
    let mut tick = tokio::time::interval(here.config.tell_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let risk = match risk::measure(&here, &peer).await {
            Ok(risk) => risk,
            Err(error) => {
                tracing::debug!(peer = %peer.site, %error, "what is at risk can't be measured");
                continue;
            }
        };
        let at_ms = here.clock.unix_ms();
        let link = peer.link();
        metrics::measured(&peer.site, &link, &risk, risk.age(at_ms), peer.rpo_target);
        if matches!(link, Link::Up | Link::Failing(_)) {
            let report = Report { site: here.log.site().clone(), at_ms, risk };
            peer.tell(report).await;
        }
    }
}

#[async_trait]
impl Peer for ReplicationService {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        let site = caller.site.clone();
        let meeting = self.receiver.meet(caller).await?;
        if let Some(peer) = self.peers.get(&site) {
            peer.is_there();
        }
        Ok(meeting)
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        self.receiver.missing(objects).await
    }

    async fn put_object(&self, object: ObjectRef, body: Body<'_>) -> Result<(), Error> {
        self.receiver.put_object(object, body).await
    }

    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        let bytes = self.receiver.read_object(caller, object).await?;
        match self.peers.get(caller) {
            Some(peer) => Ok(paced(bytes, peer.pace.clone())),
            None => Ok(bytes),
        }
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        // First: once it is in the log here, sending looks at it.
        if let Some(peer) = self.peers.get(&delivery.site) {
            peer.brought(&delivery.records);
        }
        self.receiver.append(delivery).await
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.receiver.tell(process, report)
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        if !self.peers.contains_key(successor) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("site {successor} is no peer of {}", self.here.log.site()),
            ));
        }
        self.give_up(successor.as_str(), grounds).await
    }
}

#[async_trait]
impl Replication for ReplicationService {
    async fn status(&self) -> Result<ReplicationStatus, Error> {
        // What was acknowledged a moment ago is counted too; with the log away, what was read before.
        let _in_time = tokio::time::timeout(self.here.config.tell_timeout, self.read_to_the_end()).await;
        let mut peers = Vec::with_capacity(self.peers.len());
        for peer in self.peers.values() {
            peers.push(PeerStatus {
                site: peer.site.clone(),
                addresses: peer.addresses.clone(),
                link: peer.link(),
                answered_at_ms: peer.answered_at_ms(),
                risk: risk::measure(&self.here, peer).await?,
                rpo_target: peer.rpo_target,
                schedule: peer.schedule.clone(),
                objects_repaired: self.here.mender.repaired_from(&peer.site),
                events_delivered: peer.delivered.load(Ordering::Relaxed),
                objects_sent: peer.objects_sent.load(Ordering::Relaxed),
                bytes_sent: peer.bytes_sent.load(Ordering::Relaxed),
                told: self.receiver.told(&peer.site),
            });
        }
        let (log, clock) = (&self.here.log, &self.here.clock);
        Ok(ReplicationStatus {
            site: log.site().clone(),
            incarnation: log.incarnation(),
            at_ms: clock.unix_ms(),
            own: self.held_here(),
            available_bytes: self.here.objects.space().await?.available,
            peers,
        })
    }

    async fn at_risk(&self, peer: &SiteId) -> Result<AnswerStream<AtRisk>, Error> {
        let peer = self.sending(peer)?.clone();
        Ok(Box::pin(risk::list(self.here.clone(), peer)))
    }

    async fn confirm(&self, position: &Position, sites: u32, timeout: Duration) -> Result<u32, Error> {
        let (log, wanted) = (&self.here.log, usize::try_from(sites).unwrap_or(usize::MAX));
        if position.site != *log.site() || position.incarnation != log.incarnation() {
            return Err(Error::new(ErrorKind::Invalid, "the position is not of this site's log"));
        }
        if wanted > self.peers.len() {
            let message = format!("{sites} other sites are to confirm, and there are {}", self.peers.len());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let end = position.offset.next();
        let waiting = self.peers.values().map(|peer| peer.wait_for(position.partition, end));
        let confirming = waiting.collect::<FuturesUnordered<_>>().take(wanted).count();
        match tokio::time::timeout(timeout, confirming).await {
            Ok(confirmed) => Ok(u32::try_from(confirmed).unwrap_or(u32::MAX)),
            Err(_) => {
                let message = format!("not confirmed by {sites} other sites within {timeout:?}; it is stored here");
                Err(Error::because(ErrorKind::Unavailable, Reason::NotConfirmed, message))
            }
        }
    }

    async fn repair(&self, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error> {
        repair::run(self.here.clone(), suspects).await
    }

    async fn set_paused(&self, peer: &SiteId, paused: bool) -> Result<(), Error> {
        self.sending(peer)?.set_paused(paused);
        Ok(())
    }

    async fn site(&self) -> Result<SiteStatus, Error> {
        Ok(self.site_status())
    }

    async fn decide(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error> {
        self.decided(decision, grounds).await
    }
}
