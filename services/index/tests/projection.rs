//! The projector: crashes, repetition, poison, other logs, rebuilds.

mod support;

use cairn_archive::{
    EventId, Incarnation, Partition, PositionVector,
    events::{
        BulkDataEntry, Comparison, Event, FrameTable, InstanceReceivedAgain, ReceiptClosed, ResendPolicy,
        VersionChosen, VersionsCompared, event_repaired::Remedy,
    },
};
use cairn_dicom::tags;
use cairn_index::{IndexConfig, IndexService};
use cairn_service_api::{
    Index, Reason,
    index::{Change, Conflict, ConflictKind, Detail, InstanceRecord, Level, Selection, Then},
    parked::ParkedSelection,
};
use cairn_store_api::{EventLog, IndexStore, Record};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use support::{
    Fault, MemoryLog, MemoryStore, Spec, answers, event_id, query, rebuilt, record, settled, small, texts, until, whole,
};

/// Studies that grow in turns, corrections, other encodings, choices, repeats.
fn history() -> Vec<Record> {
    let mut records = Vec::new();
    let mut n = 0;
    for round in 1..6 {
        for study in 1..4 {
            n += 1;
            let mut spec = Spec::new(n, study, round % 2, round);
            // Events come in another order than they happened.
            spec.at = 100 - n;
            if round == 3 {
                spec = spec.with(tags::PATIENT_ID, "P2").with(tags::STUDY_DATE, "20230505");
            }
            records.push(spec.record());
        }
    }
    for study in 1..4 {
        n += 1;
        let mut spec = Spec::new(n, study, 1, 1).with(tags::STUDY_DESCRIPTION, "CORRECTED");
        (spec.content, spec.policy, spec.at) = (2, ResendPolicy::SupersedeSameSource, 200 + n);
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
        records.push(record(n, 300 + n, &Event::InstanceReceivedAgain(Box::new(again))));
        let closed = ReceiptClosed {
            tenant: "default".into(),
            study_instance_uid: spec.study.clone(),
            stored: 4,
            ..ReceiptClosed::default()
        };
        n += 1;
        records.push(record(n, 300 + n, &Event::ReceiptClosed(closed)));
    }
    // Poison, and repairs of it, before and after it: by its own payload, by another one, to nothing, in vain.
    for (at, remedies) in [(3, "psd"), (5, "spa"), (7, "asp"), (9, "dp"), (11, "pd")] {
        n += 1;
        let mut spec = Spec::new(n, 1 + at % 3, 1, at);
        spec.at = at;
        let good = spec.record();
        let mut poison = good.clone();
        poison.payload = vec![0xFF; 9].into();
        let mut other = spec.with(tags::STUDY_DESCRIPTION, "MENDED");
        (other.content, other.policy) = (7, ResendPolicy::SupersedeSameSource);
        for remedy in remedies.chars() {
            n += 1;
            records.push(match remedy {
                'p' => poison.clone(),
                's' if at == 5 => support::repair(n, &poison, support::replaced(&other.record())),
                's' => support::repair(n, &poison, support::replaced(&good)),
                'd' => support::repair(n, &poison, Remedy::Dismissed(true)),
                _ => support::repair(n, &poison, Remedy::FoldedAgain(true)),
            });
        }
    }
    // And the log holds some twice.
    let again: Vec<Record> = records.iter().step_by(3).cloned().collect();
    records.extend(again);
    records
}

async fn log_of(records: &[Record]) -> Arc<MemoryLog> {
    let log = MemoryLog::new(2);
    for record in records {
        log.put(record.clone()).await;
    }
    log
}

async fn open(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>, config: IndexConfig) -> Arc<IndexService> {
    IndexService::open(log.clone(), store.clone(), whole(&**log), config).await.expect("opens")
}

fn little() -> IndexConfig {
    IndexConfig { batch_events_max: 3, ..small() }
}

