//! Sending files by three doors, and finding every stored data set again.

use crate::{
    stow::{data_set_of, stow},
    support::{Archive, eventually, python, repository, run},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// By which client and protocol a file goes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The file as it is, by STOW-RS.
    Stow,
    /// The data set bytes of the file as they are, by pynetdicom.
    Pynetdicom,
    /// What storescu makes of the file.
    Dcmtk,
}

impl Door {
    pub const ALL: [Self; 3] = [Self::Stow, Self::Pynetdicom, Self::Dcmtk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stow => "stow-rs",
            Self::Pynetdicom => "pynetdicom",
            Self::Dcmtk => "dcmtk",
        }
    }
}

/// What became of one file.
pub enum Answer {
    /// It was taken, with or without a warning; the data set bytes as they went out.
    Taken { data_set: Vec<u8> },
    /// It was refused: status or reason, and the comment.
    Refused(String),
    /// The client did not send it.
    NotSent(String),
}

impl Answer {
    /// As the table says it; `None` when it was taken.
    pub fn outcome(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => None,
            Self::Refused(why) => Some(format!("refused {why}")),
            Self::NotSent(why) => Some(format!("not-sent: {why}")),
        }
    }
}

/// A client that sends files one by one.
pub enum Sender {
    /// This process.
    Stow,
    /// One that outlives many files, and the file to which it writes the data set bytes of each.
    Other { child: Child, input: ChildStdin, output: BufReader<ChildStdout>, wire: PathBuf },
}

