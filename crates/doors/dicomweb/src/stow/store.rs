use super::{
    receipt::Receipt,
    report::{Failure, Report},
    sniff::Sniffer,
};
use crate::{
    body::RequestBody,
    door::Door,
    media_type::MediaType,
    multipart::{BodyError, PartHeaders, Reader},
    request::Call,
};
use bytes::Bytes;
use cairn_archive::events::ReceiptEnd;
use cairn_service_api::{
    Error, ErrorKind, Reason,
    ingest::{InstanceOffer, OfferedForm, Stored},
};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use std::{future::Future, sync::Arc};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Instrument;

/// Chunks of one instance on the way to ingest.
const CHUNKS_IN_FLIGHT: usize = 4;

/// One request's instances on their way. Each is stored by a task of its own, so that the next one is received while
/// the last ones become durable.
pub(super) struct StoreRun {
    door: Arc<Door>,
    call: Call,
    confirmed_sites: u32,
    receipt: Option<Receipt>,
    stores: JoinSet<(u32, Result<Stored, Error>)>,
    sniffers: Vec<(u32, Sniffer)>,
    parts: u32,
    report: Report,
}

/// What the bytes of one instance are read from.
trait Chunks {
    fn next_chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyError>> + Send;
}

impl<S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> Chunks for Reader<S> {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        Reader::next_chunk(self).await
    }
}

struct Single {
    first: Option<Bytes>,
    rest: RequestBody,
}

impl Chunks for Single {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.rest.next().await.transpose(),
        }
    }
}

impl StoreRun {
    pub(super) fn new(door: Arc<Door>, call: Call, confirmed_sites: u32) -> Self {
        let report = Report::new(call.address.clone(), call.uids.clone());
        let (stores, sniffers) = (JoinSet::new(), Vec::new());
        Self { door, call, confirmed_sites, receipt: None, stores, sniffers, parts: 0, report }
    }

    /// Stores a body that is one instance.
    pub(super) async fn take_single(&mut self, mut body: RequestBody) -> Result<(), BodyError> {
        let first = loop {
            match body.next().await.transpose()? {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => break chunk,
                None => return Err(BodyError::Framing("the body is empty")),
            }
        };
        self.take_instance(&mut Single { first: Some(first), rest: body }, None).await
    }

    /// Stores every part. Ends early when the answer would grow over its bound.
    pub(super) async fn take_parts<S>(&mut self, reader: &mut Reader<S>) -> Result<(), BodyError>
    where
        S: Stream<Item = Result<Bytes, BodyError>> + Send + Unpin,
    {
        while let Some(headers) = reader.next_part().await? {
            if self.report.bytes() > self.door.config.limits.store_response_bytes_max {
                return Err(BodyError::TooMany);
            }
            if is_dicom(&headers) {
                self.take_instance(reader, headers.content_length).await?;
            } else {
                let number = self.next_number();
                self.report.refused(number, Failure::unsupported_part(), None);
            }
        }
        reader.skip_epilogue().await;
        match self.parts {
            0 => Err(BodyError::Framing("there are no parts")),
            _ => Ok(()),
        }
    }

    fn next_number(&mut self) -> u32 {
        self.parts = self.parts.saturating_add(1);
        self.parts
    }

    async fn take_instance(&mut self, chunks: &mut impl Chunks, length: Option<u64>) -> Result<(), BodyError> {
        let number = self.next_number();
        while self.stores.len() >= self.door.config.limits.stores_in_flight_max.max(1) {
            self.collect_one().await;
        }
        let sink = match self.start_store(number, length).await {
            Ok(sink) => Some(sink),
            Err(error) => {
                self.report.refused(number, Failure::of(&error), None);
                None
            }
        };
        self.pass_on(number, chunks, sink).await
    }

