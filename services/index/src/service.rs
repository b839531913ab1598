//! The index service.

use crate::{
    config::IndexConfig,
    generation::Pointer,
    instances, metrics,
    project::{Generations, Project, Start},
    query, rebuild,
    rows::Rows,
};
use async_trait::async_trait;
use cairn_archive::{
    Offset, Partition, PositionVector,
    digest::{FOLD_VERSION, Leaf, Leaves},
};
use cairn_dicom::dataset::DataSet;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Reason,
    index::{Conflict, Detail, IndexStatus, InstanceRecord, Query, RebuildProgress, Selection, StateDigest},
    parked::{ParkedEvent, ParkedSelection},
};
use cairn_store_api::{EventLog, Generation, IndexStore, Membership};
use futures_core::Stream;
use futures_util::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError, watch};

/// The index over one log and one index store.
pub struct IndexService {
    pub(crate) shared: Arc<Shared>,
    _membership: Mutex<Box<dyn Membership>>,
}

/// What queries, projector and rebuilds share.
pub(crate) struct Shared {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) store: Arc<dyn IndexStore>,
    pub(crate) config: IndexConfig,
    serving: Mutex<Arc<Serving>>,
    queries: Arc<Semaphore>,
    /// Those that are followed.
    pub(crate) generations: Generations,
    /// One rebuild at a time.
    pub(crate) rebuilding: Arc<tokio::sync::Mutex<()>>,
    pub(crate) stop: watch::Sender<bool>,
}

/// The generation that answers. Queries hold it, so that it is not dropped under them.
pub(crate) struct Serving {
    pub(crate) project: Arc<Project>,
    /// Tasks that follow the log; `None` once the index closes.
    tasks: tokio::sync::Mutex<Option<tokio::task::JoinSet<()>>>,
    stop: watch::Sender<bool>,
    /// Closed when the last holder is gone.
    _alive: mpsc::Sender<()>,
    gone: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Serving {
    pub(crate) fn new(partitions: crate::project::Start) -> Option<Arc<Self>> {
        let Start::Continues(partitions) = partitions else { return None };
        let (stop, stopped) = watch::channel(false);
        let project = partitions.project();
        let tasks = partitions.spawn(&stopped);
        let (alive, gone) = mpsc::channel(1);
        let (tasks, gone) = (tokio::sync::Mutex::new(Some(tasks)), Mutex::new(Some(gone)));
        Some(Arc::new(Self { project, tasks, stop, _alive: alive, gone }))
    }

    /// What ends when the last holder is gone.
    pub(crate) fn gone(&self) -> Option<mpsc::Receiver<()>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Stops following the log, between commits.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(tasks) = self.tasks.lock().await.take() {
            tasks.join_all().await;
        }
    }

    /// Waits until every task has reached where it stops.
    pub(crate) async fn run_out(&self) {
        if let Some(tasks) = self.tasks.lock().await.take() {
            tasks.join_all().await;
        }
    }
}

impl IndexService {
    /// Opens the index and begins to follow the log. What the index store holds of another life of the log, or under
    /// another version of the fold, is dropped and filled anew.
    ///
    /// # Errors
    /// Those of log and index store.
    pub async fn open(
        log: Arc<dyn EventLog>,
        store: Arc<dyn IndexStore>,
        membership: Box<dyn Membership>,
        config: IndexConfig,
    ) -> Result<Arc<Self>, Error> {
        let mut pointer = Pointer::read_or_create(&*store).await?;
        // Left by a rebuild that was cut short.
        for waste in (1..pointer.next.0).map(Generation).filter(|generation| *generation != pointer.serving) {
            if !store.offsets(waste).await?.is_empty() {
                store.drop_generation(waste).await?;
            }
        }
        let generations = Generations::default();
        let serving = match start(&log, &store, &config, pointer.serving, &generations).await? {
            Some(serving) if pointer.fold_version == FOLD_VERSION => serving,
            found => {
                if let Some(found) = found {
                    found.stop().await;
                }
                tracing::warn!("the index does not belong to this log or version and is filled anew");
                let (next, taken) = pointer.take_next(&*store).await?;
                pointer = taken.serve(next, &*store).await?;
                let empty = start(&log, &store, &config, pointer.serving, &generations).await?;
                empty.ok_or_else(|| Error::new(ErrorKind::Internal, "an empty generation is not of this log"))?
            }
        };
        let (stop, _) = watch::channel(false);
        let queries = Arc::new(Semaphore::new(config.queries_max.max(1)));
        let rebuilding = Arc::default();
        let serving = Mutex::new(serving);
        let shared = Shared { log, store, config, serving, queries, generations, rebuilding, stop };
        let shared = Arc::new(shared);
        tokio::spawn(crate::parked::resume(shared.clone()));
        Ok(Arc::new(Self { shared, _membership: Mutex::new(membership) }))
    }

