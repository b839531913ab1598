//! What facts about patients come to.

use super::{PatientFact, Said};
use crate::{
    correction::{self, InForce},
    fold::{EventOrder, PatientIdentity},
    ids::EventId,
};
use cairn_dicom::{Tag, dataset::DataSet, tags};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a fact counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Counts,
    /// It was taken back.
    Revoked,
    /// A merge of somebody whom an earlier one in event order merged already.
    MergedAlready,
    /// A merge into somebody who, by earlier ones in event order, is the prior patient: it would close a cycle.
    Cycle,
}

/// What a fact makes of instances of a patient.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The event.
    pub order: EventOrder,
    /// The new values.
    pub elements: DataSet,
}

/// Facts about patients, resolved: a pure function of their set.
///
/// Merges count in event order. One that would merge somebody a second time, or close a cycle, is void; so of two sites that merge two
/// patients both ways while they are cut off from each other, the earlier merge counts at both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    facts: Vec<(PatientFact, Standing)>,
    /// Whom each was merged into, and the place of the fact that says so.
    into: BTreeMap<PatientIdentity, (PatientIdentity, usize)>,
}

impl Resolution {
    /// Of facts in any order, of which some may come twice.
    pub fn of(facts: impl IntoIterator<Item = PatientFact>) -> Self {
        let mut facts: Vec<PatientFact> = facts.into_iter().collect();
        facts.sort_by(|a, b| a.order.cmp(&b.order));
        facts.dedup_by(|a, b| a.order == b.order);
        let revoked: BTreeSet<EventId> = facts.iter().filter_map(|fact| fact.said.revokes()).collect();
        let mut resolution = Self::default();
        for fact in facts {
            let standing = match &fact.said {
                // What was taken back stays so.
                Said::Revoked { .. } => Standing::Counts,
                _ if revoked.contains(&fact.order.id) => Standing::Revoked,
                Said::Merged { prior, surviving } => {
                    let standing = resolution.may_merge(prior, surviving);
                    if standing == Standing::Counts {
                        let into = (surviving.clone(), resolution.facts.len());
                        resolution.into.insert(prior.clone(), into);
                    }
                    standing
                }
                _ => Standing::Counts,
            };
            resolution.facts.push((fact, standing));
        }
        resolution
    }

    /// What a merge would be that comes after all others in event order.
    pub fn may_merge(&self, prior: &PatientIdentity, surviving: &PatientIdentity) -> Standing {
        if self.into.contains_key(prior) {
            Standing::MergedAlready
        } else if self.survivor(surviving) == prior {
            Standing::Cycle
        } else {
            Standing::Counts
        }
    }

    /// All facts in event order, each with whether it counts.
    pub fn facts(&self) -> &[(PatientFact, Standing)] {
        &self.facts
    }

    /// Whose the studies of a patient are: the patient's own where nobody merged it.
    pub fn survivor<'a>(&'a self, patient: &'a PatientIdentity) -> &'a PatientIdentity {
        let mut at = patient;
        // No cycle: a merge that would close one does not count.
        while let Some((into, _)) = self.into.get(at) {
            at = into;
        }
        at
    }

    /// Everybody who is one patient with this one, itself included, in order.
    pub fn members(&self, patient: &PatientIdentity) -> Vec<PatientIdentity> {
        let survivor = self.survivor(patient);
        let merged = self.into.keys().filter(|other| self.survivor(other) == survivor);
        let members: BTreeSet<&PatientIdentity> = merged.chain([survivor]).collect();
        members.into_iter().cloned().collect()
    }

    /// The patients that this one is linked with, each as its survivor, in order.
    pub fn linked(&self, patient: &PatientIdentity) -> Vec<PatientIdentity> {
        let survivor = self.survivor(patient);
        let mut linked = BTreeSet::new();
        for (fact, standing) in &self.facts {
            if let (Said::Linked { one, other }, Standing::Counts) = (&fact.said, standing) {
                match (self.survivor(one), self.survivor(other)) {
                    (a, b) if a == b => {}
                    (a, b) if a == survivor => drop(linked.insert(b.clone())),
                    (a, b) if b == survivor => drop(linked.insert(a.clone())),
                    _ => {}
                }
            }
        }
        linked.into_iter().collect()
    }

    /// What becomes of instances that name a patient, in the order in which it is done: what was updated of it, then, where it was
    /// merged, the surviving patient's identity and what was updated of that one, and so on.
    pub fn applied(&self, patient: &PatientIdentity) -> Vec<Applied> {
        let (mut applied, mut at) = (self.updates(patient), patient);
        while let Some((into, place)) = self.into.get(at) {
            applied.extend(
                self.facts
                    .get(*place)
                    .map(|(fact, _)| Applied { order: fact.order.clone(), elements: identity_elements(into) }),
            );
            applied.extend(self.updates(into));
            at = into;
        }
        applied
    }

    /// Updates of one identity in event order; none of which later ones leave nothing.
    fn updates(&self, of: &PatientIdentity) -> Vec<Applied> {
        let (mut updates, mut later): (Vec<Applied>, BTreeSet<Tag>) = (Vec::new(), BTreeSet::new());
        for (fact, standing) in self.facts.iter().rev() {
            let (Said::Updated { patient, elements }, Standing::Counts) = (&fact.said, standing) else { continue };
            if patient != of {
                continue;
            }
            let Some(elements) = correction::decode(elements) else { continue };
            let kept: DataSet =
                elements.elements().iter().filter(|element| later.insert(element.tag)).cloned().collect();
            if !kept.is_empty() {
                updates.push(Applied { order: fact.order.clone(), elements: kept });
            }
        }
        updates.reverse();
        updates
    }

    /// The same, as it is applied to an instance that somebody sent.
    pub fn in_force(&self, patient: &PatientIdentity, source: &str) -> Vec<InForce> {
        let in_force = |Applied { order, elements }: Applied| InForce {
            event: order.id,
            at_ms: order.hlc.wall_ms,
            site: order.site.to_string(),
            elements: correction::encode(&elements),
            source: source.to_owned(),
        };
        self.applied(patient).into_iter().map(in_force).collect()
    }
}

/// A patient's identity as attributes; an issuer that is not known is taken away.
pub(crate) fn identity_elements(patient: &PatientIdentity) -> DataSet {
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_ID, &patient.id);
    set.put_text(tags::ISSUER_OF_PATIENT_ID, &patient.issuer);
    set
}

impl Said {
    fn revokes(&self) -> Option<EventId> {
        match self {
            Self::Revoked { fact, .. } => Some(*fact),
            _ => None,
        }
    }
}
