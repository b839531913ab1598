//! The disk under volumes, log and quarantine. Blocking: callers run it on threads of their own.
//!
//! Durability, as POSIX gives it: written bytes are durable after [`DiskFile::sync_data`]; a created, renamed or
//! removed name is durable after [`Disk::sync_dir`] of its directory. Nothing else may be relied on.

mod real;
pub mod sim;
#[cfg(test)]
mod tests;

pub use real::RealDisk;

use std::{io, path::Path, sync::Arc};

/// Creates a directory and its parents and makes their names durable. The parent of the first missing one must be there.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| disk.list(dir).is_err()).collect();
    disk.create_dir_all(path)?;
    // Also when it is there: an earlier process may have ended between creating it and making it durable.
    let outermost = missing.last().copied().unwrap_or(path);
    let parents = path.ancestors().take_while(|dir| dir.starts_with(outermost)).filter_map(Path::parent);
    parents.filter(|parent| !parent.as_os_str().is_empty()).try_for_each(|parent| disk.sync_dir(parent))
}

/// What writes past the page cache are multiples of, in file and memory.
pub const DIRECT_ALIGN: usize = 4096;

/// A directory tree.
pub trait Disk: Send + Sync {
    /// Creates a directory and its parents; present ones are fine. Their names become durable by `sync_dir`.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist, for reading and writing.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading alone: also one that nobody may write to any more.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    /// Names of the entries of a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes free to this process on the file system of `path`.
    fn available(&self, path: &Path) -> io::Result<u64>;

    /// Takes an exclusive lock on `path` (created if missing), held until the guard is dropped or the process ends;
    /// `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "asking a file for its length can fail")]
pub trait DiskFile: Send + Sync {
    /// Reads exactly `buffer.len()` bytes at `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Reads as `read_exact_at` what is in memory; never waits for a medium. `false`: some of it is not, or who knows; the
    /// buffer then holds nothing of use.
    fn read_at_once(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Writes all bytes at `offset`; the file grows when needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes slices one after the other from `offset` on, past the page cache where that can be: nothing is copied, nothing is
    /// left to be written back, and no memory is taken from what is read. That takes an `offset`, and slices whose
    /// addresses and lengths, are multiples of [`DIRECT_ALIGN`]. Gives whether it went past the cache; if not, it is
    /// written as `write_all_at` does. Durable by `sync_data` alone, either way.
    fn write_direct_at(&self, slices: &[&[u8]], mut offset: u64) -> io::Result<bool> {
        for slice in slices {
            self.write_all_at(slice, offset)?;
            offset += slice.len() as u64;
        }
        Ok(false)
    }

    /// Makes written bytes and the length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Starts writing back a range without waiting for it; a hint.
    fn start_writeback(&self, offset: u64, length: u64);

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the length; new bytes read as zero.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Lets the file have at least `length` bytes, with room reserved and zeros written where it grew, so that a later
    /// sync of writes within it writes data alone. Blocks for as long as writing does: go in steps. `StorageFull` when
    /// there is no room.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// The same past the page cache where that can be: copies nothing and evicts nothing, but whoever writes less than
    /// whole pages there makes them be read first.
    fn preallocate_uncached(&self, length: u64) -> io::Result<()> {
        self.preallocate(length)
    }

    /// Gives back the room of a range, which then reads as zero; a hint where the file system can't.
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()>;
}
