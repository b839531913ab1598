//! All keys of an identifier, with what concerns more than one attribute: date-time pairs and time zones.

use super::{Key, MatchOptions, Range, Test, UnusableKey};
use crate::{
    Tag, Vr,
    dataset::{DataSet, Element, Value},
    dictionary, tags,
    temporal::{Date, DateTime, Time, UtcOffset},
};

/// The compiled keys of an identifier.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Keys {
    /// Keys that restrict, in order of tags. Those of a combined range are here no more.
    pub keys: Vec<Key>,
    /// Pairs of a date and a time that are one range.
    pub combined: Vec<CombinedRange>,
    /// The time zone that dates and times of the query are in and those of answers shall be in.
    pub query_offset: Option<UtcOffset>,
    /// As in [`MatchOptions`].
    pub assumed_offset: Option<UtcOffset>,
}

/// A date attribute and a time attribute that together are within a range (PS3.4 section C.2.2.2.5, edition 2025c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CombinedRange {
    /// The date.
    pub date: Tag,
    /// The time.
    pub time: Tag,
    /// The dates alone: what every match is within.
    pub dates: Range<Date>,
    /// Both, in local time.
    pub range: Range<DateTime>,
}

/// The time attribute that goes with a date attribute: StudyTime with StudyDate.
pub fn time_of(date: Tag) -> Option<Tag> {
    let keyword = dictionary::keyword_of(date)?.strip_suffix("Date")?;
    dictionary::tag_of(&format!("{keyword}Time")).filter(|time| dictionary::vr_of(*time) == Some(Vr::TM))
}

/// Attributes of an identifier that say how to ask, not what to ask for.
const NO_KEYS: [Tag; 4] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::QUERY_RETRIEVE_LEVEL,
    tags::QUERY_RETRIEVE_VIEW,
    tags::TIMEZONE_OFFSET_FROM_UTC,
];

impl Keys {
    /// Compiles every key of an identifier; those that match anything are left out.
    ///
    /// # Errors
    /// [`UnusableKey`], the first in order of tags.
    pub fn parse(identifier: &DataSet, options: &MatchOptions) -> Result<Self, UnusableKey> {
        let query_offset = match identifier.text(tags::TIMEZONE_OFFSET_FROM_UTC) {
            Some(text) if options.time_zone_adjustment => {
                let tag = tags::TIMEZONE_OFFSET_FROM_UTC;
                Some(UtcOffset::parse(text).ok_or(UnusableKey { tag, why: super::Why::BadTime })?)
            }
            _ => None,
        };
        let mut found = Self { query_offset, assumed_offset: options.assumed_offset, ..Self::default() };
        for element in identifier.elements().iter().filter(|e| !NO_KEYS.contains(&e.tag)) {
            let key = Key::of_element_at(element, options, query_offset)?;
            if !key.is_universal() {
                found.keys.push(key);
            }
        }
        if options.combined_date_time {
            found.combine();
        }
        Ok(found)
    }

    /// Makes one range of date and time where both have the same form of range.
    fn combine(&mut self) {
        let dates: Vec<(Tag, Range<Date>)> = self
            .keys
            .iter()
            .filter_map(|key| match key.test {
                Test::Dates(range) => Some((key.tag, range)),
                _ => None,
            })
            .collect();
        for (date, dates) in dates {
            let Some(time) = time_of(date) else { continue };
            let times = self.keys.iter().find(|key| key.tag == time).map(|key| &key.test);
            let Some(Test::Times(times)) = times else { continue };
            let single = |range: &Range<Date>| range.from == range.to;
            if single(&dates)
                || dates.from.is_some() != times.from.is_some()
                || dates.to.is_some() != times.to.is_some()
            {
                continue;
            }
            let point = |date: Option<Date>, time: Option<Time>| Some(DateTime::new(date?, time?, None));
            let range = Range { from: point(dates.from, times.from), to: point(dates.to, times.to) };
            self.combined.push(CombinedRange { date, time, dates, range });
            self.keys.retain(|key| key.tag != date && key.tag != time);
        }
    }

