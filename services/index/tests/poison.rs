//! Events that can't be folded: parked, listed, repaired by an event, folded again by a build that knows better; and a
//! study whose events meet a defect keeps no other's waiting.

mod support;

use cairn_archive::{
    Envelope, Offset, Partition, Position,
    events::event_repaired::Remedy,
    fold::Poison,
    index_rows::{PARKED, Parked, decode_parked, encode_parked},
};
use cairn_dicom::tags;
use cairn_index::{IndexConfig, IndexService};
use cairn_service_api::{
    Index,
    index::{IndexStatus, Level, Then},
    parked::{ParkedEvent, ParkedSelection},
};
use cairn_store_api::{EventLog, Record};
use futures_util::TryStreamExt;
use std::{sync::Arc, time::Duration};
use support::{Fault, MemoryLog, MemoryStore, Spec, query, rebuilt, repair, replaced, settled, small, texts, whole};

async fn open(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>) -> Arc<IndexService> {
    IndexService::open(log.clone(), store.clone(), whole(&**log), small()).await.expect("opens")
}

async fn parked(index: &IndexService, study: Option<&str>) -> Vec<ParkedEvent> {
    let study = study.map(|study| ("default".to_owned(), study.to_owned()));
    index.parked(ParkedSelection { study }).await.expect("streams").try_collect().await.expect("lists")
}

async fn status(index: &IndexService) -> IndexStatus {
    index.status().await.expect("status")
}

fn undecodable(spec: &Spec) -> Record {
    let mut record = spec.record();
    record.payload = vec![0xFF; 10].into();
    record
}

/// The index is what the log says, whatever led to it.
async fn is_what_the_log_says(index: &IndexService) {
    let compared = rebuilt(index, Then::Drop).await.certificate.expect("compared");
    assert!(compared.is_equal(), "{compared:?}");
}

#[tokio::test]
async fn a_parked_event_is_listed_and_its_study_is_incomplete_until_its_repair() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store).await;
    let (good, spec) = (Spec::new(1, 1, 1, 1), Spec::new(2, 2, 1, 1));
    log.put(good.record()).await;
    let (partition, offset) = log.put(undecodable(&spec)).await;
    settled(&index).await;
    let listed = parked(&index, None).await;
    let [one] = &listed[..] else { panic!("one, not {listed:?}") };
    assert_eq!((one.position.partition, one.position.offset), (partition, offset));
    assert_eq!(
        (one.reason.as_str(), one.event, one.event_type.as_str()),
        ("undecodable", spec.event_id(), "cairn.instance.stored.v1")
    );
    assert_eq!((one.study_instance_uid.as_str(), one.tenant.as_str(), one.happened_at_ms), ("1.2.2", "default", 2));
    assert_eq!(parked(&index, Some("1.2.2")).await, listed);
    assert!(parked(&index, Some("1.2.1")).await.is_empty() && parked(&index, Some("1.2")).await.is_empty());
    assert_eq!((status(&index).await.parked, status(&index).await.incomplete_studies), (1, 1));

    log.put(repair(3, &undecodable(&spec), replaced(&spec.record()))).await;
    settled(&index).await;
    assert!(parked(&index, None).await.is_empty());
    let after = status(&index).await;
    assert_eq!((after.parked, after.incomplete_studies, after.instances, after.studies), (0, 0, 2, 2));
    assert_eq!(texts(&index, query(Level::Study, &[]), tags::STUDY_INSTANCE_UID).await.len(), 2);
    is_what_the_log_says(&index).await;
    index.close().await.expect("closes");
    let index = open(&log, &store).await;
    assert_eq!((status(&index).await.parked, status(&index).await.incomplete_studies), (0, 0));
    // The event once more, as a log may hold it: its repair is known.
    log.put(undecodable(&spec)).await;
    settled(&index).await;
    assert_eq!(status(&index).await.parked, 0);
    index.close().await.expect("closes");
}

