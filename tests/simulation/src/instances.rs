//! Small instances, by number.

use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, DataSet, Uid,
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
    /// A Part 10 file.
    pub fn file(self) -> Bytes {
        let (study, series) = (uid(1, self.study, 0, 0), uid(1, self.study, 1, 0));
        // The same in two studies: every fifth.
        let of_study = if self.number.is_multiple_of(5) { 0 } else { self.study };
        let instance = uid(1, of_study, 2, self.number);
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
        let body = set.encode(Encoding::ExplicitLittle, CharacterSet::default()).unwrap();
        let sop_class_uid: Uid = SECONDARY_CAPTURE.parse().unwrap();
        let mut file = write_file_meta(&NewFileMeta {
            sop_class_uid: &sop_class_uid,
            sop_instance_uid: &instance,
            transfer_syntax_uid: "1.2.840.10008.1.2.1",
            source_ae_title: None,
        });
        file.extend_from_slice(&body);
        file.into()
    }
}
