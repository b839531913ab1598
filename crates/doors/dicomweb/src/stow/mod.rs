//! STOW-RS: storing instances (PS3.18 section 10.5, edition 2025c).

mod receipt;
mod report;
mod sniff;
mod store;

use crate::{
    body::{self, RequestBody},
    config::DicomWebConfig,
    door::Door,
    media_type::MediaType,
    multipart::{BodyError, Reader, is_boundary},
    problem::{Answer, Problem},
    request::{Call, joined},
    respond::{DICOM_JSON, JSON},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use cairn_archive::events::ReceiptEnd;
use std::sync::Arc;
use store::StoreRun;

/// `POST /studies` and `POST /studies/{study}`.
///
/// 200: all stored. 202: some refused, or stored with a warning. 409, or a more telling 4xx or 5xx: nothing stored.
pub(crate) async fn store(State(door): State<Arc<Door>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = RequestBody::new(body, &door.config);
    let Head { call, answer_type, content, confirmed_sites } = match read_head(&parts, &door.config) {
        Ok(head) => head,
        Err(problem) => {
            refuse(&door, body).await;
            return Err(problem);
        }
    };
    let mut run = StoreRun::new(Arc::clone(&door), call, confirmed_sites);
    let read = match content {
        Content::Single => run.take_single(body).await,
        Content::Multipart { boundary } => {
            let mut reader = Reader::new(body, &boundary, door.config.limits.multipart())?;
            let read = run.take_parts(&mut reader).await;
            if read.is_err() {
                refuse(&door, reader.into_source()).await;
            }
            read
        }
    };
    let end = match read {
        Ok(()) => ReceiptEnd::Completed,
        Err(BodyError::TooLarge(_) | BodyError::TooMany) => ReceiptEnd::EndedByArchive,
        Err(_) => ReceiptEnd::Aborted,
    };
    let report = run.finish(end).await;
    report.into_answer(read, answer_type, door.config.timeouts.retry_after)
}

async fn refuse(door: &Door, body: RequestBody) {
    body::discard(body, door.config.limits.discarded_bytes_max, door.config.timeouts.discard).await;
}

/// What a request says ahead of its body.
struct Head {
    call: Call,
    answer_type: &'static str,
    content: Content,
    confirmed_sites: u32,
}

fn read_head(parts: &Parts, config: &DicomWebConfig) -> Result<Head, Problem> {
    let call = Call::read(parts, config)?;
    call.no_other_parameters()?;
    let answer_type =
        call.accept.choose(&[DICOM_JSON, JSON]).ok_or_else(|| Problem::not_acceptable("the answer is DICOM JSON"))?;
    let content = Content::of(&call.headers)?;
    refuse_announced_length(&call.headers, config.limits.request_bytes_max)?;
    let confirmed_sites = call.confirmed_sites()?;
    Ok(Head { call, answer_type, content, confirmed_sites })
}

/// How instances are packed in a request's body.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// The body is one instance.
    Single,
    /// Each part is one.
    Multipart { boundary: String },
}

impl Content {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        const TYPES: &str = "instances come as application/dicom, alone or in multipart/related";
        let unsupported = || Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, TYPES);
        if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no content coding is taken"));
        }
        let media_type = MediaType::parse(&joined(headers, header::CONTENT_TYPE)).ok_or_else(unsupported)?;
        match media_type.essence() {
            "application/dicom" => Ok(Self::Single),
            "multipart/related" => {
                let root = media_type.parameter("type").map(MediaType::parse);
                if root.is_some_and(|root| root.is_none_or(|root| root.essence() != "application/dicom")) {
                    return Err(unsupported());
                }
                let boundary = media_type.parameter("boundary").map(str::to_owned);
                let boundary = boundary.filter(|boundary| is_boundary(boundary));
                let boundary = boundary.ok_or_else(|| Problem::bad_request("Content-Type names no usable boundary"))?;
                Ok(Self::Multipart { boundary })
            }
            _ => Err(unsupported()),
        }
    }
}

fn refuse_announced_length(headers: &HeaderMap, bound: u64) -> Result<(), Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > bound => Err(BodyError::TooLarge(bound).into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dicom_files_are_taken() {
        let content = |value: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().expect("a header value"))]);
            Content::of(&headers).map_err(|problem| problem.status.as_u16())
        };
        let parts = |boundary: &str| Ok(Content::Multipart { boundary: boundary.into() });
        assert_eq!(content("application/dicom"), Ok(Content::Single));
        assert_eq!(content("multipart/related; type=\"application/dicom\"; boundary=\"a b\""), parts("a b"));
        assert_eq!(content("multipart/related; type=application/dicom; boundary=ab"), parts("ab"));
        assert_eq!(content("Multipart/Related; Boundary=ab"), parts("ab"));
        assert_eq!(content("multipart/related; type=\"application/dicom\""), Err(400));
        for other in [
            "multipart/related; type=\"application/dicom+json\"; boundary=ab",
            "multipart/form-data; boundary=a",
            "application/dicom+json",
            "text/plain",
            "multipart/related; type=\"\"; boundary=ab",
            "nonsense",
        ] {
            assert_eq!(content(other), Err(415), "{other}");
        }
        assert_eq!(Content::of(&HeaderMap::new()).map_err(|p| p.status.as_u16()), Err(415));
    }
}
