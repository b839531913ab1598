use super::{Backend, G1, LIFE, NAMES, STUDIES, commit, delete, get, keys, put};
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{Commit, Generation, IndexStore, StoreErrorKind};
use std::sync::Arc;

const G2: Generation = Generation(2);

/// Offset of partition 0 in generation 1.
async fn end(store: &dyn IndexStore) -> u64 {
    let offsets = store.offsets(G1).await.unwrap();
    offsets.iter().find(|(_, partition, ..)| *partition == Partition(0)).map_or(0, |(_, _, offset, _)| offset.0)
}

pub(super) async fn generations_do_not_see_each_other(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.commit(G1, commit(0, 5, vec![put(STUDIES, "s", "a", "one")])).await.unwrap();
    assert_eq!(store.get(G2, STUDIES, b"s", b"a").await.unwrap(), None);
    assert!(store.offsets(G2).await.unwrap().is_empty());
    assert!(keys(store.as_ref(), G2, STUDIES, b"s", false).await.is_empty());
    store.commit(G2, commit(0, 9, vec![put(STUDIES, "s", "a", "two"), put(STUDIES, "s", "b", "x")])).await.unwrap();
    assert_eq!(store.get(G1, STUDIES, b"s", b"a").await.unwrap(), Some(Bytes::from("one")));
    assert_eq!(store.get(G2, STUDIES, b"s", b"a").await.unwrap(), Some(Bytes::from("two")));
    assert_eq!(keys(store.as_ref(), G1, STUDIES, b"s", false).await, ["a"]);
    assert_eq!(store.offsets(G1).await.unwrap(), [(LIFE, Partition(0), Offset(5), Bytes::from("note 5"))]);
    assert_eq!(store.offsets(G2).await.unwrap(), [(LIFE, Partition(0), Offset(9), Bytes::from("note 9"))]);
}

pub(super) async fn a_purge_takes_nothing_that_is_there(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.commit(G1, commit(0, 1, vec![put(STUDIES, "s", "a", "one"), put(STUDIES, "s", "b", "x")])).await.unwrap();
    let changes = vec![put(STUDIES, "s", "a", "two"), delete(STUDIES, "s", "b")];
    store.commit(G1, Commit { purge: true, ..commit(1, 2, changes) }).await.unwrap();
    for next in 2..20 {
        assert_eq!(get(store.as_ref(), "s", "a").await, Some(Bytes::from("two")));
        assert_eq!(get(store.as_ref(), "s", "b").await, None);
        let purges = Commit { purge: next % 2 == 0, ..commit(next, next + 1, vec![put(NAMES, "n", "c", "row")]) };
        store.commit(G1, purges).await.unwrap();
    }
    assert_eq!(end(store.as_ref()).await, 20);
}

pub(super) async fn committed_is_seen(backend: Backend) {
    let store = backend.open().await.unwrap();
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for n in 0..300_u64 {
            let rows = vec![put(STUDIES, "s", n.to_be_bytes(), "row"), put(NAMES, n.to_be_bytes(), "", "row")];
            writing.commit(G1, commit(n, n + 1, rows)).await.unwrap();
            assert_eq!(end(writing.as_ref()).await, n + 1, "the offset is seen");
            assert!(get(writing.as_ref(), "s", n.to_be_bytes()).await.is_some(), "the rows are seen");
        }
    });
    loop {
        let end = end(store.as_ref()).await;
        let rows = keys(store.as_ref(), G1, STUDIES, b"s", false).await.len() as u64;
        assert!(rows >= end, "rows are seen no later than the offset: {rows} of {end}");
        if let Some(last) = end.checked_sub(1) {
            let row = store.get(G1, NAMES, &last.to_be_bytes(), b"").await.unwrap();
            assert!(row.is_some(), "also those of another table");
        }
        if end == 300 {
            break;
        }
    }
    writer.await.unwrap();
}

