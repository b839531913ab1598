//! Data sets made in code.

use cairn_dicom::{Tag, Vr, tags};

pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// How elements are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Explicit,
    Implicit,
    BigEndian,
}

fn number(out: &mut Vec<u8>, form: Form, value: u32, bytes: usize) {
    let little = value.to_le_bytes();
    let mut bytes = little[..bytes].to_vec();
    if form == Form::BigEndian {
        bytes.reverse();
    }
    out.extend(bytes);
}

/// Writes one element; `value` is little endian.
pub(crate) fn element(out: &mut Vec<u8>, form: Form, tag: Tag, vr: Vr, value: &[u8]) {
    number(out, form, u32::from(tag.group()), 2);
    number(out, form, u32::from(tag.element()), 2);
    let padded = value.len() + value.len() % 2;
    match form {
        Form::Implicit => number(out, form, padded as u32, 4),
        _ => {
            out.extend(vr.as_str().as_bytes());
            if vr.has_long_length() {
                out.extend([0, 0]);
                number(out, form, padded as u32, 4);
            } else {
                number(out, form, padded as u32, 2);
            }
        }
    }
    let mut value = value.to_vec();
    value.resize(padded, if vr == Vr::UI || !vr.is_text() { 0 } else { b' ' });
    if form == Form::BigEndian {
        value.chunks_mut(vr.unit_bytes()).for_each(<[u8]>::reverse);
    }
    out.extend(value);
}

/// An image of two bytes a pixel.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) form: Form,
    pub(crate) sop_class: Option<&'static str>,
    pub(crate) instance: String,
    pub(crate) study: String,
    pub(crate) series: String,
    pub(crate) issuer: Option<&'static str>,
    pub(crate) patient_name: &'static str,
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) pixel: u8,
    /// A private text of this many bytes.
    pub(crate) private_bytes: usize,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            form: Form::Explicit,
            sop_class: Some(CT),
            instance: "1.2.3.4.5".into(),
            study: "1.2.3".into(),
            series: "1.2.3.4".into(),
            issuer: None,
            patient_name: "Synthetic^Patient",
            rows: 64,
            columns: 64,
            pixel: 7,
            private_bytes: 0,
        }
    }
}

impl Image {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut add = |tag, vr, value: &[u8]| element(&mut out, self.form, tag, vr, value);
        if let Some(class) = self.sop_class {
            add(tags::SOP_CLASS_UID, Vr::UI, class.as_bytes());
        }
        add(tags::SOP_INSTANCE_UID, Vr::UI, self.instance.as_bytes());
        add(tags::MODALITY, Vr::CS, b"CT");
        add(tags::PATIENT_NAME, Vr::PN, self.patient_name.as_bytes());
        add(tags::PATIENT_ID, Vr::LO, b"12345");
        if let Some(issuer) = self.issuer {
            add(tags::ISSUER_OF_PATIENT_ID, Vr::LO, issuer.as_bytes());
        }
        if self.private_bytes > 0 {
            add(Tag::new(0x0013, 0x0010), Vr::LO, b"CAIRN TEST");
            for n in 0..self.private_bytes.div_ceil(1_000) {
                let value = vec![b'x'; 1_000.min(self.private_bytes)];
                add(Tag::new(0x0013, 0x1000 + n as u16), Vr::UN, &value);
            }
        }
        add(tags::STUDY_INSTANCE_UID, Vr::UI, self.study.as_bytes());
        add(tags::SERIES_INSTANCE_UID, Vr::UI, self.series.as_bytes());
        add(tags::SAMPLES_PER_PIXEL, Vr::US, &1_u16.to_le_bytes());
        add(tags::ROWS, Vr::US, &self.rows.to_le_bytes());
        add(tags::COLUMNS, Vr::US, &self.columns.to_le_bytes());
        add(tags::BITS_ALLOCATED, Vr::US, &16_u16.to_le_bytes());
        add(tags::PIXEL_REPRESENTATION, Vr::US, &0_u16.to_le_bytes());
        let pixels: Vec<u8> =
            (0..usize::from(self.rows) * usize::from(self.columns)).flat_map(|n| [self.pixel, n as u8]).collect();
        add(tags::PIXEL_DATA, Vr::OW, &pixels);
        out
    }

    pub(crate) fn transfer_syntax(&self) -> &'static str {
        match self.form {
            Form::Explicit => EXPLICIT,
            Form::Implicit => IMPLICIT,
            Form::BigEndian => BIG_ENDIAN,
        }
    }

    /// A Part 10 file as some other program writes it.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        let mut add = |tag, vr, value: &[u8]| element(&mut meta, Form::Explicit, tag, vr, value);
        add(tags::FILE_META_INFORMATION_VERSION, Vr::OB, &[0, 1]);
        add(tags::MEDIA_STORAGE_SOP_CLASS_UID, Vr::UI, CT.as_bytes());
        add(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, Vr::UI, self.instance.as_bytes());
        add(tags::TRANSFER_SYNTAX_UID, Vr::UI, self.transfer_syntax().as_bytes());
        add(tags::IMPLEMENTATION_CLASS_UID, Vr::UI, b"1.2.3.4.5.6.7");
        add(tags::IMPLEMENTATION_VERSION_NAME, Vr::SH, b"OTHER_1");
        add(tags::SOURCE_APPLICATION_ENTITY_TITLE, Vr::AE, b"SOMEONE");
        let mut file = b"MZ, and whatever else may be in a preamble".to_vec();
        file.resize(128, 1);
        file.extend(b"DICM");
        element(
            &mut file,
            Form::Explicit,
            tags::FILE_META_INFORMATION_GROUP_LENGTH,
            Vr::UL,
            &(meta.len() as u32).to_le_bytes(),
        );
        file.extend(meta);
        file.extend(self.bytes());
        file
    }
}
