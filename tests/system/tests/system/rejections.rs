//! Rejection notes made by pydicom, by both doors: hidden from everybody but those who see their title, and taken back by
//! an operator. `python/rejection.py` says what it does.

use crate::{
    stow::stow,
    support::{Archive, Start, directory, python, repository, run, synthetic_files},
};
use cairn_dicom::Uid;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn script(arguments: &[&str]) -> String {
    let script = repository().join("tests/system/python/rejection.py").display().to_string();
    run(python(), &[&[script.as_str()], arguments].concat())
}

/// A note about files, as a file.
fn note(folder: &Path, name: &str, title: &str, about: &[PathBuf]) -> PathBuf {
    let out = folder.join(name);
    let about: Vec<String> = about.iter().map(|path| path.display().to_string()).collect();
    let about: Vec<&str> = about.iter().map(String::as_str).collect();
    script(&[&["make", &out.display().to_string(), title], about.as_slice()].concat());
    out
}

fn send(archive: &Archive, file: &Path) -> String {
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    script(&["send", &host, &port, &file.display().to_string()]).trim().to_owned()
}

/// What an AE finds and gets of a study by DIMSE.
fn seen_by(archive: &Archive, ae: &str, study: &Uid) -> Value {
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    serde_json::from_str(&script(&["see", &host, &port, ae, study.as_str()])).unwrap()
}

/// Answers of QIDO-RS; none: an empty list.
fn searched(archive: &Archive, path: &str) -> Vec<Value> {
    let answer = archive.get(&format!("/dicom-web/{path}"), "application/dicom+json");
    match answer.status {
        204 => Vec::new(),
        200 => serde_json::from_slice(&answer.body).unwrap(),
        other => panic!("{other}: {}", answer.head),
    }
}

fn count(seen: &Value, what: &str) -> usize {
    seen[what].as_array().unwrap().len()
}

/// A study of several instances: its files, and its UID.
fn study(folder: &Path) -> (Vec<PathBuf>, Uid) {
    let made: Vec<_> = cairn_synthetic::studies(61, 6).collect();
    let files = synthetic_files(folder, 61, 6);
    let largest = made.chunk_by(|a, b| a.study_instance_uid == b.study_instance_uid).max_by_key(|of| of.len()).unwrap();
    let uid = largest[0].study_instance_uid.clone();
    let of_study = made.iter().zip(files).filter(|(one, _)| one.study_instance_uid == uid).map(|(_, file)| file);
    (of_study.collect(), uid)
}

fn archive(folder: &Path) -> Archive {
    let config = folder.join("cairn.toml");
    fs::write(&config, "[dicom]\naccept_unknown_callers = true\n[ae.QUALITY]\nsees_rejected = [\"113001\"]\n").unwrap();
    let arguments = vec!["--config".into(), config.display().to_string()];
    Archive::start_with(&folder.join("data"), Start { arguments, ..Start::default() })
}

/// Every event that made an instance what it is, in order and in words; the same of its study, series and patient.
fn why_it_is_so(archive: &Archive, file: &Path, study: &Uid) {
    let names = "import sys, pydicom; d = pydicom.dcmread(sys.argv[1], stop_before_pixels=True); \
                 print(d.SOPInstanceUID, d.SeriesInstanceUID, d.PatientID)";
    let names = run(python(), &["-c", names, &file.display().to_string()]);
    let [instance, series, patient] = names.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{names}") };
    let why = |what: &str| -> Vec<String> {
        let told = archive.ok(&["why", what, "-o", "json"]);
        let what = |line: &str| serde_json::from_str::<Value>(line).unwrap()["What"].as_str().unwrap().to_owned();
        told.lines().map(what).collect()
    };
    let told = why(instance);
    let [stored, rejected, revoked] = told.as_slice() else { panic!("{told:#?}") };
    assert!(
        stored.starts_with("stored by import") && stored.ends_with("shown: the first that is not rejected"),
        "{stored}"
    );
    assert!(
        rejected.contains("rejected 2 instances as 113001") && rejected.contains("; taken back by event "),
        "{rejected}"
    );
    assert!(revoked.ends_with(": they were right"), "{revoked}");
    let of_study = why(study.as_str());
    assert!(told.iter().all(|line| of_study.contains(line)) && of_study.len() > told.len());
    assert!(of_study.iter().any(|line| line.starts_with("a transfer by import")), "{of_study:#?}");
    let of_series = why(series);
    assert!(told.iter().all(|line| of_series.contains(line)) && of_series.len() < of_study.len());
    let of_patient = why(&format!("|{patient}"));
    assert!(told.iter().all(|line| of_patient.contains(line)));
    assert_eq!(archive.command(&["why", "1.2.3.4"]).status.code(), Some(1));
}

