//! The query planner: which way leads to the studies that a query can match, and what decides whether they do.
//!
//! A way proposes; the keys decide. Whatever way is taken, the answers are the same.

mod answer;
mod view;

pub use answer::{Returned, Wanted, answer};
pub use view::{View, instance_view, series_view, study_view};

use crate::{
    fold::{Level, level_of},
    index_rows::access::{Kind, Token, exact},
};
use cairn_dicom::{
    Tag, Uid,
    dataset::DataSet,
    matching::{Key, Keys, MatchOptions, NameTest, Range, Test, UnusableKey},
    tags,
    temporal::Date,
};
use std::collections::{BTreeMap, BTreeSet};

/// Lists that are intersected at most: more would cost more than they exclude.
const LISTS_MAX: usize = 6;
/// Alternatives of one key that are united at most; a key with more is left to the check.
const ALTERNATIVES_MAX: usize = 64;
/// Years and months of which the lists of other dates are united at most.
const DATE_LISTS_MAX: usize = 64;

/// A query as it will be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The way to the studies.
    pub way: Way,
    /// Keys of patient and study.
    pub study: Keys,
    /// Keys of the series.
    pub series: Keys,
    /// Keys of the instance.
    pub instance: Keys,
    /// Instance Availability, which is of every level: it is checked for what an answer stands for.
    pub availability: Keys,
    /// Whether a key or a returned attribute is counted over a patient's studies.
    pub counts_patient: bool,
}

/// A way to studies that can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// These studies.
    Studies(Vec<Uid>),
    /// Studies with one of these series.
    Series(Vec<Uid>),
    /// Studies with one of these SOP Instances.
    Instances(Vec<Uid>),
    /// Studies in lists, in the order of answers.
    Lists(Lists),
}

/// Lists, intersected and united.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lists {
    /// One list, of studies dated within the bounds (`YYYYMMDD`, both included) where there are any.
    One {
        /// Which.
        token: Token,
        /// From this date on.
        from: Option<u32>,
        /// Up to this date.
        to: Option<u32>,
    },
    /// Studies in all of these.
    And(Vec<Lists>),
    /// Studies in some of these.
    Or(Vec<Lists>),
}

impl Lists {
    fn one(token: Token) -> Self {
        Self::One { token, from: None, to: None }
    }

    fn within(self, dates: &Range<u32>) -> Self {
        match self {
            Self::One { token, .. } => Self::One { token, from: dates.from, to: dates.to },
            Self::And(lists) => Self::And(lists.into_iter().map(|list| list.within(dates)).collect()),
            Self::Or(lists) => Self::Or(lists.into_iter().map(|list| list.within(dates)).collect()),
        }
    }
}

impl Way {
    /// The same for somebody who sees what is rejected: what a study is found by is what of it is shown to all, so lists lead
    /// past what is not. They also get every study of which something is hidden.
    #[must_use]
    pub fn with_rejected(self) -> Self {
        match self {
            Self::Lists(lists) => Self::Lists(Lists::Or(vec![lists, Lists::one(Token::rejected())])),
            by_uids => by_uids,
        }
    }

    /// Whether the way leads to every study.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Lists(Lists::One { token, from: None, to: None }) if token.kind == Kind::All)
    }
}

/// Plans a query.
///
/// # Errors
/// [`UnusableKey`]: a key's value can't be used. It never means "match all".
pub fn plan(identifier: &DataSet, options: &MatchOptions) -> Result<Plan, UnusableKey> {
    plan_with(identifier, options, &Otherwise::new())
}

/// Whom facts about patients make match a key of the patient, beside those whose instances do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// Patients with these IDs.
    Ids(BTreeSet<String>),
    /// So many that the key leads nowhere.
    Anybody,
}

/// The same for several keys.
pub type Otherwise = BTreeMap<Tag, Others>;

