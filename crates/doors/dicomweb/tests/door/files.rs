//! DICOM files made in code.

use cairn_dicom::{
    CharacterSet, DataSet, Tag, TransferSyntax, Vr,
    dataset::Value,
    part10::{NewFileMeta, write_file_meta},
    tags,
};

pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const J2K: &str = "1.2.840.10008.1.2.4.90";

/// What a file is made from.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) study: String,
    pub(crate) series: String,
    pub(crate) instance: String,
    pub(crate) syntax: &'static str,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) more: Vec<(Tag, Vr, Value)>,
}

/// A CT slice of `bytes` bytes of pixels, the nth of its series.
pub(crate) fn ct(n: u32, bytes: usize) -> Spec {
    let pixels = (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(n) >> 13) as u8).collect();
    Spec {
        study: "1.2.3".into(),
        series: "1.2.3.4".into(),
        instance: format!("1.2.3.4.{n}"),
        syntax: EXPLICIT,
        frames: vec![pixels],
        more: Vec::new(),
    }
}

impl Spec {
    pub(crate) fn with(mut self, tag: Tag, vr: Vr, value: Value) -> Self {
        self.more.push((tag, vr, value));
        self
    }

    pub(crate) fn frames(mut self, syntax: &'static str, frames: &[&[u8]]) -> Self {
        self.syntax = syntax;
        self.frames = frames.iter().map(|frame| frame.to_vec()).collect();
        self
    }

    fn data_set(&self) -> DataSet {
        let mut set = DataSet::new();
        for (tag, text) in [
            (tags::SOP_CLASS_UID, CT),
            (tags::SOP_INSTANCE_UID, &self.instance),
            (tags::STUDY_INSTANCE_UID, &self.study),
            (tags::SERIES_INSTANCE_UID, &self.series),
            (tags::STUDY_DATE, "20260101"),
            (tags::STUDY_DESCRIPTION, "CHEST"),
            (tags::MODALITY, "CT"),
            (tags::PATIENT_NAME, "Müller^Jürgen"),
            (tags::PATIENT_ID, "PAT-CT"),
            (tags::INSTANCE_NUMBER, self.instance.rsplit('.').next().unwrap_or_default()),
            (tags::PIXEL_SPACING, "0.5\\0.5"),
            (tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2"),
        ] {
            set.put_text(tag, text);
        }
        if let Some(first) = self.frames.first() {
            set.put_text(tags::NUMBER_OF_FRAMES, &self.frames.len().to_string());
            let (rows, columns) = (first.len().div_ceil(512).max(1) as u64, first.len().min(512) as u64);
            for (tag, number) in [
                (tags::ROWS, rows),
                (tags::COLUMNS, columns),
                (tags::SAMPLES_PER_PIXEL, 1),
                (tags::BITS_ALLOCATED, 8),
                (tags::BITS_STORED, 8),
                (tags::HIGH_BIT, 7),
                (tags::PIXEL_REPRESENTATION, 0),
            ] {
                set.put(tag, Vr::US, Value::Unsigned(vec![number]));
            }
        }
        for (tag, vr, value) in &self.more {
            set.put(*tag, *vr, value.clone());
        }
        set
    }

    /// The file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let syntax = TransferSyntax::from_uid(self.syntax);
        let mut set = self.data_set();
        let native = syntax.is_native();
        if native && !self.frames.is_empty() {
            set.put(tags::PIXEL_DATA, Vr::OB, Value::Bytes(self.frames.concat().into()));
        }
        let mut file = write_file_meta(&NewFileMeta {
            sop_class_uid: &CT.parse().expect("a UID"),
            sop_instance_uid: &self.instance.parse().expect("a UID"),
            transfer_syntax_uid: self.syntax,
            source_ae_title: None,
        });
        file.extend(set.encode(syntax.encoding, CharacterSet::UTF_8).expect("encodes"));
        if !native {
            file.extend_from_slice(b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\0\0\0\0");
            for frame in &self.frames {
                assert!(frame.len().is_multiple_of(2));
                file.extend_from_slice(b"\xFE\xFF\x00\xE0");
                file.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                file.extend_from_slice(frame);
            }
            file.extend_from_slice(b"\xFE\xFF\xDD\xE0\0\0\0\0");
        }
        file
    }
}
