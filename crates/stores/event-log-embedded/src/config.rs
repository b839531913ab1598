use cairn_archive::{Incarnation, SiteId};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::time::Duration;

/// What a log is and how much it may take. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct EventLogConfig {
    /// Site whose log this is; checked against what the directory holds.
    pub site: SiteId,
    /// Number of partitions; checked against what the directory holds.
    pub partitions: u16,
    /// Life of the log, if this opening creates it; what the directory holds counts otherwise.
    pub incarnation: Incarnation,
    /// Length of a segment file, reserved before it is used. A changed value holds for new segments.
    pub segment_bytes: u32,
    /// Longest record, envelope included.
    pub record_bytes_max: u32,
    /// Longest append, of all its records together.
    pub append_bytes_max: u32,
    /// Bytes after which a group takes no further append: what one sync makes durable.
    pub group_bytes_max: u32,
    /// Bytes of appends that wait for the writer; callers wait beyond that.
    pub queue_bytes_max: u32,
    /// Appends that wait for the writer; callers wait beyond that.
    pub queue_appends_max: u16,
    /// How long the writer waits for company before it syncs. None by default: while one group is synced the next
    /// one gathers.
    pub linger: Duration,
    /// Room that appends leave free on the file system: no new segment is begun into it.
    pub reserve_bytes: u64,
    /// Bytes of sealed segments' indexes kept in memory.
    pub index_cache_bytes: u32,
    /// Sealed segments' files kept open.
    pub open_files_max: u16,
}

impl EventLogConfig {
    /// Defaults for a site: 64 partitions, segments of 64 MiB, records of 1 MiB.
    pub fn new(site: SiteId) -> Self {
        Self {
            site,
            partitions: cairn_archive::position::DEFAULT_PARTITIONS,
            incarnation: Incarnation(1),
            segment_bytes: 64 << 20,
            record_bytes_max: 1 << 20,
            append_bytes_max: 16 << 20,
            group_bytes_max: 4 << 20,
            queue_bytes_max: 16 << 20,
            queue_appends_max: 4096,
            linger: Duration::ZERO,
            reserve_bytes: 256 << 20,
            index_cache_bytes: 2 << 20,
            open_files_max: 32,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid = |what: &str| Err(StoreError::new(StoreErrorKind::Invalid, format!("event log: {what}")));
        if self.partitions == 0 {
            return invalid("partitions must not be 0");
        }
        if self.queue_appends_max == 0 || self.queue_bytes_max == 0 || self.group_bytes_max == 0 {
            return invalid("queue and group bounds must not be 0");
        }
        if self.record_bytes_max > self.append_bytes_max {
            return invalid("record_bytes_max is over append_bytes_max");
        }
        // A group is one append at least and group_bytes_max plus one append at most.
        let largest = u64::from(self.group_bytes_max) + u64::from(self.append_bytes_max);
        let overhead = crate::format::opening_length(self.partitions) as u64 + 4096;
        if largest + overhead > u64::from(self.segment_bytes) {
            return invalid("segment_bytes holds no group of group_bytes_max and an append of append_bytes_max");
        }
        Ok(())
    }
}
