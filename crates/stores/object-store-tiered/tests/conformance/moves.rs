//! What holds of moves (TI-01 to TI-05), and of a cold store that is away.

use crate::{
    backend::{COLD, Opened, find, open},
    put_away::PutAway,
};
use cairn_conformance::object_store::{bytes, key, put, read};
use cairn_object_store_tiered::{AwayStore, TieredStore};
use cairn_process::disk::sim::{Loss, SimDisk};
use cairn_store_api::{ObjectInfo, ObjectStore, StoreError, StoreErrorKind, Tier, Tiers};
use futures_util::StreamExt;
use libtest_mimic::Trial;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const LENGTH: usize = 2_600_017;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> futures_util::future::BoxFuture<'static, ()>| {
        Trial::test(format!("tiered::{name}"), move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), run()).await })?;
            Ok(())
        })
    };
    vec![
        trial("TI-01_readable_after_a_crash_at_every_step", || Box::pin(crashes())),
        trial("TI-01_readable_while_it_is_moved", || Box::pin(read_meanwhile())),
        trial("TI-02_a_damaged_copy_is_made_again", || Box::pin(damaged_copy())),
        trial("TI-02_other_bytes_under_the_key_leave_it_where_it_is", || Box::pin(other_bytes())),
        trial("TI-02_damaged_bytes_are_not_moved", || Box::pin(damaged_bytes())),
        trial("TI-03_moved_there_and_back", || Box::pin(there_and_back())),
        trial("TI-04_deleted_while_it_is_moved", || Box::pin(deleted_meanwhile())),
        trial("TI-05_what_is_put_away_is_asked_for_and_moved_later", || Box::pin(put_away())),
        trial("a_full_cold_store_leaves_it_where_it_is", || Box::pin(full())),
        trial("a_cold_store_that_is_away_comes_back", || Box::pin(away())),
    ]
}

async fn stored(opened: &Opened) -> ObjectInfo {
    put(&*opened.tiered, key(1), &bytes(1, LENGTH), 100_000).await.unwrap()
}

async fn is_in(store: &dyn ObjectStore, info: &ObjectInfo) -> bool {
    match store.stat(info.object.key).await {
        Ok(found) => found.object == info.object,
        Err(error) if error.kind() == StoreErrorKind::NotFound => false,
        Err(error) => panic!("{error}"),
    }
}

/// A move to `tier`, cut short after each operation of the disk: with all that was not synced lost, and with nothing lost.
async fn crashes_on_the_way_to(tier: Tier) {
    let disk = SimDisk::new();
    let opened = open(&disk).unwrap();
    let info = stored(&opened).await;
    if tier == Tier::Hot {
        opened.tiered.move_to(&info.object, Tier::Cold).await.unwrap();
    }
    let before = disk.operations();
    opened.tiered.move_to(&info.object, tier).await.unwrap();
    let after = disk.operations();
    assert!(after > before + 4, "copying, and taking away, are operations of the disk");
    for (at, loss) in (before..=after).flat_map(|at| [(at, Loss::Everything), (at, Loss::Nothing)]) {
        let opened = open(&disk.crash(at, loss)).unwrap();
        assert!(read(&*opened.tiered, &info.object).await.unwrap() == bytes(1, LENGTH), "operation {at}");
        opened.tiered.move_to(&info.object, tier).await.unwrap();
        assert_eq!(opened.tiered.tier_of(info.object.key).await.unwrap(), tier);
        assert!(read(&*opened.tiered, &info.object).await.unwrap() == bytes(1, LENGTH), "operation {at}");
        assert!(is_in(&*opened.hot, &info).await != is_in(&*opened.cold, &info).await, "in one of the two");
        opened.tiered.close().await.unwrap();
    }
}

async fn crashes() {
    crashes_on_the_way_to(Tier::Cold).await;
    crashes_on_the_way_to(Tier::Hot).await;
}

