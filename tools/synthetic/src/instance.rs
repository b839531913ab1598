//! One instance as a Part 10 file.

use crate::{people::Person, picture::phantom};
use cairn_dicom::{
    Tag, Uid, Vr,
    dataset::{DataSet, Value},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};

/// What kind of study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two series of CT slices
    Ct,
    /// Two series of MR slices
    Mr,
    /// One CR image
    Cr,
    /// One multi-frame ultrasound loop
    Us,
    /// One encapsulated PDF
    Pdf,
    /// One basic text SR
    Sr,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [Kind::Ct, Kind::Mr, Kind::Cr, Kind::Us, Kind::Pdf, Kind::Sr];

    pub(crate) fn series(self) -> u64 {
        if matches!(self, Kind::Ct | Kind::Mr) { 2 } else { 1 }
    }

    pub(crate) fn instances_in_series(self) -> u64 {
        match self {
            Kind::Ct => 8,
            Kind::Mr => 6,
            _ => 1,
        }
    }

    fn modality(self) -> &'static str {
        match self {
            Kind::Ct => "CT",
            Kind::Mr => "MR",
            Kind::Cr => "CR",
            Kind::Us => "US",
            Kind::Pdf => "DOC",
            Kind::Sr => "SR",
        }
    }

    fn sop_class(self) -> &'static str {
        match self {
            Kind::Ct => "1.2.840.10008.5.1.4.1.1.2",
            Kind::Mr => "1.2.840.10008.5.1.4.1.1.4",
            Kind::Cr => "1.2.840.10008.5.1.4.1.1.1",
            Kind::Us => "1.2.840.10008.5.1.4.1.1.3.1",
            Kind::Pdf => "1.2.840.10008.5.1.4.1.1.104.1",
            Kind::Sr => "1.2.840.10008.5.1.4.1.1.88.11",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Kind::Ct => "CHEST ROUTINE",
            Kind::Mr => "BRAIN W/O CONTRAST",
            Kind::Cr => "HAND 2 VIEWS",
            Kind::Us => "ECHO APICAL",
            Kind::Pdf => "OUTSIDE REPORT",
            Kind::Sr => "RADIOLOGY REPORT",
        }
    }
}

/// Everything that one instance is made from.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    pub(crate) kind: Kind,
    pub(crate) person: &'static Person,
    pub(crate) patient_id: String,
    pub(crate) study_instance_uid: Uid,
    pub(crate) series_instance_uid: Uid,
    pub(crate) sop_instance_uid: Uid,
    pub(crate) accession_number: String,
    pub(crate) study_date: String,
    pub(crate) study_time: String,
    pub(crate) series_number: u32,
    pub(crate) instance_number: u32,
    pub(crate) seed: u64,
}

/// The instance as a Part 10 file in Explicit VR Little Endian.
pub fn part10(spec: &InstanceSpec) -> Vec<u8> {
    let mut data_set = DataSet::new();
    identify(&mut data_set, spec);
    match spec.kind {
        Kind::Ct | Kind::Mr => slice(&mut data_set, spec, 128, 1),
        Kind::Cr => slice(&mut data_set, spec, 256, 1),
        Kind::Us => slice(&mut data_set, spec, 96, 12),
        Kind::Pdf => document(&mut data_set),
        Kind::Sr => report(&mut data_set),
    }
    let body = data_set
        .encode(Encoding::ExplicitLittle, spec.person.set())
        .unwrap_or_else(|error| unreachable!("every person's character set carries the name: {error}"));
    let sop_class_uid = class(spec);
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &sop_class_uid,
        sop_instance_uid: &spec.sop_instance_uid,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend_from_slice(&body);
    file
}

fn class(spec: &InstanceSpec) -> Uid {
    spec.kind.sop_class().parse().unwrap_or_else(|_| unreachable!("a UID of the Standard"))
}

