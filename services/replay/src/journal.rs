//! What was done, a line of JSON each, so that a later run goes on where this one stopped.
//!
//! A line says that something is done only after it is. Lines are synced in groups: what a crash of the machine takes is done
//! again, which other archives answer as a repeat. A line that says "all before here is done" is written only once
//! the lines before it are synced.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// Lines that a crash of the machine may take.
const UNSYNCED_MAX: usize = 256;

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file can't be read or written.
    #[error("journal {}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is of another run.
    #[error("journal {} is of another run: {what}", path.display())]
    OfAnother {
        /// Which file.
        path: PathBuf,
        /// What is not the same.
        what: String,
    },
}

/// A journal, open for more.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    unsynced: usize,
}

impl Journal {
    /// Opens a journal, or begins one with `head`. Gives the head that is in it, and whether there was one. The keys
    /// `must_match` of both must be equal.
    pub(crate) fn open(path: &Path, head: &Value, must_match: &[&str]) -> Result<(Self, Value, bool), JournalError> {
        let failed = |error| JournalError::File { path: path.to_owned(), error };
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path).map_err(failed)?;
        let mut first = String::new();
        BufReader::new(File::open(path).map_err(failed)?).read_line(&mut first).map_err(failed)?;
        // One that was killed before its first line was whole has done nothing.
        let before: Option<Value> = first.ends_with('\n').then(|| serde_json::from_str(&first).ok()).flatten();
        let Some(before) = before else {
            if first.ends_with('\n') {
                return Err(JournalError::OfAnother { path: path.to_owned(), what: "it is no journal".into() });
            }
            file.set_len(0).map_err(failed)?;
            let mut journal = Self { path: path.to_owned(), file, unsynced: 0 };
            journal.write(head)?;
            journal.sync()?;
            return Ok((journal, head.clone(), false));
        };
        for key in must_match {
            if before.get(key) != head.get(key) {
                let text = |value: &Value| value.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
                let what = format!("its {key} is {}, not {}", text(&before), text(head));
                return Err(JournalError::OfAnother { path: path.to_owned(), what });
            }
        }
        if !ends_in_newline(path).map_err(failed)? {
            // A line torn by a kill says nothing; the next one must not continue it.
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok((Self { path: path.to_owned(), file, unsynced: 0 }, before, true))
    }

    fn failed(&self, error: io::Error) -> JournalError {
        JournalError::File { path: self.path.clone(), error }
    }

    /// Appends a line; it is durable after the next [`Journal::sync`].
    pub(crate) fn write(&mut self, line: &Value) -> Result<(), JournalError> {
        let text = format!("{line}\n");
        self.file.write_all(text.as_bytes()).map_err(|error| self.failed(error))?;
        self.unsynced += 1;
        Ok(())
    }

    /// Whether so many lines are not synced that it is time to.
    pub(crate) fn is_due(&self) -> bool {
        self.unsynced >= UNSYNCED_MAX
    }

    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced > 0 {
            self.file.sync_data().map_err(|error| self.failed(error))?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

fn ends_in_newline(path: &Path) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

/// The lines of a journal after its head, one at a time. Torn ones are passed over.
pub(crate) fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Value, JournalError>>, JournalError> {
    let failed = |path: &Path, error| JournalError::File { path: path.to_owned(), error };
    let mut reader = BufReader::new(File::open(path).map_err(|error| failed(path, error))?);
    let path = path.to_owned();
    let mut line = String::new();
    let mut is_head = true;
    Ok(std::iter::from_fn(move || {
        loop {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) if std::mem::take(&mut is_head) => {}
                Ok(_) => {
                    if let Ok(value) = serde_json::from_str(&line) {
                        return Some(Ok(value));
                    }
                }
                Err(error) => return Some(Err(failed(&path, error))),
            }
        }
    }))
}

/// The head of a journal.
pub(crate) fn head(path: &Path) -> Result<Value, JournalError> {
    let failed = |error| JournalError::File { path: path.to_owned(), error };
    let mut first = String::new();
    BufReader::new(File::open(path).map_err(failed)?).read_line(&mut first).map_err(failed)?;
    let none = || JournalError::OfAnother { path: path.to_owned(), what: "it is no journal".into() };
    serde_json::from_str(&first).map_err(|_| none())
}