/// Everything that a reader can see.
async fn seen(index: &IndexService) -> String {
    let mut all = query(Level::Study, &[]);
    all.returning = cairn_service_api::index::Returning::All;
    let studies = answers(index, all).await;
    let by_list = answers(index, query(Level::Instance, &[(tags::PATIENT_ID, "P*")])).await;
    let mut records = Vec::new();
    let selection = Selection { tenant: "default".into(), all_versions: true, ..Selection::default() };
    let mut stream = index.instances(selection, Detail::Header).await.expect("streams");
    while let Some(record) = stream.next().await {
        records.push(record.expect("record"));
    }
    let parked: Vec<_> = index.parked(ParkedSelection::default()).await.expect("streams").collect().await;
    let status = index.status().await.expect("status");
    assert_eq!(status.parked, parked.len() as u64);
    let parked = (parked, status.incomplete_studies);
    format!("{studies:?} {by_list:?} {records:?} {parked:?} {:?}", index.digest().await.expect("digest"))
}

async fn undisturbed(records: &[Record]) -> (String, u64) {
    let (log, store) = (log_of(records).await, MemoryStore::new());
    let index = open(&log, &store, little()).await;
    settled(&index).await;
    let seen = seen(&index).await;
    index.close().await.expect("closes");
    (seen, store.commits())
}

/// Runs into a fault, then starts anew on what is there.
async fn disturbed(records: &[Record], fault: Fault, after: usize) -> String {
    let (log, store) = (log_of(records).await, MemoryStore::new());
    *store.fault.lock().expect("not poisoned") = fault;
    let index = open(&log, &store, little()).await;
    let reached = match fault {
        Fault::FailFrom(at) | Fault::TearAt(at, _) | Fault::LoseAnswer(at) => at,
        Fault::None | Fault::PanicAtReads => 0,
    };
    while store.commits() < reached {
        tokio::task::yield_now().await;
    }
    index.close().await.expect("closes");
    *store.fault.lock().expect("not poisoned") = Fault::None;
    // Batches fall otherwise after the crash.
    let index = open(&log, &store, IndexConfig { batch_events_max: after, ..little() }).await;
    settled(&index).await;
    let seen = seen(&index).await;
    index.close().await.expect("closes");
    seen
}

#[tokio::test]
async fn i3_a_crash_at_any_commit_changes_nothing() {
    let records = history();
    let (expected, commits) = undisturbed(&records).await;
    assert!(commits > 10);
    for at in 1..=commits {
        assert_eq!(disturbed(&records, Fault::FailFrom(at), 2).await, expected, "commit {at} fails");
        assert_eq!(disturbed(&records, Fault::LoseAnswer(at), 2).await, expected, "commit {at} is not answered");
    }
}

#[tokio::test]
async fn i3_a_commit_torn_anywhere_changes_nothing() {
    let records = history();
    let (expected, commits) = undisturbed(&records).await;
    for at in 1..=commits {
        for applied in [1, 5, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 1000] {
            for after in [1, 2, 7] {
                let found = disturbed(&records, Fault::TearAt(at, applied), after).await;
                assert_eq!(found, expected, "commit {at} torn after {applied}, then batches of {after}");
            }
        }
    }
}

#[tokio::test]
async fn i12_batches_of_any_size_give_the_same() {
    let records = history();
    let (expected, _) = undisturbed(&records).await;
    for batch in [1, 2, 5, 100] {
        let (log, store) = (log_of(&records).await, MemoryStore::new());
        let index = open(&log, &store, IndexConfig { batch_events_max: batch, ..little() }).await;
        settled(&index).await;
        assert_eq!(seen(&index).await, expected, "batches of {batch}");
        index.close().await.expect("closes");
    }
}

#[tokio::test]
async fn an_acknowledged_event_is_found_once_waited_for() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store, IndexConfig::default()).await;
    for n in 1..30 {
        let (partition, offset) = log.put(Spec::new(n, n, 1, 1).record()).await;
        let mut after = PositionVector::default();
        after.include(&cairn_archive::Position {
            site: log.site().clone(),
            incarnation: log.incarnation(),
            partition,
            offset,
        });
        index.wait_for(&after, Duration::from_secs(5)).await.expect("folded");
        let found = answers(&index, query(Level::Study, &[(tags::STUDY_INSTANCE_UID, &format!("1.2.{n}"))])).await;
        assert_eq!(found.len(), 1);
    }
    let ahead: PositionVector = "main/1/0/1000".parse().expect("valid");
    let error = index.wait_for(&ahead, Duration::from_millis(20)).await.expect_err("too far");
    assert_eq!(error.reason, Reason::NotYetIndexed);
    let elsewhere: PositionVector = "other/1/0/1".parse().expect("valid");
    assert!(index.wait_for(&elsewhere, Duration::from_millis(20)).await.is_err());
    index.close().await.expect("closes");
}

