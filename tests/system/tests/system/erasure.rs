//! Holds and erasures: what is held stays, what is erased is nowhere, and nothing is destroyed before every site has confirmed.

use crate::{
    sites::{Sites, made, rows, store},
    sites_link::Link,
    sites_repair::study_of,
    stow::{Sent, data_set_over_http},
    support::{Archive, Start, directory, eventually},
};
use serde_json::Value;
use std::{path::Path, time::Duration};

const SOON: &str = "[lifecycle.erasure]\ndelay = \"300ms\"\nlook_interval = \"50ms\"\n";

/// An archive that erases after a while.
fn started(data: &Path, delay: &str) -> Archive {
    let environment = vec![
        ("CAIRN__LIFECYCLE__ERASURE__DELAY", delay.to_owned()),
        ("CAIRN__LIFECYCLE__ERASURE__LOOK_INTERVAL", "50ms".to_owned()),
    ];
    Archive::start_with(data, Start { environment, ..Start::default() })
}

/// Asks that something be erased; gives the erasure.
fn requested(archive: &Archive, arguments: &[&str]) -> String {
    archive.ok(&[&["erasure", "request", "--reason", "a trial"], arguments].concat()).trim().to_owned()
}

/// How far an erasure is.
fn erasure(archive: &Archive, id: &str) -> Value {
    rows(archive, &["erasure", "list"]).into_iter().find(|row| row["Erasure"] == id).expect("it is known")
}

/// Waits until an erasure took effect and these sites have destroyed what it names.
fn destroyed(archive: &Archive, id: &str, sites: &str) -> Value {
    eventually("what is erased is destroyed", || {
        let row = rows(archive, &["erasure", "list"]).into_iter().find(|row| row["Erasure"] == id)?;
        (row["DestroyedAt"] == sites).then_some(row)
    })
}

/// What can be shown of an erasure, which is as it should be.
fn report(archive: &Archive, id: &str) -> Value {
    serde_json::from_str(&archive.ok(&["erasure", "report", id, "--form", "json"])).unwrap()
}

fn is_there(archive: &Archive, sent: &Sent) -> bool {
    !data_set_over_http(archive, sent.sop_instance_uid.as_ref().unwrap()).is_empty()
}

fn are_there(archive: &Archive, files: &[Sent]) -> bool {
    archive.settled();
    files.iter().all(|sent| is_there(archive, sent))
}

fn are_nowhere(archive: &Archive, files: &[Sent], study: &str) {
    archive.settled();
    assert!(files.iter().all(|sent| !is_there(archive, sent)));
    assert!(rows(archive, &["query", "studies", "--key", &format!("StudyInstanceUID={study}")]).is_empty());
    let path = format!("/dicom-web/studies/{study}");
    assert_eq!(archive.get(&path, "multipart/related; type=\"application/dicom\"; transfer-syntax=*").status, 404);
}

