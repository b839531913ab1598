//! Second copies.

use super::{ColdKind, ConfigError, S3Config};
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// A second object store, to which lifecycle copies what is stored: damaged objects are had again from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CopiesConfig {
    /// Where copies are kept: `none`; `directory`, in volume files of `copies.directory`; `s3`, as `[copies.s3]` says.
    pub to: ColdKind,
    /// Directory of the copies, on a disk of its own. It is made the first time; later it must be the one that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Room left free on that disk.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub reserve_bytes: u64,
    /// Bucket and prefix of the copies: other ones than those of `[s3]`, and of `[tiers.s3]`.
    pub s3: S3Config,
    /// Time between two attempts to open a store that is away.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub open_pause: Duration,
}

impl Default for CopiesConfig {
    fn default() -> Self {
        Self {
            to: ColdKind::default(),
            directory: None,
            reserve_bytes: 512 << 20,
            s3: S3Config::default(),
            open_pause: Duration::from_secs(5),
        }
    }
}

impl CopiesConfig {
    /// Whether what is chosen can be used.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.to.check("copies", "to", self.directory.is_some())
    }
}
