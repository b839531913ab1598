//! `cairn hold` and `cairn erasure`.

use super::{Common, ServerArgs};
use cairn_archive::{EventId, HoldId};
use cairn_dicom::Uid;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// Who decides, and why.
#[derive(Debug, Args)]
pub struct GroundsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Why; it is kept in the log for ever
    #[arg(long)]
    pub reason: String,
    /// Who decides
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
}

#[derive(Debug, Args)]
pub struct HoldArgs {
    #[command(subcommand)]
    pub action: HoldAction,
}

#[derive(Debug, Subcommand)]
pub enum HoldAction {
    /// Place a hold: nothing of what it names is erased while it is in force. Any site may
    Place {
        /// Patient ID of a patient all of whose studies are held, now and later
        #[arg(long, required_unless_present_any = ["studies", "query"])]
        patient: Option<String>,
        /// Issuer of Patient ID; without it, whoever issued the ID
        #[arg(long, requires = "patient")]
        issuer: Option<String>,
        /// Study Instance UID of a study that is held (repeatable)
        #[arg(long = "study", value_name = "UID")]
        studies: Vec<Uid>,
        /// The studies that match now are held: KEYWORD=VALUE (repeatable, all must match)
        #[arg(long, value_name = "KEY=VALUE")]
        query: Vec<String>,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// Release a hold; at the site with authority alone
    Release {
        /// The hold, as `hold list` shows it
        id: HoldId,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// The holds in force, a line each
    List {
        #[command(flatten)]
        common: Common,
    },
}

impl HoldAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Place { grounds, .. } | Self::Release { grounds, .. } => &grounds.common.server,
            Self::List { common } => &common.server,
        }
    }
}

#[derive(Debug, Args)]
pub struct ErasureArgs {
    #[command(subcommand)]
    pub action: ErasureAction,
}

#[derive(Debug, Subcommand)]
pub enum ErasureAction {
    /// Ask that a study, series or instances be erased. It takes effect after a delay, once every site has confirmed it; until
    /// then it can be withdrawn. At the site with authority alone
    Request {
        /// Study Instance UID
        #[arg(long, value_name = "UID")]
        study: Uid,
        /// Only this series (repeatable)
        #[arg(long, value_name = "UID")]
        series: Vec<Uid>,
        /// Only this SOP Instance (repeatable)
        #[arg(long = "instance", value_name = "UID")]
        instances: Vec<Uid>,
        /// At least so long is let pass; never less than `lifecycle.erasure.delay`
        #[arg(long, default_value = "0s", value_parser = cairn_process::units::parse_duration)]
        delay: Duration,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// Withdraw an erasure that has not taken effect; at the site with authority alone
    Withdraw {
        /// The erasure, as `erasure list` shows it
        id: EventId,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// How far erasures are, a line each
    List {
        #[command(flatten)]
        common: Common,
    },
    /// What was destroyed where, what was kept and why, by reading this site's stores; exit status 4 when something that was
    /// erased is still there
    Report {
        /// The erasure, as `erasure list` shows it
        id: EventId,
        /// How it is written
        #[arg(long, value_enum, default_value_t = ReportForm::Markdown)]
        form: ReportForm,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    Markdown,
    Json,
}

impl ErasureAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Request { grounds, .. } | Self::Withdraw { grounds, .. } => &grounds.common.server,
            Self::List { common } => &common.server,
            Self::Report { server, .. } => server,
        }
    }
}
