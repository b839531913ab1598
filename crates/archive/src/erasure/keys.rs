//! Which keys go with what is erased.

use crate::{
    envelope::Envelope,
    events::{ErasedSeries, Event, EventRepaired, KeptKey, KeysJudged, VersionsErased, event_repaired::Remedy},
    ids::{EventId, KeyId, SiteId},
    position::{Incarnation, Offset, Position},
    sealing::keys_of,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A place in what one site appended of a study: all of a study is in one partition.
type Place = (Incarnation, Offset);

/// What of one study is sealed under which key, by its events as they are stored. A function of the set of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyKeys {
    sealed: BTreeMap<KeyId, Sealed>,
    /// The last place where a site says that it seals no more under any key that it had in use for the study.
    retired: BTreeMap<SiteId, Place>,
    versions: BTreeSet<EventId>,
    erased: BTreeSet<EventId>,
    judged: BTreeSet<KeyId>,
    /// Events that can't be read: they may need any key.
    unreadable: BTreeSet<EventId>,
    /// Events that a repair replaces or dismisses.
    settled: BTreeSet<EventId>,
}

/// What one key seals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sealed {
    /// Store events of versions; none: it seals what somebody wrote about the study.
    versions: BTreeSet<EventId>,
    /// Events that correct attributes.
    corrections: BTreeSet<EventId>,
    /// By site that seals with it, the last event under it.
    last: BTreeMap<SiteId, (Place, EventId)>,
}

/// What keeps a key from being destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeededBy {
    /// This event: it stored what is live, or can't be read.
    Event(EventId),
    /// The site may have something live that is not known yet, and is under the key, or what the key seals is about. The event is the
    /// last under it.
    Site(SiteId, EventId),
}

impl NeededBy {
    /// The event that shows it.
    pub fn event(&self) -> EventId {
        match self {
            Self::Event(event) | Self::Site(_, event) => *event,
        }
    }
}

/// What an event says, as far as keys go.
enum Says {
    /// This event stored a version.
    Version(EventId),
    /// It corrects attributes.
    Correction,
    Nothing,
}

impl StudyKeys {
    /// Takes in an event of the study, as it is stored. `position`: where it became a fact.
    pub fn include(&mut self, envelope: &Envelope, position: &Position, payload: Bytes) {
        let keys = keys_of(&envelope.kind, &payload);
        let place = (position.incarnation, position.offset);
        let says = match Event::decode(&envelope.kind, payload) {
            Ok(event) => {
                self.retires(&position.site, place, &event);
                self.event(envelope.id, &event)
            }
            Err(_) => {
                self.unreadable.insert(envelope.id);
                Says::Nothing
            }
        };
        for key in keys {
            let sealed = self.sealed.entry(key).or_default();
            let last = sealed.last.entry(position.site.clone()).or_insert((place, envelope.id));
            *last = (*last).max((place, envelope.id));
            match says {
                Says::Version(version) => drop(sealed.versions.insert(version)),
                Says::Correction => drop(sealed.corrections.insert(envelope.id)),
                Says::Nothing => {}
            }
        }
    }

    /// A site retires the keys that it has in use for the study before it says either.
    fn retires(&mut self, site: &SiteId, place: Place, event: &Event) {
        let says_so = match event {
            Event::ErasureConfirmed(event) => event.site == site.as_str(),
            Event::ObjectsDestroyed(event) => event.site == site.as_str(),
            _ => false,
        };
        if says_so {
            let retired = self.retired.entry(site.clone()).or_insert(place);
            *retired = (*retired).max(place);
        }
    }

    fn event(&mut self, id: EventId, event: &Event) -> Says {
        match event {
            Event::InstanceStored(_) => {
                self.versions.insert(id);
                Says::Version(id)
            }
            Event::AttributesCorrected(_) => Says::Correction,
            Event::EventRepaired(event) => self.repaired(event),
            Event::VersionsErased(event) => {
                self.erased.extend(store_events(&event.series));
                Says::Nothing
            }
            Event::KeysJudged(event) => {
                self.judged.extend(judged_keys(event));
                Says::Nothing
            }
            _ => Says::Nothing,
        }
    }

    /// What a repair puts in the place of another event.
    fn repaired(&mut self, event: &EventRepaired) -> Says {
        let Ok(id) = EventId::from_slice(&event.event_id) else { return Says::Nothing };
        match &event.remedy {
            Some(Remedy::Replacement(by)) => {
                self.settled.insert(id);
                match Event::decode(&by.event_type, by.payload.clone()) {
                    Ok(event) if !matches!(event, Event::EventRepaired(_)) => self.event(id, &event),
                    _ => Says::Nothing,
                }
            }
            Some(Remedy::Dismissed(_)) => {
                self.settled.insert(id);
                Says::Nothing
            }
            Some(Remedy::FoldedAgain(_)) | None => Says::Nothing,
        }
    }

