//! Objects that a disk has damaged come again from the other site, whichever of the two it was.

use crate::{
    sites::{Sites, made, rows, store},
    sites_disasters::damage,
    sites_link::Link,
    stow::{Sent, data_set_of, data_set_over_http},
    support::{Archive, eventually},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Damages an object of a site's, which is started again.
pub fn damage_at(sites: &mut Sites, name: &'static str, sent: &Sent) {
    sites.stop_site(name);
    damage(&sites.site(name).data.clone(), sent);
    sites.site(name).expected.push("damaged");
    sites.start_site(name);
    sites.at(name).settled();
}

/// Whether an instance of a study comes back byte for byte, in whatever the archive answers before it may break off.
pub fn is_right(archive: &Archive, study: &str, sent: &Sent) -> bool {
    let mut connection = TcpStream::connect(archive.http).unwrap();
    let uid = sent.sop_instance_uid.as_ref().unwrap();
    // HTTP/1.0: the body is as it is, without chunks.
    let request = format!(
        "GET /dicom-web/studies/{study} HTTP/1.0\r\nHost: {}\r\n\
         Accept: multipart/related; type=\"application/dicom\"; transfer-syntax=*\r\n\r\n",
        archive.http
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _broken_off = connection.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned();
    assert!(head.contains(" 200 ") || head.contains(" 500 "), "{uid}: {head}");
    memchr::memmem::find(&answer, &data_set_of(&sent.file)).is_some()
}

pub fn study_of(seed: u64) -> String {
    cairn_synthetic::studies(seed, 1).next().unwrap().study_instance_uid.to_string()
}

fn repaired(rows: &[Value], outcome: &str) -> Vec<String> {
    rows.iter().filter(|row| row["Outcome"] == outcome).map(|row| row["Object"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn damage_at_either_site_is_repaired_from_the_other() {
    let mut sites = Sites::start(&["east", "west"]);
    let files = made(141, 1);
    store(sites.at("east"), &files);
    sites.whole(&files);
    let study = study_of(141);
    for (name, other) in [("east", "west"), ("west", "east")] {
        damage_at(&mut sites, name, &files[1]);
        sites.in_step();
        let mended = rows(sites.at(name), &["replication", "repair", "--study", &study]);
        let [key] = &repaired(&mended, "repaired")[..] else { panic!("one of {mended:?}") };
        assert_eq!(repaired(&mended, "whole").len(), files.len() - 1, "{mended:?}");
        assert!(mended.iter().all(|row| row["Outcome"] == "whole" || row["From"] == other));
        files.iter().for_each(|sent| assert!(is_right(sites.at(name), &study, sent)));
        let metric = format!("cairn_replication_objects_repaired_total{{peer=\"{other}\"}}");
        assert_eq!(sites.at(name).metric(&metric), 1.0);
        assert_eq!(rows(sites.at(name), &["replication", "status"])[0]["ObjectsRepaired"], 1);
        let again = rows(sites.at(name), &["replication", "repair", "--object", key]);
        assert_eq!(repaired(&again, "whole"), std::slice::from_ref(key));
        // It lasts.
        sites.stop_site(name);
        sites.start_site(name);
        sites.whole(&files);
    }
    let unknown = sites.at("east").command(&["replication", "repair", "--study", "1.2.3.4"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    sites.stop();
}

#[test]
fn what_is_damaged_before_anybody_else_has_it_is_lost_until_it_is_sent_again() {
    let mut sites = Sites::start(&["east", "north", "west"]);
    // One of the others has it: it is repaired from there as soon as it is to go on.
    sites.between("east", "west", Link::cut);
    sites.between("north", "west", Link::cut);
    let files = made(142, 1);
    store(sites.at("east"), &files);
    eventually("one of the others has it", || (sites.status("east", "north").events == 0).then_some(()));
    damage_at(&mut sites, "east", &files[0]);
    sites.site("east").expected.push("is repaired");
    sites.link("east", "west").heal();
    sites.link("west", "east").heal();
    eventually("what was damaged goes on", || (sites.status("east", "west").events == 0).then_some(()));
    assert!(is_right(sites.at("east"), &study_of(142), &files[0]));
    sites.there("west", &files);

    // Nobody has it.
    sites.between("east", "west", Link::cut);
    sites.between("east", "north", Link::cut);
    let more = made(143, 1);
    store(sites.at("east"), &more);
    damage_at(&mut sites, "east", &more[0]);
    sites.site("east").expected.push("a partition is not replicated");
    let study = study_of(143);
    sites.between("east", "north", Link::heal);
    eventually("what is amiss", || {
        let link = sites.status("east", "north").link;
        (link.contains("is damaged here") && link.contains("no other site has it")).then_some(())
    });
    let output = sites.at("east").command(&["replication", "repair", "--study", &study, "-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((repaired(&told, "lost").len(), repaired(&told, "whole").len()), (1, more.len() - 1), "{told:?}");
    let uid = more[0].sop_instance_uid.as_ref().unwrap();
    sites.at("north").settled();
    assert!(data_set_over_http(sites.at("north"), uid).is_empty(), "a damaged object was sent");
    sites.stop();
}