impl Sender {
    /// `wire` is a file of its own.
    pub fn new(door: Door, wire: PathBuf) -> Self {
        if door == Door::Stow {
            return Self::Stow;
        }
        let mut child = Command::new(python())
            .arg(repository().join("tests/system/python/sender.py"))
            .arg(door.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self::Other { child, input, output, wire }
    }

    pub fn send(&mut self, archive: &Archive, path: &Path) -> Answer {
        let Self::Other { input, output, wire, .. } = self else { return by_stow(archive, path) };
        let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port());
        let job = json!({"path": path, "host": host, "port": port, "wire": wire});
        writeln!(input, "{job}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{job}: {error}"));
        if said["sent"] == false {
            return Answer::NotSent(said["why"].as_str().unwrap().to_owned());
        }
        match said["status"].as_u64() {
            Some(0 | 0xB000) => Answer::Taken { data_set: fs::read(wire).unwrap() },
            Some(status) => Answer::Refused(format!("{status:04X} {}", said["comment"].as_str().unwrap_or_default())),
            None => panic!("{}: no answer to C-STORE", path.display()),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Self::Other { child, .. } = self {
            let _already_ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn by_stow(archive: &Archive, path: &Path) -> Answer {
    let file = fs::read(path).unwrap();
    let answer = stow(archive.http, &[&file]).unwrap();
    if matches!(answer.status, 200 | 202) {
        return Answer::Taken { data_set: data_set_of(&file) };
    }
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let items = ["00081198", "0008119A"].iter().find_map(|tag| said[*tag]["Value"].get(0));
    let item = items.unwrap_or_else(|| panic!("{}: {answer:?}", path.display()));
    let reason = item["00081197"]["Value"][0].as_u64().unwrap();
    let why = item["00991001"]["Value"][0].as_str().unwrap_or_default();
    Answer::Refused(format!("{} {reason:04X} {why}", answer.status))
}

/// A file that was taken.
pub struct Stored {
    pub name: String,
    pub data_set: Vec<u8>,
}

/// Study, Series and SOP Instance UID.
type Identity = [String; 3];

/// A version that the archive holds.
struct Version {
    identity: Identity,
    shown: bool,
    /// By its digest.
    data_set: Vec<u8>,
    /// By the address of its instance, if it is the one shown.
    by_path: Option<Vec<u8>>,
}

/// What an archive gave back.
pub struct Held {
    versions: Vec<Version>,
    /// By C-GET: data sets by identity.
    got: BTreeMap<Identity, Vec<u8>>,
    conflicts: Conflicts,
}

impl Held {
    /// Everything there is, once all comparisons are done.
    pub fn of(archive: &Archive, scratch: &Path) -> Self {
        let conflicts = eventually("every comparison", || {
            let listed = archive.ok(&["conflicts", "list", "--all", "--output", "json"]);
            (!listed.contains("not-compared-yet")).then_some(listed)
        });
        Self {
            versions: versions(archive),
            got: by_c_get(archive, &scratch.join("got")),
            conflicts: Conflicts::parse(&conflicts),
        }
    }

    /// Relation of each taken file to those before it. What is not there as it was sent goes to `wrong`: every one of
    /// them by digest, and every shown one by its path and by C-GET too.
    pub fn compare(&self, stored: &[Stored], wrong: &mut Vec<String>) -> Vec<(String, String)> {
        let by_bytes: HashMap<&[u8], &Version> = self.versions.iter().map(|v| (v.data_set.as_slice(), v)).collect();
        let mut before = HashMap::<&Identity, Vec<&[u8]>>::new();
        let mut outcomes = Vec::new();
        for file in stored {
            let Some(version) = by_bytes.get(file.data_set.as_slice()) else {
                wrong.push(format!("{}: was taken and is not there as sent", file.name));
                continue;
            };
            let earlier = before.entry(&version.identity).or_default();
            let outcome = match () {
                () if earlier.is_empty() && self.conflicts.elsewhere(&version.identity[2]) => "stored (also elsewhere)",
                () if earlier.is_empty() => "stored",
                () if earlier.contains(&file.data_set.as_slice()) => "repeat",
                () => self.conflicts.kind(&version.identity),
            };
            earlier.push(&file.data_set);
            outcomes.push((file.name.clone(), outcome.to_owned()));
        }
        let sent: HashSet<&[u8]> = stored.iter().map(|file| file.data_set.as_slice()).collect();
        for version in &self.versions {
            let name = version.identity.join("/");
            if !sent.contains(version.data_set.as_slice()) {
                wrong.push(format!("{name} has bytes that nobody sent"));
            }
            if version.shown && version.by_path.as_ref() != Some(&version.data_set) {
                wrong.push(format!("{name} by its path is not what is shown"));
            }
            if version.shown && self.got.get(&version.identity) != Some(&version.data_set) {
                wrong.push(format!("{name} by C-GET is not what is shown"));
            }
        }
        let shown = |identity: &Identity| self.versions.iter().any(|v| v.shown && v.identity == *identity);
        let others = self.got.keys().chain(before.into_keys()).filter(|identity| !shown(identity));
        wrong.extend(others.map(|identity| format!("{} has no version that is shown", identity.join("/"))));
        outcomes
    }
}

#[test]
fn one_changed_byte_is_found_wherever_it_is() {
    let identity = ["1.2", "1.2.3", "1.2.3.4"].map(str::to_owned);
    let data_set = vec![8, 0, 5, 0];
    let held = |at: usize| {
        let mut copies = [data_set.clone(), data_set.clone(), data_set.clone(), data_set.clone()];
        if let Some(copy) = copies.get_mut(at) {
            copy[2] ^= 1;
        }
        let [sent, by_digest, by_path, by_c_get] = copies;
        let version = Version { identity: identity.clone(), shown: true, data_set: by_digest, by_path: Some(by_path) };
        let got = BTreeMap::from([(identity.clone(), by_c_get)]);
        let held = Held { versions: vec![version], got, conflicts: Conflicts::parse("") };
        let mut wrong = Vec::new();
        held.compare(&[Stored { name: "file".into(), data_set: sent }], &mut wrong);
        wrong
    };
    for at in 0..4 {
        assert!(!held(at).is_empty(), "a changed byte of copy {at} is not found");
    }
    assert_eq!(held(4), Vec::<String>::new());
}

/// Kinds of conflict by study, series and instance.
struct Conflicts(BTreeMap<Identity, String>);

impl Conflicts {
    fn parse(json_lines: &str) -> Self {
        let line = |line: &str| -> Option<(Identity, String)> {
            let row: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| row[name].as_str().map(str::to_owned);
            let identity = [text("StudyInstanceUID")?, text("SeriesInstanceUID")?, text("SOPInstanceUID")?];
            Some((identity, text("Kind")?))
        };
        let rows = json_lines.lines().filter_map(line);
        let mut kinds = BTreeMap::new();
        for (identity, kind) in rows {
            kinds.entry(identity).and_modify(|known: &mut String| *known += &format!("+{kind}")).or_insert(kind);
        }
        Self(kinds)
    }

    fn elsewhere(&self, sop_instance_uid: &str) -> bool {
        self.0.iter().any(|(identity, kind)| identity[2] == sop_instance_uid && kind.contains("elsewhere"))
    }

    fn kind(&self, identity: &Identity) -> &str {
        match self.0.get(identity).map(String::as_str) {
            Some(kind) if kind.contains("content") => "conflict",
            Some(kind) => kind,
            None => "not listed",
        }
    }
}

/// Every version there is, by its digest; the shown ones also by the address of the instance.
fn versions(archive: &Archive) -> Vec<Version> {
    archive.settled();
    let instances = archive.get("/dicom-web/instances?limit=5000", "application/dicom+json");
    let instances: Value = match instances.status {
        204 => json!([]),
        status => {
            assert_eq!(status, 200, "{}", instances.head);
            serde_json::from_slice(&instances.body).unwrap()
        }
    };
    let file = |path: &str| {
        let file = archive.get(path, "application/dicom; transfer-syntax=*");
        assert_eq!(file.status, 200, "{path}: {}", file.head);
        data_set_of(&file.body)
    };
    let mut versions = Vec::new();
    for instance in instances.as_array().unwrap() {
        let uid = |tag: &str| instance[tag]["Value"][0].as_str().unwrap().to_owned();
        let identity = [uid("0020000D"), uid("0020000E"), uid("00080018")];
        let path = format!("/dicom-web/studies/{}/series/{}/instances/{}", identity[0], identity[1], identity[2]);
        let listed = archive.get(&format!("{path}/versions"), "application/json");
        assert_eq!(listed.status, 200, "{path}: {}", listed.head);
        let listed: Value = serde_json::from_slice(&listed.body).unwrap();
        for version in listed.as_array().unwrap() {
            let shown = version["shown"] == true;
            versions.push(Version {
                identity: identity.clone(),
                shown,
                data_set: file(&format!("{path}/versions/{}", version["blake3"].as_str().unwrap())),
                by_path: shown.then(|| file(&path)),
            });
        }
    }
    versions
}

/// The data sets that an archive shows, by WADO-RS.
pub fn shown(archive: &Archive) -> Vec<Vec<u8>> {
    versions(archive).into_iter().filter_map(|version| version.by_path).collect()
}

/// Everything by C-GET, series by series.
fn by_c_get(archive: &Archive, folder: &Path) -> BTreeMap<Identity, Vec<u8>> {
    fs::create_dir_all(folder).unwrap();
    let script = repository().join("tests/system/python/get_everything.py").display().to_string();
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let listed = run(python(), &[&script, &host, &port, &folder.display().to_string()]);
    let ended: Vec<&str> = listed.lines().filter(|line| line.starts_with("C-GET ended")).collect();
    assert!(ended.is_empty(), "{}", ended.join("\n"));
    let entry = |line: &str| {
        let (identity, file) = line.strip_prefix("got ")?.split_once(' ')?;
        let identity: Vec<String> = identity.split('/').map(str::to_owned).collect();
        Some((identity.try_into().unwrap(), fs::read(folder.join(file)).unwrap()))
    };
    listed.lines().filter_map(entry).collect()
}
