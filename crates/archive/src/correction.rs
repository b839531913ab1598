//! Corrections of patient and study attributes: what may be corrected, to what, and how that is given out.

use crate::{
    envelope::rfc3339,
    events::{AttributesCorrected, CorrectionProtected},
    fold::{HEADER_LIMITS, Level, level_of},
    ids::EventId,
};
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, Element, Value},
    dictionary,
    rewrite::Modification,
    tags,
    temporal::{Date, DateTime, Time, UtcOffset},
    transfer_syntax::Encoding,
};
use prost::Message;

/// Bytes that the new values of one correction take at most, in UTF-8: study rows hold them.
const CORRECTION_BYTES_MAX: usize = 16 << 10;

/// Why attributes can't be corrected as asked for. Says nothing of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCorrection {
    /// No attribute is named.
    #[error("a correction names at least one attribute")]
    Nothing,
    /// The attribute is none of the patient or study, is a UID or a sequence, or is not known.
    #[error("{0} is not an attribute of patient or study that can be corrected")]
    NotCorrectable(Tag),
    /// The VR is another than the Standard's.
    #[error("{0} has another value representation")]
    WrongVr(Tag),
    /// The value is not of its VR, is too long, or there are too many.
    #[error("the value of {0} is not one of its value representation and multiplicity")]
    WrongValue(Tag),
    /// All together are too large.
    #[error("new values take more than {CORRECTION_BYTES_MAX} bytes")]
    TooLarge,
}

impl BadCorrection {
    /// The element concerned.
    pub const fn tag(self) -> Option<Tag> {
        match self {
            Self::Nothing | Self::TooLarge => None,
            Self::NotCorrectable(tag) | Self::WrongVr(tag) | Self::WrongValue(tag) => Some(tag),
        }
    }
}

/// Whether an attribute can be corrected: the text attributes of patient and study, which no UID is among.
pub fn is_correctable(tag: Tag) -> bool {
    let vr = dictionary::vr_of(tag).filter(|vr| vr.is_text() && *vr != Vr::UI);
    vr.is_some() && matches!(level_of(tag), Level::Patient | Level::Study) && !is_computed(tag)
}

/// Attributes that the index computes.
fn is_computed(tag: Tag) -> bool {
    matches!(
        tag,
        tags::MODALITIES_IN_STUDY
            | tags::NUMBER_OF_STUDY_RELATED_SERIES
            | tags::NUMBER_OF_STUDY_RELATED_INSTANCES
            | tags::NUMBER_OF_PATIENT_RELATED_STUDIES
            | tags::NUMBER_OF_PATIENT_RELATED_SERIES
            | tags::NUMBER_OF_PATIENT_RELATED_INSTANCES
    )
}

/// Checks the new values of a correction.
///
/// # Errors
/// [`BadCorrection`].
pub fn check(elements: &DataSet) -> Result<(), BadCorrection> {
    if elements.is_empty() {
        return Err(BadCorrection::Nothing);
    }
    elements.elements().iter().try_for_each(check_element)?;
    if encode(elements).len() > CORRECTION_BYTES_MAX { Err(BadCorrection::TooLarge) } else { Ok(()) }
}

fn check_element(element: &Element) -> Result<(), BadCorrection> {
    let Element { tag, vr, value } = element;
    if !is_correctable(*tag) {
        return Err(BadCorrection::NotCorrectable(*tag));
    }
    if dictionary::vr_of(*tag) != Some(*vr) {
        return Err(BadCorrection::WrongVr(*tag));
    }
    let texts = match value {
        Value::Empty => return Ok(()),
        Value::Text(texts) => texts,
        _ => return Err(BadCorrection::WrongVr(*tag)),
    };
    let is_one = texts.len() == 1 || dictionary::vm(*tag) != Some("1");
    let fits = |text: &String| text.is_empty() || is_of_vr(*vr, text);
    let is_offset = |text: &String| *tag != tags::TIMEZONE_OFFSET_FROM_UTC || UtcOffset::parse(text).is_some();
    let fit = is_one && texts.iter().all(fits) && texts.iter().all(is_offset);
    if fit { Ok(()) } else { Err(BadCorrection::WrongValue(*tag)) }
}

