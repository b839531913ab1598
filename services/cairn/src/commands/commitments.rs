//! `cairn commitments`: who asked whether the archive keeps instances, and what it said.

use super::{
    Failure, connection,
    table::{Cell, Rows},
};
use crate::cli::{CommitmentState, CommitmentsAction, Common, ServerArgs};
use cairn_archive::{commitment::State, envelope::rfc3339, events::Door};
use cairn_dicom::Uid;
use cairn_service_api::{
    Commitments,
    commitment::{Commitment, Selection},
};
use cairn_service_grpc::client::CommitmentsClient;
use futures_util::{StreamExt, TryStreamExt};

pub async fn run(action: CommitmentsAction) -> Result<(), Failure> {
    match action {
        CommitmentsAction::List { common, state, requester, limit } => list(&common, state, requester, limit).await,
        CommitmentsAction::Show { transaction_uid, common, requester } => {
            show(&common, transaction_uid, requester).await
        }
    }
}

fn client(server: &ServerArgs) -> Result<CommitmentsClient, Failure> {
    Ok(CommitmentsClient::new(&connection(server)?)?)
}

fn state_from(state: CommitmentState) -> State {
    match state {
        CommitmentState::Pending => State::Pending,
        CommitmentState::Unreported => State::Unreported,
        CommitmentState::Decided => State::Decided,
        CommitmentState::Reported => State::Reported,
        CommitmentState::GivenUp => State::GivenUp,
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Unreported => "unreported",
        State::Decided => "decided",
        State::Reported => "reported",
        State::GivenUp => "given-up",
    }
}

fn door_name(door: Door) -> &'static str {
    match door {
        Door::Dimse => "dimse",
        Door::Dicomweb => "dicomweb",
        _ => "other",
    }
}

async fn list(
    common: &Common,
    state: Option<CommitmentState>,
    requester: Option<String>,
    limit: usize,
) -> Result<(), Failure> {
    let columns = [
        ("State", 10),
        ("Requester", 16),
        ("TransactionUID", 44),
        ("Door", 8),
        ("Requested", 24),
        ("Instances", 9),
        ("Committed", 9),
        ("Failed", 6),
        ("Sites", 5),
        ("Decided", 24),
        ("Reported", 24),
        ("Why", 20),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let tenant = common.server.tenant.clone();
    let selection = Selection { tenant, requester, transaction_uid: None, state: state.map(state_from) };
    let found = client(&common.server)?.commitments(selection).await?;
    let mut found = found.take(if limit == 0 { usize::MAX } else { limit });
    while let Some(commitment) = found.next().await {
        rows.cells(&row(&commitment?))?;
    }
    rows.flush()
}

fn row(commitment: &Commitment) -> [Cell; 12] {
    let time = |at_ms: Option<u64>| at_ms.map_or(Cell::Absent, |at| rfc3339(at).into());
    let failed: u32 = commitment.failed.iter().map(|(_, count)| count).sum();
    [
        state_name(commitment.state).into(),
        commitment.transaction.requester.clone().into(),
        commitment.transaction.transaction_uid.to_string().into(),
        door_name(commitment.door).into(),
        rfc3339(commitment.requested_at_ms).into(),
        u64::from(commitment.references).into(),
        u64::from(commitment.committed).into(),
        u64::from(failed).into(),
        u64::from(commitment.confirmed_sites).into(),
        time(commitment.decided_at_ms),
        time(commitment.reported_at_ms),
        commitment.report_failure.clone().map_or(Cell::Absent, Cell::from),
    ]
}

async fn show(common: &Common, transaction_uid: Uid, requester: Option<String>) -> Result<(), Failure> {
    let (client, tenant) = (client(&common.server)?, common.server.tenant.clone());
    let selection = Selection { tenant, requester, transaction_uid: Some(transaction_uid), state: None };
    let found: Vec<_> = client.commitments(selection).await?.try_collect().await?;
    let commitment = match found.as_slice() {
        [] => return Err(Failure::failed("there is no such request")),
        [only] => only,
        _ => return Err(Failure::usage("several requesters used this Transaction UID: say which with --requester")),
    };
    if commitment.decided_at_ms.is_none() {
        return Err(Failure::failed("it is not decided yet"));
    }
    let columns = [("Outcome", 9), ("FailureReason", 13), ("SOPInstanceUID", 60), ("SOPClassUID", 40)];
    let mut rows = Rows::new(common.output, &columns);
    let mut outcomes = client.commitment_outcomes(&commitment.transaction).await?;
    let mut failed = 0_u64;
    while let Some(outcome) = outcomes.next().await {
        let outcome = outcome?;
        failed += u64::from(outcome.failure.is_some());
        rows.cells(&[
            if outcome.failure.is_some() { "failed" } else { "committed" }.into(),
            outcome.failure.map_or(Cell::Absent, |reason| reason.to_string().into()),
            outcome.reference.sop_instance_uid.to_string().into(),
            outcome.reference.sop_class_uid.to_string().into(),
        ])?;
    }
    rows.flush()?;
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Partial(format!("{failed} instances are not committed"))),
    }
}