    /// Stops following the log, between commits, and makes what was committed durable. Log and store stay open.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.stop.send_replace(true);
        self.shared.serving().stop().await;
        Ok(self.shared.store.sync(false).await?)
    }
}

async fn start(
    log: &Arc<dyn EventLog>,
    store: &Arc<dyn IndexStore>,
    config: &IndexConfig,
    generation: Generation,
    generations: &Generations,
) -> Result<Option<Arc<Serving>>, Error> {
    let rows = Rows { store: store.clone(), generation, page: config.page_rows_max.max(1) };
    Ok(Serving::new(Project::start(log.clone(), rows, config.clone(), None, generations).await?))
}

impl Shared {
    /// The generation that answers now.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets another one answer; gives the one before.
    pub(crate) fn switch(&self, to: Arc<Serving>) -> Arc<Serving> {
        std::mem::replace(&mut self.serving.lock().unwrap_or_else(PoisonError::into_inner), to)
    }

    pub(crate) fn rows(&self, generation: Generation) -> Rows {
        Rows { store: self.store.clone(), generation, page: self.config.page_rows_max.max(1) }
    }

    /// Waits for a place among the queries.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        let permit = self.queries.clone().acquire_owned().await.map_err(|_| closing())?;
        Ok(Place { queries: self.queries.clone(), permit: Some(permit) })
    }
}

/// A place among the queries, given up while the reader of the answers is behind: readers that stall keep nobody from
/// asking. How many may stall is bounded by the doors' own limits.
pub(crate) struct Place {
    queries: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the index is closing")
}

/// Where a query puts its answers. A reader that went away ends the query.
pub(crate) struct Answers<T> {
    to: mpsc::Sender<Result<T, Error>>,
    /// `None` for work that takes no place.
    place: Option<tokio::sync::Mutex<Place>>,
}

/// The reader went away, or the work failed and said so.
pub(crate) enum Ended {
    /// Nobody reads any more.
    Dropped,
    /// It failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl<T: Send + 'static> Answers<T> {
    /// Gives one answer; waits while the reader is behind, without a place among the queries.
    pub(crate) async fn give(&self, answer: T) -> Result<(), Ended> {
        let answer = match self.to.try_send(Ok(answer)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Ended::Dropped),
            Err(TrySendError::Full(answer)) => answer,
        };
        let Some(place) = &self.place else { return self.to.send(answer).await.map_err(|_| Ended::Dropped) };
        let mut place = place.lock().await;
        place.permit = None;
        self.to.send(answer).await.map_err(|_| Ended::Dropped)?;
        place.permit = Some(place.queries.clone().acquire_owned().await.map_err(|_| closing())?);
        Ok(())
    }
}

/// Work that panicked. Its reader must not take the answers so far for all.
fn died() -> Ended {
    Ended::Failed(Error::new(ErrorKind::Internal, "a defect of the index cut the answers short"))
}

