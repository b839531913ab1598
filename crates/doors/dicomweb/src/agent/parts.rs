//! Multipart answers, part by part as they come.

use super::AgentError;
use crate::{
    media_type::MediaType,
    multipart::{BodyError, MultipartLimits, Reader},
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::{Response, body::Incoming, header::CONTENT_TYPE};
use std::{pin::Pin, time::Duration};
use tokio::time::timeout;

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

const LIMITS: MultipartLimits = MultipartLimits { part_header_bytes_max: 16 << 10, preamble_bytes_max: 16 << 10 };

/// The pieces of an answer, each within `patience`.
pub(super) fn pieces(response: Response<Incoming>, patience: Duration) -> Pieces {
    let body = Body::new(response.into_body()).into_data_stream();
    Box::pin(stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(patience, body.next()).await {
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(_))) => Some((Err(BodyError::Incomplete), None)),
            Ok(None) => None,
            Err(_) => Some((Err(BodyError::TooSlow), None)),
        }
    }))
}

/// Parts of an answer. One is whole only when [`Parts::chunk`] has said so by `None`.
pub struct Parts(Reader<Pieces>);

impl Parts {
    pub(super) fn of(response: Response<Incoming>, patience: Duration) -> Result<Self, AgentError> {
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(MediaType::parse);
        let boundary = media_type.as_ref().filter(|media| media.essence() == "multipart/related");
        let boundary = boundary.and_then(|media| media.parameter("boundary"));
        let boundary = boundary.ok_or(AgentError::Unusable("the answer is not multipart/related"))?.to_owned();
        Ok(Self(Reader::new(pieces(response, patience), &boundary, LIMITS)?))
    }

    /// Goes on to the next part; what is left of the present one is passed over. `false` after the last.
    ///
    /// # Errors
    /// [`AgentError`]: nothing more can be had.
    pub async fn next(&mut self) -> Result<bool, AgentError> {
        Ok(self.0.next_part().await?.is_some())
    }

    /// The next bytes of the present part; `None` at its end.
    ///
    /// # Errors
    /// [`AgentError`]: nothing more can be had.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, AgentError> {
        Ok(self.0.next_chunk().await?)
    }
}
