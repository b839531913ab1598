//! Attribute matching: does a stored value match the key of a query (PS3.4 section C.2.2.2, edition 2025c).
//!
//! A [`Key`] is a compiled key. Its [`Test`] is public, so that a planner can choose an index; whatever an index
//! proposes, [`Key::matches`] decides. A key that can not be used is an [`UnusableKey`], never "match all".

mod fold;
mod keys;
mod name;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

pub use fold::{fold_case, fold_name, name_words, trigrams};
pub use keys::{CombinedRange, Keys, time_of, to_time_zone};
pub use name::{GroupTest, NameTest};
pub use pattern::Pattern;

use crate::{
    Tag, Uid, Vr,
    dataset::Value,
    temporal::{Date, DateTime, Time, UtcOffset},
};

/// What was negotiated or asked for beyond plain matching (PS3.4 section C.5.1.1.1, PS3.18 section 8.3.4), and what
/// is assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchOptions {
    /// Fuzzy semantic matching of person names: each word of the key, without regard to case, accents and order,
    /// begins a word of the name. A key with wild cards is matched as such, without regard to accents.
    pub fuzzy_person_names: bool,
    /// Combined date-time matching: a pair of date and time ranges of one form is one range.
    pub combined_date_time: bool,
    /// Time zone query adjustment: times of the query are at the offset of its (0008,0201), and so are answers.
    pub time_zone_adjustment: bool,
    /// Empty value matching: `""` matches what has no value.
    pub empty_value: bool,
    /// Multiple value matching: each value of a key must match some value. Without it several values are
    /// alternatives, which the Standard leaves undefined and clients expect.
    pub multiple_values: bool,
    /// Offset from UTC of times for which neither value nor data set says one.
    pub assumed_offset: Option<UtcOffset>,
}

/// Why a key can not be used. Says nothing of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {tag} {why}")]
pub struct UnusableKey {
    /// The attribute.
    pub tag: Tag,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Why {
    #[error("is no date or range of dates")]
    BadDate,
    #[error("is no time or range of times")]
    BadTime,
    #[error("is no date-time or range of date-times")]
    BadDateTime,
    #[error("is a range that ends before it begins")]
    ReversedRange,
    #[error("has a value that is no UID")]
    BadUid,
    #[error("is no number")]
    BadNumber,
    #[error("has a wild card where none is allowed")]
    WildcardNotAllowed,
    #[error("has a value representation that is not matched")]
    NotMatchable,
    #[error("has more than one value")]
    SeveralValues,
    #[error("has more than one item")]
    SeveralItems,
    #[error("has characters that its character set can not mean")]
    NotDecodable,
    #[error("is too long")]
    TooLong,
    #[error("has nothing to match in its value")]
    Blank,
}

/// A compiled key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The attribute.
    pub tag: Tag,
    /// Its VR.
    pub vr: Vr,
    /// What its values must pass.
    pub test: Test,
}

/// What the values of an attribute must pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Anything, also no value (PS3.4 section C.2.2.2.3).
    Universal,
    /// No value (C.2.2.2.7).
    Empty,
    /// Some value is this text, case counting (C.2.2.2.1); without insignificant spaces.
    Exact(String),
    /// Some value is one of these, in order and each once (C.2.2.2.2).
    Uids(Vec<Uid>),
    /// Some value is of this pattern, case counting (C.2.2.2.4).
    Wildcard(Pattern),
    /// Some name is like this.
    Name(NameTest),
    /// Some date is in this range, as a single date is too (C.2.2.2.5).
    Dates(Range<Date>),
    /// Some time of day is in this range.
    Times(Range<Time>),
    /// Some point in time is in this range.
    DateTimes {
        /// The range.
        range: Range<DateTime>,
        /// Offset of stored values that have none of their own.
        assumed: Option<UtcOffset>,
        /// Neither query nor configuration says in which time zone the range is: stored times are compared as
        /// they are.
        local: bool,
    },
    /// Some number is equal to this (IS, DS and the binary forms).
    Number(Number),
    /// Some item passes all of these (C.2.2.2.6).
    Item(Vec<Key>),
    /// Some value passes some test.
    Any(Vec<Test>),
    /// Every test is passed by some value (C.2.2.2.8).
    All(Vec<Test>),
}

/// From and to, both included; an end that is absent is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<T> {
    /// Begin.
    pub from: Option<T>,
    /// End.
    pub to: Option<T>,
}

impl<T: Ord + Copy> Range<T> {
    /// Whether a value is within.
    pub fn contains(&self, value: T) -> bool {
        self.from.is_none_or(|from| from <= value) && self.to.is_none_or(|to| value <= to)
    }
}

/// A number, whole ones exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Whole.
    Whole(i128),
    /// Any other.
    Float(f64),
}

impl Number {
    /// Reads an IS, a DS or a decimal form of a binary number; spaces around it do not count.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\0']);
        if let Ok(whole) = text.parse::<i128>() {
            return Some(Self::Whole(whole));
        }
        let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        text.parse().ok().filter(|n: &f64| plain && n.is_finite()).map(Self::of)
    }

    fn of(float: f64) -> Self {
        // Within 2^53 every whole float is that whole number exactly.
        if float.fract() == 0.0 && float.abs() < 9e15 { Self::Whole(float as i128) } else { Self::Float(float) }
    }
}

