//! Failures of the services as statuses. CONFORMANCE.md prints these tables.

use crate::{Command, Status};
use cairn_service_api::{Error, ErrorKind, Reason};

/// Statuses of ours in the Cxxx range, for C-STORE ("cannot understand") and for queries and retrievals ("unable to
/// process").
pub(crate) mod own {
    use crate::Status;

    /// A UID that the object must have is missing or unusable.
    pub(crate) const BAD_IDENTIFIER: Status = Status(0xC001);
    /// The transfer syntax can't be taken.
    pub(crate) const TRANSFER_SYNTAX: Status = Status(0xC002);
    /// The object, or the identifier of a request, is larger than the configured bound.
    pub(crate) const TOO_LARGE: Status = Status(0xC003);
    /// The re-send policy refuses another version.
    pub(crate) const CONFLICT_REFUSED: Status = Status(0xC004);
    /// The value of a key can't be used for matching.
    pub(crate) const UNUSABLE_KEY: Status = Status(0xC005);
    /// Stored bytes are damaged.
    pub(crate) const CORRUPT: Status = Status(0xC010);
    /// A defect of the archive.
    pub(crate) const INTERNAL: Status = Status(0xC011);
}

/// The status of a failure, whichever the service (PS3.4 tables B.2-1, C.4-1, C.4-2, C.4-3; PS3.7 annex C).
pub(crate) fn of(error: &Error) -> Status {
    match (error.reason, error.kind) {
        (Reason::CannotUnderstand, _) => Status::CANNOT_UNDERSTAND,
        (Reason::DoesNotMatch, _) => Status::DOES_NOT_MATCH_SOP_CLASS,
        (Reason::BadIdentifier, _) => own::BAD_IDENTIFIER,
        (Reason::TransferSyntax, _) => own::TRANSFER_SYNTAX,
        (Reason::TooLarge, _) => own::TOO_LARGE,
        (Reason::ConflictRefused, _) => own::CONFLICT_REFUSED,
        (Reason::UnusableKey, _) => own::UNUSABLE_KEY,
        (Reason::OutOfRoom | Reason::NotYetIndexed | Reason::NotConfirmed | Reason::ReadOnly, _) => {
            Status::OUT_OF_RESOURCES
        }
        (Reason::Unspecified, kind) => match kind {
            ErrorKind::Exhausted | ErrorKind::Unavailable => Status::OUT_OF_RESOURCES,
            ErrorKind::Denied => Status::NOT_AUTHORIZED,
            ErrorKind::Conflict => own::CONFLICT_REFUSED,
            ErrorKind::Corrupt => own::CORRUPT,
            ErrorKind::Invalid | ErrorKind::NotFound => Status::CANNOT_UNDERSTAND,
            ErrorKind::Aborted | ErrorKind::Internal => own::INTERNAL,
        },
    }
}

/// The response to a request that failed, with comment and elements concerned.
pub(crate) fn response(request: &Command, error: &Error) -> Command {
    let mut response = request.response(of(error)).with_comment(&error.message);
    response.offending_elements = error.tags.iter().map(|tag| tag.0).collect();
    response
}
