//! Patients: their studies merged at read time.

use super::run::{Out, Walk};
use crate::{
    answering::Ended,
    project::next_bucket,
    rows::{Rows, malformed, prefix_range, successor},
};
use bytes::Bytes;
use cairn_archive::{
    fold::{Attributes, Level, PatientIdentity, StudyKey, StudyState, Variant, level_of},
    index_rows::{
        PATIENTS, Text,
        access::{BucketList, patient_bucket, patient_ck, patients_pk},
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
    let page_rows = out.hint().clamp(8, walk.rows.page.max(8));
    let mut bucket: Option<Bytes> = None;
    while let Some(next) = next_bucket(&walk.rows, BucketList::Patients, &walk.tenant, bucket.as_ref()).await? {
        let pk = patients_pk(&walk.tenant, &next);
        let mut range = CkRange::default();
        loop {
            let page = walk.rows.scan(PATIENTS, &pk, &range, page_rows).await?;
            let (groups, after) = groups(&walk, page).await?;
            for group in groups {
                for patient in group {
                    if patient.matches {
                        out.give(|| answer(wanted, &walk.plan.study, &[&patient.set()])).await?;
                        if out.is_full() {
                            return Ok(());
                        }
                    }
                }
            }
            match after {
                Some(after) => range.from = Some(after),
                None => break,
            }
        }
        bucket = Some(next);
    }
    Ok(())
}

/// Patients of a page of rows, by key; and where to go on, if there is more. A patient whose rows go beyond the page is
/// gone through whole.
async fn groups(walk: &Walk, page: cairn_store_api::Page) -> Result<(Vec<Vec<Merged>>, Option<Bytes>), Error> {
    let mut rows = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let (_, id, study) = read_patient_ck(&row.ck).map_err(malformed)?;
        // A patient without ID is its study's alone.
        let own = if id.is_empty() { row.ck.len() } else { row.ck.len() - packed_length(&study) };
        let key = StudyKey { tenant: walk.tenant.clone(), study_instance_uid: study.to_string() };
        rows.push((row.ck.slice(..own), row, key));
    }
    let keys: Vec<StudyKey> = rows.iter().map(|(.., key)| key.clone()).collect();
    let mut states = walk.rows.studies(&keys).await?.into_iter();
    let mut after = page.rows.last().filter(|_| page.more).map(|row| successor(&row.ck));
    let mut groups = Vec::new();
    for group in rows.chunk_by(|a, b| a.0 == b.0) {
        let is_cut = page.more && group.last().map(|(_, row, _)| &row.ck) == page.rows.last().map(|row| &row.ck);
        let states: Vec<_> = states.by_ref().take(group.len()).collect();
        let mut patients: BTreeMap<Patient, Merged> = BTreeMap::new();
        let Some((prefix, row, key)) = group.first() else { continue };
        if is_cut && prefix.len() < row.ck.len() {
            let (issuer, id, _) = read_patient_ck(&row.ck).map_err(malformed)?;
            let pk = patients_pk(&key.tenant, &patient_bucket(&PatientIdentity { issuer, id }));
            let mut pages = walk.rows.pages(PATIENTS, pk, prefix_range(prefix));
            while let Some(page) = pages.next().await? {
                add_rows(walk, &page, &mut patients).await?;
            }
            after = crate::rows::after_prefix(prefix);
        } else {
            for ((_, row, key), state) in group.iter().zip(states) {
                if let Some(state) = state {
                    add(walk, row, key, &state.now, &mut patients).await?;
                }
            }
        }
        groups.push(patients.into_values().collect());
    }
    Ok((groups, after))
}

fn packed_length(study: &Uid) -> usize {
    let mut packed = Vec::new();
    cairn_archive::index_rows::pack_uid(&mut packed, study.as_str());
    packed.len()
}

async fn add_rows(
    walk: &Walk,
    rows: &[cairn_store_api::Row],
    patients: &mut BTreeMap<Patient, Merged>,
) -> Result<(), Error> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let (_, _, study) = read_patient_ck(&row.ck).map_err(malformed)?;
        keys.push(StudyKey { tenant: walk.tenant.clone(), study_instance_uid: study.to_string() });
    }
    for ((row, key), state) in rows.iter().zip(&keys).zip(walk.rows.studies(&keys).await?) {
        if let Some(state) = state {
            add(walk, row, key, &state.now, patients).await?;
        }
    }
    Ok(())
}

/// Adds a study to its patient. Its row is a hint: the study must say that it is this patient's.
async fn add(
    walk: &Walk,
    row: &cairn_store_api::Row,
    key: &StudyKey,
    state: &StudyState,
    patients: &mut BTreeMap<Patient, Merged>,
) -> Result<(), Error> {
    let patient = Patient::of(key, state);
    let own = patient_ck(&patient.identity, &key.study_instance_uid);
    if state.shown == 0 || own != row.ck {
        return Ok(());
    }
    let merged = patients.entry(patient).or_default();
    merged.add(state);
    merged.matches |= walk.checks_nothing();
    if !merged.matches {
        let view = walk.study_view(key, state).await?;
        merged.matches = view.matches(&walk.plan.study) && walk.matches_below(key, &view).await?;
    }
    Ok(())
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

async fn give(walk: &Walk, wanted: &Wanted, patient: Patient, out: &mut Out) -> Result<(), Ended> {
    let mut merged = Merged::default();
    let mut studies = StudiesOf::new(&walk.rows, &walk.tenant, patient);
    while let Some(page) = studies.next().await? {
        page.iter().for_each(|(_, state)| merged.add(state));
    }
    out.give(|| answer(wanted, &walk.plan.study, &[&merged.set()])).await
}

/// A patient's attributes, of each the earliest in event order among all studies; counts; whether a study matches.
#[derive(Default)]
struct Merged {
    earliest: BTreeMap<Tag, Variant>,
    counts: [u64; 3],
    matches: bool,
}

impl Merged {
    fn add(&mut self, state: &StudyState) {
        let [studies, series, instances] = self.counts;
        self.counts = [studies + 1, series + state.series, instances + state.shown];
        let mut last = None;
        for variant in state.attributes.variants() {
            // The first of each attribute is the study's.
            let first = last.replace(variant.tag) != Some(variant.tag);
            if first && level_of(variant.tag) == Level::Patient && !variant.tag.is_private() {
                let known = self.earliest.get(&variant.tag);
                if known.is_none_or(|known| variant.order < known.order) {
                    self.earliest.insert(variant.tag, variant.clone());
                }
            }
        }
    }

    fn set(&self) -> DataSet {
        let mut set = Attributes::decode(self.earliest.values());
        set.put(tags::INSTANCE_AVAILABILITY, Vr::CS, Value::Text(vec!["ONLINE".to_owned()]));
        for (tag, count) in COUNTS.into_iter().zip(self.counts) {
            set.put(tag, Vr::IS, Value::Text(vec![count.to_string()]));
        }
        set
    }
}
