//! The index store is away, and processes of the index are frozen, late or gone: stores don't notice.

use crate::{
    cluster::{Cluster, OwnEngines, Size, engines},
    load::{Load, all_there},
    support::{Archive, away_for, eventually, rounds},
};
use std::{process::Command, time::Instant};

/// Queries over CQL that give up soon.
pub const IMPATIENT: [(&str, &str); 2] = [("CAIRN__CQL__DEADLINE", "3 s"), ("CAIRN__CQL__REQUEST_TIMEOUT", "1 s")];

/// Status of a query over all studies.
pub fn query(cluster: &Cluster) -> u16 {
    cluster.door().get("/dicom-web/studies?limit=1", "application/dicom+json").status
}

/// By QIDO-RS, and by C-FIND.
pub fn queries_fail_cleanly(cluster: &Cluster) {
    eventually("a query that is refused", || match query(cluster) {
        503 => Some(()),
        status => {
            assert_eq!(status, 200, "clean failures alone");
            None
        }
    });
    let door = cluster.door();
    let mut find = Command::new("findscu");
    find.args(["-v", "-S", "-aec", "CAIRN", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"]);
    let output = find.arg(door.dicom.ip().to_string()).arg(door.dicom.port().to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("OutOfResources") || said.contains("0xa700"), "{said}");
}

pub fn queries_recover(cluster: &Cluster) {
    eventually("a query that is answered", || (query(cluster) == 200).then_some(()));
}

/// Events that it has folded and those that it has still to fold.
fn behind(index: &Archive) -> f64 {
    index.metric("cairn_projection_lag_events{projection=\"index\"}")
}

/// Every generation filled anew from the log equals the serving one.
pub fn equal(cluster: &Cluster) {
    let verified = cluster.process("index-0").ok(&["index", "verify"]);
    assert!(verified.contains("equal"), "{verified}");
}

/// As many instances are stored as come in the time that something is away, at least 20.
pub fn stores_meanwhile(load: &Load) {
    let begun = Instant::now();
    load.goes_on_unharmed(20);
    while begun.elapsed() < away_for() {
        load.goes_on_unharmed(1);
    }
}

#[test]
fn the_index_store_halts_and_dies_and_stores_go_on_all_the_time() {
    let engines = OwnEngines::take();
    let cluster = Cluster::start(Size::TWO, &IMPATIENT);
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 500 + round, 3);
        load.goes_on(6);
        queries_recover(&cluster);
        for (away, back) in [("pause", "resume"), ("kill", "start")] {
            engines.tool(away, "cassandra");
            queries_fail_cleanly(&cluster);
            stores_meanwhile(&load);
            engines.tool(back, "cassandra");
            queries_recover(&cluster);
            load.goes_on(3);
        }
        all_there(&cluster, &load.stop());
    }
    equal(&cluster);
    for index in cluster.of_role("index") {
        let log = index.log();
        let (away, back) =
            ["the index store is away", "the index store answers again"].map(|text| log.matches(text).count()).into();
        let times = usize::try_from(2 * rounds(1)).unwrap();
        assert!(away == back && (1..=times).contains(&away), "said once each time: {away}, {back} in {times}");
    }
    cluster.stop(true);
}

#[test]
fn a_frozen_index_process_harms_nobody_and_catches_up_and_its_late_writes_change_no_answer() {
    let _engines = engines();
    // The shortest that brokers allow: others take its partitions while it is frozen.
    let cluster = Cluster::start(Size::TWO, &[("CAIRN__KAFKA__SESSION_TIMEOUT", "6 s")]);
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 530 + round, 3);
        load.goes_on(6);
        let (zombie, other) = (cluster.process("index-1"), cluster.process("index-0"));
        let before = zombie.memory();
        zombie.freeze();
        let frozen = Instant::now();
        stores_meanwhile(&load);
        // The other answers, and goes on until it has folded all that the frozen one had.
        queries_recover(&cluster);
        let stored = load.any();
        while frozen.elapsed().as_secs() < 8 {
            load.goes_on_unharmed(1);
        }
        eventually("the other process at the end of the log", || (behind(other) < 50.0).then_some(()));
        zombie.thaw();
        let thawed = Instant::now();
        // While stores go on.
        eventually("a thawed process near the end of the log", || (behind(zombie) < 50.0).then_some(()));
        let (after, took) = (zombie.memory(), thawed.elapsed());
        assert!(after < before + (64 << 20), "memory went from {before} to {after}");
        load.goes_on(6);
        let acknowledged = load.stop();
        println!(
            "frozen for {:?}, caught up in {took:?}, {} -> {} MiB, {} acknowledged",
            thawed - frozen,
            before >> 20,
            after >> 20,
            acknowledged.len()
        );
        assert!(acknowledged.contains(&stored));
        all_there(&cluster, &acknowledged);
        let digest = |name: &str| cluster.process(name).ok(&["index", "status", "-o", "json"]);
        let field = |text: &str, name: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()[name].clone();
        let (zombies, others) = (digest("index-1"), digest("index-0"));
        assert!(!field(&others, "StateDigest").is_null(), "{others}");
        assert_eq!(field(&zombies, "StateDigest"), field(&others, "StateDigest"), "{zombies} {others}");
    }
    equal(&cluster);
    cluster.stop(true);
}

#[test]
fn without_any_index_process_stores_go_on_and_queries_are_right_once_one_is_back() {
    let _engines = engines();
    let mut cluster = Cluster::start(Size { ingest: 2, index: 2, retrieval: 1, lifecycle: 0 }, &[]);
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 560 + round, 3);
        load.goes_on(6);
        for name in ["index-0", "index-1"] {
            cluster.kill(name);
        }
        queries_fail_cleanly(&cluster);
        stores_meanwhile(&load);
        cluster.start_process("index-0");
        queries_recover(&cluster);
        let acknowledged = load.stop();
        cluster.start_process("index-1");
        all_there(&cluster, &acknowledged);
    }
    equal(&cluster);
    cluster.stop(true);
}
