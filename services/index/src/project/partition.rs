//! Following one partition of the log.

use super::{
    alone,
    batch::{self, Batch, OfStudy, Outcome},
    parking::{self, ParkedCount, partition_pk},
    write::{self, Changes, KnownBuckets},
};
use crate::{
    config::IndexConfig,
    metrics,
    rows::{Rows, malformed, mutation},
};
use bytes::Bytes;
use cairn_archive::{
    Offset, Partition, Position, PositionVector,
    digest::{Leaf, Leaves},
    fold::{Loaded, Stamp, StudyKey},
    index_rows::{BUCKETS, LEAVES, ORIGINS, access, decode_leaf},
};
use cairn_process::trace;
use cairn_service_api::Error;
use cairn_store_api::{CkRange, Commit, EventLog, LogRecord, StoreError, StoreErrorKind};
use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// What a generation holds, partition by partition, as of the last commits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    pub(crate) ends: Vec<Offset>,
    pub(crate) leaves: Vec<Leaves>,
    pub(crate) parked: Vec<ParkedCount>,
    pub(crate) origins: PositionVector,
}

/// A generation being filled and kept up.
pub(crate) struct Project {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) rows: Rows,
    pub(crate) config: IndexConfig,
    folded: Mutex<Folded>,
    /// Counts commits, for those who wait for one.
    commits: watch::Sender<u64>,
    /// Changes when the store was found to have less than was committed.
    doubts: watch::Sender<u64>,
    /// How many wait for a commit.
    waiting: watch::Sender<usize>,
    /// Generations of the same store: what it loses, it may lose of each.
    generations: Generations,
    permits: Semaphore,
    /// Where partitions stop, should they; for comparing generations at one position.
    stop_at: Option<Vec<Offset>>,
}

/// The generations that are followed over one store.
pub(crate) type Generations = Arc<Mutex<Vec<Weak<Project>>>>;

/// Why a generation can't be gone on with: the log is another one than it was filled from.
#[derive(Debug)]
pub(crate) enum Start {
    /// It can.
    Continues(Box<Partitions>),
    /// The log has another life, or other events at the offsets folded.
    LogChanged,
}

/// The tasks of a generation.
pub(crate) struct Partitions {
    project: Arc<Project>,
    starts: Vec<Follower>,
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partitions").field("generation", &self.project.rows.generation).finish_non_exhaustive()
    }
}

/// Listed buckets remembered; beyond that they are listed again, which changes nothing.
const KNOWN_BUCKETS_MAX: usize = 50_000;

struct Follower {
    partition: Partition,
    end: Offset,
    leaves: Leaves,
    buckets: KnownBuckets,
    last_commit: Option<Instant>,
    /// Times that folding the next batch met a defect.
    defects: u32,
}

