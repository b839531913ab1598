//! A rolling upgrade: processes are replaced one by one under load, and events of a newer version are in the log already.

use crate::{
    cluster::{Cluster, Size, endpoint, engines},
    load::{Load, all_there},
    support::{SOON, eventually, rounds},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, Partition,
    envelope::Envelope,
    events::{Event, v1::ReceiptClosed},
};
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog};
use cairn_service_grpc::{
    client::Connection,
    log_proto::{ReadRequest, Start},
};
use cairn_store_api::{EventLog, Record};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

const PARTITIONS: u16 = 8;
const NEWER: &str = "cairn.instance.annotated.v1";

/// An event of a study, as a newer process appends it.
fn newer(kind: &'static str, study: &str, payload: Bytes) -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let envelope = Envelope {
        id: EventId(uuid::Uuid::now_v7()),
        kind: kind.into(),
        site: "main".parse().unwrap(),
        study_instance_uid: study.to_owned(),
        tenant: "default".to_owned(),
        hlc: Hlc { wall_ms: u64::try_from(now).unwrap(), counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    Record { envelope, payload }
}

/// One of a type, and one with a field, that this version does not know.
fn from_a_newer_process(study: &str) -> [Record; 2] {
    let known = ReceiptClosed {
        tenant: "default".to_owned(),
        study_instance_uid: study.to_owned(),
        ..ReceiptClosed::default()
    };
    let known = Event::ReceiptClosed(known);
    let mut payload = known.encode().to_vec();
    // Field 3000, five bytes.
    payload.extend_from_slice(&[0xC2, 0xBB, 0x01, 5]);
    payload.extend_from_slice(b"newer");
    [newer(NEWER, study, Bytes::from_static(b"\x0a\x05newer")), newer(known.kind(), study, payload.into())]
}

async fn append(topic: String, records: Vec<Record>) {
    let config = KafkaConfig {
        brokers: endpoint("CAIRN_TEST_KAFKA"),
        topic,
        partitions: PARTITIONS,
        replication_factor: 1,
        min_insync_replicas: 1,
        ..KafkaConfig::default()
    };
    let log = KafkaEventLog::open(config, "main".parse().unwrap()).await.unwrap();
    for record in records {
        let partition = Partition::of_study(&record.envelope.study_instance_uid, PARTITIONS);
        log.append(partition, vec![record]).await.unwrap();
    }
    log.close().await.unwrap();
}

/// What no archive writes: a record without an envelope. Gives its position.
async fn append_foreign(topic: &str) -> String {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", endpoint("CAIRN_TEST_KAFKA")).create().unwrap();
    let record = FutureRecord::<(), str>::to(topic).partition(3).payload("hello?");
    let at = producer.send(record, SOON).await.unwrap();
    format!("main/1/{}/{}", at.partition, at.offset)
}

/// Payloads of all events, by their ids, as a process gives them to tools.
async fn payloads(server: std::net::SocketAddr) -> BTreeMap<String, Bytes> {
    let mut log = Connection::to(format!("http://{server}")).event_log().unwrap();
    let request = ReadRequest { start: Start::Beginning.into(), ..ReadRequest::default() };
    let (mut events, mut payloads) = (log.read(request).await.unwrap().into_inner(), BTreeMap::new());
    while let Some(event) = events.message().await.unwrap() {
        payloads.insert(event.headers["ce_id"].clone(), event.payload);
    }
    payloads
}

#[test]
fn processes_are_replaced_one_by_one_among_events_of_a_newer_version_and_nothing_is_lost() {
    let _engines = engines();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::start(Size::TWO, &[]);
    let mut foreign = Vec::new();
    for round in 0..rounds(1) {
        let seed = 600 + round;
        let load = Load::start(cluster.door().http, seed, 3);
        load.goes_on(6);
        for (number, name) in cluster.names().into_iter().enumerate() {
            let study = cairn_synthetic::one_study(seed * 100, number as u64)[0].study_instance_uid.to_string();
            let records = from_a_newer_process(&study);
            foreign.extend(records.iter().cloned());
            runtime.block_on(append(cluster.name(), records.into()));
            cluster.stop_process(&name);
            load.goes_on(3);
            cluster.start_process(&name);
            load.goes_on(3);
        }
        all_there(&cluster, &load.stop());
    }
    let no_event = runtime.block_on(append_foreign(&cluster.name()));
    let unknown = foreign.iter().filter(|record| record.envelope.kind == NEWER).count();
    for name in ["index-0", "index-1"] {
        let process = cluster.process(name);
        let parked = || process.metric("cairn_index_parked_events");
        eventually("what this version does not know is parked, and no more", || {
            (parked() == (unknown + 1) as f64).then_some(())
        });
        let kept = runtime.block_on(payloads(process.grpc));
        for record in &foreign {
            let id = record.envelope.id.to_string();
            assert_eq!(kept.get(&id), Some(&record.payload), "{} is passed on as it is", record.envelope.kind);
        }
        let told = process.ok(&["events", "tail", "--from", "beginning", "--no-follow", "-o", "json"]);
        assert_eq!(told.matches(NEWER).count(), unknown, "in `cairn events tail`");
    }
    no_event_is_parked_until_it_is_dismissed(&cluster, &no_event);
    cluster.stop(true);
}

fn no_event_is_parked_until_it_is_dismissed(cluster: &Cluster, position: &str) {
    // The doors give all services at one address.
    let door = cluster.door();
    let parked = || {
        let told = door.ok(&["parked", "list", "-o", "json"]);
        told.lines().find(|line| line.contains(position)).map(str::to_owned)
    };
    let told = parked().expect("it is listed where it stands");
    assert!(told.contains("\"unreadable\""), "{told}");
    door.ok(&["parked", "repair", position, "--dismiss", "--reason", "not ours", "--by", "me"]);
    assert_eq!(parked(), None);
}
