//! Whether what was sent is there: what a journal says, beside what the destination answers.

use crate::{
    Destination, Listed, Patience, Remotes, Stopped,
    journal::{self, JournalError, Notes, Temporary},
    report::{Line, Report},
};
use bytes::Bytes;
use cairn_dicom::{Uid, part10::Part10Reader};
use cairn_service_api::{ErrorKind, Retrieval, index::Selection, retrieval::Part};
use futures_util::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    future::Future,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Bytes of the journal that are looked at together.
const BUCKET_BYTES: u64 = 32 << 20;
const BUCKETS_MAX: u64 = 512;

/// How to reconcile.
pub struct Reconcile {
    /// With whom.
    pub destination: Destination,
    /// Whose instances.
    pub tenant: String,
    /// Fetches each instance from the destination and compares its data set with ours, which this gives. Over DICOMweb alone.
    pub compare_bytes: Option<Arc<dyn Retrieval>>,
    /// For the destination to find what it was sent a moment ago.
    pub settle: Duration,
    /// How often something is tried.
    pub patience: Patience,
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Instances that should be there.
    pub expected: u64,
    /// Instances that are, as they should be.
    pub found: u64,
    /// Instances that are not.
    pub missing: u64,
    /// Instances that were refused.
    pub refused: u64,
    /// Instances that could not be sent.
    pub unsent: u64,
    /// Instances that are there otherwise than they should be.
    pub different: u64,
}

impl Reconciled {
    /// Whether all is as it should be.
    pub fn is_whole(&self) -> bool {
        self.expected == self.found && self.missing + self.refused + self.unsent + self.different == 0
    }

    fn add(&mut self, result: &str) {
        *match result {
            "missing" => &mut self.missing,
            "refused" => &mut self.refused,
            "unsent" => &mut self.unsent,
            "different" => &mut self.different,
            _ => &mut self.found,
        } += 1;
    }

    /// The counts by name.
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("Expected", self.expected),
            ("Found", self.found),
            ("Missing", self.missing),
            ("Refused", self.refused),
            ("Unsent", self.unsent),
            ("Different", self.different),
        ]
    }
}

/// One version that should be there.
struct Expected {
    sop_class: String,
    blake3: String,
    result: String,
    detail: String,
}

/// By series and SOP Instance UID, then by place in the log.
type OfStudy = BTreeMap<(String, String), BTreeMap<(u64, u64), Expected>>;

/// Compares what the journal of a replay says with what the destination has. Instances that are not there as they
/// should be go into the report.
///
/// # Errors
/// [`Stopped`]
pub async fn run(
    reconcile: Reconcile,
    notes: &Notes,
    report: Option<&Path>,
    stop: impl Future<Output = ()> + Send,
    on: &mut (dyn FnMut(&Reconciled) + Send),
) -> Result<Reconciled, Stopped> {
    let mut remotes = Remotes::of(&reconcile.destination)
        .ok_or_else(|| Stopped::Refused("there is no destination to reconcile with".into()))?;
    let head = journal::head(notes.path())?;
    let mut report = report.map(Report::create).transpose().map_err(failed)?;
    let buckets = Buckets::fill(notes.path())?;
    let mut reconciled = Reconciled::default();
    let settled_at = Instant::now() + reconcile.settle;
    let mut stop = std::pin::pin!(stop);
    for bucket in &buckets.files {
        for (study, expected) in load(bucket)? {
            let Ok(study) = study.parse::<Uid>() else { continue };
            let comparing = reconcile.study(&mut remotes, &study, &expected, settled_at);
            let lines = tokio::select! {
                biased;
                () = &mut stop => return Err(Stopped::Interrupted),
                lines = comparing => lines?,
            };
            reconciled.expected += expected.values().map(|versions| versions.len() as u64).sum::<u64>();
            for ((series, instance), result, detail) in &lines {
                reconciled.add(result);
                let line = Line { study: study.as_str(), series, instance, result, detail };
                if let (Some(report), true) = (&mut report, *result != "found") {
                    report.line(&line).map_err(failed)?;
                }
            }
            on(&reconciled);
        }
    }
    remotes.close().await;
    if let Some(report) = report {
        let counts = reconciled.counts().map(|(name, count)| (name, Value::from(count)));
        let run = [("Destination", head["destination"].clone()), ("Selection", head["selection"].clone())];
        report.finish(&[run.as_slice(), &counts].concat()).map_err(failed)?;
    }
    Ok(reconciled)
}

fn failed(error: std::io::Error) -> Stopped {
    Stopped::Refused(format!("report: {error}"))
}

