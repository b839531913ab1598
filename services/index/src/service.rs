//! The index service.

use crate::{
    answering::{Place, closing},
    config::IndexConfig,
    diff, digests, instances, keeper,
    lag::{Firsts, Folded},
    manage, metrics,
    pointer::Pointer,
    project::{Generations, Opened, Part, Project},
    query,
    rows::Rows,
    survey,
};
use async_trait::async_trait;
use cairn_archive::{
    EventId, Offset, Partition, PositionVector,
    digest::{FOLD_VERSION, Leaf, Leaves},
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_process::clock::{Clock, SystemClock};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Reason,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
    parked::{ParkedEvent, ParkedSelection},
    patients::{FactsOf, KnownFact},
    survey::{Survey, Surveyed},
};
use cairn_store_api::{EventLog, Generation, IndexStore, Membership};
use futures_util::future::try_join_all;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

/// The index over one log and one index store, which several processes may share.
pub struct IndexService {
    pub(crate) shared: Arc<Shared>,
    /// What watches pointer and membership; `None` once the index is closed.
    tasks: tokio::sync::Mutex<Option<JoinSet<()>>>,
}

/// What queries, followers and the keeper share.
pub(crate) struct Shared {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) store: Arc<dyn IndexStore>,
    pub(crate) config: IndexConfig,
    pub(crate) clock: Arc<dyn Clock>,
    queries: Arc<Semaphore>,
    pub(crate) keeping: Mutex<keeper::Keeping>,
    /// One look at the pointer at a time.
    pub(crate) looking: tokio::sync::Mutex<keeper::Seen>,
    /// Those over this store.
    pub(crate) generations: Generations,
    /// Wakes the keeper.
    pub(crate) told: Arc<Notify>,
    firsts: Firsts,
    /// Whether what is in the site's cold object store can't be had at once.
    pub(crate) cold_is_away: AtomicBool,
    pub(crate) stop: watch::Sender<bool>,
}

/// A generation that a query reads.
pub(crate) struct Pinned {
    pub(crate) project: Arc<Project>,
    pub(crate) rows: Rows,
    _pin: Arc<()>,
}

impl IndexService {
    /// Opens the index and begins to follow the partitions of the log that `membership` gives to this process. An index that
    /// belongs to another life of the log, or to other events at the same offsets, makes place for an empty one.
    ///
    /// # Errors
    /// Those of log and index store.
    pub async fn open(
        log: Arc<dyn EventLog>,
        store: Arc<dyn IndexStore>,
        membership: Box<dyn Membership>,
        config: IndexConfig,
    ) -> Result<Arc<Self>, Error> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let pointer = Pointer::read_or_create(&*store, log.incarnation(), clock.unix_ms()).await?;
        keeper::drop_waste(&*store, &pointer).await?;
        let (generations, told) = (Generations::default(), Arc::new(Notify::new()));
        let serving = loop {
            let pointer = Pointer::decode(&store.pointer().await?)?;
            let serving = pointer.serving().ok_or_else(nothing_serves)?;
            let rows = Rows { store: store.clone(), generation: serving.generation, page: config.page_rows_max.max(1) };
            let same_life = serving.incarnation.is_none_or(|life| life >= log.incarnation());
            let (own_log, own_config) = (log.clone(), config.clone());
            match Project::open(own_log, rows, own_config, None, &generations, told.clone()).await? {
                Opened::Continues(project) if same_life => break project,
                _ => keeper::begin_anew(&*store, serving.generation, log.incarnation(), clock.unix_ms()).await?,
            }
        };
        let (stop, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            queries: Arc::new(Semaphore::new(config.queries_max.max(1))),
            keeping: Mutex::new(keeper::Keeping::new(serving)),
            looking: tokio::sync::Mutex::default(),
            log,
            store,
            config,
            clock,
            generations,
            told,
            firsts: Firsts::default(),
            cold_is_away: AtomicBool::default(),
            stop,
        });
        shared.look().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper::share(shared.clone(), membership));
        tasks.spawn(keeper::keep(shared.clone()));
        tasks.spawn(crate::parked::resume(shared.clone()));
        Ok(Arc::new(Self { shared, tasks: tokio::sync::Mutex::new(Some(tasks)) }))
    }

    /// Tells whether what is in the cold object store of this site can't be had, because that is away or must restore it first:
    /// InstanceAvailability of it is OFFLINE then, else NEARLINE.
    pub fn set_cold_away(&self, is_away: bool) {
        self.shared.cold_is_away.store(is_away, Ordering::Relaxed);
    }

    /// Stops following the log, between commits, and makes what was committed durable. Log and store stay open.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.stop.send_replace(true);
        if let Some(tasks) = self.tasks.lock().await.take() {
            tasks.join_all().await;
        }
        self.shared.end_followers().await;
        Ok(self.shared.store.sync(false).await?)
    }
}

