//! Objects that trials store, and short ways to do so.

use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_store_api::{ObjectInfo, ObjectRef, ObjectStore, StoreError};
use futures_util::StreamExt;
use std::ops::Range;
use uuid::Uuid;

fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key of its own for each number, in no order.
pub fn key(number: u64) -> ObjectKey {
    ObjectKey(Uuid::from_u64_pair(mix(number), mix(number ^ 0x5555)))
}

/// Bytes of their own for each number; no two places look alike.
pub fn bytes(number: u64, length: usize) -> Bytes {
    let word = |place: u64| mix(number.wrapping_mul(0x1_0000_0001).wrapping_add(place)).to_le_bytes();
    let mut bytes: Vec<u8> = (0..length.div_ceil(8) as u64).flat_map(word).collect();
    bytes.truncate(length);
    bytes.into()
}

/// Stores bytes in pieces of the size given.
pub async fn put(
    store: &dyn ObjectStore,
    key: ObjectKey,
    bytes: &Bytes,
    piece: usize,
) -> Result<ObjectInfo, StoreError> {
    let mut writer = store.put(key, None).await?;
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + piece);
        writer.write(bytes.slice(at..end)).await?;
        at = end;
    }
    writer.finish().await
}

/// All bytes of a range.
pub async fn read_range(store: &dyn ObjectStore, object: &ObjectRef, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
    let mut stream = store.read(object, range).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend(chunk?);
    }
    Ok(bytes)
}

/// All bytes.
pub async fn read(store: &dyn ObjectStore, object: &ObjectRef) -> Result<Vec<u8>, StoreError> {
    read_range(store, object, 0..object.length).await
}

/// All objects, by pages.
pub(crate) async fn list(store: &dyn ObjectStore, page: usize) -> Vec<ObjectInfo> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let found = store.list(after, page).await.unwrap();
        assert!(found.objects.len() <= page, "a page of {} where {page} were asked for", found.objects.len());
        all.extend(found.objects);
        if !found.more {
            return all;
        }
        assert!(after < all.last().map(|info| info.object.key), "a page that leads no further");
        after = all.last().map(|info| info.object.key);
    }
}