fn fails(archive: &Archive, arguments: &[&str], why: &str) {
    let output = archive.command(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {output:?}");
}

#[test]
fn what_is_erased_is_nowhere_after_a_kill_and_a_rebuild_and_is_stored_anew_when_it_comes_again() {
    let folder = directory();
    let archive = started(folder.path(), "300ms");
    let (files, others) = (made(201, 1), made(202, 1));
    store(&archive, &files);
    store(&archive, &others);
    archive.settled();
    let study = study_of(201);
    let id = requested(&archive, &["--study", &study]);
    eventually("it took effect", || (erasure(&archive, &id)["Stage"] == "erased").then_some(()));
    archive.kill();

    let archive = started(folder.path(), "300ms");
    let row = destroyed(&archive, &id, "main");
    assert_eq!((&row["Erased"], &row["Kept"]), (&files.len().into(), &0.into()), "{row}");
    are_nowhere(&archive, &files, &study);
    assert!(are_there(&archive, &others));
    let shown = report(&archive, &id);
    assert_eq!(shown["Erased"].as_array().unwrap().len(), files.len(), "{shown}");
    assert!(
        shown["Erased"].as_array().unwrap().iter().all(|one| one["InObjectStore"] == false && one["InIndex"] == false)
    );
    assert_eq!(shown["Destroyed"][0]["Site"], "main", "{shown}");
    assert!(archive.ok(&["erasure", "report", &id]).contains("## Kept: 0 versions"));
    // Nobody calls gone what is erased.
    archive.ok(&["fixity", "scrub"]);
    archive.ok(&["index", "rebuild"]);
    archive.ok(&["index", "verify"]);
    are_nowhere(&archive, &files, &study);

    store(&archive, &files[..1]);
    assert!(are_there(&archive, &files[..1]));
    archive.settled();
    assert_eq!(rows(&archive, &["query", "instances", "--key", &format!("StudyInstanceUID={study}")]).len(), 1);
    archive.ok(&["fixity", "scrub"]);
    archive.ok(&["index", "verify"]);
    archive.stop();
}

#[test]
fn what_is_held_withdrawn_or_sent_again_meanwhile_stays() {
    let folder = directory();
    let archive = started(folder.path(), "1s");
    let (first, second) = (made(203, 1), made(204, 1));
    store(&archive, &first);
    store(&archive, &second);
    archive.settled();
    let (study, other) = (study_of(203), study_of(204));

    // Held before it is asked for, by the patient's ID.
    let key = format!("StudyInstanceUID={study}");
    let patient = rows(&archive, &["query", "studies", "--key", &key])[0]["PatientID"].as_str().unwrap().to_owned();
    let hold = archive.ok(&["hold", "place", "--patient", &patient, "--reason", "a court asks"]).trim().to_owned();
    assert_eq!(rows(&archive, &["hold", "list"])[0]["Hold"], hold.as_str());
    let request = ["erasure", "request", "--reason", "a trial", "--study", &study];
    fails(&archive, &request, &hold);
    archive.ok(&["hold", "release", &hold, "--reason", "it has decided"]);
    assert!(rows(&archive, &["hold", "list"]).is_empty());

    // Withdrawn in time.
    let id = requested(&archive, &["--study", &study]);
    archive.ok(&["erasure", "withdraw", &id, "--reason", "not this one"]);
    assert_eq!(erasure(&archive, &id)["Stage"], "withdrawn");

    // Held after it was asked for, by a query.
    let id = requested(&archive, &["--study", &study]);
    archive.ok(&["hold", "place", "--query", &key, "--reason", "another court"]);
    // Sent again after it was asked for.
    let again = requested(&archive, &["--study", &other]);
    store(&archive, &second[..1]);
    let row = destroyed(&archive, &id, "main");
    assert_eq!((&row["Erased"], &row["Kept"]), (&0.into(), &first.len().into()), "{row}");
    let shown = report(&archive, &id);
    assert!(shown["Kept"].as_array().unwrap().iter().all(|kept| kept["Because"] == "held"), "{shown}");
    assert!(are_there(&archive, &first), "what was held stays");
    let row = destroyed(&archive, &again, "main");
    assert_eq!((&row["Erased"], &row["Kept"]), (&(second.len() - 1).into(), &1.into()), "{row}");
    let because = &report(&archive, &again)["Kept"][0]["Because"];
    assert!(because == "received-again" || because == "stored-again", "{because}");
    assert!(are_there(&archive, &second[..1]), "what was sent again stays");
    fails(&archive, &["erasure", "withdraw", &again, "--reason", "too late"], "took effect");
    archive.ok(&["fixity", "scrub"]);
    archive.ok(&["index", "verify"]);
    archive.stop();
}

fn promote(sites: &Sites, name: &str) {
    sites.at(name).ok(&["site", "promote", "--reason", "a trial", "--yes", name]);
}

#[test]
fn nothing_is_destroyed_before_every_site_has_confirmed_and_a_hold_at_any_of_them_counts() {
    let mut sites = Sites::prepare(&["east", "west"]);
    ["east", "west"].into_iter().for_each(|name| {
        sites.site(name).configured = SOON;
        sites.start_site(name);
    });
    sites.in_step();
    let (held, free) = (made(205, 1), made(206, 1));
    store(sites.at("east"), &held);
    store(sites.at("west"), &free);
    sites.whole(&[&held[..], &free[..]].concat());
    let (of_held, of_free) = (study_of(205), study_of(206));
    let request = ["erasure", "request", "--reason", "a trial", "--study", &of_free];
    fails(sites.at("east"), &request, "no site has authority");
    promote(&sites, "east");
    sites.in_step();
    fails(sites.at("west"), &request, "no authority");

    // A hold at one side of the cut, an erasure at the other.
    sites.between("east", "west", Link::cut);
    sites.at("west").ok(&["hold", "place", "--study", &of_held, "--reason", "a court asks"]);
    let first = requested(sites.at("east"), &["--study", &of_held]);
    let second = requested(sites.at("east"), &["--study", &of_free]);
    for id in [&first, &second] {
        eventually("east has confirmed", || (erasure(sites.at("east"), id)["Confirmed"] == "east").then_some(()));
    }
    std::thread::sleep(Duration::from_secs(1));
    for id in [&first, &second] {
        let row = erasure(sites.at("east"), id);
        assert_eq!((&row["Stage"], &row["WaitsFor"]), (&"requested".into(), &"west".into()), "{row}");
    }
    assert!(are_there(sites.at("east"), &held) && are_there(sites.at("east"), &free));

    sites.between("east", "west", Link::heal);
    for (id, erased, kept) in [(&first, 0, held.len()), (&second, free.len(), 0)] {
        for name in ["east", "west"] {
            let row = destroyed(sites.at(name), id, "east west");
            assert_eq!((&row["Erased"], &row["Kept"]), (&erased.into(), &kept.into()), "{name}: {row}");
        }
    }
    sites.whole(&held);
    for name in ["east", "west"] {
        are_nowhere(sites.at(name), &free, &of_free);
        assert_eq!(report(sites.at(name), &second)["ReadAtSite"], name);
        sites.at(name).ok(&["fixity", "scrub"]);
    }
    // What comes again is stored anew, everywhere.
    store(sites.at("west"), &free[..1]);
    sites.whole(&free[..1]);
    sites.stop();
}

#[test]
fn a_site_that_is_filled_later_has_the_facts_and_not_what_is_erased() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.site("east").peers = Vec::new();
    sites.site("east").configured = SOON;
    sites.start_site("east");
    let (gone, kept) = (made(207, 1), made(208, 1));
    store(sites.at("east"), &gone);
    store(sites.at("east"), &kept);
    sites.at("east").settled();
    let study = study_of(207);
    let id = requested(sites.at("east"), &["--study", &study]);
    destroyed(sites.at("east"), &id, "east");

    sites.stop_site("east");
    sites.site("east").peers = vec!["west"];
    ["east", "west"].into_iter().for_each(|name| sites.start_site(name));
    sites.whole(&kept);
    are_nowhere(sites.at("west"), &gone, &study);
    destroyed(sites.at("west"), &id, "east west");
    let shown = report(sites.at("west"), &id);
    assert_eq!(shown["Erased"].as_array().unwrap().len(), gone.len(), "{shown}");
    sites.at("west").ok(&["fixity", "scrub"]);
    sites.stop();
}
