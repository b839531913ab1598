use std::time::Duration;

/// How much the store may take. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct IndexStoreConfig {
    /// Blocks of tables kept in memory, decompressed. The system's page cache keeps the files beside it.
    pub cache_bytes: u64,
    /// Rows of a generation kept in memory until they are written to a table; holds for generations begun from now on.
    pub memtable_bytes: u64,
    /// Journal kept on disk, at least 64 MiB: bounds the time that an opening takes.
    pub journal_bytes_max: u64,
    /// Table files kept open, at least 10.
    pub open_files_max: usize,
    /// How long a commit may stay without a sync.
    pub sync_interval: Duration,
    /// Room on the disk below which commits are refused and nothing is merged: the engine takes no more writes for ever
    /// once one of its own failed. It holds what the engine may still write by itself then.
    pub reserve_bytes: u64,
}

impl Default for IndexStoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            memtable_bytes: 8 << 20,
            journal_bytes_max: 64 << 20,
            open_files_max: 256,
            sync_interval: Duration::from_secs(1),
            reserve_bytes: 64 << 20,
        }
    }
}

/// Longest partition key and longest clustering key.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 10;
/// Longest row value.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest note.
pub(crate) const NOTE_BYTES_MAX: usize = 1 << 10;
