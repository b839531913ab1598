//! Answers from representations: conditional, in part, as one body or as they come.

use crate::{
    body::AnswerBody,
    conditional::{self, Wanted},
    door::Door,
    problem::{Answer, Problem},
    request::Call,
};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error};
use futures_util::{StreamExt, stream};
use std::{collections::VecDeque, future::Future, ops::Range};

/// The DICOM JSON Model (PS3.18 Annex F).
pub(crate) const DICOM_JSON: &str = "application/dicom+json";
/// The same under a name that some clients ask for.
pub(crate) const JSON: &str = "application/json";
/// Bytes with no type of their own.
pub(crate) const OCTET_STREAM: &str = "application/octet-stream";

/// What is known of a representation before its bytes are.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    /// `Content-Type`
    pub(crate) content_type: String,
    /// `ETag` with its quotes.
    pub(crate) etag: Option<String>,
    /// Length in bytes; `None`: not known, so that no range of it is given.
    pub(crate) length: Option<u64>,
}

impl Representation {
    /// Answers the call; `open` gives the bytes of the range, or all of them.
    pub(crate) async fn answer<F>(self, door: &Door, call: &Call, open: impl FnOnce(Option<Range<u64>>) -> F) -> Answer
    where
        F: Future<Output = Result<AnswerStream<Bytes>, Error>>,
    {
        if let Some(etag) = &self.etag
            && conditional::not_modified(&call.headers, etag)
        {
            return self.response(StatusCode::NOT_MODIFIED, Body::empty());
        }
        let wanted = match self.length {
            Some(length) if call.method == Method::GET => {
                conditional::wanted(&call.headers, self.etag.as_deref(), length)
            }
            _ => Wanted::Whole,
        };
        let range = match wanted {
            Wanted::Whole => None,
            Wanted::Part(range) => Some(range),
            Wanted::Unsatisfiable => return self.unsatisfiable(),
        };
        let length = range.as_ref().map_or(self.length, |range| Some(range.end - range.start));
        let data: AnswerStream<Bytes> = match call.method {
            Method::HEAD => Box::pin(stream::empty()),
            _ => match door.first(open(range.clone())).await? {
                Some((first, rest)) => Box::pin(stream::iter([Ok(first)]).chain(rest)),
                None => Box::pin(stream::empty()),
            },
        };
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = self.response(status, AnswerBody::body(data, length))?;
        if let (Some(range), Some(length)) = (range, self.length) {
            let value = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            set(&mut response, header::CONTENT_RANGE, &value)?;
        }
        Ok(response)
    }

    fn unsatisfiable(&self) -> Answer {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        set(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", self.length.unwrap_or_default()))?;
        Ok(response)
    }

    /// A response with the header fields of this representation.
    pub(crate) fn response(&self, status: StatusCode, body: Body) -> Answer {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if status != StatusCode::NOT_MODIFIED {
            set(&mut response, header::CONTENT_TYPE, &self.content_type)?;
        }
        if let Some(etag) = &self.etag {
            set(&mut response, header::ETAG, etag)?;
        }
        if self.length.is_some() && status != StatusCode::NOT_MODIFIED {
            set(&mut response, header::ACCEPT_RANGES, "bytes")?;
        }
        // Patient data: a browser may keep it for itself, and asks each time whether it still holds.
        set(&mut response, header::CACHE_CONTROL, "private, no-cache")?;
        set(&mut response, header::VARY, "accept")?;
        Ok(response)
    }
}

/// Sets a header field.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) -> Result<(), Problem> {
    let unusable = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a header field could not be written");
    response.headers_mut().insert(name, HeaderValue::from_str(value).map_err(unusable)?);
    Ok(())
}

/// The bytes of a range of a stream that can't be opened there.
pub(crate) fn slice(data: AnswerStream<Bytes>, range: Range<u64>) -> AnswerStream<Bytes> {
    let start = (data, range.start, range.end - range.start);
    Box::pin(stream::unfold(start, |(mut data, mut skip, mut left)| async move {
        while left > 0 {
            let mut chunk = match data.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), (data, 0, 0))),
            };
            let skipped = (chunk.len() as u64).min(skip);
            skip -= skipped;
            let taken = (chunk.len() as u64 - skipped).min(left);
            left -= taken;
            if taken > 0 {
                let chunk = chunk.split_off(skipped as usize).split_to(taken as usize);
                return Some((Ok(chunk), (data, skip, left)));
            }
        }
        None
    }))
}

/// The bytes of a stream, or of a range of it.
pub(crate) fn whole_or_slice(data: AnswerStream<Bytes>, range: Option<Range<u64>>) -> AnswerStream<Bytes> {
    match range {
        Some(range) => slice(data, range),
        None => data,
    }
}

/// The start of an answer, held back until its status and header fields can be decided.
pub(crate) struct HeldBack {
    chunks: VecDeque<Bytes>,
    rest: Option<AnswerStream<Bytes>>,
}

impl HeldBack {
    /// Reads from `data` until it ends or more than `bound` bytes are there.
    pub(crate) async fn read(mut data: AnswerStream<Bytes>, bound: usize) -> Result<Self, Error> {
        let (mut chunks, mut bytes) = (VecDeque::new(), 0);
        while bytes <= bound {
            match data.next().await.transpose()? {
                Some(chunk) => {
                    bytes += chunk.len();
                    chunks.push_back(chunk);
                }
                None => return Ok(Self { chunks, rest: None }),
            }
        }
        Ok(Self { chunks, rest: Some(data) })
    }

    /// Length in bytes, if the answer is all here.
    pub(crate) fn length(&self) -> Option<u64> {
        self.rest.is_none().then(|| self.chunks.iter().map(|chunk| chunk.len() as u64).sum())
    }

    /// All of it.
    pub(crate) fn into_stream(self) -> AnswerStream<Bytes> {
        let held = stream::iter(self.chunks.into_iter().map(Ok));
        match self.rest {
            Some(rest) => Box::pin(held.chain(rest)),
            None => Box::pin(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slices_of_streams() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for size in [1, 2, 5, 26] {
            for start in 0..26u64 {
                for end in start..=26 {
                    let chunks: Vec<_> = text.chunks(size).map(|c| Ok(Bytes::from_static(c))).collect();
                    let sliced: Vec<_> = slice(Box::pin(stream::iter(chunks)), start..end).collect().await;
                    let bytes: Vec<u8> = sliced.into_iter().flat_map(|c| c.expect("no error")).collect();
                    assert_eq!(bytes, text[start as usize..end as usize], "{size} {start} {end}");
                }
            }
        }
    }
}
