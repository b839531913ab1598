//! The studies to fetch.

use super::Import;
use crate::{
    Stopped,
    journal::{JournalError, Notes, Temporary},
};
use cairn_dicom::Uid;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::PathBuf,
};

/// The studies that the source listed, a line each in a file beside the journal: the list stays the same however often
/// the run is taken up again, and takes no memory.
pub(super) struct StudyList {
    path: PathBuf,
    _temporary: Option<Temporary>,
}

impl StudyList {
    pub(super) fn beside(notes: &Notes) -> Self {
        let mut name = notes.path().as_os_str().to_owned();
        name.push(".studies");
        let path = PathBuf::from(name);
        let temporary = (!notes.lasts()).then(|| Temporary(path.clone()));
        Self { path, _temporary: temporary }
    }

    fn failed(&self, error: io::Error) -> Stopped {
        Stopped::Journal(JournalError::File { path: self.path.clone(), error })
    }

    /// Asks the source, unless it was asked to the end before by the run that is gone on with.
    pub(super) async fn fill(&self, import: &Import, goes_on: bool) -> Result<(), Stopped> {
        if goes_on && self.path.exists() {
            return Ok(());
        }
        let unfinished = self.path.with_extension("unfinished");
        let mut file = BufWriter::new(File::create(&unfinished).map_err(|error| self.failed(error))?);
        let mut remotes = import.source.remotes();
        // A study that several questions have for an answer is listed once. One question needs no memory.
        let mut before = BTreeSet::new();
        for keys in &import.keys {
            let each = |study: Uid| {
                let is_new = import.keys.len() == 1 || before.insert(study.clone());
                if is_new { writeln!(file, "{study}").map_err(|error| self.failed(error)) } else { Ok(()) }
            };
            remotes.studies(keys, each).await?;
        }
        remotes.close().await;
        let file = file.into_inner().map_err(|error| self.failed(error.into_error()))?;
        file.sync_all().map_err(|error| self.failed(error))?;
        fs::rename(unfinished, &self.path).map_err(|error| self.failed(error))
    }

    fn lines(&self) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Stopped> {
        Ok(BufReader::new(File::open(&self.path).map_err(|error| self.failed(error))?).lines())
    }

    pub(super) fn count(&self) -> Result<u64, Stopped> {
        Ok(self.lines()?.count() as u64)
    }

    pub(super) fn studies(&self) -> Result<impl Iterator<Item = Result<Uid, Stopped>>, Stopped> {
        Ok(self.lines()?.map(|line| {
            let line = line.map_err(|error| self.failed(error))?;
            line.parse().map_err(|_| Stopped::Refused(format!("{} has a line that is no UID", self.path.display())))
        }))
    }
}
