//! Addresses, limits and timeouts of the door. Every one has a safe default.

use crate::{
    multipart::MultipartLimits,
    request::{is_host, is_path},
};
use cairn_archive::rejection::{RejectionTitle, Titles};
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An absolute address of the resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PublicUrl {
    /// Scheme, host and port.
    pub(crate) origin: String,
    /// Path, without a slash at its end.
    pub(crate) path: String,
}

impl TryFrom<String> for PublicUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = ["http://", "https://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or("a public URL begins with http:// or https://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = path.trim_end_matches('/');
        if !is_host(host) || !(path.is_empty() || is_path(path)) {
            return Err("a public URL has a host and a path, and nothing else".into());
        }
        let origin = text.get(..text.len() - rest.len() + host.len()).unwrap_or_default().to_owned();
        Ok(Self { origin, path: path.to_owned() })
    }
}

impl From<PublicUrl> for String {
    fn from(url: PublicUrl) -> Self {
        format!("{}{}", url.origin, url.path)
    }
}

/// How the door presents itself and what it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DicomWebConfig {
    /// Path under which the resources stand; empty or `/` for the root.
    pub base_path: String,
    /// Where clients reach the resources, such as `https://pacs.example.org/dicom-web`: then RetrieveURL and BulkDataURI say so,
    /// whatever address a request came to. Unset: RetrieveURL is what the request was sent to, BulkDataURI root-relative.
    pub public_url: Option<PublicUrl>,
    /// Tenant whose instances are served; the executable sets it from the site's.
    #[serde(skip)]
    pub tenant: String,
    /// Calling AE title that stores by STOW-RS are recorded with; may be empty.
    pub calling_ae_title: String,
    /// Titles of rejection notes, as Code Values in DCM, that hide nothing here: what is rejected under these alone is found and
    /// given. IHE lets what is rejected for quality reasons (113001) be seen.
    pub sees_rejected: Vec<String>,
    /// Name of the service in `Warning` headers (PS3.18 section 8.3.4.4, edition 2025c).
    pub service_name: String,
    /// Whether `X-Forwarded-Proto`, `-Host` and `-Prefix` are honoured in the URLs that answers hold. Only for a
    /// server that none but a proxy can reach.
    pub trust_forwarded_headers: bool,
    /// Web origins that may read answers (CORS), each as `scheme://host[:port]`; `*` for any. Empty: none.
    pub cors_origins: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// Waits.
    pub timeouts: Timeouts,
}

impl Default for DicomWebConfig {
    fn default() -> Self {
        Self {
            base_path: "/dicom-web".into(),
            public_url: None,
            tenant: cairn_service_api::DEFAULT_TENANT.into(),
            calling_ae_title: String::new(),
            sees_rejected: Vec::new(),
            service_name: "Cairn".into(),
            trust_forwarded_headers: false,
            cors_origins: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl DicomWebConfig {
    /// The titles that hide nothing here. What is no title's code hides something all the same.
    pub(crate) fn titles_seen(&self) -> Titles {
        self.sees_rejected.iter().filter_map(|code| RejectionTitle::of_code(code)).collect()
    }
}

/// Bounds on what a client may ask of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Requests at once, from their head to the last byte of the answer; more wait for `Timeouts::queue`.
    pub requests_max: usize,
    /// Bytes of a request's path and query; beyond: 414.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub url_bytes_max: usize,
    /// Bytes of a request's header fields; beyond: 431.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub header_bytes_max: usize,
    /// Header fields of a request; beyond: 431.
    pub header_fields_max: usize,
    /// Room for one read from a connection, in bytes, and for one of its writes.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub buffer_bytes: usize,
    /// Bytes of one instance by STOW-RS; beyond it that instance is refused.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub instance_bytes_max: u64,
    /// Bytes of one STOW-RS request; beyond: 413.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub request_bytes_max: u64,
    /// Bytes of one part's headers.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub part_header_bytes_max: usize,
    /// Bytes around the parts of a multipart body.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub preamble_bytes_max: usize,
    /// Bytes of a refused request's body that are still taken, so that its sender reads the answer.
    #[serde(with = "units::size")]
    #[schemars(with = "String")]
    pub discarded_bytes_max: u64,
    /// Instances of one STOW-RS request that are waited for at once.
    pub stores_in_flight_max: usize,
    /// Bytes of a Store Instances Response, which grows with the request; a request that would need more ends there.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub store_response_bytes_max: usize,
    /// Matching keys and included attributes of one query.
    pub query_keys_max: usize,
    /// Answers to one query; more are cut off with `Warning: 299`.
    pub query_results_max: u64,
    /// Bytes of an answer's start held back until its status and headers can be decided.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub answer_buffer_bytes: usize,
    /// The same for metadata, of which only what is held back as a whole gets an entity tag.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub metadata_buffer_bytes: usize,
    /// The same of all requests together: what finds no room is not held back.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub metadata_buffers_bytes: usize,
    /// Frames of one request.
    pub frames_max: usize,
    /// Bytes of one request for storage commitment; beyond: 413. An instance takes some 160 of them.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub commitment_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            requests_max: 256,
            url_bytes_max: 16 * 1024,
            header_bytes_max: 64 * 1024,
            header_fields_max: 100,
            buffer_bytes: 512 * 1024,
            instance_bytes_max: 16 << 30,
            request_bytes_max: 1 << 40,
            part_header_bytes_max: 8 * 1024,
            preamble_bytes_max: 64 * 1024,
            discarded_bytes_max: 64 << 20,
            stores_in_flight_max: 8,
            store_response_bytes_max: 64 << 20,
            query_keys_max: 256,
            query_results_max: 10_000,
            answer_buffer_bytes: 256 * 1024,
            metadata_buffer_bytes: 16 << 20,
            metadata_buffers_bytes: 64 << 20,
            frames_max: 10_000,
            commitment_bytes_max: 32 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn multipart(&self) -> MultipartLimits {
        MultipartLimits {
            part_header_bytes_max: self.part_header_bytes_max,
            preamble_bytes_max: self.preamble_bytes_max,
        }
    }
}

/// How long is waited for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a complete request head, also on an idle connection.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub header: Duration,
    /// For the next bytes of a request's body.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub body_idle: Duration,
    /// For the rest of a refused request's body, so that its sender reads the answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub discard: Duration,
    /// For a reader that takes no bytes of an answer.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub write_stall: Duration,
    /// Bytes per second that a peer must send or take on average, once it was waited for longer than `rate_grace`.
    pub rate_min_bytes_per_s: u64,
    /// See `rate_min_bytes_per_s`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub rate_grace: Duration,
    /// For a turn when `Limits::requests_max` is reached; then 503.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub queue: Duration,
    /// For the first part of an answer from a service; then 503.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub answer: Duration,
    /// For the index to reach the position in `Cairn-Read-After`; then 503.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub read_after: Duration,
    /// For the result of a request for storage commitment; then 202.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub commitment: Duration,
    /// What `Retry-After` says.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_after: Duration,
    /// For requests under way when the server drains.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(30),
            body_idle: Duration::from_secs(30),
            discard: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            rate_min_bytes_per_s: 1024,
            rate_grace: Duration::from_secs(60),
            queue: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            read_after: Duration::from_secs(10),
            commitment: Duration::from_secs(5),
            retry_after: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}
