use super::{Backend, G1, NAMES, STUDIES, commit, delete, get, keys, keys_of, put};
use bytes::Bytes;
use cairn_archive::Offset;
use cairn_store_api::{CkRange, StoreErrorKind};
use std::collections::BTreeMap;

/// Keys that are prefixes of each other, empty, and full of bytes that encodings trip over; not in order.
const KEYS: [&[u8]; 16] = [
    b"b",
    b"",
    b"\0",
    b"\0\0",
    b"\0\x01",
    b"\0\xFF",
    b"a",
    b"a\0",
    b"a\0\0b",
    b"a\0b",
    b"a\x01",
    b"ab",
    b"\xFF",
    b"\xFF\xFF",
    b"\xFF\0",
    b"\x01",
];

pub(super) async fn the_last_write_of_a_row_counts(backend: Backend) {
    let store = backend.open().await.unwrap();
    let store = store.as_ref();
    assert_eq!(get(store, "s", "a").await, None);
    store.commit(G1, commit(0, 1, vec![put(STUDIES, "s", "a", "1"), put(STUDIES, "s", "b", "")])).await.unwrap();
    assert_eq!(get(store, "s", "a").await, Some(Bytes::from("1")));
    assert_eq!(get(store, "s", "b").await, Some(Bytes::new()), "an empty value is a value");
    store.commit(G1, commit(1, 2, vec![put(STUDIES, "s", "a", "2"), delete(STUDIES, "s", "b")])).await.unwrap();
    assert_eq!(get(store, "s", "a").await, Some(Bytes::from("2")));
    assert_eq!(get(store, "s", "b").await, None);
    assert_eq!(keys(store, G1, STUDIES, b"s", false).await, ["a"]);
    store.commit(G1, commit(2, 3, vec![put(STUDIES, "s", "b", "3"), delete(STUDIES, "s", "never")])).await.unwrap();
    assert_eq!(get(store, "s", "b").await, Some(Bytes::from("3")));
    assert_eq!(store.get(G1, NAMES, b"s", b"a").await.unwrap(), None, "another table");
}

pub(super) async fn many_rows_come_in_the_order_asked_for(backend: Backend) {
    let store = backend.open().await.unwrap();
    let rows = (0..500_u32).map(|n| put(STUDIES, n.to_be_bytes(), "ck", format!("row {n}"))).collect();
    store.commit(G1, commit(0, 1, rows)).await.unwrap();
    let wanted: Vec<u32> = (0..1200).map(|n| n * 7 % 600).collect();
    let keys: Vec<_> = wanted.iter().map(|n| (Bytes::copy_from_slice(&n.to_be_bytes()), Bytes::from("ck"))).collect();
    let values = store.get_many(G1, STUDIES, &keys).await.unwrap();
    assert_eq!(values.len(), keys.len());
    for (n, value) in wanted.iter().zip(values) {
        assert_eq!(value, (*n < 500).then(|| Bytes::from(format!("row {n}"))));
    }
    assert_eq!(store.get_many(G1, STUDIES, &[]).await.unwrap(), Vec::<Option<Bytes>>::new());
}

pub(super) async fn rows_come_in_byte_order_both_ways(backend: Backend) {
    let store = backend.open().await.unwrap();
    let rows = KEYS.iter().map(|ck| put(STUDIES, "pk", ck, ck)).collect();
    store.commit(G1, commit(0, 1, rows)).await.unwrap();
    let mut sorted = KEYS.to_vec();
    sorted.sort_unstable();
    assert_eq!(keys(store.as_ref(), G1, STUDIES, b"pk", false).await, sorted);
    let reversed: Vec<_> = sorted.iter().rev().copied().collect();
    assert_eq!(keys(store.as_ref(), G1, STUDIES, b"pk", true).await, reversed);
    // Every range between two of them, and open ones.
    let ends: Vec<Option<Bytes>> = KEYS.iter().map(|key| Some(Bytes::from_static(key))).chain([None]).collect();
    for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
        let range = CkRange { from: from.clone(), to: to.clone() };
        let within = |key: &&&[u8]| {
            from.as_ref().is_none_or(|from| ***key >= **from) && to.as_ref().is_none_or(|to| ***key < **to)
        };
        let wanted: Vec<_> = sorted.iter().filter(within).copied().collect();
        let page = store.scan(G1, STUDIES, b"pk", &range, false, 100).await.unwrap();
        assert_eq!(keys_of(page), wanted, "{range:?}");
        let page = store.scan(G1, STUDIES, b"pk", &range, true, 100).await.unwrap();
        assert_eq!(keys_of(page), wanted.into_iter().rev().collect::<Vec<_>>(), "{range:?} reversed");
    }
}

