//! Messages of storage commitment, and the types that they carry. Doors and ways of reporting have the same numbers here as in
//! events.

use crate::{error::malformed, lifecycle_proto as pb};
use cairn_archive::{
    commitment::{FailureReason, Reference, State, Within},
    events::{CommitmentReporting, Door},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error,
    commitment::{Commitment, Outcome, Request, Selection, Transaction},
};

fn uid(text: &str, what: &'static str) -> Result<Uid, Error> {
    text.parse().map_err(|_| malformed(what))
}

fn reason_from(number: u32) -> Result<FailureReason, Error> {
    u16::try_from(number).map(FailureReason).map_err(|_| malformed("failure_reason"))
}

pub(crate) fn transaction_to(transaction: &Transaction) -> pb::Transaction {
    let Transaction { tenant, requester, transaction_uid } = transaction.clone();
    pb::Transaction { tenant, requester, transaction_uid: transaction_uid.to_string() }
}

pub(crate) fn transaction_from(transaction: Option<pb::Transaction>) -> Result<Transaction, Error> {
    let pb::Transaction { tenant, requester, transaction_uid } = transaction.ok_or_else(|| malformed("transaction"))?;
    Ok(Transaction { tenant, requester, transaction_uid: uid(&transaction_uid, "transaction_uid")? })
}

fn reference_to(reference: &Reference) -> pb::CommitmentReference {
    let of = |part: fn(&Within) -> &Uid| reference.within.as_ref().map(|of| part(of).to_string()).unwrap_or_default();
    pb::CommitmentReference {
        sop_class_uid: reference.sop_class_uid.to_string(),
        sop_instance_uid: reference.sop_instance_uid.to_string(),
        study_instance_uid: of(|within| &within.study_instance_uid),
        series_instance_uid: of(|within| &within.series_instance_uid),
    }
}

fn reference_from(reference: &pb::CommitmentReference) -> Result<Reference, Error> {
    let within = match (reference.study_instance_uid.as_str(), reference.series_instance_uid.as_str()) {
        ("", "") => None,
        (study, series) => Some(Within {
            study_instance_uid: uid(study, "study_instance_uid")?,
            series_instance_uid: uid(series, "series_instance_uid")?,
        }),
    };
    Ok(Reference {
        sop_class_uid: uid(&reference.sop_class_uid, "sop_class_uid")?,
        sop_instance_uid: uid(&reference.sop_instance_uid, "sop_instance_uid")?,
        within,
    })
}

pub(crate) fn request_to(request: &Request) -> pb::RequestCommitmentRequest {
    pb::RequestCommitmentRequest {
        transaction: Some(transaction_to(&request.transaction)),
        called_ae_title: request.called_ae_title.clone(),
        door: i32::from(request.door),
        peer_address: request.peer_address.clone(),
        references: request.references.iter().map(reference_to).collect(),
        confirmed_sites: request.confirmed_sites,
        reporting: i32::from(request.reporting),
    }
}

pub(crate) fn request_from(request: pb::RequestCommitmentRequest) -> Result<Request, Error> {
    Ok(Request {
        transaction: transaction_from(request.transaction)?,
        called_ae_title: request.called_ae_title,
        door: door_from(request.door)?,
        peer_address: request.peer_address,
        references: request.references.iter().map(reference_from).collect::<Result<_, _>>()?,
        confirmed_sites: request.confirmed_sites,
        reporting: CommitmentReporting::try_from(request.reporting).map_err(|_| malformed("reporting"))?,
    })
}

fn door_from(number: i32) -> Result<Door, Error> {
    Door::try_from(number).map_err(|_| malformed("door"))
}

fn state_to(state: State) -> pb::CommitmentState {
    match state {
        State::Pending => pb::CommitmentState::Pending,
        State::Unreported => pb::CommitmentState::Unreported,
        State::Decided => pb::CommitmentState::Decided,
        State::Reported => pb::CommitmentState::Reported,
        State::GivenUp => pb::CommitmentState::GivenUp,
    }
}

fn state_from(number: i32) -> Result<Option<State>, Error> {
    let state = pb::CommitmentState::try_from(number).map_err(|_| malformed("state"))?;
    Ok(match state {
        pb::CommitmentState::Unspecified => None,
        pb::CommitmentState::Pending => Some(State::Pending),
        pb::CommitmentState::Unreported => Some(State::Unreported),
        pb::CommitmentState::Decided => Some(State::Decided),
        pb::CommitmentState::Reported => Some(State::Reported),
        pb::CommitmentState::GivenUp => Some(State::GivenUp),
    })
}

pub(crate) fn commitment_to(commitment: Commitment) -> pb::Commitment {
    let failed =
        |(reason, count): (FailureReason, u32)| pb::CommitmentFailed { failure_reason: reason.0.into(), count };
    pb::Commitment {
        transaction: Some(transaction_to(&commitment.transaction)),
        state: state_to(commitment.state).into(),
        door: i32::from(commitment.door),
        requested_at_ms: commitment.requested_at_ms,
        references: commitment.references,
        confirmed_sites: commitment.confirmed_sites,
        decided_at_ms: commitment.decided_at_ms,
        committed: commitment.committed,
        failed: commitment.failed.into_iter().map(failed).collect(),
        reported_at_ms: commitment.reported_at_ms,
        report_failure: commitment.report_failure,
    }
}

pub(crate) fn commitment_from(commitment: Option<pb::Commitment>) -> Result<Commitment, Error> {
    let commitment = commitment.ok_or_else(|| malformed("commitment"))?;
    let failed = |of: pb::CommitmentFailed| Ok::<_, Error>((reason_from(of.failure_reason)?, of.count));
    Ok(Commitment {
        transaction: transaction_from(commitment.transaction)?,
        state: state_from(commitment.state)?.ok_or_else(|| malformed("state"))?,
        door: door_from(commitment.door)?,
        requested_at_ms: commitment.requested_at_ms,
        references: commitment.references,
        confirmed_sites: commitment.confirmed_sites,
        decided_at_ms: commitment.decided_at_ms,
        committed: commitment.committed,
        failed: commitment.failed.into_iter().map(failed).collect::<Result<_, _>>()?,
        reported_at_ms: commitment.reported_at_ms,
        report_failure: commitment.report_failure,
    })
}

pub(crate) fn outcome_to(outcome: Outcome) -> pb::CommitmentOutcomesResponse {
    pb::CommitmentOutcomesResponse {
        reference: Some(reference_to(&outcome.reference)),
        failure_reason: outcome.failure.map(|reason| reason.0.into()),
    }
}

pub(crate) fn outcome_from(outcome: pb::CommitmentOutcomesResponse) -> Result<Outcome, Error> {
    let reference = outcome.reference.ok_or_else(|| malformed("reference"))?;
    let failure = outcome.failure_reason.map(reason_from).transpose()?;
    Ok(Outcome { reference: reference_from(&reference)?, failure })
}

pub(crate) fn selection_to(selection: Selection) -> pb::CommitmentsRequest {
    pb::CommitmentsRequest {
        tenant: selection.tenant,
        requester: selection.requester,
        transaction_uid: selection.transaction_uid.map(|uid| uid.to_string()),
        state: selection.state.map_or(pb::CommitmentState::Unspecified, state_to).into(),
    }
}

pub(crate) fn selection_from(selection: pb::CommitmentsRequest) -> Result<Selection, Error> {
    let transaction_uid = selection.transaction_uid.map(|text| uid(&text, "transaction_uid")).transpose()?;
    let state = state_from(selection.state)?;
    Ok(Selection { tenant: selection.tenant, requester: selection.requester, transaction_uid, state })
}
