//! Patients: what their studies add, merged at read time.

use super::run::{Out, Walk};
use crate::{
    answering::Ended,
    project::next_bucket,
    rows::{Pages, Rows, after_prefix, malformed, prefix_range, successor},
};
use bytes::Bytes;
use cairn_archive::{
    fold::{Attributes, PatientIdentity, StudyKey, StudyState, Variant},
    index_rows::{
        PATIENTS, PatientPart, RowError, Text,
        access::{BucketList, patient_bucket, patient_ck, patients_pk},
        pack_uid, read_patient_ck,
    },
    patients::Resolution,
    plan::{View, Wanted, answer},
};
use cairn_dicom::{
    Tag, Vr,
    dataset::{DataSet, Value},
    tags,
};
use cairn_service_api::Error;
use cairn_store_api::{CkRange, Page, Row};
use std::collections::{BTreeMap, BTreeSet};

/// A patient: by issuer and ID; without an ID by its study. They are ordered as their rows are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Patient {
    identity: PatientIdentity,
    /// The study of a patient without ID.
    study: Option<String>,
}

impl Patient {
    fn new(identity: PatientIdentity, study: &str) -> Self {
        let study = identity.id.is_empty().then(|| study.to_owned());
        Self { identity, study }
    }

    fn of(key: &StudyKey, state: &StudyState) -> Self {
        Self::new(state.patient(), &key.study_instance_uid)
    }
}

/// Patients of rows, and what the study of each row adds. A row that is not exact is a hint: the study's own row says whose
/// it is.
async fn parts(rows: &Rows, tenant: &str, page: &[Row]) -> Result<Vec<(Patient, PatientPart)>, Error> {
    if rows.are_exact() && page.iter().all(|row| !row.value.is_empty()) {
        let part = |row: &Row| {
            let part = PatientPart::decode(&row.ck, &row.value)?;
            // Only a patient without ID is its study's.
            let patient = match part.identity.id.is_empty() {
                true => Patient::new(part.identity.clone(), read_patient_ck(&row.ck)?.2.as_str()),
                false => Patient { identity: part.identity.clone(), study: None },
            };
            Ok::<_, RowError>((patient, part))
        };
        return page.iter().map(part).collect::<Result<_, _>>().map_err(malformed);
    }
    let states = states(rows, tenant, page).await?;
    Ok(states.into_iter().map(|(key, state)| (Patient::of(&key, &state), PatientPart::of(&state))).collect())
}

/// States of the studies that rows lead to, of those that say that they are the patient's.
async fn states(rows: &Rows, tenant: &str, page: &[Row]) -> Result<Vec<(StudyKey, StudyState)>, Error> {
    let mut keys = Vec::with_capacity(page.len());
    for row in page {
        let (_, _, study) = read_patient_ck(&row.ck).map_err(malformed)?;
        keys.push(StudyKey { tenant: tenant.to_owned(), study_instance_uid: study.to_string() });
    }
    let states = rows.studies_now(&keys).await?;
    let found = page.iter().zip(keys).zip(states).filter_map(|((row, key), state)| {
        let state = state?;
        let own = patient_ck(&state.patient(), &key.study_instance_uid);
        (state.shown > 0 && own == row.ck).then_some((key, state))
    });
    Ok(found.collect())
}

/// What the studies of one patient add, a page at a time.
struct PartsOf<'a> {
    pages: Pages,
    rows: &'a Rows,
    tenant: &'a str,
    patient: Patient,
}

impl<'a> PartsOf<'a> {
    fn new(rows: &'a Rows, tenant: &'a str, patient: Patient) -> Self {
        let (pk, prefix) = rows_of(tenant, &patient);
        Self { pages: rows.pages(PATIENTS, pk, prefix_range(&prefix)), rows, tenant, patient }
    }

    /// The next ones; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<PatientPart>>, Error> {
        let Some(page) = self.pages.next().await? else { return Ok(None) };
        let parts = parts(self.rows, self.tenant, &page).await?.into_iter();
        Ok(Some(parts.filter(|(patient, _)| *patient == self.patient).map(|(_, part)| part).collect()))
    }
}

