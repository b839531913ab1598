//! Which site has authority, and what is decided about sites: a fold over the events that are of no study.
//!
//! Instances are facts, and are taken at every site always. What does not commute belongs to the site that was promoted
//! last. A promotion says what the promoted site held; whatever was decided under an older one, and is beyond that, is void
//! everywhere, for ever. The fold is a function of the set of events: in which order they came, and how often, changes
//! nothing (I11, I12).

use crate::{
    envelope::Envelope,
    events::{Event, EventError, OriginEnd, SendersConfigured, SitePromoted},
    hlc::Hlc,
    ids::{EventId, SiteId},
    position::{Incarnation, Offset, Partition, Position, PositionVector},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The partition that events about sites stand in.
pub fn partition(partitions: u16) -> Partition {
    Partition::of_study("", partitions)
}

/// Place in the order of events.
type Order = (Hlc, SiteId, EventId);

/// A site took authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// `ce_id`.
    pub id: EventId,
    /// The site.
    pub site: SiteId,
    /// Number of the promotion; of two with one number the later in the order of events counts.
    pub epoch: u64,
    /// When, by the site's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it held.
    pub holds: PositionVector,
    /// Where it became a fact.
    pub position: Position,
    /// Who decided.
    pub decided_by: String,
    /// Why.
    pub reason: String,
    /// The drill that it is part of; empty: none.
    pub drill: String,
    /// Whether it counts: a later one that does not hold it makes it void.
    pub is_void: bool,
}

/// What was set about one site.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReadOnly {
    site: SiteId,
    by: SiteId,
    under: Option<EventId>,
    position: Position,
    read_only: bool,
}

/// What was said of one site's death.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    site: SiteId,
    under: Option<EventId>,
    position: Position,
    dead: bool,
}

/// A site that is gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadSite {
    /// The site.
    pub site: SiteId,
    /// `ce_id` of the event that says so.
    pub declared: EventId,
    /// When, by the clock of the site that decided it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What is known of sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    seen: BTreeSet<EventId>,
    /// Highest last: by epoch, then in the order of events.
    promotions: BTreeMap<(u64, Order), Promotion>,
    /// Of promotions that were given up: who said so, and in whose favour.
    given_up: BTreeMap<EventId, BTreeMap<Order, String>>,
    read_only: BTreeMap<Order, ReadOnly>,
    declared: BTreeMap<Order, Declared>,
    senders: BTreeMap<SiteId, (Order, SendersConfigured)>,
    last: Hlc,
}

/// A decision, as far as authority is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The promotion under which it was made; `None`: there was none yet.
    pub under: Option<EventId>,
    /// Where it became a fact.
    pub position: &'a Position,
}

impl Authority {
    /// Takes an event in; one of a study changes nothing. `position`: where it became a fact.
    ///
    /// # Errors
    /// It can't be read by this build.
    pub fn include(&mut self, envelope: &Envelope, position: &Position, payload: Bytes) -> Result<(), EventError> {
        let event = Event::decode(&envelope.kind, payload)?;
        // Who says it is who it is about, but for what the site with authority sets elsewhere.
        let (id, by) = (envelope.id, envelope.site.clone());
        if !event.is_of_sites() || !self.seen.insert(id) {
            return Ok(());
        }
        self.last = self.last.max(envelope.hlc);
        let order = (envelope.hlc, by.clone(), id);
        match event {
            Event::SitePromoted(event) if event.site == by.as_str() => {
                let (holds, position) = (vector(&event.holds), position.clone());
                let SitePromoted { epoch, decided_by, reason, drill, .. } = event;
                let at_ms = envelope.hlc.wall_ms;
                let promotion = Promotion {
                    id,
                    site: by,
                    epoch,
                    at_ms,
                    holds,
                    position,
                    decided_by,
                    reason,
                    drill,
                    is_void: false,
                };
                self.promotions.insert((epoch, order), promotion);
                self.judge();
            }
            Event::SiteDemoted(event) => {
                if let Ok(promotion) = EventId::from_slice(&event.promotion_event_id) {
                    self.given_up.entry(promotion).or_default().insert(order, event.successor);
                }
            }
            Event::SiteReadOnlySet(event) => {
                if let Ok(site) = event.site.parse() {
                    let under = EventId::from_slice(&event.promotion_event_id).ok();
                    let (position, read_only) = (position.clone(), event.read_only);
                    self.read_only.insert(order, ReadOnly { site, by, under, position, read_only });
                }
            }
            Event::SiteDeclaredDead(event) => {
                if let Ok(site) = event.site.parse() {
                    let under = EventId::from_slice(&event.promotion_event_id).ok();
                    self.declared.insert(order, Declared { site, under, position: position.clone(), dead: event.dead });
                }
            }
            Event::SendersConfigured(event)
                if event.site == by.as_str() && self.senders.get(&by).is_none_or(|(known, _)| *known < order) =>
            {
                self.senders.insert(by, (order, event));
            }
            _ => {}
        }
        Ok(())
    }

