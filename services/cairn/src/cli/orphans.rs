//! `cairn orphans`.

use super::{Common, ServerArgs};
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub struct OrphansArgs {
    #[command(subcommand)]
    pub action: OrphansAction,
}

#[derive(Debug, Subcommand)]
pub enum OrphansAction {
    /// What the last look found; exit status 4 when orphans are kept until they are released
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Objects that no event names, a line each
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Look for them now, and remove those whose time has come; exit status as of status
    Look {
        #[command(flatten)]
        common: Common,
        /// Time between two looks at whether it is done
        #[arg(long, default_value = "500ms", value_parser = cairn_process::units::parse_duration)]
        poll: Duration,
    },
    /// Say that those which looks up to this one found may be removed when their time has come, though they would be kept
    Release {
        #[command(flatten)]
        common: Common,
        /// Number of the look, as `status` says it
        #[arg(long)]
        look: u64,
    },
    /// Write them into a directory, a file each, where they are for `cairn import` to store again
    Export {
        #[command(flatten)]
        common: Common,
        /// The directory; what is there already is left alone
        directory: PathBuf,
    },
}

impl OrphansAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common }
            | Self::List { common }
            | Self::Look { common, .. }
            | Self::Release { common, .. }
            | Self::Export { common, .. } => &common.server,
        }
    }
}