pub(super) async fn a_page_shows_whole_commits(backend: Backend) {
    const COMMITS: u64 = 500;
    let store = backend.open().await.unwrap();
    if !store.is_exact() {
        return; // it makes no such promise
    }
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for n in 0..COMMITS {
            // A row moves: as seen by others it is nowhere twice, and never nowhere.
            let mut rows = vec![put(NAMES, "s", n.to_be_bytes(), "row")];
            rows.extend(n.checked_sub(1).map(|before| delete(NAMES, "s", before.to_be_bytes())));
            writing.commit(G1, commit(n, n + 1, rows)).await.unwrap();
            let late = commit(n, n + 1, vec![put(NAMES, "s", "late", "row")]);
            assert_eq!(writing.commit(G1, late).await.unwrap_err().kind(), StoreErrorKind::Conflict);
        }
    });
    let mut last = 0;
    while last + 1 < COMMITS {
        for reverse in [false, true] {
            let seen = keys(store.as_ref(), G1, NAMES, b"s", reverse).await;
            assert!(seen.len() <= 1, "a row is in two places: {seen:?}");
            assert!(seen.len() == 1 || last == 0, "a row is nowhere");
            if let Some(ck) = seen.first() {
                let n = u64::from_be_bytes(ck[..].try_into().unwrap());
                assert!(n >= last, "never back");
                last = n;
            }
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

pub(super) async fn a_commit_out_of_place_changes_no_answer(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.commit(G1, commit(0, 10, vec![put(STUDIES, "s", "a", "first")])).await.unwrap();
    store.commit(G1, commit(10, 20, vec![put(STUDIES, "s", "a", "second")])).await.unwrap();
    let other_life = Commit { incarnation: Incarnation(0), ..commit(0, 30, vec![put(STUDIES, "s", "a", "old life")]) };
    let out_of_place = [
        commit(10, 20, vec![put(STUDIES, "s", "a", "again")]),
        commit(0, 10, vec![put(STUDIES, "s", "a", "older")]),
        commit(5, 15, vec![put(STUDIES, "s", "a", "within")]),
        other_life,
    ];
    for wrong in out_of_place {
        let what = format!("{}..{} of life {}", wrong.from.0, wrong.to.0, wrong.incarnation.0);
        if let Err(error) = store.commit(G1, wrong).await {
            assert_eq!(error.kind(), StoreErrorKind::Conflict, "{what}");
        }
        assert_eq!(get(store.as_ref(), "s", "a").await, Some(Bytes::from("second")), "{what}");
        let offsets = store.offsets(G1).await.unwrap();
        assert_eq!(offsets, [(LIFE, Partition(0), Offset(20), Bytes::from("note 20"))], "{what}");
    }
    // Other partitions have offsets of their own.
    let other = Commit { partition: Partition(7), ..commit(0, 3, vec![put(STUDIES, "t", "a", "x")]) };
    store.commit(G1, other).await.unwrap();
    let mut offsets: Vec<_> = store.offsets(G1).await.unwrap().iter().map(|(_, p, o, _)| (p.0, o.0)).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 20), (7, 3)]);
}

pub(super) async fn of_racing_commits_one_counts(backend: Backend) {
    let store = backend.open().await.unwrap();
    for round in 0..20_u64 {
        let racers = (0..6_u64).map(|racer| {
            let store = store.clone();
            tokio::spawn(async move {
                let rows = vec![
                    put(STUDIES, round.to_be_bytes(), "a", racer.to_string()),
                    put(STUDIES, round.to_be_bytes(), "b", racer.to_string()),
                ];
                store.commit(G1, commit(round, round + 1, rows)).await
            })
        });
        let mut won = 0;
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(()) => won += 1,
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Conflict),
            }
        }
        assert!(won >= 1, "one of them must get through");
        let (a, b) =
            (get(store.as_ref(), round.to_be_bytes(), "a").await, get(store.as_ref(), round.to_be_bytes(), "b").await);
        assert!(a.is_some() && a == b, "rows are of one commit: {a:?} and {b:?}");
        assert_eq!(end(store.as_ref()).await, round + 1);
    }
}