    /// Which promotions count: the highest does, and of the others those that every higher one that counts holds.
    fn judge(&mut self) {
        let mut higher: Vec<PositionVector> = Vec::new();
        for promotion in self.promotions.values_mut().rev() {
            promotion.is_void = !higher.iter().all(|holds| holds.contains(&promotion.position));
            if !promotion.is_void {
                higher.push(promotion.holds.clone());
            }
        }
    }

    /// All promotions, the highest first.
    pub fn promotions(&self) -> impl DoubleEndedIterator<Item = &Promotion> {
        self.promotions.values().rev()
    }

    /// The promotion that counts now.
    pub fn current(&self) -> Option<&Promotion> {
        self.promotions.values().next_back()
    }

    /// Number of the promotion that counts now; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.current().map_or(0, |promotion| promotion.epoch)
    }

    /// The site that has authority: none before the first promotion, and none when it was given up.
    pub fn primary(&self) -> Option<&SiteId> {
        self.current().filter(|current| self.successor(current).is_none()).map(|current| &current.site)
    }

    /// In whose favour a promotion was given up by the site that had it, empty if it was not said; `None`: it was not.
    pub fn successor(&self, promotion: &Promotion) -> Option<&str> {
        let said = self.given_up.get(&promotion.id)?.iter().rev();
        said.filter(|((_, by, _), _)| *by == promotion.site).map(|(_, successor)| successor.as_str()).next()
    }

    /// Whether a decision counts for nothing: a promotion that came after the one it was made under does not hold it, or
    /// that one is not known, or void itself.
    pub fn is_void(&self, decision: Decision<'_>) -> bool {
        let beyond = |promotion: &Promotion| !promotion.is_void && !promotion.holds.contains(decision.position);
        match decision.under {
            None => self.promotions.values().any(beyond),
            Some(under) => {
                let mut higher = self.promotions.values().rev();
                let found = higher.by_ref().take_while(|promotion| promotion.id != under).any(beyond);
                // What stopped the search is the promotion itself, if it is there.
                found || !self.promotions.values().any(|promotion| promotion.id == under && !promotion.is_void)
            }
        }
    }

    /// Whether a site takes no instances from senders: what was set last counts, by the site itself or by authority.
    pub fn is_read_only(&self, site: &SiteId) -> bool {
        let counts = |set: &&ReadOnly| {
            set.site == *site
                && (set.by == *site || !self.is_void(Decision { under: set.under, position: &set.position }))
        };
        self.read_only.values().rev().find(counts).is_some_and(|set| set.read_only)
    }

    /// Sites that are gone for good: of each what was decided last counts.
    pub fn dead(&self) -> Vec<DeadSite> {
        let counts = |said: &Declared| !self.is_void(Decision { under: said.under, position: &said.position });
        let mut last = BTreeMap::new();
        for ((hlc, _, declared), said) in self.declared.iter().filter(|(_, said)| counts(said)) {
            last.insert(&said.site, (said.dead, *declared, hlc.wall_ms));
        }
        let dead = last.into_iter().filter(|(_, (dead, ..))| *dead);
        dead.map(|(site, (_, declared, at_ms))| DeadSite { site: site.clone(), declared, at_ms }).collect()
    }

    /// What each site last said of its senders.
    pub fn senders(&self) -> impl Iterator<Item = (&SiteId, &SendersConfigured)> {
        self.senders.iter().map(|(site, (_, senders))| (site, senders))
    }

    /// The latest reading of a clock among these events.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

/// Reads a vector; an origin that is none means nothing.
pub(crate) fn vector(ends: &[OriginEnd]) -> PositionVector {
    let mut vector = PositionVector::default();
    for OriginEnd { site, incarnation, partition, end } in ends {
        if let (Ok(site), Ok(partition)) = (site.parse(), u16::try_from(*partition)) {
            vector.0.insert((site, Incarnation(*incarnation), Partition(partition)), Offset(*end));
        }
    }
    vector
}

#[cfg(test)]
mod tests;