#[tokio::test]
async fn a_repair_may_come_first() {
    let spec = Spec::new(2, 2, 1, 1);
    let mended = repair(3, &undecodable(&spec), replaced(&spec.record()));
    let mut digests = Vec::new();
    for first in [true, false] {
        let (log, store) = (MemoryLog::new(4), MemoryStore::new());
        let index = open(&log, &store).await;
        for record in if first { [mended.clone(), undecodable(&spec)] } else { [undecodable(&spec), mended.clone()] } {
            log.put(record).await;
            settled(&index).await;
        }
        assert_eq!((status(&index).await.parked, status(&index).await.instances), (0, 1));
        digests.push(index.digest().await.expect("digest").0);
        index.close().await.expect("closes");
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn an_event_of_no_study_can_be_dismissed() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store).await;
    let mut poison = Spec::new(1, 1, 1, 1).record();
    poison.envelope.study_instance_uid = "no uid".into();
    log.put(poison.clone()).await;
    settled(&index).await;
    assert_eq!(parked(&index, Some("no uid")).await.len(), 1);
    log.put(repair(2, &poison, Remedy::Dismissed(true))).await;
    settled(&index).await;
    assert_eq!((status(&index).await.parked, status(&index).await.incomplete_studies), (0, 0));
    is_what_the_log_says(&index).await;
    index.close().await.expect("closes");
}

#[tokio::test]
async fn the_repair_of_an_event_in_the_wrong_partition_is_noticed() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store).await;
    let spec = Spec::new(1, 1, 1, 1);
    let right = Partition::of_study("1.2.1", 4);
    log.append(Partition((right.0 + 1) % 4), vec![spec.record()]).await.expect("appends");
    settled(&index).await;
    assert_eq!((status(&index).await.parked, parked(&index, Some("1.2.1")).await.len()), (1, 1));
    log.put(repair(2, &spec.record(), replaced(&spec.record()))).await;
    settled(&index).await;
    let after = status(&index).await;
    assert_eq!((after.parked, after.incomplete_studies, after.instances), (0, 0, 1));
    assert!(parked(&index, None).await.is_empty());
    index.close().await.expect("closes");
}

/// What a log gives for a record that something else than an archive wrote.
#[tokio::test]
async fn a_record_that_is_no_event_is_parked_at_its_place_and_can_be_dismissed() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store).await;
    log.put(Spec::new(1, 1, 1, 1).record()).await;
    let foreign = |partition: Partition| {
        let position =
            Position { site: log.site().clone(), incarnation: log.incarnation(), partition, offset: Offset(7) };
        Record { envelope: Envelope::unreadable(&position, 40), payload: "whatever".into() }
    };
    for partition in (0..4).map(Partition) {
        let offset = log.append(partition, vec![foreign(partition)]).await.expect("appends");
        settled(&index).await;
        let listed = parked(&index, None).await;
        let found = listed.iter().find(|one| (one.position.partition, one.position.offset) == (partition, offset));
        let told = found.map(|one| (one.reason.as_str(), one.event, one.study_instance_uid.as_str()));
        assert_eq!(told, Some(("unreadable", foreign(partition).envelope.id, "")));
    }
    log.put(Spec::new(2, 2, 1, 1).record()).await;
    settled(&index).await;
    let after = status(&index).await;
    assert_eq!((after.parked, after.instances), (4, 2), "later events apply");
    for partition in (0..4).map(Partition) {
        log.put(repair(3 + u64::from(partition.0), &foreign(partition), Remedy::Dismissed(true))).await;
    }
    settled(&index).await;
    assert_eq!((status(&index).await.parked, status(&index).await.incomplete_studies), (0, 0));
    assert!(parked(&index, None).await.is_empty());
    is_what_the_log_says(&index).await;
    index.close().await.expect("closes");
}

