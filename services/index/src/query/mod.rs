//! Answering queries: studies by the planner's way, each checked, then what is below them; streamed as found, in
//! bounded memory.

mod availability;
mod cursor;
mod patients;
mod run;
mod seen;
mod studies;

pub(crate) use run::Walk;
pub(crate) use seen::Seen;
pub(crate) use studies::{Studies, load};

use crate::{
    answering::answering,
    people::{People, Unplanned},
    project::HeaderReader,
    rows::Rows,
    service::Shared,
};
use cairn_archive::{
    plan::{self, Plan, Returned, Wanted},
    rejection::Titles,
};
use cairn_dicom::{
    dataset::DataSet,
    matching::{MatchOptions, UnusableKey},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Reason,
    index::{Level, Query, QueryOptions, Returning},
};
use std::sync::Arc;

/// A level's name in metrics.
pub(crate) fn name(level: Level) -> &'static str {
    match level {
        Level::Patient => "patient",
        Level::Study => "study",
        Level::Series => "series",
        Level::Instance => "instance",
    }
}

fn level(level: Level) -> cairn_archive::fold::Level {
    use cairn_archive::fold::Level as Of;
    match level {
        Level::Patient => Of::Patient,
        Level::Study => Of::Study,
        Level::Series => Of::Series,
        Level::Instance => Of::Instance,
    }
}

fn options(options: QueryOptions) -> MatchOptions {
    MatchOptions {
        fuzzy_person_names: options.fuzzy_person_names,
        combined_date_time: options.combined_date_time,
        time_zone_adjustment: options.time_zone_adjustment,
        empty_value: options.empty_value,
        multiple_values: options.multiple_value,
        assumed_offset: None,
    }
}

/// A key that can't be used never means "match all".
pub(crate) fn unusable(key: UnusableKey) -> Error {
    Error::because(ErrorKind::Invalid, Reason::UnusableKey, key.to_string()).about(key.tag)
}

/// Answers a query.
pub(crate) async fn run(shared: &Arc<Shared>, query: Query) -> Result<AnswerStream<DataSet>, Error> {
    let options = options(query.options);
    // Refused before anything is answered.
    plan::plan(&query.identifier, &options).map_err(unusable)?;
    let returned = match &query.returning {
        Returning::Keys => Returned::Keys,
        Returning::DefaultAnd(tags) => Returned::DefaultAnd(tags.clone()),
        Returning::All => Returned::All,
    };
    let wanted = Wanted::new(level(query.level), &query.identifier, &returned);
    let place = shared.place().await?;
    let shared = shared.clone();
    let ahead = shared.config.answers_ahead_max;
    Ok(answering(ahead, Some(place), move |answers| async move {
        // Held to the end, so that the generation is not dropped under the query.
        let pinned = shared.pinned(query.generation).await?;
        let sees_rejected = match query.level {
            // What patients' rows say of them is what everybody is shown.
            Level::Patient => Titles::default(),
            Level::Study | Level::Series | Level::Instance => query.sees_rejected,
        };
        let (people, plan) = planned(&pinned.rows, &query, &options).await?;
        let from = (pinned.rows.clone(), query.tenant);
        let walk = Walk::new(people, from, plan, sees_rejected, &shared);
        let mut out = run::Out::new(answers, query.offset, query.limit);
        if out.is_full() {
            return Ok(());
        }
        match query.level {
            Level::Patient => patients::run(walk, &wanted, &mut out).await?,
            Level::Study => run::studies(walk, &wanted, &mut out).await?,
            Level::Series => run::series(walk, &wanted, &mut out).await?,
            Level::Instance => run::instances(walk, &wanted, &mut out).await?,
        }
        Ok(shared.was_there(&pinned).await?)
    }))
}

/// The plan of a query, with what is said of patients.
async fn planned(rows: &Rows, query: &Query, options: &MatchOptions) -> Result<(Arc<People>, Plan), Error> {
    let people = People::open(rows, &query.tenant).await?;
    let otherwise = people.otherwise(&query.identifier, options).await.map_err(|why| match why {
        Unplanned::Unusable(key) => unusable(key),
        Unplanned::Failed(error) => error,
    })?;
    let plan = plan::plan_with(&query.identifier, options, &otherwise).map_err(unusable)?;
    Ok((Arc::new(people), plan))
}

impl Walk {
    /// Headers of a study's versions.
    pub(crate) fn headers(&self, key: &cairn_archive::fold::StudyKey) -> HeaderReader {
        HeaderReader::new(self.rows.clone(), key.clone(), self.header_cache_bytes)
    }
}
