//! Storage commitment end to end: requesters by pynetdicom on their own association and called on another, a PACS that deletes
//! only what was committed, a process killed between request and report, damage, DICOMweb, and requests that ask for too much.

use crate::{
    raw::{CT, EXPLICIT, Peer, command, element, message, text},
    sites_disasters::damage,
    stow::{Sent, stow},
    support::{Archive, Start, directory, eventually, free_port, http, python, repository, run, synthetic_files},
};
use cairn_dicom::part10::Part10Reader;
use cairn_synthetic::Generated;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

const COMMITMENT: &str = "1.2.840.10008.1.20.1";
const INSTANCE: &str = "1.2.840.10008.1.20.1.1";

/// An archive whose requesters are told on their own association (SAME), or called (PACS).
struct Setting {
    folder: tempfile::TempDir,
    port: u16,
}

impl Setting {
    fn new() -> Self {
        let setting = Self { folder: directory(), port: free_port() };
        let config = format!(
            "[dicom]\naccept_unknown_callers = true\n[ae.SAME]\ncommitment_report = \"same-association\"\n\
             [ae.PACS]\naddress = \"127.0.0.1:{}\"\n[lifecycle.commitment]\ninstances_wait = \"2s\"\n\
             report_interval = \"200ms\"\nreport_interval_max = \"1s\"\nreferences_max = 3000\n",
            setting.port
        );
        fs::write(setting.folder.path().join("cairn.toml"), config).unwrap();
        setting
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&self) -> Archive {
        let config = self.folder.path().join("cairn.toml").display().to_string();
        Archive::start_with(&self.data(), Start { arguments: vec!["--config".into(), config], ..Default::default() })
    }
}

/// What a requester does.
pub struct Scu {
    child: Child,
}

