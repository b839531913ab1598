//! Deciding: look for everything, await what may come, read all of it back, have other sites confirm it.

use super::{
    ledger::Ledger,
    look::{Looking, Seen, ToRead},
    record::{Known, decided},
};
use crate::{append::Appender, config::CommitmentConfig, fixity::Damages, metrics, notes::malformed};
use cairn_archive::{
    Digest, EventId, ObjectKey, Position,
    commitment::{FailureReason, Reference, State, from_groups},
    events::{CommitmentReferences, CommitmentRequested, DamageFoundBy, Event},
};
use cairn_service_api::{
    Error, ErrorKind, Index, Reason, Replication,
    commitment::Transaction,
    index::{Detail, Selection},
    lifecycle::NamedObject,
};
use cairn_store_api::{EventLog, ObjectRef, ObjectStore};
use futures_util::{StreamExt, TryStreamExt, stream};
use prost::Message;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::{self, JoinSet},
};

/// What deciding works with.
pub(super) struct Deciding {
    pub(super) ledger: Arc<Ledger>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) index: Option<Arc<dyn Index>>,
    pub(super) replication: Option<Arc<dyn Replication>>,
    pub(super) damages: Arc<Damages>,
    pub(super) appender: Arc<Appender>,
    pub(super) config: CommitmentConfig,
    /// Objects that are read back at once.
    pub(super) reads: Semaphore,
}

/// What became of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Decided,
    /// It is to be looked again.
    NotYet,
}

/// How far deciding one transaction is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    looks: u32,
    /// When it is looked at again; `None`: now.
    due: Option<Instant>,
}

/// What is being decided.
#[derive(Default)]
struct UnderWay {
    progress: HashMap<Transaction, Progress>,
    working: JoinSet<Looked>,
    of: HashMap<task::Id, Transaction>,
}

impl UnderWay {
    fn is_due(&self, transaction: &Transaction) -> bool {
        let progress = self.progress.get(transaction);
        progress.is_none_or(|progress| progress.due.is_some_and(|due| due <= Instant::now()))
    }

    /// When the next one is to be looked at again.
    fn due(&self) -> Option<Instant> {
        self.progress.values().filter_map(|progress| progress.due).min()
    }
}

/// Waits until then; for ever, where there is no such time.
pub(super) async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

