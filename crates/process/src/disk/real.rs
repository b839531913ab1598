//! The machine's file systems.

use super::{DIRECT_ALIGN, Disk, DiskFile};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::io::ReadWriteFlags;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    num::NonZeroU64,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

/// Zeros are written in steps of this many bytes, from memory that lies as direct writes want it.
#[repr(align(4096))]
struct Zeros([u8; 1024 * 1024]);
static ZEROS: Zeros = Zeros([0; 1024 * 1024]);

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile {
    file: File,
    /// The same file, opened when it was first asked for, to write past the page cache; `None`: the file system can't.
    direct: OnceLock<Option<File>>,
}

impl From<File> for RealFile {
    fn from(file: File) -> Self {
        Self { file, direct: OnceLock::new() }
    }
}

/// Slices that one system call takes.
const SLICES_MAX: usize = 1024;

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile::from(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile::from(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile::from(File::open(path)?)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let named = |entry: io::Result<fs::DirEntry>| {
            let name = entry?.file_name();
            name.into_string().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "file name that is not UTF-8"))
        };
        fs::read_dir(path)?.map(named).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        timed(|| File::open(path)?.sync_all())
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

impl DiskFile for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let wanted = buffer.len();
        match rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == wanted),
            // Not in the page cache; or the file system can't tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_direct_at(&self, slices: &[&[u8]], offset: u64) -> io::Result<bool> {
        if is_aligned(slices, offset)
            && let Some(direct) = self.direct()
        {
            match write_slices(direct, slices, offset) {
                // Not every file system that opens it can.
                Err(error) if is_refusal(&error) => {}
                written => return written.map(|()| true),
            }
        }
        write_slices(&self.file, slices, offset).map(|()| false)
    }

    fn sync_data(&self) -> io::Result<()> {
        timed(|| self.file.sync_data())
    }

    fn start_writeback(&self, offset: u64, length: u64) {
        // Dirty pages are queued for writing and stay cached; Linux does so without waiting. Only a hint: errors are
        // reported by the sync that follows.
        if let Some(length) = NonZeroU64::new(length) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let end = self.reserve(length)?;
        write_zeros(&self.file, end, length)
    }

    fn preallocate_uncached(&self, length: u64) -> io::Result<()> {
        let end = self.reserve(length)?;
        let aligned = (end | length).is_multiple_of(align_of::<Zeros>() as u64);
        if aligned && let Some(direct) = self.direct() {
            match write_zeros(direct, end, length) {
                Err(error) if is_refusal(&error) => {}
                written => return written,
            }
        }
        write_zeros(&self.file, self.len()?, length)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
        {
            Ok(()) => Ok(()),
            // Whoever gives room back relies on its bytes being gone.
            Err(Errno::OPNOTSUPP) => self.zero(offset, length),
            Err(error) => Err(error.into()),
        }
    }
}

impl RealFile {
    /// Writes zeros over what there is of a range; the file does not grow.
    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length).min(self.len()?);
        let step = ZEROS.0.len() as u64;
        (offset..end).step_by(ZEROS.0.len()).try_for_each(|at| {
            let zeros = ZEROS.0.get(..step.min(end - at) as usize).unwrap_or_default();
            self.file.write_all_at(zeros, at)
        })
    }

    /// Reserves room up to `length`, so that a full disk is noticed before anything is written; gives where the file ends.
    fn reserve(&self, length: u64) -> io::Result<u64> {
        let end = self.len()?;
        if end < length {
            match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, end, length - end) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(end)
    }

    fn direct(&self) -> Option<&File> {
        let open = || {
            let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(same).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }
}

/// Whether a file system says that it can't write past the page cache.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn is_aligned(slices: &[&[u8]], offset: u64) -> bool {
    let sizes = slices.iter().fold(offset, |all, slice| all | (slice.as_ptr().addr() | slice.len()) as u64);
    sizes.is_multiple_of(DIRECT_ALIGN as u64)
}

/// Writes all slices from `offset` on, in as few system calls as can be.
fn write_slices(file: &File, slices: &[&[u8]], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut left = slices.as_mut_slice();
    // None that is empty stays in front.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match rustix::io::pwritev(file, &left[..left.len().min(SLICES_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Runs a sync and records the time it took: what every acknowledgement waits for.
fn timed(sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let begun = Instant::now();
    let outcome = sync();
    metrics::histogram!("cairn_disk_sync_duration_seconds").record(begun.elapsed());
    outcome
}

/// Blocks that were never written make each sync wait for the file system's journal too.
fn write_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let step = (to - from).min(ZEROS.0.len() as u64);
        file.write_all_at(&ZEROS.0[..step as usize], from)?;
        from += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_file_system_refuses_direct_writes_they_go_through_the_cache() {
        let path = std::env::temp_dir().join(format!("cairn-refused-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        fs::remove_file(path).unwrap();
        let file = RealFile { file, direct: OnceLock::from(None) };
        file.preallocate_uncached(3 * 4096).unwrap();
        let page = &ZEROS.0[..DIRECT_ALIGN];
        assert!(is_aligned(&[page], 4096) && !is_aligned(&[page], 512) && !is_aligned(&[&page[..7]], 0));
        file.write_all_at(&[7; 3 * 4096], 0).unwrap();
        assert!(!file.write_direct_at(&[page], 4096).unwrap());
        let mut read = [1; 3 * 4096];
        file.read_exact_at(&mut read, 0).unwrap();
        let expected: Vec<u8> = [7, 0, 7].into_iter().flat_map(|byte| [byte; 4096]).collect();
        assert!(read == *expected);
    }
    #[test]
    fn where_the_file_system_has_no_holes_zeros_are_written() {
        let path = std::env::temp_dir().join(format!("cairn-holes-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        fs::remove_file(path).unwrap();
        let file = RealFile::from(file);
        let length = 2 * ZEROS.0.len() + 9;
        file.write_all_at(&vec![7; length], 0).unwrap();
        file.zero(5, length as u64 - 8).unwrap();
        let mut read = vec![1; length];
        file.read_exact_at(&mut read, 0).unwrap();
        let is_old = |at: &usize| *at < 5 || *at >= length - 3;
        assert!(read.iter().enumerate().all(|(at, byte)| (*byte == 7) == is_old(&at)));
        file.zero(length as u64 - 1, 100).unwrap();
        assert_eq!(file.len().unwrap(), length as u64, "it did not grow");
    }
}