/// Somebody waits for a commit.
pub(crate) struct Hurry<'a>(&'a watch::Sender<usize>);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Project {
    /// Reads how far a generation is and whether the log is still the one it was filled from.
    pub(crate) async fn start(
        log: Arc<dyn EventLog>,
        rows: Rows,
        config: IndexConfig,
        stop_at: Option<Vec<Offset>>,
        generations: &Generations,
    ) -> Result<Start, Error> {
        let partitions = log.partitions();
        let mut ends = vec![Offset(0); usize::from(partitions)];
        for (incarnation, partition, offset, note) in rows.store.offsets(rows.generation).await? {
            let Some(end) = ends.get_mut(usize::from(partition.0)) else { return Ok(Start::LogChanged) };
            if incarnation != log.incarnation() || !is_same_log(&*log, partition, offset, &note).await? {
                return Ok(Start::LogChanged);
            }
            *end = offset;
        }
        let mut folded = Folded { ends: ends.clone(), ..Folded::default() };
        let mut starts = Vec::with_capacity(ends.len());
        for (partition, end) in (0..partitions).map(Partition).zip(&ends) {
            let leaves = leaves_of(&rows, partition, Stamp::new(log.incarnation(), *end)).await?;
            folded.leaves.push(leaves.clone());
            folded.parked.push(parking::count(&rows, partition).await?);
            origins_of(&rows, partition, &mut folded.origins).await?;
            starts.push(Follower {
                partition,
                end: *end,
                leaves,
                buckets: KnownBuckets::new(),
                last_commit: None,
                defects: 0,
            });
        }
        let permits = Semaphore::new(config.fold_concurrency_max.max(1));
        let (commits, _) = watch::channel(0);
        let ((doubts, _), (waiting, _)) = (watch::channel(0), watch::channel(0));
        let (folded, shared) = (Mutex::new(folded), generations.clone());
        let project =
            Self { log, rows, config, folded, commits, waiting, doubts, generations: shared, permits, stop_at };
        let project = Arc::new(project);
        let mut known = generations.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|generation| generation.strong_count() > 0);
        known.push(Arc::downgrade(&project));
        Ok(Start::Continues(Box::new(Partitions { project, starts })))
    }

    /// What is folded, at one moment.
    pub(crate) fn folded(&self) -> Folded {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `look` on what is folded, without a copy.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Folded) -> T) -> T {
        look(&self.folded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits come as soon as they can until the guard is dropped: somebody waits for one.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.waiting.send_modify(|count| *count += 1);
        Hurry(&self.waiting)
    }

    /// Changes with every commit.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Wakes those who wait for commits, so that they look again.
    pub(crate) fn wake(&self) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// Whether everything that a vector means is folded.
    pub(crate) fn covers(&self, after: &PositionVector) -> bool {
        self.look(|folded| {
            after.0.iter().all(|((site, incarnation, partition), end)| {
                if end.0 == 0 {
                    return true;
                }
                if site == self.log.site() && *incarnation == self.log.incarnation() {
                    return folded.ends.get(usize::from(partition.0)).is_some_and(|own| own >= end);
                }
                folded.origins.0.get(&(site.clone(), *incarnation, *partition)).is_some_and(|own| own >= end)
            })
        })
    }

    /// The position vector of what is folded.
    pub(crate) fn positions(&self, folded: &Folded) -> PositionVector {
        let mut vector = folded.origins.clone();
        for (partition, end) in (0..).map(Partition).zip(&folded.ends).filter(|(_, end)| end.0 > 0) {
            vector.0.insert((self.log.site().clone(), self.log.incarnation(), partition), *end);
        }
        vector
    }

    /// Where the store says that each partition ends; `None`: it can't say.
    async fn stored_ends(&self) -> Option<Vec<Offset>> {
        let offsets = self.rows.store.offsets(self.rows.generation).await.ok()?;
        let mut ends = vec![Offset(0); usize::from(self.log.partitions())];
        for (_, partition, offset, _) in offsets.iter().filter(|(life, ..)| *life == self.log.incarnation()) {
            if let Some(end) = ends.get_mut(usize::from(partition.0)) {
                *end = *offset;
            }
        }
        Some(ends)
    }

    /// Whether the store has less than was committed, of another partition than `but`.
    fn is_ahead_of(&self, stored: &[Offset], but: Option<usize>) -> bool {
        self.look(|folded| {
            let ends = stored.iter().zip(&folded.ends).enumerate().filter(|(partition, _)| Some(*partition) != but);
            ends.into_iter().any(|(_, (stored, known))| stored < known)
        })
    }

    /// Tells other generations of which the store has lost something, too: their partitions may be quiet and would never
    /// notice. `None`: the store can't say.
    async fn look_at_other_generations(&self) -> Option<()> {
        let known = self.generations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others = known.iter().filter_map(Weak::upgrade);
        for other in others.filter(|other| other.rows.generation != self.rows.generation) {
            if other.is_ahead_of(&other.stored_ends().await?, None) {
                other.doubts.send_modify(|doubts| *doubts += 1);
            }
        }
        Some(())
    }

    fn limit(&self, partition: Partition) -> Offset {
        self.stop_at.as_ref().and_then(|at| at.get(usize::from(partition.0)).copied()).unwrap_or(Offset(u64::MAX))
    }
}

