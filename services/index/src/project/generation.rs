//! What is known of a generation: of partitions followed here as of their last commits, of others as of when the store
//! was asked last.

use super::parking::{self, ParkedCount, partition_pk};
use crate::{
    config::IndexConfig,
    rows::{Rows, malformed},
};
use cairn_archive::{
    Incarnation, Offset, Partition, PositionVector, SiteId,
    digest::Leaves,
    fold::Stamp,
    index_rows::{LEAVES, ORIGINS, decode_leaf},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{CkRange, EventLog, StoreError, as_stored};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

/// What is folded of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) end: Offset,
    pub(crate) leaves: Leaves,
    pub(crate) parked: ParkedCount,
    /// How far events of other logs are folded.
    pub(crate) origins: PositionVector,
    /// The end that all but `end` are as of.
    pub(crate) as_of: Option<Offset>,
    /// When the last event that was folded here was appended.
    pub(crate) last_ms: Option<u64>,
    /// Whether a task here follows it.
    pub(crate) followed: bool,
}

/// A generation being filled and kept up.
pub(crate) struct Project {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) rows: Rows,
    pub(crate) config: IndexConfig,
    parts: Mutex<Vec<Part>>,
    /// Counts commits, for those who wait for one.
    pub(super) commits: watch::Sender<u64>,
    /// Changes when the store was found to have less than was committed.
    pub(super) doubts: watch::Sender<u64>,
    /// How many wait for a commit.
    pub(super) waiting: watch::Sender<usize>,
    /// Generations of the same store: what it loses, it may lose of each.
    generations: Generations,
    pub(super) permits: Semaphore,
    /// Where partitions halt, should they; one that is not named halts at once.
    goal: watch::Sender<Option<PositionVector>>,
    /// Told when a partition has come to its goal, or the log turned out to be another one.
    pub(crate) told: Arc<Notify>,
    /// Whether traces follow events into it.
    pub(super) traced: AtomicBool,
    /// Whether the log is another one than it was filled from.
    pub(crate) log_changed: AtomicBool,
    refreshed: tokio::sync::Mutex<Option<Refreshed>>,
    speed: Mutex<VecDeque<(Instant, u64)>>,
    /// Held by queries.
    pins: Arc<()>,
    /// When the pointer was read last that had it.
    pub(crate) listed_at: Mutex<Instant>,
}

struct Refreshed {
    began: Instant,
    wholly: bool,
    ends: Vec<Offset>,
}

/// The generations that are known over one store.
pub(crate) type Generations = Arc<Mutex<Vec<Weak<Project>>>>;

/// Whether a generation can be gone on with.
pub(crate) enum Opened {
    /// It can.
    Continues(Arc<Project>),
    /// The log has another life, or other events at the offsets folded.
    LogChanged,
}

/// Somebody waits for a commit.
pub(crate) struct Hurry<'a>(&'a watch::Sender<usize>);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// How often what is folded of a partition is read again because it was committed to meanwhile.
const READS_MAX: usize = 32;
/// Partitions read at the same time.
const READS_AT_ONCE: usize = 8;
/// How long speed is measured.
const SPEED_OVER: Duration = Duration::from_secs(15);
/// How long an event that was folded may take to be read from the log.
const LOG_CATCHES_UP: Duration = Duration::from_secs(1);

