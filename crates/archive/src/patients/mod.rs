//! Facts about patients: who was merged into whom, who is linked with whom, and what a patient's attributes are.
//!
//! They are resolved when somebody asks, from their set alone ([`Resolution`]), so that merging a patient with ten thousand studies
//! is one event, and undoing it another one. Two sites that hold the same facts resolve alike, in whatever order each
//! received them (I11, I12).

mod resolution;
#[cfg(test)]
mod tests;
mod ties;

pub(crate) use resolution::identity_elements;
pub use resolution::{Applied, Resolution, Standing};
pub use ties::Ties;

use crate::{
    correction::{self, BadCorrection},
    events::{
        Event, NamedPatient, PatientFactRevoked, PatientProtected, PatientUpdated, PatientsLinked, PatientsMerged,
    },
    fold::{EventOrder, Level, PatientIdentity, Poison, level_of},
    ids::EventId,
    sealing::is_shredded,
};
use bytes::Bytes;
use cairn_dicom::{Tag, dataset::DataSet, tags};
use prost::Message;

/// What types of events about patients begin with.
pub const KINDS: &str = "cairn.patient.";

/// What a fact about patients says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The prior patient is the surviving one.
    Merged {
        /// Who is no patient of its own any more.
        prior: PatientIdentity,
        /// Whose its studies are.
        surviving: PatientIdentity,
    },
    /// Both are of one person, and both stay.
    Linked {
        /// The one.
        one: PatientIdentity,
        /// The other.
        other: PatientIdentity,
    },
    /// The patient's attributes are others than instances say.
    Updated {
        /// Whose.
        patient: PatientIdentity,
        /// The new values in Explicit VR Little Endian and UTF-8.
        elements: Bytes,
    },
    /// A fact is taken back.
    Revoked {
        /// Its `ce_id`.
        fact: EventId,
        /// Whom it is about.
        patients: Vec<PatientIdentity>,
    },
    /// It is gone with its key.
    Gone,
}

/// A fact about patients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientFact {
    /// The event.
    pub order: EventOrder,
    /// What it says.
    pub said: Said,
}

impl Said {
    /// Whom it is about, as events name them.
    pub fn patients(&self) -> Vec<&PatientIdentity> {
        match self {
            Self::Merged { prior, surviving } => vec![prior, surviving],
            Self::Linked { one, other } => vec![one, other],
            Self::Updated { patient, .. } => vec![patient],
            Self::Revoked { patients, .. } => patients.iter().collect(),
            Self::Gone => Vec::new(),
        }
    }
}

impl PatientFact {
    /// What an event says; `None`: it is about something else.
    ///
    /// # Errors
    /// It can't be read here.
    pub fn read(order: EventOrder, event: &Event) -> Option<Result<Self, Poison>> {
        let said = match event {
            Event::PatientsMerged(PatientsMerged { protected, key_id, .. }) => {
                protected_of(protected, key_id).and_then(|said| said.map_or(Ok(Said::Gone), merged))
            }
            Event::PatientsLinked(PatientsLinked { protected, key_id, .. }) => {
                protected_of(protected, key_id).and_then(|said| said.map_or(Ok(Said::Gone), linked))
            }
            Event::PatientUpdated(PatientUpdated { protected, key_id, .. }) => {
                protected_of(protected, key_id).and_then(|said| said.map_or(Ok(Said::Gone), updated))
            }
            Event::PatientFactRevoked(PatientFactRevoked { fact_event_id, protected, key_id, .. }) => {
                protected_of(protected, key_id).and_then(|said| {
                    said.map_or(Ok(Said::Gone), |said| {
                        let fact = EventId::from_slice(fact_event_id).map_err(|_| Poison::Malformed)?;
                        let patients = said.patients.into_iter().map(identity).collect::<Result<Vec<_>, _>>()?;
                        if patients.is_empty() { Err(Poison::Malformed) } else { Ok(Said::Revoked { fact, patients }) }
                    })
                })
            }
            _ => return None,
        };
        Some(said.map(|said| Self { order, said }))
    }