/// Counts over the studies of everybody who is one patient: studies, series, instances.
async fn counts(walk: &Walk, patient: &Patient) -> Result<[u64; 3], Error> {
    let mut counts = [0; 3];
    for member in walk.members(patient).await? {
        let mut studies = PartsOf::new(&walk.rows, &walk.tenant, member);
        while let Some(parts) = studies.next().await? {
            for part in parts {
                counts = [counts[0] + 1, counts[1] + part.series, counts[2] + part.instances];
            }
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
pub(crate) async fn count(walk: &Walk, key: &StudyKey, state: &StudyState, view: &mut View) -> Result<(), Error> {
    let counts = counts(walk, &Patient::of(key, state)).await?;
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
            let (patients, after) = patients_of(&walk, &pk, page).await?;
            for (patient, merged) in patients.iter() {
                match walk.people.of(&patient.identity).await? {
                    None if merged.matches => {
                        out.give(|| Ok(answer(wanted, &walk.plan.study, &[&merged.set()?]))).await?;
                    }
                    Some(_) if is_first_that_matches(&walk, patient, merged.matches).await? => {
                        give(&walk, wanted, patient.clone(), out).await?;
                    }
                    _ => {}
                }
                if out.is_full() {
                    return Ok(());
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

/// Whether a patient is the first, in the order of rows, of those who are one patient and of whom a study matches: of them all one
/// answer is given, in its place.
async fn is_first_that_matches(walk: &Walk, patient: &Patient, matches: bool) -> Result<bool, Error> {
    if !matches {
        return Ok(false);
    }
    for member in walk.members(patient).await? {
        if place(&member) < place(patient) && some_study_matches(walk, &member).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where a patient's rows stand.
fn place(patient: &Patient) -> (Bytes, &Patient) {
    (patient_bucket(&patient.identity), patient)
}

async fn some_study_matches(walk: &Walk, patient: &Patient) -> Result<bool, Error> {
    let (pk, prefix) = rows_of(&walk.tenant, patient);
    let mut pages = walk.rows.pages(PATIENTS, pk, prefix_range(&prefix));
    while let Some(page) = pages.next().await? {
        for (key, state) in states(&walk.rows, &walk.tenant, &page).await? {
            if Patient::of(&key, &state) == *patient && matches(walk, key, state).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Partition key and beginning of the clustering keys of a patient's rows.
fn rows_of(tenant: &str, patient: &Patient) -> (Bytes, Bytes) {
    let mut prefix = Vec::new();
    Text(&patient.identity.issuer).append(&mut prefix);
    Text(&patient.identity.id).append(&mut prefix);
    if let Some(study) = &patient.study {
        pack_uid(&mut prefix, study);
    }
    (patients_pk(tenant, &patient_bucket(&patient.identity)), prefix.into())
}

impl Walk {
    /// Everybody who is one patient with this one, itself included.
    async fn members(&self, patient: &Patient) -> Result<BTreeSet<Patient>, Error> {
        let mut members = BTreeSet::from([patient.clone()]);
        if let Some(resolution) = self.people.of(&patient.identity).await? {
            let named = resolution.members(&patient.identity.trimmed()).into_iter();
            members.extend(named.map(|identity| Patient { identity, study: None }));
        }
        Ok(members)
    }

    /// The patient whose this one's studies are.
    async fn survivor(&self, patient: Patient) -> Result<Patient, Error> {
        Ok(match self.people.of(&patient.identity).await? {
            Some(resolution) => {
                let identity = resolution.survivor(&patient.identity.trimmed()).clone();
                Patient { identity, study: None }
            }
            None => patient,
        })
    }
}

/// Patients of a page of rows, in order; and where to go on, if there is more. A patient whose rows go beyond the page is
/// gone through whole.
async fn patients_of(walk: &Walk, pk: &Bytes, page: Page) -> Result<(BTreeMap<Patient, Merged>, Option<Bytes>), Error> {
    let mut patients = BTreeMap::new();
    let Page { rows, more } = page;
    let Some(last) = rows.last().filter(|_| more) else {
        add(walk, &rows, &mut patients).await?;
        return Ok((patients, None));
    };
    let (_, id, study) = read_patient_ck(&last.ck).map_err(malformed)?;
    if id.is_empty() {
        // A patient without ID is its study's alone.
        add(walk, &rows, &mut patients).await?;
        return Ok((patients, Some(successor(&last.ck))));
    }
    let mut packed = Vec::new();
    pack_uid(&mut packed, study.as_str());
    let prefix = last.ck.slice(..last.ck.len().saturating_sub(packed.len()));
    let whole = rows.partition_point(|row| row.ck < prefix);
    add(walk, rows.get(..whole).unwrap_or_default(), &mut patients).await?;
    let mut pages = walk.rows.pages(PATIENTS, pk.clone(), prefix_range(&prefix));
    while let Some(rows) = pages.next().await? {
        add(walk, &rows, &mut patients).await?;
    }
    Ok((patients, after_prefix(&prefix)))
}

/// Adds what studies say of their patients.
async fn add(walk: &Walk, rows: &[Row], patients: &mut BTreeMap<Patient, Merged>) -> Result<(), Error> {
    if walk.checks_nothing() {
        for (patient, part) in parts(&walk.rows, &walk.tenant, rows).await? {
            let merged = patients.entry(patient).or_default();
            merged.add(part)?;
            merged.matches = true;
        }
        return Ok(());
    }
    for (key, state) in states(&walk.rows, &walk.tenant, rows).await? {
        let merged = patients.entry(Patient::of(&key, &state)).or_default();
        merged.add(PatientPart::of(&state))?;
        if !merged.matches {
            merged.matches = matches(walk, key, state).await?;
        }
    }
    Ok(())
}

/// Whether the study, and something below it, matches.
async fn matches(walk: &Walk, key: StudyKey, state: StudyState) -> Result<bool, Error> {
    let Some(study) = walk.see(key, state).await? else { return Ok(false) };
    let matches = study.view.matches(&walk.plan.study) && walk.is_where_asked(&study, &study.view);
    Ok(matches && walk.matches_below(&study).await?)
}

/// Patients of the studies that match, in order; gone through again where they are too many to hold.
async fn found(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    let mut after: Option<Patient> = None;
    loop {
        let mut held: BTreeMap<Patient, ()> = BTreeMap::new();
        let mut more = false;
        let mut studies = walk.begin(64).await?;
        while let Some((key, state)) = studies.next().await? {
            let patient = walk.survivor(Patient::of(&key, &state)).await?;
            if after.as_ref().is_some_and(|after| patient <= *after) || held.contains_key(&patient) {
                continue;
            }
            if matches(&walk, key, state).await? {
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
    if out.passes_over() {
        return Ok(());
    }
    let set = match walk.people.of(&patient.identity).await? {
        Some(resolution) => of_several(walk, &patient, &resolution).await?,
        None => gather(walk, patient).await?.set()?,
    };
    out.put(answer(wanted, &walk.plan.study, &[&set])).await
}

/// What the studies of one patient, as instances name it, say.
async fn gather(walk: &Walk, patient: Patient) -> Result<Merged, Error> {
    let mut merged = Merged::default();
    let mut studies = PartsOf::new(&walk.rows, &walk.tenant, patient);
    while let Some(parts) = studies.next().await? {
        parts.into_iter().try_for_each(|part| merged.add(part))?;
    }
    Ok(merged)
}

/// A patient of whom something is said: counts are over the studies of all who are the same. Of its attributes those count that the
/// surviving patient's own studies say, else those of the first who was merged, with what is said of that one.
async fn of_several(walk: &Walk, patient: &Patient, resolution: &Resolution) -> Result<DataSet, Error> {
    let survivor = walk.survivor(patient.clone()).await?;
    let (mut counts, mut told): ([u64; 3], Option<View>) = ([0; 3], None);
    let others = walk.members(patient).await?.into_iter().filter(|member| *member != survivor);
    for member in std::iter::once(survivor.clone()).chain(others) {
        let identity = member.identity.trimmed();
        let merged = gather(walk, member).await?;
        (0..3).zip(merged.counts).for_each(|(at, count): (usize, u64)| {
            counts.get_mut(at).into_iter().for_each(|sum| *sum += count);
        });
        if told.is_none() && merged.counts[0] > 0 {
            let mut view = View::of(merged.set()?);
            view.tell(&resolution.applied(&identity));
            told = Some(view);
        }
    }
    let mut view = told.unwrap_or_default();
    view.put_linked(&resolution.linked(&survivor.identity));
    COUNTS.into_iter().zip(counts).for_each(|(tag, count)| view.put_count(tag, count));
    Ok(view.set)
}

/// A patient's attributes, of each the earliest in event order among all studies; counts; whether a study matches.
#[derive(Default)]
struct Merged {
    /// What studies said alike until now; not among the `earliest` yet.
    alike: Option<PatientPart>,
    earliest: BTreeMap<Tag, Variant>,
    counts: [u64; 3],
    matches: bool,
}

impl Merged {
    fn add(&mut self, part: PatientPart) -> Result<(), Error> {
        let [studies, series, instances] = self.counts;
        self.counts = [studies + 1, series + part.series, instances + part.instances];
        if self.alike.as_mut().is_some_and(|alike| alike.absorb(&part)) {
            return Ok(());
        }
        if let Some(alike) = self.alike.replace(part) {
            Self::tell(&mut self.earliest, &alike)?;
        }
        Ok(())
    }

    fn tell(earliest: &mut BTreeMap<Tag, Variant>, part: &PatientPart) -> Result<(), Error> {
        for variant in part.variants().map_err(malformed)? {
            let known = earliest.get(&variant.tag);
            if known.is_none_or(|known| variant.order < known.order) {
                earliest.insert(variant.tag, variant);
            }
        }
        Ok(())
    }

    fn set(&self) -> Result<DataSet, Error> {
        let mut earliest = self.earliest.clone();
        if let Some(alike) = &self.alike {
            Self::tell(&mut earliest, alike)?;
        }
        let mut set = Attributes::decode(earliest.values());
        set.put(tags::INSTANCE_AVAILABILITY, Vr::CS, Value::Text(vec!["ONLINE".to_owned()]));
        for (tag, count) in COUNTS.into_iter().zip(self.counts) {
            set.put(tag, Vr::IS, Value::Text(vec![count.to_string()]));
        }
        Ok(set)
    }
}