impl Project {
    /// Reads how far a generation is and whether the log is still the one it was filled from. Nothing is followed yet.
    pub(crate) async fn open(
        log: Arc<dyn EventLog>,
        rows: Rows,
        config: IndexConfig,
        goal: Option<PositionVector>,
        generations: &Generations,
        told: Arc<Notify>,
    ) -> Result<Opened, Error> {
        let mut parts = vec![Part::default(); usize::from(log.partitions())];
        let offsets = rows.store.offsets(rows.generation).await?;
        let same = offsets.iter().map(|(incarnation, partition, offset, note)| {
            let log = &*log;
            async move {
                let known = partition.0 < log.partitions() && *incarnation == log.incarnation();
                Ok::<_, Error>(known && is_same_log(log, *partition, *offset, note).await?)
            }
        });
        let same = stream::iter(same.collect::<Vec<_>>()).buffered(READS_AT_ONCE);
        let same: Vec<bool> = same.try_collect().await?;
        if !same.into_iter().all(|same| same) {
            return Ok(Opened::LogChanged);
        }
        for (_, partition, offset, _) in offsets {
            if let Some(part) = parts.get_mut(usize::from(partition.0)) {
                part.end = offset;
            }
        }
        let permits = Semaphore::new(config.fold_concurrency_max.max(1));
        let project = Arc::new(Self {
            log,
            rows,
            config,
            parts: Mutex::new(parts),
            commits: watch::channel(0).0,
            doubts: watch::channel(0).0,
            waiting: watch::channel(0).0,
            generations: generations.clone(),
            permits,
            goal: watch::channel(goal).0,
            told,
            traced: AtomicBool::new(false),
            log_changed: AtomicBool::new(false),
            refreshed: tokio::sync::Mutex::default(),
            speed: Mutex::default(),
            pins: Arc::default(),
            listed_at: Mutex::new(Instant::now()),
        });
        let mut known = generations.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|generation| generation.strong_count() > 0);
        known.push(Arc::downgrade(&project));
        Ok(Opened::Continues(project))
    }

    /// Runs `look` on what is folded, partition by partition.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Part]) -> T) -> T {
        look(&self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change(&self, partition: Partition, change: impl FnOnce(&mut Part)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(usize::from(partition.0)) {
            change(part);
        }
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

    /// Keeps the generation from being removed by this process.
    pub(crate) fn pin(&self) -> Arc<()> {
        self.pins.clone()
    }

    /// Whether queries of this process read it.
    pub(crate) fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.pins) > 1
    }

    /// Whether traces follow events into it: a rebuild folds what was folded before, which no trace waits for.
    pub(crate) fn trace(&self, traced: bool) {
        self.traced.store(traced, Ordering::Relaxed);
    }

    /// What of a vector is not folded, as far as is known; `ends` are those that the store had lately.
    pub(crate) fn missing(&self, after: &PositionVector, ends: &[Offset]) -> Missing {
        self.look(|parts| {
            let mut missing = Missing::default();
            for ((site, incarnation, partition), end) in after.0.iter().filter(|(_, end)| end.0 > 0) {
                let at = usize::from(partition.0);
                if self.is_own(site, *incarnation, *partition, *end) {
                    let part = parts.get(at);
                    let stored = ends.get(at).copied().unwrap_or_default();
                    if part.is_none_or(|part| part.end.max(stored) < *end) {
                        missing.any = true;
                        missing.elsewhere |= part.is_some_and(|part| !part.followed);
                    }
                    continue;
                }
                // Which partition an origin's events are in is not known here: any of them.
                let key = (site.clone(), *incarnation, *partition);
                if !parts.iter().any(|part| part.origins.0.get(&key).is_some_and(|own| own >= end)) {
                    missing.any = true;
                    missing.of_origins = true;
                    missing.elsewhere |= parts.iter().any(|part| !part.followed);
                }
            }
            missing
        })
    }

    /// Whether a place is one of this log, in whichever of its lives.
    fn is_own(&self, site: &SiteId, incarnation: Incarnation, partition: Partition, end: Offset) -> bool {
        let of_life = || self.log.lives().range(incarnation, partition);
        site == self.log.site()
            && (incarnation == self.log.incarnation() || of_life().is_some_and(|of_life| end <= of_life.end))
    }

    /// The position vector of what is folded: of this log alone, or with the origins of events of others.
    pub(crate) fn positions(&self, parts: &[Part], origins: bool) -> PositionVector {
        let mut vector = PositionVector::default();
        if origins {
            for (key, end) in parts.iter().flat_map(|part| &part.origins.0) {
                let known = vector.0.entry(key.clone()).or_default();
                *known = (*known).max(*end);
            }
        }
        for (partition, part) in (0..).map(Partition).zip(parts).filter(|(_, part)| part.end.0 > 0) {
            vector.0.insert(self.key(partition), part.end);
        }
        vector
    }

    /// A partition of this log, as vectors name it.
    pub(crate) fn key(&self, partition: Partition) -> (cairn_archive::SiteId, cairn_archive::Incarnation, Partition) {
        (self.log.site().clone(), self.log.incarnation(), partition)
    }

    /// Where the followers halt from now on.
    pub(crate) fn set_goal(&self, goal: Option<PositionVector>) {
        self.goal.send_if_modified(|present| {
            let changed = *present != goal;
            *present = goal;
            changed
        });
    }

    /// Whether it is where it is to halt, as far as is known.
    pub(crate) fn is_filled(&self) -> bool {
        let goal = self.goal.borrow().clone();
        goal.is_none_or(|goal| !self.missing(&goal, &[]).any)
    }

    pub(super) fn goal(&self) -> watch::Receiver<Option<PositionVector>> {
        self.goal.subscribe()
    }

    /// Where a partition halts.
    pub(super) fn limit(&self, partition: Partition) -> Offset {
        self.limit_of(&self.goal.borrow(), partition)
    }

    pub(super) fn limit_of(&self, goal: &Option<PositionVector>, partition: Partition) -> Offset {
        let of = |goal: &PositionVector| goal.0.get(&self.key(partition)).copied().unwrap_or_default();
        goal.as_ref().map_or(Offset(u64::MAX), of)
    }

    /// Learns from the store how far partitions are that others follow, and, `wholly`, what they hold; gives where the
    /// store says that each ends. Whoever asks while that is read gets what another one read that began no earlier.
    pub(crate) async fn refresh(&self, wholly: bool) -> Result<Vec<Offset>, Error> {
        let asked = Instant::now();
        let mut last = self.refreshed.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.began > asked && (last.wholly || !wholly)) {
            return Ok(last.ends.clone());
        }
        let began = Instant::now();
        let ends = self.stored_ends().await?;
        let mut moved = false;
        for (partition, end) in (0..).map(Partition).zip(&ends) {
            self.change(partition, |part| {
                if !part.followed && part.end != *end {
                    part.end = *end;
                    moved = true;
                }
            });
        }
        if wholly {
            self.read_others().await?;
        }
        if moved {
            self.wake();
        }
        *last = Some(Refreshed { began, wholly, ends: ends.clone() });
        Ok(ends)
    }

    /// Reads what partitions hold that others follow.
    async fn read_others(&self) -> Result<(), Error> {
        let stale = self.look(|parts| {
            let stale = |part: &Part| !part.followed && part.as_of != Some(part.end);
            let stale = (0..).map(Partition).zip(parts).filter(|(_, part)| stale(part));
            stale.map(|(partition, _)| partition).collect::<Vec<_>>()
        });
        let reads =
            stale.into_iter().map(|partition| async move { Ok::<_, Error>((partition, self.read(partition).await?)) });
        let mut found = stream::iter(reads.collect::<Vec<_>>()).buffered(READS_AT_ONCE);
        while let Some(read) = found.next().await {
            let (partition, read): (_, Part) = read?;
            self.change(partition, |part| {
                if !part.followed {
                    *part = read;
                }
            });
        }
        Ok(())
    }

    /// What the store holds of a partition, all as of one offset.
    pub(super) async fn read(&self, partition: Partition) -> Result<Part, Error> {
        for _ in 0..READS_MAX {
            let end = self.stored_end(partition).await?;
            let leaves = leaves_of(&self.rows, partition, Stamp::new(self.log.incarnation(), end)).await?;
            let parked = parking::count(&self.rows, partition).await?;
            let origins = origins_of(&self.rows, partition).await?;
            if self.stored_end(partition).await? == end {
                return Ok(Part { end, leaves, parked, origins, as_of: Some(end), last_ms: None, followed: false });
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "a partition is committed to faster than it can be summed up"))
    }

    async fn stored_end(&self, partition: Partition) -> Result<Offset, StoreError> {
        let found = self.rows.store.offset(self.rows.generation, partition).await?;
        let own = found.filter(|(life, ..)| *life == self.log.incarnation());
        Ok(own.map(|(_, end, _)| end).unwrap_or_default())
    }

    /// Where the store says that each partition ends.
    pub(crate) async fn stored_ends(&self) -> Result<Vec<Offset>, StoreError> {
        let offsets = self.rows.store.offsets(self.rows.generation).await?;
        let mut ends = vec![Offset(0); usize::from(self.log.partitions())];
        for (_, partition, offset, _) in offsets.iter().filter(|(life, ..)| *life == self.log.incarnation()) {
            if let Some(end) = ends.get_mut(usize::from(partition.0)) {
                *end = *offset;
            }
        }
        Ok(ends)
    }

    /// Whether the store has less than was committed here, of another partition than `but`.
    pub(super) fn is_ahead_of(&self, stored: &[Offset], but: Option<Partition>) -> bool {
        self.look(|parts| {
            let parts = (0..).map(Partition).zip(stored.iter().zip(parts));
            parts
                .filter(|(partition, (_, part))| Some(*partition) != but && part.followed)
                .any(|(_, (stored, part))| *stored < part.end)
        })
    }

    /// Tells other generations of which the store has lost something, too: their partitions may be quiet and would never
    /// notice.
    pub(super) async fn look_at_other_generations(&self) -> Result<(), StoreError> {
        let known = self.generations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others = known.iter().filter_map(Weak::upgrade);
        for other in others.filter(|other| other.rows.generation != self.rows.generation) {
            if other.is_ahead_of(&other.stored_ends().await?, None) {
                other.doubts.send_modify(|doubts| *doubts += 1);
            }
        }
        Ok(())
    }

    /// Remembers how much is folded now, for the speed.
    pub(crate) fn sample(&self, events: u64) {
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while speed.len() > 1 && speed.front().is_some_and(|(at, _)| now - *at > SPEED_OVER) {
            speed.pop_front();
        }
        speed.push_back((now, events));
    }

    /// Forgets the speed: filling was halted.
    pub(crate) fn forget_speed(&self) {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Events folded a second, of late.
    pub(crate) fn speed(&self) -> Option<f64> {
        let speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let ((from, before), (to, after)) = (speed.front()?, speed.back()?);
        let seconds = (*to - *from).as_secs_f64();
        (seconds > 0.0).then(|| after.saturating_sub(*before) as f64 / seconds)
    }
}