/// Keys that facts about patients can make match, each with lists of which every match is in all.
///
/// # Errors
/// [`UnusableKey`].
pub fn lists_of_patients(identifier: &DataSet, options: &MatchOptions) -> Result<Vec<(Tag, Vec<Lists>)>, UnusableKey> {
    let keys = Keys::parse(identifier, options)?;
    let of_patients = keys.keys.iter().filter(|key| matches!(key.tag, tags::PATIENT_ID | tags::PATIENT_NAME));
    let lists = of_patients.map(|key| (key.tag, lists_of(key).into_iter().map(|(_, lists)| lists).collect()));
    Ok(lists.filter(|(_, lists): &(_, Vec<Lists>)| !lists.is_empty()).collect())
}

/// Plans a query of which some keys match others too than those whose instances say so.
///
/// # Errors
/// [`UnusableKey`].
pub fn plan_with(identifier: &DataSet, options: &MatchOptions, others: &Otherwise) -> Result<Plan, UnusableKey> {
    let keys = Keys::parse(identifier, options)?;
    let counts = [
        tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
        tags::NUMBER_OF_PATIENT_RELATED_SERIES,
        tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
    ];
    Ok(Plan {
        way: way(&keys, others),
        counts_patient: counts.iter().any(|tag| identifier.get(*tag).is_some()),
        study: of_levels(&keys, |level| level <= Level::Study),
        series: of_levels(&keys, |level| level == Level::Series),
        instance: of_levels(&keys, |level| level == Level::Instance),
        availability: keys_of(&keys, is_availability),
    })
}

fn is_availability(tag: Tag) -> bool {
    tag == tags::INSTANCE_AVAILABILITY
}

fn of_levels(keys: &Keys, wanted: impl Fn(Level) -> bool) -> Keys {
    keys_of(keys, |tag| !is_availability(tag) && wanted(level_of(tag)))
}

fn keys_of(keys: &Keys, wanted: impl Fn(Tag) -> bool) -> Keys {
    Keys {
        keys: keys.keys.iter().filter(|key| wanted(key.tag)).cloned().collect(),
        combined: keys.combined.iter().filter(|pair| wanted(pair.date)).copied().collect(),
        query_offset: keys.query_offset,
        assumed_offset: keys.assumed_offset,
    }
}

/// Whether there is nothing to check.
pub fn is_universal(keys: &Keys) -> bool {
    keys.keys.is_empty() && keys.combined.is_empty()
}

/// The most selective way: by UIDs, else by whole identifiers, else by all lists that narrow.
fn way(keys: &Keys, others: &Otherwise) -> Way {
    let uids = |tag: Tag| {
        keys.keys.iter().find(|key| key.tag == tag).and_then(|key| match &key.test {
            Test::Uids(uids) => Some(uids.clone()),
            _ => None,
        })
    };
    if let Some(studies) = uids(tags::STUDY_INSTANCE_UID) {
        return Way::Studies(studies);
    }
    if let Some(instances) = uids(tags::SOP_INSTANCE_UID) {
        return Way::Instances(instances);
    }
    if let Some(series) = uids(tags::SERIES_INSTANCE_UID) {
        return Way::Series(series);
    }
    let lists_with = |key: &Key| with_others(lists_of(key), others.get(&key.tag));
    let mut lists: Vec<(Kind, Lists)> = keys.keys.iter().flat_map(lists_with).collect();
    lists.sort_by_key(|(kind, _)| rank(*kind));
    if lists.first().is_some_and(|(kind, _)| rank(*kind) == 0) {
        // A whole identifier leads to so few that anything else only costs.
        lists.truncate(1);
    }
    lists.truncate(LISTS_MAX);
    let lists: Vec<Lists> = lists.into_iter().map(|(_, list)| list).collect();
    let conjunction = match <[Lists; 1]>::try_from(lists) {
        Ok([only]) => only,
        Err(none) if none.is_empty() => Lists::one(Token::all()),
        Err(several) => Lists::And(several),
    };
    Way::Lists(match dates(keys) {
        Some(dates) => by_date(conjunction, &dates),
        None => conjunction,
    })
}

