//! What was stored, a line per file, synced every so many and at the end: with it a later run goes on where this one stopped.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::UNIX_EPOCH,
};

/// Lines name a file by length, time of change and path, so that a changed file is stored again.
pub(super) struct Journal {
    file: File,
    lines: HashSet<String>,
    /// Lines not synced yet.
    unsynced: usize,
}

/// Lines that a crash of the machine may take: so many files are offered again, which are repeats.
const UNSYNCED_MAX: usize = 256;

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            eprintln!("cairn: the journal's end was not synced: {error}");
        }
    }
}

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text.lines().map(str::to_owned).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            // A line torn by a crash names no file; the next one must not continue it.
            file.write_all(b"\n")?;
        }
        Ok(Self { file, lines, unsynced: 0 })
    }

    pub(super) fn has(&self, file: &Path) -> bool {
        line(file).is_ok_and(|line| self.lines.contains(&line))
    }

    pub(super) fn add(&mut self, file: &Path) -> io::Result<()> {
        let line = line(file)?;
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.lines.insert(line);
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED_MAX { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced > 0 {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

fn line(file: &Path) -> io::Result<String> {
    let metadata = fs::metadata(file)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok(format!("{}\t{changed}\t{}", metadata.len(), fs::canonicalize(file)?.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_and_one_behind_a_torn_line_are_stored_again() {
        let folder = std::env::temp_dir().join(format!("cairn-journal-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        let (journal, first, second) = (folder.join("journal"), folder.join("1"), folder.join("2"));
        fs::write(&first, "a").expect("file");
        fs::write(&second, "b").expect("file");
        Journal::open(&journal).and_then(|mut opened| opened.add(&first)).expect("journal");
        let torn = line(&second).expect("line");
        let mut text = fs::read_to_string(&journal).expect("text");
        text.push_str(&torn[..torn.len() - 1]);
        fs::write(&journal, text).expect("torn");
        let mut opened = Journal::open(&journal).expect("journal");
        assert!(opened.has(&first) && !opened.has(&second));
        opened.add(&second).expect("journal");
        assert_eq!(opened.unsynced, 1);
        for _ in 1..UNSYNCED_MAX {
            opened.add(&second).expect("journal");
        }
        assert_eq!(opened.unsynced, 0, "synced in groups");
        assert!(Journal::open(&journal).expect("journal").has(&second));
        fs::write(&first, "longer").expect("file");
        assert!(!opened.has(&first));
        fs::remove_dir_all(folder).expect("clean");
    }
}
