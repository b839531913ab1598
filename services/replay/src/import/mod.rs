//! Studies of another archive to this one: listed by C-FIND or QIDO-RS, fetched by C-GET, C-MOVE or WADO-RS.

mod fetch;
mod list;

use crate::{
    Pace, Patience, Remotes, Stopped,
    journal::{self, Journal, Notes, Progress},
    report::{Line, Report},
};
use cairn_archive::ids::ReceiptId;
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_dicomweb::agent::Agent;
use cairn_dimse::{pdu::AeTitle, scu::Remote};
use cairn_service_api::{Index, Ingest};
use list::StudyList;
use serde_json::{Value, json};
use std::{future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Another archive, and how instances are fetched from it.
#[derive(Clone)]
pub enum Source {
    /// Listed by C-FIND, fetched by C-GET.
    Get(Box<Remote>),
    /// Listed by C-FIND; by C-MOVE it sends to an AE title, which must be this archive's.
    Move(Box<Remote>, AeTitle),
    /// Listed by QIDO-RS, fetched by WADO-RS.
    Web(Agent),
}

/// An import as it is asked for.
pub struct Import {
    /// From where.
    pub source: Source,
    /// What the journal calls it.
    pub source_name: String,
    /// Studies are listed by each of these: matching keys at the study level.
    pub keys: Vec<DataSet>,
    /// Whose instances they become.
    pub tenant: String,
    /// This archive.
    pub ingest: Arc<dyn Ingest>,
    /// Receipt that they count under.
    pub receipt: ReceiptId,
    /// This archive's index.
    pub index: Arc<dyn Index>,
    /// Studies under way at once.
    pub studies_at_once: usize,
    /// How fast. By C-MOVE the other archive sends as fast as it will, and studies are spaced.
    pub pace: Pace,
    /// How often something is tried.
    pub patience: Patience,
    /// For the index to fold what came.
    pub index_timeout: Duration,
}

/// What it came to, earlier runs included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Studies that the source listed.
    pub studies: u64,
    /// Studies dealt with.
    pub studies_done: u64,
    /// Instances that the source listed.
    pub listed: u64,
    /// Instances that are new here; by C-MOVE: that are here.
    pub stored: u64,
    /// Instances that were here already.
    pub repeated: u64,
    /// Instances that contradict what was here; both are kept.
    pub conflicts: u64,
    /// Instances that the source listed and did not give.
    pub missing: u64,
    /// Instances that this archive refused.
    pub refused: u64,
}

impl Imported {
    /// Whether all that was listed is here.
    pub fn is_whole(&self) -> bool {
        self.missing + self.refused == 0 && self.studies == self.studies_done
    }

    fn add(&mut self, result: &str) {
        self.listed += 1;
        *match result {
            "stored" => &mut self.stored,
            "repeated" => &mut self.repeated,
            "conflict" => &mut self.conflicts,
            "refused" => &mut self.refused,
            _ => &mut self.missing,
        } += 1;
    }

    /// The counts by name.
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("Studies", self.studies),
            ("StudiesDone", self.studies_done),
            ("Listed", self.listed),
            ("Stored", self.stored),
            ("Repeated", self.repeated),
            ("Conflicts", self.conflicts),
            ("Missing", self.missing),
            ("Refused", self.refused),
        ]
    }
}

/// Series and SOP Instance UID, what became of it, and why.
type Outcomes = Vec<(String, String, String, String)>;

/// Fetches what the source lists; goes on where the journal says that an earlier run stopped. `stop` ends it early.
/// Each instance that was listed goes into the report.
///
/// # Errors
/// [`Stopped`]. Whatever was done is in the journal.
pub async fn run(
    import: Import,
    notes: &Notes,
    report: Option<&Path>,
    stop: impl Future<Output = ()> + Send,
    on: &mut (dyn FnMut(&Imported) + Send),
) -> Result<Imported, Stopped> {
    let selection: Vec<String> = import.keys.iter().map(described).collect();
    let head = json!({ "import": 1, "source": import.source_name, "selection": selection });
    let (journal, _, went_on) = Journal::open(notes.path(), &head, &["import", "source", "selection"])?;
    let (mut imported, mut progress) = (Imported::default(), Progress::default());
    if went_on {
        for line in journal::lines(notes.path())? {
            let line = line?;
            if let Some(number) = line["study_number"].as_u64() {
                progress.was_done(number);
                count(&line, &mut imported);
            }
        }
    }
    let mut stop = std::pin::pin!(stop);
    let list = StudyList::beside(notes);
    tokio::select! {
        biased;
        () = &mut stop => return Err(Stopped::Interrupted),
        listed = list.fill(&import, went_on) => listed?,
    }
    imported.studies = list.count()?;
    on(&imported);
    let mut run = Run { import: Arc::new(import), journal, progress, imported, running: JoinSet::new(), on };
    run.all(&list, stop).await?;
    if let Some(report) = report {
        write_report(report, notes, &head, &run.imported)?;
    }
    Ok(run.imported)
}

