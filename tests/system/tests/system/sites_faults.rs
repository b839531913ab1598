//! What happens to links between sites while clients send: whatever it is, once it is over both sites have all.

use crate::{
    disk_full::{MIB, instance_of},
    load::Load,
    sites::{Sites, made, store, uids},
    sites_link::Link,
    support::{eventually, rounds},
};
use std::time::{Duration, Instant};

/// Two sites in step that both are sent to.
fn under_load(seed: u64) -> (Sites, [Load; 2]) {
    let sites = Sites::start(&["east", "west"]);
    let load = |site: &str, seed| Load::start(sites.at(site).http, seed, 2);
    let loads = [load("east", seed), load("west", seed + 1)];
    go_on(&loads, 5);
    (sites, loads)
}

fn go_on(loads: &[Load; 2], more: usize) {
    loads.iter().for_each(|load| load.goes_on(more));
}

/// Ends it all: everything is at both.
fn end(sites: Sites, loads: [Load; 2]) {
    sites.whole(&loads.map(Load::stop).concat());
    sites.stop();
}

/// Waits until both sites say that they do not get on.
fn both_fail(sites: &Sites) {
    for (at, of) in [("east", "west"), ("west", "east")] {
        eventually("a link that fails", || sites.status(at, of).link.starts_with("failing: ").then_some(()));
    }
}

#[test]
fn while_a_link_is_cut_what_is_at_risk_is_listed_and_its_age_grows() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.site("east").rpo_target = "1 s";
    for name in ["east", "west"] {
        sites.start_site(name);
    }
    let before = made(100, 1);
    store(sites.at("east"), &before);
    sites.whole(&before);
    sites.between("east", "west", Link::cut);
    let begun = Instant::now();
    let load = Load::start(sites.at("east").http, 101, 2);
    load.goes_on_unharmed(20);
    let since = load.stop();
    let ended = Instant::now();
    let status = sites.status("east", "west");
    assert_eq!(status.instances, since.len() as u64);
    assert!(status.age <= begun.elapsed(), "{status:?}");
    assert_eq!(sites.at_risk("east", "west"), uids(&since));
    let over = || sites.at("east").command(&["replication", "status"]).status.code();
    eventually("a recovery point over its target", || (over() == Some(7)).then_some(()));
    let least = ended.elapsed();
    let later = sites.status("east", "west");
    assert!(later.age > status.age && later.age >= least && later.age <= begun.elapsed(), "{later:?}");
    both_fail(&sites);
    let metric = sites.at("east").metric("cairn_replication_at_risk_instances{peer=\"west\"}");
    assert_eq!(metric, since.len() as f64);
    // What the survivor would know: nothing was at risk when it last heard, and how long ago that was.
    let survivor = sites.status("west", "east");
    assert_eq!(survivor.told_instances, Some(0));
    let told_ago = survivor.told_ago.expect("it was told before");
    assert!(told_ago >= least && told_ago <= begun.elapsed() + Duration::from_secs(2), "{told_ago:?}");
    // A restart forgets nothing of it.
    sites.kill("east");
    sites.start_site("east");
    assert_eq!(sites.at_risk("east", "west"), uids(&since));
    eventually("figures of before the restart", || {
        (sites.status("east", "west").instances == since.len() as u64).then_some(())
    });
    assert!(sites.status("east", "west").age >= later.age);
    // It heals while stores go on.
    let load = Load::start(sites.at("east").http, 102, 2);
    load.goes_on_unharmed(5);
    sites.between("east", "west", Link::heal);
    load.goes_on_unharmed(5);
    sites.whole(&[before, since, load.stop()].concat());
    eventually("a report that is new", || {
        (sites.status("west", "east").told_ago? < Duration::from_secs(1)).then_some(())
    });
    sites.stop();
}

#[test]
fn a_link_over_which_nothing_comes_is_given_up_and_taken_up_again() {
    let (sites, loads) = under_load(103);
    // Shorter than anyone waits: it all comes late.
    sites.between("east", "west", Link::stall);
    go_on(&loads, 5);
    sites.between("east", "west", Link::heal);
    go_on(&loads, 5);
    sites.between("east", "west", Link::stall);
    both_fail(&sites);
    go_on(&loads, 5);
    sites.between("east", "west", Link::heal);
    end(sites, loads);
}

#[test]
fn connections_that_are_reset_again_and_again_cost_nothing() {
    let (sites, loads) = under_load(105);
    for _ in 0..12 * rounds(1) {
        go_on(&loads, 2);
        sites.between("east", "west", Link::reset);
    }
    end(sites, loads);
}

#[test]
fn a_long_way_costs_time_alone() {
    let (sites, loads) = under_load(107);
    sites.between("east", "west", |link| link.delay(Duration::from_millis(500)));
    go_on(&loads, 20);
    let large = instance_of(1070, 4 * MIB);
    store(sites.at("east"), std::slice::from_ref(&large));
    let all = [loads.map(Load::stop).concat(), vec![large]].concat();
    // It stays as long as it is.
    sites.whole(&all);
    sites.stop();
}

#[test]
fn a_byte_that_changes_on_the_way_is_never_stored() {
    let (mut sites, loads) = under_load(109);
    sites.site("east").expected = vec!["is not what was said when it arrived"];
    let large = instance_of(1090, 8 * MIB);
    sites.link("east", "west").flip_after(MIB as u64);
    store(sites.at("east"), std::slice::from_ref(&large));
    eventually("a bit that is flipped", || sites.link("east", "west").has_flipped().then_some(()));
    let uid = large.sop_instance_uid.as_ref().unwrap();
    eventually("what is sent again", || (!sites.at_risk("east", "west").contains(uid.as_str())).then_some(()));
    sites.there("west", std::slice::from_ref(&large));
    // As an object that is not what was said, or as a connection that is none.
    let refused = sites.at("west").metric("cairn_replication_objects_refused_total");
    assert!(refused >= 1.0 || sites.at("east").log().contains("replication does not get on"));
    end(sites, loads);
}

#[test]
fn one_direction_that_is_cut_stops_neither_clients_nor_the_other_direction() {
    let (sites, loads) = under_load(111);
    // It is not heard: nothing of it is there, and what it is told it hears.
    sites.link("east", "west").hold_requests();
    eventually("a link that fails", || sites.status("east", "west").link.starts_with("failing: ").then_some(()));
    go_on(&loads, 5);
    let of_west = made(113, 1);
    store(sites.at("west"), &of_west);
    eventually("the other direction", || sites.at_risk("west", "east").is_disjoint(&uids(&of_west)).then_some(()));
    assert!(sites.status("east", "west").instances > 0);
    sites.link("east", "west").heal();
    go_on(&loads, 5);
    // It is heard and hears no answer: it can't know what is there.
    sites.link("east", "west").hold_answers();
    eventually("a link that fails", || sites.status("east", "west").link.starts_with("failing: ").then_some(()));
    go_on(&loads, 5);
    let of_east = made(114, 1);
    store(sites.at("east"), &of_east);
    assert!(sites.at_risk("east", "west").is_superset(&uids(&of_east)));
    sites.link("east", "west").heal();
    sites.whole(&[loads.map(Load::stop).concat(), of_west, of_east].concat());
    sites.stop();
}
