//! What is kept per series and per study.

use super::{Attributes, Corrections, Places, Stamp, extract::PATIENT_IDENTITY};
use crate::digest::{FOLD_VERSION, HashSum, Leaf};
use cairn_dicom::tags;
use std::collections::BTreeSet;

/// Different modalities and SOP Classes of a study that are kept: the smallest ones, so that order of arrival does not
/// matter.
pub const DISTINCT_MAX: usize = 256;
/// Different senders, institutions and body parts that are kept likewise.
const DESCRIBED_MAX: usize = 32;

/// A study's name: whose it is, and its Study Instance UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StudyKey {
    /// Tenant.
    pub tenant: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
}

/// Who a patient is. Without an ID a patient is of its own study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PatientIdentity {
    /// Issuer of Patient ID that applies; empty if none is known.
    pub issuer: String,
    /// Patient ID; empty if there is none.
    pub id: String,
}

impl PatientIdentity {
    /// Without the spaces around either, which mean nothing (PS3.5 section 6.2, LO).
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let trim = |text: &str| text.trim_matches([' ', '\0']).to_owned();
        Self { issuer: trim(&self.issuer), id: trim(&self.id) }
    }
}

/// The chunks of a series' headers that are not sealed yet. Local: layout is no part of the canonical state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpenChunks {
    /// Stamp of the first open chunk.
    pub from: Stamp,
    /// Chunks.
    pub chunks: u32,
    /// Headers in them.
    pub headers: u32,
    /// Bytes of them, uncompressed.
    pub bytes: u32,
}

/// A series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesState {
    /// Series-level attributes of the shown instances.
    pub attributes: Attributes,
    /// Shown instances.
    pub shown: u64,
    /// Versions, shown or not.
    pub versions: u64,
    /// Headers not sealed yet.
    pub open: OpenChunks,
}

impl SeriesState {
    /// Hash of the canonical state.
    pub fn hash(&self, series_instance_uid: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(series_instance_uid.len() as u64).to_le_bytes()).update(series_instance_uid.as_bytes());
        hasher.update(&self.shown.to_le_bytes()).update(&self.versions.to_le_bytes());
        self.attributes.hash(&mut hasher);
        *hasher.finalize().as_bytes()
    }
}

/// A study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyState {
    /// Patient- and study-level attributes of the shown instances.
    pub attributes: Attributes,
    /// Series with a shown instance.
    pub series: u64,
    /// Shown instances.
    pub shown: u64,
    /// Versions, shown or not.
    pub versions: u64,
    /// Instances of which every version is rejected.
    pub hidden: u64,
    /// Corrections of attributes; those above are as they are corrected.
    pub corrections: Corrections,
    /// Modalities of the shown instances.
    pub modalities: BTreeSet<String>,
    /// SOP Classes of the shown instances.
    pub sop_classes: BTreeSet<String>,
    /// Calling AE titles of the senders of the shown instances.
    pub senders: BTreeSet<String>,
    /// InstitutionName of the shown instances.
    pub institutions: BTreeSet<String>,
    /// BodyPartExamined of the shown instances.
    pub body_parts: BTreeSet<String>,
    /// Bytes of the objects of all versions, shown or not.
    pub bytes: u64,
    /// When something of it was received last, at whichever site, be it again or erased since: milliseconds since the Unix
    /// epoch by the clock of the order of events. 0: not known.
    pub received_at_ms: u64,
    /// E: sum over the folded events.
    pub events: HashSum,
    /// Sum of the hashes of what is known per identity, of repeats and of closed receipts.
    pub facts: HashSum,
    /// Sum of the hashes of the series.
    pub series_hashes: HashSum,
    /// In which of its object stores each site has it. Local: no part of the canonical state.
    pub places: Places,
}

impl StudyState {
    /// S: hash of the canonical state.
    pub fn hash(&self, key: &StudyKey) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FOLD_VERSION.to_le_bytes());
        for text in [&key.tenant, &key.study_instance_uid].into_iter().chain(&self.modalities).chain(&self.sop_classes)
        {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        for set in [&self.senders, &self.institutions, &self.body_parts] {
            hasher.update(&(set.len() as u64).to_le_bytes());
            for text in set {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        for count in [self.series, self.shown, self.versions, self.hidden, self.bytes, self.received_at_ms] {
            hasher.update(&count.to_le_bytes());
        }
        hasher.update(&self.facts.to_bytes()).update(&self.series_hashes.to_bytes());
        self.attributes.hash(&mut hasher);
        self.corrections.hash(&mut hasher);
        *hasher.finalize().as_bytes()
    }

    /// What the study adds to its leaf.
    pub fn leaf(&self, key: &StudyKey) -> Leaf {
        let mut leaf =
            Leaf { events: self.events, studies: 1, series: self.series, instances: self.shown, ..Leaf::default() };
        leaf.state.add(&self.hash(key));
        leaf
    }

    /// The patients that instances name, in event order; the first is the study's.
    pub fn patients(&self) -> Vec<PatientIdentity> {
        let identity = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let (issuer, id) = text.split_once('\0').unwrap_or(("", &text));
            PatientIdentity { issuer: issuer.to_owned(), id: id.to_owned() }
        };
        self.attributes.of(PATIENT_IDENTITY).iter().map(|variant| identity(&variant.element)).collect()
    }

    /// The patient that the study belongs to; the default when no instance has an ID.
    pub fn patient(&self) -> PatientIdentity {
        self.patients().into_iter().next().unwrap_or_default()
    }

    /// Study Date and Study Time that count, as they order answers.
    pub fn sort_key(&self) -> SortKey {
        let date = self.attributes.first_text(tags::STUDY_DATE).and_then(sort_date);
        let time = self.attributes.first_text(tags::STUDY_TIME).and_then(sort_time);
        SortKey { date, time }
    }

    /// Keeps the smallest [`DISTINCT_MAX`].
    pub(crate) fn insert_distinct(set: &mut BTreeSet<String>, text: &str) {
        // Nothing longer is a CS or a UI; a row must stay small.
        insert_bounded(set, text, 64, DISTINCT_MAX);
    }

    /// Keeps the smallest 32.
    pub(crate) fn insert_described(set: &mut BTreeSet<String>, text: &str) {
        // An LO has 64 characters at most.
        insert_bounded(set, text, 256, DESCRIBED_MAX);
    }
}

fn insert_bounded(set: &mut BTreeSet<String>, text: &str, bytes_max: usize, max: usize) {
    if text.is_empty() || text.len() > bytes_max || set.contains(text) {
        return;
    }
    set.insert(text.to_owned());
    if set.len() > max {
        set.pop_last();
    }
}

/// Study Date as `YYYYMMDD` and Study Time in microseconds, where they are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct SortKey {
    /// Date.
    pub date: Option<u32>,
    /// Time.
    pub time: Option<u64>,
}

/// The first day that a date can mean.
pub fn sort_date(text: &str) -> Option<u32> {
    cairn_dicom::temporal::Date::parse(text).map(|period| period.first.as_number())
}

/// The first instant that a time can mean.
pub fn sort_time(text: &str) -> Option<u64> {
    cairn_dicom::temporal::Time::parse(text).map(|period| period.first.micros())
}
