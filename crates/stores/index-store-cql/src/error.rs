//! What the driver's failures mean to a caller of the port. Texts of the server are not passed on: they can quote values.

use cairn_store_api::{StoreError, StoreErrorKind};
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

/// A failure of a request.
pub(crate) fn request(what: &str, error: &ExecutionError) -> StoreError {
    let (kind, why) = match error {
        ExecutionError::LastAttemptError(attempt) => attempted(attempt),
        ExecutionError::RequestTimeout(_) => (StoreErrorKind::Unavailable, "no answer in time"),
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => {
            (StoreErrorKind::Unavailable, "no node can be reached")
        }
        ExecutionError::SchemaAgreementError(_) | ExecutionError::MetadataError(_) => {
            (StoreErrorKind::Unavailable, "nodes do not agree on the schema")
        }
        ExecutionError::PrepareError(error) => prepared(error),
        _ => (StoreErrorKind::Internal, "the request can't be made"),
    };
    new(kind, what, why)
}

/// A failure to prepare a statement.
pub(crate) fn prepare(what: &str, error: &PrepareError) -> StoreError {
    let (kind, why) = prepared(error);
    new(kind, what, why)
}

pub(crate) fn new(kind: StoreErrorKind, what: &str, why: &str) -> StoreError {
    StoreError::new(kind, format!("index store over cql: {what}: {why}"))
}

/// What the server sent is not what was asked for.
pub(crate) fn unreadable(what: &str) -> StoreError {
    new(StoreErrorKind::Internal, what, "the answer has another shape")
}

fn prepared(error: &PrepareError) -> (StoreErrorKind, &'static str) {
    match error {
        PrepareError::ConnectionPoolError(_) => (StoreErrorKind::Unavailable, "no node can be reached"),
        PrepareError::AllAttemptsFailed { first_attempt } => attempted(first_attempt),
        PrepareError::PreparedStatementIdsMismatch => (StoreErrorKind::Internal, "nodes disagree on a statement"),
        _ => (StoreErrorKind::Unavailable, "no statement could be prepared in time"),
    }
}

fn attempted(error: &RequestAttemptError) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Exhausted, Internal, Invalid, NotFound, Unavailable};
    let RequestAttemptError::DbError(error, text) = error else {
        return match error {
            RequestAttemptError::UnableToAllocStreamId => (Exhausted, "too many requests are under way"),
            RequestAttemptError::BrokenConnectionError(_) => (Unavailable, "the connection broke"),
            _ => (Internal, "the answer is not understood"),
        };
    };
    match error {
        // Both engines say so of a table that was dropped.
        DbError::Invalid if text.contains("unconfigured table") || text.contains("does not exist") => {
            (NotFound, "the table does not exist")
        }
        DbError::Unavailable { .. } => (Unavailable, "too few replicas are up"),
        DbError::ReadTimeout { .. } | DbError::WriteTimeout { .. } => (Unavailable, "replicas did not answer in time"),
        DbError::ReadFailure { .. } | DbError::WriteFailure { .. } => (Unavailable, "replicas failed"),
        DbError::IsBootstrapping => (Unavailable, "the node is starting"),
        DbError::ServerError => (Unavailable, "the server failed"),
        DbError::TruncateError => (Unavailable, "a table could not be emptied"),
        DbError::Overloaded | DbError::RateLimitReached { .. } => (Exhausted, "the cluster is overloaded"),
        DbError::AuthenticationError | DbError::Unauthorized => (Invalid, "the user may not do this"),
        DbError::ConfigError | DbError::Invalid | DbError::SyntaxError => (Internal, "the statement is refused"),
        _ => (Internal, "the server refused"),
    }
}
