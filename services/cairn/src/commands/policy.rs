//! `cairn policy`: what is done with studies by itself, and what that would be.

use super::{
    Failure, connection,
    retention::given,
    table::{Cell, Rows, one},
};
use crate::cli::{ActionName, Common, PolicyAction, ServerArgs};
use cairn_archive::{
    envelope::rfc3339,
    holds::HeldBy,
    policies::{Action, State},
};
use cairn_service_api::{
    Policies,
    policies::{Fate, ForecastStudy, Halted, NewPolicy, PolicyRun, PolicyStatus, Sums, WhatIf},
};
use cairn_service_grpc::client::PoliciesClient;
use futures_util::TryStreamExt;

pub async fn run(action: PolicyAction) -> Result<(), Failure> {
    match action {
        PolicyAction::Adopt { name, expression, action, most, delay, rest, grounds } => {
            let server = grounds.common.server.clone();
            let delay = match action {
                ActionName::Erase => delay,
                ActionName::Move => rest,
            };
            let policy = NewPolicy {
                tenant: server.tenant.clone(),
                name,
                action: meant(action),
                expression,
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                studies_max: most.unwrap_or_default(),
                grounds: given(grounds),
            };
            println!("{}", client(&server)?.adopt_policy(policy).await?);
            Ok(())
        }
        PolicyAction::Withdraw { name, grounds } => {
            let server = grounds.common.server.clone();
            Ok(client(&server)?.withdraw_policy(&server.tenant, &name, given(grounds)).await?)
        }
        PolicyAction::List { all, common } => list(&common, all).await,
        PolicyAction::Show { name, common } => show(&common, &name).await,
        PolicyAction::WhatIf { name, expression, action, most, common } => {
            let tenant = common.server.tenant.clone();
            let of = match (name, expression) {
                (_, Some(expression)) => WhatIf::Expression { tenant, expression, action: meant(action) },
                (Some(name), None) => WhatIf::Named { tenant, name },
                (None, None) => return Err(Failure::usage("a policy or an expression is to be named")),
            };
            what_if(&common, of, most).await
        }
        PolicyAction::AcceptClock { grounds } => {
            let server = grounds.common.server.clone();
            Ok(client(&server)?.accept_clock(given(grounds)).await?)
        }
    }
}

fn meant(action: ActionName) -> Action {
    match action {
        ActionName::Erase => Action::Erase,
        ActionName::Move => Action::Move,
    }
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Erase => "erase",
        Action::Move => "move",
    }
}

fn client(server: &ServerArgs) -> Result<PoliciesClient, Failure> {
    Ok(PoliciesClient::new(&connection(server)?)?)
}

