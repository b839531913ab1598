//! What happens to sites: they are killed in the middle of something, lose their disk or the room on it, their objects are
//! damaged, or they come back as they once were.

use crate::{
    disk_full::{MIB, SmallDisk, instance_of},
    load::Load,
    sites::{Sites, made, refused, rows, store, uids},
    sites_link::Link,
    stow::{Sent, data_set_of, data_set_over_http},
    support::{eventually, rounds, run},
};
use cairn_archive::Partition;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

fn is_there(sites: &Sites, at: &str, sent: &Sent) -> bool {
    !data_set_over_http(sites.at(at), sent.sop_instance_uid.as_ref().unwrap()).is_empty()
}

#[test]
fn sites_that_are_killed_in_the_middle_of_an_object_come_into_step_again() {
    let mut sites = Sites::start(&["east", "west"]);
    let mut acknowledged = made(120, 1);
    store(sites.at("east"), &acknowledged);
    let victims: [&[&'static str]; 3] = [&["west"], &["east"], &["west", "east"]];
    for (round, victims) in (0..).zip(victims) {
        let large: Vec<_> = (0..3).map(|n| instance_of(12_000 + 100 * round + 10 * n, 8 * MIB)).collect();
        sites.link("east", "west").hold_requests_after(10 * MIB as u64);
        store(sites.at("east"), &large);
        eventually("a transfer under way", || sites.link("east", "west").is_held().then_some(()));
        assert!(!sites.at_risk("east", "west").is_empty());
        victims.iter().for_each(|name| sites.kill(name));
        sites.link("east", "west").heal();
        if victims == ["west"] {
            // The source goes on without it.
            let more = made(121, 1);
            store(sites.at("east"), &more);
            acknowledged.extend(more);
        }
        victims.iter().for_each(|name| sites.start_site(name));
        acknowledged.extend(large);
        sites.whole(&acknowledged);
    }
    sites.stop();
}

#[test]
fn sites_that_are_killed_under_load_come_into_step_again() {
    let mut sites = Sites::start(&["east", "west"]);
    let mut acknowledged = Vec::new();
    for round in 0..rounds(2) {
        let victim = ["east", "west"][round as usize % 2];
        let load = |name: &str, seed| Load::start(sites.at(name).http, seed, 2);
        let loads = [load("east", 1_220 + 2 * round), load("west", 1_221 + 2 * round)];
        loads.iter().for_each(|load| load.goes_on(10));
        sites.kill(victim);
        acknowledged.extend(loads.into_iter().flat_map(Load::stop));
        sites.start_site(victim);
    }
    sites.whole(&acknowledged);
    sites.stop();
}

#[test]
fn what_is_lost_with_a_site_is_what_it_said_to_be_at_risk() {
    (0..rounds(1)).for_each(disaster);
}

fn disaster(round: u64) {
    let mut sites = Sites::start(&["east", "west"]);
    let load = Load::start(sites.at("east").http, 1_300 + round, 3);
    load.goes_on(20);
    // From now on it does not know what gets there, and then nothing does.
    sites.link("east", "west").hold_answers();
    load.goes_on(5);
    sites.link("east", "west").hold_requests();
    load.goes_on(5);
    let acknowledged = load.stop();
    let at_risk = sites.at_risk("east", "west");
    sites.kill("east");
    fs::remove_dir_all(&sites.site("east").data).unwrap();
    sites.at("west").settled();
    let (there_still, lost): (Vec<_>, Vec<_>) =
        acknowledged.into_iter().partition(|sent| is_there(&sites, "west", sent));
    println!("{} at risk, {} lost, {} there", at_risk.len(), lost.len(), there_still.len());
    assert!(!lost.is_empty() && uids(&lost).is_subset(&at_risk), "lost what was not at risk");
    sites.there("west", &there_still);
    // What it heard last it knows after a restart too.
    sites.stop_site("west");
    sites.start_site("west");
    let known = sites.status("west", "east");
    assert!(known.told_instances.is_some() && known.told_ago.is_some(), "{known:?}");
    // An empty log under its name is not it.
    sites.link("east", "west").heal();
    sites.start_site("east");
    refused(&sites, "west", "east", "the log of east lacks events of its own that are held here");
    refused(&sites, "east", "west", "this site's log lacks events of its own that west holds");
    sites.there("west", &there_still);
    sites.stop();
}

#[test]
fn a_peer_without_room_is_brought_everything_once_there_is_some() {
    let disk = SmallDisk::new(256);
    let mut sites = Sites::prepare(&["east", "west"]);
    let west = sites.site("west");
    (west.environment, west.within, west.data) =
        (SmallDisk::environment("16 MiB"), disk.within.clone(), disk.mounted.join("data"));
    west.expected = vec!["no room", "StorageFull", "No space left", "folding failed", "reserve"];
    sites.site("east").expected = vec!["a partition is not replicated"];
    for name in ["east", "west"] {
        sites.start_site(name);
    }
    let mut acknowledged: Vec<_> = (0..3).map(|number| instance_of(13_000 + 10 * number, MIB / 2)).collect();
    store(sites.at("east"), &acknowledged);
    sites.whole(&acknowledged);
    for round in 0..2 {
        disk.take("ballast", usize::MAX);
        let more: Vec<_> = (0..6).map(|number| instance_of(13_100 + 100 * round + 10 * number, MIB / 2)).collect();
        store(sites.at("east"), &more);
        eventually("a link that fails", || {
            let link = sites.status("east", "west").link;
            (link.starts_with("failing: ") && link.contains("room")).then_some(())
        });
        assert_eq!(sites.at_risk("east", "west"), uids(&more));
        acknowledged.extend(more);
        disk.give_back("ballast");
        sites.whole(&acknowledged);
    }
    sites.stop();
}

/// Changes one byte of a stored instance, where the store has it.
pub fn damage(data: &Path, sent: &Sent) {
    let data_set = data_set_of(&sent.file);
    let wanted = &data_set[data_set.len() / 2..][..64];
    for entry in fs::read_dir(data.join("objects")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("volume-") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, wanted) {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("the object is not in any volume");
}

#[test]
fn a_damaged_object_is_never_sent_and_holds_back_its_partition_alone() {
    let mut sites = Sites::start(&["east", "west"]);
    sites.between("east", "west", Link::cut);
    let studies: Vec<_> = (0..6).map(|study| cairn_synthetic::one_study(131, study)).collect();
    let files: Vec<_> = studies.concat().into_iter().map(|made| Sent::new(made.file, made.sop_instance_uid)).collect();
    let partition = |study: usize| Partition::of_study(studies[study][0].study_instance_uid.as_str(), 8);
    store(sites.at("east"), &files);
    sites.stop_site("east");
    let damaged = Sent::new(studies[2][1].file.clone(), studies[2][1].sop_instance_uid.clone());
    damage(&sites.site("east").data.clone(), &damaged);
    sites.site("east").expected = vec!["a partition is not replicated", "damaged"];
    sites.start_site("east");
    sites.between("east", "west", Link::heal);
    let beside: BTreeSet<String> = (0..studies.len())
        .filter(|study| partition(*study) == partition(2))
        .flat_map(|study| studies[study].iter().map(|made| made.sop_instance_uid.to_string()))
        .collect();
    let name = |sent: &Sent| sent.sop_instance_uid.as_ref().unwrap().to_string();
    eventually("all partitions but one", || sites.at_risk("east", "west").is_subset(&beside).then_some(()));
    eventually("what is amiss", || {
        let link = sites.status("east", "west").link;
        let number = format!("failing: partition {}: ", partition(2).0);
        (link.starts_with(&number) && link.contains("is damaged here")).then_some(())
    });
    // Others go on.
    let more = made(132, 3);
    let uids_of_more = uids(&more);
    store(sites.at("east"), &more);
    store(sites.at("west"), &made(133, 1));
    eventually("stores of other studies", || {
        sites.at("west").settled();
        more.iter().any(|sent| is_there(&sites, "west", sent)).then_some(())
    });
    eventually("the other direction", || (sites.status("west", "east").events == 0).then_some(()));
    // The rest of its partition waits behind it.
    eventually("all partitions but one", || {
        let partitions: BTreeSet<String> = rows(sites.at("east"), &["replication", "at-risk", "west"])
            .iter()
            .map(|row| row["Position"].as_str().unwrap().to_owned())
            .map(|position| position.rsplit_once('/').unwrap().0.to_owned())
            .collect();
        (partitions.len() == 1).then_some(())
    });
    let at_risk = sites.at_risk("east", "west");
    assert!(at_risk.contains(&name(&damaged)) && at_risk.is_subset(&(&beside | &uids_of_more)));
    assert_eq!(sites.status("east", "west").instances, at_risk.len() as u64);
    sites.at("west").settled();
    assert!(!is_there(&sites, "west", &damaged), "a damaged object was sent");
    assert_eq!(sites.at("west").metric("cairn_replication_objects_refused_total"), 0.0, "it does not leave the site");
    let got: Vec<_> = [files, more].concat().into_iter().filter(|sent| !at_risk.contains(&name(sent))).collect();
    sites.there("west", &got);
    eventually("what the survivor knows", || {
        (sites.status("west", "east").told_instances == Some(at_risk.len() as u64)).then_some(())
    });
    let verified =
        sites.at("east").command(&["replication", "verify", "--with", &format!("http://{}", sites.at("west").grpc)]);
    assert_eq!(verified.status.code(), Some(4), "{verified:?}");
    sites.stop();
}

fn copy(from: &Path, to: &Path) {
    run("cp", &["-a", &from.display().to_string(), &to.display().to_string()]);
}

/// Stops a site, keeps a copy of its data, and starts it again.
fn back_up(sites: &mut Sites, name: &'static str) {
    sites.stop_site(name);
    let (data, backup) = (sites.site(name).data.clone(), sites.folder.path().join("backup"));
    copy(&data, &backup);
    sites.start_site(name);
}

/// The site dies, and its data are those of the copy.
fn restore(sites: &mut Sites, name: &'static str) {
    sites.kill(name);
    let (data, backup) = (sites.site(name).data.clone(), sites.folder.path().join("backup"));
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
}

#[test]
fn a_peer_restored_from_a_backup_gets_again_what_it_had_of_others() {
    let mut sites = Sites::start(&["east", "west"]);
    let mut acknowledged = made(140, 1);
    let (first, rest) = acknowledged.split_at(acknowledged.len() / 2);
    let (first, rest, others) = (first.to_vec(), rest.to_vec(), made(141, 2));
    store(sites.at("east"), &first);
    sites.whole(&first);
    back_up(&mut sites, "west");
    let (lost, after) = rest.split_at(rest.len() / 2);
    store(sites.at("east"), lost);
    store(sites.at("east"), &others);
    sites.whole(&[&first[..], lost, &others[..]].concat());
    // Nothing happens meanwhile at the other site: nothing tells it but the peer itself.
    restore(&mut sites, "west");
    sites.start_site("west");
    store(sites.at("east"), after);
    acknowledged.extend(others);
    sites.whole(&acknowledged);
    sites.stop();
}

#[test]
fn a_site_restored_from_a_backup_without_all_that_it_had_taken_is_refused_until_its_new_life() {
    let mut sites = Sites::start(&["east", "west"]);
    let (before, lost, after) = (made(142, 1), made(143, 1), made(144, 1));
    store(sites.at("west"), &before);
    sites.whole(&before);
    back_up(&mut sites, "west");
    store(sites.at("west"), &lost);
    let all = [before.clone(), lost.clone()].concat();
    sites.whole(&all);
    restore(&mut sites, "west");
    // It goes on before anybody meets it: there are other events where others were.
    sites.between("east", "west", Link::cut);
    sites.start_site("west");
    store(sites.at("west"), &[&lost[..1], &after[..]].concat());
    sites.between("east", "west", Link::heal);
    refused(&sites, "east", "west", "the log of west lacks events of its own that are held here: it was restored");
    refused(&sites, "west", "east", "this site's log lacks events of its own that east holds: it was restored");
    // Neither takes the other's, and nothing is gone.
    store(sites.at("east"), &after[..1]);
    assert!(sites.at_risk("east", "west").is_superset(&uids(&after[..1])));
    assert!(sites.at_risk("west", "east").is_superset(&uids(&after)));
    for (name, files) in
        [("east", [&all[..], &after[..1]].concat()), ("west", [&before[..], &lost[..1], &after[..]].concat())]
    {
        sites.there(name, &files);
    }
    // An operator decides.
    sites.kill("west");
    let (refused, said) = renew(&sites, "west", &[]);
    assert!(refused == Some(2) && said.contains("east holds"), "{said}");
    let (renewed, said) = renew(&sites, "west", &["--yes", "west"]);
    assert!(renewed == Some(0) && said.contains("life 2 has begun"), "{said}");
    sites.start_site("west");
    sites.whole(&[&all[..], &after[..]].concat());
    let (twice, said) = {
        sites.kill("west");
        renew(&sites, "west", &["--yes", "west"])
    };
    assert!(twice == Some(0) && said.contains("nothing was done"), "{said}");
    sites.start_site("west");
    store(sites.at("west"), &made(145, 1));
    sites.whole(&[&all[..], &after[..], &made(145, 1)[..]].concat());
    sites.stop();
}

/// `cairn site renew` of a site that is down: exit status, and everything said.
fn renew(sites: &Sites, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let configuration = sites.folder.path().join(format!("{name}.toml"));
    let data = sites.folder.path().join(name);
    let mut command = std::process::Command::new(crate::support::cairn());
    command.args(["site", "renew", "--config"]).arg(configuration).arg("--data").arg(data).args(arguments);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}