fn identify(set: &mut DataSet, spec: &InstanceSpec) {
    let texts: [(Tag, &str); 17] = [
        (tags::SOP_CLASS_UID, spec.kind.sop_class()),
        (tags::SOP_INSTANCE_UID, spec.sop_instance_uid.as_str()),
        (tags::STUDY_DATE, &spec.study_date),
        (tags::SERIES_DATE, &spec.study_date),
        (tags::STUDY_TIME, &spec.study_time),
        (tags::SERIES_TIME, &spec.study_time),
        (tags::ACCESSION_NUMBER, &spec.accession_number),
        (tags::MODALITY, spec.kind.modality()),
        (tags::STUDY_DESCRIPTION, spec.kind.description()),
        (tags::PATIENT_NAME, spec.person.name),
        (tags::PATIENT_ID, &spec.patient_id),
        (tags::PATIENT_BIRTH_DATE, spec.person.birth_date),
        (tags::PATIENT_SEX, spec.person.sex),
        (tags::STUDY_INSTANCE_UID, spec.study_instance_uid.as_str()),
        (tags::SERIES_INSTANCE_UID, spec.series_instance_uid.as_str()),
        (tags::MANUFACTURER, "CAIRN SYNTHETIC"),
        (tags::STUDY_ID, &spec.accession_number),
    ];
    for (tag, text) in texts {
        set.put_text(tag, text);
    }
    set.put_empty(tags::REFERRING_PHYSICIAN_NAME);
    set.put_text(tags::SERIES_NUMBER, &spec.series_number.to_string());
    set.put_text(tags::INSTANCE_NUMBER, &spec.instance_number.to_string());
    set.put_text(tags::SERIES_DESCRIPTION, &format!("{} {}", spec.kind.description(), spec.series_number));
}

fn slice(set: &mut DataSet, spec: &InstanceSpec, side: u16, frames: u32) {
    let depth = f64::from(spec.instance_number) / spec.kind.instances_in_series() as f64;
    let mut pixels = Vec::with_capacity(usize::from(side) * usize::from(side) * 2 * frames as usize);
    for frame in 0..frames {
        let beat = depth * f64::from(frame + 1) / f64::from(frames);
        let picture = phantom(side.into(), beat, spec.seed + u64::from(frame));
        pixels.extend(picture.iter().flat_map(|value| value.to_le_bytes()));
    }
    let numbers: [(Tag, u64); 7] = [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, side.into()),
        (tags::COLUMNS, side.into()),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 0),
    ];
    for (tag, number) in numbers {
        set.put(tag, Vr::US, Value::Unsigned(vec![number]));
    }
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2");
    set.put_text(tags::WINDOW_CENTER, "600");
    set.put_text(tags::WINDOW_WIDTH, "1200");
    if frames > 1 {
        set.put_text(tags::NUMBER_OF_FRAMES, &frames.to_string());
    } else if spec.kind != Kind::Cr {
        let z = f64::from(spec.instance_number) * 5.0;
        set.put_text(tags::IMAGE_POSITION_PATIENT, &format!("-160\\-160\\{z}"));
        set.put_text(tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\0\\1\\0");
        set.put_text(tags::PIXEL_SPACING, "2.5\\2.5");
        set.put_text(tags::SLICE_THICKNESS, "5");
    }
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(pixels.into()));
}

fn document(set: &mut DataSet) {
    let mut pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 144]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj\n4 0 obj<</Length 47>>stream\nBT /F1 24 Tf 40 70 Td (SYNTHETIC REPORT) Tj ET \nendstream endobj\n5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n".to_vec();
    if pdf.len() % 2 == 1 {
        pdf.push(b'\n');
    }
    set.put_text(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, "application/pdf");
    set.put_text(tags::DOCUMENT_TITLE, "SYNTHETIC REPORT");
    set.put(tags::ENCAPSULATED_DOCUMENT, Vr::OB, Value::Bytes(pdf.into()));
}

fn report(set: &mut DataSet) {
    let code = |value: &str, meaning: &str| {
        let mut code = DataSet::new();
        code.put_text(tags::CODE_VALUE, value);
        code.put_text(tags::CODING_SCHEME_DESIGNATOR, "DCM");
        code.put_text(tags::CODE_MEANING, meaning);
        Value::Sequence(vec![code])
    };
    let mut finding = DataSet::new();
    finding.put_text(tags::RELATIONSHIP_TYPE, "CONTAINS");
    finding.put_text(tags::VALUE_TYPE, "TEXT");
    finding.put(tags::CONCEPT_NAME_CODE_SEQUENCE, Vr::SQ, code("121071", "Finding"));
    finding.put_text(tags::TEXT_VALUE, "Synthetic phantom without findings.");
    set.put_text(tags::VALUE_TYPE, "CONTAINER");
    set.put_text(tags::CONTINUITY_OF_CONTENT, "SEPARATE");
    set.put_text(tags::COMPLETION_FLAG, "COMPLETE");
    set.put_text(tags::VERIFICATION_FLAG, "UNVERIFIED");
    set.put(tags::CONCEPT_NAME_CODE_SEQUENCE, Vr::SQ, code("126000", "Imaging Measurement Report"));
    set.put(tags::CONTENT_SEQUENCE, Vr::SQ, Value::Sequence(vec![finding]));
}
