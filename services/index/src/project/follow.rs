//! Following one partition of the log.

use super::{
    alone,
    batch::{self, Batch, OfStudy, Outcome},
    generation::{Part, Project, is_same_log},
    parking::{self, ParkedCount},
    patients,
    write::{self, Changes, KnownBuckets},
};
use crate::{
    metrics,
    pointer::Pointer,
    rows::{Rows, mutation},
};
use bytes::Bytes;
use cairn_archive::{
    Offset, Partition, Position,
    digest::{Leaf, Leaves},
    events::Event,
    fold::{Loaded as LoadedStudy, Stamp, StudyKey},
    index_rows::{BUCKETS, access},
};
use cairn_process::trace;
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{CkRange, Commit, LogRecord, StoreError, StoreErrorKind};
use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};
use tokio::{sync::watch, time::Instant};

/// Listed buckets remembered; beyond that they are listed again, which changes nothing.
const KNOWN_BUCKETS_MAX: usize = 50_000;

struct Follower {
    partition: Partition,
    end: Offset,
    leaves: Leaves,
    parked: ParkedCount,
    buckets: KnownBuckets,
    last_commit: Option<Instant>,
    /// Times that folding the next batch met a defect.
    defects: u32,
}

/// A partition of a generation being followed.
pub(crate) struct Task {
    stop: watch::Sender<bool>,
    ended: Ended,
}

/// Resolves once a task has ended.
#[derive(Clone)]
pub(crate) struct Ended(watch::Receiver<()>);

impl Ended {
    /// Whether it has.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until it has.
    pub(crate) async fn ended(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl Task {
    /// Begins to follow, once the task before has ended.
    pub(crate) fn begin(project: &Arc<Project>, partition: Partition, before: Option<Ended>) -> Self {
        let ((stop, stopped), (alive, ended)) = (watch::channel(false), watch::channel(()));
        let project = project.clone();
        tokio::spawn(async move {
            let _alive = alive;
            if let Some(before) = before {
                before.ended().await;
            }
            let _followed = Followed { project: &project, partition };
            follow(&project, partition, stopped).await;
        });
        Self { stop, ended: Ended(ended) }
    }

    /// Has it end, between commits.
    pub(crate) fn end(self) -> Ended {
        self.stop.send_replace(true);
        self.ended
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.has_ended()
    }
}

/// Nobody here follows the partition once this is dropped, whatever ended it.
struct Followed<'a> {
    project: &'a Project,
    partition: Partition,
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.project.change(self.partition, |part| part.followed = false);
        self.project.wake();
    }
}

