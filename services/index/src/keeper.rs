//! Keeping up with the pointer and with this process's share: what is followed here is the share of partitions times the
//! generations that are to be followed.

use crate::{
    duties,
    pointer::{Entry, Pointer},
    project::{Ended, Opened, Project, Task},
    service::{Shared, nothing_serves},
};
use bytes::Bytes;
use cairn_archive::{Incarnation, Partition, PositionVector};
use cairn_service_api::{Error, ErrorKind, index::Role};
use cairn_store_api::{Generation, IndexStore, Membership, ShareChange};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// What this process follows.
pub(crate) struct Keeping {
    share: BTreeSet<Partition>,
    serving: Arc<Project>,
    /// Serves from when it has all that was seen of the one before.
    next: Option<Next>,
    known: BTreeMap<Generation, Known>,
    closed: bool,
}

/// A generation that the pointer lets serve, and that queries are not given to yet.
struct Next {
    project: Arc<Project>,
    /// What the one before had when this was seen.
    reached: PositionVector,
    since: Instant,
}

/// Polls after which a generation serves that has not caught up with what was seen of the one before.
const CATCHES_UP_POLLS: u32 = 10;

/// A generation that the pointer has.
struct Known {
    project: Arc<Project>,
    role: Role,
    is_followed: bool,
    /// Whether it was filled and compared.
    is_compared: bool,
    tasks: BTreeMap<Partition, Task>,
    ending: BTreeMap<Partition, Ended>,
}

/// The pointer as it was read last.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) bytes: Bytes,
    /// When it was first seen so.
    pub(crate) since: Option<Instant>,
    /// When generations were first seen to be dropped.
    pub(crate) dropping: BTreeMap<Generation, Instant>,
    /// When a filled generation was last compared.
    pub(crate) compared: Option<Instant>,
}

impl Known {
    fn new(project: Arc<Project>) -> Self {
        let (tasks, ending) = (BTreeMap::new(), BTreeMap::new());
        Self { project, role: Role::Other, is_followed: false, is_compared: false, tasks, ending }
    }

    /// Begins and ends tasks so that these partitions are followed.
    fn follow(&mut self, wanted: &BTreeSet<Partition>) {
        self.ending.retain(|_, ended| !ended.has_ended());
        let unwanted: Vec<Partition> = self.tasks.keys().filter(|of| !wanted.contains(of)).copied().collect();
        for partition in unwanted {
            if let Some(task) = self.tasks.remove(&partition) {
                self.ending.insert(partition, task.end());
            }
        }
        // A task ends by itself where the generation was not to be followed for a moment, or ever again.
        let lost = self.project.log_changed.load(Ordering::Acquire);
        self.tasks.retain(|_, task| lost || !task.has_ended());
        for partition in wanted.iter().filter(|_| !lost) {
            if !self.tasks.contains_key(partition) {
                let task = Task::begin(&self.project, *partition, self.ending.remove(partition));
                self.tasks.insert(*partition, task);
            }
        }
    }

    fn take(&mut self, entry: &Entry, incarnation: Incarnation, read: Instant) {
        (self.role, self.is_followed) = (entry.role, entry.is_followed(incarnation));
        self.is_compared = entry.certificate.is_some();
        self.project.set_goal(match entry.role {
            Role::Frozen => entry.goal.clone(),
            // Between two comparisons it stays where it was compared.
            Role::Filling if !entry.closing => {
                let compared = entry.certificate.as_ref().map(|certificate| certificate.position.clone());
                Some(entry.goal.clone().or(compared).unwrap_or_default())
            }
            _ => None,
        });
        self.project.trace(entry.role == Role::Serving);
        if entry.paused {
            self.project.forget_speed();
        }
        if entry.is_live() {
            *self.project.listed_at.lock().unwrap_or_else(PoisonError::into_inner) = read;
        }
    }
}

impl Keeping {
    pub(crate) fn new(serving: Arc<Project>) -> Self {
        let known = BTreeMap::from([(serving.rows.generation, Known::new(serving.clone()))]);
        Self { share: BTreeSet::new(), serving, next: None, known, closed: false }
    }

    /// The generation that answers.
    pub(crate) fn serving(&self) -> Arc<Project> {
        self.serving.clone()
    }

    /// What must have folded what somebody waits for: the generation that answers, and the one that is about to.
    pub(crate) fn waited_for(&self) -> Vec<Arc<Project>> {
        let next = self.next.iter().map(|next| next.project.clone());
        std::iter::once(self.serving.clone()).chain(next).collect()
    }

    /// A generation that the pointer has.
    pub(crate) fn get(&self, generation: Generation) -> Option<Arc<Project>> {
        self.known.get(&generation).map(|known| known.project.clone())
    }

    /// A generation that can be asked.
    pub(crate) fn queryable(&self, generation: Generation) -> Result<Arc<Project>, Error> {
        let known = self.known.get(&generation).filter(|known| !matches!(known.role, Role::Dropping | Role::Other));
        let number = generation.0;
        let known = known.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no generation {number}")))?;
        let is_filled = match known.role {
            Role::Frozen => known.project.is_filled(),
            Role::Filling => known.is_compared,
            _ => true,
        };
        if !is_filled {
            return Err(Error::new(ErrorKind::Unavailable, format!("generation {number} is still being filled")));
        }
        Ok(known.project.clone())
    }