/// Whether a text is a value of a VR (PS3.5 Table 6.2-1, edition 2025c).
fn is_of_vr(vr: Vr, text: &str) -> bool {
    let within = |max: usize| text.chars().count() <= max;
    let one_line = !text.chars().any(char::is_control);
    let lines = !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{C}'));
    match vr {
        Vr::PN => {
            let groups = || text.split('=');
            let is_group = |group: &str| group.chars().count() <= 64 && group.split('^').count() <= 5;
            one_line && groups().count() <= 3 && groups().all(is_group)
        }
        Vr::LO => one_line && within(64),
        Vr::SH | Vr::AE => one_line && within(16),
        Vr::ST => lines && within(1024),
        Vr::LT => lines && within(10_240),
        Vr::UT | Vr::UC | Vr::UR => lines,
        Vr::CS => {
            let is_coded = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ' ' | '_');
            within(16) && text.chars().all(is_coded)
        }
        Vr::AS => {
            let bytes = text.as_bytes();
            let unit = bytes.last().is_some_and(|unit| b"DWMY".contains(unit));
            bytes.len() == 4 && unit && bytes.iter().take(3).all(u8::is_ascii_digit)
        }
        Vr::DA => text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) && Date::parse(text).is_some(),
        Vr::TM => one_line && within(14) && Time::parse(text).is_some(),
        Vr::DT => one_line && within(26) && DateTime::parse(text, None).is_some(),
        Vr::IS => within(12) && text.trim().parse::<i32>().is_ok(),
        Vr::DS => within(16) && text.trim().parse::<f64>().is_ok_and(f64::is_finite),
        _ => false,
    }
}

/// New values as an event has them.
pub fn encode(elements: &DataSet) -> Bytes {
    // UTF-8 carries everything, and what is checked is short.
    elements.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).unwrap_or_default().into()
}

/// New values as an event has them; `None` if they can't be read, or this build can't correct them.
pub fn decode(elements: &Bytes) -> Option<DataSet> {
    let read = DataSet::decode(elements, Encoding::ExplicitLittle, CharacterSet::UTF_8, &HEADER_LIMITS);
    let mut set = read.ok()?.0;
    set.remove(tags::SPECIFIC_CHARACTER_SET);
    let is_known =
        |element: &Element| is_correctable(element.tag) && dictionary::vr_of(element.tag) == Some(element.vr);
    (!set.is_empty() && set.elements().iter().all(is_known)).then_some(set)
}

/// The new values that an event has, and why; `None` if they can't be read here.
pub fn said(event: &AttributesCorrected) -> Option<(DataSet, String)> {
    if !event.key_id.is_empty() {
        return None;
    }
    let protected = CorrectionProtected::decode(event.protected.clone()).ok()?;
    Some((decode(&protected.elements)?, protected.reason))
}

/// A correction as it is applied to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// `ce_id` of its event.
    pub event: EventId,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Site at which it was made.
    pub site: String,
    /// The new values in Explicit VR Little Endian and UTF-8.
    pub elements: Bytes,
    /// Who sent the instance.
    pub source: String,
}

impl InForce {
    /// Whether it gives an attribute another value.
    pub fn is_of(&self, tag: Tag) -> bool {
        cairn_dicom::Header::new(&self.elements).get(tag).is_some()
    }
}

/// What corrections in force make of a data set, in their order.
pub fn modifications(in_force: &[InForce]) -> Vec<Modification> {
    let modification = |correction: &InForce| {
        Some(Modification {
            elements: decode(&correction.elements)?,
            at: date_time(correction.at_ms),
            by: format!("CAIRN {}", correction.site).chars().take(64).collect(),
            source: correction.source.clone(),
        })
    };
    in_force.iter().filter_map(modification).collect()
}

