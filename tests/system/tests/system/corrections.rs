//! Corrections of patient attributes: found by the right name and not by the wrong one, given out with it by both doors with
//! pixels as they were, and undone to the byte. `python/correction.py` says what a workstation does.

use crate::support::{Archive, directory, python, repository, run, synthetic_files};
use cairn_dicom::Uid;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn script(arguments: &[&str]) -> String {
    let script = repository().join("tests/system/python/correction.py").display().to_string();
    run(python(), &[&[script.as_str()], arguments].concat())
}

/// Studies that a key finds, by C-FIND and by QIDO-RS alike.
fn found(archive: &Archive, keyword: &str, value: &str) -> Vec<String> {
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let mut by_find: Vec<String> = script(&["find", &host, &port, keyword, value]).lines().map(str::to_owned).collect();
    let answer = archive.get(&format!("/dicom-web/studies?{keyword}={value}"), "application/dicom+json");
    let answers: Vec<Value> =
        if answer.status == 204 { Vec::new() } else { serde_json::from_slice(&answer.body).unwrap() };
    let uid = |answer: &Value| answer["0020000D"]["Value"][0].as_str().unwrap().to_owned();
    let mut by_qido: Vec<String> = answers.iter().map(uid).collect();
    by_find.sort();
    by_qido.sort();
    assert_eq!(by_find, by_qido);
    by_find
}

