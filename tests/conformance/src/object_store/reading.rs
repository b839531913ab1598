use super::Backend;
use super::objects::{bytes, key, list, put, read, read_range};
use cairn_archive::Digest;
use cairn_store_api::{ObjectRef, StoreErrorKind};
use futures_util::StreamExt;

const GROUP: u64 = 64 * 1024;

pub(super) async fn ranges_are_exact(backend: Backend) {
    let store = backend.open().await.unwrap();
    for (number, length) in [0, 1, GROUP, GROUP + 1, 3 * GROUP - 1, 40 * GROUP + 17].into_iter().enumerate() {
        let content = bytes(number as u64, length as usize);
        let object = put(&*store, key(number as u64), &content, 100_000).await.unwrap().object;
        let mut edges = vec![0, 1, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 16 * GROUP - 5, 33 * GROUP];
        edges.extend([length / 2, length.saturating_sub(1), length]);
        edges.retain(|edge| *edge <= length);
        for (from, to) in edges.iter().flat_map(|from| edges.iter().map(move |to| (*from, *to))) {
            if from <= to {
                let found = read_range(&*store, &object, from..to).await.unwrap();
                assert!(found == content[from as usize..to as usize], "bytes {from}..{to} of {length}");
            }
        }
    }
}

pub(super) async fn damage_is_never_served(backend: Backend) {
    let store = backend.open().await.unwrap();
    let content = bytes(1, 40 * GROUP as usize + 17);
    let object = put(&*store, key(1), &content, 100_000).await.unwrap().object;
    let other = put(&*store, key(2), &bytes(2, 5000), 5000).await.unwrap().object;
    store.close().await.unwrap();
    drop(store);
    let place = 20 * GROUP as usize + 100;
    backend.damage(&content[place..place + 64]).await;
    let store = backend.open().await.unwrap();
    assert_eq!(read(&*store, &object).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    let around = read_range(&*store, &object, 20 * GROUP..20 * GROUP + 10).await;
    assert_eq!(around.unwrap_err().kind(), StoreErrorKind::Corrupt);
    // Other groups and other objects are as good as before.
    let before = read_range(&*store, &object, 0..20 * GROUP).await.unwrap();
    assert!(before == content[..20 * GROUP as usize]);
    let after = read_range(&*store, &object, 21 * GROUP..object.length).await.unwrap();
    assert!(after == content[21 * GROUP as usize..]);
    assert!(read(&*store, &other).await.unwrap() == bytes(2, 5000));
    // What a stream gives before it fails is right.
    let mut stream = store.read(&object, 0..object.length).await.unwrap();
    let mut given = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        assert!(content[given..given + chunk.len()] == chunk);
        given += chunk.len();
    }
    assert!(given <= place, "damaged bytes were given out");
}

pub(super) async fn absent_is_not_found(backend: Backend) {
    let store = backend.open().await.unwrap();
    let object = put(&*store, key(1), &bytes(1, 100), 100).await.unwrap().object;
    let absent = ObjectRef { key: key(2), ..object };
    assert_eq!(store.stat(absent.key).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(read(&*store, &absent).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    store.delete(object.key).await.unwrap();
    assert_eq!(store.stat(object.key).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(read(&*store, &object).await.unwrap_err().kind(), StoreErrorKind::NotFound);
}

#[expect(clippy::reversed_empty_ranges, reason = "a range that no caller should ask for")]
pub(super) async fn another_range_length_or_digest_is_invalid(backend: Backend) {
    let store = backend.open().await.unwrap();
    let object = put(&*store, key(1), &bytes(1, 1000), 1000).await.unwrap().object;
    for range in [0..1001, 1001..1001, 5..4, 0..u64::MAX] {
        let error = read_range(&*store, &object, range.clone()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{range:?}");
    }
    let mut digest = object.digest;
    digest.0[31] ^= 1;
    for wrong in [
        ObjectRef { length: 999, ..object },
        ObjectRef { digest, ..object },
        ObjectRef { digest: Digest([0; 32]), ..object },
    ] {
        assert_eq!(read_range(&*store, &wrong, 0..10).await.unwrap_err().kind(), StoreErrorKind::Invalid);
    }
    assert_eq!(read(&*store, &object).await.unwrap(), bytes(1, 1000));
}

pub(super) async fn listed_once_in_key_order(backend: Backend) {
    let store = backend.open().await.unwrap();
    assert!(list(&*store, 10).await.is_empty());
    let mut stored = Vec::new();
    for number in 0..300 {
        stored.push(put(&*store, key(number), &bytes(number, 10 + number as usize), 1000).await.unwrap());
    }
    for number in (0..300).step_by(7) {
        store.delete(key(number)).await.unwrap();
    }
    stored.retain(|info| !(0..300).step_by(7).any(|number| key(number) == info.object.key));
    stored.sort_by_key(|info| info.object.key);
    for page in [1, 7, 255, 256, 1000] {
        assert_eq!(list(&*store, page).await, stored, "pages of {page}");
    }
    for info in &stored {
        assert_eq!(store.stat(info.object.key).await.unwrap(), *info);
    }
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    assert_eq!(list(&*store, 50).await, stored, "after reopening");
}

pub(super) async fn chunks_are_at_most_1_mib(backend: Backend) {
    let store = backend.open().await.unwrap();
    let content = bytes(1, 9 * 1024 * 1024 + 5);
    let object = put(&*store, key(1), &content, 1 << 20).await.unwrap().object;
    let mut stream = store.read(&object, 3..object.length).await.unwrap();
    let mut at = 3;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        assert!(!chunk.is_empty() && chunk.len() <= 1 << 20, "a chunk of {} bytes", chunk.len());
        assert!(content[at..at + chunk.len()] == chunk);
        at += chunk.len();
    }
    assert_eq!(at, content.len());
}
