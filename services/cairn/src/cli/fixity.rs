//! `cairn fixity`.

use super::{Common, ServerArgs};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct FixityArgs {
    #[command(subcommand)]
    pub action: FixityAction,
}

#[derive(Debug, Subcommand)]
pub enum FixityAction {
    /// How far the reading of everything is; exit status 4 when something is damaged, 7 when the period is not kept
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// What is damaged or gone now, a line each; exit status 4 when there is any
    Report {
        #[command(flatten)]
        common: Common,
    },
    /// Read everything now; exit status 4 when something stays damaged
    Scrub {
        #[command(flatten)]
        common: Common,
        /// Come back at once
        #[arg(long)]
        no_wait: bool,
        /// Time between two looks at how far it is
        #[arg(long, default_value = "500ms", value_parser = cairn_process::units::parse_duration)]
        poll: Duration,
    },
}

impl FixityAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common } | Self::Report { common } | Self::Scrub { common, .. } => &common.server,
        }
    }
}
