//! Going through all studies, for whoever wants those for which an expression holds.

use crate::{
    answering::{Answers, Ended, answering},
    people::{People, PeopleOfStudy},
    query::{Studies, load},
    rows::Rows,
    service::Shared,
};
use cairn_archive::{
    SiteId,
    fold::{PatientIdentity, StudyKey, StudyState},
    index_rows::OrderKey,
};
use cairn_dicom::{Tag, Uid, dataset::DataSet, tags, temporal::Date};
use cairn_expression::{Expression, Value};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    survey::{FoundStudy, Survey, Surveyed, VARIABLES},
};
use futures_util::{TryStreamExt, stream};
use std::{pin::pin, sync::Arc};

/// Studies found that one part of an answer has at most.
const PART_FOUND: usize = 256;
/// Pages of studies that are read and looked at at once: reading waits for the store, looking for the processor.
const PAGES_AT_ONCE: usize = 4;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Answers a survey.
pub(crate) async fn run(shared: &Arc<Shared>, survey: Survey) -> Result<AnswerStream<Surveyed>, Error> {
    let expression = Expression::compile(&survey.expression, VARIABLES)
        .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
    let pinned = shared.pinned(None).await?;
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let people = People::open(&pinned.rows, &survey.tenant).await?;
        let surveying = Arc::new(Surveying {
            rows: pinned.rows.clone(),
            people,
            survey,
            expression,
            site: shared.log.site().clone(),
        });
        surveying.all(&answers).await?;
        Ok(shared.was_there(&pinned).await?)
    }))
}

/// A survey under way.
struct Surveying {
    rows: Rows,
    people: People,
    survey: Survey,
    expression: Expression,
    site: SiteId,
}

impl Surveying {
    async fn all(self: Arc<Self>, answers: &Answers<Surveyed>) -> Result<(), Ended> {
        let unusable = |_| Error::new(ErrorKind::Internal, "the list of all studies can't be asked for");
        let all = cairn_archive::plan::plan(&DataSet::new(), &Default::default()).map_err(unusable)?;
        let rows = self.rows.clone();
        let studies = Studies::new(rows, &self.survey.tenant, &all.way.with_rejected(), self.rows.page, true).await?;
        let pages = stream::try_unfold(studies, |mut studies| async move {
            let keys = studies.next_keys().await?;
            Ok::<_, Error>((!keys.is_empty()).then_some((keys, studies)))
        });
        let mut parts = pin!(pages.map_ok(|keys| Self::page(self.clone(), keys)).try_buffered(PAGES_AT_ONCE));
        while let Some(mut part) = parts.try_next().await? {
            let mut rest = part.found.split_off(part.found.len().min(PART_FOUND));
            answers.give(part).await?;
            while !rest.is_empty() {
                let next = rest.split_off(rest.len().min(PART_FOUND));
                let found = std::mem::replace(&mut rest, next);
                answers.give(Surveyed { found, ..Surveyed::default() }).await?;
            }
        }
        Ok(())
    }

    /// Looks at a page of studies, on whichever thread is free.
    async fn page(self: Arc<Self>, keys: Vec<OrderKey>) -> Result<Surveyed, Error> {
        let died = |_| Error::new(ErrorKind::Internal, "a defect of the index cut a survey short");
        tokio::spawn(async move { self.look_at(keys).await }).await.map_err(died)?
    }

    async fn look_at(&self, keys: Vec<OrderKey>) -> Result<Surveyed, Error> {
        let mut part = Surveyed::default();
        for (key, state) in load(&self.rows, &self.survey.tenant, keys, true).await? {
            part.studies += 1;
            let people = self.people.of_study(&state).await?;
            match self.expression.holds(|variable| value(variable.name, &key, (&state, &people), self.survey.at_ms)) {
                Ok(true) => part.found.push(found(&key, &state, &self.site)?),
                Ok(false) => {}
                Err(_) => part.undecided += 1,
            }
        }
        Ok(part)
    }
}

fn found(key: &StudyKey, state: &StudyState, site: &SiteId) -> Result<FoundStudy, Error> {
    let place = state.places.0.get(site);
    let not_one = |_| Error::new(ErrorKind::Internal, "a study without a UID is listed");
    Ok(FoundStudy {
        study_instance_uid: key.study_instance_uid.parse::<Uid>().map_err(not_one)?,
        patients: state.patients(),
        study_date: state.sort_key().date,
        modalities: state.modalities.iter().cloned().collect(),
        instances: state.shown,
        versions: state.versions,
        bytes: state.bytes,
        received_at_ms: state.received_at_ms,
        is_cold: place.is_some_and(|place| place.is_cold && place.order.hlc.wall_ms >= state.received_at_ms),
        recalled_at_ms: place.filter(|place| !place.is_cold).map_or(0, |place| place.order.hlc.wall_ms),
    })
}

