//! What all resources share: services, configuration, admission of requests, and the header fields of every answer.

use crate::{
    Services,
    config::DicomWebConfig,
    metrics,
    problem::{Answer, Problem},
    request::{Call, READ_AFTER},
};
use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    middleware::Next,
    response::IntoResponse,
};
use bytes::Bytes;
use cairn_process::trace;
use cairn_service_api::{AnswerStream, Error, index::Selection};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::Instrument;

/// The state behind the resources.
pub(crate) struct Door {
    /// The services.
    pub(crate) services: Services,
    /// The configuration.
    pub(crate) config: DicomWebConfig,
    requests: Arc<Semaphore>,
    /// Room of metadata held back, in pieces of [`METADATA_ROOM_PIECE`].
    pub(crate) metadata_room: Arc<Semaphore>,
}

/// Bytes of metadata held back for which room is taken at once; each request has the first for nothing.
pub(crate) const METADATA_ROOM_PIECE: usize = 64 * 1024;

impl Door {
    /// With nothing under way.
    pub(crate) fn new(services: Services, config: DicomWebConfig) -> Self {
        let requests = Arc::new(Semaphore::new(config.limits.requests_max));
        let pieces = (config.limits.metadata_buffers_bytes / METADATA_ROOM_PIECE).min(Semaphore::MAX_PERMITS);
        Self { services, config, requests, metadata_room: Arc::new(Semaphore::new(pieces)) }
    }

    /// Waits until the index has passed the position that the request names, if it names one.
    pub(crate) async fn wait_for_index(&self, call: &Call) -> Result<(), Problem> {
        let Some(position) = call.read_after()? else {
            return Ok(());
        };
        let wait = self.config.timeouts.read_after;
        self.services.index.wait_for(&position, wait).await.map_err(|error| self.problem(&error))
    }

    /// What a service's failure means to a client.
    pub(crate) fn problem(&self, error: &Error) -> Problem {
        Problem::from_service(error, self.config.timeouts.retry_after)
    }

    /// Waits for a service within the configured bound.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.config.timeouts.answer, work).await {
            Ok(result) => result.map_err(|error| self.problem(&error)),
            Err(_) => Err(Problem::unavailable("no answer was ready in time", self.config.timeouts.retry_after)),
        }
    }

    /// Waits for a stream's first item; gives it back in its place. `None`: there is none.
    pub(crate) async fn first<T: Send + 'static>(
        &self,
        stream: impl Future<Output = Result<AnswerStream<T>, Error>>,
    ) -> Result<Option<(T, AnswerStream<T>)>, Problem> {
        self.within(async {
            let mut stream = stream.await?;
            Ok(stream.next().await.transpose()?.map(|first| (first, stream)))
        })
        .await
    }

    /// The instances that the path names.
    pub(crate) fn selection(&self, call: &Call) -> Selection {
        let uids = &call.uids;
        Selection {
            tenant: self.config.tenant.clone(),
            studies: uids.study.iter().cloned().collect(),
            series: uids.series.iter().cloned().collect(),
            instances: uids.instance.iter().cloned().collect(),
            sees_rejected: self.config.titles_seen(),
            ..Selection::default()
        }
    }
}

/// Lets a request in when there is room for it, and gives every answer the header fields that all have.
pub(crate) async fn admit(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response<Body> {
    let cross_origin = allowed_origin(&door.config, request.headers());
    let (method, resource, started) =
        (request.method().clone(), metrics::resource(request.uri().path()), Instant::now());
    let span = tracing::info_span!("dicomweb.request", %method, resource);
    if let Some(parent) = request.headers().get("traceparent").and_then(|value| value.to_str().ok()) {
        trace::follow(&span, parent);
    }
    let mut response = match answer(&door, request, next, cross_origin.is_some()).instrument(span).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    metrics::answered(&method, resource, response.status(), started.elapsed());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !door.config.cors_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = cross_origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        const EXPOSED: &str = "cairn-read-after, content-location, content-range, etag, retry-after, warning";
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}

async fn answer(door: &Door, request: Request, next: Next, cross_origin: bool) -> Answer {
    let limits = &door.config.limits;
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > limits.url_bytes_max) {
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "the address is too long"));
    }
    let header_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > limits.header_bytes_max {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Problem::new(status, "the header fields are too large"));
    }
    if cross_origin && request.method() == Method::OPTIONS {
        return Ok(preflight());
    }
    let turn = tokio::time::timeout(door.config.timeouts.queue, Arc::clone(&door.requests).acquire_owned()).await;
    let Ok(Ok(permit)) = turn else {
        return Err(Problem::unavailable("too many requests are under way", door.config.timeouts.retry_after));
    };
    Ok(next.run(request).await.map(|body| Body::new(HoldingBody { body, _permit: permit })))
}

fn allowed_origin(config: &DicomWebConfig, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    config.cors_origins.iter().any(|allowed| allowed == "*" || allowed == text).then(|| origin.clone())
}

fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let allowed = format!("accept, authorization, content-type, if-none-match, if-range, range, {READ_AFTER}");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// A request counts as under way until its answer has left.
struct HoldingBody {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for HoldingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
