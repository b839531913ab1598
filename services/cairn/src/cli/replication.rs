//! `cairn replication`.

use super::{Common, ConfigSource, ServerArgs};
use cairn_archive::{ObjectKey, SiteId};
use cairn_process::units::{parse_duration, parse_size};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReplicationArgs {
    #[command(subcommand)]
    pub action: Option<ReplicationAction>,
    #[command(flatten)]
    pub role: ConfigSource,
}

#[derive(Debug, Subcommand)]
pub enum ReplicationAction {
    /// How each other site is kept in step, and what would be lost with this one; exit status 7 when that is over a target
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// What another site is not known to have, a line each
    AtRisk {
        /// The other site
        site: SiteId,
        #[command(flatten)]
        common: Common,
        /// Lines at most; 0: all
        #[arg(long, default_value_t = 0)]
        limit: usize,
    },
    /// Send nothing to another site until `resume`, or until the process starts anew
    Pause {
        /// The other site
        site: SiteId,
        #[command(flatten)]
        common: Common,
    },
    /// Go on sending to another site
    Resume {
        /// The other site
        site: SiteId,
        #[command(flatten)]
        common: Common,
    },
    /// Read objects, and bring those that are damaged or missing here again from another site; exit status 3 when one can't be had
    Repair {
        /// Objects that the events of a study name, by its Study Instance UID
        #[arg(long, value_name = "UID", required_unless_present = "object", conflicts_with = "object")]
        study: Option<String>,
        /// One object, by its key
        #[arg(long, value_name = "KEY")]
        object: Option<ObjectKey>,
        #[command(flatten)]
        common: Common,
    },
    /// Reckon what an outage leaves to be sent, what bandwidth catches up in time, and whether the disk takes it; exit
    /// status 7 when it is not caught up in time, or there is no room
    Plan {
        #[command(flatten)]
        plan: PlanArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Compare what two sites hold by their digest trees, and name each difference; exit status 4 when there is one
    Verify {
        /// gRPC address of the other site, such as http://127.0.0.1:50052
        #[arg(long, value_name = "URL")]
        with: String,
        #[command(flatten)]
        common: Common,
        /// Differences at most; 0: all
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
}

/// What `plan` reckons with. What is not given a running archive says.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// How long nothing goes to the other site, such as 1h
    #[arg(long, value_parser = parse_duration)]
    pub outage: Duration,
    /// Instances that are stored a second; measured by default
    #[arg(long, value_name = "N", conflicts_with = "bytes_per_second")]
    pub rate: Option<f64>,
    /// Bytes that are stored a second, such as "20 MiB", instead of a rate of instances
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub bytes_per_second: Option<u64>,
    /// Bytes of an instance; the mean of those stored by default
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub instance_bytes: Option<u64>,
    /// Bytes a second that the link carries at most; by default as many as the limits set for the site let through
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub bandwidth: Option<u64>,
    /// In what time the other site should have everything again; as long as the outage by default
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub catch_up_within: Option<Duration>,
    /// The most that the age of the oldest instance at risk should be; the one set for the site by default
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub rpo_target: Option<Duration>,
    /// Room for objects here; what the archive says by default
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub available: Option<u64>,
    /// The other site; needed where there are several
    #[arg(long, value_name = "SITE")]
    pub to: Option<SiteId>,
    /// How long the rate is measured
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub measure_for: Duration,
    /// Ask no archive: rate and size are given, and the limit is the bandwidth
    #[arg(long, requires = "instance_bytes")]
    pub offline: bool,
}

impl ReplicationAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common }
            | Self::AtRisk { common, .. }
            | Self::Repair { common, .. }
            | Self::Plan { common, .. }
            | Self::Pause { common, .. }
            | Self::Resume { common, .. }
            | Self::Verify { common, .. } => &common.server,
        }
    }
}
