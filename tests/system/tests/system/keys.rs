//! Patient attributes in the log are sealed: its files do not show them, and nobody reads them without the keys.

use crate::{
    sites::{Sites, rows, store},
    stow::Sent,
    support::{Archive, Start, cairn, directory, eventually, run},
};
use cairn_dicom::{
    CharacterSet, Tag, Uid, Vr,
    dataset::{self, DataSet},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};
use serde_json::Value;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

/// A patient whose name and ID are found wherever they stand, and instances of a study of theirs.
struct Made {
    name: String,
    id: String,
    study: String,
    files: Vec<Sent>,
}

fn made(number: u32) -> Made {
    let (name, id) = (format!("SHREDDED-{number}^KEYS"), format!("KEYS-TRIAL-{number}"));
    let study = format!("2.25.77000{number}");
    let files = (1..=3).map(|instance| file(&name, &id, &study, instance, 0)).collect();
    Made { name, id, study, files }
}

/// An instance with private elements of a thousand bytes each. With many its header is in an object of its own.
fn file(name: &str, id: &str, study: &str, instance: u32, private: u32) -> Sent {
    let uid = |text: &str| text.parse::<Uid>().unwrap();
    let (class, instance) = (uid("1.2.840.10008.5.1.4.1.1.66"), uid(&format!("{study}{instance}")));
    let mut set = DataSet::new();
    for (tag, text) in [
        (tags::SOP_CLASS_UID, class.as_str()),
        (tags::SOP_INSTANCE_UID, instance.as_str()),
        (tags::MODALITY, "OT"),
        (tags::PATIENT_NAME, name),
        (tags::PATIENT_ID, id),
        (tags::STUDY_INSTANCE_UID, study),
        (tags::SERIES_INSTANCE_UID, &format!("{study}9")),
    ] {
        set.put_text(tag, text);
    }
    for number in 0..private {
        set.put(Tag(0x0099_1000 + number), Vr::LT, dataset::Value::text(Vr::LT, &"x".repeat(1_000)));
    }
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &class,
        sop_instance_uid: &instance,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend(set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap());
    Sent { file, sop_instance_uid: Some(instance) }
}

/// Every file below a directory. Some may go meanwhile.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files below a directory that have some text.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| match fs::read(path) {
        Ok(bytes) => bytes.windows(text.len()).any(|window| window == text.as_bytes()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            false
        }
    };
    files(directory).into_iter().filter(has).collect()
}

/// Name and ID of a study's patient, as the archive answers with them.
fn patient(archive: &Archive, study: &str) -> (String, String) {
    let found = rows(archive, &["query", "studies", "--key", &format!("StudyInstanceUID={study}")]);
    let text = |name: &str| found[0][name].as_str().unwrap().to_owned();
    (text("PatientName"), text("PatientID"))
}

/// A command on the files of an archive.
fn offline(data: &Path, arguments: &[&str]) -> String {
    run(cairn(), &[arguments, &["--data", data.to_str().unwrap()]].concat())
}

/// An archive that seals.
fn sealing(data: &Path) -> Archive {
    let environment = vec![("CAIRN__KEYS__SEAL", "true".to_owned())];
    Archive::start_with(data, Start { environment, ..Start::default() })
}

#[test]
fn the_log_shows_no_patient_and_is_read_with_its_keys_alone() {
    let folder = directory();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup-of-keys"));
    let (first, second) = (made(301), made(302));
    let archive = sealing(&data);
    store(&archive, &first.files);
    archive.settled();
    let told = (first.name.clone(), first.id.clone());
    assert_eq!(patient(&archive, &first.study), told);
    let events = rows(&archive, &["events", "tail", "--from", "beginning", "--no-follow"]);
    let stored = events.iter().find(|event| event["Type"] == "cairn.instance.stored.v1").unwrap();
    let position = stored["Position"].as_str().unwrap();
    archive.ok(&["events", "show", position]);
    // Other checks may find something on a machine on which other trials run.
    let found =
        Command::new(cairn()).args(["doctor", "-o", "json", "--data", data.to_str().unwrap()]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&found.stdout).lines().any(|row| row.contains("\"keys\"") && row.contains("\"ok\""))
    );
    offline(&data, &["keys", "backup", backup.to_str().unwrap()]);
    archive.stop();
    for text in [&first.name, &first.id] {
        assert_eq!(files_with(&data.join("log"), text), Vec::<PathBuf>::new());
        assert!(!files_with(&data.join("objects"), text).is_empty(), "there is something to find");
    }

    // Without its keys the log is not read, and nothing is made of it that it does not say.
    fs::remove_file(data.join("keys/keys")).unwrap();
    let mut archive = sealing(&data);
    archive.expect_in_log("is not in the key store");
    let refused = archive.command(&["events", "show", position]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("is not in the key store"), "{said}");
    store(&archive, &second.files);
    archive.settled();
    assert_eq!(patient(&archive, &first.study), told, "the index has it still");
    archive.stop();

    offline(&data, &["keys", "restore", backup.to_str().unwrap()]);
    let archive = sealing(&data);
    archive.ok(&["index", "rebuild"]);
    archive.ok(&["index", "verify"]);
    assert_eq!(patient(&archive, &first.study), told);
    assert_eq!(patient(&archive, &second.study), (second.name, second.id), "those made meanwhile are there too");
    archive.stop();
}

