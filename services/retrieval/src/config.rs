//! What an operator can set. Every field has a default that is safe to run with; unknown keys are refused.

use cairn_process::units;
use serde::{Deserialize, Serialize};

/// Configuration of the retrieval role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Bytes read ahead of whoever takes them, for each retrieval of several instances.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub read_ahead_bytes: u64,
    /// Of these, what is each retrieval's own: it goes on with that when others hold all that is shared.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub read_ahead_own_bytes: u64,
    /// What all retrievals may read ahead together beyond their own. Peers that take their answers slowly, or not at
    /// all, hold no more than this.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub read_ahead_shared_bytes: u64,
    /// Instances opened ahead, for each retrieval.
    pub read_ahead_instances: usize,
    /// Instances up to this size are read ahead side by side; larger ones one after the other.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub whole_bytes_max: u64,
    /// Small frames that lie together are read at once, up to this size.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub frame_batch_bytes: u64,
    /// Largest side object (header and tables of one instance that did not fit in its event) that is read.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub side_object_bytes_max: u64,
    /// Side objects kept in memory, in encoded bytes: viewers ask for many frames of one large instance.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub side_cache_bytes: u64,
    /// Largest that a deflated data set may inflate to.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub inflated_bytes_max: u64,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            read_ahead_bytes: 8 << 20,
            read_ahead_own_bytes: 1 << 20,
            read_ahead_shared_bytes: 64 << 20,
            read_ahead_instances: 32,
            whole_bytes_max: 1 << 20,
            frame_batch_bytes: 1 << 20,
            side_object_bytes_max: 256 << 20,
            side_cache_bytes: 16 << 20,
            inflated_bytes_max: 4 << 30,
        }
    }
}
