//! What a study is found by: lists of studies ("postings") by token, each in the order in which studies are answered,
//! so that lists are intersected and united while they are read, and nothing is sorted.
//!
//! A list leads to every study that matches what its token stands for, and perhaps to others: whoever follows it
//! checks the study's row.

use super::{
    BUCKETS, PATIENTS, POSTINGS, PatientPart, RowChange,
    keys::{LENGTH_OF_KEY_MAX, OrderKey, Text, pack_uid},
};
use crate::{
    Partition,
    fold::{Attributes, PatientIdentity, StudyKey, StudyState, sort_date},
};
use bytes::Bytes;
use cairn_dicom::{
    matching::{fold_name, name_words},
    tags,
};

/// Kinds of tokens. Numbers are written down and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Every study; the token is empty.
    All = 0,
    /// A whole Patient ID.
    PatientId = 1,
    /// A whole Accession Number.
    AccessionNumber = 2,
    /// A modality.
    Modality = 3,
    /// The beginning of a component group or of a word of Patient's Name: 1, 2, 3 or 5 characters.
    NameStart = 4,
    /// Three characters in a row within a component group of Patient's Name.
    NameTrigram = 5,
    /// Three characters in a row within Patient ID.
    PatientIdTrigram = 6,
    /// Three characters in a row within Accession Number.
    AccessionNumberTrigram = 7,
    /// Three characters in a row within Study Description.
    DescriptionTrigram = 8,
    /// A date, not the one that orders the study, that some instance says: the month (`YYYYMM`), the year, `?` if it is
    /// none, and always `*`.
    OtherDate = 9,
    /// Every study with an instance of which all is rejected; the token is empty.
    Rejected = 10,
}

impl Kind {
    /// Whether the list is kept in buckets by the year of the study, because it grows with the archive.
    pub fn is_bucketed(self) -> bool {
        matches!(
            self,
            Self::All
                | Self::Modality
                | Self::NameTrigram
                | Self::PatientIdTrigram
                | Self::AccessionNumberTrigram
                | Self::DescriptionTrigram
        )
    }
}

/// Lengths of [`Kind::NameStart`] tokens in characters.
pub const NAME_STARTS: [usize; 4] = [1, 2, 3, 5];

/// A list: what kind of token, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Kind.
    pub kind: Kind,
    /// Text, folded as its kind asks.
    pub text: String,
}

impl Token {
    /// A token of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// The token of every study.
    pub fn all() -> Self {
        Self::new(Kind::All, "")
    }

    /// The token of studies with an instance of which all is rejected.
    pub fn rejected() -> Self {
        Self::new(Kind::Rejected, "")
    }

    /// The list of the beginnings that a longer beginning is among; `None` for the empty one.
    pub fn name_start(start: &str) -> Option<Self> {
        let length = start.chars().count();
        let kept = NAME_STARTS.into_iter().rev().find(|kept| *kept <= length)?;
        Some(Self::new(Kind::NameStart, start.chars().take(kept).collect::<String>()))
    }

    /// Partition key of the list, or of its bucket of a year (`None`: of studies without a date).
    pub fn pk(&self, tenant: &str, year: Option<u16>) -> Bytes {
        let mut pk = Vec::with_capacity(tenant.len() + self.text.len() + 8);
        write_pk(&mut pk, self.kind, tenant, year, &self.text);
        pk.into()
    }
}

fn write_pk(pk: &mut Vec<u8>, kind: Kind, tenant: &str, year: Option<u16>, text: &str) {
    pk.push(kind as u8);
    Text(tenant).append(pk);
    if kind.is_bucketed() {
        pk.extend(year.unwrap_or(u16::MAX).to_be_bytes());
    }
    pk.extend_from_slice(text.as_bytes().get(..LENGTH_OF_KEY_MAX).unwrap_or(text.as_bytes()));
}