/// Whether the log has, before `offset`, the event that was folded last.
async fn is_same_log(log: &dyn EventLog, partition: Partition, offset: Offset, note: &[u8]) -> Result<bool, Error> {
    let Some(last) = offset.0.checked_sub(1) else { return Ok(true) };
    let batch = log.read(partition, Offset(last), 1, 1).await?;
    let found = batch.records.first().map(|record| *record.record.envelope.id.as_bytes());
    Ok(found.is_some_and(|id| id.as_slice() == note))
}

async fn leaves_of(rows: &Rows, partition: Partition, committed: Stamp) -> Result<Leaves, Error> {
    let mut leaves = Leaves::default();
    let mut pages = rows.pages(LEAVES, partition_pk(partition), CkRange::default());
    while let Some(page) = pages.next().await? {
        for row in page {
            let Some(number) = row.ck.first() else { continue };
            let (leaf, _) = decode_leaf(&row.value).map_err(malformed)?.as_of(committed);
            *leaves.get_mut(*number) = leaf.unwrap_or_default();
        }
    }
    Ok(leaves)
}

async fn origins_of(rows: &Rows, partition: Partition, origins: &mut PositionVector) -> Result<(), Error> {
    let mut pages = rows.pages(ORIGINS, partition_pk(partition), CkRange::default());
    while let Some(page) = pages.next().await? {
        for row in page {
            if let Some(position) = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok()) {
                origins.include(&position);
            }
        }
    }
    Ok(())
}

impl Partitions {
    /// What is followed.
    pub(crate) fn project(&self) -> Arc<Project> {
        self.project.clone()
    }

    /// Follows every partition until `stop` turns true, or each has reached where it stops.
    pub(crate) fn spawn(self, stop: &watch::Receiver<bool>) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for follower in self.starts {
            tasks.spawn(follow(self.project.clone(), follower, stop.clone()));
        }
        tasks
    }
}

/// Follows one partition. A failure of log or store is retried; only a stop ends it, between commits.
async fn follow(project: Arc<Project>, mut follower: Follower, mut stop: watch::Receiver<bool>) {
    let mut pause = project.config.retry_pause;
    let mut doubts = project.doubts.subscribe();
    while !*stop.borrow() && follower.end < project.limit(follower.partition) {
        let ready = tokio::select! {
            ready = more(&project, &follower) => Some(ready),
            _ = doubts.changed() => None,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let outcome = match ready {
            // A defect must not end the task: it is tried again, and in the end what it is about is put aside.
            Some(Ok(())) => match AssertUnwindSafe(fold_next(&project, &mut follower)).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(_) => Err(alone::defect()),
            },
            Some(Err(error)) => Err(error),
            None if reload(&project, &mut follower).await.is_some() => continue,
            None => Err(StoreError::new(StoreErrorKind::Unavailable, "the index store can't say what it has").into()),
        };
        let Err(error) = outcome else {
            pause = project.config.retry_pause;
            follower.defects = 0;
            continue;
        };
        if alone::is_defect(&error) {
            follower.defects = follower.defects.saturating_add(1);
        }
        tracing::warn!(partition = follower.partition.0, %error, "folding failed and is tried again");
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = (pause * 2).min(project.config.retry_pause_max);
            let Some(others_behind) = reload(&project, &mut follower).await else { continue };
            if project.look_at_other_generations().await.is_none() {
                continue;
            }
            if others_behind {
                project.doubts.send_modify(|doubts| *doubts += 1);
            }
            break;
        }
    }
}

/// After a failure the outcome of a commit is unknown: goes on from what the store says. Tells whether the store has less
/// of another partition than was committed: one that was opened anew after a failed write may have lost what was not
/// synced. `None`: the store can't say.
async fn reload(project: &Project, follower: &mut Follower) -> Option<bool> {
    let ends = project.stored_ends().await?;
    let own = usize::from(follower.partition.0);
    let end = ends.get(own).copied().unwrap_or_default();
    let others_behind = project.is_ahead_of(&ends, Some(own));
    let committed = Stamp::new(project.log.incarnation(), end);
    let leaves = leaves_of(&project.rows, follower.partition, committed).await.ok()?;
    let parked = parking::count(&project.rows, follower.partition).await.ok()?;
    follower.end = end;
    follower.leaves = leaves;
    // What was listed by a commit that failed may not be.
    follower.buckets.clear();
    publish(project, follower, parked, &[]);
    Some(others_behind)
}