/// The lists of a key, and those of whoever matches it otherwise.
fn with_others(lists: Vec<(Kind, Lists)>, others: Option<&Others>) -> Vec<(Kind, Lists)> {
    let (Some(others), Some(kind)) = (others, lists.first().map(|(kind, _)| *kind)) else { return lists };
    let Others::Ids(ids) = others else { return Vec::new() };
    let own = Lists::And(lists.into_iter().take(LISTS_MAX).map(|(_, list)| list).collect());
    let of_ids = ids.iter().map(|id| Lists::one(Token::new(Kind::PatientId, exact(id))));
    vec![(kind, Lists::Or(std::iter::once(own).chain(of_ids).collect()))]
}

impl Lists {
    /// Tokens of which every member of these lists is in one.
    pub fn some_tokens(&self) -> Vec<&Token> {
        match self {
            Self::One { token, .. } => vec![token],
            Self::Or(lists) => lists.iter().flat_map(Self::some_tokens).collect(),
            Self::And(lists) => lists.first().map(Self::some_tokens).unwrap_or_default(),
        }
    }

    /// Lists of patients with these IDs.
    pub fn of_patients<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        let of_id = |id| Self::one(Token::new(Kind::PatientId, exact(id)));
        Self::Or(ids.into_iter().map(of_id).collect())
    }
}

/// What narrows most comes first.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::PatientId | Kind::AccessionNumber => 0,
        Kind::OtherDate => 1,
        Kind::NameTrigram | Kind::PatientIdTrigram | Kind::AccessionNumberTrigram => 2,
        Kind::NameStart => 3,
        Kind::DescriptionTrigram => 4,
        Kind::Modality => 5,
        Kind::All | Kind::Rejected => 6,
    }
}

/// Lists that every match of a key is in.
fn lists_of(key: &Key) -> Vec<(Kind, Lists)> {
    match key.tag {
        tags::PATIENT_ID => identifier_lists(key, Kind::PatientId, Kind::PatientIdTrigram),
        tags::ACCESSION_NUMBER => identifier_lists(key, Kind::AccessionNumber, Kind::AccessionNumberTrigram),
        tags::STUDY_DESCRIPTION => trigram_lists(key, Kind::DescriptionTrigram),
        tags::MODALITIES_IN_STUDY | tags::MODALITY => whole(key, Kind::Modality).into_iter().collect(),
        tags::PATIENT_NAME => name_lists(key),
        _ => Vec::new(),
    }
}

fn identifier_lists(key: &Key, whole_kind: Kind, parts: Kind) -> Vec<(Kind, Lists)> {
    match whole(key, whole_kind) {
        Some(list) => vec![list],
        None => trigram_lists(key, parts),
    }
}

/// Lists of whole values, if the key names such.
fn whole(key: &Key, kind: Kind) -> Option<(Kind, Lists)> {
    let list = |test: &Test| match test {
        Test::Exact(text) => Some(Lists::one(Token::new(kind, exact(text)))),
        _ => None,
    };
    match &key.test {
        Test::Any(tests) if tests.len() <= ALTERNATIVES_MAX => {
            Some((kind, Lists::Or(tests.iter().map(list).collect::<Option<_>>()?)))
        }
        Test::All(tests) => Some((kind, Lists::And(tests.iter().map(list).collect::<Option<_>>()?))),
        test => Some((kind, list(test)?)),
    }
}

fn trigram_lists(key: &Key, kind: Kind) -> Vec<(Kind, Lists)> {
    let trigrams = key.required_trigrams();
    trigrams.into_iter().map(|trigram| (kind, Lists::one(Token::new(kind, trigram)))).collect()
}

