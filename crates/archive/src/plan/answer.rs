//! Answers: which attributes they carry.

use crate::fold::{Level, level_of};
use cairn_dicom::{
    Tag,
    dataset::{DataSet, Element, Value},
    matching::{Keys, to_time_zone},
    tags,
};
use std::collections::BTreeSet;

/// Which attributes an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Those that the identifier names.
    Keys,
    /// The default ones of QIDO-RS at the level and above, those that the identifier names, and these.
    DefaultAnd(Vec<Tag>),
    /// Everything at the level and above.
    All,
}

/// PS3.18 Table 10.6.3-3, edition 2025c, less what doors add.
const DEFAULT_STUDY: &[Tag] = &[
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::INSTANCE_AVAILABILITY,
    tags::MODALITIES_IN_STUDY,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
];

/// PS3.18 Table 10.6.3-4.
const DEFAULT_SERIES: &[Tag] = &[
    tags::MODALITY,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
    tags::PERFORMED_PROCEDURE_STEP_START_DATE,
    tags::PERFORMED_PROCEDURE_STEP_START_TIME,
    tags::REQUEST_ATTRIBUTES_SEQUENCE,
];

/// PS3.18 Table 10.6.3-5.
const DEFAULT_INSTANCE: &[Tag] = &[
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::INSTANCE_AVAILABILITY,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::INSTANCE_NUMBER,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::NUMBER_OF_FRAMES,
];

const DEFAULT_PATIENT: &[Tag] =
    &[tags::PATIENT_NAME, tags::PATIENT_ID, tags::ISSUER_OF_PATIENT_ID, tags::PATIENT_BIRTH_DATE, tags::PATIENT_SEX];

/// The attributes wanted in answers at a level.
#[derive(Clone, Debug)]
pub struct Wanted {
    level: Level,
    /// `None`: all.
    tags: Option<BTreeSet<Tag>>,
    /// Named by the identifier: answered with no value where there is none.
    named: Vec<Element>,
    cut_items: bool,
}

impl Wanted {
    /// By the query.
    pub fn new(level: Level, identifier: &DataSet, returned: &Returned) -> Self {
        let control = [tags::SPECIFIC_CHARACTER_SET, tags::QUERY_RETRIEVE_LEVEL, tags::QUERY_RETRIEVE_VIEW];
        let named: Vec<Element> = identifier.elements().iter().filter(|e| !control.contains(&e.tag)).cloned().collect();
        let defaults: [(Level, &[Tag]); 4] = [
            (Level::Patient, DEFAULT_PATIENT),
            (Level::Study, DEFAULT_STUDY),
            (Level::Series, DEFAULT_SERIES),
            (Level::Instance, DEFAULT_INSTANCE),
        ];
        let mut tags: BTreeSet<Tag> = named.iter().map(|element| element.tag).collect();
        let tags = match returned {
            Returned::All => None,
            Returned::Keys => Some(tags),
            Returned::DefaultAnd(more) => {
                tags.extend(more);
                tags.extend(defaults.iter().filter(|(l, _)| *l <= level).flat_map(|(_, tags)| tags.iter()));
                Some(tags)
            }
        };
        Self { level, tags, named, cut_items: *returned == Returned::Keys }
    }

    /// Whether an answer carries this attribute, should it have it.
    pub fn wants(&self, tag: Tag) -> bool {
        self.tags.as_ref().is_none_or(|tags| tags.contains(&tag))
    }

    /// The level of the answers.
    pub fn level(&self) -> Level {
        self.level
    }
}

/// An answer made of the data sets of an entity and those above it, the lowest last. Attributes that were named and have
/// no value come empty; those of a lower level do not exist here and are left out (PS3.4 section C.2.2.1.3).
pub fn answer(wanted: &Wanted, keys: &Keys, sets: &[&DataSet]) -> DataSet {
    let mut answer = DataSet::new();
    for set in sets {
        for element in set.elements().iter().filter(|element| wanted.wants(element.tag)) {
            // The character set is of the answer's encoding, not of any stored object.
            if element.tag != tags::SPECIFIC_CHARACTER_SET && is_at_or_above(element.tag, wanted.level) {
                answer.put(element.tag, element.vr, element.value.clone());
            }
        }
    }
    if let Some(to) = keys.query_offset {
        to_time_zone(&mut answer, keys.assumed_offset, to);
    }
    for named in &wanted.named {
        match answer.get(named.tag) {
            None if is_at_or_above(named.tag, wanted.level) => answer.put(named.tag, named.vr, Value::Empty),
            None => {}
            Some(element) if wanted.cut_items => {
                if let Some(value) = cut(&element.value, &named.value) {
                    answer.put(named.tag, named.vr, value);
                }
            }
            Some(_) => {}
        }
    }
    answer
}

fn is_at_or_above(tag: Tag, level: Level) -> bool {
    tag == tags::INSTANCE_AVAILABILITY || level_of(tag) <= level || level == Level::Instance
}

/// A sequence's items with the attributes alone that the key's item names (PS3.4 section C.2.2.2.6).
fn cut(value: &Value, key: &Value) -> Option<Value> {
    let (Value::Sequence(items), Value::Sequence(keys)) = (value, key) else { return None };
    let named = keys.first().filter(|item| !item.is_empty())?;
    let cut_item = |item: &DataSet| {
        let elements = named.elements().iter().map(|wanted| {
            let value = item
                .get(wanted.tag)
                .map(|element| cut(&element.value, &wanted.value).unwrap_or_else(|| element.value.clone()));
            Element {
                tag: wanted.tag,
                vr: item.get(wanted.tag).map_or(wanted.vr, |e| e.vr),
                value: value.unwrap_or_default(),
            }
        });
        elements.collect::<DataSet>()
    };
    Some(Value::Sequence(items.iter().map(cut_item).collect()))
}