fn publish(project: &Project, follower: &Follower, parked: ParkedCount, origins: &[Position]) {
    let at = usize::from(follower.partition.0);
    {
        let mut folded = project.folded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = folded.ends.get_mut(at) {
            *end = follower.end;
        }
        if let Some(leaves) = folded.leaves.get_mut(at) {
            leaves.clone_from(&follower.leaves);
        }
        if let Some(count) = folded.parked.get_mut(at) {
            *count = parked;
        }
        origins.iter().for_each(|position| folded.origins.include(position));
    }
    project.commits.send_modify(|commits| *commits += 1);
}

/// Waits until there are events to fold, and a moment longer for those that come in a burst.
async fn more(project: &Project, follower: &Follower) -> Result<(), Error> {
    if project.log.end(follower.partition).await? <= follower.end {
        project.log.wait_beyond(follower.partition, follower.end).await?;
    }
    if let Some(last) = follower.last_commit {
        let mut waiting = project.waiting.subscribe();
        let _ = tokio::time::timeout_at(last + project.config.linger, waiting.wait_for(|count| *count > 0)).await;
    }
    Ok(())
}

/// Folds the next batch.
async fn fold_next(project: &Project, follower: &mut Follower) -> Result<(), Error> {
    let partition = follower.partition;
    let _permit = project.permits.acquire().await.map_err(|_| closing())?;
    let (events_max, bytes_max) = (project.config.batch_events_max, project.config.batch_bytes_max);
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let left = project.limit(partition).0 - follower.end.0;
    let events_max = events_max.max(1).min(usize::try_from(left).unwrap_or(usize::MAX));
    let records = project.log.read(partition, follower.end, events_max, bytes_max).await?.records;
    let Some(last) = records.last() else { return Ok(()) };
    let full = records.len() >= events_max;
    let (to, note) = (last.offset.next(), Bytes::copy_from_slice(last.record.envelope.id.as_bytes()));
    commit(project, follower, records, to, note).await?;
    // A backlog is worked off without a pause.
    follower.last_commit = (!full).then(Instant::now);
    Ok(())
}

fn closing() -> Error {
    StoreError::new(StoreErrorKind::Unavailable, "the index is closing").into()
}

async fn commit(
    project: &Project,
    follower: &mut Follower,
    records: Vec<LogRecord>,
    to: Offset,
    note: Bytes,
) -> Result<(), Error> {
    let began = Instant::now();
    let (partition, incarnation, events) = (follower.partition, project.log.incarnation(), records.len());
    let _spans = fold_spans(project, &records);
    let committed = Stamp::new(incarnation, follower.end);
    let context = Context { partition, committed, to: Stamp::new(incarnation, to), buckets: &follower.buckets };
    let mut batch = Batch::decode(records, incarnation, partition, project.log.partitions());
    parking::add_retrials(project, partition, &mut batch).await?;
    let mut changes = Changes::default();
    let studies = std::mem::take(&mut batch.studies);
    let alone = follower.defects >= project.config.fold_attempts_max.max(1);
    let loaded = if alone { Vec::new() } else { batch::load(&project.rows, &studies, committed).await? };
    let mut loaded = loaded.into_iter();
    for (key, of) in studies {
        let (changed, outcome) = match loaded.next() {
            Some(loaded) => one_study(project, &context, key, of, Some(loaded)).await?,
            None => alone::fold(project, &context, key, of).await?,
        };
        changes.absorb(changed);
        batch.outcome.parked.extend(outcome.parked);
        batch.outcome.settled.extend(outcome.settled);
        // A large batch must not keep others of the same thread waiting.
        tokio::task::consume_budget().await;
    }
    let parked = project.look(|folded| folded.parked.get(usize::from(partition.0)).copied().unwrap_or_default());
    let parked = parking::park(&project.rows, partition, parked, &batch, &mut changes).await?;
    for position in latest(&batch.origins) {
        changes.derived.push(write::origin(partition, &position));
    }
    let leaves = fold_leaves(follower, &mut changes, Stamp::new(incarnation, to));
    let buckets = std::mem::take(&mut changes.buckets);
    let mutations: Vec<_> = changes.into_rows().into_iter().map(mutation).collect();
    let rows = mutations.len();
    let commit = Commit { incarnation, partition, from: follower.end, to, note, mutations };
    project.rows.store.commit(project.rows.generation, commit).await?;
    follower.end = to;
    if follower.buckets.len() > KNOWN_BUCKETS_MAX {
        follower.buckets.clear();
    }
    follower.buckets.extend(buckets);
    leaves.into_iter().for_each(|(number, leaf)| *follower.leaves.get_mut(number) = leaf);
    metrics::committed(events, rows, began.elapsed());
    publish(project, follower, parked, &batch.origins);
    Ok(())
}

