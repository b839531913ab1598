use super::{P0, open};
use crate::backend::{config, own::Engines};
use cairn_archive::{Offset, Partition};
use cairn_conformance::event_log::record;
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog};
use cairn_store_api::{EventLog, StoreErrorKind};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Brokers are slow to come back on a machine that does much else.
const RECOVERY: Duration = Duration::from_secs(90);

/// Most that an append may take whose timeout is 3 s, there too; the default is 20 s.
const IN_TIME: Duration = Duration::from_secs(12);

/// Appends until told to stop, counting in `done`; gives what was acknowledged: (partition, offset, caller, number).
async fn load(
    log: &Arc<KafkaEventLog>,
    during: impl Future<Output = ()>,
    done: Arc<AtomicU64>,
) -> Vec<(Partition, Offset, u64, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = (0..8_u64).map(|caller| {
        let (log, stop, done) = (log.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let mut told = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let partition = Partition((caller % 2) as u16);
                match log.append(partition, vec![record(caller, number, 500)]).await {
                    Ok(offset) => {
                        told.push((partition, offset, caller, number));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            told
        })
    });
    let tasks: Vec<_> = tasks.collect();
    during.await;
    stop.store(true, Ordering::Release);
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    told
}

/// Waits until so many more are acknowledged.
async fn reach(done: &AtomicU64, more: u64) {
    let (wanted, begun) = (done.load(Ordering::Relaxed) + more, Instant::now());
    while done.load(Ordering::Relaxed) < wanted {
        assert!(begun.elapsed() < RECOVERY, "appends don't go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn check(log: &KafkaEventLog, told: &[(Partition, Offset, u64, u64)]) {
    for (partition, offset, caller, number) in told {
        let read = log.read(*partition, *offset, 1, 1).await.unwrap();
        assert_eq!(read.records[0].record, record(*caller, *number, 500), "acknowledged at {offset:?}");
    }
}

async fn run(engines: &Engines, arguments: &[&str]) {
    tokio::task::block_in_place(|| engines.run(arguments));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_killed_frozen_and_away() {
    let engines = tokio::task::block_in_place(|| Engines::start("faults", 1));
    let settings = KafkaConfig {
        append_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(3),
        ..config(&engines.brokers(), 2)
    };
    let log = open(&settings).await;

    // Killed in the middle of appends, twice.
    let done = Arc::new(AtomicU64::new(0));
    let kills = async {
        for _ in 0..2 {
            reach(&done, 300).await;
            run(&engines, &["kill", "kafka"]).await;
            run(&engines, &["start", "kafka"]).await;
        }
        reach(&done, 300).await;
    };
    let told = load(&log, kills, done.clone()).await;
    assert!(told.len() > 500, "only {} were taken", told.len());
    check(&log, &told).await;

    // Frozen: it takes connections and never answers.
    run(&engines, &["pause", "kafka"]).await;
    let begun = Instant::now();
    let error = log.append(P0, vec![record(9, 0, 100)]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    assert_eq!(log.end(P0).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    run(&engines, &["resume", "kafka"]).await;
    recovers(&log, 1).await;

    // Away, and back.
    run(&engines, &["kill", "kafka"]).await;
    let begun = Instant::now();
    let error = log.append(P0, vec![record(9, 100, 100)]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    run(&engines, &["start", "kafka"]).await;
    recovers(&log, 101).await;
    check(&log, &told).await;
    log.close().await.unwrap();
}

/// Appends go on by themselves, and those who follow see it.
async fn recovers(log: &Arc<KafkaEventLog>, number: u64) {
    let begun = Instant::now();
    let offset = loop {
        match log.append(P0, vec![record(9, number, 100)]).await {
            Ok(offset) => break offset,
            Err(error) => assert!(error.kind() == StoreErrorKind::Unavailable && begun.elapsed() < RECOVERY, "{error}"),
        }
    };
    let following = log.clone();
    let follower = tokio::spawn(async move { following.wait_beyond(P0, offset.next()).await });
    log.append(P0, vec![record(9, number + 1, 100)]).await.unwrap();
    assert!(follower.await.unwrap().unwrap() > offset.next());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_brokers_lost() {
    let engines = tokio::task::block_in_place(|| Engines::start("three", 3));
    let log = open(&config(&engines.brokers(), 2)).await;
    let done = Arc::new(AtomicU64::new(0));
    let loss = async {
        reach(&done, 200).await;
        run(&engines, &["kill", "kafka-2"]).await;
        reach(&done, 200).await;
        run(&engines, &["start", "kafka-2"]).await;
        reach(&done, 200).await;
    };
    let told = load(&log, loss, done.clone()).await;
    assert!(told.len() > 500, "only {} were taken", told.len());
    check(&log, &told).await;
    log.close().await.unwrap();
}
