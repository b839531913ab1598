//! Two sites are compared: each difference has a name, and what is on its way is told from what will never come.

use crate::{
    sites::{Sites, made, rows, store, uids},
    sites_link::Link,
    support::{Archive, Start, directory},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// What `cairn replication verify` says of two archives that differ.
fn differences(at: &Archive, with: &Archive, more: &[&str]) -> Vec<Value> {
    let with = format!("http://{}", with.grpc);
    let arguments = [&["replication", "verify", "--with", &with, "-o", "json"], more].concat();
    let output = at.command(&arguments);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(rows: &[Value], column: &str) -> BTreeSet<String> {
    rows.iter().filter_map(|row| row[column].as_str()).map(str::to_owned).collect()
}

/// Of a verification that differs, what is only here and on its way, or is not.
fn all_are(rows: &[Value], only_at: &str, on_its_way: &str) {
    assert!(!rows.is_empty());
    for row in rows {
        let said = (&row["Differs"], &row["OnlyAt"], &row["OnItsWay"], &row["Tenant"]);
        assert_eq!(said, (&"events".into(), &only_at.into(), &on_its_way.into(), &"default".into()), "{row}");
    }
}

/// Study Instance UID of the first of the instances that are made of a seed.
fn study_of(seed: u64) -> String {
    cairn_synthetic::studies(seed, 1).next().unwrap().study_instance_uid.to_string()
}

#[test]
fn a_study_that_is_on_its_way_is_named_and_is_no_difference_once_it_came() {
    let sites = Sites::start(&["east", "west"]);
    let (east, west) = (sites.at("east"), sites.at("west"));
    let before = made(61, 2);
    store(east, &before);
    sites.in_step();
    sites.between("east", "west", Link::cut);
    let (of_east, of_west) = (made(62, 1), made(63, 1));
    store(east, &of_east);
    store(west, &of_west);
    [east, west].into_iter().for_each(Archive::settled);

    let found = differences(east, west, &[]);
    let of = |study: &str| found.iter().filter(|row| row["StudyInstanceUID"] == study).cloned().collect::<Vec<_>>();
    let (only_here, only_there) = (of(&study_of(62)), of(&study_of(63)));
    assert_eq!(only_here.len() + only_there.len(), found.len(), "and nothing else: {found:?}");
    all_are(&only_here, "here", "yes");
    all_are(&only_there, "there", "yes");
    assert_eq!(texts(&only_here, "SOPInstanceUID"), uids(&of_east));
    assert_eq!(texts(&only_there, "SOPInstanceUID"), uids(&of_west));
    // They are the events that are at risk.
    let at_risk = rows(east, &["replication", "at-risk", "west"]);
    assert_eq!(texts(&only_here, "Event"), texts(&at_risk, "Event"));
    assert_eq!(texts(&only_here, "Origin"), texts(&at_risk, "Position"));
    assert!(at_risk.iter().all(|row| row["Bytes"].is_u64()), "{at_risk:?}");
    // From the other side it is the other way round.
    let from_west = differences(west, east, &[]);
    let turned = from_west.iter().filter(|row| row["OnlyAt"] == "there").cloned().collect::<Vec<_>>();
    assert_eq!(texts(&turned, "Event"), texts(&only_here, "Event"));
    assert_eq!(differences(east, west, &["--limit", "2"]).len(), 2);

    sites.between("east", "west", Link::heal);
    sites.whole(&[before, of_east, of_west].concat());
    let with = format!("http://{}", west.grpc);
    let equal = rows(east, &["replication", "verify", "--with", &with]);
    assert_eq!((equal.len(), &equal[0]["StateDigest"]), (2, &equal[1]["StateDigest"]));
    assert_eq!(
        (&equal[0]["Site"], &equal[1]["Site"], &equal[0]["Studies"]),
        (&"east".into(), &"west".into(), &4.into())
    );
    sites.stop();
}

#[test]
fn two_lives_of_one_log_that_went_apart_really_differ() {
    let folder = directory();
    let start = |name: &str| Archive::start_with(&folder.path().join(name), Start::default());
    let (one, other) = (start("one"), start("other"));
    // The same places of a log of the same name have other events.
    let files = made(81, 1);
    store(&one, &files[..1]);
    store(&other, &files[1..2]);
    [&one, &other].into_iter().for_each(|archive| archive.settled());
    let found = differences(&one, &other, &[]);
    assert_eq!(texts(&found, "StudyInstanceUID"), BTreeSet::from([study_of(81)]));
    for (side, sent) in [("here", &files[..1]), ("there", &files[1..2])] {
        let of: Vec<_> = found.iter().filter(|row| row["OnlyAt"] == side).cloned().collect();
        all_are(&of, side, "no");
        assert_eq!(texts(&of, "SOPInstanceUID"), uids(sent));
    }
    [one, other].into_iter().for_each(Archive::stop);
}
