//! Facts about patients, resolved for whoever asks, as far as is asked.

use crate::{
    project::next_bucket,
    rows::{Rows, malformed, prefix_range},
};
use bytes::Bytes;
use cairn_archive::{
    EventId,
    correction::InForce,
    fold::{Corrections, Identity, PatientIdentity, StudyState, Version},
    index_rows::{
        FactRow, PATIENT_FACTS, PATIENT_LISTS,
        access::{BucketList, Kind, Token, exact},
        bucket_of_patient, decode_patient, decode_patient_fact, patient_facts_pk, patient_prefix,
    },
    patients::Resolution,
    plan::{Lists, Others, Otherwise, lists_of_patients},
};
use cairn_dicom::{
    Tag,
    dataset::DataSet,
    matching::{MatchOptions, UnusableKey},
    tags,
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::CkRange;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Identities that facts tie to one patient at most. Ingest refuses to tie more than a fraction of it.
const TIED_MAX: usize = 16_384;
/// Patients of whom it is remembered what is said of them.
const REMEMBERED_MAX: usize = 4_096;
/// Patients whom facts make match a key, and IDs of theirs, that are looked for one by one; with more, the key leads nowhere.
const OTHERS_MAX: usize = 512;

/// Facts about the patients of a tenant.
pub(crate) struct People {
    rows: Rows,
    tenant: String,
    /// Buckets in which there are some.
    buckets: HashSet<u8>,
    resolved: Mutex<HashMap<PatientIdentity, Option<Arc<Resolution>>>>,
}

impl People {
    /// Looks where there are any: mostly nowhere, and then nothing is ever looked up.
    pub(crate) async fn open(rows: &Rows, tenant: &str) -> Result<Self, Error> {
        let (mut buckets, mut last): (HashSet<u8>, Option<Bytes>) = (HashSet::new(), None);
        while let Some(next) = next_bucket(rows, BucketList::PatientFacts, tenant, last.as_ref()).await? {
            buckets.extend(next.first());
            last = Some(next);
        }
        Ok(Self { rows: rows.clone(), tenant: tenant.to_owned(), buckets, resolved: Mutex::default() })
    }

    /// Whether nothing is said of anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// What is said of a patient, and of all that are tied to it; `None`: nothing.
    pub(crate) async fn of(&self, patient: &PatientIdentity) -> Result<Option<Arc<Resolution>>, Error> {
        let patient = patient.trimmed();
        if patient.id.is_empty() || !self.buckets.contains(&bucket_of_patient(&patient)) {
            return Ok(None);
        }
        let known = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&patient) {
            return Ok(found.clone());
        }
        let facts = self.facts(&patient).await?;
        let found = (!facts.is_empty()).then(|| Arc::new(Resolution::of(facts.into_values().map(|row| row.fact))));
        let mut known = known();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(patient, found.clone());
        Ok(found)
    }

    /// All facts about a patient and whom they tie to it.
    pub(crate) async fn facts(&self, patient: &PatientIdentity) -> Result<BTreeMap<EventId, FactRow>, Error> {
        let (mut facts, mut seen, mut left) = (BTreeMap::new(), HashSet::new(), vec![patient.trimmed()]);
        while let Some(patient) = left.pop() {
            if !seen.insert(patient.clone()) {
                continue;
            }
            if seen.len() > TIED_MAX {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "more identities are tied together than can be one patient's",
                ));
            }
            let bucket = bucket_of_patient(&patient);
            if !self.buckets.contains(&bucket) {
                continue;
            }
            let pk = patient_facts_pk(&self.tenant, bucket);
            let mut pages = self.rows.pages(PATIENT_FACTS, pk, prefix_range(&patient_prefix(&patient)));
            while let Some(page) = pages.next().await? {
                for row in page {
                    let row = decode_patient_fact(&row.value).map_err(malformed)?;
                    left.extend(row.patients());
                    facts.insert(row.fact.order.id, row);
                }
            }
        }
        Ok(facts)
    }

    /// The buckets of facts, in order.
    pub(crate) fn buckets(&self) -> BTreeSet<u8> {
        self.buckets.iter().copied().collect()
    }

    /// Facts of a bucket, a page at a time, each under the first whom it names.
    pub(crate) async fn facts_of_bucket(
        &self,
        bucket: u8,
        after: Option<Bytes>,
    ) -> Result<(Vec<FactRow>, Option<Bytes>), Error> {
        let range = CkRange { from: after, to: None };
        let pk = patient_facts_pk(&self.tenant, bucket);
        let page = self.rows.scan(PATIENT_FACTS, &pk, &range, self.rows.page).await?;
        let next = page.rows.last().filter(|_| page.more).map(|last| crate::rows::successor(&last.ck));
        let mut facts = Vec::new();
        for row in page.rows {
            let fact = decode_patient_fact(&row.value).map_err(malformed)?;
            let is_first = |first: &PatientIdentity| row.ck.starts_with(&patient_prefix(first));
            if fact.patients().first().is_some_and(is_first) {
                facts.push(fact);
            }
        }
        Ok((facts, next))
    }

    /// Whom facts name that stand in one of some lists; `None`: too many.
    async fn in_lists(&self, tokens: &[&Token]) -> Result<Option<BTreeSet<PatientIdentity>>, Error> {
        let mut found = BTreeSet::new();
        for token in tokens {
            let mut pages = self.rows.pages(PATIENT_LISTS, token.pk(&self.tenant, None), CkRange::default());
            while let Some(page) = pages.next().await? {
                for row in page {
                    found.insert(decode_patient(&row.value).map_err(malformed)?);
                }
                if found.len() > OTHERS_MAX {
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    }

    /// Whom facts make match keys of a query.
    ///
    /// # Errors
    /// `Invalid` (`UnusableKey`), those of the store.
    pub(crate) async fn otherwise(&self, identifier: &DataSet, options: &MatchOptions) -> Result<Otherwise, Unplanned> {
        let mut otherwise = Otherwise::new();
        if self.is_empty() {
            return Ok(otherwise);
        }
        for (tag, lists) in lists_of_patients(identifier, options)? {
            let others = self.others(&lists, tag == tags::PATIENT_ID).await?;
            if others != Others::Ids(BTreeSet::new()) {
                otherwise.insert(tag, others);
            }
        }
        Ok(otherwise)
    }

    /// IDs of all who are one patient with somebody in all of some lists.
    async fn others(&self, lists: &[Lists], linked_too: bool) -> Result<Others, Error> {
        let mut found = None;
        for list in lists {
            found = self.in_lists(&list.some_tokens()).await?;
            if found.is_some() {
                break;
            }
        }
        let Some(found) = found else { return Ok(Others::Anybody) };
        let mut ids = BTreeSet::new();
        for patient in found {
            let Some(resolution) = self.of(&patient).await? else { continue };
            let linked = if linked_too { resolution.linked(&patient) } else { Vec::new() };
            for patient in std::iter::once(patient).chain(linked) {
                ids.extend(resolution.members(&patient).into_iter().map(|member| member.id));
            }
            if ids.len() > OTHERS_MAX {
                return Ok(Others::Anybody);
            }
        }
        Ok(Others::Ids(ids))
    }

    /// Everybody who is one patient with somebody of this ID, of the issuer or of any.
    pub(crate) async fn named(&self, id: &str, issuer: Option<&str>) -> Result<BTreeSet<PatientIdentity>, Error> {
        let mut named = BTreeSet::new();
        if self.is_empty() {
            return Ok(named);
        }
        let token = Token::new(Kind::PatientId, exact(id));
        let found = self.in_lists(&[&token]).await?;
        let too_many = || Error::new(ErrorKind::Invalid, "too many patients have this ID: name its issuer");
        for patient in found.ok_or_else(too_many)? {
            let is_meant = patient.id == id.trim() && issuer.is_none_or(|issuer| issuer.trim() == patient.issuer);
            if let (true, Some(resolution)) = (is_meant, self.of(&patient).await?) {
                named.extend(resolution.members(&patient));
            }
        }
        Ok(named)
    }

    /// What is said of the patients of a study.
    pub(crate) async fn of_study(&self, state: &StudyState) -> Result<PeopleOfStudy, Error> {
        let mut of = PeopleOfStudy::default();
        if self.is_empty() {
            return Ok(of);
        }
        let patients = state.patients();
        of.is_one = patients.len() == 1;
        for patient in patients {
            if let Some(resolution) = self.of(&patient).await? {
                of.of.push((patient, resolution));
            }
        }
        Ok(of)
    }
}

/// Why a query can't be planned.
pub(crate) enum Unplanned {
    /// A key can't be used.
    Unusable(UnusableKey),
    /// The store's.
    Failed(Error),
}

impl From<UnusableKey> for Unplanned {
    fn from(key: UnusableKey) -> Self {
        Self::Unusable(key)
    }
}

impl From<Error> for Unplanned {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What is said of the patients whom instances of a study name; those of whom nothing is said are not among them.
#[derive(Clone, Default)]
pub(crate) struct PeopleOfStudy {
    of: Vec<(PatientIdentity, Arc<Resolution>)>,
    /// Whether the study's instances name one patient.
    is_one: bool,
}

impl PeopleOfStudy {
    /// Whether nothing is said of anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The patients and what is said of each, in event order of the instances that name them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(PatientIdentity, Arc<Resolution>)> {
        self.of.iter()
    }

    /// The texts that facts give an attribute of these patients, of each patient the last.
    pub(crate) fn said(&self, tag: Tag) -> impl Iterator<Item = String> {
        let of = |(patient, resolution): &(PatientIdentity, Arc<Resolution>)| {
            let applied = resolution.applied(&patient.trimmed());
            applied.iter().rev().find_map(|applied| applied.elements.text(tag).map(str::to_owned))
        };
        self.of.iter().filter_map(of).collect::<Vec<_>>().into_iter()
    }

    /// What a version is given out with: corrections first, which say whose it is, then what is said of that patient.
    pub(crate) fn in_force(
        &self,
        corrections: &Corrections,
        identity: &Identity,
        version: &Version,
        header: &Bytes,
    ) -> Vec<InForce> {
        let mut in_force = corrections.in_force(identity, version);
        if !self.is_empty() {
            let corrected = corrections.apply(identity, version, header.clone());
            let named = corrections.patient(identity, version, &corrected);
            // One whose header is too large to be here is of the patient of whom the others are.
            let is_the_one = header.is_empty() && self.is_one;
            let said = self.of.iter().find(|(patient, _)| is_the_one || named.as_ref() == Some(patient));
            in_force.extend(
                said.iter().flat_map(|(patient, resolution)| {
                    resolution.in_force(&patient.trimmed(), &version.calling_ae_title)
                }),
            );
        }
        in_force
    }
}
