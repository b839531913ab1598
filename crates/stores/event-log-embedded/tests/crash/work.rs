//! Work that crosses several segments, and what was acknowledged at which point of it.

use cairn_archive::{Incarnation, Offset, Partition};
use cairn_conformance::event_log::record;
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_process::{clock::Clock, disk::sim::SimDisk};
use cairn_store_api::{EventLog, LogRecord, StoreError};
use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Runtime;

/// Enough that a segment's opening is longer than a sector.
const PARTITIONS: u16 = 64;
/// Partitions that are written to.
pub(crate) const USED: u16 = 3;
pub(crate) const DIR: &str = "/site/log";

/// A clock that moves when it is looked at.
struct Steps(AtomicU64);

impl Clock for Steps {
    fn unix_ms(&self) -> u64 {
        1_767_225_600_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) fn config() -> EventLogConfig {
    EventLogConfig {
        incarnation: Incarnation(2),
        partitions: PARTITIONS,
        segment_bytes: 20 << 10,
        record_bytes_max: 4 << 10,
        append_bytes_max: 7 << 10,
        group_bytes_max: 4 << 10,
        reserve_bytes: 0,
        ..EventLogConfig::new("main".parse().expect("valid"))
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<EmbeddedEventLog, StoreError> {
    EmbeddedEventLog::open_blocking(
        Arc::new(disk.clone()),
        Arc::new(Steps(AtomicU64::new(0))),
        PathBuf::from(DIR),
        config(),
    )
}

/// An acknowledged record, and how many operations the disk had done by then.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) operations: usize,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) number: u64,
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("runtime"));
    RUNTIME.block_on(future)
}

/// Opens a log, appends until a few segments are full, by callers alone and together, and closes it.
pub(crate) fn run(disk: &SimDisk) -> Vec<Ack> {
    run_rounds(disk, 20)
}

pub(crate) fn run_rounds(disk: &SimDisk, rounds: u64) -> Vec<Ack> {
    let mut acks = Vec::new();
    let log = open(disk).expect("opened");
    block_on(async {
        for round in 0..rounds {
            let append = |caller: u64, count: u64| {
                let first = (round * 4 + caller) * 10;
                let partition = Partition(((round + caller) % u64::from(USED)) as u16);
                let records = (first..first + count).map(|n| record(0, n, payload_length(n))).collect();
                let log = &log;
                async move {
                    let offset = log.append(partition, records).await.expect("appended");
                    let operations = disk.operations();
                    (0..count).map(move |index| Ack {
                        operations,
                        partition,
                        offset: Offset(offset.0 + index),
                        number: first + index,
                    })
                }
            };
            acks.extend(append(0, 1 + round % 3).await);
            let (one, two, three) = tokio::join!(append(1, 1), append(2, 2), append(3, 1));
            acks.extend(one.chain(two).chain(three));
        }
        log.close().await.expect("closed");
    });
    acks
}

/// Length of the payload of a record of this work.
pub(crate) fn payload_length(number: u64) -> usize {
    100 + (number as usize * 131) % 900
}

/// All that can be read of a partition, verified, and the error that ends it.
pub(crate) async fn read_all(log: &EmbeddedEventLog, partition: Partition) -> (Vec<(Offset, u64)>, Option<StoreError>) {
    let mut all = Vec::new();
    loop {
        match log.read(partition, Offset(all.len() as u64), 50, usize::MAX).await {
            Ok(batch) if batch.records.is_empty() => return (all, None),
            Ok(batch) => all.extend(batch.records.iter().map(|read| (read.offset, number(read)))),
            Err(error) => return (all, Some(error)),
        }
    }
}

/// The number of a record, which is as it was made.
fn number(read: &LogRecord) -> u64 {
    let payload = &read.record.payload;
    let number = u64::from_be_bytes(payload[8..16].try_into().expect("eight bytes"));
    assert_eq!(read.record, record(0, number, payload.len()), "nothing torn or wrong is readable");
    number
}
