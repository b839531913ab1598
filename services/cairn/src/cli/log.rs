//! `cairn log`.

use super::{Common, ServerArgs};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    pub action: LogAction,
}

#[derive(Debug, Subcommand)]
pub enum LogAction {
    /// What of the log is in sealed ranges, partition by partition, and what the log has lost; exit status 7 when sealing
    /// does not go on
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Put everything that the log has now into sealed ranges
    Seal {
        #[command(flatten)]
        common: Common,
    },
}

impl LogAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common } | Self::Seal { common } => &common.server,
        }
    }
}
