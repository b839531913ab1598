//! Going through all studies: which of them an expression holds for, by what the index has of each.

use cairn_archive::fold::PatientIdentity;
use cairn_dicom::Uid;
use cairn_expression::{Kind, Variable};

const fn text(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Text, meaning }
}

const fn number(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Number, meaning }
}

const fn texts(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Texts, meaning }
}

/// Variables of an expression about a study, and what each is. A text or number that a study does not have is not known: what
/// can't be decided without it is neither true nor false, and the study is not selected. Lists are empty then.
pub const VARIABLES: &[Variable] = &[
    text("study_uid", "Study Instance UID"),
    number("received_days", "whole days since something of it was received last, at whichever site, be it again"),
    number("study_age_days", "days since StudyDate, the latest one where instances disagree"),
    text("study_date", "StudyDate as YYYYMMDD, the latest one where instances disagree"),
    number("patient_age_years", "whole years since PatientBirthDate, the latest one where instances disagree"),
    text("patient_sex", "PatientSex"),
    texts("patient_ids", "PatientID, and those that it was merged into"),
    texts("issuers", "issuers of Patient ID that apply; empty text where none does"),
    text("accession_number", "AccessionNumber"),
    text("study_description", "StudyDescription"),
    text("referring_physician", "ReferringPhysicianName"),
    texts("modalities", "Modality"),
    texts("sop_classes", "SOP Class UIDs"),
    texts("body_parts", "BodyPartExamined; the first 32 of the alphabet"),
    texts("institutions", "InstitutionName; the first 32 of the alphabet"),
    texts("senders", "calling AE titles that sent it; the first 32 of the alphabet"),
    number("series", "series of which something is shown"),
    number("instances", "instances shown"),
    number("hidden", "instances of which every version is rejected"),
    number("versions", "versions, shown or not"),
    number("bytes", "bytes of all objects of all versions"),
];

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Whose studies.
    pub tenant: String,
    /// Expression of the Common Expression Language over [`VARIABLES`] that must hold.
    pub expression: String,
    /// The time that ages are counted to, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A part of the answer: how far it is, and what was found. Parts add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// Studies gone past in this part.
    pub studies: u64,
    /// Those of them for which the expression is neither true nor false.
    pub undecided: u64,
    /// Those for which it holds.
    pub found: Vec<FoundStudy>,
}

/// A study for which an expression holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundStudy {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// The patients that its shown instances name.
    pub patients: Vec<PatientIdentity>,
    /// StudyDate as it is sorted by; `None`: there is none.
    pub study_date: Option<u32>,
    /// Modalities.
    pub modalities: Vec<String>,
    /// Instances shown.
    pub instances: u64,
    /// Versions, shown or not.
    pub versions: u64,
    /// Bytes of all objects of all versions.
    pub bytes: u64,
    /// When something of it was received last, at whichever site, in milliseconds since the Unix epoch by the clock of the order
    /// of events; 0: not known.
    pub received_at_ms: u64,
    /// Whether all of it is in the cold object store of the site that answers.
    pub is_cold: bool,
    /// When it was brought back from there last, in milliseconds by the same clock; 0: it was not, or moved there again since.
    pub recalled_at_ms: u64,
}
