//! What a partition of a log has before an offset, summed up: by origin, because that is how sites tell each other what they
//! hold.

use crate::named::named;
use cairn_archive::{EventId, Incarnation, Offset, Partition, Position, SiteId};
use cairn_service_api::replication::Mark;
use cairn_store_api::{Lives, LogRecord};
use std::{collections::BTreeMap, ops::AddAssign};

/// Whose log it is, and which partition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) site: SiteId,
    pub(crate) lives: Lives,
    pub(crate) partition: Partition,
}

impl Place {
    /// Where the event became a fact.
    pub(crate) fn origin(&self, record: &LogRecord) -> Position {
        let Self { site, lives, partition } = self;
        let (partition, offset) = (*partition, record.offset);
        let here = || Position { site: site.clone(), incarnation: lives.at(partition, offset), partition, offset };
        record.record.envelope.origin.clone().unwrap_or_else(here)
    }

    /// Whether an event that is not in this log should be: it became a fact here, in a life that did not end before it.
    pub(crate) fn lacks(&self, origin: &Position) -> bool {
        let of_life = self.lives.range(origin.incarnation, origin.partition);
        origin.site == self.site && of_life.is_none_or(|of_life| origin.offset < of_life.end)
    }
}

/// How many, and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) instances: u64,
    /// Bytes of the objects named, as far as events say.
    pub(crate) bytes: u64,
}

impl Totals {
    pub(crate) fn of(record: &LogRecord) -> Self {
        let named = named(&record.record);
        let bytes = named.objects.iter().map(|object| object.length).sum();
        Self { events: 1, instances: named.sop_instance_uid.is_some().into(), bytes }
    }

    fn beyond(self, before: Self) -> Self {
        Self {
            events: self.events.saturating_sub(before.events),
            instances: self.instances.saturating_sub(before.instances),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.instances += other.instances;
        self.bytes += other.bytes;
    }
}

/// Site and life of a log.
pub(crate) type Origin = (SiteId, Incarnation);

/// What a partition has before `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// First offset that is not meant.
    pub(crate) to: Offset,
    /// The event before it.
    pub(crate) last: Option<EventId>,
    /// Of each origin: the first offset there that is not meant, and the event before it.
    pub(crate) origins: BTreeMap<Origin, (Offset, EventId)>,
    /// Of each origin, since the beginning.
    pub(crate) totals: BTreeMap<Origin, Totals>,
}

impl Reached {
    /// Goes past a record, which is the next.
    pub(crate) fn include(&mut self, place: &Place, record: &LogRecord) {
        let origin = place.origin(record);
        let id = record.record.envelope.id;
        let key = (origin.site, origin.incarnation);
        *self.totals.entry(key.clone()).or_default() += Totals::of(record);
        let end = self.origins.entry(key).or_insert((Offset(0), id));
        if origin.offset >= end.0 {
            *end = (origin.offset.next(), id);
        }
        (self.to, self.last) = (record.offset.next(), Some(id));
    }

    /// What came since `before`, without that which is from `peer` itself.
    pub(crate) fn beyond(&self, before: &Self, peer: &Origin) -> Totals {
        let mut sum = Totals::default();
        for (origin, totals) in self.totals.iter().filter(|(origin, _)| *origin != peer) {
            sum += totals.beyond(before.totals.get(origin).copied().unwrap_or_default());
        }
        sum
    }

    /// The latest life of a site's log of which it has anything.
    pub(crate) fn newest_life(&self, site: &SiteId) -> Incarnation {
        let lives = self.origins.keys().filter(|(of, _)| of == site).map(|(_, incarnation)| *incarnation);
        lives.max().unwrap_or_default()
    }

    /// What it has, by origin.
    pub(crate) fn marks(&self, partition: Partition) -> impl Iterator<Item = Mark> {
        self.origins.iter().map(move |((site, incarnation), (end, last))| Mark {
            site: site.clone(),
            incarnation: *incarnation,
            partition,
            end: *end,
            last: *last,
        })
    }
}

/// What a site said that it holds, with what was delivered since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings(BTreeMap<(SiteId, Incarnation, Partition), (Offset, EventId)>);

impl Holdings {
    pub(crate) fn new(marks: Vec<Mark>) -> Self {
        let entry = |mark: Mark| ((mark.site, mark.incarnation, mark.partition), (mark.end, mark.last));
        Self(marks.into_iter().map(entry).collect())
    }

    pub(crate) fn end(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partition: Partition,
    ) -> Option<(Offset, EventId)> {
        self.0.get(&(site.clone(), incarnation, partition)).copied()
    }

    pub(crate) fn contains(&self, origin: &Position) -> bool {
        self.end(&origin.site, origin.incarnation, origin.partition).is_some_and(|(end, _)| origin.offset < end)
    }

    /// Adds one event, which is the latest of its origin.
    pub(crate) fn add_event(&mut self, origin: &Position, id: EventId) {
        let key = (origin.site.clone(), origin.incarnation, origin.partition);
        let held = self.0.entry(key).or_insert((Offset(0), id));
        if origin.offset >= held.0 {
            *held = (origin.offset.next(), id);
        }
    }

    /// Adds everything that a partition has.
    pub(crate) fn add(&mut self, partition: Partition, reached: &Reached) {
        for ((site, incarnation), (end, last)) in &reached.origins {
            let held = self.0.entry((site.clone(), *incarnation, partition)).or_insert((*end, *last));
            if *end > held.0 {
                *held = (*end, *last);
            }
        }
    }

    /// Whether it has everything that a partition has, and the same.
    pub(crate) fn covers(&self, partition: Partition, reached: &Reached) -> bool {
        reached.origins.iter().all(|((site, incarnation), (end, last))| {
            let held = self.end(site, *incarnation, partition);
            held.is_some_and(|(held, id)| held > *end || held == *end && id == *last)
        })
    }
}
