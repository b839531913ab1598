//! Patients: their studies merged at read time.

use super::run::{Out, Walk};
use crate::{
    project::next_bucket,
    rows::{Rows, malformed, prefix_range, successor},
    service::Ended,
};
use bytes::Bytes;
use cairn_archive::{
    fold::{Attributes, Level, PatientIdentity, StudyKey, StudyState, Variant, level_of},
    index_rows::{
        PATIENTS, Text,
        access::{BucketList, patient_bucket, patients_pk},
        read_patient_ck,
    },
    plan::{View, Wanted, answer},
};
use cairn_dicom::{
    Tag, Uid, Vr,
    dataset::{DataSet, Value},
    tags,
};
use cairn_service_api::Error;
use cairn_store_api::CkRange;
use std::collections::BTreeMap;

/// A patient: by issuer and ID; without an ID by its study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Patient {
    identity: PatientIdentity,
    /// The study of a patient without ID.
    study: Option<String>,
}

impl Patient {
    fn of(key: &StudyKey, state: &StudyState) -> Self {
        let identity = state.patient();
        let study = identity.id.is_empty().then(|| key.study_instance_uid.clone());
        Self { identity, study }
    }
}

/// Studies of one patient, a page at a time.
struct StudiesOf {
    pages: Option<crate::rows::Pages>,
    rows: Rows,
    tenant: String,
    patient: Patient,
}

impl StudiesOf {
    fn new(rows: &Rows, tenant: &str, patient: Patient) -> Self {
        let pages = patient.study.is_none().then(|| {
            let mut prefix = Vec::new();
            Text(&patient.identity.issuer).append(&mut prefix);
            Text(&patient.identity.id).append(&mut prefix);
            rows.pages(PATIENTS, patients_pk(tenant, &patient_bucket(&patient.identity)), prefix_range(&prefix))
        });
        Self { pages, rows: rows.clone(), tenant: tenant.to_owned(), patient }
    }

    /// The next studies; `None` at the end. Rows are hints: the study's own row says whose it is.
    async fn next(&mut self) -> Result<Option<Vec<(StudyKey, StudyState)>>, Error> {
        let studies: Vec<String> = match (&mut self.pages, self.patient.study.take()) {
            (None, Some(study)) => vec![study],
            (None, None) => return Ok(None),
            (Some(pages), _) => {
                let Some(page) = pages.next().await? else { return Ok(None) };
                let uids: Result<Vec<Uid>, _> =
                    page.iter().map(|row| read_patient_ck(&row.ck).map(|(.., uid)| uid)).collect();
                uids.map_err(malformed)?.iter().map(Uid::to_string).collect()
            }
        };
        let key = |study| StudyKey { tenant: self.tenant.clone(), study_instance_uid: study };
        let keys: Vec<StudyKey> = studies.into_iter().map(key).collect();
        let states = self.rows.studies(&keys).await?;
        let present = keys.into_iter().zip(states).filter_map(|(key, state)| Some((key, state?.now)));
        let own = |state: &StudyState| state.shown > 0 && state.patient() == self.patient.identity;
        Ok(Some(present.filter(|(_, state)| own(state)).collect()))
    }
}

/// Counts over a patient's studies: studies, series, instances.
async fn counts(rows: &Rows, tenant: &str, patient: Patient) -> Result<[u64; 3], Error> {
    let mut counts = [0; 3];
    let mut studies = StudiesOf::new(rows, tenant, patient);
    while let Some(page) = studies.next().await? {
        for (_, state) in page {
            counts = [counts[0] + 1, counts[1] + state.series, counts[2] + state.shown];
        }
    }
    Ok(counts)
}

const COUNTS: [Tag; 3] = [
    tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
    tags::NUMBER_OF_PATIENT_RELATED_SERIES,
    tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
];

/// Puts the counts of a study's patient into its view.
pub(crate) async fn count(rows: &Rows, key: &StudyKey, state: &StudyState, view: &mut View) -> Result<(), Error> {
    let counts = counts(rows, &key.tenant, Patient::of(key, state)).await?;
    COUNTS.into_iter().zip(counts).for_each(|(tag, count)| view.put_count(tag, count));
    Ok(())
}

/// Answers at patient level: by issuer and ID, those without ID by study.
pub(crate) async fn run(walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    if walk.plan.way.is_everything() { all(walk, wanted, out).await } else { found(walk, wanted, out).await }
}

/// Every patient in turn; one of its studies has to match.
async fn all(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    // Also finds where SOP Instances are that keys name.
    drop(walk.begin(1).await?);
    let mut bucket: Option<Bytes> = None;
    let mut last_given: Option<Patient> = None;
    while let Some(next) = next_bucket(&walk.rows, BucketList::Patients, &walk.tenant, bucket.as_ref()).await? {
        let pk = patients_pk(&walk.tenant, &next);
        let mut range = CkRange::default();
        loop {
            let page = walk.rows.scan(PATIENTS, &pk, &range, walk.rows.page).await?;
            let Some(last) = page.rows.last() else { break };
            let mut patients = Vec::new();
            for row in &page.rows {
                let (_, _, study) = read_patient_ck(&row.ck).map_err(malformed)?;
                patients.push(StudyKey { tenant: walk.tenant.clone(), study_instance_uid: study.to_string() });
            }
            range.from = Some(successor(&last.ck));
            for patient in of_rows(&walk, &pk, &patients, &page.rows, last_given.as_ref()).await? {
                last_given = Some(patient.clone());
                if matches(&walk, &patient).await? {
                    give(&walk, wanted, patient, out).await?;
                    if out.is_full() {
                        return Ok(());
                    }
                }
            }
            if !page.more {
                break;
            }
        }
        bucket = Some(next);
    }
    Ok(())
}

