//! InstanceAvailability: of the site that answers, at each level of what the answer stands for, and as a matching key.

mod support;

use cairn_archive::events::{Event, ObjectTier, StudyMoved};
use cairn_dicom::tags;
use cairn_index::IndexService;
use cairn_service_api::{
    Index,
    index::{Detail, Level, Selection},
};
use cairn_store_api::Record;
use futures_util::TryStreamExt;
use std::sync::Arc;
use support::{MemoryLog, MemoryStore, Spec, query, record, settled, small, texts, whole};

fn moved(n: u64, site: &str, tier: ObjectTier) -> Record {
    let event = StudyMoved {
        tenant: "default".into(),
        study_instance_uid: "1.2.1".into(),
        site: site.into(),
        tier: tier.into(),
        asked_by: "operator".into(),
    };
    record(n, n, &Event::StudyMoved(event))
}

async fn index_of(records: Vec<Record>) -> (Arc<MemoryLog>, Arc<IndexService>) {
    let log = MemoryLog::new(2);
    for record in records {
        log.put(record).await;
    }
    let index = IndexService::open(log.clone(), MemoryStore::new(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    (log, index)
}

/// InstanceAvailability of all answers, in their order.
async fn told(index: &IndexService, level: Level, key: &str) -> Vec<String> {
    texts(index, query(level, &[(tags::INSTANCE_AVAILABILITY, key)]), tags::INSTANCE_AVAILABILITY).await
}

/// Of study 1.2.1 an instance was moved; another one of its series, one of a second series, and a second study were not.
async fn mixed() -> (Arc<MemoryLog>, Arc<IndexService>) {
    let moved = moved(2, "main", ObjectTier::Cold);
    let later = [Spec::new(3, 1, 1, 2), Spec::new(4, 1, 2, 1), Spec::new(5, 2, 1, 1)];
    let records = [Spec::new(1, 1, 1, 1).record(), moved].into_iter().chain(later.iter().map(Spec::record));
    index_of(records.collect()).await
}

#[tokio::test]
async fn each_level_says_where_it_is_and_what_came_later_is_hot() {
    let (_log, index) = mixed().await;
    let expected: [(Level, &[&str]); 4] = [
        (Level::Patient, &["ONLINE"]),
        (Level::Study, &["NEARLINE", "ONLINE"]),
        (Level::Series, &["NEARLINE", "ONLINE", "ONLINE"]),
        (Level::Instance, &["NEARLINE", "ONLINE", "ONLINE", "ONLINE"]),
    ];
    for (level, expected) in expected {
        assert_eq!(told(&index, level, "").await, expected, "{level:?}");
        let near = expected.iter().filter(|told| **told == "NEARLINE").count();
        assert_eq!(told(&index, level, "ONLINE").await.len(), expected.len() - near, "{level:?}");
        if level != Level::Patient {
            assert_eq!(told(&index, level, "NEARLINE").await, vec!["NEARLINE"; near], "{level:?}");
            assert!(told(&index, level, "OFFLINE").await.is_empty(), "{level:?}");
        }
    }
    index.set_cold_away(true);
    assert_eq!(told(&index, Level::Study, "").await, ["OFFLINE", "ONLINE"]);
    assert_eq!(told(&index, Level::Instance, "OFFLINE").await, ["OFFLINE"]);
    index.set_cold_away(false);
    assert_eq!(told(&index, Level::Study, "OFFLINE").await.len(), 0);
}

#[tokio::test]
async fn whoever_locates_instances_learns_which_were_moved() {
    let (_log, index) = mixed().await;
    let selection = Selection { tenant: "default".into(), ..Selection::default() };
    let selection = Selection { studies: vec!["1.2.1".parse().expect("valid")], ..selection };
    let found = index.instances(selection, Detail::Location).await.expect("usable");
    let found: Vec<_> = found.try_collect().await.expect("answers");
    assert_eq!(found.iter().map(|record| record.is_cold).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn what_is_recalled_is_hot_and_what_another_site_moved_is_not_cold_here() {
    let stored = Spec::new(1, 1, 1, 1).record();
    let back = [moved(2, "main", ObjectTier::Cold), moved(3, "main", ObjectTier::Hot)];
    let (log, index) = index_of([vec![stored.clone()], back.to_vec()].concat()).await;
    assert_eq!(told(&index, Level::Instance, "").await, ["ONLINE"]);
    let before = index.digest().await.expect("digest").0;
    log.put(moved(4, "west", ObjectTier::Cold)).await;
    settled(&index).await;
    assert_eq!(told(&index, Level::Study, "").await, ["ONLINE"]);
    log.put(moved(5, "main", ObjectTier::Cold)).await;
    settled(&index).await;
    assert_eq!(told(&index, Level::Study, "").await, ["NEARLINE"]);
    let after = index.digest().await.expect("digest").0;
    assert_eq!(before.state, after.state, "where it is, is a local fact");
    assert_ne!(before.events, after.events);
}
