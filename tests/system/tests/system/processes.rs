//! Roles as processes of their own, more than one of each, over real engines.

use crate::{
    cluster::{Cluster, OwnEngines, Size, engines},
    gateway::certificates,
    load::{Load, all_there, there},
    sites::{made, store},
    stow::data_set_of,
    support::{Archive, Start, directory, eventually, free_port, repository, run, synthetic_files},
};
use std::{collections::BTreeSet, fs};

#[test]
fn a_cluster_takes_finds_and_gives_back_what_stock_clients_send() {
    let _engines = engines();
    let cluster = Cluster::start(Size::TWO, &[]);
    let door = cluster.door();
    let files = synthetic_files(&cluster.folder.path().join("in"), 71, 4);
    let (host, port) = (door.dicom.ip().to_string(), door.dicom.port().to_string());
    run("storescu", &["-aec", "CAIRN", "+sd", &host, &port, &cluster.folder.path().join("in").display().to_string()]);
    cluster.of_role("index").for_each(Archive::settled);
    // Either index process answers for all partitions.
    for name in ["index-0", "index-1"] {
        let found = cluster.processes[name].ok(&["query", "studies", "-o", "json"]);
        assert_eq!(found.lines().count(), 4, "{name}: {found}");
    }
    let to = cluster.folder.path().join("got");
    fs::create_dir_all(&to).unwrap();
    let made: Vec<_> = cairn_synthetic::studies(71, 4).collect();
    for study in made.iter().map(|made| made.study_instance_uid.to_string()).collect::<BTreeSet<_>>() {
        let (key, to) = (format!("StudyInstanceUID={study}"), to.display().to_string());
        run(
            "getscu",
            &["-S", "+B", "-aec", "CAIRN", "-od", &to, "-k", "QueryRetrieveLevel=STUDY", "-k", &key, &host, &port],
        );
    }
    let sent: BTreeSet<Vec<u8>> = files.iter().map(|file| data_set_of(&fs::read(file).unwrap())).collect();
    let got: BTreeSet<Vec<u8>> =
        fs::read_dir(to).unwrap().map(|entry| data_set_of(&fs::read(entry.unwrap().path()).unwrap())).collect();
    assert!(sent == got, "{} sent, {} got, byte for byte", sent.len(), got.len());
    let read: serde_json::Value = serde_json::from_str(&door.ok(&["fixity", "scrub", "-o", "json"])).unwrap();
    assert_eq!(read["RoundObjects"], files.len(), "everything is read and is what it was: {read}");
    metrics_are_documented(&cluster);
    cluster.stop(true);
}

/// Each metric of the stores of a cluster is there in one process or the other, as it is documented.
fn metrics_are_documented(cluster: &Cluster) {
    let table = fs::read_to_string(repository().join("services/cairn/METRICS.md")).unwrap();
    let exposed: String = cluster.processes.values().map(exposed).collect();
    for line in exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(table.contains(&format!("| {name} | {kind} |")), "{name} is not documented as a {kind}");
    }
    for name in ["cairn_event_log_appended_total", "cairn_event_log_weak_topic", "cairn_index_store_batches_total"] {
        assert!(exposed.contains(&format!("# TYPE {name} ")), "{name}");
    }
    assert!(exposed.contains("cairn_object_store_s3_requests_total{"), "requests to the bucket");
}

fn exposed(process: &Archive) -> String {
    String::from_utf8(process.get("/metrics", "*/*").body).unwrap()
}

