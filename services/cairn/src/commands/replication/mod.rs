//! `cairn replication`: how other sites are kept in step, and what would be lost with this one.

mod plan;
mod repair;
mod verify;

use super::{
    Failure, connection,
    table::{Cell, Rows},
};
use crate::cli::{Common, ReplicationAction, ServerArgs};
use cairn_archive::{SiteId, envelope::rfc3339};
use cairn_process::units::format_duration;
use cairn_service_api::{
    Replication,
    replication::{Link, PeerStatus, Risk},
};
use cairn_service_grpc::client::ReplicationClient;
use futures_util::StreamExt;

pub async fn run(action: ReplicationAction) -> Result<(), Failure> {
    match action {
        ReplicationAction::Status { common } => status(&common).await,
        ReplicationAction::AtRisk { site, common, limit } => at_risk(&common, &site, limit).await,
        ReplicationAction::Pause { site, common } => Ok(client(&common.server)?.set_paused(&site, true).await?),
        ReplicationAction::Resume { site, common } => Ok(client(&common.server)?.set_paused(&site, false).await?),
        ReplicationAction::Repair { study, object, common } => repair::run(&common, study, object).await,
        ReplicationAction::Plan { plan, common } => plan::run(&common, plan).await,
        ReplicationAction::Verify { with, common, limit } => verify::run(&common, with, limit).await,
    }
}

fn client(server: &ServerArgs) -> Result<ReplicationClient, Failure> {
    Ok(ReplicationClient::new(&connection(server)?)?)
}

fn link(link: &Link) -> String {
    match link {
        Link::Connecting => "connecting".into(),
        Link::Up => "up".into(),
        Link::Paused => "paused".into(),
        Link::Failing(why) => format!("failing: {why}"),
        Link::Refused(why) => format!("refused: {why}"),
    }
}

/// What is at risk, in the columns of a row.
fn counts(risk: &Risk) -> [Cell; 3] {
    [risk.events.into(), risk.instances.into(), Cell::Size(risk.bytes)]
}

async fn status(common: &Common) -> Result<(), Failure> {
    let status = client(&common.server)?.status().await?;
    let columns = [
        ("Site", 12),
        ("Link", 10),
        ("EventsAtRisk", 12),
        ("InstancesAtRisk", 15),
        ("BytesAtRisk", 11),
        ("RecoveryPointAgeMs", 16),
        ("TargetMs", 8),
        ("LastAnswer", 24),
        ("ToldEvents", 10),
        ("ToldInstances", 13),
        ("ToldBytes", 10),
        ("ToldAgoMs", 10),
        ("ObjectsRepaired", 15),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut over = Vec::new();
    for peer in &status.peers {
        let age = peer.risk.age(status.at_ms);
        if age > peer.rpo_target {
            let (age, target) = (format_duration(age), format_duration(peer.rpo_target));
            over.push(format!("{} lacks what is {age} old, over {target}", peer.site));
        }
        rows.cells(&row(peer, status.at_ms))?;
    }
    rows.flush()?;
    if over.is_empty() { Ok(()) } else { Err(Failure::Objective(over.join("; "))) }
}

fn row(peer: &PeerStatus, now_ms: u64) -> Vec<Cell> {
    let mut cells: Vec<Cell> = vec![peer.site.to_string().into(), link(&peer.link).into()];
    cells.extend(counts(&peer.risk));
    cells.push(peer.risk.age(now_ms).into());
    cells.push(peer.rpo_target.into());
    cells.push(peer.answered_at_ms.map_or(Cell::Absent, |at| rfc3339(at).into()));
    match &peer.told {
        None => cells.extend(std::iter::repeat_n(Cell::Absent, 4)),
        Some((came_at_ms, report)) => {
            cells.extend(counts(&report.risk));
            cells.push(Cell::Milliseconds(now_ms.saturating_sub(*came_at_ms)));
        }
    }
    cells.push(peer.objects_repaired.into());
    cells
}

async fn at_risk(common: &Common, site: &SiteId, limit: usize) -> Result<(), Failure> {
    let found = client(&common.server)?.at_risk(site).await?;
    let columns = [
        ("Position", 24),
        ("Acknowledged", 24),
        ("Type", 32),
        ("StudyInstanceUID", 44),
        ("SOPInstanceUID", 44),
        ("Bytes", 10),
        ("Event", 36),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut found = found.take(if limit == 0 { usize::MAX } else { limit });
    while let Some(event) = found.next().await {
        let event = event?;
        rows.cells(&[
            event.position.to_string().into(),
            rfc3339(event.acknowledged_at_ms).into(),
            event.kind.into(),
            event.study_instance_uid.into(),
            event.sop_instance_uid.map_or(Cell::Absent, Cell::from),
            Cell::Size(event.bytes),
            event.event.to_string().into(),
        ])?;
    }
    rows.flush()
}
