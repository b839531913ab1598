//! Refusals: `application/problem+json` (RFC 9457) with a plain detail and no patient attribute.

use crate::multipart::BodyError;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use cairn_service_api::{Error, ErrorKind, Reason};
use std::time::Duration;

/// A request that is answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Status.
    pub(crate) status: StatusCode,
    /// What is wrong, for people.
    pub(crate) detail: String,
    /// What `Retry-After` says, where a later try may succeed.
    pub(crate) retry_after: Option<Duration>,
}

/// What a handler gives.
pub(crate) type Answer = Result<Response<Body>, Problem>;

impl Problem {
    /// A refusal with this status.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    /// 400
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing under this address")
    }

    /// 406
    pub(crate) fn not_acceptable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, detail)
    }

    /// 503 with Retry-After.
    pub(crate) fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// What a service's failure means to a client.
    pub(crate) fn from_service(error: &Error, retry_after: Duration) -> Self {
        let status = status_of(error);
        if status.is_server_error() && !error.kind.is_retryable() {
            tracing::error!(kind = ?error.kind, error = %error, "a service failed");
        }
        // What broke inside is for the log; the client is told what to do.
        let detail = match error.kind {
            ErrorKind::Internal => "an internal error occurred".to_owned(),
            ErrorKind::Corrupt => "the stored bytes are damaged and no intact copy is at hand".to_owned(),
            _ => error.message.clone(),
        };
        Self { status, detail, retry_after: error.kind.is_retryable().then_some(retry_after) }
    }
}

/// The HTTP status of a service's failure.
pub(crate) fn status_of(error: &Error) -> StatusCode {
    match (error.kind, error.reason) {
        (_, Reason::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        (ErrorKind::Invalid, Reason::TransferSyntax) => StatusCode::NOT_ACCEPTABLE,
        (_, Reason::OutOfRoom) => StatusCode::INSUFFICIENT_STORAGE,
        (ErrorKind::NotFound, _) => StatusCode::NOT_FOUND,
        (ErrorKind::Conflict, _) => StatusCode::CONFLICT,
        (ErrorKind::Invalid | ErrorKind::Aborted, _) => StatusCode::BAD_REQUEST,
        (ErrorKind::Exhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorKind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (ErrorKind::Denied, _) => StatusCode::FORBIDDEN,
        (ErrorKind::Corrupt | ErrorKind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::Framing(_) | BodyError::Incomplete => StatusCode::BAD_REQUEST,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyError::TooLarge(_) | BodyError::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":{}}}\n",
            self.status.as_u16(),
            json_string(&self.detail)
        );
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// A JSON string with its quotes.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_status_and_only_retryable_ones_say_when() {
        let wait = Duration::from_secs(7);
        let cases = [
            (ErrorKind::NotFound, Reason::Unspecified, 404, false),
            (ErrorKind::Conflict, Reason::ConflictRefused, 409, false),
            (ErrorKind::Invalid, Reason::UnusableKey, 400, false),
            (ErrorKind::Invalid, Reason::TooLarge, 413, false),
            (ErrorKind::Exhausted, Reason::OutOfRoom, 507, true),
            (ErrorKind::Exhausted, Reason::Unspecified, 429, true),
            (ErrorKind::Unavailable, Reason::NotYetIndexed, 503, true),
            (ErrorKind::Unavailable, Reason::NotConfirmed, 503, true),
            (ErrorKind::Denied, Reason::Unspecified, 403, false),
            (ErrorKind::Corrupt, Reason::Unspecified, 500, false),
            (ErrorKind::Aborted, Reason::Unspecified, 400, false),
            (ErrorKind::Internal, Reason::Unspecified, 500, false),
        ];
        for (kind, reason, status, retry) in cases {
            let problem = Problem::from_service(&Error::because(kind, reason, "secret"), wait);
            assert_eq!(problem.status.as_u16(), status, "{kind:?}");
            assert_eq!(problem.retry_after.is_some(), retry, "{kind:?}");
            assert_eq!(problem.detail.contains("secret"), status != 500, "{kind:?}");
        }
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\n\u{1}é"), r#""a\"b\\c\u000a\u0001é""#);
    }
}