type Lines = Vec<((String, String), &'static str, String)>;

impl Reconcile {
    async fn study(
        &self,
        remotes: &mut Remotes,
        study: &Uid,
        expected: &OfStudy,
        settled_at: Instant,
    ) -> Result<Lines, Stopped> {
        let mut pause = Duration::from_millis(50);
        let (mut lines, listed) = loop {
            let listed = match remotes.study_patiently(study, self.patience).await? {
                Ok(listed) => listed,
                Err(why) => return Ok(unsaid(expected, &why)),
            };
            let lines = compare(expected, &listed);
            let is_missing = lines.iter().any(|(_, result, _)| *result == "missing");
            // What was sent a moment ago may not be found yet.
            if !is_missing || Instant::now() + pause > settled_at {
                break (lines, listed);
            }
            sleep(pause).await;
            pause *= 2;
        };
        let (Some(retrieval), Destination::Web(agent)) = (&self.compare_bytes, &self.destination) else {
            return Ok(lines);
        };
        let there: BTreeMap<&str, &Listed> = listed.iter().map(|listed| (listed.instance.as_str(), listed)).collect();
        for ((series, instance), result, detail) in &mut lines {
            if *result != "found" || !there.contains_key(instance.as_str()) {
                continue;
            }
            let resource = format!("/studies/{study}/series/{series}/instances/{instance}");
            let versions = expected.get(&(series.clone(), instance.clone()));
            let digests = versions.into_iter().flat_map(BTreeMap::values).map(|version| version.blake3.as_str());
            match self.differs(retrieval.as_ref(), agent, &resource, (study, series, instance), digests).await? {
                None => {}
                Some(what) => (*result, *detail) = ("different", what),
            }
        }
        Ok(lines)
    }

    /// How the data set at the destination differs from every version of ours.
    async fn differs(
        &self,
        retrieval: &dyn Retrieval,
        agent: &cairn_dicomweb::agent::Agent,
        resource: &str,
        (study, series, instance): (&Uid, &str, &str),
        versions: impl Iterator<Item = &str>,
    ) -> Result<Option<String>, Stopped> {
        let theirs = match digest_there(agent, resource).await {
            Ok(digest) => digest,
            Err(error) if error.is_passing() => return Err(Stopped::Unreachable(error.to_string())),
            Err(error) => return Ok(Some(format!("it can not be fetched: {error}"))),
        };
        let (Ok(series), Ok(instance)) = (series.parse(), instance.parse()) else { return Ok(None) };
        let mut selection = Selection {
            tenant: self.tenant.clone(),
            studies: vec![study.clone()],
            series: vec![series],
            instances: vec![instance],
            ..Selection::default()
        };
        for version in versions {
            selection.version = version.parse().ok();
            let mut instances = retrieval.instances(selection.clone(), Part::DataSet).await?;
            while let Some(ours) = instances.next().await.transpose()? {
                let mut hasher = blake3::Hasher::new();
                let mut bytes = ours.bytes;
                loop {
                    match bytes.next().await.transpose() {
                        Ok(Some(piece)) => _ = hasher.update(&piece),
                        Ok(None) => break,
                        Err(error) if error.kind == ErrorKind::Unavailable => return Err(error.into()),
                        Err(error) => return Ok(Some(format!("ours can not be read: {error}"))),
                    }
                }
                if hasher.finalize() == theirs {
                    return Ok(None);
                }
            }
        }
        Ok(Some("the data set has other bytes".into()))
    }
}

/// The hash of the data set of an instance there.
async fn digest_there(
    agent: &cairn_dicomweb::agent::Agent,
    resource: &str,
) -> Result<blake3::Hash, cairn_dicomweb::agent::AgentError> {
    let unusable = cairn_dicomweb::agent::AgentError::Unusable;
    let mut parts = agent.retrieve(resource).await?;
    if !parts.next().await? {
        return Err(unusable("the answer has no part"));
    }
    let (mut head, mut hasher) = (Some(Part10Reader::default()), blake3::Hasher::new());
    while let Some(piece) = parts.chunk().await? {
        let piece: Bytes = piece;
        let Some(reader) = &mut head else {
            hasher.update(&piece);
            continue;
        };
        if let Some(start) = reader.push(&piece).map_err(|_| unusable("a part is no DICOM file"))? {
            hasher.update(&start.data_set);
            head = None;
        }
    }
    if let Some(reader) = head {
        let start = reader.finish().map_err(|_| unusable("a part is no DICOM file"))?;
        hasher.update(&start.data_set);
    }
    Ok(hasher.finalize())
}

/// What there is to say where the destination does not answer for a study: what is not known to be there is missing.
fn unsaid(expected: &OfStudy, why: &str) -> Lines {
    let mut lines = compare(expected, &[]);
    for (_, result, detail) in &mut lines {
        if *result == "missing" {
            *detail = format!("the destination does not say: {why}");
        }
    }
    lines
}

/// What became of each version, as far as the list says.
fn compare(expected: &OfStudy, listed: &[Listed]) -> Lines {
    let mut there: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
    for listed in listed {
        there.entry(listed.instance.as_str()).or_default().push(listed);
    }
    let mut lines = Lines::new();
    for ((series, instance), versions) in expected {
        let found = there.get(instance.as_str()).map(Vec::as_slice).unwrap_or_default();
        let here = found.iter().find(|listed| listed.series.as_str() == series);
        for version in versions.values() {
            // 0111H: it has that instance already (PS3.7 annex C).
            let is_duplicate = version.result == "refused" && version.detail == "0111H" && here.is_some();
            let (result, detail) = match (version.result.as_str(), here, found.first()) {
                ("refused", _, _) if !is_duplicate => ("refused", version.detail.clone()),
                ("unsent", _, _) => ("unsent", version.detail.clone()),
                (_, Some(listed), _) => match &listed.sop_class {
                    Some(class) if *class.as_str() != *version.sop_class => {
                        ("different", format!("its SOP Class is {class} there, {} here", version.sop_class))
                    }
                    _ => ("found", String::new()),
                },
                (_, None, Some(elsewhere)) => ("different", format!("it is in series {} there", elsewhere.series)),
                (_, None, None) => ("missing", version.detail.clone()),
            };
            lines.push(((series.clone(), instance.clone()), result, detail));
        }
    }
    lines
}

/// The lines of a journal in files by study, so that each can be looked at as a whole.
struct Buckets {
    files: Vec<PathBuf>,
    _folder: Temporary,
}

impl Buckets {
    fn fill(journal: &Path) -> Result<Self, Stopped> {
        let wrong = |path: &Path, error| Stopped::Journal(JournalError::File { path: path.to_owned(), error });
        let bytes = fs::metadata(journal).map_err(|error| wrong(journal, error))?.len();
        let folder = Temporary::new("reconcile");
        fs::create_dir_all(&folder.0).map_err(|error| wrong(&folder.0, error))?;
        let count = (bytes / BUCKET_BYTES + 1).min(BUCKETS_MAX);
        let files: Vec<PathBuf> = (0..count).map(|number| folder.0.join(number.to_string())).collect();
        let open = |path: &PathBuf| File::create(path).map(BufWriter::new).map_err(|error| wrong(path, error));
        let mut writers = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        for line in journal::lines(journal)? {
            let line = line?;
            let Some(study) = line["study"].as_str() else { continue };
            let hash = blake3::hash(study.as_bytes());
            let number = hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first)) % count;
            if let Some(writer) = usize::try_from(number).ok().and_then(|number| writers.get_mut(number)) {
                writeln!(writer, "{line}").map_err(|error| wrong(&folder.0, error))?;
            }
        }
        for mut writer in writers {
            writer.flush().map_err(|error| wrong(&folder.0, error))?;
        }
        Ok(Self { files, _folder: folder })
    }
}

