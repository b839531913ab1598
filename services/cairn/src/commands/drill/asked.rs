//! What is asked of a site in a drill, over gRPC: queries as viewers make them, and instances with their bytes.

use super::sides::Side;
use cairn_archive::Digest;
use cairn_dicom::{Uid, dataset::DataSet, tags};
use cairn_service_api::{
    Error, ErrorKind, Index, Retrieval,
    index::{Detail, InstanceRecord, Level, Query, QueryOptions, Returning, Selection},
    retrieval::Part,
};
use cairn_synthetic::Random;
use futures_util::StreamExt;
use std::time::Duration;

/// Longest time for one query or retrieval of the workload; a study's retrieval ends after so many instances.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const INSTANCES_MAX: usize = 32;
/// Answers of one page.
const PAGE: u64 = 50;
/// How deep into the list of studies samples reach, the most recent first, and how many pages of it are read.
const DEPTH: u64 = 100_000;
const PAGES: usize = 12;

/// A study to ask for, as a list of studies shows it. It stays in memory.
#[derive(Clone)]
pub struct Study {
    pub uid: Uid,
    patient_id: String,
    issuer: String,
}

fn query(side: &Side, keys: &[(cairn_dicom::Tag, &str)], offset: u64, limit: u64) -> Query {
    let mut identifier = DataSet::new();
    for tag in [tags::STUDY_DATE, tags::STUDY_INSTANCE_UID, tags::PATIENT_ID, tags::ISSUER_OF_PATIENT_ID] {
        identifier.put_empty(tag);
    }
    keys.iter().for_each(|(tag, value)| identifier.put_text(*tag, value));
    Query {
        tenant: side.tenant.clone(),
        level: Level::Study,
        identifier,
        options: QueryOptions::default(),
        returning: Returning::Keys,
        offset,
        limit: Some(limit),
        generation: None,
        sees_rejected: Default::default(),
    }
}

async fn studies(side: &Side, query: Query) -> Result<Vec<Study>, Error> {
    let mut found = side.index.query(query).await?;
    let mut studies = Vec::new();
    while let Some(answer) = found.next().await {
        let answer = answer?;
        let text = |tag| answer.text(tag).unwrap_or_default().to_owned();
        if let Some(uid) = answer.uid(tags::STUDY_INSTANCE_UID) {
            studies.push(Study { uid, patient_id: text(tags::PATIENT_ID), issuer: text(tags::ISSUER_OF_PATIENT_ID) });
        }
    }
    Ok(studies)
}

/// Studies of a site by chance, from pages of its list.
///
/// # Errors
/// The site's.
pub async fn sampled(side: &Side, random: &mut Random) -> Result<Vec<Study>, Error> {
    let total = side.index.status().await?.studies;
    let mut offsets: Vec<u64> = match total <= PAGE * PAGES as u64 {
        true => (0..total.div_ceil(PAGE)).map(|page| page * PAGE).collect(),
        false => (0..PAGES).map(|_| random.below(total.min(DEPTH) - PAGE)).collect(),
    };
    offsets.sort_unstable();
    offsets.dedup();
    let mut sampled = Vec::new();
    for offset in offsets {
        sampled.extend(studies(side, query(side, &[], offset, PAGE)).await?);
    }
    // Pages may overlap.
    sampled.sort_by(|one, other| one.uid.as_str().cmp(other.uid.as_str()));
    sampled.dedup_by(|one, other| one.uid == other.uid);
    Ok(sampled)
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// The list of studies that a viewer begins with.
///
/// # Errors
/// The site's; `some`: that there are none.
pub async fn list(side: &Side, some: bool) -> Result<u64, Error> {
    let found = studies(side, query(side, &[], 0, PAGE)).await?;
    if some && found.is_empty() { Err(wrong("no study is found")) } else { Ok(0) }
}

/// The studies of a patient, this one among them.
///
/// # Errors
/// The site's; the study is not found.
pub async fn of_patient(side: &Side, study: &Study) -> Result<u64, Error> {
    // Without an ID, or with one that means something else in a query, the study is asked for.
    if study.patient_id.is_empty() || study.patient_id.contains(['*', '?', '\\', '"']) {
        return one(side, study).await;
    }
    let mut keys = vec![(tags::PATIENT_ID, study.patient_id.as_str())];
    keys.extend((!study.issuer.is_empty()).then_some((tags::ISSUER_OF_PATIENT_ID, study.issuer.as_str())));
    let found = studies(side, query(side, &keys, 0, PAGE)).await?;
    let is_there = found.len() as u64 == PAGE || found.iter().any(|other| other.uid == study.uid);
    if is_there { Ok(0) } else { Err(wrong("a study is not found by its patient")) }
}

/// One study.
///
/// # Errors
/// The site's; the study is not found.
pub async fn one(side: &Side, study: &Study) -> Result<u64, Error> {
    let found = studies(side, query(side, &[(tags::STUDY_INSTANCE_UID, study.uid.as_str())], 0, PAGE)).await?;
    if found.len() == 1 { Ok(0) } else { Err(wrong("a study is not found by its UID")) }
}

/// Retrieves a study, or its first instances; gives how many bytes came.
///
/// # Errors
/// The site's; an instance is not whole, or there is none.
pub async fn retrieve(side: &Side, study: &Study, instances_max: usize) -> Result<u64, Error> {
    let selection = Selection {
        tenant: side.tenant.clone(),
        studies: vec![study.uid.clone()],
        as_stored: true,
        ..Selection::default()
    };
    let mut found = side.retrieval.instances(selection, Part::File).await?.take(instances_max);
    let mut bytes = 0;
    while let Some(mut instance) = found.next().await.transpose()? {
        let mut length = 0;
        while let Some(piece) = instance.bytes.next().await {
            length += piece?.len() as u64;
        }
        if length != instance.record.object.length {
            return Err(wrong("an instance is not whole"));
        }
        bytes += length;
    }
    if bytes == 0 { Err(wrong("a study has no instance to retrieve")) } else { Ok(bytes) }
}

/// The shown instances of a study, as the index of a site has them.
///
/// # Errors
/// The site's.
pub async fn records(side: &Side, study: &Study) -> Result<Vec<InstanceRecord>, Error> {
    let selection = Selection {
        tenant: side.tenant.clone(),
        studies: vec![study.uid.clone()],
        as_stored: true,
        ..Selection::default()
    };
    let mut found = side.index.instances(selection, Detail::Location).await?.take(INSTANCES_MAX);
    let mut records = Vec::new();
    while let Some(record) = found.next().await {
        records.push(record?);
    }
    Ok(records)
}

/// An instance as a site gives it: length and BLAKE3-256 of what came; `None`: it has none.
///
/// # Errors
/// The site's; that what it has is damaged too.
pub async fn bytes_of(
    side: &Side,
    (study, series, instance): (&Uid, Option<&Uid>, &Uid),
    part: Part,
) -> Result<Option<(u64, Digest)>, Error> {
    let selection = Selection {
        tenant: side.tenant.clone(),
        studies: vec![study.clone()],
        series: series.into_iter().cloned().collect(),
        instances: vec![instance.clone()],
        as_stored: true,
        ..Selection::default()
    };
    let mut found = side.retrieval.instances(selection, part).await?;
    let Some(mut instance) = found.next().await.transpose()? else { return Ok(None) };
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    while let Some(piece) = instance.bytes.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        hasher.update(&piece);
    }
    Ok(Some((length, Digest(hasher.finalize().into()))))
}
