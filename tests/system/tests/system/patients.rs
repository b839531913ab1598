//! Patients merged by an operator: one patient by both doors, until that is taken back.

use crate::support::{Archive, directory, synthetic_files};
use serde_json::Value;
use std::collections::BTreeMap;

fn answers(archive: &Archive, path: &str) -> Vec<Value> {
    let answer = archive.get(path, "application/dicom+json");
    if answer.status == 204 { Vec::new() } else { serde_json::from_slice(&answer.body).unwrap() }
}

fn text(answer: &Value, tag: &str) -> String {
    answer[tag]["Value"][0].as_str().unwrap_or_default().to_owned()
}

/// Patient IDs of studies.
fn studies(archive: &Archive, keys: &str) -> BTreeMap<String, String> {
    let found = answers(archive, &format!("/dicom-web/studies?includefield=00100021{keys}"));
    found.iter().map(|answer| (text(answer, "0020000D"), text(answer, "00100020"))).collect()
}

#[test]
fn a_merged_patient_is_one_by_every_command_and_door_until_that_is_taken_back() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 81, 8);
    let archive = Archive::start(&folder.path().join("data"));
    for file in &files {
        archive.ok(&["import", "--quiet", &file.display().to_string()]);
    }
    archive.settled();
    let before = studies(&archive, "");
    let issuer = text(&answers(&archive, "/dicom-web/studies?includefield=00100021")[0], "00100021");
    let mut ids: Vec<&String> = before.values().collect();
    ids.sort();
    ids.dedup();
    let [prior, surviving, ..] = ids[..] else { panic!("two patients") };
    let of_both = before.values().filter(|id| [prior, surviving].contains(id)).count();
    let (one, other) = (format!("{issuer}|{prior}"), format!("{issuer}|{surviving}"));

    let merged = archive.ok(&["patient", "merge", &one, &other, "--why", "registered twice"]);
    let position = merged.trim().strip_prefix("merged at ").unwrap().to_owned();
    archive.settled();
    for id in [prior, surviving] {
        let found = studies(&archive, &format!("&PatientID={id}"));
        assert_eq!(found.len(), of_both);
        assert!(found.values().all(|id| id == surviving), "{found:?}");
    }
    let (study, _) = before.iter().find(|(_, id)| *id == prior).unwrap();
    for instance in answers(&archive, &format!("/dicom-web/studies/{study}/metadata")) {
        assert_eq!(&text(&instance, "00100020"), surviving);
        assert!(instance["04000561"]["Value"].is_array());
    }
    let refused = archive.command(&["patient", "merge", &other, &one, "--why", "the other way"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("was merged into the prior one"), "{error}");
    assert!(!error.contains(prior.as_str()), "{error}");
    let why = archive.ok(&["why", study]);
    assert!(why.contains(&format!("merged {one} into {other}: registered twice")), "{why}");
    let listed = archive.ok(&["patient", "list"]);
    assert!(listed.contains(&position) && !listed.contains(prior.as_str()), "{listed}");
    assert!(archive.ok(&["patient", "show", &other]).contains(&one));
    // A hold of the surviving patient is one of the merged.
    archive.ok(&["hold", "place", "--patient", surviving, "--reason", "trial"]);
    let held = archive.command(&["erasure", "request", "--study", study, "--reason", "trial"]);
    let error = String::from_utf8_lossy(&held.stderr).into_owned();
    assert!(!held.status.success() && error.contains("holds it"), "{error}");
    assert!(archive.ok(&["index", "verify"]).contains("equal"));

    archive.ok(&["patient", "revoke", &position, "--why", "two people"]);
    archive.settled();
    assert_eq!(studies(&archive, ""), before);
    assert!(archive.ok(&["patient", "show", &one]).contains("revoked"));
    assert!(archive.ok(&["index", "verify"]).contains("equal"));
    archive.stop();
}
