//! `cairn commitments`.

use super::{Common, ServerArgs};
use cairn_dicom::Uid;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub struct CommitmentsArgs {
    #[command(subcommand)]
    pub action: CommitmentsAction,
}

#[derive(Debug, Subcommand)]
pub enum CommitmentsAction {
    /// Requests for storage commitment, a line each
    List {
        #[command(flatten)]
        common: Common,
        /// Only those that are so far
        #[arg(long, value_enum)]
        state: Option<CommitmentState>,
        /// Only those of this AE title
        #[arg(long, value_name = "TITLE")]
        requester: Option<String>,
        /// Lines at most; 0: all
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// What became of each instance of one; exit status 3 when some are not committed
    Show {
        /// Transaction UID
        transaction_uid: Uid,
        #[command(flatten)]
        common: Common,
        /// Of which AE title, where several used it
        #[arg(long, value_name = "TITLE")]
        requester: Option<String>,
    },
}

impl CommitmentsAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::List { common, .. } | Self::Show { common, .. } => &common.server,
        }
    }
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CommitmentState {
    /// It is not decided
    Pending,
    /// Its requester is to be told
    Unreported,
    /// Its requester asks by itself (DICOMweb)
    Decided,
    /// Its requester was told
    Reported,
    /// Its requester could not be told
    GivenUp,
}
