//! What of a request takes effect.

use crate::{
    authority::Authority,
    envelope::Envelope,
    events::{
        ErasedInstance, ErasedSeries, ErasedVersion, ErasureRequested, Event, EventRepaired, InstanceProtected,
        InstanceStored, KeptBecause, KeptVersion, event_repaired,
    },
    fold::{PatientIdentity, default_character_set, select},
    holds::{HeldBy, Holds, Named, Patients},
    ids::{EventId, ObjectKey},
    sealing::is_shredded,
};
use bytes::Bytes;
use cairn_dicom::tags;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Series and SOP Instance UID.
type Identity = (String, String);

/// What the log has of one study, as far as its erasure goes. A function of the set of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyFacts {
    instances: BTreeMap<Identity, Instance>,
    patients: Patients,
    /// Versions of which some event does not say whose they are, because it can't be read.
    unreadable: BTreeSet<EventId>,
    /// Events that a repair replaces or dismisses.
    settled: BTreeSet<EventId>,
    /// What was erased before.
    erased: BTreeSet<EventId>,
    /// When something of it was received last.
    received_at_ms: u64,
}

/// What came of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Instance {
    /// By store event, every object that any event names of it, with its length.
    versions: BTreeMap<EventId, BTreeMap<ObjectKey, u64>>,
    repeats: BTreeSet<EventId>,
}

impl StudyFacts {
    /// Takes in an event of the study.
    pub fn include(&mut self, envelope: &Envelope, payload: Bytes) {
        match Event::decode(&envelope.kind, payload) {
            Ok(event) => {
                if matches!(event, Event::InstanceStored(_) | Event::InstanceReceivedAgain(_)) {
                    self.received_at_ms = self.received_at_ms.max(envelope.hlc.wall_ms);
                }
                self.event(envelope.id, event);
            }
            Err(_) => drop(self.unreadable.insert(envelope.id)),
        }
    }

    fn event(&mut self, id: EventId, event: Event) {
        match event {
            Event::InstanceStored(event) => self.stored(id, &event),
            Event::InstanceReceivedAgain(event) => {
                let identity = (event.series_instance_uid, event.sop_instance_uid);
                self.instances.entry(identity).or_default().repeats.insert(id);
            }
            Event::EventRepaired(event) => self.repaired(&event),
            Event::VersionsErased(event) => {
                let versions = versions(&event.series).filter_map(|(_, version)| store_event(version));
                self.erased.extend(versions);
            }
            _ => {}
        }
    }

    fn stored(&mut self, id: EventId, event: &InstanceStored) {
        let identity = (event.series_instance_uid.clone(), event.sop_instance_uid.clone());
        let objects = self.instances.entry(identity).or_default().versions.entry(id).or_default();
        let named = event.object.iter().chain(&event.side_object);
        objects
            .extend(named.filter_map(|object| Some((ObjectKey::from_slice(&object.key).ok()?, object.length_bytes))));
        if is_shredded(&event.key_id, &event.protected) {
            // Whose it was is gone, and nobody can hold it any more.
            return;
        }
        match patient(event) {
            Ok(patient) => self.patients.add(patient),
            Err(Encrypted) => drop(self.unreadable.insert(id)),
        }
    }

    fn repaired(&mut self, event: &EventRepaired) {
        let Ok(id) = EventId::from_slice(&event.event_id) else { return };
        match &event.remedy {
            Some(event_repaired::Remedy::Replacement(by)) => {
                self.settled.insert(id);
                if let Ok(event) = Event::decode(&by.event_type, by.payload.clone()) {
                    self.event(id, event);
                }
            }
            Some(event_repaired::Remedy::Dismissed(_)) => drop(self.settled.insert(id)),
            Some(event_repaired::Remedy::FoldedAgain(_)) | None => {}
        }
    }

    /// An event of the study that can't be read: nothing of it is erased meanwhile.
    fn incomplete(&self) -> Option<EventId> {
        self.unreadable.difference(&self.settled).next().copied()
    }

    /// What there is to erase of the series and instances that are wanted, in the order of their UIDs, with the bytes of all
    /// objects; what was erased before is left out.
    pub fn to_erase(&self, wanted: impl Fn(&str, &str) -> bool) -> (Vec<ErasedSeries>, u64) {
        let mut series: Vec<ErasedSeries> = Vec::new();
        let mut bytes = 0;
        for ((series_instance_uid, sop_instance_uid), instance) in &self.instances {
            if !wanted(series_instance_uid, sop_instance_uid) {
                continue;
            }
            let live = instance.versions.iter().filter(|(id, _)| !self.erased.contains(id));
            let version = |(id, objects): (&EventId, &BTreeMap<ObjectKey, u64>)| {
                bytes += objects.values().sum::<u64>();
                let object_keys = objects.keys().map(|key| copied(key.as_bytes())).collect();
                ErasedVersion { store_event_id: copied(id.as_bytes()), object_keys }
            };
            let versions: Vec<_> = live.map(version).collect();
            if versions.is_empty() {
                continue;
            }
            let repeat_event_ids = instance.repeats.iter().map(|id| copied(id.as_bytes())).collect();
            let instance = ErasedInstance { sop_instance_uid: sop_instance_uid.clone(), versions, repeat_event_ids };
            match series.last_mut().filter(|last| last.series_instance_uid == *series_instance_uid) {
                Some(last) => last.instances.push(instance),
                None => series
                    .push(ErasedSeries { series_instance_uid: series_instance_uid.clone(), instances: vec![instance] }),
            }
        }
        (series, bytes)
    }

