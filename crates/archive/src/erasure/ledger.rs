//! How far each erasure is.

use super::{KINDS, VERSIONS_ERASED};
use crate::{
    authority::{Authority, Decision, vector},
    envelope::Envelope,
    events::{
        ErasedSeries, ErasureConfirmed, ErasureRequested, ErasureWithdrawn, Event, KeysDestroyed, KeysJudged,
        ObjectsDestroyed, VersionsErased,
    },
    ids::{EventId, SiteId},
    position::{Position, PositionVector},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A decision about an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    under: Option<EventId>,
    position: Position,
    /// Who decided.
    by: String,
}

/// The request of an erasure, without what it names: that stays in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    under: Option<EventId>,
    position: Position,
    /// Site at which it was asked for.
    pub site: SiteId,
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub at_ms: u64,
    /// Whose study.
    pub tenant: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Versions that it names.
    pub versions: u64,
    /// Milliseconds that each site lets pass after it learnt of it.
    pub delay_ms: u64,
    /// Who asked.
    pub by: String,
}

/// What took effect, without what it names: that stays in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub at_ms: u64,
    /// Site that drew the conclusion.
    pub site: SiteId,
    /// Versions erased.
    pub erased: u64,
    /// Versions kept.
    pub kept: u64,
    /// The confirmations that it follows from.
    confirmations: BTreeSet<EventId>,
}

/// That a site confirmed an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// `ce_id`.
    pub event: EventId,
    /// Everything that it held; empty once the erasure took effect, when nobody needs it any more.
    pub holds: PositionVector,
}

/// That a site destroyed the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destroyed {
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub at_ms: u64,
    /// Objects that were there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were not there.
    pub absent: u64,
}

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its request is not known here yet.
    Unknown,
    /// It was decided under a promotion that does not count any more.
    Void,
    /// It was withdrawn.
    Withdrawn,
    /// Sites let time pass, and confirm.
    Requested,
    /// It took effect.
    Erased,
}

/// An erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasure {
    requested: Option<Requested>,
    withdrawn: BTreeMap<EventId, Decided>,
    confirmed: BTreeMap<SiteId, Confirmation>,
    /// What took effect, by event: all of it counts.
    effects: BTreeMap<EventId, Effect>,
    /// By site, and by what took effect.
    destroyed: BTreeMap<(SiteId, EventId), BTreeMap<EventId, Destroyed>>,
}

/// What is known of erasures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasures {
    erasures: BTreeMap<EventId, Erasure>,
    /// Of `VersionsErased` events the erasure that each is of.
    of: BTreeMap<EventId, EventId>,
    /// What sites destroyed of such events that are not known yet.
    early: BTreeMap<EventId, Vec<(SiteId, EventId, Destroyed)>>,
    /// What is said to become of the keys of what took effect, by that event, and the event that each follows from.
    keys: BTreeMap<EventId, BTreeMap<EventId, Option<EventId>>>,
    /// When sites destroyed the keys that such an event names, in milliseconds since the Unix epoch.
    keys_destroyed: BTreeMap<EventId, BTreeMap<SiteId, u64>>,
    /// Events about erasures that this build can't read.
    unreadable: BTreeSet<EventId>,
}

impl Erasures {
    /// Whether an event of this type is about erasures.
    pub fn concern(kind: &str) -> bool {
        kind.starts_with(KINDS) || kind == VERSIONS_ERASED
    }

    /// Takes an event in; one that is not about erasures changes nothing. `position`: where it became a fact.
    pub fn include(&mut self, envelope: &Envelope, position: &Position, payload: Bytes) {
        if !Self::concern(&envelope.kind) {
            return;
        }
        let known = match Event::decode(&envelope.kind, payload) {
            Ok(Event::ErasureRequested(event)) => self.requested(envelope, position, *event),
            Ok(Event::ErasureWithdrawn(event)) => self.withdrawn(envelope, position, event),
            Ok(Event::ErasureConfirmed(event)) => self.confirmed(envelope, &event),
            Ok(Event::VersionsErased(event)) => self.erased(envelope, &event),
            Ok(Event::ObjectsDestroyed(event)) => self.destroyed(envelope, &event),
            Ok(Event::KeysJudged(event)) => self.keys_judged(envelope, &event),
            Ok(Event::KeysDestroyed(event)) => self.keys_destroyed(envelope, &event),
            _ => None,
        };
        if known.is_none() {
            self.unreadable.insert(envelope.id);
        }
    }

    fn requested(&mut self, envelope: &Envelope, position: &Position, event: ErasureRequested) -> Option<()> {
        let requested = Requested {
            under: EventId::from_slice(&event.promotion_event_id).ok(),
            position: position.clone(),
            site: envelope.site.clone(),
            at_ms: envelope.hlc.wall_ms,
            versions: versions(&event.series),
            tenant: event.tenant,
            study_instance_uid: event.study_instance_uid,
            delay_ms: event.delay_ms,
            by: event.requested_by,
        };
        self.erasures.entry(envelope.id).or_default().requested = Some(requested);
        Some(())
    }

