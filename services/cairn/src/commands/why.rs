//! `cairn why`: every event that made a study, a series, an instance or a patient what it is.

mod history;
mod words;

use super::{Failure, index, patient::Facts, table::Rows};
use crate::cli::{Output, ServerArgs};
use cairn_archive::{envelope::rfc3339, rejection::Titles};
use cairn_dicom::{Tag, Uid, dataset::DataSet, tags};
use cairn_service_api::{
    Error, Index,
    index::{Level, Query, QueryOptions, Returning},
    parked::ParkedSelection,
    patients::FactsOf,
};
use cairn_service_grpc::client::IndexClient;
use clap::Args;
use futures_util::TryStreamExt;
use history::{About, History};
use std::collections::BTreeSet;

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Study, Series or SOP Instance UID; or a patient as ISSUER|ID
    pub what: String,
    /// How results are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

pub async fn run(args: WhyArgs) -> Result<(), Failure> {
    let index = index(&args.server)?;
    let found = match args.what.split_once('|') {
        Some((issuer, id)) => of_patient(&index, &args.server.tenant, issuer, id).await?,
        None => of_uid(&index, &args.server.tenant, &args.what.parse().map_err(Failure::usage)?).await?,
    };
    if found.is_empty() {
        return Err(Failure::failed("nothing is known under that name"));
    }
    let columns = [("Time", 24), ("Position", 18), ("What", 100), ("Instance", 44), ("Study", 44)];
    let mut rows = Rows::new(args.output, &columns);
    for (study, about) in &found {
        tell(&args.server, &index, study, about, &mut rows).await?;
    }
    rows.flush()
}

/// A line for each event of a study that is about what was asked for, in the order of events; then what was said of its patients, and
/// what could not be folded.
async fn tell(
    server: &ServerArgs,
    index: &IndexClient,
    study: &Uid,
    about: &About,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let history = History::read(server, index, study).await?;
    for told in history.events.iter().filter(|told| told.is_about(about)) {
        rows.row(&[
            rfc3339(told.order.hlc.wall_ms),
            told.position.to_string(),
            words::of(told, &history),
            told.instance().map(ToString::to_string).unwrap_or_default(),
            study.to_string(),
        ])?;
    }
    for told in Facts::read(server, FactsOf::Study(study.clone())).await?.told(server).await? {
        rows.row(&[
            rfc3339(told.fact.order.hlc.wall_ms),
            told.position.to_string(),
            told.words(),
            String::new(),
            study.to_string(),
        ])?;
    }
    let selection = ParkedSelection { study: Some((server.tenant.clone(), study.to_string())) };
    let mut parked = index.parked(selection).await?;
    while let Some(parked) = parked.try_next().await? {
        rows.row(&[
            rfc3339(parked.happened_at_ms),
            parked.position.to_string(),
            format!("{}: is parked, and counts for nothing yet: {}", parked.event_type, parked.explanation),
            String::new(),
            study.to_string(),
        ])?;
    }
    Ok(())
}

/// What a UID names: a study, else a series, else an instance, wherever it is.
async fn of_uid(index: &IndexClient, tenant: &str, uid: &Uid) -> Result<Vec<(Uid, About)>, Failure> {
    if index.study_events(tenant, uid, Vec::new()).await?.try_next().await?.is_some() {
        return Ok(vec![(uid.clone(), About::Everything)]);
    }
    for (level, tag, about) in [
        (Level::Series, tags::SERIES_INSTANCE_UID, About::Series(uid.clone())),
        (Level::Instance, tags::SOP_INSTANCE_UID, About::Instance(uid.clone())),
    ] {
        let studies = studies(index, tenant, level, &[(tag, uid.as_str())]).await?;
        if !studies.is_empty() {
            return Ok(studies.into_iter().map(|study| (study, about.clone())).collect());
        }
    }
    Ok(Vec::new())
}

async fn of_patient(index: &IndexClient, tenant: &str, issuer: &str, id: &str) -> Result<Vec<(Uid, About)>, Failure> {
    let keys = [(tags::PATIENT_ID, id), (tags::ISSUER_OF_PATIENT_ID, issuer)];
    let studies = studies(index, tenant, Level::Study, &keys).await?;
    Ok(studies.into_iter().map(|study| (study, About::Everything)).collect())
}

/// Studies in which something matches, whatever it is rejected under.
async fn studies(
    index: &IndexClient,
    tenant: &str,
    level: Level,
    keys: &[(Tag, &str)],
) -> Result<BTreeSet<Uid>, Error> {
    let mut identifier = DataSet::new();
    identifier.put_empty(tags::STUDY_INSTANCE_UID);
    keys.iter().filter(|(_, text)| !text.is_empty()).for_each(|(tag, text)| identifier.put_text(*tag, text));
    let query = Query {
        tenant: tenant.to_owned(),
        level,
        identifier,
        options: QueryOptions::default(),
        returning: Returning::Keys,
        offset: 0,
        limit: None,
        generation: None,
        sees_rejected: Titles::ALL,
    };
    let answers: Vec<DataSet> = index.query(query).await?.try_collect().await?;
    Ok(answers.iter().filter_map(|answer| answer.uid(tags::STUDY_INSTANCE_UID)).collect())
}