    /// Whether this process has the first partition: of several that could do what is to be done once, this one begins.
    pub(crate) fn is_first(&self) -> bool {
        self.share.contains(&Partition(0))
    }

    /// Whether nothing in this process writes or reads a generation any more.
    pub(crate) fn is_idle(&self, generation: Generation) -> bool {
        self.known.get(&generation).is_none_or(|known| {
            known.tasks.is_empty() && known.ending.values().all(Ended::has_ended) && !known.project.is_pinned()
        })
    }

    /// Begins and ends followers so that the share of every generation is followed, and nothing else.
    fn apply(&mut self) {
        let nothing = BTreeSet::new();
        for known in self.known.values_mut() {
            known.follow(if known.is_followed && !self.closed { &self.share } else { &nothing });
        }
    }

    /// What the pointer says.
    fn take(&mut self, pointer: &Pointer, incarnation: Incarnation, read: Instant) {
        for (generation, known) in &mut self.known {
            match pointer.get(*generation) {
                Some(entry) => known.take(entry, incarnation, read),
                None => known.is_followed = false,
            }
        }
        self.apply();
        self.known.retain(|generation, _| pointer.get(*generation).is_some());
        if let Some(known) = pointer.serving().and_then(|entry| self.known.get(&entry.generation)) {
            let (project, poll) = (known.project.clone(), known.project.config.pointer_poll);
            let is_kept = pointer.get(self.serving.rows.generation).is_some_and(|entry| entry.role == Role::Kept);
            self.hand_over(project, is_kept, poll * CATCHES_UP_POLLS);
        }
    }

    /// Lets another generation answer, but not before it has what the one before was seen to have.
    fn hand_over(&mut self, to: Arc<Project>, waits: bool, at_most: Duration) {
        if to.rows.generation == self.serving.rows.generation {
            self.next = None;
            return;
        }
        if self.next.as_ref().is_none_or(|next| next.project.rows.generation != to.rows.generation) {
            let reached = self.serving.look(|parts| self.serving.positions(parts, false));
            self.next = Some(Next { project: to, reached, since: Instant::now() });
        }
        let ready =
            |next: &mut Next| !waits || !next.project.missing(&next.reached, &[]).any || next.since.elapsed() > at_most;
        if let Some(next) = self.next.take_if(ready) {
            let before = std::mem::replace(&mut self.serving, next.project);
            // Those who wait for its commits look again.
            before.wake();
        }
    }

    fn ending(&self) -> Vec<Ended> {
        self.known.values().flat_map(|known| known.ending.values().cloned()).collect()
    }

    fn ending_of(&self, partitions: &[Partition]) -> Vec<Ended> {
        let of = |known: &Known| partitions.iter().filter_map(|of| known.ending.get(of).cloned()).collect::<Vec<_>>();
        self.known.values().flat_map(of).collect()
    }
}

impl Shared {
    /// Reads the pointer and follows what it says. Cancel safe.
    pub(crate) async fn look(&self) -> Result<Pointer, Error> {
        let mut seen = self.looking.lock().await;
        loop {
            let read = Instant::now();
            let bytes = self.store.pointer().await?;
            let pointer = Pointer::decode(&bytes)?;
            if seen.bytes != bytes || seen.since.is_none() {
                (seen.bytes, seen.since) = (bytes, Some(read));
            }
            seen.dropping.retain(|generation, _| pointer.get(*generation).is_some_and(|entry| !entry.is_live()));
            for entry in pointer.entries.iter().filter(|entry| !entry.is_live()) {
                seen.dropping.entry(entry.generation).or_insert(read);
            }
            if self.open_new(&pointer).await? {
                let next = self.keeping().next.as_ref().map(|next| next.project.clone());
                if let Some(next) = next {
                    next.refresh(false).await?;
                }
                let mut keeping = self.keeping();
                keeping.take(&pointer, self.log.incarnation(), read);
                if keeping.next.is_some() {
                    let (told, soon) = (self.told.clone(), self.config.elsewhere_poll);
                    tokio::spawn(async move {
                        tokio::time::sleep(soon).await;
                        told.notify_one();
                    });
                }
                return Ok(pointer);
            }
        }
    }

    /// Opens generations that are new; `false`: the pointer was changed, because the log is another one.
    async fn open_new(&self, pointer: &Pointer) -> Result<bool, Error> {
        let wanted = |entry: &&Entry| entry.is_live() && entry.role != Role::Other;
        for entry in pointer.entries.iter().filter(wanted) {
            let (generation, is_serving) = (entry.generation, entry.role == Role::Serving);
            let known = self.keeping().get(generation);
            let opened = match known {
                Some(known) if known.log_changed.load(Ordering::Acquire) => Ok(Opened::LogChanged),
                Some(_) => continue,
                None => self.open_one(generation).await,
            };
            match opened {
                Ok(Opened::Continues(project)) => {
                    self.keeping().known.insert(generation, Known::new(project));
                }
                Ok(Opened::LogChanged) if is_serving => {
                    begin_anew(&*self.store, generation, self.log.incarnation(), self.clock.unix_ms()).await?;
                    return Ok(false);
                }
                Ok(Opened::LogChanged) => {
                    tracing::warn!(generation = generation.0, "a generation of another log is dropped");
                    self.drop_foreign(generation).await?;
                    return Ok(false);
                }
                Err(error) if is_serving => return Err(error),
                Err(error) => tracing::warn!(generation = generation.0, %error, "a generation can't be opened yet"),
            }
        }
        Ok(true)
    }

