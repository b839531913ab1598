use super::instances::uids_of;
use crate::{
    body::AnswerBody,
    door::{Door, METADATA_ROOM_PIECE},
    problem::{Answer, Problem},
    qido::bracketed,
    render,
    request::{Address, Call},
    respond::{DICOM_JSON, JSON, Representation},
};
use axum::http::StatusCode;
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error, ErrorKind, index::InstanceRecord};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    let records = Box::pin(stream::iter([Ok(first)]).chain(rest));
    let bound = door.config.limits.metadata_buffer_bytes;
    let held = door.within(HeldRecords::read(records, bound, &door.metadata_room)).await?;
    let etag = held.entity_tag(&call);
    // The length is not known: what was held back is rendered while it is sent.
    let representation = Representation { content_type: media_type.into(), etag, length: None };
    let body = rendered(held, call.address.clone());
    match representation.etag {
        Some(_) => representation.answer(&door, &call, async |_| Ok(body)).await,
        None => representation.response(StatusCode::OK, AnswerBody::body(body, None)),
    }
}

/// The records that an answer is made of, held back until its status and header fields can be decided.
struct HeldRecords {
    held: Vec<InstanceRecord>,
    /// More, if there were too many.
    rest: Option<AnswerStream<InstanceRecord>>,
    /// What they take of the room that all requests share.
    room: Vec<OwnedSemaphorePermit>,
}

impl HeldRecords {
    /// Reads records until they end, take more than `bound` bytes, or find no room among those of others.
    async fn read(
        mut records: AnswerStream<InstanceRecord>,
        bound: usize,
        shared: &Arc<Semaphore>,
    ) -> Result<Self, Error> {
        let (mut held, mut room, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes <= bound {
            let Some(record) = records.next().await.transpose()? else { return Ok(Self { held, rest: None, room }) };
            bytes += size_of::<InstanceRecord>() + record.header.len();
            held.push(record);
            while bytes > (room.len() + 1) * METADATA_ROOM_PIECE {
                let Ok(piece) = Arc::clone(shared).try_acquire_owned() else {
                    return Ok(Self { held, rest: Some(records), room });
                };
                room.push(piece);
            }
        }
        Ok(Self { held, rest: Some(records), room })
    }

    /// Tells these versions under this address from others. What is too large to be held back has none: its versions are
    /// known only at its end.
    fn entity_tag(&self, call: &Call) -> Option<String> {
        if self.rest.is_some() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for record in &self.held {
            hasher.update(record.store_event.as_bytes());
            hasher.update(record.given_name().as_bytes());
        }
        hasher.update(call.address.lasting_url(&call.uids).as_bytes());
        Some(format!("\"{}\"", hasher.finalize().to_hex()))
    }

    /// All of them, some at a time.
    fn batches(self) -> AnswerStream<Vec<InstanceRecord>> {
        let (mut held, mut room) = (self.held.into_iter(), self.room);
        let held = stream::iter(std::iter::from_fn(move || {
            let batch: Vec<_> = held.by_ref().take(RECORDS_PER_TASK).collect();
            if batch.is_empty() {
                room.clear();
            }
            (!batch.is_empty()).then_some(Ok(batch))
        }));
        match self.rest {
            None => Box::pin(held),
            Some(rest) => {
                Box::pin(held.chain(rest.ready_chunks(RECORDS_PER_TASK).map(|batch| batch.into_iter().collect())))
            }
        }
    }
}

/// A JSON array of metadata, rendered by several tasks, in order.
fn rendered(records: HeldRecords, address: Address) -> AnswerStream<Bytes> {
    let chunks = records
        .batches()
        .map(move |batch| {
            let address = address.clone();
            async move {
                let batch = batch?;
                let render = move || {
                    let prefix =
                        |record: &InstanceRecord| format!("{}/bulkdata", address.lasting_url(&uids_of(record)));
                    Bytes::from(render::write_records(&batch, prefix))
                };
                let task = tokio::spawn(async move { render() });
                task.await.map_err(|_| Error::new(ErrorKind::Internal, "rendering metadata ended unexpectedly"))
            }
        })
        .buffered(TASKS);
    Box::pin(bracketed(chunks))
}