#[test]
fn a_key_that_is_lost_for_good_holds_nothing_up_and_opens_what_it_sealed_if_it_comes_after_all() {
    let folder = directory();
    let (data, backup) = (folder.path().join("data"), folder.path().join("found-again"));
    let (first, second) = (made(316), made(317));
    let archive = sealing(&data);
    store(&archive, &first.files);
    archive.settled();
    let events = rows(&archive, &["events", "tail", "--from", "beginning", "--no-follow"]);
    let stored = events.iter().find(|event| event["Type"] == "cairn.instance.stored.v1").unwrap();
    let position = stored["Position"].as_str().unwrap().to_owned();
    archive.stop();
    fs::rename(data.join("keys/keys"), &backup).unwrap();
    let archive = sealing(&data);
    let refused = archive.command(&["events", "show", &position]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let key = said.split_once(" is not in the key store").unwrap().0.rsplit(' ').next().unwrap().to_owned();
    store(&archive, &second.files);
    archive.stop();

    offline(&data, &["keys", "abandon", &key]);
    let mut archive = sealing(&data);
    archive.expect_in_log("an event can't be folded and is parked");
    archive.expect_in_log("a generation is not equal to the serving one");
    assert!(!archive.command(&["index", "rebuild"]).status.success(), "what serves was read with the key, and stays");
    assert_eq!(patient(&archive, &first.study), (first.name.clone(), first.id.clone()));
    archive.ok(&["index", "switch", "2", "--accept-difference"]);
    let parked = rows(&archive, &["parked", "list"]);
    assert_eq!(parked.iter().map(|event| &event["Reason"]).collect::<Vec<_>>(), ["encrypted"; 3]);
    assert_eq!(patient(&archive, &second.study), (second.name.clone(), second.id.clone()), "the rest goes on");
    let counts: Value = serde_json::from_str(offline(&data, &["keys", "status", "-o", "json"]).trim()).unwrap();
    assert_eq!(counts["Abandoned"], 1, "{counts}");
    archive.stop();

    offline(&data, &["keys", "restore", backup.to_str().unwrap()]);
    let archive = sealing(&data);
    archive.ok(&["parked", "retry"]);
    archive.settled();
    assert_eq!(patient(&archive, &first.study), (first.name, first.id));
    assert!(rows(&archive, &["parked", "list"]).is_empty());
    archive.stop();
}

const ERASES_SOON: [(&str, &str); 4] = [
    ("CAIRN__INDEX__DROP_GRACE", "1s"),
    ("CAIRN__KEYS__SEAL", "true"),
    ("CAIRN__LIFECYCLE__ERASURE__DELAY", "300ms"),
    ("CAIRN__LIFECYCLE__ERASURE__LOOK_INTERVAL", "50ms"),
];

fn erasing(data: &Path) -> Archive {
    let environment = ERASES_SOON.map(|(name, value)| (name, value.to_owned())).to_vec();
    Archive::start_with(data, Start { environment, ..Start::default() })
}

/// Waits until a report says that objects and keys are destroyed; gives it.
fn reported(archive: &Archive, id: &str) -> Value {
    eventually("the keys are destroyed", || {
        let output = archive.command(&["erasure", "report", id, "--form", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        let keys = report["Keys"].as_array()?;
        let is_done = output.status.success() && report["Destroyed"].as_array().is_some_and(|at| !at.is_empty());
        let is_said = report["KeysDestroyed"].as_array().is_some_and(|at| !at.is_empty());
        (is_done && is_said && keys.iter().all(|key| key["Destroyed"] == true)).then_some(report.clone())
    })
}

fn are_nowhere(data: &Path, made: &Made) {
    for text in [&made.name, &made.id] {
        eventually("no file shows who was erased", || files_with(data, text).is_empty().then_some(()));
    }
}

#[test]
fn who_is_erased_is_in_no_file_and_no_view_after_a_kill_a_rebuild_and_an_old_backup_of_the_keys() {
    let folder = directory();
    let (data, backup) = (folder.path().join("data"), folder.path().join("keys-of-before"));
    let (gone, stays) = (made(311), made(312));
    let archive = erasing(&data);
    store(&archive, &gone.files);
    store(&archive, &[file(&gone.name, &gone.id, &gone.study, 4, 700)]);
    store(&archive, &stays.files);
    archive.settled();
    let told = |made: &Made| (made.name.clone(), made.id.clone());
    assert_eq!(patient(&archive, &gone.study), told(&gone));
    let corrected = Made { name: "SHREDDED-313^CORRECTED".to_owned(), ..made(311) };
    archive.ok(&["correct", &gone.study, &format!("PatientName={}", corrected.name), "--why", "typed wrongly"]);
    archive.settled();
    assert_eq!(patient(&archive, &gone.study).0, corrected.name);
    offline(&data, &["keys", "backup", backup.to_str().unwrap()]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let view = rows(&archive, &["index", "rebuild", "--until", &format!("@{now}")]).remove(0);
    let view = view["Generation"].as_str().unwrap();
    assert_eq!(rows(&archive, &["query", "studies", "--generation", view]).len(), 2);
    let request = ["erasure", "request", "--reason", "a trial", "--study", &gone.study];
    let request = archive.ok(&request).trim().to_owned();
    eventually("its objects are destroyed", || {
        let output = archive.command(&["erasure", "report", &request, "--form", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        (!report["Destroyed"].as_array()?.is_empty()).then_some(())
    });
    archive.kill();

    let archive = erasing(&data);
    let report = reported(&archive, &request);
    assert_eq!(report["Keys"].as_array().unwrap().len(), 2, "of the patient, and of the correction: {report}");
    assert_eq!(report["KeysDestroyed"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["Erased"].as_array().unwrap().len(), 5, "with the large header's own object: {report}");
    assert!(report["KeptKeys"].as_array().unwrap().is_empty(), "{report}");
    assert!(archive.ok(&["erasure", "report", &request]).contains("## Keys destroyed: 2"));
    archive.settled();
    eventually("the view is gone", || {
        let asked = archive.command(&["query", "studies", "--generation", view]);
        (!asked.status.success()).then_some(())
    });
    archive.ok(&["index", "rebuild"]);
    archive.ok(&["index", "verify"]);
    are_nowhere(&data, &gone);
    are_nowhere(&data, &corrected);
    assert_eq!(patient(&archive, &stays.study), told(&stays), "who is not erased is there");
    archive.stop();
    are_nowhere(&data, &gone);

    // A key store as it was before: what the log says is destroyed is destroyed again.
    fs::copy(&backup, data.join("keys/keys")).unwrap();
    let archive = erasing(&data);
    reported(&archive, &request);
    archive.ok(&["index", "rebuild"]);
    archive.ok(&["index", "verify"]);
    are_nowhere(&data, &gone);
    assert_eq!(patient(&archive, &stays.study), told(&stays));
    // What comes again is sealed under another key.
    store(&archive, &gone.files[..1]);
    archive.settled();
    assert_eq!(patient(&archive, &gone.study), told(&gone));
    archive.ok(&["index", "verify"]);
    archive.stop();
}

#[test]
fn a_key_stays_while_something_is_live_under_it_and_the_report_says_what() {
    let folder = directory();
    let archive = erasing(folder.path());
    let made = made(313);
    store(&archive, &made.files);
    archive.settled();
    let first = made.files[0].sop_instance_uid.as_ref().unwrap().to_string();
    let request = ["erasure", "request", "--reason", "a trial", "--study", &made.study, "--instance", &first];
    let id = archive.ok(&request).trim().to_owned();
    let report = eventually("it is said", || {
        let output = archive.command(&["erasure", "report", &id, "--form", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        (!report["KeptKeys"].as_array()?.is_empty()).then_some(report)
    });
    assert!(report["Keys"].as_array().unwrap().is_empty(), "{report}");
    archive.ok(&["index", "rebuild"]);
    assert_eq!(patient(&archive, &made.study).0, made.name);
    // The rest of it takes the key with it.
    let id = archive.ok(&request[..6]).trim().to_owned();
    assert_eq!(reported(&archive, &id)["Keys"].as_array().unwrap().len(), 3, "and those of why it was asked for");
    archive.ok(&["index", "verify"]);
    archive.stop();
}

#[test]
fn keys_are_destroyed_at_every_site() {
    let mut sites = Sites::prepare(&["east", "west"]);
    for name in ["east", "west"] {
        sites.site(name).configured = "[index]\ndrop_grace = \"1s\"\n[keys]\nseal = true\n[lifecycle.erasure]\ndelay = \"300ms\"\nlook_interval = \"50ms\"\n";
        sites.start_site(name);
    }
    sites.in_step();
    let (gone, stays) = (made(314), made(315));
    store(sites.at("west"), &gone.files);
    store(sites.at("east"), &stays.files);
    sites.whole(&gone.files);
    for name in ["east", "west"] {
        assert_eq!(patient(sites.at(name), &gone.study).0, gone.name, "each reads what the other has sealed");
        assert_eq!(patient(sites.at(name), &stays.study).0, stays.name);
    }
    sites.at("east").ok(&["site", "promote", "--reason", "a trial", "--yes", "east"]);
    sites.in_step();
    let request = ["erasure", "request", "--reason", "a trial", "--study", &gone.study];
    let request = sites.at("east").ok(&request).trim().to_owned();
    for name in ["east", "west"] {
        let report = reported(sites.at(name), &request);
        // The patient's, and that of why it was asked for.
        assert_eq!((report["Keys"].as_array().unwrap().len(), &report["ReadAtSite"]), (2, &name.into()), "{report}");
        sites.at(name).ok(&["index", "rebuild"]);
        let data = sites.site(name).data.clone();
        are_nowhere(&data, &gone);
        assert_eq!(patient(sites.at(name), &stays.study).0, stays.name);
    }
    sites.stop();
}
