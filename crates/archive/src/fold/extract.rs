//! What one instance's header tells of its patient, study and series.

use super::{
    Version,
    levels::{Level, LevelWalk},
};
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, Tag,
    dataset::{DataSet, DecodeLimits},
    header::Header,
    tags,
    transfer_syntax::Encoding,
};

/// An attribute of the archive's own: issuer of Patient ID, a zero byte, Patient ID. Never answered.
pub(crate) const PATIENT_IDENTITY: Tag = Tag(0x0011_0001);

/// Bounds of what is decoded from a header that the extractor wrote.
pub const HEADER_LIMITS: DecodeLimits = DecodeLimits { depth_max: 128, elements_max: 1 << 20 };

/// The parts of a header that describe the study and the series, each a data set with its character set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) study: Vec<u8>,
    pub(crate) series: Vec<u8>,
    pub(crate) instance_number: Option<i64>,
    pub(crate) frames: Option<u32>,
    /// Issuer of Patient ID that a correction says, instead of the one that applied.
    pub(crate) issuer: Option<String>,
}

/// What the sender's profile adds to a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile<'a> {
    pub(crate) issuer_of_patient_id: &'a str,
    pub(crate) default_character_set: &'a str,
    pub(crate) time_zone: &'a str,
}

impl<'a> Profile<'a> {
    /// What applied to a version, and what a correction says.
    pub(crate) fn of(version: &'a Version, told: &'a Told) -> Self {
        Self {
            issuer_of_patient_id: told.issuer.as_deref().unwrap_or(&version.issuer_of_patient_id),
            default_character_set: &version.default_character_set,
            time_zone: &version.time_zone,
        }
    }
}

impl Told {
    /// Splits a header by level, in one pass and without decoding.
    pub(crate) fn read(header: &[u8]) -> Self {
        let mut told = Self { study: Vec::with_capacity(512), series: Vec::with_capacity(256), ..Self::default() };
        let mut levels = LevelWalk::default();
        let elements = Header::new(header);
        let mut at = 0;
        for element in elements.elements() {
            let length = (if element.vr.has_long_length() { 12 } else { 8 }) + element.value.len();
            let raw = header.get(at..at + length).unwrap_or_default();
            at += length;
            match element.tag {
                tags::SPECIFIC_CHARACTER_SET => {
                    told.study.extend_from_slice(raw);
                    told.series.extend_from_slice(raw);
                }
                tags::INSTANCE_NUMBER => told.instance_number = number(element.text()),
                tags::NUMBER_OF_FRAMES => told.frames = number(element.text()).and_then(|n| u32::try_from(n).ok()),
                tag => match levels.level_of(tag) {
                    Level::Patient | Level::Study => told.study.extend_from_slice(raw),
                    Level::Series => told.series.extend_from_slice(raw),
                    Level::Instance => {}
                },
            }
        }
        told
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim_start_matches('+').parse().ok()
}

/// The character set that a profile names; ISO_IR 6 if none.
pub fn default_character_set(terms: &str) -> CharacterSet {
    CharacterSet::parse(terms.as_bytes(), CharacterSet::DEFAULT).0
}

/// Names an attribute set, so that equal ones are merged once.
pub(crate) fn fingerprint(raw: &[u8], profile: &Profile<'_>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for text in [profile.issuer_of_patient_id, profile.default_character_set, profile.time_zone] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.update(raw);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// The non-empty elements of the study's part, in UTF-8, with what the profile adds: the issuer that applies, the time
/// zone where none is stated, and the patient's identity.
pub(crate) fn study_elements(raw: &[u8], profile: &Profile<'_>) -> Vec<(Tag, Bytes)> {
    let mut set = decode(raw, profile.default_character_set);
    if !profile.issuer_of_patient_id.is_empty() {
        set.put_text(tags::ISSUER_OF_PATIENT_ID, profile.issuer_of_patient_id);
    }
    if !profile.time_zone.is_empty() && set.text(tags::TIMEZONE_OFFSET_FROM_UTC).is_none() {
        set.put_text(tags::TIMEZONE_OFFSET_FROM_UTC, profile.time_zone);
    }
    let mut elements = split(&set);
    let id = set.texts(tags::PATIENT_ID).join("\\");
    if !id.is_empty() {
        let identity = [profile.issuer_of_patient_id.as_bytes(), &[0], id.as_bytes()].concat();
        elements.push((PATIENT_IDENTITY, identity.into()));
    }
    elements
}

/// The non-empty elements of the series' part, in UTF-8.
pub(crate) fn series_elements(raw: &[u8], profile: &Profile<'_>) -> Vec<(Tag, Bytes)> {
    split(&decode(raw, profile.default_character_set))
}

/// Decodes, and where one element is broken each of the others alone: what can be read is kept.
fn decode(raw: &[u8], default: &str) -> DataSet {
    let default = default_character_set(default);
    let whole = Bytes::copy_from_slice(raw);
    let read = |bytes: &Bytes, default| {
        DataSet::decode(bytes, Encoding::ExplicitLittle, default, &HEADER_LIMITS).map(|(set, _)| set)
    };
    if let Ok(set) = read(&whole, default) {
        return set;
    }
    let stated = Header::new(raw).get(tags::SPECIFIC_CHARACTER_SET);
    let charset = stated.map_or(default, |element| CharacterSet::parse(element.value, default).0);
    let mut at = 0;
    let mut all = Vec::new();
    for element in Header::new(raw).elements() {
        let length = (if element.vr.has_long_length() { 12 } else { 8 }) + element.value.len();
        let set = read(&whole.slice(at..at + length), charset).unwrap_or_default();
        all.extend(set.elements().iter().cloned());
        at += length;
    }
    all.into_iter().collect()
}

/// Each non-empty element alone, in UTF-8.
fn split(set: &DataSet) -> Vec<(Tag, Bytes)> {
    let present = set.elements().iter().filter(|e| !e.value.is_empty() && e.tag != tags::SPECIFIC_CHARACTER_SET);
    let kept: DataSet = present.cloned().collect();
    let Ok(bytes) = kept.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8) else { return Vec::new() };
    let bytes = Bytes::from(bytes);
    let mut at = 0;
    let mut elements = Vec::with_capacity(kept.elements().len());
    for element in Header::new(&bytes).elements() {
        let length = (if element.vr.has_long_length() { 12 } else { 8 }) + element.value.len();
        if element.tag != tags::SPECIFIC_CHARACTER_SET {
            elements.push((element.tag, bytes.slice(at..at + length)));
        }
        at += length;
    }
    elements
}

/// The elements of a header that are wanted, decoded. What is broken is left out.
pub fn select(header: &[u8], default: CharacterSet, wanted: impl Fn(Tag) -> bool) -> DataSet {
    let mut raw = Vec::with_capacity(512);
    let mut at = 0;
    for element in Header::new(header).elements() {
        let length = (if element.vr.has_long_length() { 12 } else { 8 }) + element.value.len();
        if element.tag == tags::SPECIFIC_CHARACTER_SET || wanted(element.tag) {
            raw.extend_from_slice(header.get(at..at + length).unwrap_or_default());
        }
        at += length;
    }
    let mut set = match DataSet::decode(&raw.clone().into(), Encoding::ExplicitLittle, default, &HEADER_LIMITS) {
        Ok((set, _)) => set,
        Err(_) => {
            let terms = default.to_value();
            decode(&raw, &terms)
        }
    };
    if !wanted(tags::SPECIFIC_CHARACTER_SET) {
        set.remove(tags::SPECIFIC_CHARACTER_SET);
    }
    set
}