/// Number of a study in the list, what became of its instances, and which it is.
type Done = (u64, Result<Outcomes, Stopped>, Uid);

struct Run<'a> {
    import: Arc<Import>,
    journal: Journal,
    progress: Progress,
    imported: Imported,
    running: JoinSet<Done>,
    on: &'a mut (dyn FnMut(&Imported) + Send),
}

impl Run<'_> {
    /// Fetches the studies of the list that no earlier run did.
    async fn all(
        &mut self,
        list: &StudyList,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<(), Stopped> {
        let mut first = Ok(());
        let mut studies = list.studies()?.enumerate();
        loop {
            let has_room = self.running.len() < self.import.studies_at_once.max(1) && first.is_ok();
            if let Some((number, study)) = has_room.then(|| studies.next()).flatten() {
                let (number, study) = (number as u64, study?);
                if self.progress.begin(number, true) {
                    let import = self.import.clone();
                    self.running.spawn(async move { (number, import.study(&study).await, study) });
                }
                continue;
            }
            let done = tokio::select! {
                biased;
                () = &mut stop, if first.is_ok() => {
                    // What a study has brought so far is stored, and a repeat when it comes again.
                    first = Err(Stopped::Interrupted);
                    self.running.abort_all();
                    continue;
                }
                done = self.running.join_next() => done,
            };
            let ended = match done {
                None => break,
                Some(Ok(done)) => self.ended(done),
                Some(Err(error)) if error.is_cancelled() => Ok(()),
                Some(Err(_)) => Err(Stopped::Refused("a task of the import has ended".into())),
            };
            first = first.and(ended);
            (self.on)(&self.imported);
        }
        first
    }

    /// Notes down what became of a study.
    fn ended(&mut self, (number, outcomes, study): Done) -> Result<(), Stopped> {
        let line = json!({ "study_number": number, "study": study.as_str(), "instances": outcomes? });
        count(&line, &mut self.imported);
        self.journal.write(&line)?;
        self.progress.end(number);
        Ok(self.journal.sync()?)
    }
}

fn described(keys: &DataSet) -> String {
    let key =
        |element: &cairn_dicom::dataset::Element| format!("{:08X}={}", element.tag.0, element.value.texts().join("\\"));
    keys.elements().iter().map(key).collect::<Vec<_>>().join("&")
}

/// Adds what a line of the journal says of one study.
fn count(line: &Value, imported: &mut Imported) {
    imported.studies_done += 1;
    for instance in line["instances"].as_array().into_iter().flatten() {
        imported.add(instance[2].as_str().unwrap_or_default());
    }
}

fn write_report(path: &Path, notes: &Notes, head: &Value, imported: &Imported) -> Result<(), Stopped> {
    let failed = |error: io::Error| Stopped::Refused(format!("report: {error}"));
    let mut report = Report::create(path).map_err(failed)?;
    for line in journal::lines(notes.path())? {
        let line = line?;
        let study = line["study"].as_str().unwrap_or_default();
        for instance in line["instances"].as_array().into_iter().flatten() {
            let text = |at: usize| instance[at].as_str().unwrap_or_default();
            let line = Line { study, series: text(0), instance: text(1), result: text(2), detail: text(3) };
            report.line(&line).map_err(failed)?;
        }
    }
    let counts = imported.counts().map(|(name, count)| (name, Value::from(count)));
    let run = [("Source", head["source"].clone()), ("Selection", head["selection"].clone())];
    report.finish(&[run.as_slice(), &counts].concat()).map_err(failed)
}

impl Source {
    fn remotes(&self) -> Remotes {
        match self {
            Self::Get(remote) | Self::Move(remote, _) => Remotes::dimse((**remote).clone()),
            Self::Web(agent) => Remotes::Web(agent.clone()),
        }
    }
}
