//! `cairn replication`: how other sites are kept in step, and what would be lost with this one.

use super::{Failure, connection, index, table::Rows};
use crate::cli::{Common, ReplicationAction, ServerArgs};
use cairn_archive::{Digest, SiteId, envelope::rfc3339};
use cairn_process::units::{format_duration, format_size};
use cairn_service_api::{
    Index, Replication,
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
        ReplicationAction::Verify { with, common } => verify(&common, with).await,
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
fn counts(risk: &Risk) -> [String; 3] {
    [risk.events.to_string(), risk.instances.to_string(), format_size(risk.bytes)]
}

async fn status(common: &Common) -> Result<(), Failure> {
    let status = client(&common.server)?.status().await?;
    let columns = [
        ("Site", 12),
        ("Link", 10),
        ("EventsAtRisk", 12),
        ("InstancesAtRisk", 15),
        ("BytesAtRisk", 11),
        ("RecoveryPointAge", 16),
        ("Target", 8),
        ("LastAnswer", 24),
        ("ToldEvents", 10),
        ("ToldInstances", 13),
        ("ToldBytes", 10),
        ("ToldAgo", 10),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut over = Vec::new();
    for peer in &status.peers {
        let age = peer.risk.age(status.at_ms);
        if age > peer.rpo_target {
            let (age, target) = (format_duration(age), format_duration(peer.rpo_target));
            over.push(format!("{} lacks what is {age} old, over {target}", peer.site));
        }
        rows.row(&row(peer, status.at_ms))?;
    }
    rows.flush()?;
    if over.is_empty() { Ok(()) } else { Err(Failure::Objective(over.join("; "))) }
}

fn row(peer: &PeerStatus, now_ms: u64) -> Vec<String> {
    let mut cells = vec![peer.site.to_string(), link(&peer.link)];
    cells.extend(counts(&peer.risk));
    cells.push(format_duration(peer.risk.age(now_ms)));
    cells.push(format_duration(peer.rpo_target));
    cells.push(peer.answered_at_ms.map_or("-".into(), rfc3339));
    match &peer.told {
        None => cells.extend(std::iter::repeat_n("-".to_owned(), 4)),
        Some((came_at_ms, report)) => {
            cells.extend(counts(&report.risk));
            let ago = std::time::Duration::from_millis(now_ms.saturating_sub(*came_at_ms));
            cells.push(format_duration(ago));
        }
    }
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
        rows.row(&[
            event.position.to_string(),
            rfc3339(event.acknowledged_at_ms),
            event.kind,
            event.study_instance_uid,
            event.sop_instance_uid.unwrap_or_else(|| "-".into()),
            event.bytes.to_string(),
            event.event.to_string(),
        ])?;
    }
    rows.flush()
}

/// Compares state digests: equal ones come from equal sets of events.
async fn verify(common: &Common, with: String) -> Result<(), Failure> {
    let there = ServerArgs { server: Some(with), ..common.server.clone() };
    let columns = [("Server", 28), ("Studies", 9), ("EventDigest", 64), ("StateDigest", 64)];
    let mut rows = Rows::new(common.output, &columns);
    let mut digests = Vec::new();
    for server in [&common.server, &there] {
        let (digest, _) = index(server)?.digest().await?;
        rows.row(&[
            super::server_address(server),
            digest.studies.to_string(),
            Digest(digest.events).to_string(),
            Digest(digest.state).to_string(),
        ])?;
        digests.push(digest);
    }
    rows.flush()?;
    match digests.as_slice() {
        [here, there] if here == there => Ok(()),
        _ => Err(Failure::Differs(
            "the sites differ: `cairn replication at-risk` at either says what the other lacks".into(),
        )),
    }
}
