//! `cairn site`.

use super::{Common, ConfigSource, ServerArgs};
use cairn_archive::SiteId;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub struct SiteArgs {
    #[command(subcommand)]
    pub action: SiteAction,
}

#[derive(Debug, Subcommand)]
pub enum SiteAction {
    /// Which site has authority, since when, and what each site knows of its senders
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Give this site authority when the one that has it is lost: what that one decided and this one does not hold is void
    Promote {
        #[command(flatten)]
        decided: DecidedArgs,
        /// Also while the site that has authority answers
        #[arg(long)]
        force: bool,
    },
    /// Give this site's authority up; nobody has it until another is promoted
    Demote {
        #[command(flatten)]
        decided: DecidedArgs,
    },
    /// Give this site authority in order: the site that has it gives it up, and all that it holds comes here first
    Failback {
        #[command(flatten)]
        decided: DecidedArgs,
    },
    /// Refuse instances from senders (A700, 503), or take them again
    ReadOnly {
        /// Whether they are refused
        switch: Switch,
        /// Another site than this one; for the site with authority alone
        #[arg(long)]
        site: Option<SiteId>,
        #[command(flatten)]
        decided: DecidedArgs,
    },
    /// Say that another site is gone for good, or is not: what is to be erased waits for no dead site, once
    /// `lifecycle.erasure.dead_site_delay` has passed. For the site with authority alone
    Dead {
        /// Whether it is
        switch: Switch,
        /// The site
        #[arg(long)]
        site: SiteId,
        #[command(flatten)]
        decided: DecidedArgs,
    },
    /// Begin a new life of this site's log, which was restored from a backup: what it lost then comes back from the others.
    /// The site's processes must be stopped
    Renew {
        #[command(flatten)]
        source: ConfigSource,
        /// A site that is gone for good, or holds nothing of this one, and is not asked (repeatable)
        #[arg(long, value_name = "SITE")]
        without: Vec<SiteId>,
        /// Name of this site, to say that it is meant; without it is said what would be done
        #[arg(long, value_name = "SITE")]
        yes: Option<SiteId>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// A decision, with who made it and why.
#[derive(Debug, Args)]
pub struct DecidedArgs {
    #[command(flatten)]
    pub common: Common,
    /// Why; it is kept in the log for ever, and must name no patient
    #[arg(long)]
    pub reason: String,
    /// Who decides
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
    /// Name of this site, to say that it is meant; without it nothing is done
    #[arg(long, value_name = "SITE")]
    pub yes: Option<SiteId>,
}

impl SiteAction {
    /// Which running archive it talks to, if it does.
    pub fn server(&self) -> Option<&ServerArgs> {
        Some(match self {
            Self::Renew { .. } => return None,
            Self::Status { common } => &common.server,
            Self::Promote { decided, .. }
            | Self::Demote { decided }
            | Self::Failback { decided }
            | Self::ReadOnly { decided, .. }
            | Self::Dead { decided, .. } => &decided.common.server,
        })
    }
}
