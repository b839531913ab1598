//! What keys are checked against: a study, a series, an instance as data sets.

use crate::{
    fold::{Attributes, PatientIdentity, SeriesState, StudyKey, StudyState, Version, default_character_set, select},
    patients::{Applied, identity_elements},
};
use cairn_dicom::{
    Tag, Vr,
    dataset::{DataSet, Value},
    matching::{Key, Keys},
    tags,
};
use std::collections::BTreeSet;

/// Attributes of one entity: those that count, and in further data sets what else instances say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// What counts, computed attributes included.
    pub set: DataSet,
    /// The same with each disagreement's second, third, ... value, and as it was before facts about patients were applied.
    others: Vec<DataSet>,
    /// Whether the patient is another than instances say.
    is_told_of: bool,
    /// PatientID and IssuerOfPatientID of everybody who is the same patient, each by itself.
    identities: Vec<DataSet>,
}

impl View {
    /// A view without disagreements.
    pub fn of(set: DataSet) -> Self {
        Self { set, ..Self::default() }
    }

    /// Whether all keys match, each by any of the variants.
    pub fn matches(&self, keys: &Keys) -> bool {
        if keys.matches(&self.set) || self.others.is_empty() && self.identities.is_empty() {
            return keys.matches(&self.set);
        }
        let all = || std::iter::once(&self.set).chain(&self.others);
        let alone = |only: Keys| Keys { query_offset: keys.query_offset, assumed_offset: keys.assumed_offset, ..only };
        let one = |key: &Key| alone(Keys { keys: vec![key.clone()], ..Keys::default() });
        let is_whose = |key: &&Key| !self.identities.is_empty() && is_identity(key.tag);
        let mut rest = keys.keys.iter().filter(|key| !is_whose(key)).map(one);
        rest.all(|key| all().any(|set| key.matches(set)))
            && keys
                .combined
                .iter()
                .map(|pair| alone(Keys { combined: vec![*pair], ..Keys::default() }))
                .all(|pair| all().any(|set| pair.matches(set)))
            && self.is_asked_for(&keys.keys.iter().filter(is_whose).map(one).collect::<Vec<_>>())
    }

    /// Whether keys of PatientID and its issuer match: of somebody who is the same patient both do, so that no ID is taken for that
    /// of another issuer.
    fn is_asked_for(&self, keys: &[Keys]) -> bool {
        let of_instances = || (!self.is_told_of).then_some(&self.set).into_iter().chain(&self.others);
        keys.iter().all(|key| of_instances().any(|set| key.matches(set)))
            || self.identities.iter().any(|identity| keys.iter().all(|key| key.matches(identity)))
    }

    /// Applies what facts about patients say: that counts, and what instances say still matches.
    pub fn tell(&mut self, applied: &[Applied]) {
        if applied.is_empty() {
            return;
        }
        self.others.insert(0, self.set.clone());
        self.is_told_of = true;
        for element in applied.iter().flat_map(|applied| applied.elements.elements()) {
            match element.value.is_empty() {
                true => drop(self.set.remove(element.tag)),
                false => self.set.put(element.tag, element.vr, element.value.clone()),
            }
        }
    }

    /// Adds somebody who is the same patient.
    pub fn also(&mut self, patient: &PatientIdentity) {
        self.identities.push(identity_elements(patient));
    }

    /// Lists the patients that this one is linked with (PS3.3 section C.7.1.1).
    pub fn put_linked(&mut self, patients: &[PatientIdentity]) {
        if patients.is_empty() {
            return;
        }
        let known = self.set.items(tags::OTHER_PATIENT_IDS_SEQUENCE).iter().cloned();
        let items = known.chain(patients.iter().map(identity_elements)).collect();
        self.set.put(tags::OTHER_PATIENT_IDS_SEQUENCE, Vr::SQ, Value::Sequence(items));
    }
}

fn is_identity(tag: Tag) -> bool {
    matches!(tag, tags::PATIENT_ID | tags::ISSUER_OF_PATIENT_ID)
}

