//! What the door counts. Label values come from closed sets; none is of a patient, an AE or an address.

use crate::{AssociationError, CommandField, Status};
use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// A connection closed at once because too many were open.
pub(crate) fn connection_refused() {
    counter!("cairn_dimse_connections_refused_total").increment(1);
}

/// A request for an association was answered, or never came to an end.
pub(crate) fn association_asked(outcome: Result<(), &AssociationError>) {
    let result = match outcome {
        Ok(()) => "accepted",
        Err(AssociationError::Rejected(reject)) if reject.is_transient() => "rejected-transient",
        Err(AssociationError::Rejected(_)) => "rejected-permanent",
        Err(AssociationError::Closed | AssociationError::Io(_) | AssociationError::Aborted(_)) => "gone",
        Err(AssociationError::Timeout(_)) => "timeout",
        Err(_) => "malformed",
    };
    counter!("cairn_dimse_associations_total", "result" => result).increment(1);
}

/// An association ended; `None`: the archive stops.
pub(crate) fn association_ended(ended: Option<&Result<(), AssociationError>>) {
    let how = match ended {
        None => "stopped",
        Some(Ok(()) | Err(AssociationError::Released)) => "released",
        Some(Err(AssociationError::Aborted(_))) => "aborted-by-peer",
        Some(Err(AssociationError::Closed | AssociationError::Io(_))) => "gone",
        Some(Err(AssociationError::Timeout(_))) => "timeout",
        Some(Err(_)) => "protocol-error",
    };
    counter!("cairn_dimse_associations_ended_total", "how" => how).increment(1);
}

/// Open at the moment.
pub(crate) fn open(connections: usize, associations: usize) {
    gauge!("cairn_dimse_connections_open").set(connections as f64);
    gauge!("cairn_dimse_associations_open").set(associations as f64);
}

/// A request was answered to its end.
pub(crate) fn answered(field: CommandField, took: Duration) {
    histogram!("cairn_dimse_request_duration_seconds", "request" => request(field)).record(took);
}

/// A sub-operation of C-MOVE or C-GET ended with this status; nothing if there was none.
pub(crate) fn sub_operation(outcome: Option<Status>) {
    let outcome = match outcome {
        Some(Status::SUCCESS) => "completed",
        Some(status) if status.is_warning() => "warning",
        _ => "failed",
    };
    counter!("cairn_dimse_sub_operations_total", "outcome" => outcome).increment(1);
}

/// A request's name.
pub(crate) fn request(field: CommandField) -> &'static str {
    match field {
        CommandField::C_ECHO_RQ => "c-echo",
        CommandField::C_STORE_RQ => "c-store",
        CommandField::C_FIND_RQ => "c-find",
        CommandField::C_MOVE_RQ => "c-move",
        CommandField::C_GET_RQ => "c-get",
        CommandField::N_ACTION_RQ => "n-action",
        _ => "other",
    }
}
