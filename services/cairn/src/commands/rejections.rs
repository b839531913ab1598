//! `cairn rejections`: what rejection notes said of a study, and an operator's taking it back.

use super::{Failure, connection, events::read_at, index, ingest, table::Rows};
use crate::cli::{Output, ServerArgs};
use cairn_archive::{
    EventId, Position,
    envelope::rfc3339,
    events::{Event, InstancesRejected, RejectionRevoked},
};
use cairn_dicom::Uid;
use cairn_service_api::{Index, Ingest, digests::FoldedEvent, rejection::Revocation};
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use std::collections::BTreeSet;

#[derive(Debug, Args)]
pub struct RejectionsArgs {
    #[command(subcommand)]
    pub action: RejectionsAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum RejectionsAction {
    /// What notes said of a study's instances, a line each
    List {
        /// Study Instance UID of the instances
        study: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Take back what a note said: as if it had never been said
    Revoke {
        /// Where it stands, as `list` says: site/incarnation/partition/offset. A note about many instances has several
        #[arg(required = true)]
        positions: Vec<Position>,
        /// Why
        #[arg(long)]
        reason: String,
        /// Who decides
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
    },
}

pub async fn run(args: RejectionsArgs) -> Result<(), Failure> {
    match args.action {
        RejectionsAction::List { study, output } => {
            list(&args.server, &study.parse().map_err(Failure::usage)?, output).await
        }
        RejectionsAction::Revoke { positions, reason, by } => {
            for position in positions {
                let revocation = Revocation { position: position.clone(), by: by.clone(), reason: reason.clone() };
                let at = ingest(&args.server)?.revoke_rejection(revocation).await?;
                println!("{position} counts as never said from {at} on");
            }
            Ok(())
        }
    }
}

/// A rejection, or a revocation, as the log has it.
struct Said {
    folded: FoldedEvent,
    position: Position,
    event: Event,
}

/// Rejections of a study and revocations of them, in the order in which they were made.
async fn said_of(server: &ServerArgs, study: &Uid) -> Result<Vec<Said>, Failure> {
    let index = index(server)?;
    let kinds = [Event::InstancesRejected(Box::default()).kind(), Event::RejectionRevoked(Box::default()).kind()];
    let folded: Vec<_> = index.study_events(&server.tenant, study, Vec::new()).await?.try_collect().await?;
    let is_one = |folded: &&FoldedEvent| kinds.contains(&folded.kind.as_str());
    let ids: Vec<EventId> = folded.iter().filter(is_one).map(|folded| folded.event).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (mut log, mut said) = (connection(server)?.event_log()?, Vec::new());
    for folded in index.study_events(&server.tenant, study, ids).await?.try_collect::<Vec<_>>().await? {
        let missing = || Failure::failed(format!("event {} is not where it was folded", folded.event));
        let position = folded.position.clone().ok_or_else(missing)?;
        let read = read_at(&mut log, &position).await?;
        let event = Event::decode(&folded.kind, read.payload).map_err(Failure::failed)?;
        said.push(Said { folded, position, event });
    }
    said.sort_by_key(|said| (said.folded.happened_at_ms, said.folded.event));
    Ok(said)
}

async fn list(server: &ServerArgs, study: &Uid, output: Output) -> Result<(), Failure> {
    let columns = [("Time", 24), ("Position", 18), ("Title", 6), ("Instances", 9), ("Counts", 7), ("Note", 44)];
    let mut rows = Rows::new(output, &columns);
    let said = said_of(server, study).await?;
    let revoked: BTreeSet<&[u8]> = said.iter().filter_map(|said| revocation(&said.event)).collect();
    for Said { folded, position, event } in &said {
        let Event::InstancesRejected(rejected) = event else { continue };
        let note = rejected.note.clone().unwrap_or_default();
        rows.row(&[
            rfc3339(folded.happened_at_ms),
            position.to_string(),
            note.title_code,
            instances(rejected).to_string(),
            if revoked.contains(&folded.event.as_bytes()[..]) { "revoked" } else { "yes" }.into(),
            note.sop_instance_uid,
        ])?;
    }
    rows.flush()
}

fn instances(rejected: &InstancesRejected) -> usize {
    rejected.series.iter().map(|series| series.instances.len()).sum()
}

/// The rejection that an event takes back.
fn revocation(event: &Event) -> Option<&[u8]> {
    match event {
        Event::RejectionRevoked(revoked) => {
            let RejectionRevoked { rejection_event_id, .. } = revoked.as_ref();
            Some(rejection_event_id)
        }
        _ => None,
    }
}
