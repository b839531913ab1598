//! A second object store.

use super::{ConfigError, S3Config};
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// A second object store, for what is seldom wanted. Objects come in where `stores.objects` says, and are moved by lifecycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TiersConfig {
    /// Where cold objects are: `none`, there is one store; `directory`, in volume files of `tiers.directory`, for one process;
    /// `s3`, as `[tiers.s3]` says.
    pub cold: ColdKind,
    /// Directory of the cold store, on a disk of its own. It is made the first time; later it must be the one that was made, and while
    /// it is not there, because its disk is not mounted, what is in it can't be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Room left free on that disk.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub reserve_bytes: u64,
    /// Bucket and prefix of the cold store: other ones than those of `[s3]`.
    pub s3: S3Config,
    /// Whether the cold store puts objects away by itself, as a rule of an S3 bucket may (GLACIER), so that they must be restored before
    /// they are read: queries then say OFFLINE of all that is cold.
    pub archives: bool,
    /// Whether a study is recalled when something of it is read that is cold. Else it is given from there each time, and recalled only
    /// when somebody asks, or when it could not be read because the cold store was away: whoever copies a whole archive would have
    /// everything brought back.
    pub recall_on_read: bool,
    /// Time between two attempts to open a cold store that is away.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub open_pause: Duration,
    /// Time that a process waits for it when it starts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub open_wait: Duration,
}

/// Kinds of further object stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColdKind {
    /// There is none.
    #[default]
    None,
    /// Volume files in a directory.
    Directory,
    /// A bucket of an S3.
    S3,
}

impl Default for TiersConfig {
    fn default() -> Self {
        Self {
            cold: ColdKind::default(),
            directory: None,
            reserve_bytes: 512 << 20,
            s3: S3Config::default(),
            archives: false,
            recall_on_read: false,
            open_pause: Duration::from_secs(5),
            open_wait: Duration::from_secs(10),
        }
    }
}

impl TiersConfig {
    /// Whether what is chosen can be used.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.cold.check("tiers", "cold", self.directory.is_some())
    }
}

impl ColdKind {
    /// Whether a store of this kind, that a key of a table chooses, can be used.
    ///
    /// # Errors
    /// The key that is wrong.
    pub(super) fn check(self, table: &str, key: &str, has_directory: bool) -> Result<(), ConfigError> {
        match self {
            Self::Directory if !has_directory => {
                Err(ConfigError::new(format!("{table}.directory"), "a store in a directory needs one"))
            }
            Self::S3 if !cfg!(feature = "s3") => {
                let message = "this executable was built without \"s3\" (cargo build --features cluster)";
                Err(ConfigError::new(format!("{table}.{key}"), message))
            }
            _ => Ok(()),
        }
    }
}