/// Whole values are compared as they are, cut as keys are.
pub fn exact(text: &str) -> String {
    let text = text.trim_matches([' ', '\0']);
    let mut end = text.len().min(LENGTH_OF_KEY_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Partition keys of the lists that a study is in, written one after the other into one buffer.
struct Lists<'a> {
    tenant: &'a str,
    year: Option<u16>,
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl Lists<'_> {
    fn add(&mut self, kind: Kind, text: &str) {
        write_pk(&mut self.keys, kind, self.tenant, self.year, text);
        self.ends.push(self.keys.len());
    }

    /// Each run of three characters of a folded text.
    fn add_trigrams(&mut self, kind: Kind, folded: &str) {
        let starts = || folded.char_indices().map(|(at, _)| at).chain([folded.len()]);
        for (start, end) in starts().zip(starts().skip(3)) {
            if let Some(trigram) = folded.get(start..end) {
                self.add(kind, trigram);
            }
        }
    }

    /// The beginnings of a folded group or word.
    fn add_starts(&mut self, folded: &str) {
        let mut length = 0;
        for (at, character) in folded.char_indices() {
            length += 1;
            if NAME_STARTS.contains(&length)
                && let Some(start) = folded.get(..at + character.len_utf8())
            {
                self.add(Kind::NameStart, start);
            }
        }
    }

    fn add_name(&mut self, name: &str) {
        for group in name.split('=').map(fold_name) {
            self.add_trigrams(Kind::NameTrigram, &group);
            self.add_starts(&group);
        }
        name_words(name).iter().for_each(|word| self.add_starts(word));
    }

    /// All keys in order, each once.
    fn into_keys(self) -> Vec<Bytes> {
        let buffer = Bytes::from(self.keys);
        let mut start = 0;
        let slice = |end| buffer.slice(std::mem::replace(&mut start, end)..end);
        let mut keys: Vec<Bytes> = self.ends.into_iter().map(slice).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The lists that a study is in.
fn lists(tenant: &str, state: &StudyState, year: Option<u16>) -> Vec<Bytes> {
    let mut lists = Lists { tenant, year, keys: Vec::with_capacity(2_048), ends: Vec::with_capacity(96) };
    if state.hidden > 0 {
        lists.add(Kind::Rejected, "");
    }
    if state.shown == 0 {
        return lists.into_keys();
    }
    lists.add(Kind::All, "");
    let attributes = &state.attributes;
    for (tag, whole, parts) in [
        (tags::PATIENT_ID, Some(Kind::PatientId), Kind::PatientIdTrigram),
        (tags::ACCESSION_NUMBER, Some(Kind::AccessionNumber), Kind::AccessionNumberTrigram),
        (tags::STUDY_DESCRIPTION, None, Kind::DescriptionTrigram),
    ] {
        for text in attributes.texts(tag) {
            if let Some(kind) = whole {
                lists.add(kind, &exact(text));
            }
            lists.add_trigrams(parts, &fold_name(text));
        }
    }
    attributes.texts(tags::PATIENT_NAME).for_each(|name| lists.add_name(name));
    state.modalities.iter().for_each(|modality| lists.add(Kind::Modality, &exact(modality)));
    other_dates(attributes, &mut lists);
    lists.into_keys()
}

/// The lists that somebody is in of whom a fact about patients says an ID and names: as those of studies, without a year.
pub(super) fn lists_of_patient<'a>(tenant: &str, id: &str, names: impl Iterator<Item = &'a str>) -> Vec<Bytes> {
    let mut lists = Lists { tenant, year: None, keys: Vec::new(), ends: Vec::new() };
    lists.add(Kind::PatientId, &exact(id));
    lists.add_trigrams(Kind::PatientIdTrigram, &fold_name(id));
    names.for_each(|name| lists.add_name(name));
    lists.into_keys()
}

/// Dates that a range can name and under which the study does not stand.
fn other_dates(attributes: &Attributes, lists: &mut Lists<'_>) {
    let own = attributes.first_text(tags::STUDY_DATE).and_then(sort_date);
    for text in attributes.texts(tags::STUDY_DATE) {
        match sort_date(text) {
            date if date.is_some() && date == own => continue,
            Some(date) => {
                lists.add(Kind::OtherDate, &format!("{:06}", date / 100));
                lists.add(Kind::OtherDate, &format!("{:04}", date / 10_000));
            }
            None => lists.add(Kind::OtherDate, "?"),
        }
        lists.add(Kind::OtherDate, "*");
    }
}

/// Rows that lead to a study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRows {
    /// Where the study stands in each list.
    order: Bytes,
    lists: Vec<Bytes>,
}

/// A study's row among its patient's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientRow {
    pk: Bytes,
    ck: Bytes,
    value: Bytes,
}

impl PatientRow {
    /// Of a study in this state; `None` while nothing of it is shown.
    pub fn of(key: &StudyKey, state: &StudyState) -> Option<Self> {
        if state.shown == 0 {
            return None;
        }
        let part = PatientPart::of(state);
        let pk = patients_pk(&key.tenant, &patient_bucket(&part.identity));
        let ck = patient_ck(&part.identity, &key.study_instance_uid);
        Some(Self { pk, ck, value: part.encode() })
    }

    /// Row changes that lead from `before` to `now`; after a torn commit what is there is not known.
    pub fn changes(now: Option<Self>, before: Option<Self>, torn: bool, changes: &mut Vec<RowChange>) {
        let same_key = |a: &Self, b: &Self| a.pk == b.pk && a.ck == b.ck;
        if let Some(before) = &before
            && !now.as_ref().is_some_and(|now| same_key(now, before))
        {
            changes.push(RowChange::delete(PATIENTS, before.pk.clone(), before.ck.clone()));
        }
        if let Some(now) = now
            && (torn || before.as_ref() != Some(&now))
        {
            changes.push(RowChange::put(PATIENTS, now.pk, now.ck, now.value));
        }
    }
}