/// What a bucket says should be there, by study. Of several lines about one event the last one counts.
fn load(bucket: &Path) -> Result<BTreeMap<String, OfStudy>, Stopped> {
    let wrong = |error| Stopped::Journal(JournalError::File { path: bucket.to_owned(), error });
    let mut studies: BTreeMap<String, OfStudy> = BTreeMap::new();
    for line in BufReader::new(File::open(bucket).map_err(wrong)?).lines() {
        let Ok(line) = serde_json::from_str::<Value>(&line.map_err(wrong)?) else { continue };
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let at = serde_json::from_value(line["at"].clone()).unwrap_or_default();
        let (sop_class, blake3) = (text("class"), text("blake3"));
        let version = Expected { sop_class, blake3, result: text("result"), detail: text("detail") };
        let of_study = studies.entry(text("study")).or_default();
        of_study.entry((text("series"), text("sop"))).or_default().insert(at, version);
    }
    Ok(studies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(result: &str, detail: &str) -> OfStudy {
        let version = Expected {
            sop_class: "1.2.840.1".into(),
            blake3: String::new(),
            result: result.into(),
            detail: detail.into(),
        };
        BTreeMap::from([(("1.1".into(), "1.1.1".into()), BTreeMap::from([((0, 0), version)]))])
    }

    fn listed(series: &str, class: Option<&str>) -> Listed {
        let uid = |text: &str| text.parse().expect("a UID");
        Listed { series: uid(series), instance: uid("1.1.1"), sop_class: class.map(uid), transfer_syntax: None }
    }

    #[test]
    fn what_is_not_as_it_should_be_is_named() {
        let result = |expected: &OfStudy, listed: &[Listed]| compare(expected, listed)[0].1;
        let stored = expected("stored", "");
        assert_eq!(result(&stored, &[listed("1.1", None)]), "found");
        assert_eq!(result(&stored, &[listed("1.1", Some("1.2.840.1"))]), "found");
        assert_eq!(result(&stored, &[listed("1.1", Some("1.2.840.2"))]), "different");
        assert_eq!(result(&stored, &[listed("1.9", None)]), "different", "another series");
        assert_eq!(result(&stored, &[listed("1.9", None), listed("1.1", None)]), "found");
        assert_eq!(result(&stored, &[]), "missing");
        assert_eq!(result(&expected("refused", "A900H"), &[]), "refused");
        assert_eq!(result(&expected("refused", "0111H"), &[listed("1.1", None)]), "found", "it was there");
        assert_eq!(result(&expected("refused", "0111H"), &[]), "refused");
        assert_eq!(result(&expected("unsent", "damaged"), &[listed("1.1", None)]), "unsent");
    }
}
