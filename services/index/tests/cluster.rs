//! Several processes of the index over one log and one index store.

mod support;

use async_trait::async_trait;
use cairn_archive::{
    Incarnation, Offset, Partition, Position, PositionVector,
    digest::{FOLD_VERSION, HashSum, Leaves, event_hash, leaf_of},
    events::{Event, ReceiptClosed, ResendPolicy},
};
use cairn_dicom::tags;
use cairn_index::{IndexConfig, IndexService};
use cairn_service_api::{
    ErrorKind, Index, Reason,
    digests::Of,
    index::{Change, Detail, Diff, Level, Returning, Role, Selection, Then, Until},
};
use cairn_store_api::{EventLog, Generation, IndexStore, Membership, Record, Release, ShareChange};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use support::{
    MemoryLog, MemoryStore, Spec, answers, generation, query, rebuilt, record, settled, small, texts, until, whole,
};
use tokio::sync::{mpsc, oneshot};

/// A share that a test gives and takes.
struct Given(mpsc::UnboundedReceiver<ShareChange>);

#[async_trait]
impl Membership for Given {
    async fn next(&mut self) -> Option<ShareChange> {
        self.0.recv().await
    }
}

/// A process of the index.
struct Process {
    index: Arc<IndexService>,
    share: mpsc::UnboundedSender<ShareChange>,
}

fn partitions(of: &[u16]) -> Vec<Partition> {
    of.iter().copied().map(Partition).collect()
}

impl Process {
    async fn begin(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>, of: &[u16], config: IndexConfig) -> Self {
        let (share, given) = mpsc::unbounded_channel();
        let index = IndexService::open(log.clone(), store.clone(), Box::new(Given(given)), config);
        let process = Self { index: index.await.expect("opens"), share };
        process.gain(of);
        process
    }

    fn gain(&self, of: &[u16]) {
        self.share.send(ShareChange::Gained(partitions(of))).expect("alive");
    }

    /// Resolves once nothing follows them here any more.
    fn lose(&self, of: &[u16]) -> oneshot::Receiver<()> {
        let (released, release) = oneshot::channel();
        let release_now = Release::new(move || {
            let _ = released.send(());
        });
        self.share.send(ShareChange::Lost(partitions(of), release_now)).expect("alive");
        release
    }
}

/// Studies that grow in turns, corrections, receipts, repeats; `n` events beside.
fn history(n: u64) -> Vec<Record> {
    let mut records = Vec::new();
    for at in 1..=n {
        let (study, round) = (1 + at % 9, 1 + at / 9);
        let mut spec = Spec::new(at, study, round % 2, round);
        spec.at = 10_000 - at;
        if round % 4 == 3 {
            spec = spec.with(tags::PATIENT_ID, "P2").with(tags::STUDY_DATE, "20230505");
        }
        if round % 5 == 4 {
            spec = Spec::new(at, study, 1, 1).with(tags::STUDY_DESCRIPTION, "CORRECTED");
            (spec.content, spec.policy, spec.at) = (2, ResendPolicy::SupersedeSameSource, 20_000 + at);
        }
        let study = spec.study.clone();
        records.push(spec.record());
        if at % 7 == 0 {
            let closed = ReceiptClosed {
                tenant: "default".into(),
                study_instance_uid: study,
                stored: 4,
                ..ReceiptClosed::default()
            };
            records.push(record(100_000 + at, 30_000 + at, &Event::ReceiptClosed(closed)));
        }
        if at % 11 == 0 {
            records.push(records[0].clone());
        }
    }
    records
}

async fn put(log: &MemoryLog, records: &[Record]) {
    for record in records {
        log.put(record.clone()).await;
        tokio::task::yield_now().await;
    }
}

/// Stores a study, and asks each process for it once that says that it has what was stored.
async fn stored_is_found(log: &MemoryLog, processes: &[Arc<IndexService>], n: u64) {
    let (partition, offset) = log.put(Spec::new(n, n, 1, 1).record()).await;
    let mut after = PositionVector::default();
    let (site, incarnation) = (log.site().clone(), log.incarnation());
    after.include(&Position { site, incarnation, partition, offset });
    for index in processes {
        index.wait_for(&after, Duration::from_secs(10)).await.expect("folded");
        let found = query(Level::Study, &[(tags::STUDY_INSTANCE_UID, &format!("1.2.{n}"))]);
        assert_eq!(answers(index, found).await.len(), 1);
    }
}