    fn withdrawn(&mut self, envelope: &Envelope, position: &Position, event: ErasureWithdrawn) -> Option<()> {
        let id = EventId::from_slice(&event.erasure_event_id).ok()?;
        let under = EventId::from_slice(&event.promotion_event_id).ok();
        let decided = Decided { under, position: position.clone(), by: event.withdrawn_by };
        self.erasures.entry(id).or_default().withdrawn.insert(envelope.id, decided);
        Some(())
    }

    fn confirmed(&mut self, envelope: &Envelope, event: &ErasureConfirmed) -> Option<()> {
        let id = EventId::from_slice(&event.erasure_event_id).ok()?;
        // Who says it is who it is about.
        if event.site == envelope.site.as_str() {
            let confirmation = Confirmation { event: envelope.id, holds: vector(&event.holds) };
            let confirmed = &mut self.erasures.entry(id).or_default().confirmed;
            let known = confirmed.entry(envelope.site.clone()).or_insert_with(|| confirmation.clone());
            // Of several the first that was minted counts.
            if confirmation.event < known.event {
                *known = confirmation;
            }
            self.forget_what_sites_held(id);
        }
        Some(())
    }

    fn erased(&mut self, envelope: &Envelope, event: &VersionsErased) -> Option<()> {
        let id = EventId::from_slice(&event.erasure_event_id).ok()?;
        self.of.insert(envelope.id, id);
        let effect = Effect {
            at_ms: envelope.hlc.wall_ms,
            site: envelope.site.clone(),
            erased: versions(&event.series),
            kept: event.kept.len() as u64,
            confirmations: event.confirmation_event_ids.iter().filter_map(|id| EventId::from_slice(id).ok()).collect(),
        };
        let erasure = self.erasures.entry(id).or_default();
        erasure.effects.insert(envelope.id, effect);
        for (site, event, destroyed) in self.early.remove(&envelope.id).unwrap_or_default() {
            erasure.destroyed.entry((site, envelope.id)).or_default().insert(event, destroyed);
        }
        self.forget_what_sites_held(id);
        Some(())
    }

    fn forget_what_sites_held(&mut self, id: EventId) {
        if let Some(erasure) = self.erasures.get_mut(&id).filter(|erasure| !erasure.effects.is_empty()) {
            erasure.confirmed.values_mut().for_each(|confirmation| confirmation.holds = PositionVector::default());
        }
    }

    fn destroyed(&mut self, envelope: &Envelope, event: &ObjectsDestroyed) -> Option<()> {
        let of = EventId::from_slice(&event.versions_erased_event_id).ok()?;
        let ObjectsDestroyed { objects, bytes, absent, .. } = *event;
        let destroyed = Destroyed { at_ms: envelope.hlc.wall_ms, objects, bytes, absent };
        match self.of.get(&of).and_then(|id| self.erasures.get_mut(id)) {
            Some(erasure) => {
                let place = (envelope.site.clone(), of);
                erasure.destroyed.entry(place).or_default().insert(envelope.id, destroyed);
            }
            None => {
                let early = self.early.entry(of).or_default();
                if early.iter().all(|(_, known, _)| *known != envelope.id) {
                    early.push((envelope.site.clone(), envelope.id, destroyed));
                    early.sort_by_key(|(_, event, _)| *event);
                }
            }
        }
        Some(())
    }

    fn keys_judged(&mut self, envelope: &Envelope, event: &KeysJudged) -> Option<()> {
        let of = EventId::from_slice(&event.versions_erased_event_id).ok()?;
        self.keys.entry(of).or_default().insert(envelope.id, envelope.causation_id);
        Some(())
    }

    fn keys_destroyed(&mut self, envelope: &Envelope, event: &KeysDestroyed) -> Option<()> {
        let of = EventId::from_slice(&event.keys_judged_event_id).ok()?;
        let at_ms = self.keys_destroyed.entry(of).or_default().entry(envelope.site.clone()).or_default();
        *at_ms = (*at_ms).max(envelope.hlc.wall_ms);
        Some(())
    }

    /// The events that say what becomes of the keys of what took effect; none: that was not concluded yet.
    pub fn keys_of(&self, effect: EventId) -> impl Iterator<Item = EventId> {
        self.keys.get(&effect).into_iter().flat_map(BTreeMap::keys).copied()
    }

    /// All such events.
    pub fn all_keys(&self) -> impl Iterator<Item = EventId> {
        self.keys.values().flat_map(BTreeMap::keys).copied()
    }

    /// Where, and when, the keys that such an event names were destroyed: milliseconds since the Unix epoch.
    pub fn keys_destroyed_at(&self, judged: EventId) -> impl Iterator<Item = (&SiteId, u64)> {
        let at = self.keys_destroyed.get(&judged).into_iter().flatten();
        at.map(|(site, at_ms)| (site, *at_ms))
    }