#[tokio::test]
async fn events_of_another_site_are_waited_for_by_their_origin() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store, small()).await;
    let mut copied = Spec::new(1, 1, 1, 1).record();
    copied.envelope.origin = Some("other/3/9/41".parse().expect("valid"));
    log.put(copied).await;
    let after: PositionVector = "other/3/9/42".parse().expect("valid");
    index.wait_for(&after, Duration::from_secs(5)).await.expect("folded");
    index.close().await.expect("closes");
    let index = open(&log, &store, small()).await;
    index.wait_for(&after, Duration::from_secs(5)).await.expect("still known");
    index.close().await.expect("closes");
}

#[tokio::test]
async fn poison_is_parked_and_later_events_apply() {
    let log = MemoryLog::new(1);
    let good = |n| Spec::new(n, 1, 1, n).record();
    log.put(good(1)).await;
    let mut undecodable = good(2);
    undecodable.payload = vec![0xFF; 10].into();
    log.put(undecodable.clone()).await;
    let mut unknown = good(3);
    unknown.envelope.kind = "cairn.instance.dreamt.v9".into();
    log.put(unknown).await;
    let mut elsewhere = good(4);
    elsewhere.envelope.study_instance_uid = "1.2.99".into();
    log.append(Partition(0), vec![elsewhere, undecodable]).await.expect("appends");
    log.put(good(5)).await;
    let store = MemoryStore::new();
    for _ in 0..2 {
        let index = open(&log, &store, small()).await;
        settled(&index).await;
        let status = index.status().await.expect("status");
        assert_eq!((status.parked, status.instances, status.lag_events), (3, 2, 0));
        assert_eq!(status.incomplete_studies, 2);
        index.close().await.expect("closes");
    }
}

#[tokio::test]
async fn an_event_in_the_wrong_partition_is_parked() {
    let log = MemoryLog::new(4);
    let record = Spec::new(1, 1, 1, 1).record();
    let right = Partition::of_study("1.2.1", 4);
    log.append(Partition((right.0 + 1) % 4), vec![record]).await.expect("appends");
    let index = open(&log, &MemoryStore::new(), small()).await;
    settled(&index).await;
    let status = index.status().await.expect("status");
    assert_eq!((status.parked, status.studies), (1, 0));
    index.close().await.expect("closes");
}

#[tokio::test]
async fn another_log_is_noticed_and_the_index_filled_anew() {
    let store = MemoryStore::new();
    let log = log_of(&history()).await;
    let index = open(&log, &store, small()).await;
    settled(&index).await;
    index.close().await.expect("closes");
    // Restored from an older backup, then other events at the same offsets.
    let restored = log.restored(4);
    for n in 900..920 {
        restored.put(Spec::new(n, n, 1, 1).record()).await;
    }
    let index = open(&restored, &store, small()).await;
    settled(&index).await;
    let found = seen(&index).await;
    index.close().await.expect("closes");
    let fresh = open(&restored, &MemoryStore::new(), small()).await;
    settled(&fresh).await;
    assert_eq!(found, seen(&fresh).await);
    fresh.close().await.expect("closes");
    // A higher incarnation, even with the same events.
    *restored.incarnation.lock().expect("not poisoned") = Incarnation(2);
    let index = open(&restored, &store, small()).await;
    settled(&index).await;
    assert_eq!(index.status().await.expect("status").generation, 3);
    index.close().await.expect("closes");
}

