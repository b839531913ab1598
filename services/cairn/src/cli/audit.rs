//! `cairn audit`.

use super::{Common, ConfigSource, ServerArgs};
use cairn_archive::Position;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub action: AuditAction,
}

#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Make a key that checkpoints are signed with (Ed25519); prints the public key, which is to be kept elsewhere
    Key {
        /// Where to write the private key (PKCS#8, PEM)
        file: PathBuf,
    },
    /// How far the notary is; exit status 7 when it does not go on
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Sign what the log is now
    Checkpoint {
        /// Sign also where the log does not go on from the latest checkpoint: the new one says where, for ever
        #[arg(long)]
        accept_breaks: bool,
        /// Write the checkpoint here too
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Prove that an event is in the latest checkpoint: a file for `cairn audit verify`
    Prove {
        /// Where it stands: site/incarnation/partition/offset, as `cairn events tail` shows it
        event: Position,
        /// Put the payload into the proof, which may show patient attributes; its hash is in it always
        #[arg(long)]
        with_payload: bool,
        /// Where to write the proof; standard output by default
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Prove that a checkpoint goes on from an older one: a file for `cairn audit verify`. Exit status 4 when it does not
    ProveConsistency {
        /// The older checkpoint
        older: PathBuf,
        /// The newer one; by default the latest
        newer: Option<PathBuf>,
        /// Where to write the proof; standard output by default
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Verify proofs and checkpoints from these files alone; exit status 4 when one does not hold
    Verify {
        /// Proofs and checkpoints
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Public key of the signer (PEM), which did not come with the files (repeatable)
        #[arg(long, value_name = "FILE", required = true)]
        public_key: Vec<PathBuf>,
    },
    /// Verify every event of a log against a checkpoint; exit status 4 when it is not the log that was signed. An embedded log
    /// must not be in use: stop the archive, or take a copy
    VerifyLog {
        /// The checkpoint
        checkpoint: PathBuf,
        /// Public key of the signer (PEM) (repeatable)
        #[arg(long, value_name = "FILE", required = true)]
        public_key: Vec<PathBuf>,
        #[command(flatten)]
        source: ConfigSource,
    },
}

impl AuditAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> Option<&ServerArgs> {
        match self {
            Self::Status { common } | Self::Checkpoint { common, .. } => Some(&common.server),
            Self::Prove { server, .. } | Self::ProveConsistency { server, .. } => Some(server),
            Self::Key { .. } | Self::Verify { .. } | Self::VerifyLog { .. } => None,
        }
    }
}