async fn list(common: &Common, all: bool) -> Result<(), Failure> {
    let columns = [
        ("Policy", 20),
        ("Version", 7),
        ("State", 10),
        ("Action", 6),
        ("Most", 8),
        ("DelayMs", 10),
        ("Adopted", 24),
        ("By", 12),
        ("LastRun", 24),
        ("Halted", 12),
        ("Matching", 8),
        ("Asked", 8),
        ("Expression", 40),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut policies = client(&common.server)?.policies().await?;
    while let Some(status) = policies.try_next().await? {
        if status.state != State::InForce && !all {
            continue;
        }
        let PolicyStatus { policy, state: of, last_run } = status;
        rows.cells(&[
            policy.name.into(),
            u64::from(policy.version).into(),
            state(&of).into(),
            done(policy.action).into(),
            policy.studies_max.into(),
            Cell::Milliseconds(policy.delay_ms),
            rfc3339(policy.at_ms).into(),
            policy.by.into(),
            of_run(last_run.as_ref(), |run| rfc3339(run.at_ms).into()),
            of_run(last_run.as_ref(), |run| run.halted.map_or(Cell::Absent, |halted| why(halted).into())),
            of_run(last_run.as_ref(), |run| run.sums.matching.into()),
            of_run(last_run.as_ref(), |run| run.asked.into()),
            policy.expression.into(),
        ])?;
    }
    rows.flush()
}

async fn show(common: &Common, name: &str) -> Result<(), Failure> {
    let mut policies = client(&common.server)?.policies().await?;
    while let Some(PolicyStatus { policy, state, last_run }) = policies.try_next().await? {
        if policy.name != name || policy.tenant != common.server.tenant || state != State::InForce {
            continue;
        }
        let run = last_run.as_ref();
        return one(
            common.output,
            &[
                ("Policy", policy.name.into()),
                ("Version", Cell::from(u64::from(policy.version))),
                ("Action", done(policy.action).into()),
                ("Expression", policy.expression.into()),
                ("Most", policy.studies_max.into()),
                ("DelayMs", Cell::Milliseconds(policy.delay_ms)),
                ("Adopted", rfc3339(policy.at_ms).into()),
                ("Site", policy.site.to_string().into()),
                ("By", policy.by.into()),
                ("Reason", policy.reason.into()),
                ("LastRun", of_run(run, |run| rfc3339(run.at_ms).into())),
                ("Halted", of_run(run, |run| run.halted.map_or(Cell::Absent, |halted| why(halted).into()))),
                ("Studies", of_run(run, |run| run.sums.studies.into())),
                ("Undecided", of_run(run, |run| run.sums.undecided.into())),
                ("Matching", of_run(run, |run| run.sums.matching.into())),
                ("Due", of_run(run, |run| run.sums.due.into())),
                ("Held", of_run(run, |run| run.sums.held.into())),
                ("UnderWay", of_run(run, |run| run.sums.under_way.into())),
                ("LeftAlone", of_run(run, |run| run.sums.left_alone.into())),
                ("Asked", of_run(run, |run| run.asked.into())),
                ("TakenBack", of_run(run, |run| run.taken_back.into())),
            ],
        );
    }
    Err(Failure::failed("no such policy is in force"))
}

async fn what_if(common: &Common, of: WhatIf, most: u64) -> Result<(), Failure> {
    let columns = [
        ("StudyInstanceUID", 44),
        ("StudyDate", 10),
        ("Modalities", 12),
        ("Received", 24),
        ("Instances", 9),
        ("Bytes", 10),
        ("Fate", 10),
        ("BecauseOf", 36),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut parts = client(&common.server)?.what_if(of, most).await?;
    let mut sums = Sums::default();
    while let Some(part) = parts.try_next().await? {
        sums = part.sums;
        for ForecastStudy { study, fate } in part.studies {
            let (fate, because_of) = told(fate);
            rows.cells(&[
                study.study_instance_uid.to_string().into(),
                study.study_date.map_or(Cell::Absent, |date| format!("{date:08}").into()),
                study.modalities.join(" ").into(),
                if study.received_at_ms == 0 { Cell::Absent } else { rfc3339(study.received_at_ms).into() },
                study.instances.into(),
                Cell::Size(study.bytes),
                fate.into(),
                because_of.map_or(Cell::Absent, Cell::from),
            ])?;
        }
    }
    rows.flush()?;
    one(
        common.output,
        &[
            ("Studies", Cell::from(sums.studies)),
            ("Matching", sums.matching.into()),
            ("Undecided", sums.undecided.into()),
            ("Due", sums.due.into()),
            ("BytesFreed", Cell::Size(sums.due_bytes)),
            ("Held", sums.held.into()),
            ("UnderWay", sums.under_way.into()),
            ("LeftAlone", sums.left_alone.into()),
        ],
    )
}

fn of_run(run: Option<&PolicyRun>, cell: impl FnOnce(&PolicyRun) -> Cell) -> Cell {
    run.map_or(Cell::Absent, cell)
}

fn told(fate: Fate) -> (&'static str, Option<String>) {
    match fate {
        Fate::Due => ("due", None),
        Fate::Held(HeldBy::Hold(id)) => ("held", Some(id.to_string())),
        Fate::Held(HeldBy::Unreadable(event)) => ("held", Some(event.to_string())),
        Fate::UnderWay(erasure) => ("under-way", Some(erasure.to_string())),
        Fate::LeftAlone(erasure) => ("left-alone", Some(erasure.to_string())),
        Fate::Waiting => ("under-way", None),
        Fate::Recalled => ("left-alone", None),
    }
}

fn state(state: &State) -> &'static str {
    match state {
        State::InForce => "in-force",
        State::Replaced => "replaced",
        State::Withdrawn(_) => "withdrawn",
        State::Void => "void",
    }
}

fn why(halted: Halted) -> &'static str {
    match halted {
        Halted::TooMany => "too-many",
        Halted::Clock => "clock",
        Halted::NoAuthority => "no-authority",
        Halted::Unreadable => "unreadable",
        Halted::Index => "index",
        Halted::NoColdStore => "no-cold-store",
    }
}