/// A span for each event that was traced, as a child of its append, for as long as its commit takes. A rebuild folds what
/// was folded before, which no trace is waiting for.
fn fold_spans(project: &Project, records: &[LogRecord]) -> Vec<tracing::Span> {
    if project.stop_at.is_some() {
        return Vec::new();
    }
    let traceparents = records.iter().filter_map(|record| record.record.envelope.traceparent.as_deref());
    let span = |traceparent| {
        let span = tracing::info_span!(parent: None, "index.fold");
        trace::follow(&span, traceparent);
        span
    };
    traceparents.map(span).collect()
}

/// What folding the studies of one batch has in common.
pub(crate) struct Context<'a> {
    partition: Partition,
    committed: Stamp,
    to: Stamp,
    buckets: &'a KnownBuckets,
}

/// Folds the events of one study, of which what is `loaded` is read if that was not done.
pub(crate) async fn one_study(
    project: &Project,
    context: &Context<'_>,
    key: StudyKey,
    of: OfStudy,
    loaded: Option<Loaded>,
) -> Result<(Changes, Outcome), Error> {
    let (mut changes, mut outcome) = (Changes::default(), Outcome::default());
    let loaded = match loaded {
        Some(loaded) => loaded,
        None => batch::load_one(&project.rows, &key, &of, context.committed).await?,
    };
    let fold = batch::fold(key.clone(), loaded, of, &mut outcome);
    if let Some(change) = batch::settle(&project.rows, &key, fold, context.committed).await? {
        let Context { partition, to, buckets, .. } = *context;
        write::study(&project.rows, change, to, partition, buckets, &mut changes).await?;
    }
    Ok((changes, outcome))
}

fn latest(origins: &[Position]) -> Vec<Position> {
    let mut latest = BTreeMap::new();
    for position in origins {
        let key = (position.site.clone(), position.incarnation, position.partition);
        let offset = latest.entry(key).or_insert(position.offset);
        *offset = position.offset.max(*offset);
    }
    let position = |((site, incarnation, partition), offset)| Position { site, incarnation, partition, offset };
    latest.into_iter().map(position).collect()
}

fn fold_leaves(follower: &Follower, changes: &mut Changes, to: Stamp) -> Vec<(u8, Leaf)> {
    let mut leaves = Vec::new();
    for (number, (before, after)) in std::mem::take(&mut changes.leaves) {
        let old = *follower.leaves.get(number);
        let mut new = old;
        new.subtract(&before);
        new.add(&after);
        changes.leaf(follower.partition, number, to, &new, &old);
        leaves.push((number, new));
    }
    leaves
}

/// Which buckets a list has.
pub(crate) async fn next_bucket(
    rows: &Rows,
    list: access::BucketList,
    tenant: &str,
    after: Option<&Bytes>,
) -> Result<Option<Bytes>, StoreError> {
    let pk = access::buckets_pk(list, tenant);
    // Past all partitions' rows of the bucket before.
    let from = after.map(|bucket| {
        let ck = access::bucket_ck(bucket, Partition(u16::MAX));
        crate::rows::successor(&ck)
    });
    let page = rows.scan(BUCKETS, &pk, &CkRange { from, to: None }, 1).await?;
    Ok(page.rows.first().and_then(|row| access::read_bucket_ck(&row.ck)))
}
