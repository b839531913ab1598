//! `cairn index`: generations of the index, how far they are, and which one serves.

mod progress;

use super::{Failure, index, table::Rows};
use crate::cli::{Common, IndexAction, Output};
use cairn_archive::Digest;
use cairn_service_api::{
    Index,
    index::{Certificate, Change, Changed, Diff, GenerationStatus, Role, StateDigest, Then, Until},
};
use cairn_service_grpc::client::IndexClient;
use futures_util::StreamExt;

pub async fn run(action: IndexAction) -> Result<(), Failure> {
    match action {
        IndexAction::Status { common } => status(&common).await,
        IndexAction::Rebuild { common, until: Some(until), detach, .. } => freeze(&common, until, detach).await,
        IndexAction::Rebuild { common, no_switch, detach, .. } => {
            let then = if no_switch { Then::Wait } else { Then::Serve };
            rebuild(&common, then, detach).await
        }
        IndexAction::Verify { common } => rebuild(&common, Then::Drop, false).await,
        IndexAction::Pause { number, common } => {
            let number = filling(&common, number, |status| !status.paused).await?;
            change(&common, Change::Pause(number)).await
        }
        IndexAction::Resume { number, common } => {
            let number = filling(&common, number, |status| status.paused).await?;
            change(&common, Change::Resume(number)).await
        }
        IndexAction::Cancel { number, common } => {
            let number = filling(&common, number, |_| true).await?;
            change(&common, Change::Drop(number)).await
        }
        IndexAction::Diff { a, b, common, limit } => diff(&common, a, b, limit).await,
        IndexAction::Switch { number, common, accept_difference } => switch(&common, number, accept_difference).await,
        IndexAction::Rollback { common } => change(&common, Change::Rollback).await,
        IndexAction::Drop { number, common } => change(&common, Change::Drop(number)).await,
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Serving => "serving",
        Role::Filling => "filling",
        Role::Frozen => "frozen",
        Role::Kept => "kept",
        Role::Dropping => "dropping",
        Role::Other => "unknown",
    }
}

fn verdict(certificate: Option<&Certificate>) -> &'static str {
    match certificate {
        None => "-",
        Some(certificate) if certificate.is_equal() => "equal",
        Some(_) => "DIFFERENT",
    }
}

/// The serving generation first.
async fn status(common: &Common) -> Result<(), Failure> {
    let mut all = index(&common.server)?.generations().await?;
    all.sort_by_key(|status| (status.role != Role::Serving, status.generation));
    let columns = [
        ("Generation", 10),
        ("Role", 8),
        ("Studies", 9),
        ("Series", 9),
        ("Instances", 10),
        ("LagEvents", 9),
        ("Parked", 6),
        ("Filled", 7),
        ("EventsPerSecond", 15),
        ("SecondsLeft", 11),
        ("Compared", 9),
        ("Paused", 6),
        ("StateDigest", 64),
    ];
    let mut rows = Rows::new(common.output, &columns);
    for status in &all {
        rows.row(&[
            status.generation.to_string(),
            role(status.role).to_owned(),
            status.studies.to_string(),
            status.series.to_string(),
            status.instances.to_string(),
            status.total.saturating_sub(status.events).to_string(),
            status.parked.to_string(),
            progress::filled(status),
            status.events_per_second.map_or("-".into(), |speed| format!("{speed:.0}")),
            status.seconds_left().map_or("-".into(), |left| format!("{left:.0}")),
            verdict(status.certificate.as_ref()).to_owned(),
            if status.paused { "yes" } else { "no" }.to_owned(),
            Digest(status.digest.state).to_string(),
        ])?;
    }
    rows.flush()
}

/// The generation named, or the only one that is being filled.
async fn filling(
    common: &Common,
    number: Option<u32>,
    wanted: impl Fn(&GenerationStatus) -> bool,
) -> Result<u32, Failure> {
    if let Some(number) = number {
        return Ok(number);
    }
    let all = index(&common.server)?.generations().await?;
    let is_filling = |status: &&GenerationStatus| {
        let unfinished = status.role == Role::Frozen && status.events < status.total;
        (status.role == Role::Filling || unfinished) && wanted(status)
    };
    let mut found = all.iter().filter(is_filling);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.generation),
        (None, _) => Err(Failure::failed("no such generation is being filled")),
        _ => Err(Failure::usage("several generations are being filled: name one")),
    }
}

/// A change that is made at once.
async fn change(common: &Common, change: Change) -> Result<(), Failure> {
    let changed = index(&common.server)?.manage(change).await?;
    show(common, changed.generation).await
}

/// One line on a generation.
async fn show(common: &Common, generation: u32) -> Result<(), Failure> {
    let all = index(&common.server)?.generations().await?;
    let mut rows = Rows::new(common.output, &[("Generation", 10), ("Role", 8), ("Filled", 7), ("Paused", 6)]);
    if let Some(status) = all.iter().find(|status| status.generation == generation) {
        rows.row(&[
            generation.to_string(),
            role(status.role).to_owned(),
            progress::filled(status),
            if status.paused { "yes" } else { "no" }.to_owned(),
        ])?;
    }
    rows.flush()
}