impl Drop for IndexService {
    /// An index that is not closed in order stops too: nothing else would.
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        self.shared.let_followers_end();
    }
}

pub(crate) fn nothing_serves() -> Error {
    Error::new(ErrorKind::Internal, "no generation of the index serves")
}

impl Shared {
    pub(crate) fn keeping(&self) -> std::sync::MutexGuard<'_, keeper::Keeping> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation that answers now.
    pub(crate) fn serving(&self) -> Arc<Project> {
        self.keeping().serving()
    }

    /// A generation for a query: the one that answers, or another one that is filled.
    pub(crate) async fn pinned(&self, generation: Option<u32>) -> Result<Pinned, Error> {
        let project = match generation {
            None => self.serving(),
            Some(number) => {
                // Another process may have made it just now, or filled its last part.
                self.look().await?;
                let known = self.keeping().get(Generation(number));
                if let Some(known) = known {
                    known.refresh(false).await?;
                }
                self.keeping().queryable(Generation(number))?
            }
        };
        Ok(Pinned { rows: self.rows(project.rows.generation), _pin: project.pin(), project })
    }

    pub(crate) fn rows(&self, generation: Generation) -> Rows {
        Rows { store: self.store.clone(), generation, page: self.config.page_rows_max.max(1) }
    }

    /// Waits for a place among the queries.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        Place::take(&self.queries).await
    }

    /// Whether all that a query has read was there: another process may have dropped its generation meanwhile, no sooner
    /// than `drop_grace` after the pointer said so. Without this, answers that are missing would look like the end of them.
    pub(crate) async fn was_there(&self, pinned: &Pinned) -> Result<(), Error> {
        let listed_at = || *pinned.project.listed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if listed_at().elapsed() < self.config.drop_grace {
            return Ok(());
        }
        self.look().await?;
        if listed_at().elapsed() < self.config.drop_grace {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the generation that was asked is gone"))
    }
}

#[async_trait]
impl Index for IndexService {
    #[tracing::instrument(name = "index.query", skip_all, fields(level = query::name(query.level)))]
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error> {
        metrics::queried(query::name(query.level));
        query::run(&self.shared, query).await
    }

    async fn instances(&self, selection: Selection, detail: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        metrics::queried("location");
        instances::run(&self.shared, selection, detail).await
    }

    /// Partitions that others follow are looked up in the store, in pauses that grow.
    async fn wait_for(&self, after: &PositionVector, timeout: Duration) -> Result<(), Error> {
        let config = &self.shared.config;
        let deadline = Instant::now() + timeout.min(config.wait_max);
        let late = || Error::because(ErrorKind::Unavailable, Reason::NotYetIndexed, "the index is not that far yet");
        // What the store had lately, and of which generation.
        let (mut pause, mut ends, mut of) = (config.elsewhere_poll, Vec::new(), Generation(0));
        loop {
            // While another generation is about to answer, whichever is behind.
            let mut waited_for = self.shared.keeping().waited_for().into_iter();
            let behind = waited_for.find_map(|project| {
                let commits = project.commits();
                let ends: &[Offset] = if project.rows.generation == of { &ends } else { &[] };
                let missing = project.missing(after, ends);
                missing.any.then_some((project, commits, missing))
            });
            let Some((serving, mut commits, missing)) = behind else { return Ok(()) };
            if std::mem::replace(&mut of, serving.rows.generation) != of {
                ends.clear();
            }
            let _hurry = serving.hurry();
            // What is to come from here is heard of; the store knows better than a process that was cut off.
            let look_at = Instant::now() + if missing.elsewhere { pause } else { config.pointer_poll };
            tokio::select! {
                // A switch of generations ends the wait for the old one's commits, which then may stop.
                _ = commits.changed() => continue,
                () = tokio::time::sleep_until(look_at.min(deadline)) => {}
            }
            if Instant::now() >= deadline {
                return Err(late());
            }
            if let Ok(found) = tokio::time::timeout_at(deadline, serving.refresh(missing.of_origins)).await {
                ends = found?;
            }
            pause = (pause * 2).min(config.pointer_poll);
        }
    }

