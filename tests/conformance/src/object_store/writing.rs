use super::Backend;
use super::objects::{bytes, key, list, put, read};
use bytes::Bytes;
use cairn_archive::Digest;
use cairn_store_api::{ObjectInfo, ObjectRef, ObjectStore, StoreError, StoreErrorKind};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};

const LENGTHS: [usize; 9] = [0, 1, 2000, 65_535, 65_536, 65_537, 262_144, 526_000, 1_500_000];

/// Stores objects of all lengths at once.
async fn put_many(store: &Arc<dyn ObjectStore>, from: u64, count: u64) -> Vec<ObjectInfo> {
    let puts = (from..from + count).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let length = LENGTHS[number as usize % LENGTHS.len()];
            put(&*store, key(number), &bytes(number, length), 16_372).await.unwrap()
        })
    });
    join_all(puts).await.into_iter().map(|put| put.unwrap()).collect()
}

async fn assert_whole(store: &dyn ObjectStore, from: u64, infos: &[ObjectInfo]) {
    for (info, number) in infos.iter().zip(from..) {
        assert_eq!(store.stat(key(number)).await.unwrap(), *info);
        let found = read(store, &info.object).await.unwrap();
        assert!(found == bytes(number, LENGTHS[number as usize % LENGTHS.len()]), "object {number} has other bytes");
    }
}

pub(super) async fn durable_on_finish(backend: Backend) {
    let store = backend.open().await.unwrap();
    let first = put_many(&store, 0, 20).await;
    backend.crash().await;
    drop(store);
    let store = backend.open().await.unwrap();
    assert_whole(&*store, 0, &first).await;
    let second = put_many(&store, 20, 20).await;
    backend.crash().await;
    drop(store);
    let store = backend.open().await.unwrap();
    assert_whole(&*store, 0, &first).await;
    assert_whole(&*store, 20, &second).await;
}

pub(super) async fn durable_on_closing(backend: Backend) {
    let mut infos = Vec::new();
    for round in 0..4 {
        let store = backend.open().await.unwrap();
        assert_whole(&*store, 0, &infos).await;
        infos.extend(put_many(&store, round * 10, 10).await);
        store.close().await.unwrap();
        assert_eq!(store.put(key(1000), None).await.err().map(|error| error.kind()), Some(StoreErrorKind::Unavailable));
    }
}

pub(super) async fn length_and_digest_of_exactly_the_bytes(backend: Backend) {
    let store = backend.open().await.unwrap();
    let mut number = 0;
    for length in LENGTHS {
        for (piece, hint) in [(1 << 20, None), (16_372, Some(length as u64)), (9999, Some(3)), (70_001, Some(u64::MAX))]
        {
            number += 1;
            let content = bytes(number, length);
            let mut writer = store.put(key(number), hint).await.unwrap();
            for piece in content.chunks(piece) {
                writer.write(content.slice_ref(piece)).await.unwrap();
                writer.write(Bytes::new()).await.unwrap();
            }
            let info = writer.finish().await.unwrap();
            assert_eq!(info.object.key, key(number));
            assert_eq!(info.object.length, length as u64);
            assert_eq!(info.object.digest.0, *blake3::hash(&content).as_bytes(), "{length} bytes by {piece}");
            assert!(read(&*store, &info.object).await.unwrap() == content);
        }
    }
}

