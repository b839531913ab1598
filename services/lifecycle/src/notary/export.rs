//! Checkpoints as files in a directory, which may be one that nothing can be removed from. A file is there whole or not at
//! all, and is never written over.

use cairn_process::disk::{Disk, DiskFile, create_dir_durable};
use std::{io, path::PathBuf, sync::Arc};

/// Longer files are no checkpoints.
const LENGTH_MAX: u64 = 16 << 20;

/// The directory.
#[derive(Clone)]
pub(super) struct Exports {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
}

/// What is there under a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    /// What was asked for.
    Same,
    Other,
}

impl Exports {
    /// What is there under a name. Blocking.
    pub(super) fn look(&self, name: &str, document: &[u8]) -> io::Result<There> {
        let file = match self.disk.open_to_read(&self.directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
            file => file?,
        };
        let is_same = file.len()? <= LENGTH_MAX && read(&*file)? == document;
        Ok(if is_same { There::Same } else { There::Other })
    }

    /// Writes a file that is not there; durable on return. Blocking.
    pub(super) fn write(&self, name: &str, document: &[u8]) -> io::Result<()> {
        create_dir_durable(&*self.disk, &self.directory)?;
        let unfinished = self.directory.join(format!(".{name}.new"));
        match self.disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create_new(&unfinished)?;
        file.write_all_at(document, 0)?;
        file.sync_data()?;
        if self.look(name, document)? != There::Nothing {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of this name is there"));
        }
        self.disk.rename(&unfinished, &self.directory.join(name))?;
        self.disk.sync_dir(&self.directory)
    }
}

fn read(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.len()? as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_process::disk::sim::{Loss, SimDisk};

    const NAME: &str = "main-1-0000000001.checkpoint";

    fn exports(disk: SimDisk) -> Exports {
        Exports { disk: Arc::new(disk), directory: "/worm/checkpoints".into() }
    }

    #[test]
    fn a_crash_leaves_a_whole_file_or_none_and_it_can_be_written_then() {
        let disk = SimDisk::new();
        disk.create_dir_all(std::path::Path::new("/worm")).unwrap();
        disk.sync_dir(std::path::Path::new("/")).unwrap();
        let before = disk.operations();
        exports(disk.clone()).write(NAME, b"document").unwrap();
        for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(7), Loss::Seeded(8)] {
            for at in before..=disk.operations() {
                let found = exports(disk.crash(at, loss));
                let there = found.look(NAME, b"document").unwrap();
                assert_ne!(there, There::Other, "torn at {at}");
                assert!(at < disk.operations() || there == There::Same);
                if there == There::Nothing {
                    found.write(NAME, b"document").unwrap();
                    assert_eq!(found.look(NAME, b"document").unwrap(), There::Same);
                }
            }
        }
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let disk = SimDisk::new();
        let exports = exports(disk);
        exports.write(NAME, b"first").unwrap();
        assert_eq!(exports.write(NAME, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(exports.look(NAME, b"first").unwrap(), There::Same);
        assert_eq!(exports.look(NAME, b"other").unwrap(), There::Other);
    }
}
