//! Holds: what is not erased while somebody needs it. A fold over events of no study.
//!
//! Placing a hold is a fact, which commutes; releasing one is a decision, void if a later promotion does not hold it. Of two
//! sites that hold the same events both know the same holds, in whatever order each received them (I11, I12).

use crate::{
    authority::{Authority, Decision},
    envelope::Envelope,
    events::{Event, HeldPatient, HoldPlaced, HoldProtected, HoldReleased},
    fold::PatientIdentity,
    ids::{EventId, HoldId, SiteId},
    patients::{self, Ties},
    position::Position,
};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What types of events about holds begin with.
pub const KINDS: &str = "cairn.hold.";

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose studies.
    pub tenant: String,
    /// The events that place it, each with its part.
    parts: BTreeMap<EventId, Part>,
}

/// What one event says of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    site: SiteId,
    at_ms: u64,
    placed_by: String,
    studies: BTreeSet<String>,
    /// `None`: it can't be read here, so nobody knows what it holds.
    protected: Option<HoldProtected>,
}

/// A release, and under which promotion it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    under: Option<EventId>,
    position: Position,
}

/// What is known of holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    holds: BTreeMap<HoldId, Hold>,
    released: BTreeMap<HoldId, BTreeMap<EventId, Release>>,
    /// Events about holds that this build can't read: they may hold anything.
    unreadable: BTreeSet<EventId>,
    /// Patients of whom a hold of the one is a hold of the other.
    ties: Ties,
}

/// Whom an instance is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A patient.
    Patient(PatientIdentity),
    /// It has no Patient ID.
    Nobody,
    /// What it says can't be read here.
    Unknown,
}

/// Everybody whom the instances of a study are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patients(BTreeSet<Named>);

impl Patients {
    /// Adds whom an instance is of.
    pub fn add(&mut self, named: Named) {
        self.0.insert(named);
    }

    /// These and all that are tied to them.
    fn with_tied(&self, tenant: &str, ties: &Ties) -> Self {
        let tied = |named: &Named| match named {
            Named::Patient(patient) => ties.of(tenant, patient),
            Named::Nobody | Named::Unknown => BTreeSet::new(),
        };
        let tied = self.0.iter().flat_map(tied).map(Named::Patient);
        let unknown = (!ties.is_whole()).then_some(Named::Unknown);
        Self(self.0.iter().cloned().chain(tied).chain(unknown).collect())
    }

    /// Whether all are known. Where somebody is not, a hold of any patient holds the study.
    fn is_whole(&self) -> bool {
        !self.0.contains(&Named::Unknown)
    }
}

/// What keeps a study from being erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A hold.
    Hold(HoldId),
    /// An event about holds that this build can't read.
    Unreadable(EventId),
}

impl Holds {
    /// Takes an event in; one that is neither about holds nor about patients changes nothing. `position`: where it became a fact.
    pub fn include(&mut self, envelope: &Envelope, position: &Position, payload: Bytes) {
        if envelope.kind.starts_with(patients::KINDS) {
            return self.ties.include(envelope, payload);
        }
        if !envelope.kind.starts_with(KINDS) {
            return;
        }
        let known = match Event::decode(&envelope.kind, payload) {
            Ok(Event::HoldPlaced(event)) => self.placed(envelope, event),
            Ok(Event::HoldReleased(event)) => self.released(envelope, position, &event),
            _ => None,
        };
        if known.is_none() {
            self.unreadable.insert(envelope.id);
        }
    }

    fn placed(&mut self, envelope: &Envelope, event: HoldPlaced) -> Option<()> {
        let HoldPlaced { tenant, hold_id, study_instance_uids, placed_by, key_id, protected } = event;
        let id = HoldId::from_slice(&hold_id).ok()?;
        let protected = HoldProtected::decode(protected).ok().filter(|_| key_id.is_empty());
        let studies = study_instance_uids.into_iter().collect();
        let (site, at_ms) = (envelope.site.clone(), envelope.hlc.wall_ms);
        let hold = self.holds.entry(id).or_insert_with(|| Hold { tenant, parts: BTreeMap::new() });
        hold.parts.insert(envelope.id, Part { site, at_ms, placed_by, studies, protected });
        Some(())
    }

    fn released(&mut self, envelope: &Envelope, position: &Position, event: &HoldReleased) -> Option<()> {
        let id = HoldId::from_slice(&event.hold_id).ok()?;
        let under = EventId::from_slice(&event.promotion_event_id).ok();
        let release = Release { under, position: position.clone() };
        self.released.entry(id).or_default().insert(envelope.id, release);
        Some(())
    }