impl Deciding {
    /// Decides what is asked for, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut changes = self.ledger.changes();
        let mut under_way = UnderWay::default();
        loop {
            changes.mark_unchanged();
            self.begin(&mut under_way);
            // With no place left, the next end of one makes one.
            let has_room = under_way.working.len() < self.config.requests_at_once.max(1);
            let due = has_room.then(|| under_way.due()).flatten();
            tokio::select! {
                _ = changes.changed() => {}
                Some(ended) = under_way.working.join_next_with_id() => self.ended(ended, &mut under_way),
                () = until(due) => {}
            }
        }
    }

    /// Begins with those that are due, the oldest first, as many as may be worked on.
    fn begin(self: &Arc<Self>, under_way: &mut UnderWay) {
        let mut pending = self.ledger.each_open(|(transaction, known)| {
            let asked_at = known.folded.request()?.order.hlc;
            (known.folded.state() == Some(State::Pending)).then(|| (asked_at, transaction.clone()))
        });
        pending.sort();
        let is_pending: HashSet<&Transaction> = pending.iter().map(|(_, transaction)| transaction).collect();
        under_way.progress.retain(|of, progress| progress.due.is_none() || is_pending.contains(of));
        for (_, transaction) in pending {
            if under_way.working.len() >= self.config.requests_at_once.max(1) {
                return;
            }
            if under_way.is_due(&transaction) {
                let looks = under_way.progress.get(&transaction).map_or(0, |progress| progress.looks);
                under_way.progress.insert(transaction.clone(), Progress { looks: looks + 1, due: None });
                let (this, of) = (self.clone(), transaction.clone());
                let task = under_way.working.spawn(async move { this.look_at(&of).await });
                under_way.of.insert(task.id(), transaction);
            }
        }
    }

    fn ended(&self, ended: Result<(task::Id, Looked), task::JoinError>, under_way: &mut UnderWay) {
        let (id, looked) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "deciding about storage commitment ended");
                (error.id(), Looked::NotYet)
            }
        };
        let Some(transaction) = under_way.of.remove(&id) else { return };
        match looked {
            Looked::Decided => drop(under_way.progress.remove(&transaction)),
            Looked::NotYet => {
                let (first, most) = (self.config.look_interval, self.config.look_interval_max);
                let progress = under_way.progress.entry(transaction).or_insert(Progress { looks: 1, due: None });
                let pause = first.saturating_mul(1 << progress.looks.saturating_sub(1).min(16)).min(most);
                progress.due = Some(Instant::now() + pause);
            }
        }
    }

    /// Looks once, and decides if that can be done.
    async fn look_at(&self, transaction: &Transaction) -> Looked {
        let known = match self.ledger.known(transaction).await {
            Ok(Some(known)) if known.folded.state() == Some(State::Pending) => known,
            Ok(_) => return Looked::Decided,
            Err(error) => {
                tracing::warn!(%error, "a request for storage commitment can't be read");
                return Looked::NotYet;
            }
        };
        match self.try_to_decide(transaction, &known).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(%error, "a request for storage commitment can't be decided yet");
                Looked::NotYet
            }
        }
    }

    async fn try_to_decide(&self, transaction: &Transaction, known: &Known) -> Result<Looked, Error> {
        let request = known.folded.request().ok_or_else(malformed)?;
        let asked_ms = request.order.hlc.wall_ms;
        let Event::CommitmentRequested(whole) = self.ledger.event(known, request.order.id).await? else {
            return Err(malformed());
        };
        let references = self.references(&whole).await?;
        let left = Duration::from_millis(whole.await_until_ms.saturating_sub(self.appender.now_ms()));
        let outcomes = match self.outcomes(transaction, &references, whole.confirmed_sites, left).await {
            Ok(Some(outcomes)) => outcomes,
            Ok(None) => return Ok(Looked::NotYet),
            Err(error) if self.is_given_up(asked_ms) => {
                tracing::warn!(%error, "a request for storage commitment is decided without a look");
                vec![Some(FailureReason::RESOURCE_LIMITATION); references.len()]
            }
            Err(error) => return Err(error),
        };
        let decision = decided(transaction, request.order.id, &outcomes);
        self.ledger.append(decision, Some(request.order.id), Some(known)).await?;
        metrics::decided(&outcomes, Duration::from_millis(self.appender.now_ms().saturating_sub(asked_ms)));
        Ok(Looked::Decided)
    }

    fn is_given_up(&self, asked_ms: u64) -> bool {
        let waited = Duration::from_millis(self.appender.now_ms().saturating_sub(asked_ms));
        waited >= self.config.decision_timeout
    }

    /// What a request is about.
    pub(super) async fn references(&self, request: &CommitmentRequested) -> Result<Vec<Reference>, Error> {
        let groups = match (&request.references, &request.side_object) {
            (Some(groups), _) => groups.clone(),
            (None, Some(object)) => {
                let key = ObjectKey::from_slice(&object.key).map_err(|_| malformed())?;
                let digest = Digest::from_slice(&object.blake3).map_err(|_| malformed())?;
                let object = ObjectRef { key, length: object.length_bytes, digest };
                let chunks: Vec<_> = self.objects.read(&object, 0..object.length).await?.try_collect().await?;
                CommitmentReferences::decode(chunks.concat().as_slice()).map_err(|_| malformed())?
            }
            (None, None) => return Err(malformed()),
        };
        from_groups(&groups).map_err(|_| malformed())
    }

    /// What became of each reference; `None`: something is awaited, and there is time left.
    async fn outcomes(
        &self,
        transaction: &Transaction,
        references: &[Reference],
        sites: u32,
        left: Duration,
    ) -> Result<Option<Vec<Option<FailureReason>>>, Error> {
        let unknown = || Error::new(ErrorKind::Unavailable, "where instances are is not known: there is no index");
        let index = self.index.as_deref().ok_or_else(unknown)?;
        let (is_of_several_sites, studies) = (sites > 0, HashMap::new());
        let mut looking = Looking { index, log: &self.log, transaction, is_of_several_sites, studies };
        looking.wait_for_index(left.max(Duration::from_secs(1))).await?;
        let mut seen = looking.look(references).await?;
        if seen.is_awaited && !left.is_zero() {
            return Ok(None);
        }
        self.read_back(index, transaction, references, &mut seen).await?;
        if sites > 0 && !self.confirm(&seen, sites, left).await? {
            if !left.is_zero() {
                return Ok(None);
            }
            // Nobody says which of them are not there.
            let committed = seen.outcomes.iter_mut().filter(|outcome| outcome.is_none());
            committed.for_each(|outcome| *outcome = Some(FailureReason::RESOURCE_LIMITATION));
        }
        Ok(Some(seen.outcomes))
    }

    /// Reads everything that would be committed; what does not read back is not.
    async fn read_back(
        &self,
        index: &dyn Index,
        transaction: &Transaction,
        references: &[Reference],
        seen: &mut Seen,
    ) -> Result<(), Error> {
        let to_read = std::mem::take(&mut seen.to_read);
        let reads = to_read.into_iter().map(|version| async move {
            let reference = references.get(version.place).ok_or_else(malformed)?;
            let is_whole = self.is_whole(index, transaction, reference, version).await?;
            Ok::<_, Error>((version.place, is_whole))
        });
        let mut reads = stream::iter(reads).buffer_unordered(self.config.objects_at_once.max(1));
        while let Some((place, is_whole)) = reads.try_next().await? {
            if let (false, Some(outcome)) = (is_whole, seen.outcomes.get_mut(place)) {
                *outcome = Some(FailureReason::PROCESSING_FAILURE);
            }
        }
        Ok(())
    }

    /// Whether every object of a version reads back as its event says, or does again once it was brought from elsewhere.
    async fn is_whole(
        &self,
        index: &dyn Index,
        transaction: &Transaction,
        reference: &Reference,
        version: ToRead,
    ) -> Result<bool, Error> {
        // Never closed.
        let _turn = self.reads.acquire().await.map_err(|_| malformed())?;
        for object in version.objects() {
            let Some(damage) = self.damages.inspect(&object, u64::MAX).await? else { continue };
            let named = self.named(index, transaction, reference, version.named_by, object).await?;
            if !self.damages.found(&named, damage, DamageFoundBy::Commitment).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is known of a damaged object.
    async fn named(
        &self,
        index: &dyn Index,
        transaction: &Transaction,
        reference: &Reference,
        named_by: EventId,
        object: ObjectRef,
    ) -> Result<NamedObject, Error> {
        let selection = Selection {
            tenant: transaction.tenant.clone(),
            instances: vec![reference.sop_instance_uid.clone()],
            all_versions: true,
            ..Selection::default()
        };
        let versions: Vec<_> = index.instances(selection, Detail::Location).await?.try_collect().await?;
        let of = versions.into_iter().find(|record| record.store_event == named_by);
        let of = of.ok_or_else(|| Error::new(ErrorKind::Unavailable, "an instance changed while it was read back"))?;
        Ok(NamedObject {
            object,
            named_by,
            tenant: transaction.tenant.clone(),
            study_instance_uid: of.study_instance_uid.to_string(),
            series_instance_uid: of.series_instance_uid.to_string(),
            sop_instance_uid: of.sop_instance_uid.to_string(),
        })
    }

    /// Whether as many other sites hold what would be committed.
    async fn confirm(&self, seen: &Seen, sites: u32, left: Duration) -> Result<bool, Error> {
        let Some(replication) = &self.replication else {
            tracing::warn!("other sites are to confirm what is committed, and none are configured");
            return Ok(false);
        };
        for partition in &seen.partitions {
            // What the index knows stands before the end of the log.
            let Some(last) = self.log.end(*partition).await?.0.checked_sub(1) else { continue };
            let position = Position {
                site: self.log.site().clone(),
                incarnation: self.log.incarnation(),
                partition: *partition,
                offset: cairn_archive::Offset(last),
            };
            match replication.confirm(&position, sites, left.max(Duration::from_millis(1))).await {
                Ok(_) => {}
                Err(error) if error.reason == Reason::NotConfirmed || error.kind == ErrorKind::Invalid => {
                    tracing::info!(%error, "what is to be committed is not confirmed");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
