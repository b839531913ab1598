//! Small instances, by number.

use bytes::Bytes;
use cairn_archive::rejection::{KEY_OBJECT_SELECTION_DOCUMENT, RejectionTitle};
use cairn_dicom::{
    CharacterSet, DataSet, Tag, Uid,
    dataset::Value,
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
    vr::Vr,
};
use cairn_synthetic::uid;

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
/// Room for a few pieces, so that a link can break within an object.
const PIXEL_BYTES: usize = 2_000;

/// One instance. Another `version` has other bytes under the same identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub study: u64,
    pub number: u64,
    pub version: u8,
}

impl Instance {
    /// Study, Series and SOP Instance UID.
    pub fn uids(self) -> (Uid, Uid, Uid) {
        // The same in two studies: every fifth.
        let of_study = if self.number.is_multiple_of(5) { 0 } else { self.study };
        (uid(1, self.study, 0, 0), uid(1, self.study, 1, 0), uid(1, of_study, 2, self.number))
    }

    /// A Part 10 file.
    pub fn file(self) -> Bytes {
        let (study, series, instance) = self.uids();
        let mut set = DataSet::new();
        for (tag, text) in [
            (tags::SOP_CLASS_UID, SECONDARY_CAPTURE),
            (tags::SOP_INSTANCE_UID, instance.as_str()),
            (tags::STUDY_INSTANCE_UID, study.as_str()),
            (tags::SERIES_INSTANCE_UID, series.as_str()),
            (tags::STUDY_DATE, "20260601"),
            (tags::MODALITY, "OT"),
            (tags::PATIENT_NAME, "SIMULATED^PATIENT"),
            (tags::PATIENT_ID, &format!("P{}", self.study / 2)),
            (tags::STUDY_DESCRIPTION, &format!("version {}", self.version)),
        ] {
            set.put_text(tag, text);
        }
        set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(vec![self.version; PIXEL_BYTES].into()));
        part10(SECONDARY_CAPTURE, &instance, &set)
    }
}

/// A rejection note about instances, of the study of the first.
pub struct Note {
    pub number: u64,
    pub title: RejectionTitle,
    pub about: Vec<Instance>,
}

impl Note {
    /// A Part 10 file.
    pub fn file(&self) -> Bytes {
        let own = self.about.first().unwrap().uids().0;
        let instance = uid(2, 0, 0, self.number);
        let evidence = self.about.iter().map(|about| {
            let (study, series, instance) = about.uids();
            let sop = with(&[(tags::REFERENCED_SOP_INSTANCE_UID, instance.as_str())], &[]);
            let references = (tags::REFERENCED_SOP_SEQUENCE, vec![sop]);
            let series = with(&[(tags::SERIES_INSTANCE_UID, series.as_str())], &[references]);
            with(&[(tags::STUDY_INSTANCE_UID, study.as_str())], &[(tags::REFERENCED_SERIES_SEQUENCE, vec![series])])
        });
        let concept = with(&[(tags::CODE_VALUE, self.title.code()), (tags::CODING_SCHEME_DESIGNATOR, "DCM")], &[]);
        let set = with(
            &[
                (tags::SOP_CLASS_UID, KEY_OBJECT_SELECTION_DOCUMENT),
                (tags::SOP_INSTANCE_UID, instance.as_str()),
                (tags::STUDY_INSTANCE_UID, own.as_str()),
                (tags::SERIES_INSTANCE_UID, uid(2, 0, 1, self.number).as_str()),
            ],
            &[
                (tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]),
                (tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, evidence.collect()),
            ],
        );
        part10(KEY_OBJECT_SELECTION_DOCUMENT, &instance, &set)
    }
}

fn with(texts: &[(Tag, &str)], sequences: &[(Tag, Vec<DataSet>)]) -> DataSet {
    let mut set = DataSet::new();
    texts.iter().for_each(|(tag, text)| set.put_text(*tag, text));
    sequences.iter().for_each(|(tag, items)| set.put(*tag, Vr::SQ, Value::Sequence(items.clone())));
    set
}

fn part10(sop_class_uid: &str, instance: &Uid, set: &DataSet) -> Bytes {
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &sop_class_uid.parse().unwrap(),
        sop_instance_uid: instance,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend_from_slice(&set.encode(Encoding::ExplicitLittle, CharacterSet::default()).unwrap());
    file.into()
}
