//! `cairn keys`.

use super::{ConfigSource, Output};
use cairn_archive::KeyId;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub action: KeysAction,
}

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// How many keys there are, and how many are destroyed; exit status 4 when some can't be read
    Status {
        #[command(flatten)]
        source: ConfigSource,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Copy the keys into a new file, while the archive runs or not; useless without the master key, which is not copied
    Backup {
        /// The file; it must not be there
        file: PathBuf,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Bring back what a backup has and the key store of a stopped archive has not; what is destroyed stays destroyed
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        source: ConfigSource,
        /// The master key of the backup, where it is another one, as that of another site
        #[arg(long, value_name = "FILE")]
        master_key_file: Option<PathBuf>,
    },
    /// Say, to the key store of a stopped archive, that keys are lost for good: events under them are not waited for any more,
    /// but parked, until `cairn parked repair` says what becomes of each. A key that is restored after all opens them (`cairn parked retry`)
    Abandon {
        /// The keys, as they are named where something waits for one
        #[arg(required = true)]
        keys: Vec<KeyId>,
        #[command(flatten)]
        source: ConfigSource,
    },
}
