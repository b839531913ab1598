//! Measures a log on brokers: `cargo run --release -p cairn-event-log-kafka --example measure_kafka -- BROKERS [linger_ms]`.
//!
//! Budget: an append alone costs a round trip and the broker's sync; many share both, so that the client's work for a record
//! (headers as text, a queue entry, a report) is the bound; reading costs its headers' parsing and one copy of the payload.

#![allow(clippy::unwrap_used, missing_docs)]

use cairn_archive::{Envelope, EventId, Hlc, Incarnation, Offset, Partition};
use cairn_event_log_kafka::{Compression, KafkaConfig, KafkaEventLog, create_topic};
use cairn_store_api::{EventLog, Record};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let brokers = std::env::args().nth(1).expect("brokers");
    let linger: u64 = std::env::args().nth(2).map_or(0, |linger| linger.parse().unwrap());
    for compression in [Compression::None, Compression::Lz4] {
        runtime.block_on(measure(&brokers, Duration::from_millis(linger), compression));
    }
}

async fn measure(brokers: &str, linger: Duration, compression: Compression) {
    let copies = brokers.split(',').count() as u16;
    let config = KafkaConfig {
        brokers: brokers.to_owned(),
        topic: format!("measure-{}", uuid::Uuid::now_v7()),
        partitions: 16,
        replication_factor: copies,
        min_insync_replicas: copies.min(2),
        linger,
        compression,
        ..KafkaConfig::default()
    };
    let site = "main".parse().unwrap();
    create_topic(&config, &site, Incarnation(1)).await.unwrap();
    let log = Arc::new(KafkaEventLog::open(config.clone(), site.clone()).await.unwrap());
    println!("{compression:?}, linger {linger:?}, {copies} brokers; our CPU in brackets");
    alone(&log).await;
    many(&log, 2_000, 40_000).await;
    log.close().await.unwrap();
    drop(log);
    let log = Arc::new(KafkaEventLog::open(config, site).await.unwrap());
    tail(&log).await;
    follow(&log).await;
    log.close().await.unwrap();
}

/// Headers of small objects: text and numbers that repeat now and then.
fn record(number: u64) -> Record {
    let payload: Vec<u8> =
        (0..4096_u64).map(|at| if at % 3 == 0 { (number * 31 + at * at) as u8 } else { b' ' }).collect();
    let envelope = Envelope {
        id: EventId(uuid::Uuid::from_u128(u128::from(number))),
        kind: "cairn.instance.stored.v1".into(),
        site: "main".parse().unwrap(),
        study_instance_uid: format!("1.2.840.113619.2.55.3.2831868886.{number}"),
        tenant: "default".to_owned(),
        hlc: Hlc { wall_ms: 1_767_225_600_000, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: vec![cairn_archive::ObjectKey(uuid::Uuid::from_u128(u128::from(number)))],
        origin: None,
    };
    Record { envelope, payload: payload.into() }
}

/// User and system time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: Vec<f64> =
        stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    (ticks[10] + ticks[11]) / 100.0
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    format!("p50 {} us, p99 {} us", at(0.5), at(0.99))
}

async fn alone(log: &Arc<KafkaEventLog>) {
    let (mut times, begun, cpu_begun) = (Vec::new(), Instant::now(), cpu());
    while begun.elapsed() < Duration::from_secs(4) {
        let number = times.len() as u64;
        let start = Instant::now();
        log.append(Partition((number % 16) as u16), vec![record(number)]).await.unwrap();
        times.push(start.elapsed());
    }
    let each = (cpu() - cpu_begun) / times.len() as f64 * 1e6;
    println!("  one at a time: {} [{each:.0} us each]", percentiles(&mut times));
}

async fn many(log: &Arc<KafkaEventLog>, callers: u64, total: u64) {
    let (begun, cpu_begun) = (Instant::now(), cpu());
    let tasks = (0..callers).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in (caller..total).step_by(callers as usize) {
                log.append(Partition((number % 16) as u16), vec![record(number)]).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let (took, each) = (begun.elapsed().as_secs_f64(), (cpu() - cpu_begun) / total as f64 * 1e6);
    println!("  {callers} in flight: {:.0}/s [{each:.1} us each]", total as f64 / took);
}

async fn tail(log: &Arc<KafkaEventLog>) {
    for readers in [1_u16, 4] {
        let (begun, cpu_begun) = (Instant::now(), cpu());
        let tasks = (0..readers).map(|reader| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut events = 0;
                for partition in (reader..16).step_by(usize::from(readers)).map(Partition) {
                    let mut from = Offset(0);
                    while let Some(last) = log.read(partition, from, 1024, 4 << 20).await.unwrap().records.last() {
                        events += last.offset.0 + 1 - from.0;
                        from = last.offset.next();
                    }
                }
                events
            })
        });
        let mut events = 0;
        for task in tasks.collect::<Vec<_>>() {
            events += task.await.unwrap();
        }
        let (took, each) = (begun.elapsed().as_secs_f64(), (cpu() - cpu_begun) / events as f64 * 1e6);
        println!("  read through by {readers}: {:.0}/s [{each:.1} us each]", events as f64 / took);
    }
}

/// From an append's acknowledgement to the reader who waits for it.
async fn follow(log: &Arc<KafkaEventLog>) {
    let other = Arc::new(log.clone());
    let mut times = Vec::new();
    let mut from = log.end(Partition(0)).await.unwrap();
    for number in 0..500 {
        let waiting = other.clone();
        let waiter = tokio::spawn(async move {
            waiting.wait_beyond(Partition(0), from).await.unwrap();
            waiting.read(Partition(0), from, 10, 1 << 20).await.unwrap()
        });
        log.append(Partition(0), vec![record(number)]).await.unwrap();
        let start = Instant::now();
        assert!(!waiter.await.unwrap().records.is_empty());
        times.push(start.elapsed());
        from = from.next();
    }
    println!("  acknowledged to read by a follower: {}", percentiles(&mut times));
    let begun = cpu();
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("  at rest, following: {:.2} % of a core", (cpu() - begun) / 3.0 * 100.0);
}
