//! Which site has authority: taken when another is lost, given back in order, and never had by two.

use crate::{
    sites::{Sites, made, store},
    stow::{Sent, stow},
    support::{Archive, eventually, run},
};
use serde_json::Value;
use std::{fs, process::Command};

fn status(archive: &Archive) -> Value {
    serde_json::from_str(&archive.ok(&["site", "status", "-o", "json"])).unwrap()
}

/// Decides something, which must be done.
fn decide(archive: &Archive, arguments: &[&str], site: &str) -> Value {
    let rest = ["--reason", "a trial", "--yes", site, "-o", "json"];
    serde_json::from_str(&archive.ok(&[&["site"], arguments, &rest[..]].concat())).unwrap()
}

/// Waits until a site knows who has authority, and under which number.
fn knows(archive: &Archive, primary: &str, epoch: u64) {
    eventually(&format!("{primary} with epoch {epoch}"), || {
        let status = status(archive);
        (status["primary"] == primary && status["epoch"] == epoch).then_some(())
    });
}

/// C-ECHO under two titles.
fn echo(archive: &Archive, calling: &str, called: &str) -> bool {
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let mut command = Command::new("echoscu");
    command.args(["-aet", calling, "-aec", called, &host, &port]).env("TCP_NODELAY", "1");
    command.output().expect("echoscu: make deps").status.success()
}

fn store_as(archive: &Archive, calling: &str, called: &str, sites: &Sites, sent: &Sent) {
    let path = sites.folder.path().join("one.dcm");
    fs::write(&path, &sent.file).unwrap();
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    run("storescu", &["-xe", "-aet", calling, "-aec", called, &host, &port, path.to_str().unwrap()]);
}

const EAST: &str = "[dicom]\nae_title = \"EAST\"\naccept_unknown_callers = false\n\
    [ingest.default_profile]\nissuer_of_patient_id = \"HOSPITAL-EAST\"\n[ae.CT1]\n[ae.VIEWER]\naddress = \"127.0.0.1:9\"\n";
const WEST: &str = "[dicom]\nae_title = \"WEST\"\naccept_unknown_callers = false\n\
    [ingest.default_profile]\nissuer_of_patient_id = \"HOSPITAL-WEST\"\n[ae.MR1]\n";

#[test]
fn a_lost_site_is_taken_over_with_its_senders_and_takes_authority_back() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.site("east").configured = EAST;
    sites.site("west").configured = WEST;
    ["east", "west"].into_iter().for_each(|name| sites.start_site(name));
    sites.in_step();
    let before = made(91, 1);
    store(sites.at("east"), &before);
    assert_eq!(status(sites.at("west"))["epoch"], 0);
    assert_eq!(decide(sites.at("east"), &["promote"], "east")["primary"], "east");
    knows(sites.at("west"), "east", 1);
    // A sender of the other site is known, and under its own site's title it is not taken yet.
    eventually("east's senders at west", || echo(sites.at("west"), "CT1", "WEST").then_some(()));
    assert!(!echo(sites.at("west"), "CT1", "EAST") && !echo(sites.at("west"), "NOBODY", "WEST"));
    sites.in_step();

    sites.kill("east");
    eventually("the loss of east", || (sites.status("west", "east").link != "up").then_some(()));
    let west = sites.at("west");
    let unconfirmed = west.command(&["site", "promote", "--reason", "a trial"]);
    assert_eq!(unconfirmed.status.code(), Some(2), "{unconfirmed:?}");
    let said = String::from_utf8_lossy(&unconfirmed.stderr).into_owned();
    assert!(said.contains("west takes authority (epoch 2)") && said.contains("--yes west"), "{said}");
    assert_eq!(status(west)["epoch"], 1, "nothing was done");
    let promoted = decide(west, &["promote"], "west");
    assert_eq!((&promoted["primary"], &promoted["epoch"]), (&"west".into(), &2.into()));
    eventually("east's title at west", || echo(west, "CT1", "EAST").then_some(()));
    let meanwhile = made(92, 1);
    store_as(west, "CT1", "EAST", &sites, &meanwhile[0]);
    store(west, &meanwhile[1..]);
    // It is a patient of its own hospital still.
    let uid = format!("StudyInstanceUID={}", study_of(&meanwhile[0]));
    eventually("the study under east's issuer", || {
        let found = west.ok(&["query", "studies", "--key", &uid, "--include", "IssuerOfPatientID", "-o", "json"]);
        found.contains("HOSPITAL-EAST").then_some(())
    });

    sites.start_site("east");
    let (east, west) = (sites.at("east"), sites.at("west"));
    knows(east, "west", 2);
    eventually("the link to west", || (sites.status("east", "west").link == "up").then_some(()));
    let refused = east.command(&["site", "promote", "--reason", "a trial", "--yes", "east"]);
    assert_eq!(refused.status.code(), Some(1), "west has authority and answers: {refused:?}");
    let back = decide(east, &["failback"], "east");
    assert_eq!((&back["primary"], &back["epoch"]), (&"east".into(), &3.into()));
    knows(west, "east", 3);
    eventually("west that answers for itself alone", || (!echo(west, "CT1", "EAST")).then_some(()));
    assert!(echo(west, "CT1", "WEST") && echo(east, "MR1", "WEST"), "with authority a site answers for all");
    assert!(status(east)["promotions"].as_array().unwrap().iter().all(|promotion| promotion["void"] == false));
    sites.whole(&[before, meanwhile].concat());
    // What was decided is in the log: it is known at once after a restart.
    sites.stop_site("west");
    sites.start_site("west");
    knows(sites.at("west"), "east", 3);
    sites.stop();
}

