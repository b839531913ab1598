//! The readers of requests, for `tests/fuzz` alone.
#![allow(missing_docs, reason = "no part of the interface")]

use crate::{
    DicomWebConfig,
    conditional::{Wanted, wanted},
    multipart::{MultipartLimits, Reader},
    qido,
    request::Call,
    wado,
};
use axum::http::{HeaderMap, HeaderValue, Request, header};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use std::ops::Range;

/// The content of each part; `None` when the framing is refused.
pub fn multipart<'a>(pieces: impl Iterator<Item = &'a [u8]>, boundary: &str) -> Option<Vec<Vec<u8>>> {
    let pieces: Vec<_> = pieces.map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let limits = MultipartLimits { part_header_bytes_max: 200, preamble_bytes_max: 100 };
    let read = async {
        let mut reader = Reader::new(stream::iter(pieces), boundary, limits)?;
        let mut parts = Vec::new();
        while reader.next_part().await?.is_some() {
            let mut content = Vec::new();
            while let Some(chunk) = reader.next_chunk().await? {
                content.extend_from_slice(&chunk);
            }
            parts.push(content);
        }
        Ok::<_, crate::multipart::BodyError>(parts)
    };
    // Nothing in it waits.
    read.now_or_never()?.ok()
}

/// Reads target and `Accept` of a request, as a search and as a list of frames.
pub fn request(target: &str, accept: &str) {
    let Ok(accept) = HeaderValue::from_str(accept) else { return };
    let Ok(request) = Request::builder().uri(target).header(header::ACCEPT, accept).body(()) else { return };
    let config = DicomWebConfig::default();
    let (parts, ()) = request.into_parts();
    let Ok(call) = Call::read(&parts, &config) else { return };
    qido::read(&call, &config.limits);
    for text in &call.rest {
        wado::read_frame_numbers(text, 100);
    }
}

/// The bytes that a `Range` header asks for.
pub fn range(range: &str, length: u64) -> Option<Range<u64>> {
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, HeaderValue::from_str(range).ok()?);
    match wanted(&headers, None, length) {
        Wanted::Part(range) => Some(range),
        Wanted::Whole | Wanted::Unsatisfiable => None,
    }
}
