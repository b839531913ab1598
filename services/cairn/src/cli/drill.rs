//! `cairn drill`.

use super::{Common, ServerArgs};
use cairn_archive::SiteId;
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub struct DrillArgs {
    #[command(subcommand)]
    pub action: DrillAction,
}

#[derive(Debug, Subcommand)]
pub enum DrillAction {
    /// Rehearse the loss of this site: another one takes its place, is worked with, and gives authority back. Says what it
    /// would do unless told to execute; exit status 7 when an objective is missed, 4 when the sites differ
    Run(Box<RunArgs>),
    /// End a drill that was cut short: links go on, and authority comes back
    End {
        /// Journal of the drill: `journal.json` in its report's directory
        journal: PathBuf,
        /// For all that one site holds to be at the other
        #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
        catch_up_timeout: Duration,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Make a key that reports are signed with (Ed25519); prints the public key, which is to be kept elsewhere
    Key {
        /// Where to write the private key (PKCS#8, PEM)
        file: PathBuf,
    },
    /// Check that a report is as it was signed; exit status 4 when it is not
    Verify {
        /// Directory of the report
        directory: PathBuf,
        /// Public key of the signer (PEM), which did not come with the report
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
    },
}

/// What a drill is, and what is asked of it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The site that is to take this one's place
    pub peer: SiteId,
    #[command(flatten)]
    pub common: Common,
    /// gRPC address of that site; by default the one that replication has
    #[arg(long, value_name = "URL")]
    pub peer_server: Option<String>,
    /// Do it; without this, checks are made, and what would be done is said
    #[arg(long, requires_all = ["yes", "key"])]
    pub execute: bool,
    /// Name of the site that is to take over, once more, to say that it is meant
    #[arg(long, value_name = "SITE")]
    pub yes: Option<SiteId>,
    /// Private key that signs the report: see `cairn drill key`
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Directory of the report; drills/TIME-SITE by default
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Longest time from the isolation until the other site answers
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub rto: Duration,
    /// Greatest age of what would have been lost; by default the target that replication has
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub rpo: Option<Duration>,
    /// How long the other site is worked with
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub workload: Duration,
    /// Queries and retrievals under way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub callers: u16,
    /// Instances whose bytes are compared
    #[arg(long, default_value_t = 100)]
    pub sample: usize,
    /// DICOM listener of the other site: it is called by the AE titles of this one
    #[arg(long, value_name = "HOST:PORT")]
    pub dicom: Option<String>,
    /// AE title to call from
    #[arg(long, value_name = "TITLE", default_value = "CAIRN-DRILL", value_parser = super::ae_title)]
    pub calling: String,
    /// Store one synthetic instance at the other site by C-STORE; it stays in the archive
    #[arg(long, requires = "dicom")]
    pub store: bool,
    /// For all that one site holds to be at the other afterwards
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub catch_up_timeout: Duration,
    /// Who decides
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
    /// Why; it is kept in the log for ever, and must name no patient
    #[arg(long, default_value = "drill")]
    pub reason: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    cairn_process::units::parse_duration(text).map_err(|error| error.to_string())
}

impl DrillAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> Option<&ServerArgs> {
        match self {
            Self::Run(args) => Some(&args.common.server),
            Self::End { .. } | Self::Key { .. } | Self::Verify { .. } => None,
        }
    }
}