/// Runs work and gives its answers as a stream; dropping the stream ends the work. Work that panics ends the stream with an
/// error.
///
/// Work that is done at once needs no task: most questions are about one instance or study, and handing those to another
/// thread would cost more than answering them. The rest goes on in a task of its own.
pub(crate) fn answering<T, F>(
    ahead: usize,
    place: Option<Place>,
    work: impl FnOnce(Answers<T>) -> F + Send + 'static,
) -> AnswerStream<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(ahead.max(1));
    let work = work(Answers { to: sender.clone(), place: place.map(tokio::sync::Mutex::new) });
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind().map(|ended| ended.unwrap_or_else(|_| Err(died()))));
    let begun = (&mut work).now_or_never();
    match begun {
        Some(Ok(()) | Err(Ended::Dropped)) => {}
        // Answers may have filled the channel to the last place, so this needs one of its own.
        Some(Err(Ended::Failed(error))) => drop(tokio::spawn(async move { sender.send(Err(error)).await })),
        // The task holds the place and the generation; nothing is left behind once the stream is dropped.
        None => drop(tokio::spawn(go_on(work, sender))),
    }
    Box::pin(Receiver(receiver))
}

async fn go_on<T>(work: impl Future<Output = Result<(), Ended>>, sender: mpsc::Sender<Result<T, Error>>) {
    tokio::select! {
        outcome = work => {
            if let Err(Ended::Failed(error)) = outcome {
                // A reader that went away needs no reason.
                let _ = sender.send(Err(error)).await;
            }
        }
        () = sender.closed() => {}
    }
}

struct Receiver<T>(mpsc::Receiver<Result<T, Error>>);

impl<T> Stream for Receiver<T> {
    type Item = Result<T, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
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

    async fn wait_for(&self, after: &PositionVector, timeout: Duration) -> Result<(), Error> {
        let timeout = timeout.min(self.shared.config.wait_max);
        let deadline = tokio::time::Instant::now() + timeout;
        let late = || Error::because(ErrorKind::Unavailable, Reason::NotYetIndexed, "the index is not that far yet");
        loop {
            let serving = self.shared.serving();
            let mut commits = serving.project.commits();
            if serving.project.covers(after) {
                return Ok(());
            }
            let _hurry = serving.project.hurry();
            // A switch of generations ends the wait for the old one's commits, which then may stop.
            let changed = tokio::time::timeout_at(deadline, commits.changed()).await;
            if changed.is_err() {
                return Err(late());
            }
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
        let (ends, total, parked, folded) = serving.project.look(|folded| {
            let total = folded.leaves.iter().fold(Leaf::default(), |mut total, leaves| {
                total.add(&leaves.total());
                total
            });
            (folded.ends.clone(), total, folded.parked.clone(), serving.project.positions(folded))
        });
        let (parked, incomplete_studies) = crate::parked::count(&self.shared, &parked).await?;
        let mut log_end = PositionVector::default();
        let (mut lag_events, mut oldest_unfolded_ms) = (0, None::<u64>);
        for (partition, own) in (0..).map(Partition).zip(&ends) {
            let end = self.shared.log.end(partition).await?;
            lag_events += end.0.saturating_sub(own.0);
            if end > *own
                && let Some(next) = self.shared.log.read(partition, *own, 1, 1).await?.records.first()
            {
                let oldest = oldest_unfolded_ms.get_or_insert(next.appended_at_ms);
                *oldest = next.appended_at_ms.min(*oldest);
            }
            if end > Offset(0) {
                let key = (self.shared.log.site().clone(), self.shared.log.incarnation(), partition);
                log_end.0.insert(key, end);
            }
        }
        Ok(IndexStatus {
            generation: serving.project.rows.generation.0,
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
        let folded = serving.project.folded();
        Ok((digest(&folded.leaves), serving.project.positions(&folded)))
    }

    async fn rebuild(&self, switch: bool) -> Result<AnswerStream<RebuildProgress>, Error> {
        Ok(rebuild::run(self.shared.clone(), switch))
    }
}

/// The leaves of all partitions, summed.
pub(crate) fn whole(partitions: &[Leaves]) -> Leaves {
    let mut whole = Leaves::default();
    partitions.iter().for_each(|leaves| whole.add(leaves));
    whole
}

/// The digest of all partitions.
pub(crate) fn digest(partitions: &[Leaves]) -> StateDigest {
    let whole = whole(partitions);
    let (events, state) = whole.roots();
    StateDigest { fold_version: FOLD_VERSION, events, state, studies: whole.total().studies }
}