async fn read_meanwhile() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    let info = stored(&opened).await;
    let mut found = Vec::new();
    let mut stream = opened.tiered.read(&info.object, 7..info.object.length).await.unwrap();
    for tier in [Tier::Cold, Tier::Hot].into_iter().cycle() {
        let Some(chunk) = stream.next().await else { break };
        found.extend(chunk.unwrap());
        assert!(opened.tiered.move_to(&info.object, tier).await.unwrap());
    }
    assert!(found == bytes(1, LENGTH)[7..]);
}

async fn damaged_copy() {
    let disk = SimDisk::unrecorded();
    let opened = open(&disk).unwrap();
    // A move was cut short after its copy was made, and the copy was damaged since.
    put(&*opened.cold, key(1), &bytes(1, LENGTH), 100_000).await.unwrap();
    opened.tiered.close().await.unwrap();
    drop(opened);
    for (path, at) in find(&disk, COLD, &bytes(1, LENGTH)[1_000_000..1_000_064]) {
        disk.damage(&path, at, &[0, 0, 0]).unwrap();
    }
    let opened = open(&disk).unwrap();
    let info = put(&*opened.hot, key(1), &bytes(1, LENGTH), 100_000).await.unwrap();
    assert_eq!(read(&*opened.cold, &info.object).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert!(opened.tiered.move_to(&info.object, Tier::Cold).await.unwrap());
    assert!(!is_in(&*opened.hot, &info).await);
    assert!(read(&*opened.cold, &info.object).await.unwrap() == bytes(1, LENGTH));
}

async fn other_bytes() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    let other = put(&*opened.cold, key(1), &bytes(2, 5_000), 5_000).await.unwrap();
    let info = put(&*opened.hot, key(1), &bytes(1, LENGTH), 100_000).await.unwrap();
    let refused = opened.tiered.move_to(&info.object, Tier::Cold).await;
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Invalid);
    for (object, content) in [(info.object, bytes(1, LENGTH)), (other.object, bytes(2, 5_000))] {
        assert!(read(&*opened.tiered, &object).await.unwrap() == content);
    }
}

async fn damaged_bytes() {
    let disk = SimDisk::unrecorded();
    let opened = open(&disk).unwrap();
    let info = stored(&opened).await;
    opened.tiered.close().await.unwrap();
    drop(opened);
    for (path, at) in find(&disk, crate::backend::HOT, &bytes(1, LENGTH)[1_000_000..1_000_064]) {
        disk.damage(&path, at, &[0, 0, 0]).unwrap();
    }
    let opened = open(&disk).unwrap();
    let failed = opened.tiered.move_to(&info.object, Tier::Cold).await;
    assert_eq!(failed.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert!(is_in(&*opened.hot, &info).await && !is_in(&*opened.cold, &info).await);
}

async fn there_and_back() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    let info = stored(&opened).await;
    for (tier, (hot, cold)) in [(Tier::Cold, (false, true)), (Tier::Hot, (true, false))] {
        assert!(opened.tiered.move_to(&info.object, tier).await.unwrap());
        assert!(!opened.tiered.move_to(&info.object, tier).await.unwrap(), "nothing is left to move");
        assert_eq!((is_in(&*opened.hot, &info).await, is_in(&*opened.cold, &info).await), (hot, cold));
        assert_eq!(opened.tiered.list(None, 10).await.unwrap().objects.len(), 1);
        assert_eq!(opened.tiered.space_of(tier).await.unwrap().used, opened.tiered.space().await.unwrap().used);
    }
    opened.tiered.delete(info.object.key).await.unwrap();
    let gone = opened.tiered.move_to(&info.object, Tier::Cold).await;
    assert_eq!(gone.unwrap_err().kind(), StoreErrorKind::NotFound);
}

async fn deleted_meanwhile() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    for round in 0..20 {
        let info = put(&*opened.tiered, key(round), &bytes(round, LENGTH), 100_000).await.unwrap();
        let moved = async {
            match opened.tiered.move_to(&info.object, Tier::Cold).await {
                Err(error) if error.kind() != StoreErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        };
        let deleted = async {
            tokio::task::yield_now().await;
            opened.tiered.delete(info.object.key).await.unwrap();
        };
        tokio::join!(moved, deleted);
        assert!(!is_in(&*opened.hot, &info).await && !is_in(&*opened.cold, &info).await, "it came back");
    }
}

