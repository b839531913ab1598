//! Patients, studies and headers made up from numbers: the same number gives the same study in every run.

use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, SiteId,
    envelope::Envelope,
    events::{Event, InstanceProtected, InstanceStored, Object, Receipt, SenderProfile},
};
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, EncodeError, Value},
    tags,
    transfer_syntax::Encoding,
};
use cairn_store_api::Record;
use prost::Message;

/// SOP Class of every instance: CT Image Storage.
pub const SOP_CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";

/// A number that looks random and is the same at every run.
pub fn mixed(n: u64, salt: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

const FAMILY: [&str; 24] = [
    "Garcia",
    "Mueller",
    "Rossi",
    "Novak",
    "Jensen",
    "Kowalski",
    "Papadopoulos",
    "Nagy",
    "Ivanova",
    "Haddad",
    "Cohen",
    "Okafor",
    "Nguyen",
    "Tanaka",
    "Kim",
    "Wang",
    "Silva",
    "Dubois",
    "Lindgren",
    "Virtanen",
    "Murphy",
    "Campbell",
    "Yilmaz",
    "Sato",
];
const GIVEN: [&str; 16] = [
    "Anna", "Bert", "Carla", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Klara", "Leo", "Maria",
    "Noah", "Olga", "Paul",
];
const WORDS: [&str; 12] = [
    "CT CHEST",
    "MR HEAD",
    "CT ABDOMEN",
    "XR HAND",
    "US LIVER",
    "MR KNEE",
    "CT HEAD",
    "PET WHOLE BODY",
    "XR CHEST PA",
    "MR SPINE",
    "MG SCREENING",
    "CT ANGIO",
];
const MODALITIES: [&str; 6] = ["CT", "MR", "CR", "US", "MG", "PT"];

/// Name of a patient.
fn name(patient: u64) -> String {
    let family = match mixed(patient, 1) % 1_000 {
        0 => "Doe".to_owned(),
        1..=10 => "Smith".to_owned(),
        _ => {
            let family = FAMILY[(mixed(patient, 2) % FAMILY.len() as u64) as usize];
            format!("{family}{}", ["", "son", "berg", "ova", "er"][(mixed(patient, 3) % 5) as usize])
        }
    };
    let given = GIVEN[(mixed(patient, 4) % GIVEN.len() as u64) as usize];
    format!("{}^{}", family.to_uppercase(), given.to_uppercase())
}

/// Study Instance UID of a study.
pub fn study_uid(study: u64) -> String {
    format!("1.2.826.0.1.3680043.10.1199.{}.{study}", mixed(study, 9) % 1_000_000)
}

/// Number of the patient whose study this is; its Patient ID is `PID` and eight digits.
pub fn patient_of(study: u64) -> u64 {
    mixed(study, 6) % (study * 6 / 10 + 1)
}

/// Headers: those of the study and series by name, the rest of a scanner's.
#[derive(Clone, Debug)]
pub struct Headers {
    filler: DataSet,
}

impl Headers {
    /// Headers with these elements beside those that queries name.
    pub fn with(filler: DataSet) -> Self {
        Self { filler }
    }

    /// Headers of about this length, in bytes.
    pub fn of_length(length: usize) -> Self {
        let mut filler = DataSet::new();
        // What no query names: parameters of the scan, in elements of the length that such have.
        let mut bytes = 450;
        let mut tag = Tag::new(0x0018, 0x9000);
        while bytes + 40 < length {
            let text = format!("{:032}", mixed(u64::from(tag.0), 5));
            filler.put(tag, Vr::LO, Value::Text(vec![text]));
            tag = Tag(tag.0 + 1);
            bytes += 40;
        }
        Self { filler }
    }

    /// The data set of one instance without pixels, in Explicit VR Little Endian.
    ///
    /// # Errors
    /// None for the fillers of this project.
    pub fn make(&self, study: u64, instance: u64) -> Result<Vec<u8>, EncodeError> {
        self.data_set(study, instance).encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT)
    }

    /// The same as elements.
    pub fn data_set(&self, study: u64, instance: u64) -> DataSet {
        let patient = patient_of(study);
        let day = mixed(study, 7) % 3_650;
        let date = format!("{:04}{:02}{:02}", 2016 + day / 365, 1 + day % 365 / 31, 1 + day % 28);
        let time = mixed(study, 8) % 86_400;
        let mut set = self.filler.clone();
        for (tag, text) in [
            (tags::SOP_CLASS_UID, SOP_CLASS.to_owned()),
            (tags::SOP_INSTANCE_UID, format!("{}.1.{instance}", study_uid(study))),
            (tags::STUDY_INSTANCE_UID, study_uid(study)),
            (tags::SERIES_INSTANCE_UID, format!("{}.1", study_uid(study))),
            (tags::PATIENT_NAME, name(patient)),
            (tags::PATIENT_ID, format!("PID{patient:08}")),
            (tags::PATIENT_BIRTH_DATE, format!("19{:02}0{}1{}", patient % 100, 1 + patient % 9, patient % 10)),
            (tags::PATIENT_SEX, if patient.is_multiple_of(2) { "F" } else { "M" }.to_owned()),
            (tags::STUDY_DATE, date),
            (tags::STUDY_TIME, format!("{:02}{:02}{:02}", time / 3_600, time / 60 % 60, time % 60)),
            (tags::ACCESSION_NUMBER, format!("ACC{study:08}")),
            (tags::STUDY_DESCRIPTION, WORDS[(mixed(study, 10) % 12) as usize].to_owned()),
            (tags::REFERRING_PHYSICIAN_NAME, "REFERRER^ONE".to_owned()),
            (tags::STUDY_ID, study.to_string()),
            (tags::MODALITY, MODALITIES[(mixed(study, 11) % 6) as usize].to_owned()),
            (tags::SERIES_NUMBER, "1".to_owned()),
            (tags::SERIES_DESCRIPTION, "axial".to_owned()),
            (tags::INSTANCE_NUMBER, instance.to_string()),
            (tags::ROWS, "512".to_owned()),
        ] {
            set.put_text(tag, &text);
        }
        set.put(tags::ROWS, Vr::US, Value::Unsigned(vec![512]));
        set
    }

    /// The event of one instance, as ingest would append it; its object is nowhere.
    ///
    /// # Errors
    /// As [`Headers::make`].
    pub fn record(&self, site: &SiteId, study: u64, instance: u64) -> Result<Record, EncodeError> {
        let n = study * 100_000 + instance;
        // Version 7 and variant bits, so that it is a real UUID's number.
        let id = |kind: u8| {
            let [_, low @ ..] = n.to_be_bytes();
            let mut bytes = [1, 0x8f, 0x4d, 0x2e, 0, 0, 0x70, kind, 0x80, 0, 0, 0, 0, 0, 0, 0];
            bytes[9..].copy_from_slice(&low);
            bytes
        };
        let uid = study_uid(study);
        let protected = InstanceProtected { header: self.make(study, instance)?.into(), extractor_version: 1 };
        let digest = Bytes::copy_from_slice(&[mixed(n, 12).to_be_bytes(); 4].concat());
        let event = InstanceStored {
            tenant: "default".into(),
            study_instance_uid: uid.clone(),
            series_instance_uid: format!("{uid}.1"),
            sop_instance_uid: format!("{uid}.1.{instance}"),
            sop_class_uid: SOP_CLASS.into(),
            transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
            object: Some(Object { key: Bytes::copy_from_slice(&id(1)), length_bytes: 526_000, blake3: digest }),
            data_set_offset: 340,
            pixel_data_offset: 1_500,
            receipt: Some(Receipt {
                receipt_id: vec![1; 16].into(),
                calling_ae_title: "SCANNER".into(),
                called_ae_title: "CAIRN".into(),
                peer_address: "127.0.0.1:104".into(),
                ..Receipt::default()
            }),
            sender_profile: Some(SenderProfile { issuer_of_patient_id: "HOSP".into(), ..SenderProfile::default() }),
            protected: protected.encode_to_vec().into(),
            ..InstanceStored::default()
        };
        Ok(Record {
            envelope: Envelope {
                id: EventId::from_slice(&id(0))
                    .unwrap_or_else(|_| unreachable!("sixteen bytes with version and variant")),
                kind: "cairn.instance.stored.v1".into(),
                site: site.clone(),
                study_instance_uid: uid,
                tenant: "default".into(),
                hlc: Hlc { wall_ms: 1_700_000_000_000 + n, counter: 0 },
                traceparent: None,
                correlation_id: None,
                causation_id: None,
                object_keys: Vec::new(),
                origin: None,
            },
            payload: Event::InstanceStored(Box::new(event)).encode(),
        })
    }
}