impl Scu {
    pub fn start(
        archive: &Archive,
        title: &str,
        transaction: &str,
        references: &[(String, String)],
        more: Value,
    ) -> Self {
        let mut job = json!({
            "title": title, "host": archive.dicom.ip().to_string(), "port": archive.dicom.port(),
            "transaction": transaction, "references": references,
        });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let script = repository().join("tests/system/python/commitment_scu.py");
        let mut command = Command::new(python());
        command.arg(script).arg(job.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    pub fn end(self) -> Value {
        let output = self.child.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

pub fn studies(seed: u64, count: u32) -> Vec<Generated> {
    cairn_synthetic::studies(seed, count).collect()
}

pub fn store(archive: &Archive, made: &[Generated]) {
    for made in made {
        assert_eq!(stow(archive.http, &[&made.file]).unwrap().status, 200);
    }
}

pub fn reference(made: &Generated) -> (String, String) {
    let start = Part10Reader::new(1 << 20).push(&made.file).unwrap().unwrap();
    (start.meta.sop_class_uid().unwrap().to_string(), made.sop_instance_uid.to_string())
}

pub fn failed(report: &Value) -> BTreeSet<(String, u64)> {
    let failed = report["failed"].as_object().unwrap();
    failed.iter().map(|(uid, reason)| (uid.clone(), reason.as_u64().unwrap())).collect()
}

fn state(archive: &Archive, transaction: &str) -> String {
    let listed = archive.ok(&["commitments", "list", "-o", "json"]);
    let listed = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = listed.into_iter().find(|line| line["TransactionUID"] == transaction);
    of.map_or_else(String::new, |line| line["State"].as_str().unwrap().to_owned())
}

#[test]
fn requesters_are_told_on_their_own_association_or_are_called() {
    let setting = Setting::new();
    let mut archive = setting.start();
    let made = studies(51, 2);
    store(&archive, &made);
    let mut asked: Vec<_> = made.iter().map(reference).collect();
    let missing = (CT.to_owned(), "2.25.515151".to_owned());
    let verification = ("1.2.840.10008.1.1".to_owned(), "2.25.515152".to_owned());
    let other_class = ("1.2.840.10008.5.1.4.1.1.130".to_owned(), asked[0].1.clone());
    let wanted: BTreeSet<_> = asked[1..].iter().map(|(_, uid)| uid.clone()).collect();
    asked[0] = other_class.clone();
    asked.extend([missing.clone(), verification.clone()]);
    let reasons = BTreeSet::from([(other_class.1, 0x0119), (missing.1, 0x0112), (verification.1, 0x0122)]);
    let cases = [
        ("SAME", "2.25.5101", json!({"stay": true}), "same"),
        ("PACS", "2.25.5102", json!({"listen": setting.port}), "new"),
        ("PACS", "2.25.5103", json!({"listen": setting.port, "refuse": 2}), "new"),
    ];
    for (title, transaction, more, on) in cases {
        let said = Scu::start(&archive, title, transaction, &asked, more).end();
        let report = &said["report"];
        assert_eq!((said["action"].as_u64(), report["on"].as_str()), (Some(0), Some(on)), "{said}");
        assert_eq!((report["transaction"].as_str(), report["type"].as_u64()), (Some(transaction), Some(2)));
        let committed: BTreeSet<String> = serde_json::from_value(report["committed"].clone()).unwrap();
        assert_eq!((committed, failed(report)), (wanted.clone(), reasons.clone()), "{title}");
        eventually("a report that is noted down", || (state(&archive, transaction) == "reported").then_some(()));
        let shown = archive.command(&["commitments", "show", transaction, "-o", "csv"]);
        assert_eq!(shown.status.code(), Some(3), "{shown:?}");
        assert_eq!(String::from_utf8(shown.stdout).unwrap().matches("committed").count(), wanted.len());
    }
    // All of it, and nothing else: successful.
    let whole: Vec<_> = made.iter().map(reference).collect();
    let said = Scu::start(&archive, "SAME", "2.25.5104", &whole, json!({"stay": true})).end();
    assert_eq!((said["report"]["type"].as_u64(), failed(&said["report"]).len()), (Some(1), 0), "{said}");
    // Asked again, it is told again; for other instances, or by nobody who could be told, it is refused.
    let again = Scu::start(&archive, "SAME", "2.25.5104", &whole, json!({"stay": true})).end();
    assert_eq!(again["report"]["committed"], said["report"]["committed"], "{again}");
    let other = Scu::start(&archive, "SAME", "2.25.5104", &whole[1..], json!({"stay": true})).end();
    assert_eq!(other["action"].as_u64(), Some(0x0131), "{other}");
    let unknown = Scu::start(&archive, "NOBODY", "2.25.5105", &whole, json!({})).end();
    assert_eq!(unknown["action"].as_u64(), Some(0x0110), "{unknown}");
    archive.expect_in_log("could not be told");
    archive.stop();
}

#[test]
fn instances_on_their_way_are_awaited() {
    let setting = Setting::new();
    let archive = setting.start();
    let made = studies(52, 1);
    store(&archive, &made[1..]);
    let asked: Vec<_> = made.iter().map(reference).collect();
    let scu = Scu::start(&archive, "SAME", "2.25.5201", &asked, json!({"stay": true}));
    eventually("a request", || (state(&archive, "2.25.5201") == "pending").then_some(()));
    store(&archive, &made[..1]);
    let said = scu.end();
    assert_eq!(said["report"]["type"].as_u64(), Some(1), "{said}");
    archive.stop();
}

#[test]
fn a_pacs_deletes_only_what_was_committed() {
    let setting = Setting::new();
    let archive = setting.start();
    let shelf = setting.folder.path().join("shelf");
    let files = synthetic_files(&shelf, 53, 3);
    let made = studies(53, 3);
    let (sent, kept) = files.split_at(files.len() * 2 / 3);
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let mut arguments = vec!["-aec", "CAIRN", "-aet", "PACS", host.as_str(), port.as_str()];
    let paths: Vec<_> = sent.iter().map(|path| path.display().to_string()).collect();
    arguments.extend(paths.iter().map(String::as_str));
    run("storescu", &arguments);
    let asked: Vec<_> = made.iter().map(reference).collect();
    let said = Scu::start(&archive, "PACS", "2.25.5301", &asked, json!({"listen": setting.port})).end();
    let committed: BTreeSet<String> = serde_json::from_value(said["report"]["committed"].clone()).unwrap();
    for (path, made) in files.iter().zip(&made) {
        if committed.contains(made.sop_instance_uid.as_str()) {
            fs::remove_file(path).unwrap();
        }
    }
    let left = |path: &&PathBuf| path.exists();
    assert_eq!(files.iter().filter(left).collect::<Vec<_>>(), kept.iter().collect::<Vec<_>>());
    // What was deleted there comes back from here, byte for byte.
    archive.settled();
    for made in &made[..sent.len()] {
        let own = crate::stow::data_set_of(&made.file);
        assert!(crate::stow::data_set_over_http(&archive, &made.sop_instance_uid).contains(&own));
    }
    archive.stop();
}

#[test]
fn a_requester_is_told_after_a_crash_and_once_it_listens() {
    let setting = Setting::new();
    let archive = setting.start();
    let made = studies(54, 1);
    store(&archive, &made);
    let mut asked: Vec<_> = made.iter().map(reference).collect();
    // One is awaited, so that nothing is decided before the first crash; and nobody listens yet.
    asked.push((CT.to_owned(), "2.25.545454".to_owned()));
    let said = Scu::start(&archive, "PACS", "2.25.5401", &asked, json!({})).end();
    assert_eq!(said["action"].as_u64(), Some(0), "{said}");
    archive.kill();
    let archive = setting.start();
    eventually("a decision", || (state(&archive, "2.25.5401") == "unreported").then_some(()));
    archive.kill();
    let mut archive = setting.start();
    archive.expect_in_log("could not be told");
    let said = Scu::start(&archive, "PACS", "", &[], json!({"ask": false, "listen": setting.port})).end();
    let report = &said["report"];
    assert_eq!((report["transaction"].as_str(), report["type"].as_u64()), (Some("2.25.5401"), Some(2)), "{said}");
    assert_eq!(report["committed"].as_array().unwrap().len(), made.len());
    eventually("a report that is noted down", || (state(&archive, "2.25.5401") == "reported").then_some(()));
    archive.kill();
    // What was told stays told.
    let archive = setting.start();
    assert_eq!(state(&archive, "2.25.5401"), "reported");
    archive.stop();
}

#[test]
fn what_is_damaged_is_not_committed() {
    let setting = Setting::new();
    let archive = setting.start();
    let made = studies(55, 1);
    store(&archive, &made);
    archive.stop();
    damage(&setting.data(), &Sent::new(made[0].file.clone(), made[0].sop_instance_uid.clone()));
    let mut archive = setting.start();
    archive.expect_in_log("damaged");
    let asked: Vec<_> = made.iter().map(reference).collect();
    let said = Scu::start(&archive, "SAME", "2.25.5501", &asked, json!({"stay": true})).end();
    let damaged = BTreeSet::from([(made[0].sop_instance_uid.to_string(), 0x0110)]);
    assert_eq!(failed(&said["report"]), damaged, "{said}");
    assert_eq!(said["report"]["committed"].as_array().unwrap().len(), made.len() - 1);
    archive.stop();
}

/// A request by DICOMweb.
pub fn post(archive: &Archive, transaction: &str, body: &str) -> crate::support::Response {
    let head = format!(
        "POST /dicom-web/commitment-requests/{transaction} HTTP/1.1\r\nHost: cairn\r\nAccept: application/dicom+json\r\n\
         Connection: close\r\nContent-Type: application/dicom+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    http(archive.http, &head, body.as_bytes())
}

pub fn module(references: &[(String, String)]) -> String {
    let ui = |value: &String| json!({"vr": "UI", "Value": [value]});
    let item = |(class, uid): &(String, String)| json!({"00081150": ui(class), "00081155": ui(uid)});
    json!({"00081199": {"vr": "SQ", "Value": references.iter().map(item).collect::<Vec<_>>()}}).to_string()
}

#[test]
fn dicomweb_answers_with_the_result_now_or_later() {
    let setting = Setting::new();
    let archive = setting.start();
    let made = studies(56, 1);
    store(&archive, &made);
    let mut asked: Vec<_> = made.iter().map(reference).collect();
    let answer = post(&archive, "2.25.5601", &module(&asked));
    assert_eq!(answer.status, 200, "{answer:?}");
    let result: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(result["00081199"]["Value"].as_array().unwrap().len(), made.len());
    assert!(result.get("00081198").is_none());
    asked.push((CT.to_owned(), "2.25.565656".to_owned()));
    assert_eq!(post(&archive, "2.25.5601", &module(&asked)).status, 409, "another request under one UID");
    let waiting = post(&archive, "2.25.5602", &module(&asked));
    assert!(matches!(waiting.status, 200 | 202), "{waiting:?}");
    let result = eventually("a result", || {
        let answer = archive.get("/dicom-web/commitment-requests/2.25.5602", "application/dicom+json");
        (answer.status == 200).then(|| serde_json::from_slice::<Value>(&answer.body).unwrap())
    });
    assert_eq!(result["00081198"]["Value"][0]["00081155"]["Value"], json!(["2.25.565656"]));
    assert_eq!(result["00081198"]["Value"][0]["00081197"]["Value"], json!([0x0112]));
    assert_eq!(archive.get("/dicom-web/commitment-requests/2.25.5603", "application/dicom+json").status, 404);
    assert_eq!(post(&archive, "2.25.5604", "{}").status, 400);
    assert_eq!(post(&archive, "not-a-uid", &module(&asked)).status, 400);
    let many: Vec<_> = (0..3001).map(|number| (CT.to_owned(), format!("2.25.56{number}"))).collect();
    assert_eq!(post(&archive, "2.25.5605", &module(&many)).status, 413);
    archive.stop();
}

#[test]
fn a_million_instances_are_refused_in_bounded_memory() {
    let setting = Setting::new();
    let archive = setting.start();
    let action = command(&[
        (0x0003, COMMITMENT.into()),
        (0x0100, 0x0130_u16.to_le_bytes().into()),
        (0x0110, 7_u16.to_le_bytes().into()),
        (0x0800, 1_u16.to_le_bytes().into()),
        (0x1001, INSTANCE.into()),
        (0x1008, 1_u16.to_le_bytes().into()),
    ]);
    let data_set = |count: u32| {
        let mut items = Vec::new();
        for number in 0..count {
            let mut item = text(0x0008_1150, "UI", CT);
            item.extend(text(0x0008_1155, "UI", &format!("2.25.57000000000000000000000000{number}")));
            items.extend([0xFE, 0xFF, 0x00, 0xE0]);
            items.extend(u32::try_from(item.len()).unwrap().to_le_bytes());
            items.extend(item);
        }
        [text(0x0008_1195, "UI", "2.25.5701"), element(0x0008_1199, "SQ", &items)].concat()
    };
    let before = archive.memory();
    for count in [1_000_000, 5_000] {
        let mut peer = Peer::associate(archive.dicom, "SAME", &[(COMMITMENT, EXPLICIT)]);
        peer.write(&message(1, &action, &data_set(count)));
        assert_eq!(peer.read_status(), 0x0213, "{count}");
        peer.release();
    }
    let grown = archive.memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes more");
    assert!(archive.ok(&["commitments", "list"]).lines().all(|line| !line.contains("2.25.5701")));
    archive.stop();
}
