use super::*;
use cairn_archive::{Incarnation, Offset, Partition, PositionVector};
use cairn_service_api::{
    index::{IndexStatus, StateDigest},
    replication::{Held, ReplicationStatus, Risk},
    schedule::Schedule,
    site::SiteStatus,
};

const RPO: Duration = Duration::from_secs(60);
const NOW_MS: u64 = 1_767_225_600_000;

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn says(name: &str) -> SendersConfigured {
    let entity = |title: &str| ApplicationEntity { title: title.into(), ..ApplicationEntity::default() };
    SendersConfigured {
        site: name.into(),
        ae_titles: vec![name.to_uppercase()],
        application_entities: vec![entity("BOTH"), entity(&format!("CT-{name}"))],
        defaults: Some(ApplicationEntity::default()),
        ..SendersConfigured::default()
    }
}

fn facts(own: &str, other: &str) -> Facts {
    let end = |partition| ((site(own), Incarnation(1), Partition(partition)), Offset(5));
    let log_end = PositionVector((0..8).map(end).collect());
    let peer = PeerStatus {
        site: site(other),
        addresses: Vec::new(),
        link: Link::Up,
        answered_at_ms: None,
        risk: Risk::default(),
        rpo_target: RPO,
        schedule: Schedule::default(),
        objects_repaired: 0,
        events_delivered: 0,
        objects_sent: 0,
        bytes_sent: 0,
        told: None,
    };
    Facts {
        site: SiteStatus {
            site: site(own),
            version: "1.2.3".into(),
            at_ms: NOW_MS,
            epoch: 4,
            primary: Some(site("east")),
            read_only: false,
            dead: Vec::new(),
            promotions: Vec::new(),
            senders: vec![says("east"), says("west")],
        },
        replication: ReplicationStatus {
            site: site(own),
            incarnation: Incarnation(1),
            at_ms: NOW_MS,
            own: Held::default(),
            available_bytes: None,
            peers: vec![peer],
        },
        index: IndexStatus { log_end, fold_version: 3, ..IndexStatus::default() },
        digest: StateDigest { fold_version: 3, events: [1; 32], state: [2; 32], studies: 9 },
        refuses: None,
        conflicts: BTreeMap::new(),
        clock_off_ms: 3,
    }
}

/// Both sites as they should be, but for a change at each; the checks that are not good.
fn found(original: impl FnOnce(&mut Facts), standby: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Finding, String)> {
    let (mut east, mut west) = (facts("east", "west"), facts("west", "east"));
    original(&mut east);
    standby(&mut west);
    let bad = all(&east, &west, RPO).into_iter().filter(|check| check.finding != Finding::Good);
    bad.map(|check| (check.name, check.finding, check.what)).collect()
}

fn nothing(_: &mut Facts) {}

#[track_caller]
fn refused(found: &[(&'static str, Finding, String)], check: &str, because: &str) {
    let [(name, finding, what)] = found else { panic!("{found:?}") };
    assert_eq!((*name, *finding), (check, Finding::Refused));
    assert!(what.contains(because), "{what}");
}

fn senders_of<'a>(facts: &'a mut Facts, by: &str) -> &'a mut SendersConfigured {
    facts.site.senders.iter_mut().find(|senders| senders.site == by).unwrap()
}

#[test]
fn sites_that_are_as_they_should_be_may() {
    assert!(found(nothing, nothing).is_empty());
    assert!(may(&all(&facts("east", "west"), &facts("west", "east"), RPO)));
}

#[test]
fn a_site_that_has_no_authority_is_not_drilled() {
    let elsewhere = |facts: &mut Facts| facts.site.primary = Some(site("west"));
    refused(&found(elsewhere, elsewhere), "authority", "west has it");
    refused(&found(nothing, elsewhere), "authority", "do not know the same");
    let given_up = |facts: &mut Facts| facts.site.primary = None;
    refused(&found(given_up, given_up), "authority", "given up");
    let never = |facts: &mut Facts| (facts.site.primary, facts.site.epoch) = (None, 0);
    let never = found(never, never);
    assert!(never.len() == 1 && never[0].1 == Finding::Note, "{never:?}");
}

