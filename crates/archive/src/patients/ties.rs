//! Everybody whom some fact ever tied together, for whoever must not lose what may be somebody's.

use super::{KINDS, PatientFact};
use crate::{
    envelope::Envelope,
    events::Event,
    fold::{EventOrder, PatientIdentity},
    ids::EventId,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Patients by tenant, tied to each other by merges and links, whether these count, are void or were taken back.
///
/// A hold of one is a hold of all that are tied to it: anybody may take a merge back, but a hold ends only by a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    with: BTreeMap<(String, PatientIdentity), BTreeSet<PatientIdentity>>,
    /// Events about patients that this build can't read: they may tie anybody.
    unreadable: BTreeSet<EventId>,
}

impl Ties {
    /// Takes an event in; one that is not about patients changes nothing.
    pub fn include(&mut self, envelope: &Envelope, payload: Bytes) {
        if !envelope.kind.starts_with(KINDS) {
            return;
        }
        let event = Event::decode(&envelope.kind, payload).ok();
        let fact = event.as_ref().and_then(|event| PatientFact::read(EventOrder::of(envelope), event));
        let Some(Ok(PatientFact { said, .. })) = fact else {
            self.unreadable.insert(envelope.id);
            return;
        };
        if let [one, other] = said.patients()[..] {
            for (one, other) in [(one, other), (other, one)] {
                let with = self.with.entry((envelope.tenant.clone(), one.clone())).or_default();
                with.insert(other.clone());
            }
        }
    }

    /// Everybody tied to a patient, over any number of others, itself included.
    pub fn of(&self, tenant: &str, patient: &PatientIdentity) -> BTreeSet<PatientIdentity> {
        let (mut tied, mut left) = (BTreeSet::new(), vec![patient.trimmed()]);
        while let Some(patient) = left.pop() {
            if tied.insert(patient.clone()) {
                left.extend(self.with.get(&(tenant.to_owned(), patient)).into_iter().flatten().cloned());
            }
        }
        tied
    }

    /// Whether all is known that ties anybody.
    pub fn is_whole(&self) -> bool {
        self.unreadable.is_empty()
    }
}