/// Follows one partition. A failure of log or store is retried; a stop ends it, between commits, and so does what makes
/// going on senseless: the generation is not there any more, or the log is another one.
async fn follow(project: &Project, partition: Partition, mut stop: watch::Receiver<bool>) {
    let mut pause = project.config.retry_pause;
    let mut doubts = project.doubts.subscribe();
    let buckets = KnownBuckets::new();
    let (end, leaves) = (Offset(0), Leaves::default());
    let parked = ParkedCount::default();
    let mut follower = Follower { partition, end, leaves, parked, buckets, last_commit: None, defects: 0 };
    let mut next = Next::Load;
    while !*stop.borrow() {
        let outcome = match next {
            Next::Load | Next::LoadAfterFailure => {
                doubts.borrow_and_update();
                tokio::select! {
                    loaded = load(project, &mut follower, next == Next::LoadAfterFailure) => loaded,
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
            Next::Fold => {
                let ready = tokio::select! {
                    ready = more(project, &follower) => Some(ready),
                    _ = doubts.changed() => None,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                match ready {
                    // A defect must not end the task: it is tried again, and in the end what it is about is put aside.
                    Some(Ok(())) => match AssertUnwindSafe(fold_next(project, &mut follower)).catch_unwind().await {
                        Ok(outcome) => outcome.map(|()| Loaded::GoesOn),
                        Err(_) => Err(alone::defect()),
                    },
                    Some(Err(error)) => Err(error),
                    None => {
                        next = Next::Load;
                        continue;
                    }
                }
            }
        };
        match outcome {
            Ok(Loaded::GoesOn) if next == Next::Fold => {
                pause = project.config.retry_pause;
                follower.defects = 0;
            }
            Ok(Loaded::GoesOn) => next = Next::Fold,
            Ok(Loaded::Ended) => return,
            Err(error) => {
                if next == Next::Fold && alone::is_defect(&error) {
                    follower.defects = follower.defects.saturating_add(1);
                }
                let (partition, generation) = (partition.0, project.rows.generation.0);
                if pause == project.config.retry_pause || alone::is_defect(&error) {
                    tracing::warn!(partition, generation, %error, "folding failed and is tried again");
                } else {
                    tracing::debug!(partition, generation, %error, "folding failed again");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                pause = (pause * 2).min(project.config.retry_pause_max);
                next = Next::LoadAfterFailure;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Load,
    LoadAfterFailure,
    Fold,
}

enum Loaded {
    GoesOn,
    Ended,
}

/// Goes on from what the store says. After a failure the outcome of a commit is unknown, another process may have
/// committed, or the generation may have been dropped; and a store that was opened anew after a failed write may have lost
/// what was not synced, also of others.
async fn load(project: &Project, follower: &mut Follower, after_failure: bool) -> Result<Loaded, Error> {
    let (partition, generation) = (follower.partition, project.rows.generation);
    if after_failure {
        let pointer = Pointer::decode(&project.rows.store.pointer().await?)?;
        if !pointer.get(generation).is_some_and(|entry| entry.is_followed(project.log.incarnation())) {
            return Ok(Loaded::Ended);
        }
    }
    if let Some((incarnation, end, note)) = project.rows.store.offset(generation, partition).await? {
        if incarnation > project.log.incarnation() {
            return Err(Error::new(ErrorKind::Unavailable, "the index is of a later life of the log"));
        }
        if incarnation < project.log.incarnation() || !is_same_log(&*project.log, partition, end, &note).await? {
            project.log_changed.store(true, Ordering::Release);
            project.told.notify_one();
            return Ok(Loaded::Ended);
        }
    }
    let Part { end, leaves, parked, origins, .. } = project.read(partition).await?;
    (follower.end, follower.leaves, follower.parked) = (end, leaves, parked);
    // What was listed by a commit that failed may not be.
    follower.buckets.clear();
    publish(project, follower, |part| (part.origins, part.last_ms) = (origins, None));
    if after_failure {
        let ends = project.stored_ends().await?;
        if project.is_ahead_of(&ends, Some(partition)) {
            project.doubts.send_modify(|doubts| *doubts += 1);
        }
        project.look_at_other_generations().await?;
    }
    Ok(Loaded::GoesOn)
}

fn publish(project: &Project, follower: &Follower, origins: impl FnOnce(&mut Part)) {
    project.change(follower.partition, |part| {
        part.end = follower.end;
        part.leaves.clone_from(&follower.leaves);
        part.parked = follower.parked;
        part.as_of = Some(follower.end);
        part.followed = true;
        origins(part);
    });
    project.wake();
    if follower.end >= project.limit(follower.partition) {
        project.told.notify_one();
    }
}

/// Waits until there are events to fold, and a moment longer for those that come in a burst.
async fn more(project: &Project, follower: &Follower) -> Result<(), Error> {
    let mut goal = project.goal();
    let halted = |goal: &Option<_>| follower.end >= project.limit_of(goal, follower.partition);
    goal.wait_for(|goal| !halted(goal)).await.map_err(|_| closing())?;
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
    let left = project.limit(partition).0.saturating_sub(follower.end.0);
    let events_max = events_max.max(1).min(usize::try_from(left).unwrap_or(usize::MAX));
    if events_max == 0 {
        return Ok(());
    }
    let mut records = project.log.read(partition, follower.end, events_max, bytes_max).await?.records;
    let is_cut = begin_with_what_is_destroyed(&mut records);
    let Some(last) = records.last() else { return Ok(()) };
    let full = is_cut || records.len() >= events_max;
    let (to, note) = (last.offset.next(), Bytes::copy_from_slice(last.record.envelope.id.as_bytes()));
    commit(project, follower, records, to, note).await?;
    // A backlog is worked off without a pause.
    follower.last_commit = (!full).then(Instant::now);
    Ok(())
}

/// Ends a batch before the first event, but one that it begins with, that says that keys are destroyed. So what that batch writes
/// of the state before it has nothing that was sealed under them.
fn begin_with_what_is_destroyed(records: &mut Vec<LogRecord>) -> bool {
    let kind = Event::KeysDestroyed(Default::default()).kind();
    let at = records.iter().skip(1).position(|record| record.record.envelope.kind == kind);
    if let Some(at) = at {
        records.truncate(at + 1);
    }
    at.is_some()
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
    let last_ms = records.last().map(|last| last.appended_at_ms);
    let _spans = fold_spans(project, &records);
    let committed = Stamp::new(incarnation, follower.end);
    let context = Context { partition, committed, to: Stamp::new(incarnation, to), buckets: &follower.buckets };
    let mut batch = Batch::decode(records, incarnation, partition, project.log.partitions());
    let shredded = batch.shredded_at(project.log.site());
    let purge = !shredded.is_empty();
    if purge {
        // Before the batch is done: cut off, it is done again.
        let (store, generation) = (&*project.rows.store, project.rows.generation);
        let now_ms = last_ms.unwrap_or_default();
        Pointer::drop_those_standing_still(store, generation, incarnation, now_ms).await?;
    }
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
    patients::fold(&project.rows, &batch.patients, partition, committed, &follower.buckets, &mut changes).await?;
    for study in &shredded {
        write::series_anew(&project.rows, study, committed, context.to, &mut changes).await?;
    }
    let parked = parking::park(&project.rows, partition, follower.parked, &batch, &mut changes).await?;
    for position in latest(&batch.origins) {
        changes.derived.push(write::origin(partition, &position));
    }
    let leaves = fold_leaves(follower, &mut changes, Stamp::new(incarnation, to));
    let buckets = std::mem::take(&mut changes.buckets);
    let mutations: Vec<_> = changes.into_rows().into_iter().map(mutation).collect();
    let rows = mutations.len();
    let commit = Commit { incarnation, partition, from: follower.end, to, note, mutations, purge };
    project.rows.store.commit(project.rows.generation, commit).await?;
    follower.end = to;
    if follower.buckets.len() > KNOWN_BUCKETS_MAX {
        follower.buckets.clear();
    }
    follower.buckets.extend(buckets);
    leaves.into_iter().for_each(|(number, leaf)| *follower.leaves.get_mut(number) = leaf);
    metrics::committed(events, rows, began.elapsed());
    follower.parked = parked;
    publish(project, follower, |part| {
        batch.origins.iter().for_each(|position| part.origins.include(position));
        part.last_ms = last_ms;
    });
    Ok(())
}

/// A span for each event that was traced, as a child of its append, for as long as its commit takes.
fn fold_spans(project: &Project, records: &[LogRecord]) -> Vec<tracing::Span> {
    if !project.traced.load(Ordering::Relaxed) {
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
    loaded: Option<LoadedStudy>,
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
