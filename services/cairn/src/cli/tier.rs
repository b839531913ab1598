//! `cairn tier`.

use super::{Common, ServerArgs};
use cairn_dicom::Uid;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct TierArgs {
    #[command(subcommand)]
    pub action: TierAction,
}

/// Which studies, and who asks.
#[derive(Debug, Args)]
pub struct MovedArgs {
    /// Study Instance UID (repeatable)
    #[arg(long = "study", value_name = "UID", required_unless_present = "query")]
    pub studies: Vec<Uid>,
    /// The studies that match now: KEYWORD=VALUE (repeatable, all must match)
    #[arg(long, value_name = "KEY=VALUE")]
    pub query: Vec<String>,
    /// Who asks
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Subcommand)]
pub enum TierAction {
    /// The hot and the cold store, and what waits to be moved; exit status 4 when one can't be reached
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Ask that studies be moved to the cold store, in their turn; prints how many wait now that did not
    Move(MovedArgs),
    /// Ask that studies be moved back to the hot store, before anything else that waits, as before they are wanted
    #[command(visible_alias = "prefetch")]
    Recall(MovedArgs),
    /// What waits to be moved, in its order, a line each
    Queue {
        #[command(flatten)]
        common: Common,
    },
}

impl TierAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common } | Self::Queue { common } => &common.server,
            Self::Move(moved) | Self::Recall(moved) => &moved.common.server,
        }
    }
}