pub(super) async fn partition_keys_do_not_mix(backend: Backend) {
    let store = backend.open().await.unwrap();
    let rows = KEYS.iter().flat_map(|pk| KEYS.iter().map(move |ck| put(STUDIES, pk, ck, [*pk, b"|", *ck].concat())));
    store.commit(G1, commit(0, 1, rows.collect())).await.unwrap();
    let rows = KEYS.iter().map(|pk| put(NAMES, pk, "only", "row")).collect();
    store.commit(G1, commit(1, 2, rows)).await.unwrap();
    for pk in KEYS {
        assert_eq!(keys(store.as_ref(), G1, STUDIES, pk, false).await.len(), KEYS.len());
        assert_eq!(keys(store.as_ref(), G1, NAMES, pk, true).await, ["only"]);
        for ck in KEYS {
            assert_eq!(get(store.as_ref(), pk, ck).await, Some(Bytes::from([pk, b"|", ck].concat())));
        }
    }
    assert!(keys(store.as_ref(), G1, STUDIES, b"absent", false).await.is_empty());
}

pub(super) async fn resumed_scans_give_each_row_once(backend: Backend) {
    let store = backend.open().await.unwrap();
    let rows = (0..1000_u32).map(|n| put(STUDIES, "pk", format!("{:05}", n * 3), n.to_be_bytes()));
    store.commit(G1, commit(0, 1, rows.collect())).await.unwrap();
    let neighbours = vec![put(STUDIES, "pj", "00000", "x"), put(STUDIES, "pk\0", "00000", "x")];
    store.commit(G1, commit(1, 2, neighbours)).await.unwrap();
    let wanted: Vec<Bytes> = (0..1000_u32).map(|n| format!("{:05}", n * 3).into()).collect();
    for (max, reverse) in [(1, false), (7, false), (250, true), (1000, false), (999, true), (5000, true)] {
        let (mut seen, mut range) = (Vec::new(), CkRange::default());
        loop {
            let page = store.scan(G1, STUDIES, b"pk", &range, reverse, max).await.unwrap();
            assert!(page.rows.len() <= max && (page.rows.len() == max || !page.more));
            let (more, page) = (page.more, keys_of(page));
            seen.extend(page);
            if !more {
                break;
            }
            // The row after the last, or the one before it.
            let last = seen.last().unwrap();
            range = if reverse {
                CkRange { from: None, to: Some(last.clone()) }
            } else {
                CkRange { from: Some([last, &b"\0"[..]].concat().into()), to: None }
            };
        }
        if reverse {
            seen.reverse();
        }
        assert_eq!(seen, wanted, "{max} at once");
    }
}

/// A few hundred commits of rows that collide often, compared with a map after each.
pub(super) async fn any_history_reads_like_a_map(backend: Backend) {
    let mut store = backend.open().await.unwrap();
    let mut model: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for step in 0..300 {
        let mut changed = BTreeMap::new();
        for _ in 0..random(20) {
            let key = (KEYS[random(4) as usize].to_vec(), KEYS[random(16) as usize].to_vec());
            let value = (random(3) > 0).then(|| vec![step as u8; random(2000) as usize]);
            changed.insert(key, value);
        }
        let mutations = changed.iter().map(|((pk, ck), value)| match value {
            Some(value) => put(STUDIES, pk, ck, value),
            None => delete(STUDIES, pk, ck),
        });
        store.commit(G1, commit(step, step + 1, mutations.collect())).await.unwrap();
        for (key, value) in changed {
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        if step % 50 == 49 {
            store.sync(true).await.unwrap();
            drop(store);
            store = backend.open().await.unwrap();
        }
        let pk = KEYS[random(4) as usize];
        let page = store.scan(G1, STUDIES, pk, &CkRange::default(), false, 100).await.unwrap();
        let rows: Vec<_> = page.rows.iter().map(|row| (row.ck.to_vec(), row.value.to_vec())).collect();
        let wanted = model.iter().filter(|((of, _), _)| of == pk).map(|((_, ck), value)| (ck.clone(), value.clone()));
        assert_eq!(rows, wanted.collect::<Vec<_>>(), "after commit {step}");
    }
    assert_eq!(store.offsets(G1).await.unwrap()[0].2, Offset(300));
}

pub(super) async fn over_long_rows_are_invalid(backend: Backend) {
    let store = backend.open().await.unwrap();
    let (key, value) = (vec![0; 1024], vec![7; 1 << 20]);
    let (long_key, long_value) = (vec![0; 1025], vec![7; (1 << 20) + 1]);
    let fits = vec![put(STUDIES, &key, &key, &value)];
    store.commit(G1, commit(0, 1, fits)).await.unwrap();
    let refused = [
        put(STUDIES, &long_key, "", ""),
        put(STUDIES, "", &long_key, ""),
        put(STUDIES, "", "", &long_value),
        delete(STUDIES, &long_key, ""),
    ];
    for mutation in refused {
        let with = vec![put(STUDIES, "pk", "other", "value"), mutation];
        let error = store.commit(G1, commit(1, 2, with)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        assert_eq!(get(store.as_ref(), "pk", "other").await, None, "nothing of it is applied");
        assert_eq!(store.offsets(G1).await.unwrap()[0].2, Offset(1));
    }
    assert_eq!(get(store.as_ref(), &key, &key).await.map(|value| value.len()), Some(1 << 20));
}