pub(super) async fn readable_only_after_finish(backend: Backend) {
    let store = backend.open().await.unwrap();
    let mut writer = store.put(key(1), None).await.unwrap();
    for piece in 0..20 {
        assert_eq!(store.stat(key(1)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
        writer.write(bytes(piece, 50_000)).await.unwrap();
        assert!(list(&*store, 10).await.is_empty());
    }
    let info = writer.finish().await.unwrap();
    assert_eq!(store.stat(key(1)).await.unwrap(), info);
    assert_eq!(list(&*store, 10).await, [info]);
}

pub(super) async fn a_dropped_writer_leaves_nothing(backend: Backend) {
    let store = backend.open().await.unwrap();
    for (number, length) in LENGTHS.into_iter().enumerate() {
        let mut writer = store.put(key(number as u64), None).await.unwrap();
        writer.write(bytes(number as u64, length)).await.unwrap();
        drop(writer);
    }
    assert!(list(&*store, 10).await.is_empty());
    // The keys are as free as before.
    let infos = put_many(&store, 0, LENGTHS.len() as u64).await;
    assert_whole(&*store, 0, &infos).await;
    let mut writer = store.put(key(100), None).await.unwrap();
    writer.write(bytes(100, 500_000)).await.unwrap();
    drop(writer);
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    assert_eq!(list(&*store, 100).await.len(), LENGTHS.len());
    assert_whole(&*store, 0, &infos).await;
}

pub(super) async fn a_present_key_is_a_conflict(backend: Backend) {
    let store = backend.open().await.unwrap();
    let first = put(&*store, key(1), &bytes(1, 100_000), 10_000).await.unwrap();
    for _ in 0..2 {
        let again = put(&*store, key(1), &bytes(2, 50_000), 10_000).await;
        assert_eq!(again.unwrap_err().kind(), StoreErrorKind::Conflict);
        assert_eq!(store.stat(key(1)).await.unwrap(), first);
        assert!(read(&*store, &first.object).await.unwrap() == bytes(1, 100_000));
    }
}

pub(super) async fn of_racing_writers_one_wins(backend: Backend) {
    let store = backend.open().await.unwrap();
    for round in 0..10 {
        // All are open before any finishes, unless the store refuses the later ones at once.
        let mut writers = Vec::new();
        for number in 0..6 {
            match store.put(key(round), None).await {
                Ok(writer) => writers.push((number, writer)),
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Conflict),
            }
        }
        let finishes = writers.into_iter().map(|(number, mut writer)| async move {
            writer.write(bytes(number, 300_000)).await?;
            writer.finish().await.map(|info| (number, info))
        });
        let (won, lost): (Vec<_>, Vec<_>) = join_all(finishes).await.into_iter().partition(Result::is_ok);
        assert!(lost.into_iter().all(|lost| lost.unwrap_err().kind() == StoreErrorKind::Conflict));
        let [Ok((number, info))] = won.as_slice() else { panic!("{} writers won", won.len()) };
        assert_eq!(store.stat(key(round)).await.unwrap(), *info);
        assert!(read(&*store, &info.object).await.unwrap() == bytes(*number, 300_000));
    }
}

pub(super) async fn deleted_is_not_found_and_its_room_free(backend: Backend) {
    let store = backend.open().await.unwrap();
    let infos = put_many(&store, 0, 18).await;
    let used = store.space().await.unwrap().used;
    store.delete(key(7)).await.unwrap();
    store.delete(key(7)).await.unwrap();
    store.delete(key(999)).await.unwrap();
    assert_eq!(store.stat(key(7)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(read(&*store, &infos[7].object).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    let freed = used - store.space().await.unwrap().used;
    assert!(freed >= infos[7].object.length, "{freed} bytes were freed");
    assert_whole(&*store, 0, &infos[..7]).await;
    assert_whole(&*store, 8, &infos[8..]).await;
    for number in 0..18 {
        store.delete(key(number)).await.unwrap();
    }
    assert!(list(&*store, 10).await.is_empty());
    assert_eq!(store.space().await.unwrap().used, 0);
}

pub(super) async fn deleted_stays_deleted(backend: Backend) {
    let store = backend.open().await.unwrap();
    let infos = put_many(&store, 0, 9).await;
    join_all((0..4).map(|number| store.delete(key(number)))).await.into_iter().for_each(|deleted| deleted.unwrap());
    backend.crash().await;
    drop(store);
    let store = backend.open().await.unwrap();
    for number in 0..4 {
        assert_eq!(store.stat(key(number)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    }
    assert_whole(&*store, 4, &infos[4..]).await;
    assert_eq!(list(&*store, 100).await.len(), 5);
}

pub(super) async fn a_writer_takes_no_more_than_it_can_pass_on(backend: Backend) {
    const MANY: usize = 64 << 20;
    let store = backend.open().await.unwrap();
    let piece = bytes(1, 100_000);
    let mut writer = store.put(key(1), None).await.unwrap();
    writer.write(piece.clone()).await.unwrap();
    backend.stall(true).await;
    let mut taken = piece.len();
    // No state to wait for: a writer that goes on taking would end this by itself.
    let fill = async {
        while taken < MANY {
            writer.write(piece.clone()).await.unwrap();
            taken += piece.len();
        }
    };
    let ended = tokio::time::timeout(Duration::from_millis(500), fill).await;
    backend.stall(false).await;
    assert!(ended.is_err(), "{MANY} bytes were taken while none could be written");
    assert!(taken <= 8 << 20, "{taken} bytes were taken while none could be written");
}

pub(super) async fn a_slow_writer_delays_nobody(backend: Backend) {
    let store = backend.open().await.unwrap();
    let mut slow = store.put(key(1000), Some(3_000_000)).await.unwrap();
    slow.write(bytes(1000, 1_000_000)).await.unwrap();
    let infos = put_many(&store, 0, 30).await;
    slow.write(bytes(1001, 1_000_000)).await.unwrap();
    assert_whole(&*store, 0, &infos).await;
    let object = slow.finish().await.unwrap().object;
    let expected = [bytes(1000, 1_000_000), bytes(1001, 1_000_000)].concat();
    assert!(read(&*store, &object).await.unwrap() == expected);
}

pub(super) async fn writers_at_once(backend: Backend) {
    let store = backend.open().await.unwrap();
    let infos = put_many(&store, 0, 120).await;
    assert_whole(&*store, 0, &infos).await;
    assert_eq!(list(&*store, 50).await.len(), infos.len());
}

pub(super) async fn full_is_exhausted_and_passes(backend: Backend) {
    let store = backend.open().await.unwrap();
    let before = put_many(&store, 0, 9).await;
    backend.fill(true).await;
    let mut stored = Vec::new();
    let refused = 'full: loop {
        assert!(stored.len() < 10_000, "the store never fills");
        let number = 1000 + stored.len() as u64;
        let mut writer = match store.put(key(number), None).await {
            Ok(writer) => writer,
            Err(error) => break error,
        };
        let content = bytes(number, 526_000);
        for piece in content.chunks(65_536) {
            if let Err(error) = writer.write(content.slice_ref(piece)).await {
                break 'full error;
            }
        }
        match writer.finish().await {
            Ok(info) => stored.push(info),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), StoreErrorKind::Exhausted, "{refused}");
    assert_whole(&*store, 0, &before).await;
    for info in &stored {
        read(&*store, &info.object).await.unwrap();
    }
    backend.fill(false).await;
    let after = put_many(&store, 500, 9).await;
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    assert_whole(&*store, 0, &before).await;
    assert_whole(&*store, 500, &after).await;
    assert_eq!(list(&*store, 1000).await.len(), 18 + stored.len());
}

pub(super) async fn what_was_finished_and_no_other(backend: Backend) {
    let mut infos = Vec::new();
    for round in 0..5 {
        let store = backend.open().await.unwrap();
        assert_eq!(list(&*store, 100).await.len(), infos.len());
        assert_whole(&*store, 0, &infos).await;
        let mut unfinished = Vec::new();
        for number in 0..5 {
            let mut writer = store.put(key(10_000 + round * 10 + number), None).await.unwrap();
            writer.write(bytes(number, 700_000)).await.unwrap();
            unfinished.push(writer);
        }
        infos.extend(put_many(&store, round * 20, 20).await);
        backend.crash().await;
    }
}

pub(super) async fn open_once(backend: Backend) {
    let store = backend.open().await.unwrap();
    assert_eq!(backend.open().await.err().map(|error| error.kind()), Some(StoreErrorKind::Conflict));
    put(&*store, key(1), &bytes(1, 1000), 1000).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    backend.open().await.unwrap().stat(key(1)).await.unwrap();
}

/// Brings the bytes of an object again.
async fn repair(store: &dyn ObjectStore, object: &ObjectRef, bytes: &Bytes) -> Result<ObjectInfo, StoreError> {
    let mut writer = store.repair(object).await?;
    for piece in bytes.chunks(70_001) {
        writer.write(bytes.slice_ref(piece)).await?;
    }
    writer.finish().await
}

pub(super) async fn a_repair_brings_the_same_bytes_and_no_other(backend: Backend) {
    let store = backend.open().await.unwrap();
    for (number, length) in (0..).zip([0, 5_000, 1_500_000]) {
        let content = bytes(number, length);
        let object = put(&*store, key(number), &content, 100_000).await.unwrap().object;
        let used = store.space().await.unwrap().used;
        // Other bytes are refused, and change nothing.
        let other = bytes(number + 100, length + 1);
        assert_eq!(repair(&*store, &object, &other).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
        let another = ObjectRef { digest: Digest([7; 32]), ..object };
        let refused = repair(&*store, &another, &content).await;
        assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Conflict);
        drop(store.repair(&object).await.unwrap());
        assert!(read(&*store, &object).await.unwrap() == content);
        // Where it is whole it stays the same object, and where it is missing it is there again.
        assert_eq!(repair(&*store, &object, &content).await.unwrap().object, object);
        assert!(read(&*store, &object).await.unwrap() == content);
        assert_eq!(store.space().await.unwrap().used, used);
        store.delete(object.key).await.unwrap();
        assert_eq!(repair(&*store, &object, &content).await.unwrap().object, object);
        assert!(read(&*store, &object).await.unwrap() == content);
        let again = put(&*store, object.key, &content, 100_000).await;
        assert_eq!(again.unwrap_err().kind(), StoreErrorKind::Conflict);
    }
    assert_eq!(list(&*store, 10).await.len(), 3);
    for number in 0..3 {
        store.delete(key(number)).await.unwrap();
    }
    assert_eq!(store.space().await.unwrap().used, 0);
}

pub(super) async fn other_bytes_than_said_are_not_kept(backend: Backend) {
    let store = backend.open().await.unwrap();
    let digest = |content: &[u8]| Digest(*blake3::hash(content).as_bytes());
    for (number, length) in (0..).zip([0, 5_000, 2_600_017]) {
        let content = bytes(number, length);
        let wrong = [
            (content.len() as u64 + 1, digest(&content)),
            (content.len() as u64, digest(&bytes(number + 100, length + 1))),
        ];
        let writer = || async {
            let mut writer = store.put(key(number), Some(content.len() as u64)).await.unwrap();
            for chunk in content.chunks(100_000) {
                writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            writer
        };
        for (length, digest) in wrong {
            let refused = writer().await.finish_as(length, digest).await;
            assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Corrupt);
            assert_eq!(store.stat(key(number)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
        }
        let object = writer().await.finish_as(content.len() as u64, digest(&content)).await.unwrap().object;
        assert!(read(&*store, &object).await.unwrap() == content);
    }
    assert_eq!(list(&*store, 10).await.len(), 3);
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    assert_eq!(list(&*store, 10).await.len(), 3);
}

pub(super) async fn damage_is_repaired_for_good(backend: Backend) {
    let store = backend.open().await.unwrap();
    let (content, small) = (bytes(1, 2_600_017), bytes(3, 9_000));
    let object = put(&*store, key(1), &content, 100_000).await.unwrap().object;
    let beside = put(&*store, key(2), &bytes(2, 5_000), 5_000).await.unwrap();
    let second = put(&*store, key(3), &small, 5_000).await.unwrap().object;
    store.close().await.unwrap();
    drop(store);
    backend.damage(&content[1_300_000..1_300_064]).await;
    backend.damage(&small[100..164]).await;
    let store = backend.open().await.unwrap();
    for (object, content) in [(&object, &content), (&second, &small)] {
        assert_eq!(read(&*store, object).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
        assert_eq!(repair(&*store, object, content).await.unwrap().object, *object);
        assert!(read(&*store, object).await.unwrap() == *content);
    }
    let infos = list(&*store, 10).await;
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    assert_eq!(list(&*store, 10).await, infos);
    assert!(infos.len() == 3 && infos.contains(&beside));
    for (object, content) in [(&object, &content), (&second, &small)] {
        assert!(read(&*store, object).await.unwrap() == *content);
    }
    store.delete(object.key).await.unwrap();
    assert_eq!(read(&*store, &object).await.unwrap_err().kind(), StoreErrorKind::NotFound);
}
