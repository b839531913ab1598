//! Sending files by three doors, and finding every stored data set again.

use crate::{
    stow::{data_set_of, stow},
    support::{Archive, eventually, python, repository, run},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
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
pub struct Sender(Option<(Child, ChildStdin, BufReader<ChildStdout>)>);

impl Sender {
    pub fn new(door: Door) -> Self {
        if door == Door::Stow {
            return Self(None);
        }
        let mut child = Command::new(python())
            .arg(repository().join("tests/system/python/sender.py"))
            .arg(door.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self(Some((child, input, output)))
    }

    /// Has a client other than ours write the data set bytes that it sends of each file to the file beside it.
    pub fn wires(&mut self, wires: &[(PathBuf, PathBuf)]) {
        if self.0.is_some() {
            self.ask(&json!({ "wires": wires }));
        }
    }

    fn ask(&mut self, job: &Value) -> Value {
        let (_, input, output) = self.0.as_mut().unwrap();
        writeln!(input, "{job}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{job}: {error}"))
    }

    /// Sends one; `wire` holds the bytes that a client other than ours sends.
    pub fn send(&mut self, archive: &Archive, path: &Path, wire: Option<&Path>) -> Answer {
        if self.0.is_none() {
            return by_stow(archive, path);
        }
        let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port());
        let said = self.ask(&json!({"path": path, "host": host, "port": port}));
        if said["sent"] == false {
            return Answer::NotSent(said["why"].as_str().unwrap().to_owned());
        }
        match said["status"].as_u64() {
            Some(0 | 0xB000) => {
                Answer::Taken { data_set: wire.map(|wire| fs::read(wire).unwrap()).unwrap_or_default() }
            }
            Some(status) => Answer::Refused(format!("{status:04X} {}", said["comment"].as_str().unwrap_or_default())),
            None => panic!("{}: no answer to C-STORE", path.display()),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some((child, ..)) = &mut self.0 {
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

/// A version that the archive holds.
struct Version {
    identity: [String; 3],
    shown: bool,
    data_set: Vec<u8>,
}

/// Relation of each taken file to those before it, once all comparisons are done; checks that every one of them is
/// there by digest, and every shown one by its path and by C-GET too.
pub fn settle(
    archive: &Archive,
    stored: &[Stored],
    scratch: &Path,
    door: Door,
    wrong: &mut Vec<String>,
) -> Vec<(String, String)> {
    let conflicts = eventually("every comparison", || {
        let listed = archive.ok(&["conflicts", "list", "--all", "--output", "json"]);
        (!listed.contains("not-compared-yet")).then_some(listed)
    });
    let conflicts = Conflicts::parse(&conflicts);
    let versions = versions(archive, wrong);
    let got = by_c_get(archive, &scratch.join(format!("got-{}", door.name())));
    for version in versions.iter().filter(|version| version.shown) {
        if got.get(&version.identity.join("/")) != Some(&version.data_set) {
            wrong.push(format!("{}: {} by C-GET is not what is shown", door.name(), version.identity.join("/")));
        }
    }
    let by_bytes: HashMap<&[u8], &Version> = versions.iter().map(|v| (v.data_set.as_slice(), v)).collect();
    let mut before = HashMap::<[String; 3], Vec<&[u8]>>::new();
    let mut outcomes = Vec::new();
    for file in stored {
        let Some(version) = by_bytes.get(file.data_set.as_slice()) else {
            wrong.push(format!("{}, {}: was taken and is not there as sent", file.name, door.name()));
            continue;
        };
        let earlier = before.entry(version.identity.clone()).or_default();
        let outcome = match () {
            () if earlier.is_empty() && conflicts.elsewhere(&version.identity[2]) => "stored (also elsewhere)",
            () if earlier.is_empty() => "stored",
            () if earlier.contains(&file.data_set.as_slice()) => "repeat",
            () => conflicts.kind(&version.identity),
        };
        earlier.push(&file.data_set);
        outcomes.push((file.name.clone(), outcome.to_owned()));
    }
    let sent: Vec<&[u8]> = stored.iter().map(|file| file.data_set.as_slice()).collect();
    for version in versions.iter().filter(|version| !sent.contains(&version.data_set.as_slice())) {
        wrong.push(format!("{}: {} has bytes that nobody sent", door.name(), version.identity.join("/")));
    }
    outcomes
}

/// Kinds of conflict by study, series and instance.
struct Conflicts(BTreeMap<[String; 3], String>);

impl Conflicts {
    fn parse(json_lines: &str) -> Self {
        let line = |line: &str| -> Option<([String; 3], String)> {
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

    fn kind(&self, identity: &[String; 3]) -> &str {
        match self.0.get(identity).map(String::as_str) {
            Some(kind) if kind.contains("content") => "conflict",
            Some(kind) => kind,
            None => "not listed",
        }
    }
}

/// Every version there is, by its digest; the shown ones also by the address of the instance.
fn versions(archive: &Archive, wrong: &mut Vec<String>) -> Vec<Version> {
    let instances = archive.get("/dicom-web/instances?limit=5000", "application/dicom+json");
    assert_eq!(instances.status, 200, "{}", instances.head);
    let instances: Value = serde_json::from_slice(&instances.body).unwrap();
    let mut versions = Vec::new();
    for instance in instances.as_array().unwrap() {
        let uid = |tag: &str| instance[tag]["Value"][0].as_str().unwrap().to_owned();
        let identity = [uid("0020000D"), uid("0020000E"), uid("00080018")];
        let path = format!("/dicom-web/studies/{}/series/{}/instances/{}", identity[0], identity[1], identity[2]);
        let listed = archive.get(&format!("{path}/versions"), "application/json");
        assert_eq!(listed.status, 200, "{path}: {}", listed.head);
        let listed: Value = serde_json::from_slice(&listed.body).unwrap();
        for version in listed.as_array().unwrap() {
            let digest = version["blake3"].as_str().unwrap();
            let accept = "application/dicom; transfer-syntax=*";
            let file = archive.get(&format!("{path}/versions/{digest}"), accept);
            if file.status != 200 {
                wrong.push(format!("{path}/versions/{digest}: {}", file.head.lines().next().unwrap_or_default()));
                continue;
            }
            let shown = version["shown"] == true;
            if shown {
                let by_path = archive.get(&path, accept);
                if by_path.status != 200 || by_path.body != file.body {
                    wrong.push(format!("{path}: not the version shown: {}", by_path.status));
                }
            }
            versions.push(Version { identity: identity.clone(), shown, data_set: data_set_of(&file.body) });
        }
    }
    versions
}

/// Everything by C-GET, study by study: data set bytes by `study/series/instance`.
fn by_c_get(archive: &Archive, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::create_dir_all(folder).unwrap();
    let script = repository().join("tests/system/python/get_everything.py").display().to_string();
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let listed = run(python(), &[&script, &host, &port, &folder.display().to_string()]);
    let entry = |line: &str| {
        let (identity, file) = line.strip_prefix("got ")?.split_once(' ')?;
        Some((identity.to_owned(), fs::read(folder.join(file)).unwrap()))
    };
    listed.lines().filter_map(entry).collect()
}
