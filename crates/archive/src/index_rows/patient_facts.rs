//! Facts about patients: a row under each whom a fact names, and rows by which these are found.
//!
//! A fact's rows follow from its event alone, so that nothing is read to write them, and what they come to is worked out by who reads.

use super::{
    PATIENT_FACTS, PATIENT_LISTS, RowChange, RowError,
    access::lists_of_patient,
    codec::{Reader, Writer},
    keys::Text,
};
use crate::{
    correction,
    fold::{PatientIdentity, Stamp},
    ids::EventId,
    patients::{PatientFact, Said},
};
use bytes::Bytes;
use cairn_dicom::tags;

const VERSION: u8 = 1;

/// Names a patient in keys: the first half of a hash, so that no part of it is ever cut. Written down for ever.
fn name_of(patient: &PatientIdentity) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(patient.issuer.len() as u64).to_le_bytes()).update(patient.issuer.as_bytes());
    hasher.update(patient.id.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// The bucket of a patient's facts.
pub fn bucket_of_patient(patient: &PatientIdentity) -> u8 {
    name_of(patient)[0]
}

/// Partition key of a bucket of facts about patients.
pub fn patient_facts_pk(tenant: &str, bucket: u8) -> Bytes {
    let mut pk = Vec::with_capacity(tenant.len() + 3);
    Text(tenant).append(&mut pk);
    pk.push(bucket);
    pk.into()
}

/// Beginning of the clustering keys of one patient's facts.
pub fn patient_prefix(patient: &PatientIdentity) -> Bytes {
    name_of(patient).to_vec().into()
}

/// Clustering key of a fact, under a patient whom it names.
pub fn patient_fact_ck(patient: &PatientIdentity, fact: &EventId) -> Bytes {
    [&name_of(patient)[..], fact.as_bytes()].concat().into()
}

/// A fact and where the log stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactRow {
    /// The fact.
    pub fact: PatientFact,
    /// Its place; local.
    pub stamp: Stamp,
}

impl FactRow {
    /// Those under whom it stands: one that names nobody any more, under nobody.
    pub fn patients(&self) -> Vec<PatientIdentity> {
        match self.fact.said.patients() {
            patients if patients.is_empty() => vec![PatientIdentity::default()],
            patients => patients.into_iter().cloned().collect(),
        }
    }
}

/// All rows of a fact.
pub fn patient_fact_rows(tenant: &str, row: &FactRow) -> Vec<RowChange> {
    let (value, mut rows) = (encode(row), Vec::new());
    for patient in row.patients() {
        let pk = patient_facts_pk(tenant, bucket_of_patient(&patient));
        rows.push(RowChange::put(PATIENT_FACTS, pk, patient_fact_ck(&patient, &row.fact.order.id), value.clone()));
    }
    let updated = match &row.fact.said {
        Said::Updated { elements, .. } => correction::decode(elements).unwrap_or_default(),
        _ => Default::default(),
    };
    for patient in row.fact.said.patients() {
        let names = updated.texts(tags::PATIENT_NAME).iter().map(String::as_str);
        for pk in lists_of_patient(tenant, &patient.id, names) {
            let mut who = Writer::version(VERSION);
            write_patient(&mut who, patient);
            rows.push(RowChange::put(PATIENT_LISTS, pk, patient_prefix(patient), who.0));
        }
    }
    rows
}

fn write_patient(out: &mut Writer, patient: &PatientIdentity) {
    out.text(&patient.issuer).text(&patient.id);
}

fn read_patient(reader: &mut Reader<'_>) -> Result<PatientIdentity, RowError> {
    Ok(PatientIdentity { issuer: reader.text()?.to_owned(), id: reader.text()?.to_owned() })
}

/// The patient of a row of [`PATIENT_LISTS`].
pub fn decode_patient(value: &[u8]) -> Result<PatientIdentity, RowError> {
    let mut reader = Reader::new(value, VERSION, "patient_lists")?;
    let patient = read_patient(&mut reader)?;
    reader.end().map(|()| patient)
}

fn encode(FactRow { fact, stamp }: &FactRow) -> Bytes {
    let mut out = Writer::version(VERSION);
    out.order(&fact.order).fixed(&stamp.0.to_be_bytes());
    match &fact.said {
        Said::Merged { prior, surviving } => {
            out.u8(0);
            [prior, surviving].into_iter().for_each(|patient| write_patient(&mut out, patient));
        }
        Said::Linked { one, other } => {
            out.u8(1);
            [one, other].into_iter().for_each(|patient| write_patient(&mut out, patient));
        }
        Said::Updated { patient, elements } => {
            write_patient(out.u8(2), patient);
            out.bytes(elements);
        }
        Said::Revoked { fact, patients } => {
            out.u8(3).fixed(fact.as_bytes()).varint(patients.len() as u64);
            patients.iter().for_each(|patient| write_patient(&mut out, patient));
        }
        Said::Gone => {
            out.u8(4);
        }
    }
    out.0.into()
}

/// Reads a row of [`PATIENT_FACTS`].
pub fn decode_patient_fact(value: &Bytes) -> Result<FactRow, RowError> {
    let mut reader = Reader::new(value, VERSION, "patient_facts")?;
    let (order, stamp) = (reader.order()?, Stamp(u64::from_be_bytes(reader.array()?)));
    let said = match reader.u8()? {
        0 => Said::Merged { prior: read_patient(&mut reader)?, surviving: read_patient(&mut reader)? },
        1 => Said::Linked { one: read_patient(&mut reader)?, other: read_patient(&mut reader)? },
        2 => Said::Updated { patient: read_patient(&mut reader)?, elements: value.slice_ref(reader.bytes()?) },
        3 => {
            let (fact, count) = (reader.event_id()?, reader.count()?);
            let patients = (0..count).map(|_| read_patient(&mut reader)).collect::<Result<_, _>>()?;
            Said::Revoked { fact, patients }
        }
        4 => Said::Gone,
        _ => return Err(reader.bad()),
    };
    reader.end().map(|()| FactRow { fact: PatientFact { order, said }, stamp })
}
