//! Which keys go with what is erased.

use crate::{
    envelope::Envelope,
    events::{ErasedSeries, Event, EventRepaired, KeptKey, KeysJudged, VersionsErased, event_repaired::Remedy},
    ids::{EventId, KeyId},
    sealing::keys_of,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What of one study is sealed under which key, by its events as they are stored. A function of the set of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyKeys {
    sealed: BTreeMap<KeyId, Sealed>,
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
    /// Takes in an event of the study, as it is stored.
    pub fn include(&mut self, envelope: &Envelope, payload: Bytes) {
        let keys = keys_of(&envelope.kind, &payload);
        let says = match Event::decode(&envelope.kind, payload) {
            Ok(event) => self.event(envelope.id, &event),
            Err(_) => {
                self.unreadable.insert(envelope.id);
                Says::Nothing
            }
        };
        for key in keys {
            let sealed = self.sealed.entry(key).or_default();
            match says {
                Says::Version(version) => drop(sealed.versions.insert(version)),
                Says::Correction => drop(sealed.corrections.insert(envelope.id)),
                Says::Nothing => {}
            }
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

    /// What needs a key: something live that it seals. What was written about the study is needed while anything of it is live.
    fn needed_by(&self, sealed: &Sealed) -> Option<EventId> {
        let versions = if sealed.versions.is_empty() { &self.versions } else { &sealed.versions };
        let live = versions.difference(&self.erased).next();
        live.or_else(|| self.unreadable.difference(&self.settled).next()).copied()
    }

    /// What becomes of the keys with what took effect: those that nothing needs go, of the others those that seal something
    /// erased by it are told.
    pub fn judge(&self, effect: EventId, erased: &VersionsErased) -> KeysJudged {
        let mut judged = KeysJudged {
            tenant: erased.tenant.clone(),
            study_instance_uid: erased.study_instance_uid.clone(),
            versions_erased_event_id: copied(effect.as_bytes()),
            ..KeysJudged::default()
        };
        let erased: BTreeSet<EventId> = store_events(&erased.series).collect();
        for (key, sealed) in self.sealed.iter().filter(|(key, _)| !self.judged.contains(key)) {
            match self.needed_by(sealed) {
                None => {
                    judged.key_ids.push(copied(key.as_bytes()));
                    judged.correction_event_ids.extend(sealed.corrections.iter().map(|id| copied(id.as_bytes())));
                }
                Some(event) if !sealed.versions.is_disjoint(&erased) => judged
                    .kept
                    .push(KeptKey { key_id: copied(key.as_bytes()), needed_by_event_id: copied(event.as_bytes()) }),
                Some(_) => {}
            }
        }
        judged
    }
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