pub(super) async fn a_new_incarnation_begins_at_0(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.commit(G1, commit(0, 50, vec![put(STUDIES, "s", "a", "first life")])).await.unwrap();
    let second = Incarnation(2);
    let next = Commit { incarnation: second, ..commit(0, 2, vec![put(STUDIES, "s", "a", "second life")]) };
    store.commit(G1, next).await.unwrap();
    assert_eq!(get(store.as_ref(), "s", "a").await, Some(Bytes::from("second life")));
    let wanted = [(second, Partition(0), Offset(2), Bytes::from("note 2"))];
    assert_eq!(store.offsets(G1).await.unwrap(), wanted);
    if let Err(error) = store.commit(G1, commit(50, 60, vec![put(STUDIES, "s", "a", "late")])).await {
        assert_eq!(error.kind(), StoreErrorKind::Conflict);
    }
    assert_eq!(get(store.as_ref(), "s", "a").await, Some(Bytes::from("second life")));
    assert_eq!(store.offsets(G1).await.unwrap(), wanted);
}

pub(super) async fn after_a_crash_offset_and_rows_agree(backend: Backend) {
    let mut store = backend.open().await.unwrap();
    let mut lost = 0;
    let mut next = 0;
    for round in 0..12_u64 {
        // Rows of one commit are large enough to be torn, and each commit also changes a row of the one before.
        let until = next + 20 + round * 7;
        for n in next..until {
            let mut rows: Vec<_> =
                (0..9_u8).map(|row| put(STUDIES, n.to_be_bytes(), [row], vec![n as u8 ^ row; 700])).collect();
            rows.push(put(NAMES, "latest", "", n.to_be_bytes()));
            store.commit(G1, commit(n, n + 1, rows)).await.unwrap();
        }
        if round % 3 == 2 {
            store.sync(false).await.unwrap();
        }
        backend.crash(store).await;
        store = backend.open().await.unwrap();
        let end = end(store.as_ref()).await;
        assert!(end <= until, "the offset is one that was committed");
        assert!(round % 3 != 2 || end == until, "what was synced is there");
        lost += until - end;
        for n in 0..end {
            for row in 0..9_u8 {
                let value = get(store.as_ref(), n.to_be_bytes(), [row]).await;
                assert_eq!(value, Some(Bytes::from(vec![n as u8 ^ row; 700])), "row {row} of commit {n} of {end}");
            }
        }
        let latest = store.get(G1, NAMES, b"latest", b"").await.unwrap();
        let wanted = end.checked_sub(1).map(|last| Bytes::copy_from_slice(&last.to_be_bytes()));
        assert_eq!(latest, wanted, "replaying from the offset gives the same rows");
        next = end;
    }
    assert!(lost > 0, "the crashes must take something");
}