fn name_lists(key: &Key) -> Vec<(Kind, Lists)> {
    let starts = match &key.test {
        Test::Name(NameTest::Words(words)) => words.clone(),
        _ => key.folded_prefix().into_iter().collect(),
    };
    let starts: Vec<Token> = starts.iter().filter_map(|start| Token::name_start(start)).collect();
    let mut trigrams = key.required_trigrams();
    // What begins with a start has the start's own trigrams: their lists exclude nothing more.
    trigrams.retain(|trigram| !starts.iter().any(|start| start.text.contains(trigram.as_str())));
    let mut lists: Vec<(Kind, Lists)> = starts.into_iter().map(|token| (Kind::NameStart, Lists::one(token))).collect();
    lists.extend(trigrams.into_iter().map(|text| (Kind::NameTrigram, Lists::one(Token::new(Kind::NameTrigram, text)))));
    lists
}

/// The dates that Study Date is asked to be within, a day more at either end where time zones are adjusted.
fn dates(keys: &Keys) -> Option<Range<u32>> {
    let single = keys.keys.iter().find_map(|key| match &key.test {
        Test::Dates(range) if key.tag == tags::STUDY_DATE => Some(*range),
        _ => None,
    });
    let combined = keys.combined.iter().find(|pair| pair.date == tags::STUDY_DATE).map(|pair| pair.dates);
    let range = single.or(combined)?;
    let number = |date: Option<Date>| date.map(Date::as_number);
    let mut range = Range { from: number(range.from), to: number(range.to) };
    if keys.query_offset.is_some() {
        range.from = range.from.map(day_before);
        range.to = range.to.map(day_after);
    }
    Some(range)
}

/// At most the day before, as a number that compares; not always a day of the calendar.
fn day_before(date: u32) -> u32 {
    match (date / 10_000, date / 100 % 100, date % 100) {
        (_, _, 2..) => date - 1,
        (year, 2.., _) => year * 10_000 + (date / 100 % 100 - 1) * 100 + 31,
        (year, ..) => year.saturating_sub(1) * 10_000 + 1_231,
    }
}

/// At least the day after, as a number that compares.
fn day_after(date: u32) -> u32 {
    match (date / 10_000, date / 100 % 100, date % 100) {
        (_, _, ..28) => date + 1,
        (year, month @ ..12, _) => year * 10_000 + (month + 1) * 100 + 1,
        (year, ..) => (year + 1) * 10_000 + 101,
    }
}

/// Studies whose own date is within, and those of which some instance says a date that may be.
fn by_date(conjunction: Lists, dates: &Range<u32>) -> Lists {
    let others = other_dates(dates).into_iter().map(|text| Lists::one(Token::new(Kind::OtherDate, text))).collect();
    let within = conjunction.clone().within(dates);
    let outside = match conjunction {
        Lists::One { token, .. } if token.kind == Kind::All => Lists::Or(others),
        Lists::And(mut lists) => {
            lists.insert(0, Lists::Or(others));
            Lists::And(lists)
        }
        other => Lists::And(vec![Lists::Or(others), other]),
    };
    Lists::Or(vec![within, outside])
}

/// Tokens of [`Kind::OtherDate`] for a range: whole years within and months at its ends, or every other date where the
/// range is open or long.
fn other_dates(dates: &Range<u32>) -> Vec<String> {
    let every = vec!["*".to_owned()];
    let Range { from: Some(from), to: Some(to) } = *dates else { return every };
    let mut texts = vec!["?".to_owned()];
    for year in from / 10_000..=(to / 10_000).min(from / 10_000 + DATE_LISTS_MAX as u32) {
        let first = if year == from / 10_000 { from / 100 % 100 } else { 1 };
        let last = if year == to / 10_000 { to / 100 % 100 } else { 12 };
        match (first, last) {
            (..=1, 12..) => texts.push(format!("{year:04}")),
            (first, last) => texts.extend((first..=last).map(|month| format!("{year:04}{month:02}"))),
        }
    }
    if texts.len() > DATE_LISTS_MAX { every } else { texts }
}