#[tokio::test]
async fn i3_a_rebuild_has_the_same_digest_and_takes_over() {
    let (log, store) = (log_of(&history()).await, MemoryStore::new());
    let index = open(&log, &store, little()).await;
    settled(&index).await;
    let before = seen(&index).await;
    for then in [Then::Drop, Then::Serve] {
        // A query that began before goes on through the switch.
        let mut running = index.query(query(Level::Instance, &[])).await.expect("streams");
        let first = running.next().await.expect("one").expect("answers");
        let done = rebuilt(&*index, then).await;
        let certificate = done.certificate.expect("compared");
        assert!(certificate.is_equal());
        assert_eq!(certificate.position.0.values().map(|end| end.0).sum::<u64>(), log.len());
        let status = index.status().await.expect("status");
        assert_eq!(status.generation == done.generation, then == Then::Serve);
        assert_eq!((certificate.own, certificate.position), index.digest().await.expect("digest"));
        let rest = running.count().await;
        assert_eq!(rest + 1, answers(&index, query(Level::Instance, &[])).await.len(), "{first:?}");
        assert_eq!(seen(&index).await, before);
    }
    // It follows the log, also after a restart.
    log.put(Spec::new(700, 70, 1, 1).record()).await;
    settled(&index).await;
    assert_eq!(answers(&index, query(Level::Study, &[])).await.len(), 4);
    index.close().await.expect("closes");
    let index = open(&log, &store, little()).await;
    settled(&index).await;
    assert_eq!(answers(&index, query(Level::Study, &[])).await.len(), 4);
    index.close().await.expect("closes");
}

async fn conflicts(index: &IndexService, all: bool) -> Vec<Conflict> {
    let stream = index.conflicts("default", all).await.expect("lists");
    stream.map(|conflict| conflict.expect("conflict")).collect().await
}

async fn select(index: &IndexService, selection: Selection, detail: Detail) -> Vec<InstanceRecord> {
    let selection = Selection { tenant: "default".into(), ..selection };
    let stream = index.instances(selection, detail).await.expect("streams");
    stream.map(|record| record.expect("record")).collect().await
}

fn compared(n: u64, spec: &Spec, first: EventId, second: EventId, comparison: Comparison) -> Record {
    let event = Event::VersionsCompared(VersionsCompared {
        tenant: "default".into(),
        study_instance_uid: spec.study.clone(),
        series_instance_uid: spec.series.clone(),
        sop_instance_uid: spec.instance.clone(),
        first_store_event_id: first.as_bytes().to_vec().into(),
        second_store_event_id: second.as_bytes().to_vec().into(),
        comparison: comparison.into(),
    });
    record(n, n, &event)
}

#[tokio::test]
async fn i5_conflicts_are_listed_compared_and_chosen_among() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store, small()).await;
    let first = Spec::new(1, 1, 1, 1);
    let mut second = Spec::new(2, 1, 1, 1).with(tags::PATIENT_NAME, "OTHER");
    second.content = 2;
    let mut elsewhere = Spec::new(3, 2, 1, 7);
    elsewhere.instance = first.instance.clone();
    for spec in [&first, &second, &elsewhere, &Spec::new(4, 1, 1, 2)] {
        log.put(spec.record()).await;
    }
    settled(&index).await;
    let listed = conflicts(&index, false).await;
    let kinds: Vec<ConflictKind> = listed.iter().map(|conflict| conflict.kind).collect();
    assert_eq!(kinds, [ConflictKind::NotComparedYet, ConflictKind::Elsewhere]);
    assert_eq!(listed[0].versions.iter().map(|version| version.shown).collect::<Vec<_>>(), [true, false]);
    assert_eq!(listed[1].versions.len(), 3, "all versions in both places");

    log.put(compared(5, &first, event_id(1), event_id(2), Comparison::AnotherEncoding)).await;
    settled(&index).await;
    assert_eq!(conflicts(&index, false).await.len(), 1, "another encoding is no alarm");
    assert_eq!(conflicts(&index, true).await[0].kind, ConflictKind::AnotherEncoding);
    log.put(compared(6, &first, event_id(2), event_id(1), Comparison::Different)).await;
    let chosen = Event::VersionChosen(VersionChosen {
        tenant: "default".into(),
        study_instance_uid: first.study.clone(),
        series_instance_uid: first.series.clone(),
        sop_instance_uid: first.instance.clone(),
        store_event_id: event_id(2).as_bytes().to_vec().into(),
        ..VersionChosen::default()
    });
    assert_eq!(
        texts(&index, query(Level::Study, &[(tags::STUDY_INSTANCE_UID, "1.2.1")]), tags::PATIENT_NAME).await,
        ["DOE^JANE"]
    );
    log.put(record(7, 7, &chosen)).await;
    settled(&index).await;
    let listed = conflicts(&index, false).await;
    assert_eq!(listed[0].kind, ConflictKind::Content);
    assert_eq!(listed[0].versions.iter().map(|version| version.shown).collect::<Vec<_>>(), [false, true]);
    // The chosen version's attributes are seen, the other's no more at its instance.
    let named = query(Level::Instance, &[(tags::SOP_INSTANCE_UID, "1.2.1.1.1"), (tags::STUDY_INSTANCE_UID, "1.2.1")]);
    assert_eq!(texts(&index, named, tags::PATIENT_NAME).await, ["OTHER"]);
    let study = query(Level::Study, &[(tags::PATIENT_NAME, "OTHER*")]);
    assert_eq!(answers(&index, study).await.len(), 1);

    let at = |instances: &[&str]| Selection {
        studies: vec!["1.2.1".parse().expect("valid")],
        instances: instances.iter().map(|uid| uid.parse().expect("valid")).collect(),
        ..Selection::default()
    };
    assert_eq!(select(&index, at(&[]), Detail::Location).await.len(), 2);
    let versions = Selection { all_versions: true, ..at(&["1.2.1.1.1"]) };
    let found = select(&index, versions, Detail::Header).await;
    assert_eq!(found.iter().map(|record| record.shown).collect::<Vec<_>>(), [false, true]);
    let hidden = Selection { version: Some(found[0].object.digest), ..at(&["1.2.1.1.1"]) };
    let hidden = select(&index, hidden, Detail::Header).await;
    assert_eq!(hidden.iter().map(|record| record.store_event).collect::<Vec<_>>(), [event_id(1)]);
    assert!(String::from_utf8_lossy(&hidden[0].header).contains("DOE^JANE"));
    index.close().await.expect("closes");
}

