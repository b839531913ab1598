//! Rejection notes: what a Key Object Selection Document says that its title makes a rejection (IHE RAD TF-2, Rejection Note
//! Stored, RAD-66), and who sees what is rejected.

use crate::fold::HEADER_LIMITS;
use bytes::Bytes;
use cairn_dicom::{CharacterSet, Tag, Uid, dataset::DataSet, header::Header, tags, transfer_syntax::Encoding};
use std::collections::BTreeMap;

/// SOP Class of rejection notes (PS3.4 annex B.5, edition 2025c).
pub const KEY_OBJECT_SELECTION_DOCUMENT: &str = "1.2.840.10008.5.1.4.1.1.88.59";

/// The title of a rejection note: a concept of DCM (PS3.16 CID 7011, edition 2025c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RejectionTitle {
    /// 113001, Rejected for Quality Reasons
    QualityReasons = 0,
    /// 113037, Rejected for Patient Safety Reasons
    PatientSafetyReasons = 1,
    /// 113038, Incorrect Modality Worklist Entry
    IncorrectWorklistEntry = 2,
    /// 113039, Data Retention Policy Expired
    RetentionExpired = 3,
}

impl RejectionTitle {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::QualityReasons, Self::PatientSafetyReasons, Self::IncorrectWorklistEntry, Self::RetentionExpired];

    /// Its Code Value.
    pub const fn code(self) -> &'static str {
        match self {
            Self::QualityReasons => "113001",
            Self::PatientSafetyReasons => "113037",
            Self::IncorrectWorklistEntry => "113038",
            Self::RetentionExpired => "113039",
        }
    }

    /// Its Code Meaning.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::QualityReasons => "Rejected for Quality Reasons",
            Self::PatientSafetyReasons => "Rejected for Patient Safety Reasons",
            Self::IncorrectWorklistEntry => "Incorrect Modality Worklist Entry",
            Self::RetentionExpired => "Data Retention Policy Expired",
        }
    }

    /// The title with this Code Value.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|title| title.code() == code)
    }
}

/// A set of titles: those under which something is rejected, or those that do not hide anything from somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Titles(u8);

impl Titles {
    /// All of them: who sees these sees everything that is stored.
    pub const ALL: Self = Self(0b1111);

    /// Adds a title.
    pub fn insert(&mut self, title: RejectionTitle) {
        self.0 |= 1 << title as u8;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `others` are among these.
    pub fn contain(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// In the order of their codes.
    pub fn iter(self) -> impl Iterator<Item = RejectionTitle> {
        RejectionTitle::ALL.into_iter().filter(move |title| self.0 & 1 << *title as u8 != 0)
    }
}

impl FromIterator<RejectionTitle> for Titles {
    fn from_iter<I: IntoIterator<Item = RejectionTitle>>(titles: I) -> Self {
        let mut set = Self::default();
        titles.into_iter().for_each(|title| set.insert(title));
        set
    }
}

/// What a rejection note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its title.
    pub title: RejectionTitle,
    /// The instances that it rejects, by study, series and SOP Instance UID, each with its SOP Class UID (empty where the note
    /// does not say a usable one); never none.
    pub rejected: BTreeMap<Uid, BTreeMap<(Uid, Uid), String>>,
}

/// Why a Key Object Selection Document that has the title of a rejection note can't be used as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableNote {
    /// It can't be read.
    #[error("rejection note can't be read")]
    Unreadable,
    /// An instance is not named by usable UIDs.
    #[error("rejection note names an instance without usable UIDs")]
    BadReference,
    /// It names none.
    #[error("rejection note names no instance")]
    Empty,
}

impl UnusableNote {
    /// The element concerned.
    pub const fn tag(self) -> Tag {
        match self {
            Self::Unreadable => tags::CONCEPT_NAME_CODE_SEQUENCE,
            Self::BadReference | Self::Empty => tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
        }
    }
}

/// The rejection note that an instance is; `None` if it is none. `header` is in Explicit VR Little Endian.
///
/// What a note rejects is what its evidence names, of the procedure at hand and of others: all that its content refers to must be
/// listed there (PS3.3 section C.17.2.3, edition 2025c).
///
/// # Errors
/// [`UnusableNote`]: it has the title of one, and what it rejects can't be known.
pub fn note(sop_class_uid: &str, header: &[u8]) -> Result<Option<Note>, UnusableNote> {
    if sop_class_uid != KEY_OBJECT_SELECTION_DOCUMENT {
        return Ok(None);
    }
    let Some(title) = title(header)? else { return Ok(None) };
    let mut rejected: BTreeMap<Uid, BTreeMap<(Uid, Uid), String>> = BTreeMap::new();
    for evidence in [tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, tags::PERTINENT_OTHER_EVIDENCE_SEQUENCE] {
        for study in element(header, evidence)?.items(evidence) {
            let uid = study.uid(tags::STUDY_INSTANCE_UID).ok_or(UnusableNote::BadReference)?;
            let of_study = rejected.entry(uid).or_default();
            for series in study.items(tags::REFERENCED_SERIES_SEQUENCE) {
                let uid = series.uid(tags::SERIES_INSTANCE_UID).ok_or(UnusableNote::BadReference)?;
                for instance in series.items(tags::REFERENCED_SOP_SEQUENCE) {
                    let sop = instance.uid(tags::REFERENCED_SOP_INSTANCE_UID).ok_or(UnusableNote::BadReference)?;
                    let class = instance.uid(tags::REFERENCED_SOP_CLASS_UID).map(|uid| uid.to_string());
                    of_study.insert((uid.clone(), sop), class.unwrap_or_default());
                }
            }
        }
    }
    rejected.retain(|_, instances| !instances.is_empty());
    if rejected.is_empty() { Err(UnusableNote::Empty) } else { Ok(Some(Note { title, rejected })) }
}

