use super::{Backend, open, read_all, record, records::numbers, site};
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{EventLog, StoreErrorKind};

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

/// Three records in the first of two partitions, one in the other.
async fn filled(backend: &Backend) {
    let log = open(backend.as_ref(), 2).await;
    log.append(P0, (0..3).map(|number| record(0, number, 50)).collect()).await.unwrap();
    log.append(P1, vec![record(1, 0, 50)]).await.unwrap();
    log.close().await.unwrap();
}

async fn lives_are(log: &dyn EventLog, of_p0: [u32; 4], of_p1: [u32; 2]) {
    assert_eq!([0, 1, 2, 3].map(|offset| log.lives().at(P0, Offset(offset)).0), of_p0);
    assert_eq!([0, 1].map(|offset| log.lives().at(P1, Offset(offset)).0), of_p1);
    let numbers: Vec<_> = read_all(log, P0).await.iter().map(numbers).collect();
    assert_eq!(numbers[..3], [(0, 0), (0, 1), (0, 2)], "the records stay");
}

pub(super) async fn a_new_life_begins_where_it_was_said(backend: Backend) {
    filled(&backend).await;
    let log = backend.open_to_renew(&site(), 2).await.unwrap();
    lives_are(log.as_ref(), [3, 3, 3, 3], [3, 3]).await;
    log.renew(Incarnation(5), vec![Offset(1), Offset(1)]).await.unwrap();
    drop(log);
    let log = open(backend.as_ref(), 2).await;
    assert_eq!(log.incarnation(), Incarnation(5));
    lives_are(log.as_ref(), [3, 5, 5, 5], [3, 5]).await;
    assert_eq!(log.append(P0, vec![record(0, 3, 50)]).await.unwrap(), Offset(3), "offsets go on");
    log.close().await.unwrap();
    drop(log);
    let log = backend.open_to_renew(&site(), 2).await.unwrap();
    log.renew(Incarnation(6), vec![Offset(4), Offset(1)]).await.unwrap();
    drop(log);
    let log = open(backend.as_ref(), 2).await;
    assert_eq!((log.incarnation(), log.lives().at(P0, Offset(4))), (Incarnation(6), Incarnation(6)));
    lives_are(log.as_ref(), [3, 5, 5, 5], [3, 6]).await;
    assert_eq!(read_all(log.as_ref(), P0).await.len(), 4);
}

pub(super) async fn what_is_invalid_begins_no_life(backend: Backend) {
    filled(&backend).await;
    let log = backend.open_to_renew(&site(), 2).await.unwrap();
    for (incarnation, begins) in [(3, vec![1, 1]), (4, vec![4, 1]), (4, vec![1]), (1 << 16, vec![1, 1])] {
        let refused = log.renew(Incarnation(incarnation), begins.into_iter().map(Offset).collect()).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    }
    log.append(P1, vec![record(1, 1, 50)]).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let log = open(backend.as_ref(), 2).await;
    lives_are(log.as_ref(), [3, 3, 3, 3], [3, 3]).await;
    assert_eq!(read_all(log.as_ref(), P1).await.len(), 2);
}

pub(super) async fn a_life_survives_a_crash(backend: Backend) {
    filled(&backend).await;
    let log = backend.open_to_renew(&site(), 2).await.unwrap();
    log.renew(Incarnation(4), vec![Offset(2), Offset(0)]).await.unwrap();
    drop(log);
    backend.crash().await;
    lives_are(open(backend.as_ref(), 2).await.as_ref(), [3, 3, 4, 4], [4, 4]).await;
}

pub(super) async fn an_older_opening_appends_nothing(backend: Backend) {
    filled(&backend).await;
    let older = match backend.faults().exclusive {
        true => None,
        false => Some(open(backend.as_ref(), 2).await),
    };
    let renewing = backend.open_to_renew(&site(), 2).await.unwrap();
    if let Some(older) = &older {
        older.append(P0, vec![record(9, 9, 50)]).await.unwrap_err();
    }
    renewing.renew(Incarnation(4), vec![Offset(3), Offset(1)]).await.unwrap();
    for log in older.iter().chain([&renewing]) {
        log.append(P0, vec![record(9, 9, 50)]).await.unwrap_err();
        log.read(P0, Offset(0), 1, 1).await.unwrap_err();
    }
    drop((older, renewing));
    let log = open(backend.as_ref(), 2).await;
    assert_eq!((log.incarnation(), log.end(P0).await.unwrap()), (Incarnation(4), Offset(3)));
}