fn one_by_one() -> IndexConfig {
    IndexConfig { batch_events_max: 1, ..small() }
}

/// Everything that a reader can see.
async fn seen(index: &IndexService) -> String {
    let mut all = query(Level::Study, &[]);
    all.returning = Returning::All;
    let studies = answers(index, all).await;
    let by_list = answers(index, query(Level::Instance, &[(tags::PATIENT_ID, "P*")])).await;
    let selection = Selection { tenant: "default".into(), all_versions: true, ..Selection::default() };
    let stream = index.instances(selection, Detail::Header).await.expect("streams");
    let records: Vec<_> = stream.map(|record| record.expect("record")).collect().await;
    let status = index.status().await.expect("status");
    let counts = (status.studies, status.series, status.instances, status.parked, status.lag_events, status.folded);
    format!("{studies:?} {by_list:?} {records:?} {counts:?} {:?}", index.digest().await.expect("digest"))
}

/// What one process makes of the same log.
async fn undisturbed(log: &Arc<MemoryLog>) -> String {
    let index = IndexService::open(log.clone(), MemoryStore::new(), whole(&**log), small()).await.expect("opens");
    settled(&index).await;
    let seen = seen(&index).await;
    index.close().await.expect("closes");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_log_and_answer_alike() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let a = Process::begin(&log, &store, &[0, 1], small()).await;
    let b = Process::begin(&log, &store, &[2, 3], small()).await;
    put(&log, &history(120)).await;
    settled(&a.index).await;
    settled(&b.index).await;
    let expected = undisturbed(&log).await;
    assert_eq!(seen(&a.index).await, expected);
    assert_eq!(seen(&b.index).await, expected);
    // What was stored is found by whichever process is asked after it.
    for n in 500..530 {
        stored_is_found(&log, &[a.index.clone(), b.index.clone()], n).await;
    }
    let ahead: PositionVector = "main/1/0/100000".parse().expect("valid");
    let late = a.index.wait_for(&ahead, Duration::from_millis(30)).await.expect_err("too far");
    assert_eq!(late.reason, Reason::NotYetIndexed);
    // By its place in another site's log, too.
    let mut copied = Spec::new(900, 900, 1, 1).record();
    copied.envelope.origin = Some("other/3/9/41".parse().expect("valid"));
    log.put(copied).await;
    for process in [&a, &b] {
        let after = "other/3/9/42".parse().expect("valid");
        process.index.wait_for(&after, Duration::from_secs(10)).await.expect("folded");
    }
    a.index.close().await.expect("closes");
    b.index.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_between_processes_while_events_come() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let a = Process::begin(&log, &store, &[0, 1, 2, 3], one_by_one()).await;
    let b = Process::begin(&log, &store, &[], small()).await;
    let records = history(200);
    for (round, some) in records.chunks(30).enumerate() {
        put(&log, some).await;
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let moving = [round as u16 % 4, (round as u16 + 1) % 4];
        from.lose(&moving).await.expect("released");
        to.gain(&moving);
    }
    settled(&b.index).await;
    settled(&a.index).await;
    let expected = undisturbed(&log).await;
    assert_eq!(seen(&a.index).await, expected);
    assert_eq!(seen(&b.index).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_takes_over_from_one_that_died() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    put(&log, &history(150)).await;
    *store.hold.lock().expect("not poisoned") = Some((1, 40));
    let a = Process::begin(&log, &store, &[0, 1, 2, 3], one_by_one()).await;
    let b = Process::begin(&log, &store, &[], small()).await;
    until(&*b.index, 1, |status| status.events >= 40).await;
    drop(a);
    b.gain(&[0, 1, 2, 3]);
    *store.hold.lock().expect("not poisoned") = None;
    settled(&b.index).await;
    assert_eq!(seen(&b.index).await, undisturbed(&log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_one_partition_change_no_answer() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    // Neither knows of the other: one of them was frozen, and does not know yet that its share is another's.
    let a = Process::begin(&log, &store, &[0, 1, 2], one_by_one()).await;
    let b = Process::begin(&log, &store, &[1, 2, 3], small()).await;
    put(&log, &history(150)).await;
    settled(&a.index).await;
    settled(&b.index).await;
    let expected = undisturbed(&log).await;
    for process in [&a, &b] {
        // A partition is followed here from where the other one has got with it, once there is something to do.
        let mut last = String::new();
        for _ in 0..1_000 {
            last = seen(&process.index).await;
            if last == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(last, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_is_shared_while_events_come_and_all_processes_switch() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    let records = history(300);
    let (early, late) = records.split_at(150);
    put(&log, early).await;
    let a = Process::begin(&log, &store, &[0, 1], small()).await;
    let b = Process::begin(&log, &store, &[2, 3], small()).await;
    settled(&a.index).await;
    let storing = tokio::spawn({
        let (log, late, both) = (log.clone(), late.to_vec(), [a.index.clone(), b.index.clone()]);
        async move {
            // Whatever happens to generations meanwhile, what was stored is found after it, by each process.
            for (n, record) in (5_000..).zip(&late) {
                log.put(record.clone()).await;
                if n % 3 == 0 {
                    stored_is_found(&log, &both, n).await;
                }
            }
        }
    });
    // Asked of the process that does not have the first partition.
    let done = rebuilt(&*b.index, Then::Serve).await;
    let certificate = done.certificate.expect("compared");
    assert!(certificate.is_equal(), "{certificate:?}");
    assert!(certificate.position.0.len() == 4 && certificate.own.studies > 0);
    storing.await.expect("stored");
    for process in [&a, &b] {
        let status = until(&*process.index, 1, |status| status.role == Role::Kept).await;
        assert_eq!(status.events_per_second, None);
        settled(&process.index).await;
        assert_eq!(process.index.status().await.expect("status").generation, done.generation);
    }
    let expected = undisturbed(&log).await;
    assert_eq!(seen(&a.index).await, expected);
    assert_eq!(seen(&b.index).await, expected);
    // The one before was followed on, and serves again.
    put(&log, &[Spec::new(7_000, 70, 1, 1).record()]).await;
    assert_eq!(a.index.manage(Change::Rollback).await.expect("rolls back").generation, 1);
    until(&*b.index, 1, |status| status.role == Role::Serving).await;
    for process in [&a, &b] {
        settled(&process.index).await;
        assert_eq!(process.index.status().await.expect("status").generation, 1);
        assert_eq!(seen(&process.index).await, undisturbed(&log).await);
    }
    // And forth again.
    let forth = Change::Switch { generation: done.generation, accept_difference: false };
    b.index.manage(forth).await.expect("switches");
    assert_eq!(b.index.status().await.expect("status").generation, done.generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_is_halted_goes_on_and_outlives_its_processes() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    put(&log, &history(150)).await;
    let a = Process::begin(&log, &store, &[0, 1], one_by_one()).await;
    let b = Process::begin(&log, &store, &[2, 3], one_by_one()).await;
    settled(&a.index).await;
    *store.hold.lock().expect("not poisoned") = Some((2, 30));
    let begun = a.index.manage(Change::Rebuild { then: Then::Serve }).await.expect("begins").generation;
    let other = b.index.manage(Change::Rebuild { then: Then::Drop }).await.expect_err("one at a time");
    assert_eq!((begun, other.kind), (2, ErrorKind::Conflict));
    let partly = until(&*b.index, 2, |status| status.events >= 30).await;
    assert!(partly.events < partly.total && partly.certificate.is_none() && partly.role == Role::Filling);
    let refused = b.index.manage(Change::Switch { generation: 2, accept_difference: true }).await;
    assert_eq!(refused.expect_err("not filled").kind, ErrorKind::Conflict);
    let asked = support::query(Level::Study, &[]);
    let asked = cairn_service_api::index::Query { generation: Some(2), ..asked };
    let mut answers = a.index.query(asked).await.expect("streams");
    assert_eq!(answers.next().await.expect("one").expect_err("not filled").kind, ErrorKind::Unavailable);
    b.index.manage(Change::Pause(2)).await.expect("halts");
    *store.hold.lock().expect("not poisoned") = None;
    // Both die, and others take their places.
    drop((a, b));
    let a = Process::begin(&log, &store, &[0, 1, 2], small()).await;
    let b = Process::begin(&log, &store, &[3], small()).await;
    settled(&b.index).await;
    until(&*a.index, 2, |status| status.paused).await;
    put(&log, &history(20)).await;
    settled(&a.index).await;
    // Commits that were under way ended: one of each partition.
    let still = generation(&*a.index, 2).await.expect("there");
    assert!(still.events <= 34 && still.events < still.total && still.events_per_second.is_none(), "{still:?}");
    a.index.manage(Change::Resume(2)).await.expect("goes on");
    let done = until(&*b.index, 2, |status| status.role == Role::Serving).await;
    assert!(done.certificate.expect("compared").is_equal());
    settled(&b.index).await;
    assert_eq!(seen(&b.index).await, undisturbed(&log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_as_it_was_is_asked_beside_the_present_one() {
    let (log, store) = (MemoryLog::new(4), MemoryStore::new());
    put(&log, &history(60)).await;
    let then = undisturbed(&log).await;
    let a = Process::begin(&log, &store, &[0, 1], small()).await;
    let b = Process::begin(&log, &store, &[2, 3], small()).await;
    settled(&a.index).await;
    let (digest, position) = a.index.digest().await.expect("digest");
    put(&log, &history(200)[70..]).await;
    settled(&a.index).await;
    let freeze = Change::Freeze(Until::Position(position.clone()));
    let begun = b.index.manage(freeze).await.expect("begins");
    assert_eq!((begun.generation, &begun.until), (2, &Some(position.clone())));
    let frozen = until(&*a.index, 2, |status| status.events == status.total).await;
    assert_eq!((frozen.role, frozen.digest, &frozen.folded), (Role::Frozen, digest, &position));
    assert!(then.contains(&format!("{digest:?}")));
    for process in [&a, &b] {
        let live = texts(&process.index, query(Level::Instance, &[]), tags::SOP_INSTANCE_UID).await;
        let mut asked = query(Level::Instance, &[]);
        asked.generation = Some(2);
        let then = texts(&process.index, asked, tags::SOP_INSTANCE_UID).await;
        assert!(!then.is_empty() && then.len() < live.len(), "{} of {}", then.len(), live.len());
        let diff = Diff { tenant: "default".into(), a: 1, b: 2, limit: 100 };
        let differing: Vec<_> = process.index.diff(diff).await.expect("streams").collect().await;
        assert_eq!(differing.len(), 9, "each study has grown");
        assert!(differing.iter().all(|study| study.as_ref().is_ok_and(|study| study.a != study.b)));
    }
    // It stays where it is, and a time means positions too.
    put(&log, &[Spec::new(7_000, 70, 1, 1).record()]).await;
    settled(&b.index).await;
    assert_eq!(generation(&*b.index, 2).await.expect("there").digest, digest);
    let begun = a.index.manage(Change::Freeze(Until::Time(1_003))).await.expect("begins");
    let ends = begun.until.expect("positions").0;
    assert!(ends.len() == 4 && ends.values().all(|end| end.0 == 3), "{ends:?}");
    for bad in ["other/1/0/1", "main/2/0/1", "main/1/9/1", "main/1/0/1000000"] {
        let freeze = Change::Freeze(Until::Position(bad.parse().expect("valid")));
        assert_eq!(a.index.manage(freeze).await.expect_err(bad).kind, ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_differs_is_told_and_does_not_serve_by_itself() {
    let (log, wrong, store) = (MemoryLog::new(2), MemoryLog::new(2), MemoryStore::new());
    put(&log, &history(40)).await;
    // As if a defect had written something else than the log says.
    let mut records = history(40);
    let mut spec = Spec::new(2, 3, 0, 0).with(tags::PATIENT_NAME, "SOMEBODY^ELSE");
    (spec.series, spec.instance) = ("1.2.3.0".into(), "1.2.3.0.1".into());
    records[1] = spec.record();
    put(&wrong, &records).await;
    let index = IndexService::open(wrong.clone(), store.clone(), whole(&*wrong), small()).await.expect("opens");
    settled(&index).await;
    index.close().await.expect("closes");
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    let begun = index.manage(Change::Rebuild { then: Then::Serve }).await.expect("begins").generation;
    let compared = until(&*index, begun, |status| status.certificate.is_some()).await;
    assert!(!compared.certificate.expect("compared").is_equal());
    let switch = |accept_difference| Change::Switch { generation: begun, accept_difference };
    assert_eq!(index.manage(switch(false)).await.expect_err("differs").kind, ErrorKind::Conflict);
    assert_eq!(index.status().await.expect("status").generation, 1);
    let diff = Diff { tenant: "default".into(), a: 1, b: begun, limit: 100 };
    let differing: Vec<_> = index.diff(diff).await.expect("streams").collect().await;
    let differing: Vec<_> = differing.into_iter().map(|study| study.expect("study").study_instance_uid).collect();
    assert_eq!(differing, ["1.2.3"]);
    index.manage(switch(true)).await.expect("accepted");
    assert_eq!(index.status().await.expect("status").generation, begun);
    assert_eq!(seen(&index).await, undisturbed(&log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_never_cut_short_by_a_generation_that_goes() {
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    put(&log, &history(150)).await;
    let a = Process::begin(&log, &store, &[0], small()).await;
    let b = Process::begin(&log, &store, &[1], small()).await;
    settled(&a.index).await;
    let until_now = a.index.status().await.expect("status").folded;
    a.index.manage(Change::Freeze(Until::Position(until_now))).await.expect("begins");
    until(&*a.index, 2, |status| status.events == status.total).await;
    let mut asked = query(Level::Instance, &[]);
    asked.generation = Some(2);
    let mut running = a.index.query(asked.clone()).await.expect("streams");
    running.next().await.expect("one").expect("answers");
    b.index.manage(Change::Drop(2)).await.expect("drops");
    let mut late = b.index.query(asked).await.expect("streams");
    assert_eq!(late.next().await.expect("one").expect_err("gone").kind, ErrorKind::NotFound);
    // This process does not know that another one still reads it.
    let gone = async {
        while generation(&*b.index, 2).await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("removed");
    assert!(store.dump(2).is_empty());
    let rest: Vec<_> = running.collect().await;
    assert!(rest.last().expect("an end").is_err(), "answers that are missing are no end of the answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_served_before_goes_after_a_while() {
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    put(&log, &history(30)).await;
    let config = IndexConfig { keep_previous: Duration::ZERO, drop_grace: Duration::from_millis(50), ..small() };
    let a = Process::begin(&log, &store, &[0], config.clone()).await;
    let b = Process::begin(&log, &store, &[1], config).await;
    settled(&a.index).await;
    a.index.manage(Change::Rebuild { then: Then::Serve }).await.expect("begins");
    until(&*b.index, 2, |status| status.role == Role::Serving).await;
    let alone = async {
        while a.index.generations().await.expect("generations").len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alone).await.expect("removed");
    assert!(store.dump(1).is_empty() && !store.dump(2).is_empty());
    let refused = b.index.manage(Change::Rollback).await.expect_err("nothing is kept");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    settled(&b.index).await;
    assert_eq!(seen(&b.index).await, undisturbed(&log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_of_an_earlier_fold_serves_until_another_is_filled() {
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    put(&log, &history(60)).await;
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    index.close().await.expect("closes");
    let pointer = store.pointer().await.expect("pointer");
    let earlier = String::from_utf8(pointer.to_vec()).expect("text").replace(&format!("fold={FOLD_VERSION}"), "fold=0");
    assert!(store.compare_and_set_pointer(&pointer, earlier.into()).await.expect("sets"));
    *store.hold.lock().expect("not poisoned") = Some((2, 5));
    put(&log, &[Spec::new(7_000, 70, 1, 1).record()]).await;
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    until(&*index, 2, |status| status.events > 0).await;
    let status = index.status().await.expect("status");
    assert_eq!((status.generation, status.studies, status.lag_events), (1, 9, 1), "as it was, and not gone on with");
    *store.hold.lock().expect("not poisoned") = None;
    until(&*index, 2, |status| status.role == Role::Serving).await;
    settled(&index).await;
    assert_eq!(seen(&index).await, undisturbed(&log).await);
    index.close().await.expect("closes");
}

#[tokio::test]
async fn a_process_with_an_older_log_does_not_touch_a_newer_index() {
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    *log.incarnation.lock().expect("not poisoned") = Incarnation(2);
    put(&log, &history(30)).await;
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    let pointer = store.pointer().await.expect("pointer");
    let older = log.restored(100);
    let refused = IndexService::open(older.clone(), store.clone(), whole(&*older), small()).await;
    assert_eq!(refused.err().expect("refused").kind, ErrorKind::Unavailable);
    assert_eq!(store.pointer().await.expect("pointer"), pointer);
    index.close().await.expect("closes");
}

#[tokio::test]
async fn what_nobody_has_is_removed_at_the_start() {
    let (log, store) = (MemoryLog::new(2), MemoryStore::new());
    put(&log, &history(10)).await;
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    rebuilt(&*index, Then::Wait).await;
    index.close().await.expect("closes");
    // The build before kept nothing but the serving generation in its pointer.
    let pointer = store.pointer().await.expect("pointer");
    assert!(store.compare_and_set_pointer(&pointer, format!("1 1 {FOLD_VERSION} 3").into()).await.expect("sets"));
    assert!(!store.offsets(Generation(2)).await.expect("offsets").is_empty());
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    assert!(store.dump(2).is_empty());
    assert_eq!(index.generations().await.expect("generations").len(), 1);
    index.close().await.expect("closes");
}

/// Everything that a stream gives.
async fn listed<T>(answers: Result<cairn_service_api::AnswerStream<T>, cairn_service_api::Error>) -> Vec<T> {
    answers.expect("streams").map(|answer| answer.expect("answer")).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_digest_tree_leads_from_the_whole_to_every_event_in_each_process() {
    for store in [MemoryStore::new(), MemoryStore::exact()] {
        let log = MemoryLog::new(4);
        let mut records = history(60);
        // One that can't be folded, in whose place its repair stands, and one that another site brought.
        let mut parked = Spec::new(500, 3, 1, 500).record();
        let good = parked.clone();
        parked.payload = vec![0xFF; 10].into();
        records.push(parked.clone());
        records.push(support::repair(501, &parked, support::replaced(&good)));
        let mut brought = Spec::new(502, 3, 1, 502).record();
        let origin = Position {
            site: "west".parse().expect("a site"),
            incarnation: Incarnation(2),
            partition: Partition(1),
            offset: Offset(77),
        };
        brought.envelope.origin = Some(origin.clone());
        records.push(brought);
        put(&log, &records).await;
        let a = Process::begin(&log, &store, &[0, 1], small()).await;
        let b = Process::begin(&log, &store, &[2, 3], small()).await;
        for process in [&a, &b] {
            settled(&process.index).await;
            let tree = process.index.digest_tree().await.expect("tree");
            let (digest, position) = process.index.digest().await.expect("digest");
            assert_eq!((tree.leaves.roots(), &tree.folded), ((digest.events, digest.state), &position));
            assert!(tree.folded.contains(&origin) && tree.site.to_string() == "main");
            let leaves: Vec<u8> = (0..=u8::MAX).filter(|leaf| tree.leaves.get(*leaf).studies > 0).collect();
            let studies = listed(process.index.study_digests("default", Of::Leaves(leaves.clone())).await).await;
            assert_eq!(studies.len(), 9);
            let mut sums = Leaves::default();
            for study in &studies {
                let leaf = sums.get_mut(leaf_of("default", study.study_instance_uid.as_str()));
                leaf.events.add(&study.events);
                leaf.state.add(&study.state);
            }
            assert!(leaves.iter().all(|leaf| sums.get(*leaf).events == tree.leaves.get(*leaf).events));
            assert!(leaves.iter().all(|leaf| sums.get(*leaf).state == tree.leaves.get(*leaf).state));
            let one = listed(process.index.study_digests("default", Of::Leaves(leaves[..1].to_vec())).await).await;
            assert!(one.len() < 9 && one.iter().all(|study| studies.contains(study)));
            let uids = studies.iter().map(|study| study.study_instance_uid.clone());
            let asked = uids.chain(["9.9.9".parse().expect("a UID")]).collect();
            assert_eq!(listed(process.index.study_digests("default", Of::Studies(asked)).await).await, studies);
            assert!(listed(process.index.study_digests("other", Of::Leaves(leaves)).await).await.is_empty());
            for study in &studies {
                let uid = &study.study_instance_uid;
                let events = listed(process.index.study_events("default", uid, Vec::new()).await).await;
                let mut sum = HashSum::default();
                events.iter().for_each(|event| sum.add(&event_hash(&event.event)));
                assert_eq!(sum.to_bytes(), study.events, "each event of {uid}, and no other");
                assert!(events.is_sorted_by(|one, other| one.order() < other.order()));
                assert!(events.iter().all(|event| event.origin.is_none()));
                assert!(!events.iter().any(|event| event.event == support::event_id(500)), "its repair stands for it");
            }
        }
        let study = "1.2.3".parse().expect("a UID");
        let only = vec![support::event_id(501), support::event_id(502), support::event_id(9_999)];
        let found = listed(b.index.study_events("default", &study, only).await).await;
        let [brought, repair] = &found[..] else { panic!("two, not {found:?}") };
        assert_eq!((&brought.origin, brought.kind.as_str()), (&Some(origin), "cairn.instance.stored.v1"));
        assert_eq!(brought.about.as_ref().map(|(_, instance)| instance.to_string()).as_deref(), Some("1.2.3.1.502"));
        assert_eq!((repair.about.as_ref(), repair.kind.as_str()), (None, "cairn.event.repaired.v1"));
        let here = repair.origin.as_ref().expect("it stands here");
        assert_eq!((here.site.to_string().as_str(), here.incarnation), ("main", Incarnation(1)));
    }
}