    /// Whether a stored data set matches all keys. Its dates and times are in the zone of its own (0008,0201), else
    /// in the assumed one.
    pub fn matches(&self, stored: &DataSet) -> bool {
        let adjusted = self.query_offset.filter(|_| self.asks_for_times()).map(|to| {
            let mut adjusted = stored.clone();
            to_time_zone(&mut adjusted, self.assumed_offset, to);
            adjusted
        });
        let local = adjusted.as_ref().unwrap_or(stored);
        let own = stored.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(UtcOffset::parse);
        self.keys.iter().all(|key| match &key.test {
            // Date-times of the data set itself, in the zone that it states.
            Test::DateTimes { range, local: false, .. } if own.is_some() => {
                let test = Test::DateTimes { range: *range, assumed: own, local: false };
                test.matches(key.vr, stored.get(key.tag).map(|e| &e.value))
            }
            Test::DateTimes { .. } => key.matches(stored.get(key.tag).map(|e| &e.value)),
            _ => key.matches(local.get(key.tag).map(|e| &e.value)),
        }) && self.combined.iter().all(|c| c.matches(local.texts(c.date), local.texts(c.time)))
    }

    fn asks_for_times(&self) -> bool {
        !self.combined.is_empty() || self.keys.iter().any(|key| matches!(key.vr, Vr::DA | Vr::TM))
    }
}

impl CombinedRange {
    /// Whether a stored date with its time, both as text, is within; a date without a time is if some time of that
    /// day is.
    pub fn matches<S: AsRef<str>>(&self, dates: &[S], times: &[S]) -> bool {
        let Some(date) = dates.first().and_then(|text| Date::parse(text.as_ref())) else { return false };
        match times.first().and_then(|text| Time::parse(text.as_ref())) {
            Some(time) => self.range.contains(DateTime::new(date.first, time.first, None)),
            None => {
                let (first, last) = (Time::START_OF_DAY, Time::END_OF_DAY);
                let day = (DateTime::new(date.first, first, None), DateTime::new(date.last, last, None));
                self.range.from.is_none_or(|from| from <= day.1) && self.range.to.is_none_or(|to| day.0 <= to)
            }
        }
    }
}

/// Puts the dates and times of a data set, which are at the offset of its own (0008,0201) or else `assumed`, to
/// another offset, and that into (0008,0201). Without any known offset nothing changes.
///
/// Pairs of a date and a time are moved; a date alone, a time alone and the day of birth stay as they are, for they
/// name no point in time.
pub fn to_time_zone(set: &mut DataSet, assumed: Option<UtcOffset>, to: UtcOffset) {
    let stated = set.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(UtcOffset::parse);
    let Some(from) = stated.or(assumed) else { return };
    let pairs: Vec<(Tag, Tag)> = set
        .elements()
        .iter()
        .filter(|e| e.vr == Vr::DA && e.tag != tags::PATIENT_BIRTH_DATE && !e.value.is_empty())
        .filter_map(|Element { tag, .. }| Some((*tag, time_of(*tag)?)))
        .collect();
    for (date_tag, time_tag) in pairs.into_iter().filter(|_| from != to) {
        let (Some(date), Some(text)) = (set.text(date_tag).and_then(Date::parse), set.text(time_tag)) else { continue };
        let Some(time) = Time::parse(text) else { continue };
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let Some((date, time)) = DateTime::new(date.first, time.first, Some(from)).at(to) else { continue };
        set.put(date_tag, Vr::DA, Value::Text(vec![date.to_string()]));
        set.put(time_tag, Vr::TM, Value::Text(vec![with_digits(&time.to_string(), digits)]));
    }
    let without_offset =
        |text: &String| DateTime::parse(text, None) != DateTime::parse(text, UtcOffset::parse("+0100"));
    let date_times: Vec<Element> =
        set.elements().iter().filter(|e| e.vr == Vr::DT && !e.value.is_empty()).cloned().collect();
    for Element { tag, vr, value } in date_times.into_iter().filter(|_| from != to) {
        // They can say themselves where they are.
        let stated = |text: &String| if without_offset(text) { format!("{text}{from}") } else { text.clone() };
        set.put(tag, vr, Value::Text(value.texts().iter().map(stated).collect()));
    }
    if stated != Some(to) {
        set.put_text(tags::TIMEZONE_OFFSET_FROM_UTC, &to.to_string());
    }
}

/// `HHMMSS.FFFFFF` cut to the precision that the value had, or minutes where an offset could need them.
fn with_digits(time: &str, digits: usize) -> String {
    let len = match digits {
        ..=4 => 4,
        5..=6 => 6,
        more => 1 + more,
    };
    time.get(..len.min(time.len())).unwrap_or(time).to_owned()
}
