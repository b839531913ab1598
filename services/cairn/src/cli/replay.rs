//! `cairn replay`, and where other archives are: `cairn import` takes the same.

use super::{Output, ServerArgs, index::unix_ms};
use cairn_dimse::pdu::AeTitle;
use clap::{ArgGroup, Args, Subcommand};
use std::{path::PathBuf, str::FromStr, time::Duration};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct ReplayArgs {
    #[command(subcommand)]
    pub action: Option<ReplayAction>,
    #[command(flatten)]
    pub run: ReplayRun,
}

const AFTER_HELP: &str = "\
Variables of --where: study_uid, series_uid, sop_uid, sop_class, transfer_syntax, calling_ae, called_ae, issuer, modality, \
patient_id, study_date, accession_number, station, institution, stored_at (2026-01-31T12:00:00.000Z) are text, size \
(bytes) is a number. Example: --where \"modality in ['CT', 'MR'] && stored_at >= '2026-01' && size < 100000000\"";

#[derive(Debug, Subcommand)]
pub enum ReplayAction {
    /// Compare what was replayed with what the destination has; without --journal: what would be
    Reconcile {
        #[command(flatten)]
        run: Box<ReplayRun>,
    },
}

impl ReplayArgs {
    pub fn server(&self) -> &ServerArgs {
        match &self.action {
            Some(ReplayAction::Reconcile { run }) => &run.server,
            None => &self.run.server,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("other").args(["to_cairn", "to_dimse", "to_stow"]))]
pub struct ReplayRun {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Another Cairn (its gRPC address), as events unchanged: the whole log, or all of it before --to
    #[arg(long, value_name = "URL", conflicts_with_all = ["journal", "report", "dry_run"])]
    pub to_cairn: Option<String>,
    /// Another archive by C-STORE
    #[arg(long, value_name = "AE@HOST:PORT")]
    pub to_dimse: Option<RemoteAe>,
    /// Another archive by STOW-RS
    #[arg(long, value_name = "URL")]
    pub to_stow: Option<String>,
    #[command(flatten)]
    pub selected: Selected,
    #[command(flatten)]
    pub talk: Talk,
    /// Associations or requests at once; 1 for an archive that takes no more
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Do not ask the destination at the end for what was sent
    #[arg(long)]
    pub no_reconcile: bool,
    /// Fetch each instance again over WADO-RS and compare its data set byte by byte
    #[arg(long, requires = "to_stow", conflicts_with = "no_reconcile")]
    pub compare_bytes: bool,
    /// For the destination to find what it was sent a moment ago
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = cairn_process::units::parse_duration)]
    pub settle: Duration,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Journal of what was done: the same command with it goes on where it stopped
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Write what is not as it should be, instance by instance, into PATH.csv and PATH.json
    #[arg(long, value_name = "PATH")]
    pub report: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
    /// How the counts are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Which events of the log.
#[derive(Debug, Args)]
pub struct Selected {
    /// Taken by this log at this time or later: 2026-01-31T12:00:00Z, or @MILLISECONDS since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<u64>,
    /// Taken by this log before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<u64>,
    /// Study Instance UID (repeatable)
    #[arg(long, value_name = "UID")]
    pub study: Vec<String>,
    /// Modality (repeatable)
    #[arg(long, value_name = "CODE")]
    pub modality: Vec<String>,
    /// AE title that sent it here (repeatable)
    #[arg(long, value_name = "TITLE")]
    pub calling_ae: Vec<String>,
    /// Expression (CEL) that must hold; its variables are listed below
    #[arg(long = "where", value_name = "EXPRESSION")]
    pub expression: Option<String>,
    /// Versions that are not shown too
    #[arg(long)]
    pub all_versions: bool,
}

/// How to talk to another archive, and how fast.
#[derive(Clone, Debug, Args)]
pub struct Talk {
    /// Our AE title to the other archive
    #[arg(long, value_name = "TITLE", default_value = "CAIRN", value_parser = title, requires = "other")]
    pub calling: AeTitle,
    /// Header of each HTTP request (repeatable)
    #[arg(long, value_name = "NAME: VALUE", requires = "other")]
    pub header: Vec<String>,
    /// File with a bearer token for each HTTP request
    #[arg(long, value_name = "FILE", requires = "other")]
    pub bearer_token_file: Option<PathBuf>,
    /// PEM file with the authorities that an https server must chain to, instead of those of the system
    #[arg(long, value_name = "FILE", requires = "other")]
    pub https_authority: Option<PathBuf>,
    /// Instances a second at most
    #[arg(long, value_name = "INSTANCES/S", value_parser = rate)]
    pub rate: Option<f64>,
    /// Bytes a second at most, such as "20 MiB"
    #[arg(long, value_name = "SIZE", value_parser = cairn_process::units::parse_size)]
    pub bytes_per_second: Option<u64>,
    /// Attempts before the other archive counts as not reached
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
}

/// Another DICOM application: AE title, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAe {
    pub title: AeTitle,
    pub address: String,
}

impl FromStr for RemoteAe {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "another archive is AE@HOST:PORT, such as PACS@10.0.0.7:104".to_owned();
        let (name, address) = text.split_once('@').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self { title: title(name)?, address: address.to_owned() })
    }
}

pub(super) fn title(text: &str) -> Result<AeTitle, String> {
    crate::config::check_ae_title(text)?;
    AeTitle::new(text).ok_or_else(|| "an AE title has 1 to 16 characters".into())
}

pub fn time(text: &str) -> Result<u64, String> {
    let wrong = || "a time is like 2026-01-31T12:00:00Z or @1769860800000".to_owned();
    match text.strip_prefix('@') {
        Some(milliseconds) => milliseconds.parse().map_err(|_| wrong()),
        None => unix_ms(text).ok_or_else(wrong),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a rate is a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("a rate is above 0".into()) }
}
