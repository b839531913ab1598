use super::{
    Connection, Wire, answers,
    peers::{Again::Safe, Peers, call},
};
use crate::{
    convert::{part_to, record_from, record_to, selection_to},
    error::{from_detail, from_status, malformed},
    retrieval_proto::{
        self as pb, bulk_data_response, frames_response, instances_response,
        retrieval_service_client::RetrievalServiceClient, retrieval_service_server::RetrievalServiceServer,
    },
    server::RetrievalServer,
    streams::{IN_FLIGHT, filled_by},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Retrieval,
    index::{InstanceRecord, Selection},
    retrieval::{Frame, Part, RetrievedInstance},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A [`Retrieval`] somewhere else: in one process or in several, each of which can answer for all.
#[derive(Clone)]
pub struct RetrievalClient {
    peers: Peers<RetrievalServiceClient<Wire>>,
    health: Peers<HealthClient<Wire>>,
}

impl RetrievalClient {
    /// Calls the processes at the other ends of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| RetrievalServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self { peers: Peers::new(connection, client)?, health: Peers::new(connection, HealthClient::new)? })
    }

    /// Whether one of the processes can give instances now: `Ok`, or why not.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn ready(&self) -> Result<(), Error> {
        let service = <RetrievalServiceServer<RetrievalServer> as tonic::server::NamedService>::NAME.to_owned();
        let request = HealthCheckRequest { service };
        let can = |response: tonic::Response<HealthCheckResponse>| match response.get_ref().status() {
            ServingStatus::Serving => Ok(response),
            _ => Err(crate::error::to_status(Error::new(ErrorKind::Unavailable, "retrieval is not ready"))),
        };
        let asked = self.health.call(Safe, |mut client| {
            let request = request.clone();
            async move { client.check(request).await.and_then(can) }
        });
        asked.await.map(|_| ())
    }
}

type Chunks = mpsc::Sender<Result<Bytes, Error>>;

/// A new stream of bytes, and what fills it. A reader that drops it only skips these bytes.
fn chunks() -> (Chunks, AnswerStream<Bytes>) {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    (sender, Box::pin(ReceiverStream::new(receiver)))
}

async fn give(current: &mut Option<Chunks>, item: Result<Bytes, Error>) {
    if let Some(sender) = current
        && sender.send(item).await.is_err()
    {
        *current = None;
    }
}

fn cut_off() -> Error {
    Error::new(ErrorKind::Unavailable, "the answer ended before the instance did")
}

/// Hands each instance on as it begins, then its chunks; ends with the call.
async fn split_instances(
    mut messages: Streaming<pb::InstancesResponse>,
    sender: mpsc::Sender<Result<RetrievedInstance, Error>>,
) {
    use instances_response::Part::{Chunk, End, Failed, Record};
    let mut current: Option<Chunks> = None;
    let failure = loop {
        match messages.message().await.map(|message| message.map(|message| message.part)) {
            Ok(Some(Some(Record(record)))) => {
                let (filler, bytes) = chunks();
                current = Some(filler);
                let instance = record_from(Some(record)).map(|record| RetrievedInstance { record, bytes });
                if sender.send(instance).await.is_err() {
                    return;
                }
            }
            Ok(Some(Some(Chunk(chunk)))) => give(&mut current, Ok(chunk)).await,
            Ok(Some(Some(End(_)))) => current = None,
            Ok(Some(Some(Failed(detail)))) => {
                give(&mut current, Err(from_detail(detail))).await;
                current = None;
            }
            Ok(Some(None)) => break malformed("instance part"),
            Ok(None) if current.is_none() => return,
            Ok(None) => break cut_off(),
            Err(status) => break from_status(status),
        }
    };
    match current {
        Some(filler) => drop(filler.send(Err(failure)).await),
        None => drop(sender.send(Err(failure)).await),
    }
}

/// The same for frames, whose ends their lengths tell.
async fn split_frames(mut messages: Streaming<pb::FramesResponse>, sender: mpsc::Sender<Result<Frame, Error>>) {
    use frames_response::Part::{Chunk, Failed, Start};
    let mut current: Option<Chunks> = None;
    let mut missing = 0_u64;
    let failure = loop {
        match messages.message().await.map(|message| message.map(|message| message.part)) {
            Ok(Some(Some(Start(start)))) => {
                let (filler, bytes) = chunks();
                current = Some(filler);
                missing = start.length_bytes;
                let frame = Frame { number: start.number, length: start.length_bytes, bytes };
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            Ok(Some(Some(Chunk(chunk)))) => {
                missing = missing.saturating_sub(chunk.len() as u64);
                give(&mut current, Ok(chunk)).await;
            }
            Ok(Some(Some(Failed(detail)))) => break from_detail(detail),
            Ok(Some(None)) => break malformed("frame part"),
            Ok(None) if missing == 0 => return,
            Ok(None) => break cut_off(),
            Err(status) => break from_status(status),
        }
    };
    match current {
        Some(filler) => drop(filler.send(Err(failure)).await),
        None => drop(sender.send(Err(failure)).await),
    }
}

#[async_trait]
impl Retrieval for RetrievalClient {
    async fn instances(&self, selection: Selection, part: Part) -> Result<AnswerStream<RetrievedInstance>, Error> {
        let request = pb::InstancesRequest { selection: Some(selection_to(&selection)), part: Some(part_to(&part)) };
        let messages = call!(self.peers, Safe, instances, request)?;
        Ok(Box::pin(filled_by(std::convert::identity, |sender| split_instances(messages, sender))))
    }

    async fn metadata(&self, selection: Selection) -> Result<AnswerStream<InstanceRecord>, Error> {
        let request = pb::MetadataRequest { selection: Some(selection_to(&selection)) };
        let found = call!(self.peers, Safe, metadata, request)?;
        Ok(answers(found, |message| record_from(message.record)))
    }

    async fn open(&self, record: &InstanceRecord, part: Part) -> Result<AnswerStream<Bytes>, Error> {
        let request = pb::OpenRequest { record: Some(record_to(record)), part: Some(part_to(&part)) };
        let bytes = call!(self.peers, Safe, open, request)?;
        Ok(answers(bytes, |message| Ok(message.chunk)))
    }

    async fn frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        let request = pb::FramesRequest { record: Some(record_to(record)), numbers: numbers.to_vec() };
        let messages = call!(self.peers, Safe, frames, request)?;
        Ok(Box::pin(filled_by(std::convert::identity, |sender| split_frames(messages, sender))))
    }

    async fn bulk_data(&self, record: &InstanceRecord, path: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error> {
        let request = pb::BulkDataRequest { record: Some(record_to(record)), path: path.to_vec() };
        let mut messages = call!(self.peers, Safe, bulk_data, request)?;
        let first = messages.message().await.map_err(from_status)?.and_then(|message| message.part);
        let Some(bulk_data_response::Part::LengthBytes(length)) = first else { return Err(malformed("length")) };
        let bytes = answers(messages, |message| match message.part {
            Some(bulk_data_response::Part::Chunk(chunk)) => Ok(chunk),
            _ => Err(malformed("chunk")),
        });
        Ok((length, bytes))
    }
}