/// What files say, by SOP Instance UID.
fn tell(files: &[PathBuf]) -> Map<String, Value> {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let told: Value = serde_json::from_str(&script(&[&["tell"], files.as_slice()].concat())).unwrap();
    told.as_object().unwrap().clone()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What C-GET gives of a study.
fn got(archive: &Archive, study: &Uid, folder: &Path) -> Map<String, Value> {
    fs::create_dir_all(folder).unwrap();
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    script(&["get", &host, &port, study.as_str(), &folder.display().to_string()]);
    tell(&files_in(folder))
}

/// Addresses of a study's instances.
fn instances(archive: &Archive, study: &Uid) -> BTreeMap<String, String> {
    let answer = archive.get(&format!("/dicom-web/studies/{study}/instances"), "application/dicom+json");
    let answers: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
    let text = |answer: &Value, tag: &str| answer[tag]["Value"][0].as_str().unwrap().to_owned();
    let address = |answer: &Value| {
        let (series, instance) = (text(answer, "0020000E"), text(answer, "00080018"));
        (instance.clone(), format!("/dicom-web/studies/{study}/series/{series}/instances/{instance}"))
    };
    answers.iter().map(address).collect()
}

/// The bytes that WADO-RS gives, by SOP Instance UID, each with its entity tag.
fn retrieved(archive: &Archive, study: &Uid) -> BTreeMap<String, (Vec<u8>, String)> {
    let get = |address: &String| {
        let answer = archive.get(address, "application/dicom; transfer-syntax=*");
        assert_eq!(answer.status, 200, "{}", answer.head);
        let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
        (answer.body, tag)
    };
    instances(archive, study).iter().map(|(uid, address)| (uid.clone(), get(address))).collect()
}

fn written(folder: &Path, files: &BTreeMap<String, (Vec<u8>, String)>) -> Vec<PathBuf> {
    fs::create_dir_all(folder).unwrap();
    let write = |(uid, (bytes, _)): (&String, &(Vec<u8>, String))| {
        let path = folder.join(format!("{uid}.dcm"));
        fs::write(&path, bytes).unwrap();
        path
    };
    files.iter().map(write).collect()
}

/// A study: its files, and its UID.
fn study(folder: &Path) -> (Vec<PathBuf>, Uid) {
    let made: Vec<_> = cairn_synthetic::studies(71, 4).collect();
    let files = synthetic_files(folder, 71, 4);
    let largest = made.chunk_by(|a, b| a.study_instance_uid == b.study_instance_uid).max_by_key(|of| of.len()).unwrap();
    let uid = largest[0].study_instance_uid.clone();
    (files, uid)
}

#[test]
fn a_corrected_name_is_found_and_given_out_and_undone_to_the_byte() {
    let folder = directory();
    let (files, uid) = study(&folder.path().join("in"));
    let archive = Archive::start(&folder.path().join("data"));
    for file in &files {
        archive.ok(&["import", "--quiet", &file.display().to_string()]);
    }
    archive.settled();
    let before = retrieved(&archive, &uid);
    let told_before = tell(&written(&folder.path().join("before"), &before));
    let (wrong_name, wrong_id) = {
        let first = told_before.values().next().unwrap();
        (first["name"].as_str().unwrap().to_owned(), first["id"].as_str().unwrap().to_owned())
    };
    assert!(found(&archive, "PatientID", &wrong_id).contains(&uid.to_string()));
    let corrected =
        archive.ok(&["correct", uid.as_str(), "PatientName=Right^Name", "PatientID=RIGHT-1", "--why", "typed wrongly"]);
    let position = corrected.trim().strip_prefix("corrected at ").unwrap().to_owned();
    archive.settled();

    assert_eq!(found(&archive, "PatientName", "RIGHT*"), [uid.to_string()]);
    assert_eq!(found(&archive, "PatientID", "RIGHT-1"), [uid.to_string()]);
    assert!(!found(&archive, "PatientID", &wrong_id).contains(&uid.to_string()));
    let by_get = got(&archive, &uid, &folder.path().join("got"));
    let after = retrieved(&archive, &uid);
    let by_wado = tell(&written(&folder.path().join("after"), &after));
    assert_eq!(by_get, by_wado, "both doors");
    assert_eq!(by_get.len(), before.len());
    for (instance, told) in &by_wado {
        assert_eq!((told["name"].as_str(), told["id"].as_str()), (Some("Right^Name"), Some("RIGHT-1")));
        assert_eq!(told["pixels"], told_before[instance]["pixels"], "pixels as they were");
        let previous = told["previous"].as_array().unwrap().last().unwrap();
        assert_eq!((previous["name"].as_str(), previous["id"].as_str()), (Some(&*wrong_name), Some(&*wrong_id)));
        assert_eq!(previous["reason"], "CORRECT");
        assert!(previous["system"].as_str().unwrap().starts_with("CAIRN "));
        assert_ne!(after[instance].1, before[instance].1, "another entity tag");
    }
    let metadata = archive.get(&format!("/dicom-web/studies/{uid}/metadata"), "application/dicom+json");
    let metadata: Vec<Value> = serde_json::from_slice(&metadata.body).unwrap();
    for instance in &metadata {
        assert_eq!(instance["00100010"]["Value"][0]["Alphabetic"], "Right^Name");
        assert!(instance["04000561"]["Value"].is_array());
    }
    // What was stored is there for who names it.
    for (instance, address) in instances(&archive, &uid) {
        let versions = archive.get(&format!("{address}/versions"), "application/json");
        let versions: Value = serde_json::from_slice(&versions.body).unwrap();
        let digest = versions[0]["blake3"].as_str().unwrap();
        let stored = archive.get(&format!("{address}/versions/{digest}"), "application/dicom; transfer-syntax=*");
        assert_eq!(stored.body, before[&instance].0);
    }
    assert!(archive.ok(&["index", "verify"]).contains("equal"));
    let listed = archive.ok(&["corrections", "list", uid.as_str(), "-o", "json"]);
    let listed: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(listed["Position"].as_str(), Some(&*position));
    assert!(!listed.to_string().contains("Right"), "values are told by `show` alone");
    assert!(archive.ok(&["corrections", "show", uid.as_str()]).contains("Right^Name"));

    archive.ok(&["corrections", "revoke", &position, "--why", "it was right"]);
    archive.settled();
    assert_eq!(retrieved(&archive, &uid), before, "undone to the byte");
    assert!(found(&archive, "PatientID", &wrong_id).contains(&uid.to_string()));
    assert!(found(&archive, "PatientID", "RIGHT-1").is_empty());
    let why = archive.ok(&["why", uid.as_str()]);
    assert!(
        why.contains("corrected PatientName, PatientID of the study: typed wrongly; taken back by event "),
        "{why}"
    );
    assert!(archive.ok(&["index", "verify"]).contains("equal"));
    archive.stop();
}

#[test]
fn what_can_not_be_corrected_is_refused() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let files = synthetic_files(&folder.path().join("in"), 3, 1);
    archive.ok(&["import", "--quiet", &files[0].display().to_string()]);
    archive.settled();
    let uid = cairn_synthetic::studies(3, 1).next().unwrap().study_instance_uid;
    for (study, attribute, said) in [
        (uid.as_str(), "StudyInstanceUID=1.2", "not an attribute of patient or study"),
        (uid.as_str(), "PatientBirthDate=yesterday", "value representation"),
        (uid.as_str(), "Nonsense=1", "no keyword"),
        ("1.2.3", "PatientName=A", "there is no instance"),
    ] {
        let refused = archive.command(&["correct", study, attribute, "--why", "trial"]);
        assert!(!refused.status.success(), "{attribute}");
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains(said) && !error.contains("yesterday"), "{error}");
    }
    archive.stop();
}
