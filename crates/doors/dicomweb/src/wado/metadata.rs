use super::instances::uids_of;
use crate::{
    body::AnswerBody,
    door::Door,
    problem::{Answer, Problem},
    qido::bracketed,
    render,
    request::{Address, Call},
    respond::{DICOM_JSON, HeldBack, JSON, Representation},
};
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error, ErrorKind, index::InstanceRecord};
use futures_util::{StreamExt, stream};
use std::sync::{Arc, Mutex, PoisonError};

/// Headers rendered by one task.
const RECORDS_PER_TASK: usize = 32;
/// Tasks that render at once: with their reader they keep two processors busy.
const TASKS: usize = 3;

/// The metadata of a study, of a series, or of one instance.
pub(crate) async fn metadata(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let media_type = call.accept.choose(&[DICOM_JSON, JSON]);
    let media_type = media_type.ok_or_else(|| Problem::not_acceptable("metadata are given as DICOM JSON"))?;
    let found = door.services.retrieval.metadata(door.selection(&call));
    let (first, rest) = door.first(found).await?.ok_or_else(Problem::not_found)?;
    let versions = Arc::new(Mutex::new(blake3::Hasher::new()));
    let records = Box::pin(stream::iter([Ok(first)]).chain(rest));
    let body = rendered(records, call.address.clone(), Arc::clone(&versions));
    let held = door.within(HeldBack::read(body, door.config.limits.metadata_buffer_bytes)).await?;
    let length = held.length();
    // What is too large to be held back has no entity tag: its versions are known only at its end.
    let etag = length.map(|_| {
        versions.lock().unwrap_or_else(PoisonError::into_inner).update(call.address.path(&call.uids).as_bytes());
        let hash = versions.lock().unwrap_or_else(PoisonError::into_inner).finalize();
        format!("\"{}\"", hash.to_hex())
    });
    // The length is known but not offered for ranges: a part of a JSON text helps nobody.
    let representation = Representation { content_type: media_type.into(), etag, length: None };
    match length {
        Some(_) => representation.answer(&door, &call, async |_| Ok(held.into_stream())).await,
        None => {
            let body = AnswerBody::body(held.into_stream(), None);
            representation.response(axum::http::StatusCode::OK, body)
        }
    }
}

/// A JSON array of metadata, rendered by several tasks, in order.
fn rendered(
    records: AnswerStream<InstanceRecord>,
    address: Address,
    versions: Arc<Mutex<blake3::Hasher>>,
) -> AnswerStream<Bytes> {
    let chunks = records
        .ready_chunks(RECORDS_PER_TASK)
        .map(move |batch| {
            let batch: Result<Vec<_>, Error> = batch.into_iter().collect();
            if let Ok(records) = &batch {
                let mut hasher = versions.lock().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    hasher.update(record.store_event.as_bytes());
                    hasher.update(&record.object.digest.0);
                }
            }
            let address = address.clone();
            async move {
                let batch = batch?;
                let task = tokio::spawn(async move { render_batch(&batch, &address) });
                task.await.map_err(|_| Error::new(ErrorKind::Internal, "rendering metadata ended unexpectedly"))
            }
        })
        .buffered(TASKS);
    Box::pin(bracketed(chunks))
}

fn render_batch(records: &[InstanceRecord], address: &Address) -> Bytes {
    let mut json = Vec::with_capacity(records.iter().map(|record| record.header.len() * 3 + 64).sum());
    for record in records {
        json.push(b',');
        render::write_record(&mut json, record, &format!("{}/bulkdata", address.path(&uids_of(record))));
    }
    json.into()
}