/// What of a vector is not folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Whether something is.
    pub(crate) any: bool,
    /// Whether it is to be folded by another process, perhaps.
    pub(crate) elsewhere: bool,
    /// Whether it is meant by its place in another log.
    pub(crate) of_origins: bool,
}

/// Whether the log has, before `offset`, the event that was folded last.
pub(super) async fn is_same_log(
    log: &dyn EventLog,
    partition: Partition,
    offset: Offset,
    note: &[u8],
) -> Result<bool, Error> {
    let Some(last) = offset.0.checked_sub(1) else { return Ok(true) };
    // What another process has folded may come to be seen here a moment later.
    if let Ok(end) = tokio::time::timeout(LOG_CATCHES_UP, log.wait_beyond(partition, Offset(last))).await {
        end?;
    }
    let batch = as_stored(log).read(partition, Offset(last), 1, 1).await?;
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

async fn origins_of(rows: &Rows, partition: Partition) -> Result<PositionVector, Error> {
    let mut origins = PositionVector::default();
    let mut pages = rows.pages(ORIGINS, partition_pk(partition), CkRange::default());
    while let Some(page) = pages.next().await? {
        for row in page {
            if let Some(position) = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok()) {
                origins.include(&position);
            }
        }
    }
    Ok(origins)
}
