//! `cairn receipts` and `cairn reconcile`: whether everything came.

use super::{Common, ServerArgs, Talk, replay::time};
use cairn_archive::ids::ReceiptId;
use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Args)]
pub struct ReceiptsArgs {
    #[command(subcommand)]
    pub action: ReceiptsAction,
}

#[derive(Debug, Subcommand)]
pub enum ReceiptsAction {
    /// Associations, STOW-RS requests and imports that ended, the latest first
    List {
        #[command(flatten)]
        common: Common,
        /// Those that ended at this time or later: 2026-01-31T12:00:00Z, or @MILLISECONDS since the Unix epoch; a day ago by default
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<u64>,
        /// Of this calling AE title
        #[arg(long, value_name = "TITLE")]
        ae: Option<String>,
        /// Only those in which something was refused
        #[arg(long)]
        refused: bool,
        /// Lines at most; 0: all
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// One of them: each instance that came, and what became of it; exit status 3 when something was refused
    Show {
        /// Its id
        receipt: ReceiptId,
        #[command(flatten)]
        common: Common,
        /// It ended at this time or later; a day ago by default
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<u64>,
    },
}

impl ReceiptsAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::List { common, .. } | Self::Show { common, .. } => &common.server,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("other").args(["source"]))]
pub struct ReconcileArgs {
    /// The other archive: AE@HOST:PORT (C-FIND), an http address (QIDO-RS), or an AE title that `[ae]` of --config has
    pub source: String,
    /// Configuration file with the AE title's address
    #[arg(long, value_name = "FILE", env = "CAIRN_CONFIG")]
    pub config: Option<std::path::PathBuf>,
    /// Matching key of its studies (repeatable): KEYWORD=VALUE, such as StudyDate=20260101-20260131
    #[arg(short, long = "key", value_name = "KEY=VALUE")]
    pub keys: Vec<String>,
    /// Also studies that are here, match the keys, and are not there at all
    #[arg(long)]
    pub both_ways: bool,
    #[command(flatten)]
    pub talk: Talk,
    #[command(flatten)]
    pub common: Common,
}
