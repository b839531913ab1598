//! Patient attributes in the log are sealed: its files do not show them, and nobody reads them without the keys.

use crate::{
    sites::{rows, store},
    stow::Sent,
    support::{Archive, Start, cairn, directory, run},
};
use cairn_dicom::{
    CharacterSet, Uid,
    dataset::DataSet,
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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
    let files = (1..=3).map(|instance| file(&name, &id, &study, instance)).collect();
    Made { name, id, study, files }
}

fn file(name: &str, id: &str, study: &str, instance: u32) -> Sent {
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
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &class,
        sop_instance_uid: &instance,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend(set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap());
    Sent { file, sop_instance_uid: Some(instance) }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files below a directory that have some text.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes());
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
