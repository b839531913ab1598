//! `cairn replication`.

use super::{Common, ConfigSource, ServerArgs};
use cairn_archive::SiteId;
use clap::{Args, Subcommand};

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
    /// Compare what two sites make of their events; exit status 4 when that differs
    Verify {
        /// gRPC address of the other site, such as http://127.0.0.1:50052
        #[arg(long, value_name = "URL")]
        with: String,
        #[command(flatten)]
        common: Common,
    },
}

impl ReplicationAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common }
            | Self::AtRisk { common, .. }
            | Self::Pause { common, .. }
            | Self::Resume { common, .. }
            | Self::Verify { common, .. } => &common.server,
        }
    }
}
