use super::Backend;
use cairn_archive::{KeyId, sealing::KeyBytes};
use cairn_store_api::{KeyState, KeyStore, StoreErrorKind};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

fn id(number: u64) -> KeyId {
    let hash = blake3::hash(&number.to_le_bytes());
    KeyId(Uuid::from_slice(&hash.as_bytes()[..16]).unwrap())
}

fn key(number: u64) -> KeyBytes {
    KeyBytes(*blake3::hash(format!("key {number}").as_bytes()).as_bytes())
}

fn keys(numbers: impl IntoIterator<Item = u64>) -> Vec<(KeyId, KeyBytes)> {
    numbers.into_iter().map(|number| (id(number), key(number))).collect()
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<KeyId> {
    numbers.into_iter().map(id).collect()
}

async fn assert_here(store: &Arc<dyn KeyStore>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        assert_eq!(store.get(id(number)).await.unwrap(), KeyState::Key(key(number)), "key {number}");
    }
}

async fn assert_destroyed(store: &Arc<dyn KeyStore>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        assert_eq!(store.get(id(number)).await.unwrap(), KeyState::Destroyed, "key {number}");
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

pub(super) async fn durable_when_added(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..5)).await.unwrap();
    store.add(keys(5..6)).await.unwrap();
    store.destroy(ids([1, 9])).await.unwrap();
    backend.crash(0).await;
    drop(store);
    let store = backend.open().await.unwrap();
    assert_here(&store, [0, 2, 3, 4, 5]).await;
    assert_destroyed(&store, [1, 9]).await;
}

pub(super) async fn given_as_added_after_closing(backend: Backend) {
    for round in 0..4 {
        let store = backend.open().await.unwrap();
        assert_here(&store, 0..round * 10).await;
        store.add(keys(round * 10..round * 10 + 10)).await.unwrap();
        assert_here(&store, 0..round * 10 + 10).await;
        store.close().await.unwrap();
        assert_eq!(store.get(id(0)).await.map_err(|error| error.kind()), Err(StoreErrorKind::Unavailable));
    }
}

pub(super) async fn present_and_destroyed_stay_as_they_are(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..3)).await.unwrap();
    store.add([keys(0..3), keys(0..4)].concat()).await.unwrap();
    let other = store.add(vec![(id(5), key(5)), (id(1), key(7))]).await.unwrap_err();
    assert_eq!(other.kind(), StoreErrorKind::Conflict, "{other}");
    let twice = store.add(vec![(id(6), key(6)), (id(6), key(7))]).await.unwrap_err();
    assert_eq!(twice.kind(), StoreErrorKind::Conflict, "{twice}");
    assert_here(&store, 0..4).await;
    store.destroy(ids([2])).await.unwrap();
    store.add(keys([2, 8])).await.unwrap();
    assert_destroyed(&store, [2]).await;
    assert_here(&store, [0, 1, 3, 8]).await;
}

pub(super) async fn destroyed_is_for_ever(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..4)).await.unwrap();
    store.destroy(ids([1, 1, 3, 7])).await.unwrap();
    store.destroy(ids([1, 3])).await.unwrap();
    for _ in 0..2 {
        let store = {
            store.close().await.unwrap();
            backend.open().await.unwrap()
        };
        assert_destroyed(&store, [1, 3, 7]).await;
        assert_here(&store, [0, 2]).await;
        store.add(keys([1, 7])).await.unwrap();
        assert_destroyed(&store, [1, 7]).await;
        store.close().await.unwrap();
    }
}

/// What a store wrote of a key, it writes nowhere once that is destroyed.
pub(super) async fn nothing_stored_gives_a_destroyed_key(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..1)).await.unwrap();
    let before = backend.stored().await;
    store.add(keys(1..2)).await.unwrap();
    let after = backend.stored().await;
    // Everything of some length that came with the key.
    let came: Vec<&[u8]> = after.windows(24).filter(|window| !has(&before, window)).collect();
    assert!(!came.is_empty());
    store.destroy(ids([1])).await.unwrap();
    let stored = backend.stored().await;
    let left = came.iter().filter(|window| has(&stored, window)).count();
    assert_eq!(left, 0, "of {} pieces that were written with a key", came.len());
    assert!(!has(&stored, &key(1).0) && !has(&stored, &key(0).0));
    assert_here(&store, [0]).await;
}