#[tokio::test]
async fn a_defect_at_one_study_parks_its_events_and_no_others() {
    let (log, store) = (MemoryLog::new(1), MemoryStore::new());
    store.panic_at("1.2.2", u32::MAX);
    let specs: Vec<Spec> = (1..6).map(|n| Spec::new(n, 1 + n % 2, 1, n)).collect();
    for spec in &specs {
        log.put(spec.record()).await;
    }
    let index = open(&log, &store).await;
    settled(&index).await;
    let after = status(&index).await;
    assert_eq!((after.parked, after.incomplete_studies, after.instances, after.lag_events), (3, 1, 2, 0));
    let reasons: Vec<_> = parked(&index, None).await.into_iter().map(|parked| parked.reason).collect();
    assert_eq!(reasons, ["defect"; 3]);
    // The defect has passed: those that a repair names are folded again, also after a restart.
    store.panic_at("1.2.2", 0);
    log.put(repair(10, &specs[0].record(), Remedy::FoldedAgain(true))).await;
    settled(&index).await;
    assert_eq!((status(&index).await.parked, status(&index).await.incomplete_studies), (2, 1));
    index.close().await.expect("closes");
    let index = open(&log, &store).await;
    for (spec, n) in specs.iter().skip(2).step_by(2).zip(11..) {
        log.put(repair(n, &spec.record(), Remedy::FoldedAgain(true))).await;
    }
    settled(&index).await;
    let after = status(&index).await;
    assert_eq!((after.parked, after.incomplete_studies, after.instances), (0, 0, 5));
    is_what_the_log_says(&index).await;
    index.close().await.expect("closes");
}

#[tokio::test]
async fn a_defect_that_passes_parks_nothing() {
    let attempts = small().fold_attempts_max;
    let (log, store) = (MemoryLog::new(1), MemoryStore::new());
    store.panic_at("1.2.1", attempts);
    log.put(Spec::new(1, 1, 1, 1).record()).await;
    let index = open(&log, &store).await;
    settled(&index).await;
    assert_eq!((status(&index).await.parked, status(&index).await.instances), (0, 1));
    assert_eq!(store.panics.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1, 0, "it met them all");
    index.close().await.expect("closes");
}

#[tokio::test]
async fn a_store_that_is_away_parks_nothing_however_long_it_is() {
    let (log, store) = (MemoryLog::new(1), MemoryStore::new());
    *store.fault.lock().expect("not poisoned") = Fault::FailFrom(0);
    log.put(Spec::new(1, 1, 1, 1).record()).await;
    let config = IndexConfig { retry_pause_max: Duration::from_millis(2), ..small() };
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), config).await.expect("opens");
    while store.commits() < u64::from(small().fold_attempts_max) + 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    *store.fault.lock().expect("not poisoned") = Fault::None;
    settled(&index).await;
    assert_eq!((status(&index).await.parked, status(&index).await.instances), (0, 1));
    index.close().await.expect("closes");
}

/// Opens the index where an older build parked an event as `old` says; gives what is parked in the end.
async fn resumed(old: impl Fn(Parked) -> Parked) -> u64 {
    let (log, store) = (MemoryLog::new(1), MemoryStore::new());
    let (good, spec) = (Spec::new(1, 1, 1, 1), Spec::new(2, 1, 1, 2));
    // As the older build sees it.
    let mut unknown = spec.record();
    unknown.envelope.kind = "cairn.instance.dreamt.v9".into();
    log.put(good.record()).await;
    log.put(unknown).await;
    let index = open(&log, &store).await;
    settled(&index).await;
    index.close().await.expect("closes");
    assert_eq!(status(&index).await.parked, 1);
    let log = MemoryLog::new(1);
    log.put(good.record()).await;
    log.put(spec.record()).await;
    store.edit(PARKED.id, |row| encode_parked(&old(decode_parked(row).expect("a row"))));
    let index = open(&log, &store).await;
    let before = status(&index).await.generation;
    // As long as a rebuild may take, if there is one.
    let mut left = 0;
    for _ in 0..200 {
        left = status(&index).await.parked;
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if left == 0 {
        assert!(status(&index).await.generation > before, "folded anew beside the one that serves");
        assert_eq!(status(&index).await.instances, 2);
    }
    index.close().await.expect("closes");
    left
}

#[tokio::test]
async fn a_build_that_knows_better_folds_again_without_an_operator() {
    let known = |parked: Parked| Parked { kind: "cairn.instance.stored.v1".into(), ..parked };
    assert_eq!(resumed(known).await, 0, "its type is known now");
    assert_eq!(resumed(|parked| parked).await, 1, "its type is still not known");
    let defect = |build: &str| {
        let build = build.to_owned();
        move |parked: Parked| Parked { why: Poison::Defect, build: build.clone(), ..parked }
    };
    assert_eq!(resumed(defect("0.0.9")).await, 0, "another build has other defects");
    assert_eq!(resumed(defect(env!("CARGO_PKG_VERSION"))).await, 1, "this one tried");
}
