//! A service's failure as a gRPC status and back. The status code says what any client should do; the detail travels
//! in binary metadata, so that our own client gives back exactly the error that the service gave.

use crate::common::{self, ErrorDetail};
use cairn_dicom::Tag;
use cairn_service_api::{Error, ErrorKind, Reason};
use prost::Message;
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};

const DETAIL: &str = "cairn-error-bin";

macro_rules! both_ways {
    ($to:ident, $from:ident, $ours:ty, $theirs:ty, $otherwise:path; $($name:ident),+ $(,)?) => {
        fn $to(value: $ours) -> $theirs {
            match value { $(<$ours>::$name => <$theirs>::$name,)+ }
        }
        fn $from(value: i32) -> $ours {
            match <$theirs>::try_from(value) {
                $(Ok(<$theirs>::$name) => <$ours>::$name,)+
                #[allow(unreachable_patterns, reason = "one of the two enums has an unspecified value")]
                _ => $otherwise,
            }
        }
    };
}

both_ways!(kind_to, kind_from, ErrorKind, common::ErrorKind, ErrorKind::Internal;
    NotFound, Conflict, Invalid, Exhausted, Unavailable, Denied, Corrupt, Aborted, Internal);
both_ways!(reason_to, reason_from, Reason, common::ErrorReason, Reason::Unspecified;
    Unspecified, CannotUnderstand, DoesNotMatch, BadIdentifier, TransferSyntax, OutOfRoom, TooLarge, ConflictRefused,
    UnusableKey, NotYetIndexed, NotConfirmed, ReadOnly);

fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Aborted => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Conflict,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => ErrorKind::Invalid,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Unavailable | Code::DeadlineExceeded => ErrorKind::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Cancelled | Code::Aborted => ErrorKind::Aborted,
        _ => ErrorKind::Internal,
    }
}

pub(crate) fn to_detail(error: &Error) -> ErrorDetail {
    ErrorDetail {
        kind: kind_to(error.kind).into(),
        reason: reason_to(error.reason).into(),
        message: error.message.clone(),
        tags: error.tags.iter().map(|tag| tag.0).collect(),
    }
}

pub(crate) fn from_detail(detail: ErrorDetail) -> Error {
    Error {
        kind: kind_from(detail.kind),
        reason: reason_from(detail.reason),
        message: detail.message,
        tags: detail.tags.into_iter().map(Tag).collect(),
    }
}

pub(crate) fn to_status(error: Error) -> Status {
    let detail = to_detail(&error).encode_to_vec();
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(DETAIL, BinaryMetadataValue::from_bytes(&detail));
    Status::with_metadata(code_of(error.kind), error.message, metadata)
}

pub(crate) fn from_status(status: Status) -> Error {
    let detail = status.metadata().get_bin(DETAIL).and_then(|value| value.to_bytes().ok());
    match detail.and_then(|bytes| ErrorDetail::decode(bytes).ok()) {
        Some(detail) => from_detail(detail),
        None if status.code() == Code::Unimplemented && status.message().is_empty() => {
            let message = "this process does not have that service: ask one of its role, or a gateway; replication and sites are \
                           there where [replication.peers] names others";
            Error::new(ErrorKind::Invalid, message)
        }
        None if is_lost(&status) => Error::new(ErrorKind::Unavailable, status.message().to_owned()),
        None => Error::new(kind_of(status.code()), status.message().to_owned()),
    }
}

/// Whether the call failed on the way rather than in the service: the process is not there, went away, or is cut off.
pub(crate) fn is_lost(status: &Status) -> bool {
    let said = status.metadata().get_bin(DETAIL).is_some();
    // What came over the wire has no cause here.
    !said && (std::error::Error::source(status).is_some() || status.code() == Code::Unavailable)
}

/// Whether it surely was not sent.
pub(crate) fn is_not_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A request or answer that is not what the protocol says.
pub(crate) fn malformed(what: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} is missing or malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_a_process_does_not_have_is_said() {
        let error = from_status(Status::new(Code::Unimplemented, ""));
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("does not have that service"), "{error}");
    }

    #[test]
    fn every_error_comes_back_as_it_was() {
        use ErrorKind::*;
        use Reason::*;
        let kinds =
            [NotFound, Conflict, Invalid, Exhausted, ErrorKind::Unavailable, Denied, Corrupt, Aborted, Internal];
        let reasons = [
            Unspecified,
            CannotUnderstand,
            DoesNotMatch,
            BadIdentifier,
            TransferSyntax,
            OutOfRoom,
            TooLarge,
            ConflictRefused,
            UnusableKey,
            NotYetIndexed,
            NotConfirmed,
            ReadOnly,
        ];
        for kind in kinds {
            for reason in reasons {
                let error = Error::because(kind, reason, "object is gone").about(Tag(0x0008_0018));
                let back = from_status(to_status(error.clone()));
                assert_eq!(
                    (back.kind, back.reason, &back.message, &back.tags),
                    (kind, reason, &error.message, &error.tags)
                );
            }
            assert_eq!(kind_of(code_of(kind)), kind, "a foreign server's status means the same");
        }
    }
}