#[test]
fn links_that_are_not_up_refuse_it() {
    let paused = |facts: &mut Facts| facts.replication.peers[0].link = Link::Paused;
    refused(&found(paused, nothing), "links", "east to west: paused");
    refused(&found(nothing, paused), "links", "west to east: paused");
    refused(&found(nothing, |facts| facts.replication.peers.clear()), "links", "east is no peer of west");
}

#[test]
fn what_is_at_risk_over_the_objective_refuses_it() {
    let risk = |age_ms: u64| {
        move |facts: &mut Facts| {
            let oldest_ms = Some(NOW_MS - age_ms);
            facts.replication.peers[0].risk = Risk { events: 3, instances: 2, bytes: 4096, oldest_ms };
        }
    };
    assert!(found(risk(60_000), nothing).is_empty());
    refused(&found(risk(60_001), nothing), "recovery point", "3 events, 2 instances, 4.0 KiB");
}

#[test]
fn senders_that_would_be_treated_otherwise_refuse_it() {
    let change = |facts: &mut Facts, by: &str| {
        senders_of(facts, by).application_entities[0].issuer_of_patient_id = Some("A".into());
    };
    let everywhere = |facts: &mut Facts| change(facts, "west");
    refused(&found(everywhere, everywhere), "senders", "BOTH differs in issuer_of_patient_id");
    // Not heard of there yet.
    let late = found(everywhere, nothing);
    assert!(late[0].2.contains("what west says now is not known"), "{late:?}");
    let defaults = |facts: &mut Facts| {
        senders_of(facts, "east").defaults = Some(ApplicationEntity { confirmed_sites: Some(1), ..Default::default() });
    };
    let (found_of_defaults, confirmed) = (found(defaults, defaults), "defaults for senders differ in confirmed_sites");
    refused(&found_of_defaults[..1], "senders", confirmed);
    assert_eq!((found_of_defaults[1].0, found_of_defaults[1].1), ("confirmation", Finding::Note));
    let unknown = |facts: &mut Facts| senders_of(facts, "east").unknown_callers_accepted = true;
    refused(&found(unknown, unknown), "senders", "only one of them takes");
    let silent = |facts: &mut Facts| facts.site.senders.retain(|senders| senders.site == "east");
    refused(&found(silent, silent), "senders", "west never said");
    // Each may have senders of its own, and titles of its own.
    let more = |facts: &mut Facts| senders_of(facts, "west").application_entities.truncate(1);
    assert!(found(more, more).is_empty());
}

#[test]
fn a_site_that_is_not_whole_refuses_it() {
    refused(&found(nothing, |facts| facts.site.read_only = true), "takes instances", "west: is read-only");
    refused(&found(|facts| facts.refuses = Some("less room".into()), nothing), "takes instances", "east: less room");
    refused(&found(|facts| facts.index.lag_events = 4, nothing), "index", "4 events behind");
    refused(&found(nothing, |facts| facts.index.parked = 1), "incomplete", "1 events parked");
    refused(&found(nothing, |facts| facts.index.log_end.0.clear()), "partitions", "8 and 0");
    refused(&found(nothing, |facts| facts.index.fold_version = 4), "versions", "fold 3 and 4");
}

#[test]
fn conflicts_that_one_of_them_does_not_list_refuse_it_unless_they_are_on_their_way() {
    let conflict = |facts: &mut Facts| facts.conflicts = BTreeMap::from([("a b".into(), 2)]);
    assert!(found(conflict, conflict).is_empty());
    refused(&found(conflict, nothing), "conflicts", "1 are not the same");
    refused(&found(nothing, conflict), "conflicts", "1 are not the same");
    let under_way = |facts: &mut Facts| {
        conflict(facts);
        facts.replication.peers[0].risk = Risk { events: 1, oldest_ms: Some(NOW_MS), ..Risk::default() };
    };
    let found = found(under_way, nothing);
    assert!(found.len() == 1 && found[0].1 == Finding::Note, "{found:?}");
}

#[test]
fn what_is_to_be_known_hinders_nothing() {
    for found in [
        found(nothing, |facts| facts.digest.state = [9; 32]),
        found(nothing, |facts| facts.clock_off_ms = 60_000),
        found(nothing, |facts| facts.site.version = "1.2.4".into()),
    ] {
        assert!(found.len() == 1 && found[0].1 == Finding::Note, "{found:?}");
    }
}
