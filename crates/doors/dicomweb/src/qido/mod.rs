//! QIDO-RS: searching (PS3.18 section 10.6, edition 2025c).

mod parse;

use crate::{
    door::Door,
    problem::{Answer, Problem},
    request::{Call, PathUids},
    respond::{DICOM_JSON, HeldBack, JSON, Representation, set},
};
use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use bytes::Bytes;
use cairn_dicom::{DataSet, Tag, json, tags};
use cairn_service_api::{
    AnswerStream, Error,
    index::{Level, Query, Returning},
};
use futures_util::{StreamExt, stream};
use parse::Search;
use std::sync::Arc;

/// Answers rendered into one chunk at most.
const ANSWERS_PER_CHUNK: usize = 64;

/// Reads a search, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(call: &Call, limits: &crate::Limits) {
    let _ = Search::read(call, limits);
}

/// Studies that match.
pub(crate) async fn studies(door: Arc<Door>, call: Call) -> Answer {
    search(&door, &call, Level::Study).await
}

/// Series that match, of a study or of all.
pub(crate) async fn series(door: Arc<Door>, call: Call) -> Answer {
    search(&door, &call, Level::Series).await
}

/// Instances that match, of a series, of a study or of all.
pub(crate) async fn instances(door: Arc<Door>, call: Call) -> Answer {
    search(&door, &call, Level::Instance).await
}

/// Patients that match: not in the Standard, but the same in all else.
pub(crate) async fn patients(door: Arc<Door>, call: Call) -> Answer {
    search(&door, &call, Level::Patient).await
}

/// What viewers show in their lists beyond what PS3.18 Tables 10.6.3-3 to -5 demand.
fn also_returned(level: Level) -> &'static [Tag] {
    const STUDY: &[Tag] = &[tags::STUDY_DESCRIPTION, tags::REFERRING_PHYSICIAN_NAME];
    const SERIES: &[Tag] = &[
        tags::SERIES_DESCRIPTION,
        tags::SERIES_NUMBER,
        tags::SERIES_DATE,
        tags::SERIES_TIME,
        tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
    ];
    match level {
        Level::Patient | Level::Instance => &[],
        Level::Study => STUDY,
        Level::Series => SERIES,
    }
}

async fn search(door: &Door, call: &Call, level: Level) -> Answer {
    let media_type = call.accept.choose(&[DICOM_JSON, JSON]);
    let media_type = media_type.ok_or_else(|| Problem::not_acceptable("results are DICOM JSON"))?;
    let search = Search::read(call, &door.config.limits)?;
    let most = door.config.limits.query_results_max;
    let capped = search.limit.is_none_or(|limit| limit > most);
    let limit = search.limit.unwrap_or(most).min(most);
    if limit == 0 {
        return Ok(no_content());
    }
    let query = Query {
        tenant: door.config.tenant.clone(),
        level,
        identifier: search.identifier,
        options: search.options,
        returning: match search.include_all {
            true => Returning::All,
            false => Returning::DefaultAnd(also_returned(level).iter().copied().chain(search.include).collect()),
        },
        offset: search.offset,
        limit: Some(limit),
        generation: None,
        sees_rejected: door.config.titles_seen(),
    };
    let Some((first, rest)) = door.first(door.services.index.query(query.clone())).await? else {
        return Ok(no_content());
    };
    let answers = Box::pin(stream::iter([Ok(first)]).chain(rest));
    let body = rendered(answers, level, call);
    let bound = if capped { door.config.limits.answer_buffer_bytes } else { 0 };
    let held = door.within(HeldBack::read(body, bound)).await?;
    let truncated = capped && held.length().is_none() && exceeds(door, query, most).await?;
    let representation = Representation { content_type: media_type.into(), etag: None, length: None };
    let mut response =
        representation.response(StatusCode::OK, crate::body::AnswerBody::body(held.into_stream(), None))?;
    set(&mut response, header::CACHE_CONTROL, "no-store")?;
    if truncated {
        // PS3.18 section 8.3.4.4
        let text = "The number of results exceeded the maximum supported by the server. \
                    Additional results can be requested.";
        set(&mut response, header::WARNING, &format!("299 {}: {text}", door.config.service_name))?;
    }
    Ok(response)
}

/// Whether there are more than `most` answers from the query's offset on.
async fn exceeds(door: &Door, query: Query, most: u64) -> Result<bool, Problem> {
    let beyond = Query {
        offset: query.offset.saturating_add(most),
        limit: Some(1),
        returning: Returning::DefaultAnd(Vec::new()),
        ..query
    };
    Ok(door.first(door.services.index.query(beyond)).await?.is_some())
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A JSON array of answers, in chunks as they are found.
fn rendered(answers: AnswerStream<DataSet>, level: Level, call: &Call) -> AnswerStream<Bytes> {
    let (address, path) = (call.address.clone(), call.uids.clone());
    let chunks = answers.ready_chunks(ANSWERS_PER_CHUNK).map(move |batch| {
        let mut chunk = Vec::with_capacity(1024 * batch.len());
        for answer in batch {
            let mut answer = answer?;
            if let Some(uids) = uids_of(&answer, level, &path) {
                answer.put_text(tags::RETRIEVE_URL, &address.retrieve_url(&uids));
            }
            chunk.push(b',');
            json::write_data_set(&mut chunk, &answer);
        }
        Ok(Bytes::from(chunk))
    });
    Box::pin(bracketed(chunks))
}

/// Makes one JSON array of chunks of objects, each object with a comma before it.
pub(crate) fn bracketed(
    chunks: impl futures_core::Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let mut first = true;
    let chunks = chunks.map(move |chunk| {
        let chunk = chunk?;
        if !std::mem::take(&mut first) {
            return Ok(chunk);
        }
        let mut owned = chunk.try_into_mut().unwrap_or_else(|shared| bytes::BytesMut::from(&shared[..]));
        if let Some(comma) = owned.first_mut() {
            *comma = b'[';
        }
        Ok(owned.freeze())
    });
    chunks.chain(stream::iter([Ok(Bytes::from_static(b"]"))]))
}

/// The UIDs that an answer stands for, down to the level; `None` where it does not say them.
fn uids_of(answer: &DataSet, level: Level, path: &PathUids) -> Option<PathUids> {
    let uid = |tag, from_path: &Option<cairn_dicom::Uid>| answer.uid(tag).or_else(|| from_path.clone());
    let needs = |least: Level, uid: Option<cairn_dicom::Uid>| match level >= least {
        true => uid.map(Some),
        false => Some(None),
    };
    if level == Level::Patient {
        return None;
    }
    Some(PathUids {
        study: needs(Level::Study, uid(tags::STUDY_INSTANCE_UID, &path.study))?,
        series: needs(Level::Series, uid(tags::SERIES_INSTANCE_UID, &path.series))?,
        instance: needs(Level::Instance, uid(tags::SOP_INSTANCE_UID, &path.instance))?,
    })
}
