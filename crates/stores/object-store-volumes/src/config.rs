use crate::layout::BLOCK;
use cairn_store_api::tree::{GROUP, PAGE_DATA};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::path::PathBuf;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Where volumes are and how much they may take. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Directory of the store; created when missing. Nothing else may be in it.
    pub directory: PathBuf,
    /// Size of the first volume; each next one is twice as large, up to `volume_bytes_max`.
    pub volume_bytes_first: u64,
    /// Size of a full-grown volume. Objects that are larger span several.
    pub volume_bytes_max: u64,
    /// Prewritten room that is kept ahead of writers at least, also of the first ones.
    pub prewrite_bytes_min: u64,
    /// Prewritten room kept ahead while objects come in: more is written once they pause, so that the disk is theirs.
    pub prewrite_bytes_busy: u64,
    /// Prewritten room kept ahead once the archive holds that much; between the two it is as much as the archive holds.
    pub prewrite_bytes_max: u64,
    /// Prewritten room is at most this part (one in so many) of what is free on the disk.
    pub prewrite_free_share: u64,
    /// Room on the disk that is left alone: puts are refused before it is touched.
    pub reserve_bytes: u64,
    /// Longest object.
    pub object_bytes_max: u64,
    /// Writers at work at one time; puts beyond are refused.
    pub writers_max: usize,
    /// While others are made durable, an object of up to so many bytes is held until it is whole, then written by the
    /// thread that makes it durable: a multiple of `write_buffer_bytes`.
    pub held_object_bytes_max: usize,
    /// Of a longer object: bytes a writer collects before it hands them to a thread that writes them: a multiple
    /// of 64 KiB that divides 128 MiB. A writer holds at most two such buffers.
    pub write_buffer_bytes: usize,
    /// While no more writers than these are at work, each collects `held_object_bytes_max` instead once it had as much.
    pub writers_few: usize,
    /// Bytes read and verified at once: a multiple of 64 KiB, at most 1 MiB. A reader holds at most two such buffers.
    pub read_chunk_bytes: usize,
    /// Bytes of buffers that are kept for the next reads.
    pub read_buffer_bytes_kept: usize,
    /// An object with more bytes than this is synced by its writer before it joins the shared sync, so that no other
    /// waits for its bytes.
    pub shared_sync_bytes_max: u64,
    /// Whether objects and journal go past the system's page cache where the file system can: that takes half the
    /// processor time and leaves the cache to what is read; the first read of an object then waits for the disk.
    pub direct_writes: bool,
    /// Whether bytes written through the cache are told to be written back at once rather than when the sync comes.
    pub early_writeback: bool,
    /// Objects that one shared sync makes durable at most.
    pub group_objects_max: usize,
    /// After this many changes since the last checkpoint the key index is written down: bounds memory and restart.
    pub checkpoint_changes: usize,
    /// After this many bytes of volumes since the last checkpoint the key index is written down: bounds restart.
    pub checkpoint_bytes: u64,
    /// Index segments of one size class that are merged into one.
    pub segments_merged: usize,
    /// Hashes of objects read lately that are kept.
    pub hash_cache_bytes: usize,
    /// Volume files kept open for reading.
    pub files_open_max: usize,
}

impl VolumeConfig {
    /// The defaults, in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            volume_bytes_first: 64 * MIB,
            volume_bytes_max: GIB,
            prewrite_bytes_min: 256 * MIB,
            prewrite_bytes_busy: 16 * MIB,
            prewrite_bytes_max: 2 * GIB,
            prewrite_free_share: 32,
            reserve_bytes: 256 * MIB,
            object_bytes_max: 64 * GIB,
            writers_max: 1024,
            held_object_bytes_max: 1024 * 1024,
            write_buffer_bytes: 256 * 1024,
            writers_few: 8,
            read_chunk_bytes: 1024 * 1024,
            read_buffer_bytes_kept: 8 * 1024 * 1024,
            shared_sync_bytes_max: 32 * MIB,
            direct_writes: true,
            early_writeback: true,
            group_objects_max: 1024,
            checkpoint_changes: 32 * 1024,
            checkpoint_bytes: 2 * GIB,
            segments_merged: 8,
            hash_cache_bytes: 8 * 1024 * 1024,
            files_open_max: 256,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid =
            |what: &str| Err(StoreError::new(StoreErrorKind::Invalid, format!("volume configuration: {what}")));
        let group = GROUP;
        if self.volume_bytes_first < 64 * KIB || self.volume_bytes_max < self.volume_bytes_first {
            return invalid("volume_bytes_first must be at least 64 KiB and at most volume_bytes_max");
        }
        if !self.volume_bytes_first.is_multiple_of(BLOCK) || !self.volume_bytes_max.is_multiple_of(BLOCK) {
            return invalid("volume sizes must be multiples of 4 KiB");
        }
        let buffer = self.write_buffer_bytes;
        // No buffer crosses from one page of hashes to the next.
        if buffer == 0 || !buffer.is_multiple_of(group) || !PAGE_DATA.is_multiple_of(buffer as u64) {
            return invalid("write_buffer_bytes must be a multiple of 64 KiB that divides 128 MiB");
        }
        let held = self.held_object_bytes_max;
        if held == 0 || !held.is_multiple_of(buffer) || held as u64 > PAGE_DATA {
            return invalid("held_object_bytes_max must be a multiple of write_buffer_bytes, at most 128 MiB");
        }
        if self.read_chunk_bytes == 0 || !self.read_chunk_bytes.is_multiple_of(group) || self.read_chunk_bytes > 1 << 20
        {
            return invalid("read_chunk_bytes must be a multiple of 64 KiB, at most 1 MiB");
        }
        // Extents are counted by 32-bit numbers of 4 KiB, and the hashes of all 128 MiB parts are held in memory.
        if self.object_bytes_max > 1 << 40 || self.volume_bytes_max > 1 << 40 {
            return invalid("object_bytes_max and volume_bytes_max must be at most 1 TiB");
        }
        if self.writers_max == 0 || self.group_objects_max == 0 || self.files_open_max == 0 {
            return invalid("writers_max, group_objects_max and files_open_max must be at least 1");
        }
        if self.prewrite_free_share == 0 || self.checkpoint_changes == 0 || self.segments_merged < 2 {
            return invalid("prewrite_free_share, checkpoint_changes must be at least 1, segments_merged 2");
        }
        Ok(())
    }
}
