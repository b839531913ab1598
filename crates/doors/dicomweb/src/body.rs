//! Bodies: requests' as they arrive, with their bounds in size and time, and answers' as they are made.

use crate::{
    config::DicomWebConfig,
    multipart::BodyError,
    server::{StallClock, StallLimit},
};
use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error, ErrorKind};
use futures_core::Stream;
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A request's body.
pub(crate) struct RequestBody {
    data: BodyDataStream,
    clock: StallClock,
    left: u64,
    bound: u64,
    ended: bool,
}

impl RequestBody {
    /// Reads `body` within the configured bounds.
    pub(crate) fn new(body: Body, config: &DicomWebConfig) -> Self {
        Self::bounded(body, config, config.limits.request_bytes_max)
    }

    /// The same within a bound of its own, in bytes.
    pub(crate) fn bounded(body: Body, config: &DicomWebConfig, bound: u64) -> Self {
        let clock = StallClock::new(StallLimit::of_body(&config.timeouts));
        Self { data: body.into_data_stream(), clock, left: bound, bound, ended: false }
    }
}

/// Takes what is left of a body that is not wanted, up to `bytes`, and no longer than `patience`. A connection closed on
/// a sender in mid-body is reset, and the sender then may never read why.
pub(crate) async fn discard<S>(mut body: S, mut bytes: u64, patience: Duration)
where
    S: Stream<Item = Result<Bytes, BodyError>> + Unpin,
{
    let rest = async {
        while let Some(Ok(chunk)) = body.next().await {
            match bytes.checked_sub(chunk.len() as u64) {
                Some(left) => bytes = left,
                None => return,
            }
        }
    };
    // Out of patience is out of patience: the answer goes out, read or not.
    let _ = tokio::time::timeout(patience, rest).await;
}

impl Stream for RequestBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let item = match Pin::new(&mut this.data).poll_next(context) {
            Poll::Pending => match this.clock.poll_too_long(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => Some(Err(BodyError::TooSlow)),
            },
            Poll::Ready(Some(Ok(chunk))) => {
                this.clock.progress(chunk.len());
                match this.left.checked_sub(chunk.len() as u64) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(chunk))
                    }
                    None => Some(Err(BodyError::TooLarge(this.bound))),
                }
            }
            Poll::Ready(Some(Err(_))) => Some(Err(BodyError::Incomplete)),
            Poll::Ready(None) => None,
        };
        this.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// An answer's body. An error in it cuts the connection: a client can't take what it got for the whole.
pub(crate) struct AnswerBody {
    data: AnswerStream<Bytes>,
    length: Option<u64>,
    failed: Option<Error>,
}

impl AnswerBody {
    /// A body of this length in bytes, if known.
    pub(crate) fn body(data: AnswerStream<Bytes>, length: Option<u64>) -> Body {
        Body::new(Self { data, length, failed: None })
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match std::task::ready!(this.data.as_mut().poll_next(context)) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    if let Some(left) = &mut this.length {
                        *left = left.saturating_sub(chunk.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Some(Err(error)) => {
                    if error.kind != ErrorKind::Aborted {
                        tracing::warn!(kind = ?error.kind, error = %error, "an answer was cut");
                    }
                    // The error drops what the connection has not sent yet; a pause lets it send that first, so that the
                    // client sees an answer that was cut, not none.
                    this.failed = Some(error);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
