use super::{Answers, answers};
use crate::{
    convert::{part_from, record_from, record_to, selection_from},
    error::{to_detail, to_status},
    retrieval_proto::{
        self as pb, bulk_data_response, frames_response, instances_response, retrieval_service_server::RetrievalService,
    },
    streams::filled_by,
};
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error, Retrieval, retrieval::Frame, retrieval::RetrievedInstance};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::{Request, Response, Status, async_trait};

/// Serves a [`Retrieval`].
pub struct RetrievalServer(pub(super) Arc<dyn Retrieval>);

/// Bytes per message, as the wire contract says.
const CHUNK_BYTES: usize = 256 * 1024;

/// The chunks of a stream, none over [`CHUNK_BYTES`]; slices share their buffer.
fn small_chunks(bytes: AnswerStream<Bytes>) -> AnswerStream<Bytes> {
    Box::pin(bytes.flat_map(|chunk| {
        let pieces: Vec<Result<Bytes, Error>> = match chunk {
            Ok(chunk) if chunk.len() > CHUNK_BYTES => {
                let starts = (0..chunk.len()).step_by(CHUNK_BYTES);
                starts.map(|start| Ok(chunk.slice(start..chunk.len().min(start + CHUNK_BYTES)))).collect()
            }
            other => vec![other],
        };
        stream::iter(pieces)
    }))
}

type Sending<T> = Sender<Result<T, Status>>;

/// The reader went away; nobody is left to be told.
struct Gone;

async fn send<T>(sender: &Sending<T>, message: T) -> Result<(), Gone> {
    sender.send(Ok(message)).await.map_err(|_| Gone)
}

async fn send_instance(sender: &Sending<pb::InstancesResponse>, instance: RetrievedInstance) -> Result<(), Gone> {
    let message = |part| pb::InstancesResponse { part: Some(part) };
    send(sender, message(instances_response::Part::Record(record_to(&instance.record)))).await?;
    let mut chunks = small_chunks(instance.bytes);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => send(sender, message(instances_response::Part::Chunk(chunk))).await?,
            Err(error) => return send(sender, message(instances_response::Part::Failed(to_detail(&error)))).await,
        }
    }
    send(sender, message(instances_response::Part::End(true))).await
}

async fn send_instances(
    sender: &Sending<pb::InstancesResponse>,
    mut found: AnswerStream<RetrievedInstance>,
) -> Result<(), Gone> {
    while let Some(instance) = found.next().await {
        match instance {
            Ok(instance) => send_instance(sender, instance).await?,
            Err(error) => return sender.send(Err(to_status(error))).await.map_err(|_| Gone),
        }
    }
    Ok(())
}

async fn send_frames(sender: &Sending<pb::FramesResponse>, mut found: AnswerStream<Frame>) -> Result<(), Gone> {
    let message = |part| pb::FramesResponse { part: Some(part) };
    while let Some(frame) = found.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return sender.send(Err(to_status(error))).await.map_err(|_| Gone),
        };
        let start = pb::FrameStart { number: frame.number, length_bytes: frame.length };
        send(sender, message(frames_response::Part::Start(start))).await?;
        let mut chunks = small_chunks(frame.bytes);
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => send(sender, message(frames_response::Part::Chunk(chunk))).await?,
                Err(error) => return send(sender, message(frames_response::Part::Failed(to_detail(&error)))).await,
            }
        }
    }
    Ok(())
}

#[async_trait]
impl RetrievalService for RetrievalServer {
    type InstancesStream = Answers<pb::InstancesResponse>;

    async fn instances(
        &self,
        request: Request<pb::InstancesRequest>,
    ) -> Result<Response<Self::InstancesStream>, Status> {
        let request = request.into_inner();
        let selection = selection_from(request.selection).map_err(to_status)?;
        let part = part_from(request.part).map_err(to_status)?;
        let found = self.0.instances(selection, part).await.map_err(to_status)?;
        let sent = filled_by(to_status, |sender| async move {
            let _gone = send_instances(&sender, found).await;
        });
        Ok(Response::new(Box::pin(sent)))
    }

    type MetadataStream = Answers<pb::MetadataResponse>;

    async fn metadata(&self, request: Request<pb::MetadataRequest>) -> Result<Response<Self::MetadataStream>, Status> {
        let selection = selection_from(request.into_inner().selection).map_err(to_status)?;
        let found = self.0.metadata(selection).await.map_err(to_status)?;
        Ok(Response::new(answers(found, |record| pb::MetadataResponse { record: Some(record_to(&record)) })))
    }

    type OpenStream = Answers<pb::OpenResponse>;

    async fn open(&self, request: Request<pb::OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
        let request = request.into_inner();
        let record = record_from(request.record).map_err(to_status)?;
        let part = part_from(request.part).map_err(to_status)?;
        let bytes = self.0.open(&record, part).await.map_err(to_status)?;
        Ok(Response::new(answers(small_chunks(bytes), |chunk| pb::OpenResponse { chunk })))
    }

    type FramesStream = Answers<pb::FramesResponse>;

    async fn frames(&self, request: Request<pb::FramesRequest>) -> Result<Response<Self::FramesStream>, Status> {
        let request = request.into_inner();
        let record = record_from(request.record).map_err(to_status)?;
        let found = self.0.frames(&record, &request.numbers).await.map_err(to_status)?;
        let sent = filled_by(to_status, |sender| async move {
            let _gone = send_frames(&sender, found).await;
        });
        Ok(Response::new(Box::pin(sent)))
    }

    type BulkDataStream = Answers<pb::BulkDataResponse>;

    async fn bulk_data(&self, request: Request<pb::BulkDataRequest>) -> Result<Response<Self::BulkDataStream>, Status> {
        let request = request.into_inner();
        let record = record_from(request.record).map_err(to_status)?;
        let (length, bytes) = self.0.bulk_data(&record, &request.path).await.map_err(to_status)?;
        let message = |part| pb::BulkDataResponse { part: Some(part) };
        let start = stream::once(async move { Ok(message(bulk_data_response::Part::LengthBytes(length))) });
        let chunks = answers(small_chunks(bytes), move |chunk| message(bulk_data_response::Part::Chunk(chunk)));
        Ok(Response::new(Box::pin(start.chain(chunks))))
    }
}
