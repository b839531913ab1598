//! Names of files, and how they come to be.

use cairn_process::disk::{Disk, DiskFile};
use std::{io, path::Path, sync::Arc};

/// A segment is prepared and synced in steps, so that the log's own syncs never wait behind a whole segment.
const PREPARE_STEP: u64 = 4 << 20;
const SEGMENT: &str = ".segment";
const INDEX: &str = ".index";
const NEW: &str = ".new";

/// Name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:010}{SEGMENT}")
}

/// Name of the index of a sealed segment.
pub(crate) fn index_name(number: u64) -> String {
    format!("{number:010}{INDEX}")
}

/// A file of the log's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Segment of this number.
    Segment(u64),
    /// Index of the segment of this number.
    Index(u64),
    /// A file that was not renamed to what it should be.
    Unfinished,
    /// Anything else.
    Other,
}

impl Name {
    pub(crate) fn of(name: &str) -> Self {
        let number = |suffix| name.strip_suffix(suffix)?.parse().ok();
        match (number(SEGMENT), number(INDEX)) {
            (Some(segment), _) => Self::Segment(segment),
            (_, Some(segment)) => Self::Index(segment),
            _ if name.ends_with(NEW) => Self::Unfinished,
            _ => Self::Other,
        }
    }
}

/// Why a small file was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing of it counts; it can be tried again.
    Clean(io::Error),
    /// It may be there, and may vanish: the disk can't be relied on.
    Unknown(io::Error),
}

impl WriteError {
    pub(crate) fn io(&self) -> &io::Error {
        let (Self::Clean(error) | Self::Unknown(error)) = self;
        error
    }
}

/// Writes a file whole under another name, renames it, and makes all of that durable.
pub(crate) fn write_new(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
    let new = dir.join(format!("{name}{NEW}"));
    let written = create_fresh(disk, &new).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        Ok(file)
    });
    let file = match written {
        Ok(file) => file,
        Err(error) => {
            // What is left of it is removed at the next opening, if it can't be now.
            let _ = disk.remove(&new);
            return Err(WriteError::Clean(error));
        }
    };
    file.sync_data().map_err(WriteError::Unknown)?;
    disk.rename(&new, &dir.join(name)).map_err(WriteError::Unknown)?;
    disk.sync_dir(dir).map_err(WriteError::Unknown)
}

/// Creates a file in place of whatever bears its name.
fn create_fresh(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create_new(path)
}

/// Creates a segment's file of zeros, durable on return. `StorageFull` when `reserve` would not stay free.
pub(crate) fn prepare_segment(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    capacity: u32,
    reserve: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    if disk.available(dir)? < reserve.saturating_add(u64::from(capacity)) {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "no room for a segment beside the reserve"));
    }
    let path = dir.join(segment_name(number));
    let file = create_fresh(disk, &path)?;
    let filled = fill(file.as_ref(), capacity).and_then(|()| disk.sync_dir(dir));
    if let Err(error) = filled {
        // An unfinished segment is made anew; removing it gives its room back sooner.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(file)
}

/// Reserves a file up to `capacity` and makes that durable.
pub(crate) fn fill(file: &dyn DiskFile, capacity: u32) -> io::Result<()> {
    let capacity = u64::from(capacity);
    let mut end = file.len()?;
    while end < capacity {
        end = (end + PREPARE_STEP).min(capacity);
        file.preallocate(end)?;
        file.sync_data()?;
    }
    Ok(())
}