    async fn conflicts(&self, tenant: &str, include_other_encodings: bool) -> Result<AnswerStream<Conflict>, Error> {
        crate::conflicts::run(&self.shared, tenant.to_owned(), include_other_encodings).await
    }

    async fn parked(&self, selection: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error> {
        crate::parked::run(&self.shared, selection).await
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        let serving = self.shared.serving();
        serving.refresh(true).await?;
        let (parts, total, parked, folded) = serving.look(|parts| {
            let parked: Vec<_> = parts.iter().map(|part| part.parked).collect();
            let (total, folded) = (total(parts.iter().map(|part| &part.leaves)), serving.positions(parts, true));
            let part = |(partition, part): (_, &Part)| Folded { partition, end: part.end, last_ms: part.last_ms };
            ((0..).map(Partition).zip(parts).map(part).collect::<Vec<_>>(), total, parked, folded)
        });
        let (parked, incomplete_studies) = crate::parked::count(&self.shared, &parked).await?;
        let mut log_end = PositionVector::default();
        let (mut lag_events, mut behind) = (0, Vec::new());
        // All at once: a log may be far away.
        let ends = try_join_all(parts.iter().map(|part| self.shared.log.end(part.partition))).await?;
        for (part, end) in parts.into_iter().zip(ends) {
            if end > Offset(0) {
                log_end.0.insert(serving.key(part.partition), end);
            }
            let lag = end.0.saturating_sub(part.end.0);
            lag_events += lag;
            behind.extend((lag > 0).then_some(part));
        }
        let oldest_unfolded_ms = self.shared.firsts.oldest(&*self.shared.log, behind).await?;
        Ok(IndexStatus {
            generation: serving.rows.generation.0,
            folded,
            log_end,
            lag_events,
            oldest_unfolded_ms,
            parked,
            incomplete_studies,
            studies: total.studies,
            series: total.series,
            instances: total.instances,
            fold_version: FOLD_VERSION,
        })
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        let serving = self.shared.serving();
        summed(&serving, true).await
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        manage::generations(&self.shared).await
    }

    async fn manage(&self, change: Change) -> Result<Changed, Error> {
        manage::run(&self.shared, change).await
    }

    async fn diff(&self, diff: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        diff::run(&self.shared, diff).await
    }

    async fn digest_tree(&self) -> Result<DigestTree, Error> {
        digests::tree(&self.shared).await
    }

    async fn study_digests(&self, tenant: &str, of: Of) -> Result<AnswerStream<StudyDigest>, Error> {
        digests::studies(&self.shared, tenant.to_owned(), of).await
    }

    async fn study_events(
        &self,
        tenant: &str,
        study: &Uid,
        only: Vec<EventId>,
    ) -> Result<AnswerStream<FoldedEvent>, Error> {
        digests::events(&self.shared, tenant.to_owned(), study, only).await
    }

    async fn patient_facts(&self, tenant: &str, of: FactsOf) -> Result<AnswerStream<KnownFact>, Error> {
        crate::facts::run(&self.shared, tenant.to_owned(), of).await
    }

    async fn survey(&self, survey: Survey) -> Result<AnswerStream<Surveyed>, Error> {
        survey::run(&self.shared, survey).await
    }
}

/// The digest of a generation, and the position that it is at.
pub(crate) async fn summed(project: &Project, origins: bool) -> Result<(StateDigest, PositionVector), Error> {
    project.refresh(true).await?;
    Ok(project.look(|parts| (digest(parts.iter().map(|part| &part.leaves)), project.positions(parts, origins))))
}

/// Counts of all partitions.
pub(crate) fn total<'a>(partitions: impl Iterator<Item = &'a Leaves>) -> Leaf {
    partitions.fold(Leaf::default(), |mut total, leaves| {
        total.add(&leaves.total());
        total
    })
}

/// The leaves of all partitions, summed.
pub(crate) fn whole<'a>(partitions: impl Iterator<Item = &'a Leaves>) -> Leaves {
    let mut whole = Leaves::default();
    partitions.for_each(|leaves| whole.add(leaves));
    whole
}

/// The digest of all partitions.
pub(crate) fn digest<'a>(partitions: impl Iterator<Item = &'a Leaves>) -> StateDigest {
    let whole = whole(partitions);
    let (events, state) = whole.roots();
    StateDigest { fold_version: FOLD_VERSION, events, state, studies: whole.total().studies }
}

/// Waits until the index closes.
pub(crate) async fn stopped(shared: &Shared) -> Error {
    let mut stop = shared.stop.subscribe();
    // An index that is gone has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
    closing()
}
