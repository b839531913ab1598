//! Sealed ranges of the log: what a broker loses is read from the object store.

use crate::{
    cluster::{Cluster, Size, endpoint, engines},
    load::{all_there, there},
    sites::{made, store},
    support::{Archive, directory},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use serde_json::Value;
use std::time::Duration;

/// What `cairn log` says of each partition.
struct Partitions(Vec<Value>);

impl Partitions {
    fn of(archive: &Archive, action: &str) -> Self {
        let said = archive.ok(&["log", action, "-o", "json"]);
        Self(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn all(&self, column: &str) -> Vec<u64> {
        self.0.iter().map(|row| row[column].as_u64().unwrap()).collect()
    }
}

/// The broker loses what stands before these offsets, partition by partition.
fn lose(topic: &str, before: &[u64]) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", endpoint("CAIRN_TEST_KAFKA"));
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let mut lost = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(before) {
        lost.add_partition_offset(topic, partition, Offset::Offset(i64::try_from(*offset).unwrap())).unwrap();
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin.delete_records(&lost, &options)).unwrap();
}

fn scrubbed(archive: &Archive) -> u64 {
    let said = archive.ok(&["fixity", "scrub", "-o", "json"]);
    let last: Value = serde_json::from_str(said.lines().next_back().unwrap()).unwrap();
    last["RoundObjects"].as_u64().unwrap()
}

#[test]
fn what_is_sealed_is_named_read_for_fixity_and_not_sealed_again() {
    let data = directory();
    let archive = Archive::start(data.path());
    let files = made(82, 5);
    store(&archive, &files);
    let before = scrubbed(&archive);
    assert!(Partitions::of(&archive, "status").all("Ranges").iter().all(|ranges| *ranges == 0));
    let sealed = Partitions::of(&archive, "seal");
    let ranges: u64 = sealed.all("Ranges").iter().sum();
    assert!(ranges > 1, "{:?}", sealed.0);
    // All that was there; an event about each range alone came after it.
    let beyond: u64 = sealed.all("LogEnd").iter().sum::<u64>() - sealed.all("SealedTo").iter().sum::<u64>();
    assert!(beyond <= ranges, "{:?}", sealed.0);
    let again = Partitions::of(&archive, "seal");
    assert_eq!(again.all("Ranges"), sealed.all("Ranges"), "ranges tell of each other without end otherwise");
    assert_eq!(scrubbed(&archive), before + ranges, "events name them");
    archive.stop();
    let archive = Archive::start(data.path());
    assert_eq!(Partitions::of(&archive, "status").all("SealedTo"), sealed.all("SealedTo"));
    archive.settled();
    there(&archive, &files);
    archive.stop();
}

#[test]
fn an_index_is_rebuilt_after_the_broker_lost_what_is_sealed() {
    let _engines = engines();
    let mut cluster = Cluster::start(Size { ingest: 1, index: 1, retrieval: 1, lifecycle: 1 }, &[]);
    let (first, second) = (made(83, 6), made(84, 3));
    store(cluster.door(), &first);
    all_there(&cluster, &first);
    let sealed = Partitions::of(cluster.process("lifecycle-0"), "seal").all("SealedTo");
    assert!(sealed.iter().sum::<u64>() >= first.len() as u64, "{sealed:?}");
    store(cluster.door(), &second);
    lose(&cluster.name(), &sealed);
    let scrubbed_objects = scrubbed(cluster.process("lifecycle-0"));
    assert!(scrubbed_objects >= (first.len() + second.len()) as u64, "{scrubbed_objects}");
    let status = Partitions::of(cluster.process("lifecycle-0"), "status");
    assert_eq!(status.all("LogBegin"), sealed, "{:?}", status.0);
    // An index that starts finds that the log has lost something, and where it is.
    cluster.kill("index-0");
    cluster.start_process("index-0");
    cluster.wait_ready();
    let said = cluster.process("index-0").ok(&["index", "rebuild", "-o", "json"]);
    let certificate: Value = serde_json::from_str(said.lines().next_back().unwrap()).unwrap();
    assert_eq!(certificate["Compared"], "equal", "{certificate}");
    all_there(&cluster, &first);
    all_there(&cluster, &second);
    cluster.stop(true);
}
