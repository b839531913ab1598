//! `cairn index`: how far it is, rebuild, verify.

use super::{Failure, index, table::Rows};
use crate::cli::{IndexAction, Output, ServerArgs};
use cairn_archive::Digest;
use cairn_service_api::{
    Index,
    index::{RebuildOutcome, StateDigest},
};
use futures_util::StreamExt;
use std::io::{IsTerminal, Write};

pub async fn run(action: IndexAction) -> Result<(), Failure> {
    match action {
        IndexAction::Status { server, output } => status(&server, output).await,
        IndexAction::Rebuild { server } => rebuild(&server, true).await,
        IndexAction::Verify { server } => rebuild(&server, false).await,
    }
}

async fn status(server: &ServerArgs, output: Output) -> Result<(), Failure> {
    let index = index(server)?;
    let status = index.status().await?;
    let (digest, _) = index.digest().await?;
    let columns = [
        ("Generation", 10),
        ("Studies", 9),
        ("Series", 9),
        ("Instances", 10),
        ("LagEvents", 9),
        ("Parked", 6),
        ("StateDigest", 64),
    ];
    let mut rows = Rows::new(output, &columns);
    rows.row(&[
        status.generation.to_string(),
        status.studies.to_string(),
        status.series.to_string(),
        status.instances.to_string(),
        status.lag_events.to_string(),
        status.parked.to_string(),
        Digest(digest.state).to_string(),
    ])?;
    rows.flush()
}

fn describe(name: &str, digest: &StateDigest) {
    println!("{name}: {} studies, fold {}", digest.studies, digest.fold_version);
    println!("  events {}", Digest(digest.events));
    println!("  state  {}", Digest(digest.state));
}

async fn rebuild(server: &ServerArgs, switch: bool) -> Result<(), Failure> {
    let mut steps = index(server)?.rebuild(switch).await?;
    let mut outcome: Option<RebuildOutcome> = None;
    let terminal = std::io::stderr().is_terminal();
    while let Some(step) = steps.next().await {
        let step = step?;
        if terminal {
            eprint!("\rgeneration {}: {} of {} events", step.generation, step.events, step.total);
            let _shown = std::io::stderr().flush();
        }
        outcome = step.done.or(outcome);
    }
    if terminal {
        eprintln!();
    }
    let outcome = outcome.ok_or_else(|| Failure::failed("the rebuild ended without an outcome"))?;
    describe("serving", &outcome.before);
    describe("rebuilt", &outcome.after);
    let equal = (outcome.before.events, outcome.before.state) == (outcome.after.events, outcome.after.state);
    println!("{}", if equal { "equal" } else { "DIFFERENT" });
    if outcome.switched {
        println!("the rebuilt index serves now");
    }
    if equal { Ok(()) } else { Err(Failure::Differs("the serving index is not what the log says".into())) }
}