    /// What took effect of whose keys something is to be concluded, with the event that it follows from: the effect itself; then
    /// that a site which it did not wait for is back, and has done its part.
    pub fn keys_to_judge(&self) -> impl Iterator<Item = (EventId, EventId)> {
        let effects = self.erasures.values().flat_map(|erasure| {
            let erased = erasure.effects.iter().filter(|(_, effect)| effect.erased > 0);
            erased.map(move |(id, effect)| (erasure, *id, effect))
        });
        effects.filter_map(|(erasure, id, effect)| {
            let Some(judged) = self.keys.get(&id) else { return Some((id, id)) };
            let mut late = erasure.destroyed_late(id, effect);
            late.find(|event| !judged.values().any(|follows| *follows == Some(*event))).map(|event| (id, event))
        })
    }

    /// The erasure that something took effect of.
    pub fn of(&self, effect: EventId) -> Option<&Erasure> {
        self.of.get(&effect).and_then(|id| self.erasures.get(id))
    }

    /// Every erasure, by the id of its request.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (EventId, &Erasure)> {
        self.erasures.iter().map(|(id, erasure)| (*id, erasure))
    }

    /// An erasure.
    pub fn get(&self, id: EventId) -> Option<&Erasure> {
        self.erasures.get(&id)
    }

    /// Events about erasures that this build can't read; while there are any, no erasure takes effect here.
    pub fn unreadable(&self) -> impl Iterator<Item = EventId> {
        self.unreadable.iter().copied()
    }
}

impl Erasure {
    /// How far it is.
    pub fn stage(&self, authority: &Authority) -> Stage {
        // What took effect did, whatever came of who decided it: bytes may be gone.
        if !self.effects.is_empty() {
            return Stage::Erased;
        }
        let is_void = |under, position| authority.is_void(Decision { under, position });
        match &self.requested {
            None => Stage::Unknown,
            Some(requested) if is_void(requested.under, &requested.position) => Stage::Void,
            Some(_) if self.withdrawn_by(authority).is_some() => Stage::Withdrawn,
            Some(_) => Stage::Requested,
        }
    }

    /// What was asked for; `None`: that is not known here yet.
    pub fn requested(&self) -> Option<&Requested> {
        self.requested.as_ref()
    }

    /// Who withdrew it, should that count.
    pub fn withdrawn_by(&self, authority: &Authority) -> Option<&str> {
        let counts =
            |decided: &&Decided| !authority.is_void(Decision { under: decided.under, position: &decided.position });
        self.withdrawn.values().find(counts).map(|decided| decided.by.as_str())
    }

    /// Sites that confirmed it.
    pub fn confirmed(&self) -> &BTreeMap<SiteId, Confirmation> {
        &self.confirmed
    }

    /// What took effect, by the event that says so. Mostly one; never void.
    pub fn effects(&self) -> &BTreeMap<EventId, Effect> {
        &self.effects
    }

    /// What each site destroyed of it.
    pub fn destroyed(&self) -> BTreeMap<&SiteId, Destroyed> {
        let mut sums: BTreeMap<&SiteId, Destroyed> = BTreeMap::new();
        for ((site, _), all) in &self.destroyed {
            for one in all.values() {
                let sum = sums.entry(site).or_insert(Destroyed { at_ms: 0, objects: 0, bytes: 0, absent: 0 });
                sum.at_ms = sum.at_ms.max(one.at_ms);
                sum.objects += one.objects;
                sum.bytes += one.bytes;
                sum.absent += one.absent;
            }
        }
        sums
    }

    /// Sites that confirmed what took effect, or destroyed their part of it.
    pub fn took_part(&self, effect: EventId) -> BTreeSet<&SiteId> {
        let confirmations = self.effects.get(&effect).map(|effect| &effect.confirmations);
        let is_named = |confirmed: &Confirmation| confirmations.is_some_and(|all| all.contains(&confirmed.event));
        let confirmed = self.confirmed.iter().filter(|(_, confirmed)| is_named(confirmed)).map(|(site, _)| site);
        let destroyed = self.destroyed.keys().filter(|(_, of)| *of == effect).map(|(site, _)| site);
        confirmed.chain(destroyed).collect()
    }

    /// Events by which sites that had not confirmed what took effect say that they destroyed it.
    fn destroyed_late(&self, id: EventId, effect: &Effect) -> impl Iterator<Item = EventId> {
        let is_late = |site: &SiteId| {
            !self.confirmed.get(site).is_some_and(|confirmed| effect.confirmations.contains(&confirmed.event))
        };
        let all = self.destroyed.iter().filter(move |((site, of), _)| *of == id && is_late(site));
        all.flat_map(|(_, events)| events.keys().copied())
    }

    /// What took effect of which a site has not said that it destroyed it.
    pub fn not_destroyed(&self, site: &SiteId) -> Vec<EventId> {
        let is_left = |effect: &&EventId| !self.destroyed.contains_key(&(site.clone(), **effect));
        self.effects.keys().filter(is_left).copied().collect()
    }
}

fn versions(series: &[ErasedSeries]) -> u64 {
    let instances = series.iter().flat_map(|series| &series.instances);
    instances.map(|instance| instance.versions.len() as u64).sum()
}

#[cfg(test)]
mod tests;
