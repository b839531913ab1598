use super::{P0, open, shared, site};
use cairn_archive::{Envelope, Incarnation, Offset};
use cairn_conformance::event_log::record;
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog, create_topic};
use cairn_store_api::{EventLog, StoreErrorKind};
use rdkafka::{
    ClientConfig, Offset as Place, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use std::time::Duration;

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)))
}

/// Gives a topic one other setting, and its own for the rest.
async fn alter(config: &KafkaConfig, changed: (&str, &str)) {
    let copies = config.min_insync_replicas.to_string();
    let bytes = (config.record_bytes_max + (64 << 10)).to_string();
    let mut settings = vec![
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("min.insync.replicas", &copies),
        ("unclean.leader.election.enable", "false"),
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", &bytes),
        ("flush.messages", "1"),
    ];
    settings.iter_mut().filter(|(name, _)| *name == changed.0).for_each(|setting| *setting = changed);
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&config.topic));
    let alter = settings.into_iter().fold(alter, |alter, (name, value)| alter.set(name, value));
    admin(config).alter_configs([&alter], &options()).await.unwrap().remove(0).unwrap();
}

async fn refused(config: &KafkaConfig) -> (StoreErrorKind, String) {
    let error = KafkaEventLog::open(config.clone(), site()).await.err().expect("refused");
    (error.kind(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_lose_events_is_refused_and_taken_only_when_told_so() {
    let config = shared(2);
    open(&config).await.close().await.unwrap();
    for changed in [
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "1000"),
    ] {
        alter(&config, changed).await;
        // The brokers take a moment to say what was changed.
        let (kind, what) = loop {
            match KafkaEventLog::open(config.clone(), site()).await {
                Ok(log) => log.close().await.unwrap(),
                Err(error) if error.to_string().contains(changed.0) => break (error.kind(), error.to_string()),
                Err(_) => {}
            }
        };
        assert_eq!(kind, StoreErrorKind::Invalid, "{what}");
    }
    let weak = KafkaConfig { accept_weak_topic: true, ..config.clone() };
    KafkaEventLog::open(weak, site()).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_copy_that_is_not_synced_is_refused() {
    let config = KafkaConfig { replication_factor: 1, min_insync_replicas: 1, ..shared(1) };
    open(&config).await.close().await.unwrap();
    alter(&config, ("flush.messages", "9223372036854775807")).await;
    while let Ok(log) = KafkaEventLog::open(config.clone(), site()).await {
        log.close().await.unwrap();
    }
    assert!(refused(&config).await.1.contains("flush.messages"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_copies_than_configured_are_refused() {
    let config = KafkaConfig { replication_factor: 1, min_insync_replicas: 1, ..shared(1) };
    open(&config).await.close().await.unwrap();
    let more = KafkaConfig { replication_factor: 3, min_insync_replicas: 2, ..config };
    let (kind, what) = refused(&more).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(what.contains("1 replicas") && what.contains("min.insync.replicas"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_absent_or_another_is_refused() {
    let config = shared(2);
    assert_eq!(refused(&config).await.0, StoreErrorKind::NotFound);
    open(&config).await.close().await.unwrap();
    assert_eq!(refused(&KafkaConfig { partitions: 3, ..config.clone() }).await.0, StoreErrorKind::Invalid);
    let other = KafkaEventLog::open(config.clone(), "other".parse().unwrap()).await.err().unwrap();
    assert_eq!(other.kind(), StoreErrorKind::Invalid);
    let more = NewPartitions::new(&config.topic, 4);
    admin(&config).create_partitions([&more], &options()).await.unwrap().remove(0).unwrap();
    let what = loop {
        match KafkaEventLog::open(config.clone(), site()).await {
            Ok(log) => log.close().await.unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(what.kind(), StoreErrorKind::Invalid, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_not_made_for_it_is_refused() {
    let config = shared(1);
    let copies = i32::from(config.replication_factor);
    let bare = NewTopic::new(&config.topic, 2, TopicReplication::Fixed(copies));
    admin(&config).create_topics([&bare], &options()).await.unwrap().remove(0).unwrap();
    // Its partitions may not be known to all brokers yet.
    let (kind, what) = loop {
        let refused = refused(&config).await;
        if !matches!(refused.0, StoreErrorKind::NotFound | StoreErrorKind::Unavailable) {
            break refused;
        }
    };
    assert_eq!(kind, StoreErrorKind::Corrupt, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_beginning_is_gone_says_so_and_gives_the_rest() {
    let config = shared(1);
    let log = open(&config).await;
    for number in 0..10 {
        log.append(P0, vec![record(0, number, 100)]).await.unwrap();
    }
    assert_eq!(log.beginning(P0).await.unwrap(), Offset(0));
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&config.topic, 0, Place::Offset(4)).unwrap();
    admin(&config).delete_records(&until, &options()).await.unwrap();
    let again = open(&config).await;
    for (log, when) in [(&log, "lost while it is open"), (&again, "lost before")] {
        assert_eq!(log.beginning(P0).await.unwrap(), Offset(4), "{when}");
        assert_eq!(log.read(P0, Offset(3), 1, 1).await.unwrap_err().kind(), StoreErrorKind::NotFound, "{when}");
        let rest = log.read(P0, Offset(4), 10, 1 << 20).await.unwrap().records;
        assert_eq!(rest.first().map(|record| record.offset), Some(Offset(4)), "{when}");
    }
    // What says which log it is, is needed.
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&config.topic, 1, Place::Offset(1)).unwrap();
    admin(&config).delete_records(&until, &options()).await.unwrap();
    let (kind, what) = refused(&config).await;
    assert_eq!(kind, StoreErrorKind::Corrupt, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_the_log_that_was_open_on_it() {
    let config = shared(1);
    let log = open(&config).await;
    for number in 0..10 {
        log.append(P0, vec![record(0, number, 100)]).await.unwrap();
    }
    admin(&config).delete_topics(&[&config.topic], &options()).await.unwrap().remove(0).unwrap();
    // The name is free once all brokers have let go of the topic.
    while create_topic(&config, &site(), Incarnation(2)).await.is_err() {}
    let error = loop {
        match log.append(P0, vec![record(0, 10, 100)]).await {
            Ok(offset) => panic!("taken at {offset:?} of another log"),
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    let refused = log.read(P0, Offset(0), 1, 1).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Corrupt, "nothing is read either");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_create_at_once_agree() {
    let config = shared(3);
    let site = site();
    let create = |incarnation| create_topic(&config, &site, Incarnation(incarnation));
    let (a, b, c) = tokio::join!(create(1), create(2), create(3));
    assert_eq!(a.as_ref().unwrap(), b.as_ref().unwrap());
    assert_eq!(a.unwrap(), c.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_brokers_find_too_long_is_invalid() {
    let config = shared(1);
    let log = open(&config).await;
    alter(&config, ("max.message.bytes", "2000")).await;
    let error = loop {
        match log.append(P0, vec![record(0, 1, 100_000)]).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    log.append(P0, vec![record(0, 2, 100)]).await.expect("others are taken");
}

/// Something else than an archive wrote into the topic: no headers, headers that are no envelope, nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_events_stand_in_the_log_as_such_and_nothing_stops() {
    let config = shared(1);
    let log = open(&config).await;
    let foreign: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).set("acks", "all").create().unwrap();
    let header = Header { key: "ce_specversion", value: Some("0.1") };
    let records = [
        (Some(&b"no headers"[..]), None),
        (Some(&b"other headers"[..]), Some(OwnedHeaders::new().insert(header))),
        (None, None),
    ];
    let mut number = 0;
    let mut event = async || {
        number += 1;
        log.append(P0, vec![record(0, number, 100)]).await.unwrap()
    };
    assert_eq!(event().await, Offset(0));
    // One is followed, as by an index; the others are found by reading from the beginning.
    let followed = log.wait_beyond(P0, Offset(0));
    for (payload, headers) in records.clone() {
        let mut sent = FutureRecord::<(), [u8]>::to(&config.topic).partition(0);
        (sent.payload, sent.headers) = (payload, headers);
        foreign.send(sent, Duration::from_secs(10)).await.unwrap();
    }
    assert!(followed.await.unwrap() > Offset(0));
    assert_eq!(event().await, Offset(4));
    assert!(log.wait_beyond(P0, Offset(4)).await.unwrap() > Offset(4));
    let read = async |log: &KafkaEventLog, from: u64| {
        let mut all = Vec::new();
        while (from + all.len() as u64) < 5 {
            all.extend(log.read(P0, Offset(from + all.len() as u64), 100, 1 << 20).await.unwrap().records);
        }
        all
    };
    let all = read(&log, 0).await;
    let kinds: Vec<_> = all.iter().map(|each| each.record.envelope.kind == Envelope::UNREADABLE).collect();
    assert_eq!(kinds, [false, true, true, true, false]);
    for ((payload, _), each) in records.iter().zip(&all[1..]) {
        assert_eq!(each.record.payload, payload.unwrap_or_default(), "its bytes are as written");
    }
    log.close().await.unwrap();
    let again = open(&config).await;
    assert_eq!(read(&again, 0).await, all, "for everyone alike");
    assert_eq!(read(&again, 2).await, all[2..], "from anywhere");
    again.close().await.unwrap();
}
