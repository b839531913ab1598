//! The index service over this store and over the embedded one: the same log gives the same digests and answers, also when
//! a generation is rebuilt, and when commits are cut off.

#[path = "../../../../services/index/tests/support/mod.rs"]
mod index;
mod support;

use cairn_archive::events::{Event, InstanceReceivedAgain, ReceiptClosed, ResendPolicy};
use cairn_dicom::tags;
use cairn_index::IndexService;
use cairn_index_store_cql::CqlIndexStore;
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_service_api::{
    Index,
    index::{Level, StateDigest, Then},
};
use cairn_store_api::{IndexStore, Record};
use index::{MemoryLog, Spec, query, rebuilt, record, settled, small, texts, whole};
use std::sync::Arc;
use support::Keyspace;

/// Studies that grow in turns and change who they are of, corrections, repeats, receipts.
fn history() -> Vec<Record> {
    let mut records = Vec::new();
    let mut n = 0;
    for round in 1..6 {
        for study in 1..9 {
            n += 1;
            let mut spec = Spec::new(n, study, round % 2, round);
            // Events come in another order than they happened.
            spec.at = 1_000 - n;
            if round == 3 {
                spec = spec.with(tags::PATIENT_ID, "P2").with(tags::STUDY_DATE, "20230505");
            }
            records.push(spec.record());
        }
    }
    for study in 1..9 {
        n += 1;
        let mut spec = Spec::new(n, study, 1, 1).with(tags::STUDY_DESCRIPTION, "CORRECTED");
        (spec.content, spec.policy, spec.at) = (2, ResendPolicy::SupersedeSameSource, 2_000 + n);
        records.push(spec.record());
        let again = InstanceReceivedAgain {
            tenant: "default".into(),
            study_instance_uid: spec.study.clone(),
            series_instance_uid: spec.series.clone(),
            sop_instance_uid: spec.instance.clone(),
            store_event_id: spec.event_id().as_bytes().to_vec().into(),
            ..InstanceReceivedAgain::default()
        };
        n += 1;
        records.push(record(n, 3_000 + n, &Event::InstanceReceivedAgain(Box::new(again))));
        let closed = ReceiptClosed {
            tenant: "default".into(),
            study_instance_uid: spec.study.clone(),
            stored: 4,
            ..ReceiptClosed::default()
        };
        n += 1;
        records.push(record(n, 3_000 + n, &Event::ReceiptClosed(closed)));
    }
    let again: Vec<Record> = records.iter().step_by(3).cloned().collect();
    records.extend(again);
    records
}

async fn open(log: &Arc<MemoryLog>, store: Arc<dyn IndexStore>) -> Arc<IndexService> {
    IndexService::open(log.clone(), store, whole(&**log), small()).await.expect("opens")
}

async fn digest(index: &IndexService) -> StateDigest {
    settled(index).await;
    index.digest().await.expect("digest").0
}

async fn answers(index: &IndexService) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for keys in [
        vec![],
        vec![(tags::PATIENT_ID, "P2")],
        vec![(tags::PATIENT_NAME, "*OE*")],
        vec![(tags::STUDY_DATE, "20230101-20231231")],
        vec![(tags::STUDY_DESCRIPTION, "*CORR*")],
        vec![(tags::STUDY_INSTANCE_UID, "1.2.3")],
    ] {
        for level in [Level::Study, Level::Patient] {
            all.push(texts(index, query(level, &keys), tags::STUDY_INSTANCE_UID).await);
            all.push(texts(index, query(level, &keys), tags::PATIENT_ID).await);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn both_adapters_agree_and_so_does_a_rebuild() {
    let log = MemoryLog::new(2);
    let records = history();
    let (early, late) = records.split_at(records.len() / 2);
    for record in early {
        log.put(record.clone()).await;
    }
    let keyspace = Keyspace::migrated().await;
    let cql: Arc<dyn IndexStore> = Arc::new(CqlIndexStore::open(keyspace.config()).await.expect("opens"));
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = EmbeddedIndexStore::open(dir.path().join("index"), IndexStoreConfig::default()).await;
    let (over_cql, beside) = (open(&log, cql.clone()).await, open(&log, Arc::new(embedded.expect("opens"))).await);
    assert_eq!(digest(&over_cql).await, digest(&beside).await);
    for record in late {
        log.put(record.clone()).await;
    }
    let wanted = digest(&beside).await;
    assert_eq!(wanted.studies, 8);
    assert_eq!(digest(&over_cql).await, wanted);
    let found = answers(&beside).await;
    assert_eq!(found.iter().map(Vec::len).max(), Some(8), "something is found");
    assert_eq!(answers(&over_cql).await, found);
    // Rebuilt and switched to, while it serves.
    let done = rebuilt(&*over_cql, Then::Serve).await;
    let certificate = done.certificate.expect("compared");
    assert_eq!((certificate.serving, certificate.own), (wanted, wanted));
    assert_eq!((digest(&over_cql).await, answers(&over_cql).await), (wanted, found.clone()));
    // Opened anew, it goes on from what it had.
    over_cql.close().await.expect("closes");
    let again = open(&log, cql).await;
    assert_eq!((digest(&again).await, answers(&again).await), (wanted, found));
}

/// Projectors that are stopped anywhere, and one that goes on: the state is that of the log.
#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_die_leave_the_state_of_the_log() {
    let (log, records) = (MemoryLog::new(2), history());
    let keyspace = Keyspace::migrated().await;
    // The table is there before anybody dies: that its maker dies is a trial of its own.
    let (first, rest) = records.split_first().expect("records");
    log.put(first.clone()).await;
    let store = CqlIndexStore::open(keyspace.config()).await.expect("opens");
    let index = open(&log, Arc::new(store)).await;
    settled(&index).await;
    index.close().await.expect("closes");
    for record in rest {
        log.put(record.clone()).await;
    }
    for round in 0..6_u64 {
        // A runtime that ends takes its tasks with it, in the midst of what they do.
        let (log, config) = (log.clone(), keyspace.config());
        let dying = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("runtime");
            runtime.block_on(async {
                let store = CqlIndexStore::open(config).await.expect("opens");
                let index = open(&log, Arc::new(store)).await;
                tokio::time::timeout(std::time::Duration::from_millis(30 + 70 * round), settled(&index)).await.ok();
            });
            runtime.shutdown_background();
        });
        dying.join().expect("dies in time");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = EmbeddedIndexStore::open(dir.path().join("index"), IndexStoreConfig::default()).await;
    let wanted = digest(&*open(&log, Arc::new(embedded.expect("opens"))).await).await;
    let store = CqlIndexStore::open(keyspace.config()).await.expect("opens");
    assert_eq!(digest(&*open(&log, Arc::new(store)).await).await, wanted);
}