/// A time as DT, in UTC.
fn date_time(unix_ms: u64) -> String {
    let digits: String = rfc3339(unix_ms).chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    format!("{digits}000+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(tag: Tag, text: &str) -> DataSet {
        let mut set = DataSet::new();
        set.put_text(tag, text);
        set
    }

    #[test]
    fn attributes_of_patient_and_study_can_be_corrected_and_nothing_else() {
        for tag in [tags::PATIENT_NAME, tags::PATIENT_ID, tags::ISSUER_OF_PATIENT_ID, tags::ACCESSION_NUMBER] {
            assert_eq!(check(&one(tag, "A")), Ok(()), "{tag}");
        }
        for tag in
            [tags::STUDY_INSTANCE_UID, tags::MODALITY, tags::SOP_INSTANCE_UID, tags::INSTANCE_NUMBER, Tag(0x0011_0001)]
        {
            assert_eq!(check(&one(tag, "1")), Err(BadCorrection::NotCorrectable(tag)), "{tag}");
        }
        assert_eq!(
            check(&one(tags::MODALITIES_IN_STUDY, "CT")),
            Err(BadCorrection::NotCorrectable(tags::MODALITIES_IN_STUDY))
        );
        assert_eq!(check(&DataSet::new()), Err(BadCorrection::Nothing));
        let mut sequence = DataSet::new();
        sequence.put(tags::OTHER_PATIENT_IDS_SEQUENCE, Vr::SQ, Value::Sequence(vec![]));
        assert_eq!(check(&sequence), Err(BadCorrection::NotCorrectable(tags::OTHER_PATIENT_IDS_SEQUENCE)));
        let mut other = DataSet::new();
        other.put(tags::PATIENT_NAME, Vr::LO, Value::text(Vr::LO, "A"));
        assert_eq!(check(&other), Err(BadCorrection::WrongVr(tags::PATIENT_NAME)));
    }

    #[test]
    fn values_are_of_their_vr() {
        let long = "x".repeat(65);
        for (tag, good, bad) in [
            (tags::PATIENT_NAME, "Yamada^Tarou=山田^太郎=やまだ^たろう", "A=B=C=D"),
            (tags::PATIENT_NAME, "A^B^C^D^E", "A^B^C^D^E^F"),
            (tags::PATIENT_BIRTH_DATE, "19700229", "1970-02-28"),
            (tags::PATIENT_SEX, "F", "female"),
            (tags::PATIENT_AGE, "042Y", "42"),
            (tags::PATIENT_WEIGHT, "71.5", "heavy"),
            (tags::STUDY_TIME, "101112.5", "25:00"),
            (tags::PATIENT_ID, "A-1", long.as_str()),
            (tags::PATIENT_ID, "A-1", "A\\B"),
            (tags::ACCESSION_NUMBER, "1234567890123456", "12345678901234567"),
            (tags::STUDY_DESCRIPTION, "Schädel", "a\u{1B}b"),
            (tags::TIMEZONE_OFFSET_FROM_UTC, "+0100", "CET"),
        ] {
            let is_leap = good == "19700229";
            assert_eq!(check(&one(tag, good)).is_ok(), !is_leap, "{good}");
            assert_eq!(check(&one(tag, bad)), Err(BadCorrection::WrongValue(tag)), "{bad}");
        }
        assert_eq!(check(&one(tags::PATIENT_COMMENTS, "")), Ok(()), "takes the value away");
        let mut many = DataSet::new();
        for tag in [tags::PATIENT_COMMENTS, tags::ADDITIONAL_PATIENT_HISTORY] {
            many.put_text(tag, &"x".repeat(10_000));
        }
        assert_eq!(check(&many), Err(BadCorrection::TooLarge));
    }

    #[test]
    fn new_values_read_back_and_what_a_later_build_corrects_does_not() {
        let set = one(tags::PATIENT_NAME, "Müller^Jürgen");
        assert_eq!(decode(&encode(&set)), Some(set));
        assert_eq!(decode(&encode(&one(tags::MODALITY, "CT"))), None);
        assert_eq!(decode(&Bytes::from_static(&[1, 2, 3])), None);
    }

    #[test]
    fn a_modification_says_when_and_where() {
        let elements = encode(&one(tags::PATIENT_NAME, "A"));
        let event = "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("valid");
        let in_force = InForce { event, at_ms: 1_764_302_171_123, site: "west".into(), elements, source: "CT1".into() };
        let [modification] = modifications(&[in_force]).try_into().expect("one");
        assert_eq!((modification.at.as_str(), modification.by.as_str()), ("20251128035611.123000+0000", "CAIRN west"));
        assert_eq!(modification.source, "CT1");
    }
}