#[test]
fn what_a_note_rejects_is_hidden_from_all_but_those_who_see_its_title() {
    let folder = directory();
    let (files, uid) = study(&folder.path().join("in"));
    let archive = archive(folder.path());
    for file in &files {
        archive.ok(&["import", "--quiet", &file.display().to_string()]);
    }
    archive.settled();
    assert!(files.len() > 3);
    assert_eq!(send(&archive, &note(folder.path(), "quality.dcm", "113001", &files[..2])), "0000");
    // At once: who stored it finds what it says.
    archive.settled();
    let all = files.len();
    let seen = seen_by(&archive, "ANYONE", &uid);
    assert_eq!((count(&seen, "found"), count(&seen, "got")), (all - 1, all - 1), "two less, and the note");
    assert_eq!(seen["instances"], serde_json::json!([all - 1]));
    let seen = seen_by(&archive, "QUALITY", &uid);
    assert_eq!((count(&seen, "found"), count(&seen, "got")), (all + 1, all + 1));
    assert_eq!(seen["instances"], serde_json::json!([all + 1]));
    assert_eq!(searched(&archive, &format!("studies/{uid}/instances")).len(), all - 1);
    let studies = searched(&archive, &format!("studies?StudyInstanceUID={uid}"));
    assert_eq!(studies[0]["00201208"]["Value"][0], all as u64 - 1);

    // By the other door, for a reason that hides it from everybody.
    let safety = note(folder.path(), "safety.dcm", "113037", &files[2..]);
    assert_eq!(stow(archive.http, &[&fs::read(&safety).unwrap()]).unwrap().status, 200);
    archive.settled();
    let seen = seen_by(&archive, "ANYONE", &uid);
    assert_eq!((count(&seen, "found"), count(&seen, "got")), (2, 2), "the notes");
    assert_eq!(count(&seen_by(&archive, "QUALITY", &uid), "got"), 4);
    assert_eq!(searched(&archive, &format!("studies/{uid}/instances")).len(), 2);
    assert!(archive.ok(&["index", "verify"]).contains("equal"));

    // Taken back, note by note.
    let listed = archive.ok(&["rejections", "list", uid.as_str(), "-o", "json"]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.iter().map(|row| row["Title"].as_str().unwrap()).collect::<Vec<_>>(), ["113001", "113037"]);
    for row in &listed {
        archive.ok(&["rejections", "revoke", row["Position"].as_str().unwrap(), "--reason", "they were right"]);
    }
    archive.settled();
    let seen = seen_by(&archive, "ANYONE", &uid);
    assert_eq!((count(&seen, "found"), count(&seen, "got")), (all + 2, all + 2));
    let listed = archive.ok(&["rejections", "list", uid.as_str()]);
    assert_eq!(listed.matches("revoked").count(), 2, "{listed}");
    why_it_is_so(&archive, &files[0], &uid);
    assert!(archive.ok(&["index", "verify"]).contains("equal"));
    archive.stop();
}

#[test]
fn a_study_of_which_all_is_rejected_is_not_found_until_it_is_sent_again() {
    let folder = directory();
    let (files, uid) = study(&folder.path().join("in"));
    let archive = archive(folder.path());
    // The note is there before any of its instances.
    let first = note(folder.path(), "expired.dcm", "113039", &files[..1]);
    assert_eq!(send(&archive, &first), "0000");
    for file in &files {
        archive.ok(&["import", "--quiet", &file.display().to_string()]);
    }
    archive.settled();
    assert_eq!(count(&seen_by(&archive, "ANYONE", &uid), "got"), files.len(), "all but one, and the note");
    let rest = note(folder.path(), "rest.dcm", "113001", &[&files[1..], std::slice::from_ref(&first)].concat());
    let elsewhere = {
        // A note of another study, so that nothing of this one is left.
        let moved = folder.path().join("elsewhere.dcm");
        let change = format!(
            "import pydicom; d = pydicom.dcmread({:?}); d.StudyInstanceUID = '2.25.4711'; d.save_as({:?})",
            rest.display().to_string(),
            moved.display().to_string()
        );
        run(python(), &["-c", &change]);
        moved
    };
    assert_eq!(send(&archive, &elsewhere), "0000");
    archive.settled();
    let seen = seen_by(&archive, "ANYONE", &uid);
    assert_eq!((count(&seen, "got"), seen["listed"].as_bool()), (0, Some(false)), "{seen}");
    assert!(searched(&archive, &format!("studies?StudyInstanceUID={uid}")).is_empty());
    let seen = seen_by(&archive, "QUALITY", &uid);
    assert_eq!((count(&seen, "got"), seen["listed"].as_bool()), (files.len(), Some(true)), "{seen}");

    // What was there when the note came is hidden; what comes after it is shown.
    assert_eq!(send(&archive, &files[1]), "0000");
    assert_eq!(send(&archive, &files[0]), "0000");
    archive.settled();
    assert_eq!(count(&seen_by(&archive, "ANYONE", &uid), "got"), 1, "the first note named no store: it hides all");
    archive.stop();
}