    /// What of the canonical state it is: that it is there. What it says follows from its event, and may be gone with a key.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::Hasher::new().update(b"patient").update(self.order.id.as_bytes()).finalize().as_bytes()
    }
}

/// What may be a patient's of an event; `None`: that is gone with its key.
fn protected_of(protected: &Bytes, key_id: &str) -> Result<Option<PatientProtected>, Poison> {
    if is_shredded(key_id, protected) {
        return Ok(None);
    }
    if !key_id.is_empty() {
        return Err(Poison::Encrypted);
    }
    PatientProtected::decode(protected.clone()).map(Some).map_err(|_| Poison::Undecodable)
}

/// Whom an event names. Somebody without an ID is nobody's to merge.
fn identity(named: NamedPatient) -> Result<PatientIdentity, Poison> {
    let identity = PatientIdentity { issuer: named.issuer_of_patient_id, id: named.patient_id }.trimmed();
    if identity.id.is_empty() { Err(Poison::Malformed) } else { Ok(identity) }
}

fn two(said: PatientProtected) -> Result<[PatientIdentity; 2], Poison> {
    let patients = said.patients.into_iter().map(identity).collect::<Result<Vec<_>, _>>()?;
    let both: [PatientIdentity; 2] = patients.try_into().map_err(|_| Poison::Malformed)?;
    if both[0] == both[1] { Err(Poison::Malformed) } else { Ok(both) }
}

fn merged(said: PatientProtected) -> Result<Said, Poison> {
    two(said).map(|[prior, surviving]| Said::Merged { prior, surviving })
}

fn linked(said: PatientProtected) -> Result<Said, Poison> {
    two(said).map(|[one, other]| Said::Linked { one, other })
}

fn updated(mut said: PatientProtected) -> Result<Said, Poison> {
    let elements = std::mem::take(&mut said.elements);
    // A later build may update what this one can't: then it is parked, not passed over.
    if correction::decode(&elements).is_none_or(|set| check_update(&set).is_err()) {
        return Err(Poison::Malformed);
    }
    let [patient] = <[NamedPatient; 1]>::try_from(said.patients).map_err(|_| Poison::Malformed)?;
    Ok(Said::Updated { patient: identity(patient)?, elements })
}

/// Checks the new values of an update: attributes of the patient that don't say who it is.
///
/// # Errors
/// [`BadCorrection`].
pub fn check_update(elements: &DataSet) -> Result<(), BadCorrection> {
    correction::check(elements)?;
    let is_whose = |tag: Tag| matches!(tag, tags::PATIENT_ID | tags::ISSUER_OF_PATIENT_ID);
    let bad =
        elements.elements().iter().find(|element| is_whose(element.tag) || level_of(element.tag) != Level::Patient);
    bad.map_or(Ok(()), |element| Err(BadCorrection::NotCorrectable(element.tag)))
}

/// Checks that an identity can be named: PatientID, and an issuer if there is one, are values of LO.
///
/// # Errors
/// [`BadCorrection`].
pub fn check_identity(patient: &PatientIdentity) -> Result<(), BadCorrection> {
    if patient.id.trim().is_empty() {
        return Err(BadCorrection::WrongValue(tags::PATIENT_ID));
    }
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_ID, &patient.id);
    set.put_text(tags::ISSUER_OF_PATIENT_ID, &patient.issuer);
    correction::check(&set)
}

/// As events name a patient.
pub fn named(patient: &PatientIdentity) -> NamedPatient {
    let PatientIdentity { issuer, id } = patient.trimmed();
    NamedPatient { patient_id: id, issuer_of_patient_id: issuer }
}

/// Why, in the words of who decided; empty where it can't be read.
pub fn reason(event: &Event) -> String {
    let said = match event {
        Event::PatientsMerged(event) => protected_of(&event.protected, &event.key_id),
        Event::PatientsLinked(event) => protected_of(&event.protected, &event.key_id),
        Event::PatientUpdated(event) => protected_of(&event.protected, &event.key_id),
        Event::PatientFactRevoked(event) => protected_of(&event.protected, &event.key_id),
        _ => Ok(None),
    };
    said.ok().flatten().map(|said| said.reason).unwrap_or_default()
}
