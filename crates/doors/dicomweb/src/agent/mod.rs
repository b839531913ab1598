//! What we ask of other origin servers, as user agent: to store (STOW-RS), to say what they have (QIDO-RS), and to give it
//! (WADO-RS). PS3.18 sections 10.4 to 10.6, edition 2025c.

mod answers;
mod parts;

pub use answers::{Found, StowAnswer};
pub use parts::Parts;

use crate::{
    body::AnswerBody,
    multipart::{self, BodyError, Boundary},
};
use answers::read_store_answer;
use axum::body::Body;
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error};
use futures_util::{StreamExt, stream};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Where another origin server is, and the bounds of talking to it.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Base of its resources, such as `https://archive.example/dicom-web`.
    pub url: String,
    /// Further headers of each request, such as `Authorization`.
    pub headers: Vec<(String, String)>,
    /// PEM with the authorities that its certificate must chain to; `None`: those that the system trusts.
    pub authority: Option<Vec<u8>>,
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// For an answer to begin, and for each piece of it. A request that carries a body has its length at
    /// `send_rate_min` on top.
    pub answer_timeout: Duration,
    /// Bytes a second that a request's body is given time for.
    pub send_rate_min: u64,
    /// Largest answer that is read whole, in bytes: a page of a search, what became of a store.
    pub answer_bytes_max: usize,
}

impl AgentConfig {
    /// With bounds that suit a migration.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            authority: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(300),
            send_rate_min: 16 << 10,
            answer_bytes_max: 64 << 20,
        }
    }
}

/// Why a request did not come to an answer that can be used. No text of the server's is in it: it may name a patient.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What is configured can't be used.
    #[error("{0}")]
    Config(String),
    /// There is no connection, or it broke; the same may succeed later.
    #[error("{0}")]
    Connection(String),
    /// The server answered with this HTTP status.
    #[error("the server answered HTTP {0}")]
    Status(u16),
    /// The answer is not what the Standard says, or more than is taken.
    #[error("{0}")]
    Unusable(&'static str),
    /// What was to be sent could not be had.
    #[error(transparent)]
    Source(#[from] Error),
}

impl AgentError {
    /// Whether the same may succeed later: there was no connection, or the server is busy.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Status(408 | 425 | 429 | 500 | 502 | 503 | 504 | 507))
    }
}

impl From<BodyError> for AgentError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Incomplete | BodyError::TooSlow => Self::Connection(error.to_string()),
            _ => Self::Unusable("a multipart answer is not framed as it must be"),
        }
    }
}

/// Asks an origin server. Cloning is cheap; clones share connections.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    config: AgentConfig,
    base: String,
    headers: HeaderMap,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Agent {
    /// Connects when there is something to ask.
    ///
    /// # Errors
    /// `Config`: an address, a header or certificates that can't be used.
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        let bad = |what: String| AgentError::Config(what);
        let base = config.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| bad(format!("{base}: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(bad(format!("{base} is no http or https address")));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let header = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
            let (header, mut value) = header.ok_or_else(|| bad(format!("header {name} can not be sent")))?;
            value.set_sensitive(true);
            headers.append(header, value);
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        let builder = match &config.authority {
            None => {
                let provider = rustls::crypto::aws_lc_rs::default_provider();
                let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
                builder.map_err(|error| bad(error.to_string()))?
            }
            Some(pem) => HttpsConnectorBuilder::new().with_tls_config(trusting(pem).map_err(bad)?),
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self(Arc::new(Inner { config, base, headers, client })))
    }

    /// Stores one instance, a Part 10 file of `length` bytes, in a request of its own.
    ///
    /// # Errors
    /// [`AgentError`]. `Source`: the server keeps nothing, for it saw no end. `Connection`: it may have been stored.
    pub async fn store(&self, length: u64, file: AnswerStream<Bytes>) -> Result<StowAnswer, AgentError> {
        let boundary = Boundary::random();
        let (head, end) = (boundary.part_head(true, "application/dicom", None, None), boundary.close());
        let total = length + (head.len() + end.len()) as u64;
        let failed: Arc<Mutex<Option<Error>>> = Arc::default();
        let seen = failed.clone();
        let file = file.inspect(move |piece| {
            if let Err(error) = piece {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            }
        });
        let whole = stream::iter([Ok(head)]).chain(file).chain(stream::iter([Ok(end)]));
        let request = self
            .request(Method::POST, "/studies", "application/dicom+json")?
            .header(CONTENT_TYPE, multipart::content_type("application/dicom", &boundary));
        let request = request.body(AnswerBody::body(Box::pin(whole), Some(total)));
        let patience = self.0.config.answer_timeout + Duration::from_secs(length / self.0.config.send_rate_min.max(1));
        let answered = self.send(request, patience).await;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(AgentError::Source(error));
        }
        let response = answered?;
        let status = response.status().as_u16();
        let body = self.whole(response).await?;
        read_store_answer(status, &body)
    }

    /// One page of a search: the resource with its query, such as `/studies?limit=100`.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn search(&self, resource: &str) -> Result<Vec<Found>, AgentError> {
        let request = self.request(Method::GET, resource, "application/dicom+json")?.body(Body::empty());
        let response = self.send(request, self.0.config.answer_timeout).await?;
        match response.status().as_u16() {
            204 => Ok(Vec::new()),
            200 => answers::read_search(&self.whole(response).await?),
            status => Err(AgentError::Status(status)),
        }
    }

    /// The instances of a resource as they are stored there, such as `/studies/1.2.3`.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn retrieve(&self, resource: &str) -> Result<Parts, AgentError> {
        let accept = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
        let request = self.request(Method::GET, resource, accept)?.body(Body::empty());
        let response = self.send(request, self.0.config.answer_timeout).await?;
        match response.status().as_u16() {
            200 | 206 => Parts::of(response, self.0.config.answer_timeout),
            status => Err(AgentError::Status(status)),
        }
    }

    fn request(
        &self,
        method: Method,
        resource: &str,
        accept: &str,
    ) -> Result<hyper::http::request::Builder, AgentError> {
        let accept = HeaderValue::from_str(accept).map_err(|_| AgentError::Unusable("media type can not be sent"))?;
        let mut request =
            Request::builder().method(method).uri(format!("{}{resource}", self.0.base)).header(ACCEPT, accept);
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.0.headers.clone());
        }
        Ok(request)
    }

    async fn send(
        &self,
        request: Result<Request<Body>, hyper::http::Error>,
        patience: Duration,
    ) -> Result<Response<Incoming>, AgentError> {
        let request = request.map_err(|error| AgentError::Config(error.to_string()))?;
        let answer = timeout(patience, self.0.client.request(request)).await;
        let answer = answer.map_err(|_| AgentError::Connection(format!("no answer within {patience:?}")))?;
        answer.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            AgentError::Connection(format!("{error}{cause}"))
        })
    }

    /// An answer that is read whole.
    async fn whole(&self, response: Response<Incoming>) -> Result<Vec<u8>, AgentError> {
        let mut body = Vec::new();
        let mut pieces = parts::pieces(response, self.0.config.answer_timeout);
        while let Some(piece) = pieces.next().await.transpose()? {
            if body.len() + piece.len() > self.0.config.answer_bytes_max {
                return Err(AgentError::Unusable("an answer is too large"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("certificates of the authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("certificates of the authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("certificates of the authority: there are none".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