fn title(header: &[u8]) -> Result<Option<RejectionTitle>, UnusableNote> {
    let set = element(header, tags::CONCEPT_NAME_CODE_SEQUENCE)?;
    let Some(concept) = set.items(tags::CONCEPT_NAME_CODE_SEQUENCE).first() else { return Ok(None) };
    if concept.text(tags::CODING_SCHEME_DESIGNATOR) != Some("DCM") {
        return Ok(None);
    }
    Ok(concept.text(tags::CODE_VALUE).and_then(RejectionTitle::of_code))
}

/// One element of a header: no other one keeps a note from being read.
fn element(header: &[u8], tag: Tag) -> Result<DataSet, UnusableNote> {
    let mut at = 0;
    for element in Header::new(header).elements() {
        let length = (if element.vr.has_long_length() { 12 } else { 8 }) + element.value.len();
        if element.tag == tag {
            let raw = Bytes::copy_from_slice(header.get(at..at + length).unwrap_or_default());
            // Codes and UIDs are of the default repertoire, whatever the data set's.
            let read = DataSet::decode(&raw, Encoding::ExplicitLittle, CharacterSet::DEFAULT, &HEADER_LIMITS);
            return read.map(|(set, _)| set).map_err(|_| UnusableNote::Unreadable);
        }
        at += length;
    }
    Ok(DataSet::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_dicom::{Vr, dataset::Value};

    fn items(tag: Tag, items: Vec<DataSet>) -> DataSet {
        let mut set = DataSet::new();
        set.put(tag, Vr::SQ, Value::Sequence(items));
        set
    }

    fn texts(texts: &[(Tag, &str)]) -> DataSet {
        let mut set = DataSet::new();
        texts.iter().for_each(|(tag, text)| set.put_text(*tag, text));
        set
    }

    fn evidence(study: &str, series: &str, instances: &[&str]) -> DataSet {
        let instance = |uid: &&str| {
            texts(&[
                (tags::REFERENCED_SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2"),
                (tags::REFERENCED_SOP_INSTANCE_UID, uid),
            ])
        };
        let mut of_series = items(tags::REFERENCED_SOP_SEQUENCE, instances.iter().map(instance).collect());
        of_series.put_text(tags::SERIES_INSTANCE_UID, series);
        let mut of_study = items(tags::REFERENCED_SERIES_SEQUENCE, vec![of_series]);
        of_study.put_text(tags::STUDY_INSTANCE_UID, study);
        of_study
    }

    fn document(scheme: &str, code: &str, evidence: Vec<DataSet>) -> Vec<u8> {
        let concept = texts(&[(tags::CODE_VALUE, code), (tags::CODING_SCHEME_DESIGNATOR, scheme)]);
        let mut set = items(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]);
        set.put(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, Vr::SQ, Value::Sequence(evidence));
        set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).expect("encodes")
    }

    #[test]
    fn a_note_names_its_title_and_what_it_rejects_by_study() {
        for title in RejectionTitle::ALL {
            let evidence =
                vec![evidence("1.2", "1.2.3", &["1.2.3.1", "1.2.3.2"]), evidence("1.3", "1.3.1", &["1.3.1.1"])];
            let header = document("DCM", title.code(), evidence);
            let note = note(KEY_OBJECT_SELECTION_DOCUMENT, &header).expect("usable").expect("a note");
            assert_eq!(note.title, title);
            let counts: Vec<_> = note.rejected.iter().map(|(study, of)| (study.to_string(), of.len())).collect();
            assert_eq!(counts, [("1.2".to_owned(), 2), ("1.3".to_owned(), 1)]);
        }
    }

    #[test]
    fn other_documents_reject_nothing() {
        let evidence = vec![evidence("1.2", "1.2.3", &["1.2.3.1"])];
        let class = KEY_OBJECT_SELECTION_DOCUMENT;
        assert_eq!(note(class, &document("DCM", "113000", evidence.clone())), Ok(None), "Of Interest");
        assert_eq!(note(class, &document("99ACME", "113001", evidence.clone())), Ok(None));
        assert_eq!(note("1.2.840.10008.5.1.4.1.1.88.11", &document("DCM", "113001", evidence)), Ok(None));
        assert_eq!(note(class, &[]), Ok(None));
    }

    #[test]
    fn a_note_of_which_it_can_not_be_known_what_it_rejects_is_unusable() {
        let class = KEY_OBJECT_SELECTION_DOCUMENT;
        assert_eq!(note(class, &document("DCM", "113001", vec![])), Err(UnusableNote::Empty));
        assert_eq!(
            note(class, &document("DCM", "113001", vec![evidence("1.2", "1.3", &[])])),
            Err(UnusableNote::Empty)
        );
        for bad in [evidence("1.2", "1.3", &["x"]), evidence("1.2", "", &["1.4"]), evidence("", "1.3", &["1.4"])] {
            assert_eq!(note(class, &document("DCM", "113001", vec![bad])), Err(UnusableNote::BadReference));
        }
    }

    #[test]
    fn sets_of_titles() {
        let both: Titles = [RejectionTitle::QualityReasons, RejectionTitle::RetentionExpired].into_iter().collect();
        let one: Titles = [RejectionTitle::QualityReasons].into_iter().collect();
        assert!(both.contain(one) && !one.contain(both) && Titles::ALL.contain(both));
        assert!(one.contain(Titles::default()) && Titles::default().is_empty());
        assert_eq!(both.iter().map(RejectionTitle::code).collect::<Vec<_>>(), ["113001", "113039"]);
    }
}