    /// When something of it was received last, at whichever site, in milliseconds since the Unix epoch by the clock of the
    /// order of events; 0: nothing was.
    pub fn received_at_ms(&self) -> u64 {
        self.received_at_ms
    }

    /// Whether an event of the study can't be read: nothing of it is erased meanwhile.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete().is_some()
    }

    /// What holds the study.
    pub fn held(&self, holds: &Holds, authority: &Authority, tenant: &str, study: &str) -> Option<HeldBy> {
        holds.held(authority, tenant, study, &self.patients)
    }
}

/// It is sealed, and its key does not open it.
struct Encrypted;

/// The patient that an instance names, as the index has it: issuer that applies, and ID.
fn patient(event: &InstanceStored) -> Result<Named, Encrypted> {
    if !event.key_id.is_empty() {
        return Err(Encrypted);
    }
    let header = InstanceProtected::decode(event.protected.clone()).map_err(|_| Encrypted)?.header;
    if header.is_empty() {
        // It is in an object of its own.
        return Ok(Named::Unknown);
    }
    let profile = event.sender_profile.clone().unwrap_or_default();
    let charset = default_character_set(&profile.default_character_set);
    let told = select(&header, charset, |tag| tag == tags::PATIENT_ID);
    let id = told.texts(tags::PATIENT_ID).join("\\");
    let issuer = profile.issuer_of_patient_id;
    Ok(if id.is_empty() { Named::Nobody } else { Named::Patient(PatientIdentity { issuer, id }) })
}

/// What of a request is erased, and what is kept and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// What is erased: versions without repeats.
    pub series: Vec<ErasedSeries>,
    /// What is kept.
    pub kept: Vec<KeptVersion>,
}

/// Judges a request by everything that is known of its study, and of holds. It is to be known then what every site held when
/// it confirmed.
pub fn judge(request: &ErasureRequested, facts: &StudyFacts, holds: &Holds, authority: &Authority) -> Judged {
    let held = facts.held(holds, authority, &request.tenant, &request.study_instance_uid);
    let of_study = held
        .map(kept_by)
        .or_else(|| facts.incomplete().map(|event| (KeptBecause::Incomplete, copied(event.as_bytes()))));
    let mut judged = Judged::default();
    for series in &request.series {
        let uid = &series.series_instance_uid;
        let mut erased = Vec::new();
        for instance in &series.instances {
            let why = of_study.clone().or_else(|| overlooked(facts, uid, instance));
            match why {
                None => erased.push(ErasedInstance { repeat_event_ids: Vec::new(), ..instance.clone() }),
                Some((because, because_of)) => {
                    judged.kept.extend(instance.versions.iter().map(|version| KeptVersion {
                        series_instance_uid: uid.clone(),
                        sop_instance_uid: instance.sop_instance_uid.clone(),
                        store_event_id: version.store_event_id.clone(),
                        because: because.into(),
                        because_of: because_of.clone(),
                    }))
                }
            }
        }
        if !erased.is_empty() {
            judged.series.push(ErasedSeries { series_instance_uid: uid.clone(), instances: erased });
        }
    }
    judged
}

fn kept_by(held: HeldBy) -> (KeptBecause, Bytes) {
    match held {
        HeldBy::Hold(id) => (KeptBecause::Held, copied(id.as_bytes())),
        HeldBy::Unreadable(event) => (KeptBecause::Held, copied(event.as_bytes())),
    }
}

/// What came of an instance that the request did not see.
fn overlooked(facts: &StudyFacts, series: &str, named: &ErasedInstance) -> Option<(KeptBecause, Bytes)> {
    let known = facts.instances.get(&(series.to_owned(), named.sop_instance_uid.clone()))?;
    let seen: BTreeSet<EventId> = named.versions.iter().filter_map(store_event).collect();
    let repeats: BTreeSet<EventId> =
        named.repeat_event_ids.iter().filter_map(|id| EventId::from_slice(id).ok()).collect();
    let stored = known.versions.keys().find(|id| !seen.contains(id) && !facts.erased.contains(id));
    let stored = stored.map(|id| (KeptBecause::StoredAgain, copied(id.as_bytes())));
    let repeated = known.repeats.difference(&repeats).next();
    stored.or_else(|| repeated.map(|id| (KeptBecause::ReceivedAgain, copied(id.as_bytes()))))
}

fn versions(series: &[ErasedSeries]) -> impl Iterator<Item = (&ErasedInstance, &ErasedVersion)> {
    let instances = series.iter().flat_map(|series| &series.instances);
    instances.flat_map(|instance| instance.versions.iter().map(move |version| (instance, version)))
}

fn store_event(version: &ErasedVersion) -> Option<EventId> {
    EventId::from_slice(&version.store_event_id).ok()
}

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests;
