//! Requests: one try of one, and trying again until a deadline.

use crate::config::S3Config;
use crate::credentials::Source;
use crate::failure::{Failure, Fate, classify};
use crate::{invalid, metrics};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::{Client, Config};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use cairn_store_api::StoreError;
use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// A refusal that a person must look at is told once in so long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// When an operation gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

pub(crate) struct Requests {
    pub(crate) client: Client,
    slots: Semaphore,
    attempt_timeout: Duration,
    deadline: Duration,
    backoff: (Duration, Duration),
    start: Instant,
    /// Numbers pauses, so that no two of one process are alike.
    pauses: AtomicU64,
    /// When a refusal was told last, in milliseconds since the start, plus one.
    told: AtomicU64,
}

fn mix(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn client(config: &S3Config) -> Result<Client, StoreError> {
    let source = config.credentials_file.clone().map_or(Source::Environment, Source::File);
    source.read().map_err(|error| invalid(format!("S3 credentials: {error}")))?;
    let mut roots = TrustStore::default();
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        roots.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(roots).build();
    let tls = tls.map_err(|error| invalid(format!("certificate authorities: {error}")))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let mut built = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .credentials_provider(source)
        .http_client(http)
        .force_path_style(config.path_style)
        // Trying again, deadlines and checksums are ours.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(config.connect_timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &config.endpoint {
        built = built.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(built.build()))
}

impl Requests {
    pub(crate) fn new(config: &S3Config) -> Result<Self, StoreError> {
        let (pauses, told) = Default::default();
        Ok(Self {
            client: client(config)?,
            slots: Semaphore::new(config.requests_max),
            attempt_timeout: config.attempt_timeout,
            deadline: config.deadline,
            backoff: (config.backoff_min, config.backoff_max),
            start: Instant::now(),
            pauses,
            told,
        })
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline(Instant::now() + self.deadline)
    }

    /// A deadline that is sooner than the configured one, for what somebody waits for.
    pub(crate) fn deadline_of(&self, time: Duration) -> Deadline {
        Deadline(Instant::now() + time.min(self.deadline))
    }

    /// Tries once. What was asked in vain for want of credentials or rights is told loudly.
    pub(crate) async fn once<T, E>(
        &self,
        what: &'static str,
        deadline: Deadline,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let time = self.attempt_timeout.min(deadline.left());
        let begun = Instant::now();
        let tried = tokio::time::timeout(time, async {
            let _slot = self.slots.acquire().await;
            request.await
        });
        let result = match tried.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(classify(what, &error)),
            Err(_) => Err(Failure::new(Fate::Unknown, format!("{what}: no answer within {time:?}"))),
        };
        metrics::request(what, result.as_ref().map_or_else(Failure::label, |_| "ok"), begun.elapsed());
        if let Err(failure) = &result
            && failure.fate == Fate::Denied
        {
            self.tell(failure);
        }
        result
    }

    fn tell(&self, failure: &Failure) {
        let now = self.start.elapsed().as_millis() as u64 + 1;
        let told = self.told.load(Ordering::Relaxed);
        if told == 0 || now - told > TOLD_AGAIN.as_millis() as u64 {
            self.told.store(now, Ordering::Relaxed);
            tracing::error!(error = failure.message, "the object store refuses us: see credentials, rights and bucket");
        }
    }

    /// Waits before the next try; `false`: there is no time for one.
    pub(crate) async fn pause(&self, tries: u32, deadline: Deadline) -> bool {
        let (min, max) = self.backoff;
        let most = min.saturating_mul(1 << tries.min(16)).min(max);
        let chance = mix(self.start.elapsed().as_nanos() as u64 ^ self.pauses.fetch_add(1, Ordering::Relaxed) << 40);
        let pause = min / 2 + most.mul_f64(chance as f64 / u64::MAX as f64);
        if pause >= deadline.left() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// Tries a request that may be done more than once, until it is done, can't be, or the deadline is over.
    pub(crate) async fn until_done<T, E, F>(
        &self,
        what: &'static str,
        deadline: Deadline,
        mut request: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut tries = 0;
        loop {
            let failure = match self.once(what, deadline, request()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.is_temporary() || !self.pause(tries, deadline).await {
                return Err(failure);
            }
            tries += 1;
        }
    }
}
