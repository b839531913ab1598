//! What a disk does to stored bytes is found, never served, said as an event, and made whole again where there is another
//! copy.

use crate::{
    sites::{Sites, made, store},
    sites_disasters::damage,
    sites_link::Link,
    sites_repair::{damage_at, is_right, study_of},
    stow::Sent,
    support::{Archive, Start, directory, eventually},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a command says that is to end with an exit status.
fn said(archive: &Archive, status: i32, arguments: &[&str]) -> Vec<Value> {
    let output = archive.command(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    lines(&String::from_utf8(output.stdout).unwrap())
}

/// Types of the events about an instance's study.
fn events_of(archive: &Archive, study: &str, kind: &str) -> usize {
    let all = ["events", "tail", "--from", "beginning", "--no-follow", "--study", study, "-o", "json"];
    lines(&archive.ok(&all)).iter().filter(|event| event["Type"] == kind).count()
}

fn uid(sent: &Sent) -> &str {
    sent.sop_instance_uid.as_ref().unwrap().as_str()
}

#[test]
fn a_flipped_bit_is_found_by_reading_everything_and_stays_said_until_it_is_whole() {
    let folder = directory();
    let archive = Archive::start(folder.path());
    let files = made(141, 1);
    store(&archive, &files);
    archive.settled();
    let whole = &said(&archive, 0, &["fixity", "scrub"])[0];
    assert_eq!((&whole["RoundObjects"], &whole["DamagedObjects"]), (&files.len().into(), &0.into()), "{whole}");
    assert!(said(&archive, 0, &["fixity", "report"]).is_empty());
    archive.stop();

    damage(folder.path(), &files[1]);
    let mut archive = Archive::start(folder.path());
    archive.expect_in_log("damaged");
    let found = &said(&archive, 4, &["fixity", "scrub"])[0];
    assert_eq!((&found["RoundDamaged"], &found["RoundRepaired"]), (&1.into(), &0.into()), "{found}");
    let study = study_of(141);
    let [one] = &said(&archive, 4, &["fixity", "report"])[..] else { panic!("one is damaged") };
    assert_eq!(one["SOPInstanceUID"], uid(&files[1]), "{one}");
    assert_eq!((&one["Damage"], &one["FoundBy"]), (&"bytes".into(), &"scrub".into()), "{one}");
    assert!(!is_right(&archive, &study, &files[1]), "damaged bytes are never served");
    assert!(is_right(&archive, &study, &files[0]), "others are");
    assert_eq!(archive.metric("cairn_fixity_objects_damaged_total{damage=\"bytes\"}"), 1.0);
    archive.stop();

    // It stays known, and is one event however often it is come upon.
    let mut archive = Archive::start(folder.path());
    archive.expect_in_log("damaged");
    said(&archive, 4, &["fixity", "scrub"]);
    assert_eq!(said(&archive, 4, &["fixity", "status"])[0]["DamagedObjects"], 1);
    assert_eq!(events_of(&archive, &study, "cairn.object.damaged.v1"), 1);
    archive.stop();

    // The disk gives it back.
    damage(folder.path(), &Sent::new(flipped(&files[1]), files[1].sop_instance_uid.clone().unwrap()));
    let mut archive = Archive::start(folder.path());
    archive.expect_in_log("damaged");
    said(&archive, 0, &["fixity", "scrub"]);
    assert!(is_right(&archive, &study, &files[1]));
    assert_eq!(events_of(&archive, &study, "cairn.object.repaired.v1"), 1);
    archive.settled();
    archive.ok(&["index", "verify"]);
    archive.stop();
}

/// The file as [`damage`] leaves it, so that it finds the place again.
fn flipped(sent: &Sent) -> Vec<u8> {
    let data_set = crate::stow::data_set_of(&sent.file);
    let middle = sent.file.len() - data_set.len() + data_set.len() / 2;
    let mut file = sent.file.clone();
    file[middle] ^= 1;
    file
}

#[test]
fn damage_is_repaired_from_another_site_by_whoever_comes_upon_it() {
    let mut sites = Sites::start(&["east", "west"]);
    let files = made(141, 1);
    store(sites.at("east"), &files);
    sites.whole(&files);
    let study = study_of(141);

    // Reading everything.
    damage_at(&mut sites, "east", &files[0]);
    sites.in_step();
    let scrubbed = &said(sites.at("east"), 0, &["fixity", "scrub"])[0];
    assert_eq!((&scrubbed["RoundDamaged"], &scrubbed["RoundRepaired"]), (&1.into(), &1.into()), "{scrubbed}");
    assert!(is_right(sites.at("east"), &study, &files[0]));

    // Somebody who wants it.
    damage_at(&mut sites, "west", &files[1]);
    sites.in_step();
    assert!(!is_right(sites.at("west"), &study, &files[1]), "damaged bytes are never served");
    eventually("it is whole again", || is_right(sites.at("west"), &study, &files[1]).then_some(()));
    let metric = "cairn_fixity_objects_repaired_total{source=\"site\"}";
    eventually("it is said", || (sites.at("west").metric(metric) == 1.0).then_some(()));

    // Both chains of events are at both sites.
    sites.whole(&files);
    for site in ["east", "west"] {
        assert_eq!(events_of(sites.at(site), &study, "cairn.object.damaged.v1"), 2, "{site}");
        assert_eq!(events_of(sites.at(site), &study, "cairn.object.repaired.v1"), 2, "{site}");
    }
    sites.stop();
}

#[test]
fn damage_that_nobody_can_repair_is_repaired_once_somebody_can() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.site("east").configured = "[lifecycle.fixity]\nrepair_interval = \"300ms\"\n";
    ["east", "west"].iter().for_each(|name| sites.start_site(name));
    sites.in_step();
    let files = made(163, 1);
    store(sites.at("east"), &files);
    sites.whole(&files);
    sites.between("east", "west", Link::cut);
    damage_at(&mut sites, "east", &files[0]);
    let found = said(sites.at("east"), 4, &["fixity", "scrub"]);
    assert_eq!(found[0]["DamagedObjects"], 1, "{found:?}");
    sites.between("east", "west", Link::heal);
    eventually("it is whole again", || damaged(sites.at("east")).is_empty().then_some(()));
    assert!(is_right(sites.at("east"), &study_of(163), &files[0]));
    sites.whole(&files);
    sites.stop();
}

/// What is damaged now.
fn damaged(archive: &Archive) -> Vec<Value> {
    let output = archive.command(&["fixity", "report", "-o", "json"]);
    lines(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_is_damaged_and_sent_again_is_stored_again_and_repairs_the_first() {
    let folder = directory();
    let archive = Archive::start(folder.path());
    let files = made(141, 1);
    store(&archive, &files);
    archive.stop();
    damage(folder.path(), &files[1]);
    let mut archive = Archive::start(folder.path());
    archive.expect_in_log("damaged");
    let study = study_of(141);
    // Nothing is known of the damage yet: what is sent again is a repeat, until somebody comes upon it.
    assert!(!is_right(&archive, &study, &files[1]));
    eventually("the damage is known", || (damaged(&archive).len() == 1).then_some(()));
    archive.settled();
    store(&archive, &files);
    archive.settled();
    assert!(is_right(&archive, &study, &files[1]), "what came again is shown");
    assert_eq!(events_of(&archive, &study, "cairn.instance.stored.v1"), files.len() + 1);
    assert_eq!(events_of(&archive, &study, "cairn.instance.received-again.v1"), files.len() - 1);
    // The first copy is whole again too, from the second.
    let read = &said(&archive, 0, &["fixity", "scrub"])[0];
    assert_eq!((&read["RoundDamaged"], &read["RoundRepaired"]), (&1.into(), &1.into()), "{read}");
    assert_eq!(archive.metric("cairn_fixity_objects_repaired_total{source=\"object\"}"), 1.0);
    archive.settled();
    let of_study = format!("StudyInstanceUID={study}");
    let found = archive.ok(&["query", "instances", "-k", &of_study, "-o", "json"]);
    assert_eq!(found.lines().count(), files.len(), "nothing is found twice: {found}");
    archive.ok(&["index", "verify"]);
    archive.stop();
}

#[test]
fn what_is_damaged_is_had_again_from_a_second_directory_and_what_is_erased_leaves_it_too() {
    let folder = directory();
    let (data, copies) = (folder.path().join("data"), folder.path().join("copies"));
    let start = || {
        let environment = vec![
            ("CAIRN__COPIES__TO", "directory".to_owned()),
            ("CAIRN__COPIES__DIRECTORY", copies.display().to_string()),
            ("CAIRN__LIFECYCLE__COPIES__LOOK_INTERVAL", "50ms".to_owned()),
            ("CAIRN__LIFECYCLE__ERASURE__DELAY", "100ms".to_owned()),
            ("CAIRN__LIFECYCLE__ERASURE__LOOK_INTERVAL", "50ms".to_owned()),
        ];
        Archive::start_with(&data, Start { environment, ..Start::default() })
    };
    let archive = start();
    let files = made(142, 1);
    store(&archive, &files);
    archive.settled();
    eventually("everything is copied", || {
        let copied = archive.metric("cairn_copies_made_total") >= files.len() as f64;
        (copied && said(&archive, 0, &["fixity", "status"])[0]["CopiesBehindEvents"] == 0).then_some(())
    });
    archive.stop();
    assert!(found_in(&data.join("objects"), &files[0]).is_some() && found_in(&copies, &files[0]).is_some());

    damage(&data, &files[0]);
    let mut archive = start();
    archive.expect_in_log("damaged");
    let found = &said(&archive, 0, &["fixity", "scrub"])[0];
    assert_eq!((&found["RoundDamaged"], &found["RoundRepaired"]), (&1.into(), &1.into()), "{found}");
    let study = study_of(142);
    assert!(files.iter().all(|sent| is_right(&archive, &study, sent)));
    assert_eq!(archive.metric("cairn_fixity_objects_repaired_total{source=\"copy\"}"), 1.0);

    let id = archive.ok(&["erasure", "request", "--reason", "a trial", "--study", &study]).trim().to_owned();
    eventually("it is destroyed", || {
        let rows = said(&archive, 0, &["erasure", "list"]);
        rows.iter().any(|row| row["Erasure"] == id && row["DestroyedAt"] == "main").then_some(())
    });
    archive.stop();
    for store in [data.join("objects"), copies] {
        assert_eq!(files.iter().find_map(|sent| found_in(&store, sent)), None, "its bytes are in no volume");
    }
}

/// The first file under a directory that has a part of an instance's data set.
fn found_in(directory: &Path, sent: &Sent) -> Option<PathBuf> {
    let data_set = crate::stow::data_set_of(&sent.file);
    let part = &data_set[data_set.len() / 2..][..64];
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| match path.is_dir() {
        true => found_in(&path, sent),
        false => std::fs::read(&path).unwrap().windows(part.len()).any(|window| window == part).then_some(path),
    })
}
