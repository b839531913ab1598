//! `cairn replication plan`: what bandwidth and room an outage of a link needs.

use super::{
    super::{
        Failure,
        table::{Cell, one},
    },
    client,
};
use crate::cli::{Common, PlanArgs};
use cairn_process::clock::{Clock, SystemClock};
use cairn_replication::plan::{Outage, Plan, plan};
use cairn_service_api::{
    Replication,
    replication::{PeerStatus, ReplicationStatus},
    schedule::Schedule,
};
use cairn_service_grpc::client::ReplicationClient;
use std::time::Duration;

/// Reckons, with what was given and what the archive says.
pub async fn run(common: &Common, args: PlanArgs) -> Result<(), Failure> {
    let known = if args.offline { None } else { Some(client(&common.server)?) };
    let known = match &known {
        Some(client) => Some(Known::ask(client, &args).await?),
        None => None,
    };
    let outage = outage(&args, known.as_ref())?;
    let planned = plan(&outage);
    one(common.output, &fields(&outage, &planned, known.as_ref()))?;
    let late = planned.catch_up.is_none_or(|time| time > outage.catch_up_within);
    match (late, planned.disk_holds) {
        (false, true) => Ok(()),
        (_, false) => {
            Err(Failure::Objective("the disk does not take what is stored until the other site has all".into()))
        }
        (true, true) => {
            Err(Failure::Objective("the other site does not have everything again in the time wanted".into()))
        }
    }
}

/// What a running archive says.
struct Known {
    status: ReplicationStatus,
    peer: PeerStatus,
    /// Instances a second, of late.
    rate: Option<f64>,
}

impl Known {
    async fn ask(client: &ReplicationClient, args: &PlanArgs) -> Result<Self, Failure> {
        let before = client.status().await?;
        let peer = match (&args.to, before.peers.as_slice()) {
            (Some(site), peers) => peers.iter().find(|peer| peer.site == *site),
            (None, [peer]) => Some(peer),
            (None, _) => return Err(Failure::usage("--to: which of the other sites")),
        };
        let peer = peer.cloned().ok_or_else(|| Failure::usage("--to: there is no such site"))?;
        if args.rate.is_some() || args.bytes_per_second.is_some() {
            return Ok(Self { status: before, peer, rate: None });
        }
        tokio::time::sleep(args.measure_for).await;
        let status = client.status().await?;
        let seconds = Duration::from_millis(status.at_ms.saturating_sub(before.at_ms)).as_secs_f64();
        let instances = status.own.instances.saturating_sub(before.own.instances);
        let rate = (seconds > 0.0).then(|| instances as f64 / seconds);
        Ok(Self { status, peer, rate })
    }

    /// Mean bytes of what was stored here.
    fn instance_bytes(&self) -> Option<f64> {
        let own = &self.status.own;
        (own.instances > 0).then(|| own.bytes as f64 / own.instances as f64)
    }
}

fn outage(args: &PlanArgs, known: Option<&Known>) -> Result<Outage, Failure> {
    let given = args.instance_bytes.map(|bytes| bytes as f64);
    let instance_bytes = given.or_else(|| known.and_then(Known::instance_bytes)).filter(|bytes| *bytes > 0.0);
    let instance_bytes = instance_bytes
        .ok_or_else(|| Failure::usage("--instance-bytes: nothing is stored from which it could be known"))?;
    let by_bytes = args.bytes_per_second.map(|bytes| bytes as f64 / instance_bytes);
    let rate = args.rate.or(by_bytes).or_else(|| known.and_then(|known| known.rate));
    let rate = rate.filter(|rate| rate.is_finite() && *rate >= 0.0);
    let rate = rate.ok_or_else(|| Failure::usage("--rate: instances a second"))?;
    let now_ms = SystemClock::new().unix_ms();
    let outage_ms = u64::try_from(args.outage.as_millis()).unwrap_or(u64::MAX);
    Ok(Outage {
        time: args.outage,
        ends_at_ms: now_ms.saturating_add(outage_ms),
        instances_per_second: rate,
        instance_bytes,
        schedule: known.map_or_else(Schedule::default, |known| known.peer.schedule.clone()),
        bandwidth: args.bandwidth.map(|bytes| bytes as f64),
        catch_up_within: args.catch_up_within.unwrap_or(args.outage),
        rpo_target: args
            .rpo_target
            .or_else(|| known.map(|known| known.peer.rpo_target))
            .unwrap_or(cairn_replication::PeerConfig::default().rpo_target),
        available_bytes: args.available.or_else(|| known.and_then(|known| known.status.available_bytes)),
    })
}

/// A measure of bytes that is shown whole.
fn size(bytes: f64) -> Cell {
    if bytes.is_finite() { Cell::Size(bytes.ceil() as u64) } else { Cell::Absent }
}

fn fields(outage: &Outage, planned: &Plan, known: Option<&Known>) -> Vec<(&'static str, Cell)> {
    let time = |time: Option<Duration>| time.map_or(Cell::Absent, Cell::from);
    let limit = outage.schedule.limit_at(outage.ends_at_ms).map(|limit| limit as f64);
    let bandwidth = [limit, outage.bandwidth].into_iter().flatten().reduce(f64::min);
    vec![
        ("Site", known.map_or(Cell::Absent, |known| known.peer.site.to_string().into())),
        ("OutageMs", outage.time.into()),
        ("InstancesPerSecond", Cell::Decimal(outage.instances_per_second)),
        ("InstanceBytes", size(outage.instance_bytes)),
        ("BytesPerSecond", size(planned.incoming)),
        ("BacklogInstances", Cell::Number(planned.backlog_instances.ceil() as u64)),
        ("BacklogBytes", size(planned.backlog_bytes)),
        ("CatchUpWithinMs", outage.catch_up_within.into()),
        ("RequiredBytesPerSecond", size(planned.required_bandwidth)),
        ("BandwidthAtItsEnd", bandwidth.map_or(Cell::Absent, size)),
        ("CatchUpMs", time(planned.catch_up)),
        ("Sustained", Cell::Flag(planned.is_sustained)),
        ("TargetMs", outage.rpo_target.into()),
        ("TargetHoldsThroughout", Cell::Flag(planned.target_holds_throughout)),
        ("TargetMetAfterMs", time(planned.target_met_after)),
        ("AvailableBytes", outage.available_bytes.map_or(Cell::Absent, Cell::Size)),
        ("DiskHolds", Cell::Flag(planned.disk_holds)),
    ]
}