impl Key {
    /// Whether stored values match. `None` and an empty value are no value.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        self.test.matches(self.vr, value)
    }

    /// As [`Key::matches`] for values kept as text: what [`Value::Text`] has, numbers in decimal, tags as eight
    /// hexadecimal digits.
    pub fn matches_texts<S: AsRef<str>>(&self, values: &[S]) -> bool {
        self.test.matches_texts(self.vr, values)
    }

    /// Whether any value at all matches, and none.
    pub fn is_universal(&self) -> bool {
        self.test == Test::Universal
    }

    /// Begin that every match shares, for an index by [`fold_name`] of whole values (of names: of each component
    /// group).
    pub fn folded_prefix(&self) -> Option<String> {
        let prefix = match &self.test {
            Test::Exact(text) => fold_name(text),
            Test::Wildcard(pattern) => fold_name(pattern.prefix()),
            Test::Name(NameTest::Groups(groups)) => {
                groups.iter().map(|g| fold_name(g.prefix())).max_by_key(String::len).unwrap_or_default()
            }
            _ => return None,
        };
        Some(prefix).filter(|prefix| !prefix.is_empty())
    }

    /// Trigrams that every match has in one of its values, for an index by [`trigrams`] of whole values.
    pub fn required_trigrams(&self) -> Vec<String> {
        match &self.test {
            Test::Exact(text) => trigrams(&fold_name(text)),
            Test::Wildcard(pattern) => pattern.trigrams(),
            Test::Name(NameTest::Groups(groups)) => {
                // Of one group alone, for an index of groups has no value with the trigrams of two.
                groups.iter().map(GroupTest::trigrams).max_by_key(Vec::len).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

impl Test {
    fn matches(&self, vr: Vr, value: Option<&Value>) -> bool {
        let value = value.filter(|value| !value.is_empty());
        match (self, value) {
            (Self::Universal, _) => true,
            (Self::Empty, value) => value.is_none(),
            (_, None) => false,
            (Self::Any(tests), value) => tests.iter().any(|test| test.matches(vr, value)),
            (Self::All(tests), value) => tests.iter().all(|test| test.matches(vr, value)),
            (Self::Item(keys), Some(Value::Sequence(items))) => {
                items.iter().any(|item| keys.iter().all(|key| key.matches(item.get(key.tag).map(|e| &e.value))))
            }
            (_, Some(Value::Text(texts))) => self.matches_texts(vr, texts),
            (Self::Number(wanted), Some(value)) => match value {
                Value::Signed(numbers) => numbers.iter().any(|n| Number::Whole((*n).into()) == *wanted),
                Value::Unsigned(numbers) => numbers.iter().any(|n| Number::Whole((*n).into()) == *wanted),
                Value::Float(numbers) => numbers.iter().any(|n| Number::of(*n).is(*wanted, vr)),
                Value::Tags(tags) => tags.iter().any(|tag| Number::Whole(tag.0.into()) == *wanted),
                _ => false,
            },
            _ => false,
        }
    }

    fn matches_texts<S: AsRef<str>>(&self, vr: Vr, values: &[S]) -> bool {
        let empty = || values.iter().all(|value| value.as_ref().trim_matches([' ', '\0']).is_empty());
        match self {
            Self::Universal => true,
            Self::Empty => empty(),
            Self::Any(tests) => tests.iter().any(|test| test.matches_texts(vr, values)),
            Self::All(tests) => tests.iter().all(|test| test.matches_texts(vr, values)),
            _ => !empty() && values.iter().any(|value| self.matches_text(vr, value.as_ref())),
        }
    }

    /// One value, for the tests that are of one value.
    fn matches_text(&self, vr: Vr, value: &str) -> bool {
        match self {
            Self::Exact(text) => parse::trim(vr, value) == text,
            Self::Wildcard(pattern) => pattern.matches(parse::trim(vr, value)),
            Self::Name(test) => test.matches(value),
            Self::Uids(uids) => {
                let value = value.trim_matches([' ', '\0']);
                uids.binary_search_by(|uid| uid.as_str().cmp(value)).is_ok()
            }
            // Of a stored value with less precision the begin counts, as in an index.
            Self::Dates(range) => Date::parse(value).is_some_and(|period| range.contains(period.first)),
            Self::Times(range) => Time::parse(value).is_some_and(|period| range.contains(period.first)),
            Self::DateTimes { range, assumed, .. } => {
                DateTime::parse(value, *assumed).is_some_and(|period| range.contains(period.first))
            }
            Self::Number(wanted) if vr == Vr::AT => {
                Tag::parse_hex(value).is_some_and(|tag| Number::Whole(tag.0.into()) == *wanted)
            }
            Self::Number(wanted) => Number::parse(value).is_some_and(|number| number.is(*wanted, vr)),
            Self::Universal | Self::Empty | Self::Item(_) | Self::Any(_) | Self::All(_) => false,
        }
    }
}

impl Number {
    fn is(self, wanted: Self, vr: Vr) -> bool {
        match (self, wanted) {
            // A decimal text names the nearest single, not the double that a single widens to.
            (Self::Float(a), Self::Float(b)) if vr == Vr::FL => a as f32 == b as f32,
            (a, b) => a == b,
        }
    }
}