fn study_of(sent: &Sent) -> String {
    let bytes = &sent.file;
    // (0020,000D) UI, Explicit VR Little Endian.
    let at = bytes.windows(6).position(|window| window == b"\x20\x00\x0d\x00UI").unwrap();
    let length = usize::from(bytes[at + 6]);
    String::from_utf8_lossy(&bytes[at + 8..at + 8 + length]).trim_end_matches('\0').to_owned()
}

#[test]
fn both_sites_have_authority_while_they_are_parted_and_agree_when_they_meet() {
    let sites = Sites::start(&["east", "west"]);
    let (east, west) = (sites.at("east"), sites.at("west"));
    decide(east, &["promote"], "east");
    knows(west, "east", 1);
    decide(east, &["read-only", "on", "--site", "west"], "east");
    eventually("west that is read-only", || (status(west)["read_only"] == true).then_some(()));
    let refused = west.command(&["site", "read-only", "on", "--site", "east", "--reason", "a trial", "--yes", "west"]);
    assert_eq!(refused.status.code(), Some(1), "west has no authority: {refused:?}");
    decide(east, &["read-only", "off", "--site", "west"], "east");
    eventually("west that takes instances", || (status(west)["read_only"] == false).then_some(()));
    sites.in_step();

    sites.between("east", "west", |link| link.cut());
    // Twice each, in turn: the one that is promoted last is west.
    assert_eq!(decide(west, &["promote", "--force"], "west")["epoch"], 2);
    decide(east, &["demote"], "east");
    assert_eq!(decide(east, &["promote"], "east")["epoch"], 2);
    decide(east, &["read-only", "on", "--site", "west"], "east");
    decide(west, &["demote"], "west");
    assert_eq!(decide(west, &["promote"], "west")["epoch"], 3);
    decide(west, &["read-only", "on", "--site", "east"], "west");
    let (at_east, at_west) = (made(93, 1), made(94, 1));
    store(east, &at_east);
    store(west, &at_west);
    assert_eq!(status(east)["read_only"], false, "it does not know yet");

    sites.between("east", "west", |link| link.heal());
    for archive in [east, west] {
        knows(archive, "west", 3);
    }
    eventually("east that is read-only", || (status(east)["read_only"] == true).then_some(()));
    eventually("both with the same history", || {
        let histories = [east, west].map(|archive| status(archive)["promotions"].clone());
        (histories[0] == histories[1]).then_some(())
    });
    let west_now = status(west);
    assert_eq!(west_now["read_only"], false, "east had no authority any more when it said otherwise");
    let void: Vec<_> = west_now["promotions"].as_array().unwrap().iter().filter(|of| of["void"] == true).collect();
    assert_eq!(void.len(), 1, "{void:?}");
    assert_eq!((&void[0]["site"], &void[0]["epoch"]), (&"east".into(), &2.into()));
    decide(west, &["read-only", "off", "--site", "east"], "west");
    sites.whole(&[at_east, at_west].concat());
    sites.stop();
}

#[test]
fn a_read_only_site_refuses_senders_and_takes_what_other_sites_bring() {
    let sites = Sites::start(&["east", "west"]);
    let (east, west) = (sites.at("east"), sites.at("west"));
    let files = made(95, 1);
    decide(west, &["read-only", "on"], "west");
    eventually("stores that are refused", || {
        let answer = stow(west.http, &[&files[0].file]).unwrap();
        (answer.status == 503 && answer.head.to_lowercase().contains("retry-after:")).then_some(())
    });
    let path = sites.folder.path().join("one.dcm");
    fs::write(&path, &files[0].file).unwrap();
    assert!(crate::disk_full::storescu(west, &path).contains("0xa700"));
    store(east, &files);
    sites.there("east", &files);
    eventually("what east took at west", || (sites.status("east", "west").events == 0).then_some(()));
    sites.there("west", &files);
    decide(west, &["read-only", "off"], "west");
    let more = made(96, 1);
    eventually("a store that is taken", || {
        matches!(stow(west.http, &[&more[0].file]).unwrap().status, 200 | 202).then_some(())
    });
    store(west, &more[1..]);
    sites.whole(&[files, more].concat());
    sites.stop();
}
