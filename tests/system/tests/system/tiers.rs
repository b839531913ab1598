//! A hot and a cold store: what was moved is given as before, also after a kill in the middle, and while the cold store is away
//! all else goes on.

use crate::{
    sites::{made, rows, store},
    stow::{Sent, data_set_over_http},
    support::{Archive, Start, directory, eventually},
};
use serde_json::Value;
use std::{fs, path::Path};

fn started(folder: &Path, more: &[(&'static str, &str)]) -> Archive {
    let cold = folder.join("cold").display().to_string();
    let mut environment = vec![
        ("CAIRN__TIERS__COLD", "directory".to_owned()),
        ("CAIRN__TIERS__DIRECTORY", cold),
        ("CAIRN__TIERS__OPEN_PAUSE", "100ms".to_owned()),
        ("CAIRN__LIFECYCLE__TIERING__LOOK_INTERVAL", "50ms".to_owned()),
        ("CAIRN__LIFECYCLE__TIERING__RETRY_PAUSE", "200ms".to_owned()),
        ("CAIRN__LIFECYCLE__POLICIES__LOOK_INTERVAL", "50ms".to_owned()),
        ("CAIRN__LIFECYCLE__ERASURE__DELAY", "1s".to_owned()),
        ("CAIRN__LIFECYCLE__ERASURE__LOOK_INTERVAL", "50ms".to_owned()),
    ];
    environment.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Archive::start_with(&folder.join("data"), Start { environment, ..Start::default() })
}

/// Both stores, and what was moved.
fn status(archive: &Archive) -> (Value, Value, Value) {
    let lines: [Value; 3] = rows(archive, &["tier", "status"]).try_into().unwrap();
    let [hot, cold, moved] = lines;
    (hot, cold, moved)
}

fn studies(archive: &Archive) -> Vec<String> {
    let all = rows(archive, &["query", "studies", "--key", "StudyInstanceUID="]);
    all.iter().map(|row| row["StudyInstanceUID"].as_str().unwrap().to_owned()).collect()
}

fn data_sets(archive: &Archive, files: &[Sent]) -> Vec<Vec<Vec<u8>>> {
    files.iter().map(|sent| data_set_over_http(archive, sent.sop_instance_uid.as_ref().unwrap())).collect()
}

/// InstanceAvailability of a study.
fn availability(archive: &Archive, study: &str) -> String {
    archive.settled();
    let key = format!("StudyInstanceUID={study}");
    let found = rows(archive, &["query", "studies", "--key", &key, "--key", "InstanceAvailability="]);
    found[0]["InstanceAvailability"].as_str().unwrap().to_owned()
}

fn nothing_waits(archive: &Archive) {
    eventually("nothing waits to be moved", || rows(archive, &["tier", "queue"]).is_empty().then_some(()));
}

fn get_study(archive: &Archive, study: &str) -> (u16, String) {
    let path = format!("/dicom-web/studies/{study}");
    let answer = archive.get(&path, "multipart/related; type=\"application/dicom\"; transfer-syntax=*");
    (answer.status, answer.head.to_lowercase())
}

#[test]
fn what_is_moved_is_given_as_before_and_comes_back_and_is_erased_from_both() {
    let folder = directory();
    let archive = started(folder.path(), &[]);
    let files = made(301, 3);
    store(&archive, &files);
    archive.settled();
    let (all, before) = (studies(&archive), data_sets(&archive, &files));
    // Both by a policy, which does not move back what is recalled.
    let which = format!("study_uid in ['{}', '{}']", all[0], all[1]);
    let told = rows(&archive, &["policy", "what-if", "--action", "move", "--where", &which]);
    assert_eq!((told.len(), &told[2]["Due"]), (3, &2.into()), "{told:?}");
    archive
        .ok(&["policy", "adopt", "old", "--action", "move", "--where", &which, "--most", "2", "--reason", "a trial"]);
    eventually("both are moved", || (status(&archive).2["StudiesMoved"] == 2).then_some(()));
    nothing_waits(&archive);
    let (_, cold, moved) = status(&archive);
    assert_eq!((&cold["State"], &moved["StudiesMoved"]), (&"reachable".into(), &2.into()), "{cold} {moved}");
    assert_eq!(cold["UsedBytes"], moved["BytesMoved"], "{cold} {moved}");
    assert!(moved["BytesMoved"].as_u64().unwrap() > 0);
    assert_eq!(
        (availability(&archive, &all[0]), availability(&archive, &all[2])),
        ("NEARLINE".into(), "ONLINE".into())
    );
    let near = rows(&archive, &["query", "studies", "--key", "InstanceAvailability=NEARLINE"]);
    assert_eq!(near.len(), 2, "{near:?}");
    assert_eq!(data_sets(&archive, &files), before);
    let told = archive.ok(&["why", &all[0]]);
    assert!(told.contains("cold object store"), "{told}");
    // What damages an object or loses it would be found.
    archive.ok(&["fixity", "scrub"]);
    eventually("everything is read", || {
        let round: Value = serde_json::from_str(&archive.ok(&["fixity", "status", "-o", "json"])).ok()?;
        (round["LastWholeRound"] != Value::Null).then_some(())
    });
    assert!(rows(&archive, &["fixity", "report"]).is_empty());

    let key = format!("StudyInstanceUID={}", all[0]);
    assert_eq!(archive.ok(&["tier", "prefetch", "--query", &key]).trim(), "1");
    nothing_waits(&archive);
    assert_eq!(availability(&archive, &all[0]), "ONLINE");
    assert_eq!(data_sets(&archive, &files), before);
    archive.ok(&["erasure", "request", "--study", &all[1], "--reason", "a trial"]);
    eventually("it is destroyed", || {
        (rows(&archive, &["erasure", "list"]).first()?["DestroyedAt"] == "main").then_some(())
    });
    assert_eq!(status(&archive).1["UsedBytes"], 0);
    archive.ok(&["index", "verify"]);
    archive.stop();
}

#[test]
fn a_kill_in_the_middle_of_a_move_loses_nothing_and_the_move_goes_on() {
    let folder = directory();
    // After the first object the move would wait for minutes.
    let slowly = ("CAIRN__LIFECYCLE__TIERING__BYTES_PER_SECOND_MAX", "1KiB");
    let archive = started(folder.path(), &[slowly, ("CAIRN__LIFECYCLE__TIERING__OBJECTS_AT_ONCE", "1")]);
    let files = made(302, 2);
    store(&archive, &files);
    archive.settled();
    let (all, before) = (studies(&archive), data_sets(&archive, &files));
    archive.ok(&["tier", "move", "--study", &all[0], "--study", &all[1]]);
    eventually("something is moved", || (status(&archive).2["ObjectsMoved"].as_u64()? > 0).then_some(()));
    archive.kill();

    let archive = started(folder.path(), &[]);
    archive.settled();
    assert_eq!(data_sets(&archive, &files), before);
    nothing_waits(&archive);
    assert_eq!(data_sets(&archive, &files), before);
    assert_eq!(status(&archive).0["UsedBytes"], 0);
    archive.stop();
}

#[test]
fn while_the_cold_store_is_away_all_else_goes_on() {
    let folder = directory();
    let (cold, unmounted) = (folder.path().join("cold"), folder.path().join("unmounted"));
    let archive = started(folder.path(), &[]);
    let files = made(303, 2);
    store(&archive, &files);
    archive.settled();
    let (all, before) = (studies(&archive), data_sets(&archive, &files));
    archive.ok(&["tier", "move", "--study", &all[0]]);
    nothing_waits(&archive);
    archive.stop();

    // Its disk is not mounted: there is an empty place.
    fs::rename(&cold, &unmounted).unwrap();
    fs::create_dir(&cold).unwrap();
    let mut archive = started(folder.path(), &[]);
    archive.expect_in_log("cold store");
    archive.expect_in_log("cold object store");
    archive.settled();
    let told = archive.command(&["tier", "status"]);
    assert_eq!(told.status.code(), Some(4), "{told:?}");
    let (answered, head) = get_study(&archive, &all[0]);
    assert!(answered == 503 && head.contains("retry-after"), "{head}");
    assert_eq!(get_study(&archive, &all[1]).0, 200);
    eventually("queries tell so", || (availability(&archive, &all[0]) == "OFFLINE").then_some(()));
    assert_eq!(availability(&archive, &all[1]), "ONLINE");
    store(&archive, &made(304, 1));
    // What was read in vain is to be recalled, which is in vain too.
    eventually("it can't be recalled", || {
        let first = rows(&archive, &["tier", "queue"]).first()?.clone();
        (first["State"] == "failed" && first["By"] == "retrieval").then_some(())
    });
    assert!(rows(&archive, &["fixity", "report"]).is_empty(), "what is away is not damaged");

    fs::remove_dir(&cold).unwrap();
    fs::rename(&unmounted, &cold).unwrap();
    nothing_waits(&archive);
    assert_eq!(data_sets(&archive, &files), before);
    assert_eq!(status(&archive).1["UsedBytes"], 0);
    archive.stop();
}
