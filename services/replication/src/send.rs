//! Sending to one peer what it does not hold, in the order of this site's log, partition by partition.

use crate::{
    config::{PeerConfig, ReplicationConfig},
    follow::Followed,
    metrics,
    named::{Named, named, sealed_under},
    notes::Notes,
    pace::{Pace, paced},
    reached::{Holdings, Reached},
    repair::Mender,
    standing::Standing,
};
use cairn_archive::{Incarnation, ObjectKey, Offset, Partition, Position, PositionVector, SiteId};
use cairn_process::clock::Clock;
use cairn_service_api::{
    Error, ErrorKind, Peer,
    ingest::Body,
    replication::{Delivery, Introduction, Link, Mark, Meeting, Outcome, Report},
    schedule::Schedule,
    site::Grounds,
};
use cairn_store_api::{
    EventLog, HandedKey, KeyRing, LogRecord, ObjectRef, ObjectStore, Record, StoreError, StoreErrorKind,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};

/// What sending needs of this site.
pub(crate) struct Here {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) followed: Arc<[Followed]>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) config: ReplicationConfig,
    pub(crate) mender: Mender,
    pub(crate) notes: Arc<Notes>,
    /// What events are sealed under; `None`: this site has no key store.
    pub(crate) keys: Option<Arc<KeyRing>>,
}

impl Here {
    /// The keys that events are sealed under, as the peer needs them to read these.
    async fn keys_of(&self, records: &[Record]) -> Result<Vec<HandedKey>, Error> {
        let Some(keys) = &self.keys else { return Ok(Vec::new()) };
        Ok(keys.hand(sealed_under(records)).await?)
    }
}

/// One peer, and how far it is.
pub(crate) struct Sending {
    pub(crate) site: SiteId,
    pub(crate) addresses: Vec<String>,
    pub(crate) rpo_target: Duration,
    pub(crate) schedule: Schedule,
    here: Arc<Here>,
    peer: Arc<dyn Peer>,
    state: Mutex<State>,
    paused: watch::Sender<bool>,
    /// Told when more is durable there.
    got_on: Notify,
    /// Told when the peer shows that it is there.
    shown: Notify,
    /// Told when the peer is another process than was met.
    anew: Notify,
    deliveries: Semaphore,
    objects: Semaphore,
    pub(crate) pace: Arc<Pace>,
    pub(crate) delivered: AtomicU64,
    pub(crate) objects_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    answered_at_ms: Option<u64>,
    /// The process that was met.
    process: u64,
    /// The life of its log.
    life: Incarnation,
    holds: Holdings,
    /// What it brought since it was met: it holds that too.
    brought: Holdings,
    /// Why it could not be told what it lacks, while it can't.
    silent: Option<String>,
    /// Of each partition, what the peer has.
    sent: Vec<Reached>,
    /// Of each partition, where the last delivery ended since the peer was met.
    delivered: BTreeMap<Partition, Offset>,
    /// Partitions that do not get on, and why.
    troubles: BTreeMap<Partition, String>,
}

impl State {
    fn holds(&self, origin: &Position) -> bool {
        self.holds.contains(origin) || self.brought.contains(origin)
    }
}

/// Why a session with a peer ended.
enum Ended {
    /// It is tried again.
    Failed(Error),
    /// It can't go on as it is.
    Refused(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Denied | ErrorKind::Conflict => Self::Refused(error.message),
            _ => Self::Failed(error),
        }
    }
}

