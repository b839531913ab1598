//! `cairn policy`.

use super::{Common, GroundsArgs, ServerArgs};
use cairn_service_api::survey::VARIABLES;
use clap::{Args, Subcommand, ValueEnum};
use std::{fmt::Write, time::Duration};

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub action: PolicyAction,
}

/// What an expression may name, for those who write one.
fn variables() -> String {
    let mut text = "Variables of --where:\n".to_owned();
    for variable in VARIABLES {
        // Writing to a string does not fail.
        let _written: std::fmt::Result = writeln!(text, "  {:20} {}", variable.name, variable.meaning);
    }
    text + "\nA text or number that a study does not have is not known: where that decides, the study is not meant. Example:\n  \
            --where \"'MG' in modalities && received_days > 3650 && patient_age_years >= 28\""
}

/// What a policy does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ActionName {
    /// It asks that studies be erased.
    Erase,
    /// It moves them to the cold store.
    Move,
}

#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Adopt a policy, or another version of one: in its time it asks that the studies for which the expression holds be erased,
    /// as `erasure request` does, or moved to the cold store, as `tier move` does. At the site with authority alone
    #[command(after_help = variables())]
    Adopt {
        /// Its name: letters, digits, - and _
        name: String,
        /// Expression (CEL) that must hold; its variables are listed below
        #[arg(long = "where", value_name = "EXPRESSION")]
        expression: String,
        /// What is done with them. What is moved, each site that has a cold store moves there
        #[arg(long, value_enum, default_value = "erase")]
        action: ActionName,
        /// Studies that one run acts on at most; where more match it acts on none. A policy without this bound is refused
        #[arg(long, value_name = "STUDIES")]
        most: Option<u64>,
        /// At least so long is let pass before what it asks for is erased; never less than `lifecycle.erasure.delay`
        #[arg(long, default_value = "0s", value_parser = cairn_process::units::parse_duration)]
        delay: Duration,
        /// So long a study that was recalled from the cold store is not moved there again
        #[arg(long, default_value = "7d", value_parser = cairn_process::units::parse_duration)]
        rest: Duration,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// Withdraw a policy; what it asked for already is withdrawn by `erasure withdraw`. At the site with authority alone
    Withdraw {
        /// Its name
        name: String,
        #[command(flatten)]
        grounds: GroundsArgs,
    },
    /// The policies in force and what came of their last run, a line each
    List {
        /// Versions that are not in force too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// A policy that is in force, whole
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// What a policy would do now, without doing it: a line for each study for which its expression holds, then what they sum
    /// up to, the bytes it would free among that
    #[command(after_help = variables())]
    WhatIf {
        /// A policy in force
        #[arg(required_unless_present = "expression", conflicts_with = "expression")]
        name: Option<String>,
        /// Expression (CEL) of one that is not adopted; its variables are listed below
        #[arg(long = "where", value_name = "EXPRESSION")]
        expression: Option<String>,
        /// What that one would do
        #[arg(long, value_enum, default_value = "erase", conflicts_with = "name")]
        action: ActionName,
        /// Studies listed at most; all are summed up
        #[arg(long, value_name = "STUDIES", default_value_t = 100)]
        most: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Say that the wall clock is right although policies are halted because of it
    AcceptClock {
        #[command(flatten)]
        grounds: GroundsArgs,
    },
}

impl PolicyAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Adopt { grounds, .. } | Self::Withdraw { grounds, .. } | Self::AcceptClock { grounds } => {
                &grounds.common.server
            }
            Self::List { common, .. } | Self::Show { common, .. } | Self::WhatIf { common, .. } => &common.server,
        }
    }
}