    /// The holds in force.
    pub fn in_force<'a>(&'a self, authority: &'a Authority) -> impl Iterator<Item = (HoldId, &'a Hold)> {
        let is_released = |id: &HoldId| {
            let mut releases = self.released.get(id).into_iter().flat_map(BTreeMap::values);
            releases.any(|Release { under, position }| !authority.is_void(Decision { under: *under, position }))
        };
        self.holds.iter().filter(move |(id, _)| !is_released(id)).map(|(id, hold)| (*id, hold))
    }

    /// A hold that is in force.
    pub fn get<'a>(&'a self, authority: &'a Authority, id: HoldId) -> Option<&'a Hold> {
        self.in_force(authority).find(|(known, _)| *known == id).map(|(_, hold)| hold)
    }

    /// What keeps a study, or one of the patients that its instances name, or are tied to these, from being erased.
    pub fn held(
        &self,
        authority: &Authority,
        tenant: &str,
        study_instance_uid: &str,
        patients: &Patients,
    ) -> Option<HeldBy> {
        let patients = &patients.with_tied(tenant, &self.ties);
        let holds = |(_, hold): &(HoldId, &Hold)| hold.tenant == tenant && hold.covers(study_instance_uid, patients);
        let found = self.in_force(authority).find(holds).map(|(id, _)| HeldBy::Hold(id));
        found.or_else(|| self.unreadable.first().map(|event| HeldBy::Unreadable(*event)))
    }

    /// What is held of a tenant, to be asked about many studies.
    pub fn lookup(&self, authority: &Authority, tenant: &str) -> Lookup {
        let everything = self.unreadable.first().copied().map(HeldBy::Unreadable);
        let (tenant_of, ties) = (tenant.to_owned(), self.ties.clone());
        let mut lookup = Lookup { everything, tenant: tenant_of, ties, ..Lookup::default() };
        for (id, hold) in self.in_force(authority).filter(|(_, hold)| hold.tenant == tenant) {
            for part in hold.parts.values() {
                lookup.studies.extend(part.studies.iter().map(|study| (study.clone(), id)));
                match &part.protected {
                    None => lookup.everything = Some(HeldBy::Hold(id)),
                    Some(protected) => lookup.patients.extend(protected.patient.iter().map(|held| (held.clone(), id))),
                }
            }
        }
        lookup
    }

    /// Events about holds that this build can't read; while there are any, everything is held.
    pub fn unreadable(&self) -> impl Iterator<Item = EventId> {
        self.unreadable.iter().copied()
    }
}

/// What is held of a tenant as it was when it was looked up. A forecast: what is erased is judged by [`Holds::held`].
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    everything: Option<HeldBy>,
    studies: HashMap<String, HoldId>,
    patients: Vec<(HeldPatient, HoldId)>,
    tenant: String,
    ties: Ties,
}

impl Lookup {
    /// What holds a study of which these patients are known.
    pub fn held(&self, study_instance_uid: &str, patients: &[PatientIdentity]) -> Option<HeldBy> {
        let of_study = || self.studies.get(study_instance_uid).copied().map(HeldBy::Hold);
        let of_patient = || {
            let tied: BTreeSet<_> = patients.iter().flat_map(|patient| self.ties.of(&self.tenant, patient)).collect();
            let is_meant = |(held, _): &&(HeldPatient, HoldId)| {
                !self.ties.is_whole() || tied.iter().any(|patient| means(held, patient))
            };
            self.patients.iter().find(is_meant).map(|(_, id)| HeldBy::Hold(*id))
        };
        self.everything.or_else(of_study).or_else(of_patient)
    }
}

impl Hold {
    /// Site at which it was placed.
    pub fn site(&self) -> Option<&SiteId> {
        self.parts.values().next().map(|part| &part.site)
    }

    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub fn at_ms(&self) -> u64 {
        self.parts.values().map(|part| part.at_ms).min().unwrap_or_default()
    }

    /// Who placed it.
    pub fn placed_by(&self) -> &str {
        self.parts.values().next().map_or("", |part| &part.placed_by)
    }

    /// The studies that it names, those of its patient not among them.
    pub fn studies(&self) -> BTreeSet<&str> {
        self.parts.values().flat_map(|part| &part.studies).map(String::as_str).collect()
    }

    /// What of it may hold patient attributes; `None`: it can't be read here, and it holds everything.
    pub fn protected(&self) -> Option<&HoldProtected> {
        self.parts.values().next().and_then(|part| part.protected.as_ref())
    }

    fn covers(&self, study_instance_uid: &str, patients: &Patients) -> bool {
        self.parts.values().any(|part| {
            let patient = match &part.protected {
                Some(protected) => protected.patient.as_ref(),
                None => return true,
            };
            let is_meant = |held: &HeldPatient| {
                !patients.is_whole()
                    || patients.0.iter().any(|named| matches!(named, Named::Patient(patient) if means(held, patient)))
            };
            part.studies.contains(study_instance_uid) || patient.is_some_and(is_meant)
        })
    }
}

/// Spaces around either mean nothing (PS3.5 section 6.2, LO). Whoever issued it: nobody is erased for an issuer left out.
fn means(held: &HeldPatient, patient: &PatientIdentity) -> bool {
    let issuer = held.issuer_of_patient_id.as_deref();
    held.patient_id.trim() == patient.id.trim() && issuer.is_none_or(|issuer| issuer.trim() == patient.issuer.trim())
}

#[cfg(test)]
mod tests;
