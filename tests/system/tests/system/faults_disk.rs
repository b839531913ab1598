//! The disk under one engine is full to the last byte, while clients send: nothing acknowledged is lost, and once there is
//! room and the engine runs again all goes on without a restart of ours.

use crate::{
    cluster::{Cluster, Size, engines},
    disk_full::SmallDisk,
    faults_index::{IMPATIENT, equal, queries_recover, query, stores_meanwhile},
    faults_s3::{found, is_read, refused_by_storescu},
    load::{Load, all_there},
    support::{program_within, repository, rounds},
};
use std::{collections::BTreeMap, fs};

/// One engine of a test alone, with all that it writes on a small disk.
struct OnDisk {
    engine: &'static str,
    disk: SmallDisk,
}

impl OnDisk {
    fn start(engine: &'static str, mebibytes: u32) -> Self {
        let on = Self { engine, disk: SmallDisk::new(mebibytes) };
        on.tool("start");
        on
    }

    fn try_tool(&self, verb: &str) -> bool {
        let mut tool = program_within(&self.disk.within, &repository().join("tools/engines"));
        tool.args([verb, self.engine]).env("CAIRN_ENGINES_DIR", self.disk.mounted.join("engines"));
        tool.status().unwrap().success()
    }

    fn tool(&self, verb: &str) {
        assert!(self.try_tool(verb), "tools/engines {verb} {}", self.engine);
    }

    /// Where it listens, and how to be let in.
    fn endpoints(&self) -> BTreeMap<String, String> {
        let written = fs::read_to_string(self.disk.outside("engines/endpoints.env")).unwrap();
        written.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
    }

    /// No byte is left, from now on.
    fn fill(&self) {
        self.disk.take("ballast", usize::MAX);
    }

    /// What an operator does: makes room, and starts the engine again, which may have ended or be of no use.
    fn mend(&self) {
        self.disk.give_back("ballast");
        self.try_tool("kill");
        self.tool("start");
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.try_tool("wipe");
    }
}

#[test]
fn a_full_disk_under_kafka_refuses_stores_and_loses_nothing() {
    let _engines = engines();
    let kafka = OnDisk::start("kafka", 64);
    let brokers = &kafka.endpoints()["CAIRN_TEST_KAFKA"];
    let limits = [("CAIRN__KAFKA__APPEND_TIMEOUT", "2 s"), ("CAIRN__KAFKA__REQUEST_TIMEOUT", "2 s")];
    let cluster = Cluster::start(Size::TWO, &[&limits[..], &[("CAIRN__KAFKA__BROKERS", brokers)]].concat());
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 800 + round, 3);
        load.goes_on(6);
        let stored = found(&cluster, &load);
        kafka.fill();
        load.is_refused();
        refused_by_storescu(&cluster);
        assert_eq!(is_read(cluster.door(), &stored), 200, "reads go on without the log");
        kafka.mend();
        load.goes_on(6);
        all_there(&cluster, &load.stop());
    }
    cluster.stop(true);
}

#[test]
fn a_full_disk_under_the_object_store_refuses_stores_and_loses_nothing() {
    let _engines = engines();
    let s3 = OnDisk::start("s3", 64);
    let endpoints = s3.endpoints();
    let credentials = s3.disk.folder.path().join("credentials.toml");
    let (id, secret) = (&endpoints["CAIRN_TEST_S3_ACCESS_KEY"], &endpoints["CAIRN_TEST_S3_SECRET_KEY"]);
    fs::write(&credentials, format!("access_key_id = {id:?}\nsecret_access_key = {secret:?}\n")).unwrap();
    let cluster = Cluster::start(
        Size::TWO,
        &[
            ("CAIRN__S3__ENDPOINT", &endpoints["CAIRN_TEST_S3"]),
            ("CAIRN__S3__CREDENTIALS_FILE", &credentials.display().to_string()),
            ("CAIRN__S3__DEADLINE", "3 s"),
            ("CAIRN__S3__ATTEMPT_TIMEOUT", "2 s"),
        ],
    );
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 820 + round, 3);
        load.goes_on(6);
        let stored = found(&cluster, &load);
        s3.fill();
        load.is_refused();
        refused_by_storescu(&cluster);
        // It is read still, or, with the engine gone, fails cleanly.
        let read = is_read(cluster.door(), &stored);
        assert!(matches!(read, 200 | 503), "{read}");
        s3.mend();
        load.goes_on(6);
        all_there(&cluster, &load.stop());
    }
    cluster.stop(true);
}

#[test]
fn a_full_disk_under_cassandra_is_not_noticed_by_stores_and_the_index_catches_up() {
    let _engines = engines();
    let cassandra = OnDisk::start("cassandra", 256);
    let contact = format!("[{:?}]", cassandra.endpoints()["CAIRN_TEST_CQL"]);
    let cluster = Cluster::start(Size::TWO, &[&IMPATIENT[..], &[("CAIRN__CQL__CONTACT_POINTS", &contact)]].concat());
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 840 + round, 3);
        load.goes_on(6);
        queries_recover(&cluster);
        cassandra.fill();
        stores_meanwhile(&load);
        let status = query(&cluster);
        assert!(matches!(status, 200 | 503), "what is indexed, or a clean failure: {status}");
        cassandra.mend();
        queries_recover(&cluster);
        load.goes_on(3);
        all_there(&cluster, &load.stop());
    }
    equal(&cluster);
    cluster.stop(true);
}