/// What a variable is for a study. Ages are those of the latest date that is named: where instances disagree, nothing is older
/// than the youngest of them says.
fn value(name: &str, key: &StudyKey, (state, people): (&StudyState, &PeopleOfStudy), at_ms: u64) -> Value {
    let today = days(at_ms);
    match name {
        "study_uid" => Value::Text(key.study_instance_uid.clone()),
        "received_days" => match state.received_at_ms {
            0 => Value::Unknown,
            received => number(at_ms.checked_sub(received).map(|age| age / DAY_MS).unwrap_or_default()),
        },
        "study_age_days" => {
            latest(state, tags::STUDY_DATE).map_or(Value::Unknown, |date| Value::Number(today - date.days()))
        }
        "study_date" => latest(state, tags::STUDY_DATE)
            .map_or(Value::Unknown, |date| Value::Text(format!("{:08}", date.as_number()))),
        "patient_age_years" => people
            .said(tags::PATIENT_BIRTH_DATE)
            .filter_map(|text| Date::parse(&text).map(|period| period.last))
            .chain(latest(state, tags::PATIENT_BIRTH_DATE))
            .max()
            .zip(Date::of_days(today))
            .map_or(Value::Unknown, |(birth, today)| Value::Number(years(birth, today))),
        "patient_sex" => {
            people.said(tags::PATIENT_SEX).next().map_or_else(|| text(state, tags::PATIENT_SEX), Value::Text)
        }
        "patient_ids" => Value::Texts(patients(state, people).into_iter().map(|patient| patient.id).collect()),
        "issuers" => Value::Texts(patients(state, people).into_iter().map(|patient| patient.issuer).collect()),
        "accession_number" => text(state, tags::ACCESSION_NUMBER),
        "study_description" => text(state, tags::STUDY_DESCRIPTION),
        "referring_physician" => text(state, tags::REFERRING_PHYSICIAN_NAME),
        "modalities" => texts(&state.modalities),
        "sop_classes" => texts(&state.sop_classes),
        "body_parts" => texts(&state.body_parts),
        "institutions" => texts(&state.institutions),
        "senders" => texts(&state.senders),
        "series" => number(state.series),
        "instances" => number(state.shown),
        "hidden" => number(state.hidden),
        "versions" => number(state.versions),
        "bytes" => number(state.bytes),
        _ => Value::Unknown,
    }
}

/// The patients that instances name, and those into whom these were merged.
fn patients(state: &StudyState, people: &PeopleOfStudy) -> Vec<PatientIdentity> {
    let mut patients = state.patients();
    let survivors = people.iter().map(|(patient, resolution)| resolution.survivor(&patient.trimmed()).clone());
    for survivor in survivors.collect::<Vec<_>>() {
        if !patients.contains(&survivor) {
            patients.push(survivor);
        }
    }
    patients
}

fn days(at_ms: u64) -> i64 {
    i64::try_from(at_ms / DAY_MS).unwrap_or(i64::MAX)
}

/// The latest day that any variant of a date can mean.
fn latest(state: &StudyState, tag: Tag) -> Option<Date> {
    state.attributes.texts(tag).filter_map(|text| Date::parse(text).map(|period| period.last)).max()
}

fn years(birth: Date, today: Date) -> i64 {
    let ((year, month, day), (born, of_month, of_day)) = (today.parts(), birth.parts());
    i64::from(year) - i64::from(born) - i64::from((month, day) < (of_month, of_day))
}

fn text(state: &StudyState, tag: Tag) -> Value {
    state.attributes.first_text(tag).map_or(Value::Unknown, |text| Value::Text(text.to_owned()))
}

fn texts<'a>(set: impl IntoIterator<Item = &'a String>) -> Value {
    Value::Texts(set.into_iter().cloned().collect())
}

fn number(number: u64) -> Value {
    Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_its_kind_or_is_not_known() {
        let key = StudyKey { tenant: "default".into(), study_instance_uid: "1.2".into() };
        let state = StudyState { received_at_ms: 1, ..StudyState::default() };
        let nobody = PeopleOfStudy::default();
        for variable in VARIABLES {
            let value = value(variable.name, &key, (&state, &nobody), 10 * DAY_MS);
            let kind = match value {
                Value::Text(_) => Some(cairn_expression::Kind::Text),
                Value::Number(_) => Some(cairn_expression::Kind::Number),
                Value::Texts(_) => Some(cairn_expression::Kind::Texts),
                Value::Unknown => None,
            };
            assert!(kind.is_none_or(|kind| kind == variable.kind), "{}", variable.name);
        }
        assert_eq!(
            value("received_days", &key, (&StudyState::default(), &nobody), DAY_MS),
            Value::Unknown,
            "of an older fold"
        );
        assert_eq!(value("received_days", &key, (&state, &nobody), 10 * DAY_MS), Value::Number(9));
        let ahead = StudyState { received_at_ms: 20 * DAY_MS, ..StudyState::default() };
        assert_eq!(
            value("received_days", &key, (&ahead, &nobody), 10 * DAY_MS),
            Value::Number(0),
            "by a clock that was ahead"
        );
    }

    #[test]
    fn years_are_whole() {
        let date = |number: u32| Date::new(number / 10_000, number / 100 % 100, number % 100).expect("a day");
        assert_eq!(years(date(20000229), date(20260228)), 25);
        assert_eq!(years(date(20000229), date(20260301)), 26);
    }
}
