//! `cairn query`: asks the index over gRPC.

use super::{Failure, index, table::Rows};
use crate::{
    cli::{QueryArgs, QueryLevel},
    config::titles,
};
use cairn_dicom::{Tag, dataset::DataSet, dictionary, tags};
use cairn_service_api::{
    Index,
    index::{Level, Query, QueryOptions, Returning},
};
use futures_util::StreamExt;

pub async fn run(args: QueryArgs) -> Result<(), Failure> {
    let (level, columns) = shape(args.level);
    let mut shown: Vec<Tag> = columns.to_vec();
    let mut identifier = DataSet::default();
    for tag in columns {
        identifier.put_empty(*tag);
    }
    for key in &args.include {
        let tag = parse_tag(key)?;
        identifier.put_empty(tag);
        shown.push(tag);
    }
    for key in &args.keys {
        let (name, value) = key.split_once('=').ok_or_else(|| Failure::usage(format!("{key:?} is not KEY=VALUE")))?;
        let tag = parse_tag(name)?;
        identifier.put_text(tag, value);
        if !shown.contains(&tag) {
            shown.push(tag);
        }
    }
    let query = Query {
        tenant: args.server.tenant.clone(),
        level,
        identifier,
        options: QueryOptions { fuzzy_person_names: args.fuzzy, ..QueryOptions::default() },
        returning: Returning::Keys,
        offset: args.offset,
        limit: Some(args.limit),
        generation: args.generation,
        sees_rejected: titles(&args.sees_rejected).map_err(Failure::usage)?,
    };
    let columns: Vec<(&'static str, usize)> = shown.iter().map(|tag| column(*tag)).collect();
    let mut rows = Rows::new(args.output, &columns);
    let mut found = index(&args.server)?.query(query).await?;
    while let Some(answer) = found.next().await {
        let answer = answer?;
        rows.row(&shown.iter().map(|tag| answer.texts(*tag).join("\\")).collect::<Vec<_>>())?;
    }
    rows.flush()
}

fn shape(level: QueryLevel) -> (Level, &'static [Tag]) {
    use tags::*;
    match level {
        QueryLevel::Patients => (
            Level::Patient,
            &[PATIENT_ID, ISSUER_OF_PATIENT_ID, PATIENT_NAME, PATIENT_BIRTH_DATE, NUMBER_OF_PATIENT_RELATED_STUDIES],
        ),
        QueryLevel::Studies => (
            Level::Study,
            &[
                STUDY_DATE,
                MODALITIES_IN_STUDY,
                PATIENT_ID,
                PATIENT_NAME,
                ACCESSION_NUMBER,
                NUMBER_OF_STUDY_RELATED_INSTANCES,
                STUDY_DESCRIPTION,
                STUDY_INSTANCE_UID,
            ],
        ),
        QueryLevel::Series => (
            Level::Series,
            &[MODALITY, SERIES_NUMBER, NUMBER_OF_SERIES_RELATED_INSTANCES, SERIES_DESCRIPTION, SERIES_INSTANCE_UID],
        ),
        QueryLevel::Instances => (Level::Instance, &[INSTANCE_NUMBER, SOP_CLASS_UID, SOP_INSTANCE_UID]),
    }
}

pub fn parse_tag(name: &str) -> Result<Tag, Failure> {
    Tag::parse_hex(name)
        .or_else(|| dictionary::tag_of(name))
        .ok_or_else(|| Failure::usage(format!("{name:?} is no keyword or tag of the data dictionary")))
}

fn column(tag: Tag) -> (&'static str, usize) {
    let name = dictionary::keyword_of(tag).unwrap_or("Value");
    let width = match tag {
        tags::STUDY_DATE | tags::PATIENT_BIRTH_DATE => 10,
        tags::PATIENT_NAME | tags::STUDY_DESCRIPTION | tags::SERIES_DESCRIPTION => 28,
        tags::SOP_CLASS_UID => 30,
        _ => 14,
    };
    (name, width.max(name.len()))
}
