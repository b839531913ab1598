//! What a drill has changed, or is about to: written before anything is done, so that whoever comes after a crash can put
//! it back. What is true of the sites is asked of them; the journal says what is not to stay.

use crate::commands::Failure;
use cairn_archive::SiteId;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Its name, in the directory of the report.
pub const FILE: &str = "journal.json";
const SCHEMA: &str = "cairn-drill-journal/1";

/// A drill under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    schema: String,
    /// Names the drill.
    pub drill: String,
    pub original: Place,
    pub standby: Place,
    /// Links that the drill pauses.
    pub paused: Vec<Pause>,
    pub decided_by: String,
    pub reason: String,
    /// Whether all is as it was.
    pub ended: bool,
    #[serde(skip)]
    path: PathBuf,
}

/// A site, and where it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub site: String,
    pub addresses: Vec<String>,
}

/// Nothing goes from one site to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Where it is paused: one of the two sites of the drill.
    pub at: String,
    pub to: String,
}

impl Journal {
    /// One that nothing stands in yet.
    pub fn new(directory: &Path, drill: String, original: Place, standby: Place, grounds: (String, String)) -> Self {
        let (decided_by, reason) = grounds;
        let (schema, path) = (SCHEMA.to_owned(), directory.join(FILE));
        Self { schema, drill, original, standby, paused: Vec::new(), decided_by, reason, ended: false, path }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It can't be read, or was written by another version.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |what: String| Failure::failed(format!("{}: {what}", path.display()));
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let mut journal: Self = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        if journal.schema != SCHEMA {
            return Err(failed(format!("{:?} is of another version", journal.schema)));
        }
        journal.path = path.to_owned();
        Ok(journal)
    }

    /// Writes it down: durable on return; a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self) -> Result<(), Failure> {
        let temporary = self.path.with_extension("new");
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::other).and_then(|bytes| {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        written.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name of a site in it.
    ///
    /// # Errors
    /// It is none.
    pub fn site(name: &str) -> Result<SiteId, Failure> {
        name.parse().map_err(|_| Failure::failed(format!("{name:?} in the journal is no name of a site")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = |site: &str| Place { site: site.into(), addresses: vec!["http://127.0.0.1:1".into()] };
        let grounds = ("who".to_owned(), "why".to_owned());
        let mut journal = Journal::new(directory.path(), "d".into(), place("east"), place("west"), grounds);
        journal.write().unwrap();
        journal.paused.push(Pause { at: "east".into(), to: "west".into() });
        journal.write().unwrap();
        assert_eq!(Journal::read(journal.path()).unwrap(), journal);
        let text = fs::read_to_string(journal.path()).unwrap().replace(SCHEMA, "cairn-drill-journal/2");
        fs::write(journal.path(), text).unwrap();
        assert!(Journal::read(journal.path()).is_err());
    }
}