    /// What needs a key; `None`: nothing, or nothing is under it. `absent`: sites that took no part in what took effect.
    pub fn needed_by(&self, key: KeyId, absent: &BTreeSet<SiteId>) -> Option<NeededBy> {
        let sealed = self.sealed.get(&key)?;
        let live = self.live(sealed).map(NeededBy::Event);
        live.or_else(|| self.may_seal(sealed)).or_else(|| may_be_about(sealed, absent))
    }

    /// Something live that a key seals. What was written about the study is needed while anything of it is live.
    fn live(&self, sealed: &Sealed) -> Option<EventId> {
        let live = self.versions_of(sealed).difference(&self.erased).next();
        live.or_else(|| self.unreadable.difference(&self.settled).next()).copied()
    }

    fn versions_of<'a>(&'a self, sealed: &'a Sealed) -> &'a BTreeSet<EventId> {
        if sealed.versions.is_empty() { &self.versions } else { &sealed.versions }
    }

    /// A site that may seal with a key yet. Everything that a site appended of the study before it said that it does not is
    /// known once that is: a log holds a prefix of each site's.
    fn may_seal(&self, sealed: &Sealed) -> Option<NeededBy> {
        let has_not_said = |site: &SiteId, place| self.retired.get(site).is_none_or(|retired| *retired < place);
        let mut sites = sealed.last.iter();
        let found = sites.find(|(site, (place, _))| has_not_said(site, *place));
        found.map(|(site, (_, event))| NeededBy::Site(site.clone(), *event))
    }

    /// What becomes of the keys with what took effect: those that nothing needs go, of the others those that seal something
    /// erased by it are told. `absent`: sites that neither confirmed it nor destroyed their part.
    pub fn judge(&self, effect: EventId, erased: &VersionsErased, absent: &BTreeSet<SiteId>) -> KeysJudged {
        let mut judged = KeysJudged {
            tenant: erased.tenant.clone(),
            study_instance_uid: erased.study_instance_uid.clone(),
            versions_erased_event_id: copied(effect.as_bytes()),
            ..KeysJudged::default()
        };
        let erased: BTreeSet<EventId> = store_events(&erased.series).collect();
        for (key, sealed) in self.sealed.iter().filter(|(key, _)| !self.judged.contains(key)) {
            match self.needed_by(*key, absent) {
                None => {
                    judged.key_ids.push(copied(key.as_bytes()));
                    judged.correction_event_ids.extend(sealed.corrections.iter().map(|id| copied(id.as_bytes())));
                }
                Some(needed_by) if !self.gone_of(sealed).is_disjoint(&erased) => judged.kept.push(KeptKey {
                    key_id: copied(key.as_bytes()),
                    needed_by_event_id: copied(needed_by.event().as_bytes()),
                }),
                Some(_) => {}
            }
        }
        judged
    }

    /// What of a key's is gone: what was written about the study is, once all of that is.
    fn gone_of<'a>(&'a self, sealed: &'a Sealed) -> &'a BTreeSet<EventId> {
        const NOTHING: &BTreeSet<EventId> = &BTreeSet::new();
        let is_whole = sealed.versions.is_empty() && self.live(sealed).is_some();
        if is_whole { NOTHING } else { self.versions_of(sealed) }
    }
}

/// A site that may have something of the study which is not known yet, that what was written about the study is said of too.
fn may_be_about(sealed: &Sealed, absent: &BTreeSet<SiteId>) -> Option<NeededBy> {
    let site = absent.first().filter(|_| sealed.versions.is_empty())?;
    let (_, event) = sealed.last.values().max()?;
    Some(NeededBy::Site(site.clone(), *event))
}

fn copied(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn store_events(series: &[ErasedSeries]) -> impl Iterator<Item = EventId> {
    let versions = series.iter().flat_map(|series| &series.instances).flat_map(|instance| &instance.versions);
    versions.filter_map(|version| EventId::from_slice(&version.store_event_id).ok())
}

/// The keys that are to be destroyed.
pub fn judged_keys(event: &KeysJudged) -> impl Iterator<Item = KeyId> {
    event.key_ids.iter().filter_map(|id| KeyId::from_slice(id).ok())
}

#[cfg(test)]
mod tests;