/// The patients whose first row is among these, so that each is given once.
async fn of_rows(
    walk: &Walk,
    pk: &Bytes,
    keys: &[StudyKey],
    rows: &[cairn_store_api::Row],
    last_given: Option<&Patient>,
) -> Result<Vec<Patient>, Error> {
    let mut patients: Vec<Patient> = Vec::new();
    let states = walk.rows.studies(keys).await?;
    for ((key, row), state) in keys.iter().zip(rows).zip(states) {
        let Some(state) = state.map(|state| state.now).filter(|state| state.shown > 0) else { continue };
        let patient = Patient::of(key, &state);
        if cairn_archive::index_rows::access::patient_ck(&patient.identity, &key.study_instance_uid) != row.ck {
            continue;
        }
        if last_given == Some(&patient) || patients.contains(&patient) || !is_first(walk, pk, &patient, row).await? {
            continue;
        }
        patients.push(patient);
    }
    patients.sort_unstable();
    Ok(patients)
}

/// Whether this row is the patient's first one that holds.
async fn is_first(walk: &Walk, pk: &Bytes, patient: &Patient, row: &cairn_store_api::Row) -> Result<bool, Error> {
    if patient.study.is_some() {
        return Ok(true);
    }
    let mut prefix = Vec::new();
    Text(&patient.identity.issuer).append(&mut prefix);
    Text(&patient.identity.id).append(&mut prefix);
    let range = CkRange { to: Some(row.ck.clone()), ..prefix_range(&prefix) };
    let mut pages = walk.rows.pages(PATIENTS, pk.clone(), range);
    while let Some(page) = pages.next().await? {
        for row in page {
            let (_, _, study) = read_patient_ck(&row.ck).map_err(malformed)?;
            let key = StudyKey { tenant: walk.tenant.clone(), study_instance_uid: study.to_string() };
            let state = walk.rows.study(&key).await?;
            if state.is_some_and(|state| state.shown > 0 && state.patient() == patient.identity) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Patients of the studies that match, in order; gone through again where they are too many to hold.
async fn found(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    let mut after: Option<Patient> = None;
    loop {
        let mut held: BTreeMap<Patient, ()> = BTreeMap::new();
        let mut more = false;
        let mut studies = walk.begin(64).await?;
        while let Some((key, state)) = studies.next().await? {
            let patient = Patient::of(&key, &state);
            if after.as_ref().is_some_and(|after| patient <= *after) || held.contains_key(&patient) {
                continue;
            }
            let view = walk.study_view(&key, &state).await?;
            if view.matches(&walk.plan.study) && walk.matches_below(&key, &view).await? {
                held.insert(patient, ());
                if held.len() > walk.sort_max {
                    held.pop_last();
                    more = true;
                }
            }
        }
        after = held.last_key_value().map(|(last, ())| last.clone());
        for patient in held.into_keys() {
            give(&walk, wanted, patient, out).await?;
            if out.is_full() {
                return Ok(());
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// Whether one of the patient's studies matches all keys.
async fn matches(walk: &Walk, patient: &Patient) -> Result<bool, Error> {
    let mut studies = StudiesOf::new(&walk.rows, &walk.tenant, patient.clone());
    while let Some(page) = studies.next().await? {
        for (key, state) in page {
            let view = walk.study_view(&key, &state).await?;
            if view.matches(&walk.plan.study) && walk.matches_below(&key, &view).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn give(walk: &Walk, wanted: &Wanted, patient: Patient, out: &mut Out) -> Result<(), Ended> {
    let set = merged(walk, patient).await?;
    out.give(|| answer(wanted, &walk.plan.study, &[&set])).await
}

/// A patient's attributes: of each the earliest in event order among all studies.
async fn merged(walk: &Walk, patient: Patient) -> Result<DataSet, Error> {
    let mut earliest: BTreeMap<Tag, Variant> = BTreeMap::new();
    let mut counts = [0; 3];
    let mut studies = StudiesOf::new(&walk.rows, &walk.tenant, patient);
    while let Some(page) = studies.next().await? {
        for (_, state) in page {
            counts = [counts[0] + 1, counts[1] + state.series, counts[2] + state.shown];
            let mut last = None;
            for variant in state.attributes.variants() {
                // The first of each attribute is the study's.
                let first = last.replace(variant.tag) != Some(variant.tag);
                if first && level_of(variant.tag) == Level::Patient && !variant.tag.is_private() {
                    let known = earliest.get(&variant.tag);
                    if known.is_none_or(|known| variant.order < known.order) {
                        earliest.insert(variant.tag, variant.clone());
                    }
                }
            }
        }
    }
    let mut set: DataSet =
        earliest.values().flat_map(|variant| Attributes::decode_one(variant).elements().to_vec()).collect();
    set.put(tags::INSTANCE_AVAILABILITY, Vr::CS, Value::Text(vec!["ONLINE".to_owned()]));
    for (tag, count) in COUNTS.into_iter().zip(counts) {
        set.put(tag, Vr::IS, Value::Text(vec![count.to_string()]));
    }
    Ok(set)
}
