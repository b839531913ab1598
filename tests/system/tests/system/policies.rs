//! Policies: what is due is erased in its time, what is held or withdrawn stays, and nothing is done where more is due than the
//! policy's bound.

use crate::{
    sites::{made, rows, store},
    stow::{Sent, data_set_over_http},
    support::{Archive, Start, directory, eventually},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// An archive that erases soon after it is asked to, and runs policies often.
fn started(data: &Path) -> Archive {
    let environment = vec![
        ("CAIRN__LIFECYCLE__ERASURE__DELAY", "2s".to_owned()),
        ("CAIRN__LIFECYCLE__ERASURE__LOOK_INTERVAL", "50ms".to_owned()),
        ("CAIRN__LIFECYCLE__POLICIES__INTERVAL", "200ms".to_owned()),
        ("CAIRN__LIFECYCLE__POLICIES__LOOK_INTERVAL", "50ms".to_owned()),
    ];
    Archive::start_with(data, Start { environment, ..Start::default() })
}

/// Studies by modality: the first two of one that has so many, and one of another.
fn chosen(archive: &Archive) -> ([String; 2], String, String) {
    let mut by_modality: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(archive, &["query", "studies", "--key", "StudyInstanceUID=", "--key", "ModalitiesInStudy="]) {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        by_modality.entry(text("ModalitiesInStudy")).or_default().push(text("StudyInstanceUID"));
    }
    let (modality, studies) = by_modality.iter().find(|(_, studies)| studies.len() > 1).unwrap();
    let other = by_modality.iter().find(|(other, _)| *other != modality).unwrap().1[0].clone();
    ([studies[0].clone(), studies[1].clone()], other, modality.clone())
}

fn is_there(archive: &Archive, files: &[Sent], study: &str) -> bool {
    let key = format!("StudyInstanceUID={study}");
    let listed = !rows(archive, &["query", "studies", "--key", &key]).is_empty();
    let path = format!("/dicom-web/studies/{study}");
    let status = archive.get(&path, "multipart/related; type=\"application/dicom\"; transfer-syntax=*").status;
    assert_eq!(listed, status == 200, "{study}");
    // What is there is what was sent.
    let sent = files.iter().filter_map(|sent| sent.sop_instance_uid.as_ref());
    assert!(sent.map(|uid| data_set_over_http(archive, uid).len()).all(|versions| versions <= 1));
    listed
}

fn show(archive: &Archive, name: &str) -> Value {
    serde_json::from_str(&archive.ok(&["policy", "show", name, "-o", "json"])).unwrap()
}

/// The last line of a forecast, and those before it by study.
fn what_if(archive: &Archive, arguments: &[&str]) -> (BTreeMap<String, Value>, Value) {
    let mut lines = rows(archive, &[&["policy", "what-if"], arguments].concat());
    let sums = lines.pop().unwrap();
    let by_study = |line: Value| (line["StudyInstanceUID"].as_str().unwrap().to_owned(), line);
    (lines.into_iter().map(by_study).collect(), sums)
}

#[test]
fn a_policy_erases_what_it_is_about_in_its_time_and_nothing_else() {
    let folder = directory();
    let archive = started(folder.path());
    let files = made(211, 8);
    store(&archive, &files);
    archive.settled();
    let ([first, second], other, modality) = chosen(&archive);
    let hold = archive.ok(&["hold", "place", "--study", &second, "--reason", "a court asks"]).trim().to_owned();
    let expression = format!("'{modality}' in modalities && study_uid in ['{first}', '{second}', '']");

    // Looking ahead changes nothing, and says what would become of each.
    let (studies, sums) = what_if(&archive, &["--where", &expression]);
    assert_eq!((&sums["Matching"], &sums["Due"], &sums["Held"]), (&2.into(), &1.into(), &1.into()), "{sums}");
    assert_eq!((&studies[&first]["Fate"], &sums["BytesFreed"]), (&"due".into(), &studies[&first]["Bytes"]));
    assert_eq!((&studies[&second]["Fate"], &studies[&second]["BecauseOf"]), (&"held".into(), &hold.as_str().into()));

    let adopt = ["policy", "adopt", "trial", "--where", &expression, "--reason", "a trial"];
    let unbounded = archive.command(&adopt);
    let said = String::from_utf8_lossy(&unbounded.stderr).into_owned();
    assert!(!unbounded.status.success() && said.contains("without a bound"), "{said}");
    let unusable = archive.command(&["policy", "what-if", "--where", "colour == 'red'"]);
    assert!(String::from_utf8_lossy(&unusable.stderr).contains("there is no colour"), "{unusable:?}");

    assert_eq!(archive.ok(&[&adopt[..], &["--most", "5"]].concat()).trim(), "1");
    let gone = eventually("it is erased", || {
        let row =
            rows(&archive, &["erasure", "list"]).into_iter().find(|row| row["StudyInstanceUID"] == first.as_str())?;
        (row["DestroyedAt"] == "main").then_some(row)
    });
    assert_eq!((&gone["By"], &gone["Kept"]), (&"policy:trial".into(), &0.into()), "{gone}");
    archive.settled();
    assert!(!is_there(&archive, &files, &first) && is_there(&archive, &files, &second));
    assert!(is_there(&archive, &files, &other));
    archive.ok(&["index", "verify"]);
    archive.ok(&["policy", "withdraw", "trial", "--reason", "the trial is over"]);
    assert!(rows(&archive, &["policy", "list"]).is_empty());
    assert_eq!(rows(&archive, &["policy", "list", "--all"])[0]["State"], "withdrawn");
    archive.stop();
}

#[test]
fn what_a_policy_asked_for_can_be_withdrawn_and_is_left_alone_also_after_a_restart() {
    let folder = directory();
    let archive = started(folder.path());
    let files = made(212, 2);
    store(&archive, &files);
    archive.settled();
    let all = rows(&archive, &["query", "studies", "--key", "StudyInstanceUID="]);
    let studies: Vec<&str> = all.iter().map(|row| row["StudyInstanceUID"].as_str().unwrap()).collect();

    // More is due than the bound: nothing is done.
    let adopt = ["policy", "adopt", "all", "--where", "versions > 0", "--reason", "a trial"];
    archive.ok(&[&adopt[..], &["--most", "1"]].concat());
    eventually("the policy is halted", || (show(&archive, "all")["Halted"] == "too-many").then_some(()));
    assert!(rows(&archive, &["erasure", "list"]).is_empty());
    let exposed = String::from_utf8(archive.get("/metrics", "*/*").body).unwrap();
    assert!(exposed.lines().any(|line| line.starts_with("cairn_policy_halted{") && line.ends_with("} 1")), "{exposed}");

    archive.ok(&[&adopt[..], &["--most", "2", "--delay", "1h"]].concat());
    let asked = eventually("it is asked", || {
        let asked = rows(&archive, &["erasure", "list"]);
        (asked.len() == 2).then_some(asked)
    });
    for one in &asked {
        archive.ok(&["erasure", "withdraw", one["Erasure"].as_str().unwrap(), "--reason", "not yet"]);
    }
    eventually("it is left alone", || (show(&archive, "all")["LeftAlone"] == 2).then_some(()));
    archive.kill();

    let archive = started(folder.path());
    let shown = show(&archive, "all");
    assert_eq!((&shown["Version"], &shown["Most"]), (&2.into(), &2.into()), "{shown}");
    let (_, sums) = what_if(&archive, &["all"]);
    assert_eq!((&sums["LeftAlone"], &sums["Due"]), (&2.into(), &0.into()), "{sums}");
    let before = shown["LastRun"].clone();
    eventually("it ran again", || (show(&archive, "all")["LastRun"] != before).then_some(()));
    assert_eq!(rows(&archive, &["erasure", "list"]).len(), 2);
    assert!(studies.iter().all(|study| is_there(&archive, &files, study)));
    archive.stop();
}
