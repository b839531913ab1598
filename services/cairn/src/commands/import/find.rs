//! The files that paths stand for: a file itself, a folder's files, the files that a DICOMDIR names.

use crate::commands::Failure;
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet,
    dataset::{DataSet, DecodeLimits},
    part10::Part10Reader,
    tags,
    transfer_syntax::Encoding,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Largest DICOMDIR read.
const DICOMDIR_BYTES_MAX: u64 = 256 << 20;

/// The files, each once per naming, folders in name order.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
        if fs::metadata(path).map_err(failed)?.is_dir() {
            folder(path, &mut found)?;
        } else if is_dicomdir(path) {
            found.extend(referenced(path)?);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn is_dicomdir(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"))
}

/// Walks a folder without recursion; symbolic links are not followed, so there are no loops.
fn folder(root: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", folder.display()));
        let mut entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !is_dicomdir(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    Ok(())
}

/// The files that a DICOMDIR's directory records name (PS3.3 section F.3.2.2), relative to its folder.
fn referenced(dicomdir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::failed(format!("{}: {what}", dicomdir.display()));
    if fs::metadata(dicomdir).map_err(|error| failed(&error))?.len() > DICOMDIR_BYTES_MAX {
        return Err(failed(&"too large for a DICOMDIR"));
    }
    let bytes = Bytes::from(fs::read(dicomdir).map_err(|error| failed(&error))?);
    let mut reader = Part10Reader::new(1 << 20);
    let start = match reader.push(&bytes).map_err(|error| failed(&error))? {
        Some(start) => start,
        None => reader.finish().map_err(|error| failed(&error))?,
    };
    let begins = usize::try_from(start.data_set_offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    let data_set = bytes.slice(begins..);
    let (directory, _) =
        DataSet::decode(&data_set, Encoding::ExplicitLittle, CharacterSet::DEFAULT, &DecodeLimits::default())
            .map_err(|error| failed(&error))?;
    let root = dicomdir.parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for record in directory.items(tags::DIRECTORY_RECORD_SEQUENCE) {
        let components = record.texts(tags::REFERENCED_FILE_ID);
        if components.is_empty() {
            continue;
        }
        // A component names an entry of the medium, never a way out of it.
        if components.iter().any(|part| part.is_empty() || part == "." || part == ".." || part.contains(['/', '\\'])) {
            return Err(failed(&"a directory record names a file outside the medium"));
        }
        files.push(components.iter().fold(root.to_owned(), |path, part| path.join(part)));
    }
    Ok(files)
}
