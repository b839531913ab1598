//! Facts about patients, listed.

use crate::{
    answering::{Answers, answering},
    people::People,
    service::Shared,
};
use cairn_archive::{
    Incarnation, Offset, Partition, Position, fold::StudyKey, index_rows::FactRow, patients::PatientFact,
};
use cairn_service_api::{
    AnswerStream, Error,
    patients::{FactsOf, KnownFact},
};
use std::{collections::BTreeMap, sync::Arc};

/// Gives facts about patients: all by event, those asked for in the order of events.
pub(crate) async fn run(shared: &Arc<Shared>, tenant: String, of: FactsOf) -> Result<AnswerStream<KnownFact>, Error> {
    let pinned = shared.pinned(None).await?;
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers: Answers<KnownFact>| async move {
        let people = People::open(&pinned.rows, &tenant).await?;
        let mut found = BTreeMap::new();
        match of {
            FactsOf::Everybody => {
                for bucket in people.buckets() {
                    let mut after = None;
                    loop {
                        let (facts, next) = people.facts_of_bucket(bucket, after).await?;
                        for row in facts {
                            answers.give(known(&shared, row)).await?;
                        }
                        match next {
                            Some(next) => after = Some(next),
                            None => break,
                        }
                    }
                }
            }
            FactsOf::Patient(patient) => found = people.facts(&patient).await?,
            FactsOf::Study(study) => {
                let key = StudyKey { tenant: tenant.clone(), study_instance_uid: study.to_string() };
                for state in pinned.rows.studies_now(&[key]).await?.into_iter().flatten() {
                    for patient in state.patients() {
                        found.extend(people.facts(&patient).await?);
                    }
                }
            }
        }
        let mut found: Vec<FactRow> = found.into_values().collect();
        found.sort_by(|a, b| a.fact.order.cmp(&b.fact.order));
        for row in found {
            answers.give(known(&shared, row)).await?;
        }
        Ok(shared.was_there(&pinned).await?)
    }))
}

fn known(shared: &Shared, FactRow { fact, stamp }: FactRow) -> KnownFact {
    let log = &shared.log;
    let (incarnation, offset) = (Incarnation((stamp.0 >> 48) as u32), Offset(stamp.0 & ((1 << 48) - 1)));
    let partition = Partition::of_study("", log.partitions());
    let position = Position { site: log.site().clone(), incarnation, partition, offset };
    let PatientFact { order, said } = fact;
    KnownFact { order, said, position: (incarnation == log.incarnation()).then_some(position) }
}
