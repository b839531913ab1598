//! How events are sealed.

use cairn_store_api::KeyRingConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Keys under which patient attributes in events are sealed, so that they can be destroyed. An embedded log has them; one that
/// several processes share does not yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// Whether events are sealed from now on. What was sealed before is read in any case. Not by default: who loses the keys loses what
    /// the log says, and a site whose log is in Kafka takes nothing that is sealed.
    pub seal: bool,
    /// File of the master key that wraps the keys: 64 hexadecimal digits. It is made at the first start. Unset: `keys/master.key` in
    /// `data.directory`; then who has a copy of that directory has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<PathBuf>,
    /// Keys held in memory, to seal and to open with, each. A study that is not among them is sealed under a key more.
    pub cached_max: usize,
    /// Keys made durable at once, ahead of their use. Those left at the end of the process are used by nobody.
    pub made_at_once: usize,
}

impl Default for KeysConfig {
    fn default() -> Self {
        let KeyRingConfig { cached_max, made_at_once, .. } = KeyRingConfig::default();
        Self { seal: false, master_key_file: None, cached_max, made_at_once }
    }
}

impl KeysConfig {
    /// How a process holds keys.
    pub fn ring(&self) -> KeyRingConfig {
        let Self { seal, cached_max, made_at_once, .. } = *self;
        KeyRingConfig { seal, cached_max, made_at_once }
    }
}
