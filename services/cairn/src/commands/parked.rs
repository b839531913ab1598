//! `cairn parked`: events that the index could not fold, and what an operator says they mean.

use super::{
    Failure, index, ingest,
    table::{Rows, one},
};
use crate::cli::{Output, ServerArgs};
use cairn_archive::{Position, PositionVector, envelope::rfc3339};
use cairn_service_api::{
    Index, Ingest,
    parked::{ParkedEvent, ParkedSelection, Repair, RepairRemedy},
};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(subcommand)]
    pub action: ParkedAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum ParkedAction {
    /// All parked events, a line each
    List {
        /// Only of this study of the tenant
        #[arg(long, value_name = "UID")]
        study: Option<String>,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// One of them. Its payload is in the log: `cairn events show`
    Show {
        /// Where it stands: site/incarnation/partition/offset
        position: Position,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Say, by an event, what one of them means
    Repair {
        /// Where it stands: site/incarnation/partition/offset
        position: Position,
        /// File with the payload that stands in for its own
        #[arg(long, value_name = "FILE", required_unless_present = "dismiss", requires = "event_type")]
        payload: Option<PathBuf>,
        /// CloudEvents type of that payload, such as cairn.instance.stored.v1
        #[arg(long = "type", value_name = "TYPE", requires = "payload")]
        event_type: Option<String>,
        /// It means nothing, for good
        #[arg(long, conflicts_with_all = ["payload", "event_type"])]
        dismiss: bool,
        /// Why
        #[arg(long)]
        reason: String,
        /// Who decides
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
    },
    /// Have parked events folded again, after a passing defect; exit status 3 when some stay parked
    Retry {
        /// Where they stand; all by default
        positions: Vec<Position>,
        /// Who decides
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
    },
}

/// How long the index may take to fold a repair before it is said that it has not yet.
const FOLDED_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(args: ParkedArgs) -> Result<(), Failure> {
    let server = &args.server;
    match args.action {
        ParkedAction::List { study, output } => list(server, study, output).await,
        ParkedAction::Show { position, output } => show(server, &position, output).await,
        ParkedAction::Repair { position, payload, event_type, dismiss: _, reason, by } => {
            let remedy = match (payload, event_type) {
                (Some(file), Some(event_type)) => {
                    let payload = tokio::fs::read(&file).await;
                    let payload = payload.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
                    RepairRemedy::Replace { event_type, payload: payload.into() }
                }
                _ => RepairRemedy::Dismiss,
            };
            repair(server, vec![Repair { position, remedy, by, reason }]).await
        }
        ParkedAction::Retry { positions, by } => retry(server, positions, &by).await,
    }
}

/// What is told of each, by name.
fn fields(parked: &ParkedEvent) -> [(&'static str, String); 9] {
    [
        ("Position", parked.position.to_string()),
        ("Reason", parked.reason.clone()),
        ("Type", parked.event_type.clone()),
        ("Time", rfc3339(parked.happened_at_ms)),
        ("Event", parked.event.to_string()),
        ("Tenant", parked.tenant.clone()),
        ("StudyInstanceUID", parked.study_instance_uid.clone()),
        ("ParkedBy", parked.build.clone()),
        ("Explanation", parked.explanation.clone()),
    ]
}

async fn list(server: &ServerArgs, study: Option<String>, output: Output) -> Result<(), Failure> {
    let columns = [
        ("Position", 18),
        ("Reason", 15),
        ("Type", 34),
        ("Time", 24),
        ("Event", 36),
        ("Tenant", 10),
        ("StudyInstanceUID", 44),
        ("ParkedBy", 8),
        ("Explanation", 40),
    ];
    let mut rows = Rows::new(output, &columns);
    let study = study.map(|study| (server.tenant.clone(), study));
    let mut found = index(server)?.parked(ParkedSelection { study }).await?;
    while let Some(parked) = found.next().await {
        rows.row(&fields(&parked?).map(|(_, cell)| cell))?;
    }
    rows.flush()
}

async fn all(server: &ServerArgs) -> Result<Vec<ParkedEvent>, Failure> {
    Ok(index(server)?.parked(ParkedSelection::default()).await?.try_collect().await?)
}

async fn show(server: &ServerArgs, position: &Position, output: Output) -> Result<(), Failure> {
    let mut found = index(server)?.parked(ParkedSelection::default()).await?;
    while let Some(parked) = found.next().await {
        let parked = parked?;
        if parked.position == *position {
            return one(output, &fields(&parked));
        }
    }
    Err(Failure::failed(format!("no event at {position} is parked")))
}

async fn retry(server: &ServerArgs, positions: Vec<Position>, by: &str) -> Result<(), Failure> {
    let positions = match positions.is_empty() {
        true => all(server).await?.into_iter().map(|parked| parked.position).collect(),
        false => positions,
    };
    let again = |position| Repair {
        position,
        remedy: RepairRemedy::FoldAgain,
        by: by.to_owned(),
        reason: "folded again".to_owned(),
    };
    repair(server, positions.into_iter().map(again).collect()).await
}

/// Appends repairs and says what became of the events once the index has folded them.
async fn repair(server: &ServerArgs, repairs: Vec<Repair>) -> Result<(), Failure> {
    let ingest = ingest(server)?;
    let (mut repaired, mut folded) = (Vec::new(), PositionVector::default());
    for repair in repairs {
        let position = repair.position.clone();
        folded.include(&ingest.repair(repair).await?);
        repaired.push(position);
    }
    index(server)?.wait_for(&folded, FOLDED_WITHIN).await?;
    let parked = all(server).await?;
    let mut left = 0;
    for position in repaired {
        match parked.iter().find(|parked| parked.position == position) {
            None => println!("{position} is not parked any more"),
            Some(parked) => {
                left += 1;
                println!("{position} stays parked: {}", parked.explanation);
            }
        }
    }
    if left > 0 { Err(Failure::Partial(format!("{left} events stay parked"))) } else { Ok(()) }
}
