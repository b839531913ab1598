//! What became of a request, and what to do next.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use cairn_store_api::{StoreError, StoreErrorKind};

/// Why one try of a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Surely not done, and may be tried again: throttled, or damaged on the way.
    Refused,
    /// Nobody knows whether it was done; may be tried again.
    Unknown,
    /// What it names is not there.
    Missing,
    /// Something is there that must not be.
    Present,
    /// No byte of the range asked for is there.
    OutOfRange,
    /// It is put away, and must be restored before it can be read.
    Archived,
    /// It is restored now, or can be read: there is nothing to be asked for.
    Restoring,
    /// The store has no room.
    Full,
    /// The store does not let us: credentials, rights, bucket, region. A person has to look.
    Denied,
    /// Nobody should have asked so.
    Wrong,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) fate: Fate,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(fate: Fate, message: impl Into<String>) -> Self {
        Self { fate, message: message.into() }
    }

    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.fate, Fate::Refused | Fate::Unknown)
    }

    pub(crate) fn label(&self) -> &'static str {
        match self.fate {
            Fate::Refused => "refused",
            Fate::Unknown => "unknown",
            Fate::Missing => "missing",
            Fate::Present => "present",
            Fate::OutOfRange => "out-of-range",
            Fate::Archived => "archived",
            Fate::Restoring => "restoring",
            Fate::Full => "full",
            Fate::Denied => "denied",
            Fate::Wrong => "wrong",
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.fate {
            // Senders keep what they have until somebody has set the configuration right.
            Fate::Refused | Fate::Unknown | Fate::Denied => StoreErrorKind::Unavailable,
            Fate::Missing => StoreErrorKind::NotFound,
            Fate::Present => StoreErrorKind::Conflict,
            Fate::OutOfRange => StoreErrorKind::Invalid,
            Fate::Archived | Fate::Restoring => StoreErrorKind::Archived,
            Fate::Full => StoreErrorKind::Exhausted,
            Fate::Wrong => StoreErrorKind::Internal,
        };
        Self::new(kind, failure.message)
    }
}

/// Error codes of S3 and of stores that speak it, where the HTTP status does not say enough.
fn by_code(code: &str) -> Option<Fate> {
    Some(match code {
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "RequestTimeout"
        | "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "ConditionalRequestConflict"
        | "OperationAborted" => Fate::Refused,
        "NoSuchBucket"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "ExpiredToken"
        | "InvalidToken"
        | "InvalidBucketName"
        | "IllegalLocationConstraintException" => Fate::Denied,
        "InvalidObjectState" => Fate::Archived,
        "RestoreAlreadyInProgress" | "ObjectAlreadyInActiveTierError" => Fate::Restoring,
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => Fate::Full,
        _ => return None,
    })
}

fn by_status(status: u16) -> Fate {
    match status {
        404 => Fate::Missing,
        412 => Fate::Present,
        416 => Fate::OutOfRange,
        507 => Fate::Full,
        408 | 409 | 429 | 503 => Fate::Refused,
        301 | 302 | 307 | 308 | 401 | 403 => Fate::Denied,
        500.. => Fate::Unknown,
        _ => Fate::Wrong,
    }
}

/// Reads an error of the client. The texts name operation and cause; they hold no credentials.
pub(crate) fn classify<E>(what: &str, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let (status, code) = (service.raw().status().as_u16(), service.err().code().unwrap_or("no code"));
            let fate = by_code(code).unwrap_or_else(|| by_status(status));
            Failure::new(fate, format!("{what}: the object store answered {status} ({code})"))
        }
        // An answer that makes no sense: cut, or damaged on the way.
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            Failure::new(Fate::Unknown, format!("{what}: the object store's answer ({status}) can't be read"))
        }
        SdkError::TimeoutError(_) => Failure::new(Fate::Unknown, format!("{what}: the object store does not answer")),
        SdkError::DispatchFailure(dispatch) if !dispatch.is_user() && !is_credentials(error) => {
            Failure::new(Fate::Unknown, format!("{what}: {}", causes(error)))
        }
        _ if is_credentials(error) => Failure::new(Fate::Denied, format!("{what}: {}", causes(error))),
        _ => Failure::new(Fate::Wrong, format!("{what}: {}", DisplayErrorContext(error))),
    }
}

type AnyError = dyn std::error::Error + 'static;

fn chain(error: &AnyError) -> impl Iterator<Item = &AnyError> {
    std::iter::successors(Some(error), |error| error.source())
}

fn is_credentials(error: &AnyError) -> bool {
    chain(error).any(|error| error.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// The innermost cause: what went wrong with the connection.
fn causes(error: &AnyError) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}