impl Sending {
    pub(crate) fn new(
        here: Arc<Here>,
        site: SiteId,
        config: &PeerConfig,
        peer: Arc<dyn Peer>,
        sent: Vec<Reached>,
    ) -> Self {
        let PeerConfig { addresses, rpo_target, .. } = config.clone();
        let schedule = config.schedule();
        let pace = Arc::new(Pace::new(here.clock.clone(), schedule.clone()));
        let (deliveries, objects) =
            (Semaphore::new(here.config.deliveries_max), Semaphore::new(here.config.objects_max));
        let state = Mutex::new(State { sent, ..State::default() });
        let (delivered, objects_sent, bytes_sent) = Default::default();
        let paused = watch::Sender::new(false);
        Self {
            site,
            addresses,
            rpo_target,
            schedule,
            here,
            peer,
            state,
            paused,
            got_on: Notify::new(),
            shown: Notify::new(),
            anew: Notify::new(),
            deliveries,
            objects,
            pace,
            delivered,
            objects_sent,
            bytes_sent,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the connection is.
    pub(crate) fn link(&self) -> Link {
        let state = self.state();
        match &state.link {
            _ if *self.paused.borrow() => Link::Paused,
            None => Link::Connecting,
            Some(Link::Up) => match state.silent.iter().chain(state.troubles.values()).next() {
                Some(why) => Link::Failing(why.clone()),
                None => Link::Up,
            },
            Some(link) => link.clone(),
        }
    }

    pub(crate) fn answered_at_ms(&self) -> Option<u64> {
        self.state().answered_at_ms
    }

    /// What the peer has of a partition of this log.
    pub(crate) fn sent(&self, partition: Partition) -> Reached {
        self.state().sent.get(usize::from(partition.0)).cloned().unwrap_or_default()
    }

    /// The present life of the peer's log, as far as is known: what is of it the peer has. Of a life before it may have lost
    /// some.
    pub(crate) fn life(&self, reached: &Reached) -> Incarnation {
        reached.newest_life(&self.site).max(self.state().life)
    }

    /// Whether the peer is known to have an event, or it is its own.
    pub(crate) fn has(&self, followed: &Followed, record: &LogRecord) -> bool {
        let origin = followed.place.origin(record);
        let is_own = origin.site == self.site && origin.incarnation == self.life(&followed.reached());
        is_own || self.state().holds(&origin)
    }

    /// Takes note of what the peer brought: none of it goes back.
    pub(crate) fn brought(&self, records: &[Record]) {
        let mut state = self.state();
        for envelope in records.iter().map(|record| &record.envelope) {
            if let Some(origin) = &envelope.origin {
                state.brought.add_event(origin, envelope.id);
            }
        }
    }

    /// The peer is there: what waits for another attempt needs not wait any longer.
    pub(crate) fn is_there(&self) {
        // One that is refused stays so until an operator has done something.
        if matches!(self.state().link, None | Some(Link::Failing(_))) {
            self.shown.notify_one();
        }
    }

    /// Tells the peer what it lacks. A link that was cut without a word shows by that, and a peer that was started anew.
    pub(crate) async fn tell(&self, report: Report) {
        let (process, timeout) = (self.state().process, self.here.config.tell_timeout);
        let late = |_| Error::new(ErrorKind::Unavailable, format!("no answer within {timeout:?}"));
        let told = tokio::time::timeout(timeout, self.peer.tell(process, report)).await;
        let told = told.map_err(late).flatten();
        let mut state = self.state();
        // A meeting under way must not be cut short: it may take longer than from one report to the next.
        let is_another = told.as_ref().is_err_and(|error| error.kind == ErrorKind::Conflict);
        if is_another && state.process == process && state.link == Some(Link::Up) {
            state.link = None;
            self.anew.notify_one();
        }
        state.silent = told.err().map(|error| error.message);
    }

    /// Asks the peer to give its authority up in favour of this site.
    pub(crate) async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        self.peer.step_down(successor, grounds).await
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Keeps the peer in step for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut pause, config) = (self.here.config.retry_pause, &self.here.config);
        let mut paused = self.paused.subscribe();
        loop {
            // The sender is `self`: it can't be gone.
            drop(paused.wait_for(|paused| !paused).await);
            let met_before = self.state().answered_at_ms;
            let ended = tokio::select! {
                ended = self.session() => ended,
                why = self.here.standing.until_strayed() => Ended::Refused(why),
                () = self.anew.notified() => continue,
                _ = paused.wait_for(|paused| *paused) => continue,
            };
            if self.state().answered_at_ms != met_before {
                pause = config.retry_pause;
            }
            let link = match ended {
                Ended::Failed(error) => Link::Failing(error.message),
                Ended::Refused(why) => Link::Refused(why),
            };
            if self.state().link.as_ref() != Some(&link) {
                tracing::warn!(peer = %self.site, ?link, "replication does not get on");
            }
            self.state().link = Some(link);
            // However often it shows that it is there, and though both sides wake each other.
            tokio::time::sleep(config.retry_pause).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(config.retry_pause)) => {}
                () = self.shown.notified() => {}
            }
            pause = (pause * 2).min(config.retry_pause_max);
        }
    }

    /// Meets the peer and sends to it until that fails.
    async fn session(self: &Arc<Self>) -> Ended {
        if let Err(ended) = self.meet().await {
            return ended;
        }
        self.here.standing.met(&self.site);
        self.here.standing.all_met().await;
        let mut partitions = JoinSet::new();
        for partition in (0..self.here.log.partitions()).map(Partition) {
            let this = self.clone();
            partitions.spawn(async move { this.keep_in_step(partition).await });
        }
        match partitions.join_next().await {
            Some(Ok(ended)) => ended,
            _ => Ended::Failed(Error::new(ErrorKind::Internal, "a task of replication has ended")),
        }
    }

    async fn meet(&self) -> Result<(), Ended> {
        let log = &self.here.log;
        let (site, incarnation, partitions) = (log.site().clone(), log.incarnation(), log.partitions());
        let of_peer = |mark: &Mark| mark.site == self.site;
        let marks = self.here.followed.iter().flat_map(|followed| {
            followed.reached().marks(followed.place.partition).filter(of_peer).collect::<Vec<_>>()
        });
        let marks = marks.collect();
        // What it brings from now on it holds, whatever it says that it holds.
        self.state().brought = Holdings::default();
        let meeting = self.peer.meet(Introduction { site, incarnation, partitions, marks }).await?;
        self.check(&meeting).await?;
        let holds = Holdings::new(meeting.holds);
        let now = self.here.clock.unix_ms();
        let mut state = self.state();
        for (partition, sent) in (0..).map(Partition).zip(&mut state.sent) {
            if !holds.covers(partition, sent) {
                tracing::warn!(peer = %self.site, partition = partition.0, "the peer lacks what it had: it is sent again");
                *sent = Reached::default();
            }
        }
        (state.process, state.life, state.holds) = (meeting.process, meeting.incarnation, holds);
        state.delivered.clear();
        state.troubles.clear();
        state.silent = None;
        (state.link, state.answered_at_ms) = (Some(Link::Up), Some(now));
        drop(state);
        tracing::info!(peer = %self.site, "replication has met its peer");
        Ok(())
    }

    /// Whether the two sites can be kept in step.
    async fn check(&self, meeting: &Meeting) -> Result<(), Ended> {
        let refused = |why: String| Err(Ended::Refused(why));
        let log = &self.here.log;
        if meeting.site != self.site {
            return refused(format!("site {} answers at the addresses of {}", meeting.site, self.site));
        }
        if meeting.partitions != log.partitions() {
            let why =
                format!("{} has {} partitions, this site has {}", self.site, meeting.partitions, log.partitions());
            return refused(why);
        }
        if !meeting.strayed.is_empty() {
            return refused(format!(
                "the log of {} lacks events of its own that are held here: it was restored from a backup",
                self.site
            ));
        }
        for mark in meeting.holds.iter().filter(|mark| mark.site == *log.site()) {
            let Some(followed) = self.here.followed.get(usize::from(mark.partition.0)) else { continue };
            if !followed.agrees(mark).await.map_err(Error::from)? {
                return refused(self.here.standing.strayed(&self.site));
            }
        }
        match self.here.standing.why_strayed() {
            Some(why) => refused(why),
            None => Ok(()),
        }
    }

    /// Sends one partition as it grows, until the connection fails. What is amiss with this partition alone is tried again.
    async fn keep_in_step(&self, partition: Partition) -> Ended {
        let config = &self.here.config;
        let mut pause = config.retry_pause;
        loop {
            let error = match self.send_next(partition).await {
                Ok(()) => {
                    pause = config.retry_pause;
                    self.state().troubles.remove(&partition);
                    continue;
                }
                Err(error) => error,
            };
            match error.kind {
                // Of what is at this site, or of room there: others get on.
                ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Exhausted | ErrorKind::Invalid => {}
                _ => return Ended::Failed(error),
            }
            let why = format!("partition {}: {error}", partition.0);
            if self.state().troubles.insert(partition, why).is_none() {
                tracing::warn!(peer = %self.site, partition = partition.0, %error, "a partition is tried again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(config.retry_pause_max);
        }
    }

    /// Sends what follows in a partition, once there is something.
    async fn send_next(&self, partition: Partition) -> Result<(), Error> {
        let Here { log, config, .. } = &*self.here;
        let Some(followed) = self.here.followed.get(usize::from(partition.0)) else { return Ok(()) };
        let before = self.sent(partition);
        log.wait_beyond(partition, before.to).await?;
        let turn = self.deliveries.acquire().await;
        let bytes_max = usize::try_from(config.delivery_bytes_max).unwrap_or(usize::MAX);
        let batch = log.read(partition, before.to, config.delivery_events_max, bytes_max).await?;
        let mut after = before.clone();
        batch.records.iter().for_each(|record| after.include(&followed.place, record));
        let lacking: Vec<_> = {
            let state = self.state();
            batch.records.iter().filter(|record| !state.holds(&followed.place.origin(record))).collect()
        };
        let erased = self.send_objects(&lacking).await?;
        let record = |record: &&LogRecord| {
            let mut copy = record.record.clone();
            copy.envelope.origin = Some(followed.place.origin(record));
            copy
        };
        let records: Vec<Record> = lacking.iter().map(record).collect();
        let (site, incarnation) = (log.site().clone(), log.incarnation());
        let events = records.len();
        if events > 0 {
            // What lies between two deliveries is held there.
            let (process, from) = {
                let state = self.state();
                (state.process, state.delivered.get(&partition).copied().unwrap_or(before.to))
            };
            let (to, keys) = (after.to, self.here.keys_of(&records).await?);
            let delivery = Delivery { process, site, incarnation, partition, from, to, records, erased, keys };
            self.peer.append(delivery).await?;
            self.state().delivered.insert(partition, after.to);
        }
        drop(turn);
        self.is_durable_there(partition, after, &lacking, events);
        Ok(())
    }

    fn is_durable_there(&self, partition: Partition, after: Reached, delivered: &[&LogRecord], events: usize) {
        let now = self.here.clock.unix_ms();
        for record in delivered {
            metrics::was_at_risk(&self.site, Duration::from_millis(now.saturating_sub(record.appended_at_ms)));
        }
        metrics::delivered(&self.site, events);
        self.delivered.fetch_add(events as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.answered_at_ms = Some(now);
        state.holds.add(partition, &after);
        if let Some(sent) = state.sent.get_mut(usize::from(partition.0)) {
            *sent = after;
        }
        drop(state);
        self.got_on.notify_waiters();
    }

    /// Waits until the peer has everything of a partition before `end`.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub(crate) async fn wait_for(&self, partition: Partition, end: Offset) {
        loop {
            let mut got_on = std::pin::pin!(self.got_on.notified());
            got_on.as_mut().enable();
            let reached = self.state().sent.get(usize::from(partition.0)).is_some_and(|sent| sent.to >= end);
            if reached {
                return;
            }
            got_on.await;
        }
    }

    /// Sends the objects that events name and the peer does not have; gives those that are erased.
    async fn send_objects(&self, records: &[&LogRecord]) -> Result<Vec<ObjectKey>, Error> {
        let (mut objects, mut all_erased) = (Vec::new(), Vec::new());
        for record in records {
            let named: Named = named(&record.record);
            let (named, erased) = named.without_erased(&self.here.notes).await?;
            all_erased.extend(erased);
            objects.extend(named.all(&*self.here.objects).await?);
        }
        if objects.is_empty() {
            return Ok(all_erased);
        }
        let missing = self.peer.missing(objects.clone()).await?;
        let missing = missing.into_iter().filter_map(|at| objects.get(usize::try_from(at).ok()?));
        let sending = stream::iter(missing.map(Ok)).try_for_each_concurrent(self.here.config.objects_max, |object| {
            let object = *object;
            async move { self.send_whole(object).await }
        });
        sending.await?;
        Ok(all_erased)
    }

    /// Sends an object. One that is damaged here is brought again first, where a peer has it.
    async fn send_whole(&self, object: ObjectRef) -> Result<(), Error> {
        let error = match self.send_object(object).await {
            Err(error) if error.kind == ErrorKind::Corrupt => error,
            other => return other,
        };
        match self.here.mender.mend(object).await? {
            Outcome::Repaired { .. } => self.send_object(object).await,
            // On its way, then.
            Outcome::Whole => Err(error),
            Outcome::Lost(why) => Err(Error::new(error.kind, format!("{error}, and no other site has it: {why}"))),
        }
    }

    async fn send_object(&self, object: ObjectRef) -> Result<(), Error> {
        let _turn = self.objects.acquire().await;
        let key = object.key;
        // What the log names must be here, and whole: it is never passed over.
        let failed = move |error: StoreError| match error.kind() {
            StoreErrorKind::Corrupt => Error::new(ErrorKind::Corrupt, format!("object {key} is damaged here")),
            StoreErrorKind::NotFound | StoreErrorKind::Invalid => {
                Error::new(ErrorKind::Corrupt, format!("object {key} is not here as its event says"))
            }
            _ => Error::from(error),
        };
        let bytes = self.here.objects.read(&object, 0..object.length).await.map_err(failed)?;
        let bytes = bytes.map(move |chunk| chunk.map_err(failed));
        let body: Body<'static> = paced(bytes, self.pace.clone());
        self.peer.put_object(object, body).await?;
        metrics::sent(&self.site, object.length);
        self.objects_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(object.length, Ordering::Relaxed);
        Ok(())
    }
}