pub(super) async fn of_racing_pointer_changes_one_wins(backend: Backend) {
    let store = backend.open().await.unwrap();
    assert!(store.pointer().await.unwrap().is_empty());
    assert!(!store.compare_and_set_pointer(b"other", Bytes::from("x")).await.unwrap());
    let mut present = Bytes::new();
    for round in 0..10 {
        let racers = (0..8).map(|racer| {
            let (store, present) = (store.clone(), present.clone());
            tokio::spawn(async move {
                let new = Bytes::from(format!("round {round} racer {racer}"));
                store.compare_and_set_pointer(&present, new.clone()).await.unwrap().then_some(new)
            })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            winners.extend(racer.await.unwrap());
        }
        assert_eq!(winners.len(), 1);
        present = store.pointer().await.unwrap();
        assert_eq!(winners[0], present);
    }
}

pub(super) async fn the_pointer_is_durable(backend: Backend) {
    let mut store = backend.open().await.unwrap();
    let mut present = Bytes::new();
    for round in 0..6_u64 {
        store.commit(G1, commit(round, round + 1, vec![put(STUDIES, "s", round.to_be_bytes(), "row")])).await.unwrap();
        let new = Bytes::from(format!("round {round}"));
        assert!(store.compare_and_set_pointer(&present, new.clone()).await.unwrap());
        backend.crash(store).await;
        store = backend.open().await.unwrap();
        assert_eq!(store.pointer().await.unwrap(), new);
        let end = end(store.as_ref()).await;
        for n in end..=round {
            let row = put(STUDIES, "s", n.to_be_bytes(), "row");
            store.commit(G1, commit(n, n + 1, vec![row])).await.unwrap();
        }
        present = new;
    }
}

pub(super) async fn a_dropped_generation_is_empty(backend: Backend) {
    let mut store = backend.open().await.unwrap();
    for generation in [G1, G2] {
        for n in 0..200_u64 {
            let rows = (0..50_u8).map(|row| put(STUDIES, n.to_be_bytes(), [row], "value")).collect();
            store.commit(generation, commit(n, n + 1, rows)).await.unwrap();
        }
    }
    store.drop_generation(Generation(77)).await.unwrap();
    store.drop_generation(G1).await.unwrap();
    for reopened in [false, true] {
        if reopened {
            store.sync(true).await.unwrap();
            store = backend.open().await.unwrap();
        }
        assert!(store.offsets(G1).await.unwrap().is_empty());
        for n in 0..200_u64 {
            assert!(keys(store.as_ref(), G1, STUDIES, &n.to_be_bytes(), false).await.is_empty());
            assert_eq!(keys(store.as_ref(), G2, STUDIES, &n.to_be_bytes(), false).await.len(), 50);
        }
        assert_eq!(store.offsets(G2).await.unwrap()[0].2, Offset(200));
    }
    // Its number can be begun anew.
    store.drop_generation(G1).await.unwrap();
    store.commit(G1, commit(0, 1, vec![put(STUDIES, "s", "a", "new")])).await.unwrap();
    assert_eq!(get(store.as_ref(), "s", "a").await, Some(Bytes::from("new")));
    assert!(keys(store.as_ref(), G1, STUDIES, &3_u64.to_be_bytes(), false).await.is_empty());
}

pub(super) async fn reopened_it_has_what_it_had(backend: Backend) {
    let store = backend.open().await.unwrap();
    for partition in 0..64 {
        let rows = vec![put(STUDIES, [partition as u8], "a", "value")];
        let commit = Commit { partition: Partition(partition), ..commit(0, u64::from(partition) + 1, rows) };
        store.commit(G1, commit).await.unwrap();
    }
    assert!(store.compare_and_set_pointer(b"", Bytes::from("pointer")).await.unwrap());
    let mut offsets = store.offsets(G1).await.unwrap();
    store.sync(true).await.unwrap();
    drop(store);
    let store = backend.open().await.unwrap();
    let mut again = store.offsets(G1).await.unwrap();
    offsets.sort_unstable();
    again.sort_unstable();
    assert_eq!((offsets.len(), again), (64, offsets));
    assert_eq!(store.pointer().await.unwrap(), "pointer");
    for partition in 0..64_u8 {
        assert_eq!(get(store.as_ref(), [partition], "a").await, Some(Bytes::from("value")));
    }
    assert!(store.offsets(G2).await.unwrap().is_empty());
}

pub(super) async fn a_second_opening_is_a_conflict(backend: Backend) {
    let store = backend.open().await.unwrap();
    let second = backend.open().await;
    assert_eq!(second.err().map(|error| error.kind()), Some(StoreErrorKind::Conflict));
    store.commit(G1, commit(0, 1, vec![put(STUDIES, "s", "a", "value")])).await.unwrap();
    store.sync(true).await.unwrap();
    let second: Arc<dyn IndexStore> = backend.open().await.unwrap();
    assert_eq!(get(second.as_ref(), "s", "a").await, Some(Bytes::from("value")));
}

pub(super) async fn closed_it_refuses(backend: Backend) {
    let store = backend.open().await.unwrap();
    store.commit(G1, commit(0, 1, vec![put(STUDIES, "s", "a", "value")])).await.unwrap();
    store.sync(true).await.unwrap();
    store.sync(true).await.unwrap();
    let refused = store.commit(G1, commit(1, 2, Vec::new())).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    assert_eq!(store.get(G1, STUDIES, b"s", b"a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
}