/// A journal that is wanted for one run alone, removed when dropped.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(std::env::temp_dir().join(format!("cairn-{name}-{}-{}", std::process::id(), since.as_nanos())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been made.
        let _gone = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

/// Where a run keeps what it did.
pub struct Notes {
    path: PathBuf,
    temporary: Option<Temporary>,
}

impl Notes {
    /// In this file, to go on from later; or nowhere that lasts.
    pub fn new(journal: Option<&Path>) -> Self {
        match journal {
            Some(path) => Self { path: path.to_owned(), temporary: None },
            None => {
                let temporary = Temporary::new("journal");
                Self { path: temporary.0.clone(), temporary: Some(temporary) }
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a later run can go on from it.
    pub fn lasts(&self) -> bool {
        self.temporary.is_none()
    }
}

/// How far numbered work is that ends out of order: everything before `done_to` is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// First number that was not begun.
    begun_to: u64,
    under_way: BTreeSet<u64>,
    /// What an earlier run did beyond `begun_to`.
    before: BTreeSet<u64>,
}

impl Progress {
    /// Everything before `to` was done by an earlier run.
    pub(crate) fn was_done_to(&mut self, to: u64) {
        self.begun_to = self.begun_to.max(to);
        self.before = self.before.split_off(&self.begun_to);
    }

    /// `number` was done by an earlier run.
    pub(crate) fn was_done(&mut self, number: u64) {
        if number >= self.begun_to {
            self.before.insert(number);
        }
    }

    /// Where to go on.
    pub(crate) fn begun_to(&self) -> u64 {
        self.begun_to
    }

    /// Takes up a number, which is beyond all before; whether there is something to do.
    pub(crate) fn begin(&mut self, number: u64, has_work: bool) -> bool {
        self.begun_to = self.begun_to.max(number + 1);
        let is_new = !self.before.remove(&number);
        if has_work && is_new {
            self.under_way.insert(number);
        }
        has_work && is_new
    }

    pub(crate) fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// First number that is not done.
    pub(crate) fn done_to(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.begun_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_journal_goes_on_behind_a_torn_line_and_refuses_another_run() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal");
        let head = json!({"replay": 1, "to": "A"});
        let (mut journal, _, went_on) = Journal::open(&path, &head, &["to"]).expect("journal");
        assert!(!went_on);
        journal.write(&json!({"n": 1})).expect("line");
        journal.sync().expect("synced");
        OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"{\"n\": ")).expect("torn");
        let (mut journal, before, went_on) = Journal::open(&path, &head, &["to"]).expect("journal");
        assert!(went_on && before == head);
        journal.write(&json!({"n": 2})).expect("line");
        let found: Vec<_> = lines(&path).expect("lines").map(|line| line.expect("line")["n"].clone()).collect();
        assert_eq!(found, [json!(1), json!(2)]);
        let other = Journal::open(&path, &json!({"replay": 1, "to": "B"}), &["to"]);
        assert!(matches!(other.err(), Some(JournalError::OfAnother { .. })));
        fs::write(&path, "something else\n").expect("written");
        assert!(matches!(Journal::open(&path, &head, &["to"]).err(), Some(JournalError::OfAnother { .. })));
    }

    #[test]
    fn all_is_done_before_the_first_that_is_under_way() {
        let mut progress = Progress::default();
        progress.was_done(7);
        progress.was_done_to(3);
        progress.was_done(5);
        assert_eq!(progress.done_to(), 3);
        assert!(progress.begin(3, true) && progress.begin(4, true) && !progress.begin(5, true));
        assert!(!progress.begin(6, false) && !progress.begin(7, true) && progress.begin(8, true));
        progress.end(4);
        assert_eq!(progress.done_to(), 3);
        progress.end(3);
        assert_eq!(progress.done_to(), 8);
        progress.end(8);
        assert_eq!(progress.done_to(), 9);
    }
}
