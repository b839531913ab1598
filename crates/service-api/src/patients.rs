//! Facts about patients: what operators say, and what the index has of them.

use cairn_archive::{
    Position,
    fold::{EventOrder, PatientIdentity},
    patients::{PatientFact, Said},
};
use cairn_dicom::{Uid, dataset::DataSet};

/// What is said of patients.
#[derive(Clone, Debug, PartialEq)]
pub enum PatientChange {
    /// The prior patient is the surviving one.
    Merge {
        /// Who is no patient of its own any more.
        prior: PatientIdentity,
        /// Whose its studies are.
        surviving: PatientIdentity,
    },
    /// Both are of one person, and both stay.
    Link {
        /// The one.
        one: PatientIdentity,
        /// The other.
        other: PatientIdentity,
    },
    /// A patient's attributes are others than instances say.
    Update {
        /// Whose.
        patient: PatientIdentity,
        /// The new values; an empty one takes the value away.
        elements: DataSet,
    },
}

/// A fact about patients, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct PatientStatement {
    /// Whose patients.
    pub tenant: String,
    /// What is said.
    pub change: PatientChange,
    /// Who decides.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// A fact about patients is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientRevocation {
    /// Where the fact stands in the log of the site that is asked.
    pub position: Position,
    /// Who decides.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Which facts about patients are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactsOf {
    /// All.
    Everybody,
    /// Those about a patient, and about all whom they tie to it.
    Patient(PatientIdentity),
    /// Those about the patients whom instances of a study name, likewise.
    Study(Uid),
}

/// A fact about patients, as the index has it. What a set of them comes to, `cairn_archive::patients::Resolution` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFact {
    /// The event.
    pub order: EventOrder,
    /// What it says.
    pub said: Said,
    /// Where it stands in this site's log; `None`: it was folded in an earlier life of it.
    pub position: Option<Position>,
}

impl KnownFact {
    /// The fact.
    pub fn fact(&self) -> PatientFact {
        PatientFact { order: self.order.clone(), said: self.said.clone() }
    }
}