fn view(attributes: &Attributes) -> View {
    let set = attributes.primary();
    let disagreements: Vec<Tag> = attributes.disagreements().filter(|tag| !tag.is_private()).collect();
    let most = disagreements.iter().map(|tag| attributes.of(*tag).len()).max().unwrap_or(1);
    let others = (1..most).map(|at| {
        let mut other = set.clone();
        for tag in &disagreements {
            let variant = attributes.of(*tag).get(at).map(|variant| Attributes::decode([variant]));
            if let Some(element) = variant.as_ref().and_then(|set| set.get(*tag)) {
                other.put(*tag, element.vr, element.value.clone());
            }
        }
        other
    });
    View { others: others.collect(), set, ..View::default() }
}

impl View {
    fn put(&mut self, tag: Tag, vr: Vr, value: &Value) {
        std::iter::once(&mut self.set).chain(&mut self.others).for_each(|set| set.put(tag, vr, value.clone()));
    }

    /// Puts a count.
    pub fn put_count(&mut self, tag: Tag, count: u64) {
        self.put(tag, Vr::IS, &Value::Text(vec![count.to_string()]));
    }

    /// Puts where instances are: ONLINE, NEARLINE or OFFLINE (PS3.3 section C.4.23.1.1, edition 2025c).
    pub fn put_availability(&mut self, availability: &str) {
        self.put(tags::INSTANCE_AVAILABILITY, Vr::CS, &Value::Text(vec![availability.to_owned()]));
    }

    fn put_set(&mut self, tag: Tag, vr: Vr, set: &BTreeSet<String>) {
        if !set.is_empty() {
            self.put(tag, vr, &Value::Text(set.iter().cloned().collect()));
        }
    }
}

/// A study: patient- and study-level attributes and those computed from the study alone.
pub fn study_view(key: &StudyKey, state: &StudyState) -> View {
    let mut view = view(&state.attributes);
    view.put(tags::STUDY_INSTANCE_UID, Vr::UI, &Value::Text(vec![key.study_instance_uid.clone()]));
    view.put_availability("ONLINE");
    view.put_set(tags::MODALITIES_IN_STUDY, Vr::CS, &state.modalities);
    view.put_set(tags::SOP_CLASSES_IN_STUDY, Vr::UI, &state.sop_classes);
    view.put_count(tags::NUMBER_OF_STUDY_RELATED_SERIES, state.series);
    view.put_count(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, state.shown);
    view
}

/// A series; it is at the offset from UTC of its study.
pub fn series_view(series_instance_uid: &str, state: &SeriesState, study: &DataSet) -> View {
    let mut view = view(&state.attributes);
    view.put(tags::SERIES_INSTANCE_UID, Vr::UI, &Value::Text(vec![series_instance_uid.to_owned()]));
    view.put_count(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, state.shown);
    if let Some(offset) = study.get(tags::TIMEZONE_OFFSET_FROM_UTC) {
        view.put(offset.tag, offset.vr, &offset.value);
    }
    view
}

/// An instance: the attributes of its header that are wanted. It can be had in the transfer syntax it is stored in, which
/// Available Transfer Syntax UID names, whatever its header says.
pub fn instance_view(sop_instance_uid: &str, version: &Version, header: &[u8], wanted: impl Fn(Tag) -> bool) -> View {
    // Where it is, no header knows.
    let wanted = |tag| tag == tags::TIMEZONE_OFFSET_FROM_UTC || tag != tags::INSTANCE_AVAILABILITY && wanted(tag);
    let mut set = select(header, default_character_set(&version.default_character_set), wanted);
    if !version.time_zone.is_empty() && set.text(tags::TIMEZONE_OFFSET_FROM_UTC).is_none() {
        set.put_text(tags::TIMEZONE_OFFSET_FROM_UTC, &version.time_zone);
    }
    set.put_text(tags::SOP_INSTANCE_UID, sop_instance_uid);
    set.put_text(tags::SOP_CLASS_UID, &version.sop_class_uid);
    set.put_text(tags::AVAILABLE_TRANSFER_SYNTAX_UID, &version.transfer_syntax_uid);
    View::of(set)
}