/// Which bucket of patients: the issuer and the first two bytes of the ID.
pub fn patient_bucket(patient: &PatientIdentity) -> Bytes {
    let mut bucket = Vec::with_capacity(patient.issuer.len() + 4);
    Text(&patient.issuer).append(&mut bucket);
    bucket.extend(patient.id.bytes().take(2));
    bucket.into()
}

/// Partition key of a bucket of patients.
pub fn patients_pk(tenant: &str, bucket: &[u8]) -> Bytes {
    let mut pk = Vec::with_capacity(tenant.len() + bucket.len() + 2);
    Text(tenant).append(&mut pk);
    pk.extend_from_slice(bucket);
    pk.into()
}

/// Clustering key of a patient's study.
pub fn patient_ck(patient: &PatientIdentity, study: &str) -> Bytes {
    let mut ck = Vec::with_capacity(64);
    Text(&patient.issuer).append(&mut ck);
    Text(&patient.id).append(&mut ck);
    pack_uid(&mut ck, study);
    ck.into()
}

/// Which list of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BucketList {
    /// Years of studies, the latest first, those without a date last: the key is 65,534 less the year, or 65,535.
    Years = 0,
    /// Buckets of patients.
    Patients = 1,
    /// Buckets of facts about patients.
    PatientFacts = 2,
}

/// Partition key of a list of buckets.
pub fn buckets_pk(list: BucketList, tenant: &str) -> Bytes {
    let mut pk = vec![list as u8];
    Text(tenant).append(&mut pk);
    pk.into()
}

/// The key of a year's bucket.
pub fn year_bucket(year: Option<u16>) -> Bytes {
    let key = year.map_or(u16::MAX, |year| (u16::MAX - 1).saturating_sub(year));
    Bytes::copy_from_slice(&key.to_be_bytes())
}

/// The year of a bucket's key.
pub fn year_of_bucket(bucket: &[u8]) -> Option<Option<u16>> {
    let key = u16::from_be_bytes(bucket.try_into().ok()?);
    Some((key != u16::MAX).then(|| u16::MAX - 1 - key))
}

/// Clustering key of a bucket in its list, as the projector of a partition writes it.
pub fn bucket_ck(bucket: &[u8], partition: Partition) -> Bytes {
    let mut ck = Vec::with_capacity(bucket.len() + 6);
    for byte in bucket {
        ck.push(*byte);
        if *byte == 0 {
            ck.push(0xFF);
        }
    }
    ck.extend([0, 0]);
    ck.extend(partition.0.to_be_bytes());
    ck.into()
}

/// The bucket that a clustering key names.
pub fn read_bucket_ck(ck: &[u8]) -> Option<Bytes> {
    let escaped = ck.get(..ck.len().checked_sub(4)?)?;
    let mut bucket = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        bucket.push(*byte);
        if *byte == 0 {
            bytes.next();
        }
    }
    Some(bucket.into())
}

impl AccessRows {
    /// Of a study in this state.
    pub fn of(key: &StudyKey, state: &StudyState) -> Self {
        if state.shown == 0 && state.hidden == 0 {
            return Self::default();
        }
        let order = OrderKey::new(state.sort_key(), &key.study_instance_uid);
        let lists = lists(&key.tenant, state, order.year());
        Self { order: order.0, lists }
    }

    /// Row changes that lead from `before` to these.
    pub fn changes(&self, before: &Self, changes: &mut Vec<RowChange>) {
        let empty = Bytes::new();
        let stays = |other: &Self, pk| self.order == before.order && other.lists.binary_search(pk).is_ok();
        for pk in before.lists.iter().filter(|pk| !stays(self, pk)) {
            changes.push(RowChange::delete(POSTINGS, pk.clone(), before.order.clone()));
        }
        for pk in self.lists.iter().filter(|pk| !stays(before, pk)) {
            changes.push(RowChange::put(POSTINGS, pk.clone(), self.order.clone(), empty.clone()));
        }
    }
}

/// The buckets that a study in this state needs to be listed, by list.
pub fn buckets_of(key: &StudyKey, state: &StudyState) -> [(BucketList, Bytes); 2] {
    let order = OrderKey::new(state.sort_key(), &key.study_instance_uid);
    [(BucketList::Years, year_bucket(order.year())), (BucketList::Patients, patient_bucket(&state.patient()))]
}

/// A row that lists a bucket.
pub fn bucket_row(list: BucketList, tenant: &str, bucket: &[u8], partition: Partition) -> RowChange {
    RowChange::put(BUCKETS, buckets_pk(list, tenant), bucket_ck(bucket, partition), Bytes::new())
}