async fn rebuild(common: &Common, then: Then, detach: bool) -> Result<(), Failure> {
    let index = index(&common.server)?;
    let Changed { generation, .. } = index.manage(Change::Rebuild { then }).await?;
    if detach {
        return show(common, generation).await;
    }
    let is_done = |status: &GenerationStatus| match (&status.certificate, then) {
        (None, _) => false,
        (Some(certificate), Then::Serve) => status.role == Role::Serving || !certificate.is_equal(),
        (Some(_), _) => true,
    };
    let status = progress::until(&index, generation, is_done).await?;
    let certificate = status.certificate.clone().ok_or_else(|| Failure::failed("it was not compared"))?;
    certify(common, &status, &certificate)?;
    if certificate.is_equal() {
        return Ok(());
    }
    let beside = match then {
        Then::Drop => String::new(),
        _ => format!(
            "; `cairn index diff` shows where, `cairn index switch {generation} --accept-difference` lets it serve"
        ),
    };
    Err(Failure::Differs(format!("the serving index is not what the log says{beside}")))
}

async fn freeze(common: &Common, until: Until, detach: bool) -> Result<(), Failure> {
    let index = index(&common.server)?;
    let Changed { generation, until, .. } = index.manage(Change::Freeze(until)).await?;
    let until = until.unwrap_or_default();
    if !detach {
        progress::until(&index, generation, |status| status.events >= status.total).await?;
    }
    let mut rows = Rows::new(common.output, &[("Generation", 10), ("Until", 20)]);
    rows.row(&[generation.to_string(), until.to_string()])?;
    rows.flush()
}

async fn switch(common: &Common, generation: u32, accept_difference: bool) -> Result<(), Failure> {
    let index = index(&common.server)?;
    let changed = index.manage(Change::Switch { generation, accept_difference }).await?;
    let all = index.generations().await?;
    let status = all.iter().find(|status| status.generation == generation);
    match (status, changed.certificate) {
        (Some(status), Some(certificate)) => certify(common, status, &certificate),
        _ => show(common, generation).await,
    }
}

/// That both generations hold the same, or not, and at which position.
fn certify(common: &Common, status: &GenerationStatus, certificate: &Certificate) -> Result<(), Failure> {
    if common.output == Output::Table {
        describe("serving", &certificate.serving);
        describe("rebuilt", &certificate.own);
        println!("at {}", certificate.position);
        println!("{}", verdict(Some(certificate)));
        if status.role == Role::Serving {
            println!("generation {} serves now", status.generation);
        }
        return Ok(());
    }
    let columns = ["Generation", "Role", "Compared", "Position", "ServingEvents", "ServingState", "Events", "State"];
    let mut rows = Rows::new(common.output, &columns.map(|name| (name, 10)));
    rows.row(&[
        status.generation.to_string(),
        role(status.role).to_owned(),
        verdict(Some(certificate)).to_owned(),
        certificate.position.to_string(),
        Digest(certificate.serving.events).to_string(),
        Digest(certificate.serving.state).to_string(),
        Digest(certificate.own.events).to_string(),
        Digest(certificate.own.state).to_string(),
    ])?;
    rows.flush()
}

fn describe(name: &str, digest: &StateDigest) {
    println!("{name}: {} studies, fold {}", digest.studies, digest.fold_version);
    println!("  events {}", Digest(digest.events));
    println!("  state  {}", Digest(digest.state));
}

async fn diff(common: &Common, a: u32, b: u32, limit: u64) -> Result<(), Failure> {
    let index = index(&common.server)?;
    let found = Diff { tenant: common.server.tenant.clone(), a, b, limit };
    let mut found = index.diff(found).await?;
    let columns = [("Study", 64), ("Leaf", 4), ("Differs", 7), ("StateA", 64), ("StateB", 64)];
    let mut rows = Rows::new(common.output, &columns);
    let mut count = 0;
    let state = |sums: Option<([u8; 32], [u8; 32])>| sums.map_or("-".into(), |(_, state)| Digest(state).to_string());
    while let Some(difference) = found.next().await {
        let difference = difference?;
        let same_events = difference.a.map(|sums| sums.0) == difference.b.map(|sums| sums.0);
        rows.row(&[
            difference.study_instance_uid,
            difference.leaf.to_string(),
            if same_events { "state" } else { "events" }.to_owned(),
            state(difference.a),
            state(difference.b),
        ])?;
        count += 1;
    }
    rows.flush()?;
    if count == 0 && same_digests(&index, a, b).await? {
        return Ok(());
    }
    Err(Failure::Differs(format!("generations {a} and {b} differ; each is as of what it has folded")))
}

/// Whether the digests of both are equal: another tenant's studies may differ.
async fn same_digests(index: &IndexClient, a: u32, b: u32) -> Result<bool, Failure> {
    let all = index.generations().await?;
    let of = |number| all.iter().find(|status| status.generation == number).map(|status| status.digest);
    Ok(of(a) == of(b))
}
