use super::*;
use cairn_process::disk::sim::{Loss, SimDisk};
use futures_util::TryStreamExt;
use uuid::Uuid;

const HOUR_MS: u64 = 3_600_000;

fn id(n: u64) -> EventId {
    EventId(uuid::Builder::from_unix_timestamp_millis(n, &[0; 10]).into_uuid())
}

fn refused(n: u64, bytes: usize) -> Refused {
    Refused {
        id: id(n),
        refused_at_ms: n,
        reason: "bad-identifier",
        calling_ae_title: "CT1".into(),
        bytes: vec![Bytes::from(vec![n as u8; bytes / 2]), Bytes::from(vec![n as u8; bytes - bytes / 2])],
        complete: true,
    }
}

fn open(disk: &SimDisk, config: QuarantineConfig) -> Quarantine {
    Quarantine::open(Arc::new(disk.clone()), "/q".into(), config).expect("opens")
}

async fn ids(quarantine: &Quarantine, now_ms: u64) -> Vec<EventId> {
    quarantine.list(now_ms).await.expect("lists").iter().map(|entry| entry.id).collect()
}

async fn bytes(quarantine: &Quarantine, id: EventId) -> Vec<u8> {
    quarantine.read(id).await.expect("reads").try_collect::<Vec<_>>().await.expect("reads").concat()
}

#[tokio::test]
async fn entries_are_listed_newest_first_and_read_back_also_by_the_next_process() {
    let disk = SimDisk::new();
    let quarantine = open(&disk, QuarantineConfig::default());
    for n in [1, 2, 3] {
        assert!(quarantine.keep(refused(n, 100_000)).await);
    }
    for quarantine in [quarantine, open(&disk, QuarantineConfig::default())] {
        assert_eq!(ids(&quarantine, 4).await, [id(3), id(2), id(1)]);
        assert_eq!(bytes(&quarantine, id(2)).await, vec![2; 100_000]);
        let entry = &quarantine.list(4).await.expect("lists")[0];
        assert_eq!((entry.reason.as_str(), entry.calling_ae_title.as_str()), ("bad-identifier", "CT1"));
        assert_eq!((entry.refused_at_ms, entry.length, entry.complete), (3, 100_000, true));
        let missing = quarantine.read(EventId(Uuid::nil())).await;
        assert_eq!(missing.err().map(|error| error.kind), Some(ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn entries_bytes_age_and_rate_are_bounded() {
    let config = QuarantineConfig {
        input_bytes_max: 1_000,
        total_bytes_max: 5_000,
        entries_max: 3,
        keep_for: Duration::from_secs(7_200),
        entries_per_minute_max: 2,
    };
    let disk = SimDisk::new();
    let quarantine = open(&disk, config.clone());
    assert!(quarantine.keep(refused(1, 500)).await && quarantine.keep(refused(2, 500)).await);
    assert!(!quarantine.keep(refused(3, 500)).await, "two a minute");
    for n in 1..=3 {
        assert!(quarantine.keep(refused(n * HOUR_MS, 500)).await);
    }
    assert_eq!(ids(&quarantine, 3 * HOUR_MS).await, [id(3 * HOUR_MS), id(2 * HOUR_MS), id(HOUR_MS)], "three at most");
    assert_eq!(ids(&quarantine, 4 * HOUR_MS + 1).await, [id(4 * HOUR_MS / 4 * 3)], "two hours old at most");
    // An entry that is cut says so.
    assert!(quarantine.keep(refused(5 * HOUR_MS, 3_000)).await);
    let entry = quarantine.list(5 * HOUR_MS).await.expect("lists")[0].clone();
    assert_eq!((entry.length, entry.complete), (1_000, false));

    let small = open(&disk, QuarantineConfig { total_bytes_max: 100, ..config });
    assert!(!small.keep(refused(9 * HOUR_MS, 500)).await, "larger than all the room");
}

#[tokio::test]
async fn the_oldest_make_room_for_the_newest() {
    let disk = SimDisk::new();
    let config =
        QuarantineConfig { total_bytes_max: 10_000, entries_per_minute_max: 1_000, ..QuarantineConfig::default() };
    let quarantine = open(&disk, config);
    for n in 0..50 {
        assert!(quarantine.keep(refused(n, 2_000)).await);
        assert!(disk.allocated() <= 64 << 10);
    }
    assert_eq!(ids(&quarantine, 50).await, [id(49), id(48), id(47), id(46)]);
}

#[tokio::test]
async fn a_crash_leaves_whole_entries_alone() {
    let disk = SimDisk::new();
    let quarantine = open(&disk, QuarantineConfig::default());
    let mut kept = Vec::new();
    for n in 1..4 {
        quarantine.keep(refused(n, 10_000)).await;
        kept.push((disk.operations(), id(n)));
    }
    for at in 0..=disk.operations() {
        for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(at as u64)] {
            let quarantine = open(&disk.crash(at, loss), QuarantineConfig::default());
            let there = ids(&quarantine, 4).await;
            for (since, id) in &kept {
                assert!(at < *since || there.contains(id), "an entry that was kept is gone");
            }
            for id in there {
                let length = quarantine.list(4).await.expect("lists").len();
                assert!(length <= 3 && bytes(&quarantine, id).await.len() == 10_000);
            }
        }
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_counted_and_fails_no_one() {
    let disk = SimDisk::new();
    let quarantine = open(&disk, QuarantineConfig::default());
    disk.set_capacity(0);
    assert!(!quarantine.keep(refused(1, 10_000)).await);
    assert_eq!(ids(&quarantine, 2).await, []);
    disk.set_capacity(u64::MAX);
    assert!(quarantine.keep(refused(2, 10_000)).await);
}