    async fn start_store(
        &mut self,
        number: u32,
        length_hint: Option<u64>,
    ) -> Result<mpsc::Sender<Result<Bytes, Error>>, Error> {
        if self.receipt.is_none() {
            self.receipt = Some(Receipt::open(&self.door, &self.call, self.confirmed_sites).await?);
        }
        let Some(receipt) = self.receipt.as_ref().and_then(Receipt::id) else {
            return Err(Error::new(ErrorKind::Internal, "the receipt is closed"));
        };
        let offer =
            InstanceOffer { form: OfferedForm::File, length_hint, study_instance_uid: self.call.uids.study.clone() };
        let (sink, source) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let ingest = Arc::clone(&self.door.services.ingest);
        self.sniffers.push((number, Sniffer::default()));
        let store = async move {
            let body = stream::unfold(source, |mut source| async move { Some((source.recv().await?, source)) });
            (number, ingest.store(receipt, offer, Box::pin(body)).await)
        };
        self.stores.spawn(store.in_current_span());
        Ok(sink)
    }

    /// Passes one instance's bytes on until its end, or until ingest wants no more of them.
    async fn pass_on(
        &mut self,
        number: u32,
        chunks: &mut impl Chunks,
        mut sink: Option<mpsc::Sender<Result<Bytes, Error>>>,
    ) -> Result<(), BodyError> {
        let mut left = self.door.config.limits.instance_bytes_max;
        loop {
            let chunk = match chunks.next_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(error) => {
                    send(&mut sink, Err(Error::new(ErrorKind::Aborted, error.to_string()))).await;
                    return Err(error);
                }
            };
            if sink.is_none() {
                continue;
            }
            match left.checked_sub(chunk.len() as u64) {
                Some(less) => left = less,
                None => {
                    let refusal = Error::because(ErrorKind::Invalid, Reason::TooLarge, "the instance is too large");
                    self.report.oversized(number);
                    send(&mut sink, Err(refusal)).await;
                    sink = None;
                    continue;
                }
            }
            if let Some((_, sniffer)) = self.sniffers.last_mut() {
                sniffer.keep(&chunk);
            }
            send(&mut sink, Ok(chunk)).await;
        }
    }

    async fn collect_one(&mut self) {
        match self.stores.join_next().await {
            Some(Ok((number, result))) => {
                let at = self.sniffers.iter().position(|(own, _)| *own == number);
                let sniffer = at.map(|at| self.sniffers.swap_remove(at).1);
                match result {
                    Ok(stored) => self.report.stored(number, &stored),
                    Err(error) => {
                        let identity = sniffer.and_then(|sniffer| sniffer.identity());
                        self.report.refused(number, Failure::of(&error), identity);
                    }
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "storing an instance ended unexpectedly");
                let failure = Failure::of(&Error::new(ErrorKind::Internal, "storing ended unexpectedly"));
                self.report.refused(u32::MAX, failure, None);
            }
            None => {}
        }
    }

    /// Waits for every store and closes the receipt.
    pub(super) async fn finish(mut self, end: ReceiptEnd) -> Report {
        while !self.stores.is_empty() {
            self.collect_one().await;
        }
        if let Some(receipt) = self.receipt.take() {
            receipt.close(end).await;
        }
        self.report
    }
}

/// Sends, unless ingest has stopped listening: then its answer is on the way.
async fn send(sink: &mut Option<mpsc::Sender<Result<Bytes, Error>>>, item: Result<Bytes, Error>) {
    if let Some(sender) = sink
        && sender.send(item).await.is_err()
    {
        *sink = None;
    }
}

/// Whether a part holds an instance. One that names no type is taken for what the message's `type` says.
fn is_dicom(headers: &PartHeaders) -> bool {
    let encoded = !matches!(headers.transfer_encoding.as_deref(), None | Some("binary" | "8bit" | "7bit"));
    match &headers.content_type {
        _ if encoded => false,
        None => true,
        Some(text) => MediaType::parse(text).is_some_and(|media_type| media_type.essence() == "application/dicom"),
    }
}