    async fn open_one(&self, generation: Generation) -> Result<Opened, Error> {
        let (log, rows, config) = (self.log.clone(), self.rows(generation), self.config.clone());
        Project::open(log, rows, config, Some(Default::default()), &self.generations, self.told.clone()).await
    }

    async fn drop_foreign(&self, generation: Generation) -> Result<(), Error> {
        let (own, now) = (self.log.incarnation(), self.clock.unix_ms());
        let dropped = Pointer::change(&*self.store, |pointer| {
            let entry = pointer.live_mut(generation)?;
            check_life(entry, own)?;
            entry.become_(Role::Dropping, now);
            Ok(())
        });
        match dropped.await {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets all followers end, between commits.
    pub(crate) fn let_followers_end(&self) {
        let mut keeping = self.keeping();
        keeping.closed = true;
        keeping.apply();
    }

    /// Lets all followers end, and waits until they have.
    pub(crate) async fn end_followers(&self) {
        self.let_followers_end();
        let ending = self.keeping().ending();
        for ended in ending {
            ended.ended().await;
        }
    }
}

/// A process whose log is of an earlier life than the index must not judge it.
fn check_life(entry: &Entry, own: Incarnation) -> Result<(), Error> {
    match entry.incarnation {
        Some(life) if life > own => Err(Error::new(ErrorKind::Unavailable, "the index is of a later life of the log")),
        _ => Ok(()),
    }
}

/// Lets an empty generation serve instead of one that was filled from another log; all others go.
pub(crate) async fn begin_anew(
    store: &dyn IndexStore,
    wrong: Generation,
    own: Incarnation,
    now_ms: u64,
) -> Result<(), Error> {
    let change = Pointer::change(store, |pointer| {
        let serving = pointer.serving().ok_or_else(nothing_serves)?;
        check_life(serving, own)?;
        if serving.generation == wrong {
            pointer.entries.iter_mut().for_each(|entry| entry.become_(Role::Dropping, now_ms));
            pointer.add(|generation| Entry::new(generation, Role::Serving, own, now_ms));
        }
        Ok(())
    });
    tracing::warn!(generation = wrong.0, "the index does not belong to this log and is filled anew");
    change.await.map(|_| ())
}

/// How far back numbers are looked at.
const NUMBERS_LOOKED_AT: u32 = 64;

/// Drops what is under numbers that the pointer does not have: nobody fills or serves it. Builds before this one left such,
/// and so does a process that wrote late to what was dropped.
pub(crate) async fn drop_waste(store: &dyn IndexStore, pointer: &Pointer) -> Result<(), Error> {
    for number in pointer.next.saturating_sub(NUMBERS_LOOKED_AT).max(1)..pointer.next {
        let generation = Generation(number);
        if pointer.get(generation).is_none() && !store.offsets(generation).await?.is_empty() {
            store.drop_generation(generation).await?;
        }
    }
    Ok(())
}

/// Follows the partitions that the membership gives to this process.
pub(crate) async fn share(shared: Arc<Shared>, mut membership: Box<dyn Membership>) {
    let mut stop = shared.stop.subscribe();
    loop {
        let change = tokio::select! {
            change = membership.next() => change,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let mut keeping = shared.keeping();
        match change {
            Some(ShareChange::Gained(partitions)) => {
                keeping.share.extend(partitions);
                keeping.apply();
                shared.told.notify_one();
            }
            Some(ShareChange::Lost(partitions, release)) => {
                keeping.share.retain(|partition| !partitions.contains(partition));
                keeping.apply();
                let ending = keeping.ending_of(&partitions);
                tokio::spawn(async move {
                    for ended in ending {
                        ended.ended().await;
                    }
                    drop(release);
                });
            }
            None => {
                tracing::warn!("this process has no part in following the log any more");
                keeping.share.clear();
                keeping.apply();
                break;
            }
        }
    }
    // Others begin where this one ended.
    if *shared.stop.borrow() {
        shared.end_followers().await;
    }
}

/// Looks at the pointer now and then and whenever something is told, and does what is to be done by some process.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut ticks = tokio::time::interval(shared.config.pointer_poll.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.told.notified() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let done = tokio::select! {
            done = duties::run(&shared, false) => done,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = &done {
            match fails {
                false => tracing::warn!(%error, "generations can't be looked after, which is tried again"),
                true => tracing::debug!(%error, "generations can't be looked after yet"),
            }
        }
        fails = done.is_err();
    }
}