pub(super) async fn absent_is_absent(backend: Backend) {
    let store = backend.open().await.unwrap();
    assert_eq!(store.get(id(0)).await.unwrap(), KeyState::Absent);
    store.add(keys(1..3)).await.unwrap();
    assert_eq!(store.get(id(0)).await.unwrap(), KeyState::Absent);
}

pub(super) async fn damage_is_corrupt(backend: Backend) {
    let store = backend.open().await.unwrap();
    for number in 0..4 {
        store.add(keys([number])).await.unwrap();
    }
    store.close().await.unwrap();
    backend.damage(id(1).as_bytes()).await;
    let store = backend.open().await.unwrap();
    assert_here(&store, [0, 2, 3]).await;
    assert_eq!(store.get(id(1)).await.map_err(|error| error.kind()), Err(StoreErrorKind::Corrupt));
    store.add(keys([1])).await.unwrap();
    assert_here(&store, 0..4).await;
}

pub(super) async fn listed_once_in_order(backend: Backend) {
    let store = backend.open().await.unwrap();
    assert_eq!(store.list(None, 10).await.unwrap().keys, Vec::new());
    store.add(keys(0..25)).await.unwrap();
    store.destroy(ids([3, 40])).await.unwrap();
    let mut expected: BTreeMap<KeyId, bool> = ids(0..25).into_iter().map(|id| (id, false)).collect();
    expected.extend([(id(3), true), (id(40), true)]);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after, 10).await.unwrap();
        found.extend(page.keys);
        after = found.last().map(|(id, _)| *id);
        if !page.more {
            break;
        }
    }
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

pub(super) async fn open_once(backend: Backend) {
    let store = backend.open().await.unwrap();
    let again = backend.open().await.err().map(|error| error.kind());
    assert_eq!(again, Some(StoreErrorKind::Conflict));
    drop(store);
    backend.open().await.unwrap();
}

/// Crashes in the middle of adding and destroying: what was there before is there, what was under way is so or so.
pub(super) async fn whole_or_not_at_all(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..3)).await.unwrap();
    store.destroy(ids([0])).await.unwrap();
    drop(store);
    for round in 0..30 {
        let store = backend.open().await.unwrap();
        let first = 100 + round * 10;
        store.add(keys(first..first + 4)).await.unwrap();
        store.destroy(ids([first, first + 1])).await.unwrap();
        backend.crash(round % 10).await;
        drop(store);
        let store = backend.open().await.unwrap();
        assert_here(&store, [1, 2]).await;
        assert_destroyed(&store, [0]).await;
        for number in first..first + 4 {
            match store.get(id(number)).await.unwrap() {
                KeyState::Key(found) => assert_eq!(found, key(number)),
                KeyState::Destroyed => assert!(number < first + 2, "key {number} was not destroyed"),
                KeyState::Absent | KeyState::Abandoned => {}
            }
        }
        // Whatever it is, it goes on from there.
        store.add(keys(first..first + 4)).await.unwrap();
        store.destroy(ids([first])).await.unwrap();
        assert_destroyed(&store, [first]).await;
        assert_here(&store, [first + 2, first + 3]).await;
    }
}

pub(super) async fn another_master_key_opens_nothing(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..2)).await.unwrap();
    store.close().await.unwrap();
    let refused = backend.open_with_another_master().await.err().map(|error| error.kind());
    assert_eq!(refused, Some(StoreErrorKind::Invalid));
    let stored = backend.stored().await;
    assert!(!has(&stored, &key(0).0) && !has(&stored, &key(1).0));
    assert_here(&backend.open().await.unwrap(), 0..2).await;
}

pub(super) async fn full_is_exhausted_and_passes(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.add(keys(0..2)).await.unwrap();
    backend.fill(true).await;
    let full = store.add(keys(2..4)).await.map_err(|error| error.kind());
    assert_eq!(full, Err(StoreErrorKind::Exhausted));
    assert_here(&store, 0..2).await;
    backend.fill(false).await;
    store.add(keys(2..4)).await.unwrap();
    assert_here(&store, 0..4).await;
}
