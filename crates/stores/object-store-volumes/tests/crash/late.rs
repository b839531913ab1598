//! A disk that writes bytes of objects only after the sync that should have covered them.

use cairn_process::disk::sim::SimDisk;
use cairn_process::disk::{Disk, DiskFile};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

pub(crate) struct Late(SimDisk);

impl Late {
    pub(crate) fn new(disk: SimDisk) -> Self {
        Self(disk)
    }
}

struct LateFile {
    file: Arc<dyn DiskFile>,
    held: Mutex<Vec<(u64, Vec<u8>)>>,
}

fn late(path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    if super::is_file(path, "volume-") { Arc::new(LateFile { file, held: Mutex::default() }) } else { file }
}

impl Disk for Late {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(late(path, self.0.create_new(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(late(path, self.0.open(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        self.0.available(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

impl DiskFile for LateFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.starts_with(b"CAIRN") || bytes.iter().all(|byte| *byte == 0) {
            return self.file.write_all_at(bytes, offset);
        }
        self.held.lock().unwrap().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        self.file.sync_data()?;
        held.into_iter().try_for_each(|(offset, bytes)| self.file.write_all_at(&bytes, offset))
    }

    fn start_writeback(&self, offset: u64, length: u64) {
        self.file.start_writeback(offset, length);
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.file.preallocate(length)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.punch_hole(offset, length)
    }
}