#[tokio::test]
async fn records_have_tables_and_headers_however_they_trickled_in() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let index = open(&log, &store, IndexConfig { batch_events_max: 5, ..small() }).await;
    let mut specs = Vec::new();
    for n in 1..=300 {
        let mut spec =
            Spec::new(n, 1, 1 + n % 2, n).with(tags::IMAGE_COMMENTS, &format!("comment {n} {}", "x".repeat(300)));
        spec.at = 1000 - n;
        if n % 40 == 0 {
            settled(&index).await;
        }
        log.put(spec.record()).await;
        specs.push(spec);
    }
    settled(&index).await;
    let patient = Selection { patient: Some(("P1".into(), None)), ..Selection::default() };
    let found = select(&index, patient.clone(), Detail::Header).await;
    assert_eq!(found.len(), 300);
    let mut order: Vec<(String, u64)> = specs.iter().map(|spec| (spec.series.clone(), spec.n)).collect();
    order.sort();
    for (record, (series, n)) in found.iter().zip(&order) {
        assert_eq!((record.series_instance_uid.as_str(), record.store_event), (series.as_str(), event_id(*n)));
        let comment = format!("comment {n} x");
        assert!(String::from_utf8_lossy(&record.header).contains(&comment), "header of {n}");
    }
    let issued = Selection { patient: Some(("P1".into(), Some("NOBODY".into()))), ..Selection::default() };
    assert!(select(&index, issued, Detail::Location).await.is_empty());
    let series = Selection { series: vec!["1.2.1.2".parse().expect("valid")], ..Selection::default() };
    assert_eq!(select(&index, series, Detail::Location).await.len(), 150);
    let one = Selection { instances: vec!["1.2.1.2.7".parse().expect("valid")], ..Selection::default() };
    assert_eq!(select(&index, one, Detail::Location).await.len(), 1);
    index.close().await.expect("closes");
}