async fn put_away() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    let info = stored(&opened).await;
    opened.tiered.move_to(&info.object, Tier::Cold).await.unwrap();
    let cold = Arc::new(PutAway { store: opened.cold.clone(), is_restored: AtomicBool::new(false) });
    let (looked, store) = (cold.clone(), cold.clone() as Arc<dyn ObjectStore>);
    let away = AwayStore::new(
        "the cold object store",
        Box::new(move || {
            let store = store.clone();
            Box::pin(async move { Ok(store) })
        }),
        Duration::ZERO,
    );
    let tiered = TieredStore::new(opened.hot.clone(), Arc::new(away));
    assert_eq!(read(&tiered, &info.object).await.unwrap_err().kind(), StoreErrorKind::Archived);
    assert!(!looked.is_restored.load(Ordering::Relaxed), "who only reads asks for nothing");
    let later = tiered.move_to(&info.object, Tier::Hot).await;
    assert_eq!(later.unwrap_err().kind(), StoreErrorKind::Archived);
    assert!(looked.is_restored.load(Ordering::Relaxed));
    assert!(tiered.move_to(&info.object, Tier::Hot).await.unwrap());
    assert!(is_in(&*opened.hot, &info).await && !is_in(&*opened.cold, &info).await);
    assert!(read(&tiered, &info.object).await.unwrap() == bytes(1, LENGTH));
}

async fn full() {
    let disk = SimDisk::unrecorded();
    let opened = open(&disk).unwrap();
    let info = stored(&opened).await;
    disk.set_capacity(disk.allocated());
    let mut moved = 0;
    let refused = loop {
        let info = put(&*opened.hot, key(100 + moved), &bytes(moved, LENGTH), 100_000).await;
        let info = match info {
            Ok(info) => info,
            Err(error) => break error,
        };
        if let Err(error) = opened.tiered.move_to(&info.object, Tier::Cold).await {
            assert!(is_in(&*opened.hot, &info).await);
            break error;
        }
        moved += 1;
        assert!(moved < 1_000, "the disk never fills");
    };
    assert_eq!(refused.kind(), StoreErrorKind::Exhausted, "{refused}");
    assert!(read(&*opened.tiered, &info.object).await.unwrap() == bytes(1, LENGTH));
    disk.set_capacity(u64::MAX);
    assert!(opened.tiered.move_to(&info.object, Tier::Cold).await.unwrap());
}

async fn away() {
    let opened = open(&SimDisk::unrecorded()).unwrap();
    let info = stored(&opened).await;
    opened.tiered.move_to(&info.object, Tier::Cold).await.unwrap();
    let (is_there, cold) = (Arc::new(AtomicBool::new(false)), opened.cold.clone());
    let looks = is_there.clone();
    let away = AwayStore::new(
        "the cold object store",
        Box::new(move || {
            let (is_there, cold) = (looks.load(Ordering::Relaxed), cold.clone());
            Box::pin(async move {
                is_there.then_some(cold).ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "not mounted"))
            })
        }),
        Duration::ZERO,
    );
    let tiered = TieredStore::new(opened.hot.clone(), Arc::new(away));
    let unavailable = |error: StoreError| assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    unavailable(read(&tiered, &info.object).await.unwrap_err());
    unavailable(tiered.tier_of(info.object.key).await.unwrap_err());
    unavailable(tiered.delete(info.object.key).await.unwrap_err());
    unavailable(tiered.list(None, 10).await.unwrap_err());
    // What comes in is stored, and read, all the same.
    let new = put(&tiered, key(2), &bytes(2, 5_000), 5_000).await.unwrap();
    assert!(read(&tiered, &new.object).await.unwrap() == bytes(2, 5_000));
    unavailable(tiered.move_to(&new.object, Tier::Cold).await.unwrap_err());
    is_there.store(true, Ordering::Relaxed);
    assert!(read(&tiered, &info.object).await.unwrap() == bytes(1, LENGTH));
    assert!(tiered.move_to(&new.object, Tier::Cold).await.unwrap());
}
