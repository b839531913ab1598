//! Three brokers, of which one and then two are lost.

use crate::{
    cluster::{Cluster, Size, engines},
    load::{Load, all_there},
    support::{directory, repository, rounds},
};
use std::{fs, path::PathBuf, process::Command};
use tempfile::TempDir;

/// Brokers of one test alone.
struct Brokers {
    folder: TempDir,
}

impl Brokers {
    fn start() -> Self {
        let brokers = Self { folder: directory() };
        brokers.tool(&["start", "kafka", "--brokers", "3"]);
        brokers
    }

    fn tool(&self, arguments: &[&str]) {
        let mut command = Command::new(repository().join("tools/engines"));
        let status = command.args(arguments).env("CAIRN_ENGINES_DIR", self.set()).status().unwrap();
        assert!(status.success(), "tools/engines {arguments:?}");
    }

    fn set(&self) -> PathBuf {
        self.folder.path().join("engines")
    }

    fn addresses(&self) -> String {
        let endpoints = fs::read_to_string(self.set().join("endpoints.env")).unwrap();
        endpoints.lines().find_map(|line| line.strip_prefix("CAIRN_TEST_KAFKA=")).unwrap().to_owned()
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let mut command = Command::new(repository().join("tools/engines"));
        let _best_effort = command.arg("wipe").env("CAIRN_ENGINES_DIR", self.set()).status();
    }
}

#[test]
fn stores_go_on_with_two_of_three_brokers_and_are_refused_with_one_until_another_is_back() {
    let _engines = engines();
    let brokers = Brokers::start();
    let addresses = brokers.addresses();
    let cluster = Cluster::start(
        Size::TWO,
        &[
            ("CAIRN__KAFKA__BROKERS", &addresses),
            ("CAIRN__KAFKA__REPLICATION_FACTOR", "3"),
            ("CAIRN__KAFKA__MIN_INSYNC_REPLICAS", "2"),
            ("CAIRN__KAFKA__APPEND_TIMEOUT", "5 s"),
            ("CAIRN__KAFKA__REQUEST_TIMEOUT", "2 s"),
        ],
    );
    for round in 0..rounds(1) {
        let [lost, other] = [0, 1].map(|next| format!("kafka-{}", (round + next) % 3 + 1));
        let load = Load::start(cluster.door().http, 400 + round, 3);
        load.goes_on(6);
        brokers.tool(&["kill", &lost]);
        load.goes_on(10);
        let refused_with_two = load.refused();
        brokers.tool(&["kill", &other]);
        load.is_refused();
        // No operator does anything but start what died; the other stays away.
        brokers.tool(&["start", &other]);
        load.goes_on(6);
        brokers.tool(&["start", &lost]);
        load.goes_on(6);
        let refused = load.refused();
        let acknowledged = load.stop();
        println!("{} acknowledged, {refused_with_two} refused with two brokers, {refused} in all", acknowledged.len());
        all_there(&cluster, &acknowledged);
    }
    cluster.stop(true);
}