#[test]
fn a_cluster_and_a_site_in_one_process_are_kept_in_step() {
    let _engines = engines();
    let at_west = format!("127.0.0.1:{}", free_port());
    let (peer, partitions) = (format!("[{at_west:?}]"), "8");
    let east = [("CAIRN__SITE__NAME", "east"), ("CAIRN__REPLICATION__PEERS__WEST__ADDRESSES", peer.as_str())];
    let mut cluster = Cluster::start(Size { ingest: 1, index: 1, retrieval: 1, lifecycle: 0 }, &east);
    let at_east = format!("[\"{}\"]", cluster.start_replication());
    let west = [
        ("CAIRN__SITE__NAME", "west"),
        ("CAIRN__DATA__PARTITIONS", partitions),
        ("CAIRN__REPLICATION__PEERS__EAST__ADDRESSES", &at_east),
    ];
    let environment = west.map(|(key, value)| (key, value.to_owned())).to_vec();
    let start = Start { arguments: vec!["--grpc".into(), at_west], environment, ..Start::default() };
    let mut west = Archive::start_with(&cluster.folder.path().join("west"), start);
    let (of_east, of_west) = (made(73, 2), made(74, 2));
    store(cluster.door(), &of_east);
    store(&west, &of_west);
    let replication = cluster.process("replication-0");
    eventually("a cluster and a site in step", || {
        let is_so = |archive: &Archive| {
            let text = archive.ok(&["replication", "status", "-o", "csv"]);
            let peer: Vec<&str> = text.lines().nth(1)?.split(',').collect();
            (peer[1] == "up" && peer[2] == "0").then_some(())
        };
        is_so(replication).and(is_so(&west))
    });
    cluster.of_role("index").for_each(Archive::settled);
    west.settled();
    let index = format!("http://{}", cluster.process("index-0").grpc);
    eventually("the same state at both", || {
        let verified = west.command(&["replication", "verify", "--with", &index]);
        (verified.status.code() == Some(0)).then_some(())
    });
    for door in [cluster.door(), &west] {
        there(door, &of_east);
        there(door, &of_west);
    }
    // A decision of one is known at the other.
    west.ok(&["site", "promote", "--reason", "a trial", "--yes", "west"]);
    eventually("west's authority at the cluster", || {
        replication.ok(&["site", "status"]).contains("authority  west (epoch 1)").then_some(())
    });
    west.expect_in_log(" WARN ");
    west.stop();
    cluster.stop(true);
}

#[test]
fn each_process_is_killed_in_turn_and_all_at_once_and_nothing_acknowledged_is_lost() {
    let _engines = engines();
    let mut cluster = Cluster::start(Size::TWO, &[]);
    let load = Load::start(cluster.door().http, 72, 3);
    load.goes_on(10);
    for name in cluster.names() {
        cluster.kill(&name);
        // Others do its work.
        load.goes_on(5);
        cluster.start_process(&name);
    }
    for name in cluster.names() {
        cluster.kill(&name);
    }
    for name in cluster.names() {
        cluster.start_process(&name);
    }
    load.goes_on(10);
    let acknowledged = load.stop();
    all_there(&cluster, &acknowledged);
    cluster.stop(true);
}

#[test]
fn kafka_is_killed_and_started_again_and_stores_go_on() {
    let engines = OwnEngines::take();
    let cluster =
        Cluster::start(Size::TWO, &[("CAIRN__KAFKA__APPEND_TIMEOUT", "2 s"), ("CAIRN__KAFKA__REQUEST_TIMEOUT", "2 s")]);
    let load = Load::start(cluster.door().http, 73, 3);
    load.goes_on(10);
    engines.tool("kill", "kafka");
    load.is_refused();
    engines.tool("start", "kafka");
    load.goes_on(10);
    all_there(&cluster, &load.stop());
    cluster.stop(true);
}

#[test]
fn a_cluster_by_mutual_tls_takes_and_finds_while_processes_are_killed() {
    let _engines = engines();
    let folder = directory();
    certificates(folder.path(), &["archive"]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key, authority) = (at("archive.pem"), at("archive.key"), at("ca.pem"));
    // As one table: a section is checked whole.
    let tls = format!("{{ certificate = {certificate:?}, key = {key:?}, authority = {authority:?} }}");
    let mut cluster = Cluster::start(Size::TWO, &[("CAIRN__TLS", &tls)]);
    let load = Load::start(cluster.door().http, 74, 3);
    load.goes_on(10);
    for name in ["ingest-0", "index-1", "retrieval-0"] {
        cluster.kill(name);
        load.goes_on(5);
        cluster.start_process(name);
    }
    all_there(&cluster, &load.stop());
    let plain = cluster.process("index-0").command(&["query", "studies"]);
    assert!(!plain.status.success(), "without TLS: {plain:?}");
    cluster.stop(true);
}
