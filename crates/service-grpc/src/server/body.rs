//! Bytes that a caller streams.

use crate::error::{from_status, malformed};
use bytes::Bytes;
use cairn_service_api::{Error, ErrorKind, ingest::Body};
use futures_util::stream;
use tonic::Streaming;

/// A message of such a stream, after the first.
pub(super) enum Piece {
    Chunk(Bytes),
    End,
}

/// The chunks of a call as a body: it is whole only when the sender said so. What is no `piece` is malformed.
pub(super) fn body<M: Send + 'static>(requests: Streaming<M>, piece: fn(M) -> Option<Piece>) -> Body<'static> {
    Box::pin(stream::try_unfold(Some(requests), move |requests| async move {
        let Some(mut requests) = requests else { return Ok(None) };
        match requests.message().await.map_err(from_status)?.map(piece) {
            Some(Some(Piece::Chunk(chunk))) => Ok(Some((chunk, Some(requests)))),
            Some(Some(Piece::End)) => Ok(None),
            Some(None) => Err(malformed("chunk")),
            None => Err(Error::new(ErrorKind::Aborted, "the sender stopped before the end")),
        }
    }))
}