#[tokio::test]
async fn tables_of_any_size_come_back() {
    use cairn_archive::events::{FragmentedFrames, InstanceStored, frame_table::Layout};
    use prost::Message;
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    let mut expected = Vec::new();
    for (n, frames) in [(1, 1_u32), (2, 3), (3, 5_000)] {
        let record = Spec::new(n, 1, 1, n).record();
        let mut stored = InstanceStored::decode(record.payload.clone()).expect("decodes");
        stored.frame_table = Some(FrameTable {
            layout: Some(Layout::Fragmented(FragmentedFrames {
                range_ends: (1..=frames).collect(),
                range_start_gaps: vec![8; frames as usize],
                range_lengths: vec![1_000; frames as usize],
            })),
        });
        stored.bulk_data = vec![BulkDataEntry { path: vec![0x7FE0_0010], length_bytes: 9, ..BulkDataEntry::default() }];
        stored.pixel_data_offset = 500;
        expected.push((stored.frame_table.clone(), stored.bulk_data.clone(), frames));
        log.put(Record { payload: stored.encode_to_vec().into(), ..record }).await;
    }
    let index = open(&log, &store, small()).await;
    settled(&index).await;
    let found = select(&index, Selection::default(), Detail::Tables).await;
    let told: Vec<_> =
        found.iter().map(|record| (record.frame_table.clone(), record.bulk_data.clone(), record.frames)).collect();
    assert_eq!(told, expected);
    assert!(found.iter().all(|record| record.header.is_empty()));
    index.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_stable_while_more_is_stored() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    for n in 1..=60 {
        log.put(Spec::new(n, n, 1, 1).with(tags::STUDY_DATE, &format!("2024{:02}15", 1 + n % 12)).record()).await;
    }
    let index = open(&log, &store, small()).await;
    settled(&index).await;
    let storing = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 100..400 {
                log.put(Spec::new(n, n, 1, 1).with(tags::STUDY_DATE, &format!("2024{:02}15", 1 + n % 12)).record())
                    .await;
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..20 {
        let found = texts(&index, query(Level::Study, &[(tags::PATIENT_ID, "P1")]), tags::STUDY_INSTANCE_UID).await;
        let distinct: std::collections::BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "none twice");
        assert!((1..=60).all(|n| distinct.contains(&format!("1.2.{n}"))), "none of those there before is missing");
    }
    storing.await.expect("stores");
    settled(&index).await;
    assert_eq!(answers(&index, query(Level::Study, &[])).await.len(), 360);
    // A reader that goes away ends its query, and leaves room for others.
    for _ in 0..200 {
        let mut stream = index.query(query(Level::Study, &[])).await.expect("streams");
        stream.next().await.expect("one").expect("answers");
    }
    index.close().await.expect("closes");
}

#[tokio::test]
async fn the_age_of_what_is_not_folded_yet_is_that_of_the_oldest_event() {
    let (log, store) = (MemoryLog::new(1), MemoryStore::new());
    let index = open(&log, &store, little()).await;
    log.put(Spec::new(1, 1, 1, 1).record()).await;
    settled(&index).await;
    assert_eq!(index.status().await.expect("status").oldest_unfolded_ms, None);
    *store.fault.lock().expect("not poisoned") = Fault::FailFrom(0);
    log.put(Spec::new(2, 2, 1, 1).record()).await;
    log.put(Spec::new(3, 3, 1, 1).record()).await;
    let status = index.status().await.expect("status");
    assert_eq!((status.lag_events, status.oldest_unfolded_ms), (2, Some(1_001)), "the second event of the log");
    *store.fault.lock().expect("not poisoned") = Fault::None;
    settled(&index).await;
    assert_eq!(index.status().await.expect("status").oldest_unfolded_ms, None);
}

#[tokio::test]
async fn what_a_store_lost_of_a_quiet_generation_is_noticed_by_a_rebuild_beside_it() {
    let records = history();
    let (log, store) = (log_of(&records).await, MemoryStore::new());
    let index = open(&log, &store, little()).await;
    settled(&index).await;
    let (before, serving) = (seen(&index).await, index.status().await.expect("status").generation);
    *store.fault.lock().expect("not poisoned") = Fault::FailFrom(0);
    let tried = store.commits();
    let begun = index.manage(Change::Rebuild { then: Then::Wait }).await.expect("begins");
    // The rebuild is at its commits, which fail; the store mends itself and has lost what was not synced.
    while store.commits() == tried {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.drop_generation(cairn_store_api::Generation(serving)).await.expect("lost");
    *store.fault.lock().expect("not poisoned") = Fault::None;
    until(&*index, begun.generation, |status| status.certificate.is_some()).await;
    let end = index.status().await.expect("status").log_end;
    index.wait_for(&end, Duration::from_secs(20)).await.expect("folded again");
    assert_eq!(seen(&index).await, before);
}
