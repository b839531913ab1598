//! What a network and a store far away do, one trial each.

use crate::backend::Bucket;
use crate::proxy::Fault;
use cairn_conformance::object_store::{bytes, key, put, read, read_range};
use cairn_object_store_s3::{S3Config, S3Store};
use cairn_store_api::{ObjectStore, StoreErrorKind};
use futures_util::StreamExt;
use libtest_mimic::Trial;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const CT: usize = 526_000;
/// Larger than two parts.
const LONG: usize = 12_000_000;

struct Site {
    bucket: Bucket,
    store: Arc<S3Store>,
}

async fn site(change: impl FnOnce(&mut S3Config)) -> Site {
    let bucket = Bucket::new(true);
    let mut config = bucket.config(bucket.address().await);
    change(&mut config);
    let store = bucket.open_with(config).await.unwrap();
    Site { bucket, store }
}

impl Site {
    /// The fault for the first `times` requests that begin so and have `part` in them; gives how many there were.
    fn fault(&self, method: &'static str, part: &'static str, times: usize, fault: Fault) -> Arc<AtomicUsize> {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        self.bucket.proxy().rule(move |request| {
            let meant = request.starts_with(method) && request.contains(part);
            if meant && count.fetch_add(1, Ordering::Relaxed) < times { fault } else { Fault::None }
        });
        seen
    }

    /// Stores under a fault, and sees that there is one object, whole.
    async fn stores_one(&self, length: usize) {
        let content = bytes(1, length);
        let info = put(&*self.store, key(1), &content, 100_000).await.unwrap();
        assert_eq!(self.store.stat(key(1)).await.unwrap(), info);
        assert!(read(&*self.store, &info.object).await.unwrap() == content);
        assert_eq!(self.store.list(None, 10).await.unwrap().objects, [info]);
        self.store.close().await.unwrap();
        assert_eq!(self.bucket.uploads().await, 0);
        let objects = self.bucket.names().await.into_iter().filter(|name| name.contains("/objects/")).count();
        assert_eq!(objects, 1);
    }
}

async fn bursts_of_503_pass() {
    let site = site(|_| {}).await;
    let seen = site.fault("PUT", "/objects/", 4, Fault::Answer(503, "SlowDown"));
    site.stores_one(CT).await;
    assert_eq!(seen.load(Ordering::Relaxed), 5);
}

async fn lasting_503_is_unavailable_at_the_deadline() {
    let site =
        site(|config| (config.deadline, config.attempt_timeout) = (Duration::from_secs(8), Duration::from_secs(8)))
            .await;
    site.fault("PUT", "/objects/", usize::MAX, Fault::Answer(503, "SlowDown"));
    let begun = Instant::now();
    let error = put(&*site.store, key(1), &bytes(1, CT), CT).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    // Twice the deadline: the machine may be busy.
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    site.bucket.proxy().rule(|_| Fault::None);
    site.stores_one(CT).await;
}

async fn denied_is_told_at_once() {
    let site = site(|_| {}).await;
    let seen = site.fault("PUT", "/objects/", usize::MAX, Fault::Answer(403, "AccessDenied"));
    let error = put(&*site.store, key(1), &bytes(1, CT), CT).await.unwrap_err();
    assert_eq!((error.kind(), seen.load(Ordering::Relaxed)), (StoreErrorKind::Unavailable, 1));
    assert!(error.to_string().contains("403 (AccessDenied)"), "{error}");
    // A store that is opened so is not opened.
    let mut config = site.bucket.config(site.bucket.place.address());
    let wrong = tempfile::tempdir().unwrap();
    let path = wrong.path().join("s3.toml");
    std::fs::write(&path, "access_key_id = 'nobody'\nsecret_access_key = 'nothing-at-all'\n").unwrap();
    config.credentials_file = Some(path);
    let error = site.bucket.open_with(config).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    assert!(!error.to_string().contains("nothing-at-all"));
}

async fn conditions_not_known_are_refused() {
    let bucket = Bucket::new(true);
    let config = bucket.config(bucket.address().await);
    bucket.proxy().rule(|request| if request.contains("probe") { Fault::Answer(200, "") } else { Fault::None });
    let error = bucket.open_with(config).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
}

async fn what_is_put_away_is_asked_for_and_is_no_damage() {
    let site = site(|_| {}).await;
    let info = put(&*site.store, key(1), &bytes(1, LONG), 100_000).await.unwrap();
    let read_now = || async { read(&*site.store, &info.object).await };
    let seen = site.fault("GET", "/objects/", usize::MAX, Fault::Answer(403, "InvalidObjectState"));
    assert_eq!(read_now().await.unwrap_err().kind(), StoreErrorKind::Archived);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "to ask again at once is in vain");
    // A long object's hashes are an object of their own. Asked again while it is on its way, or there, is no failure.
    for answer in [
        Fault::Answer(202, ""),
        Fault::Answer(409, "RestoreAlreadyInProgress"),
        Fault::Answer(403, "InvalidObjectState"),
    ] {
        let seen = site.fault("POST", "restore", usize::MAX, answer);
        site.store.restore(key(1)).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }
    site.fault("POST", "restore", usize::MAX, Fault::Answer(403, "AccessDenied"));
    assert_eq!(site.store.restore(key(1)).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    site.bucket.proxy().rule(|_| Fault::None);
    assert!(read_now().await.unwrap() == bytes(1, LONG));
    assert_eq!(site.store.restore(key(2)).await.unwrap_err().kind(), StoreErrorKind::NotFound);
}

async fn objects_are_put_in_the_class_that_is_asked_for() {
    let site = site(|config| config.storage_class = Some("STANDARD_IA".into())).await;
    let classes = Arc::new(AtomicUsize::new(0));
    let count = classes.clone();
    site.bucket.proxy().rule(move |request| {
        let is_begun = request.starts_with("PUT") && !request.contains("partNumber") || request.contains("?uploads");
        let is_meant = is_begun && request.contains("/objects/");
        assert_eq!(request.contains("x-amz-storage-class: STANDARD_IA"), is_meant, "{request}");
        count.fetch_add(usize::from(is_meant), Ordering::Relaxed);
        Fault::None
    });
    for (number, length) in [(1, CT), (2, LONG)] {
        let info = put(&*site.store, key(number), &bytes(1, length), 100_000).await.unwrap();
        assert!(read(&*site.store, &info.object).await.unwrap() == bytes(1, length));
    }
    assert_eq!(classes.load(Ordering::Relaxed), 2);
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        let config = S3Config { storage_class: Some(class.into()), ..site.bucket.config(site.bucket.place.address()) };
        assert_eq!(site.bucket.open_with(config).await.err().unwrap().kind(), StoreErrorKind::Invalid);
    }
}

async fn slow_is_waited_for() {
    let site = site(|config| config.attempt_timeout = Duration::from_millis(700)).await;
    // Once too slow, then only slow: the late first try arrives while the second is under way, or after it.
    let mut puts = 0;
    site.bucket.proxy().rule(move |request| {
        puts += i32::from(request.starts_with("PUT"));
        match (request.starts_with("PUT"), puts) {
            (true, 1) => Fault::Slow(Duration::from_millis(1000)),
            _ => Fault::Slow(Duration::from_millis(100)),
        }
    });
    site.stores_one(CT).await;
}

async fn cut_requests_are_sent_again() {
    let site = site(|_| {}).await;
    let seen = site.fault("PUT", "/objects/", 3, Fault::CutRequest(200_000));
    site.stores_one(CT).await;
    assert_eq!(seen.load(Ordering::Relaxed), 4);
}

async fn a_lost_answer_is_read_back() {
    let site = site(|_| {}).await;
    let seen = site.fault("PUT", "/objects/", 1, Fault::LoseAnswer);
    site.stores_one(CT).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1, "what was there was sent again");
}

async fn lost_answers_of_an_upload_are_read_back() {
    for (method, part) in [("POST", "uploads"), ("PUT", "partNumber=2"), ("PUT", "/trees/"), ("POST", "uploadId=")] {
        let site = site(|config| config.leftover_age = Duration::ZERO).await;
        let seen = site.fault(method, part, 1, Fault::LoseAnswer);
        let content = bytes(1, LONG);
        let info = put(&*site.store, key(1), &content, 100_000).await.unwrap();
        assert!(seen.load(Ordering::Relaxed) >= 1);
        assert!(read(&*site.store, &info.object).await.unwrap() == content, "{part}");
        assert_eq!(site.store.stat(key(1)).await.unwrap(), info);
    }
}

async fn another_writer_is_seen_after_a_lost_answer() {
    let site = site(|_| {}).await;
    let first = put(&*site.store, key(1), &bytes(1, CT), CT).await.unwrap();
    // The same bytes: whose they are, the writer's sign says and not the digest.
    site.fault("PUT", "/objects/", 1, Fault::LoseAnswer);
    let error = put(&*site.store, key(1), &bytes(1, CT), CT).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    assert_eq!(site.store.stat(key(1)).await.unwrap(), first);
}

async fn bytes_changed_on_the_way_in_are_sent_again() {
    for length in [CT, LONG] {
        let site = site(|_| {}).await;
        let seen = site.fault("PUT", "/objects/", 1, Fault::ChangeRequest(100_000));
        site.stores_one(length).await;
        assert!(seen.load(Ordering::Relaxed) >= 2);
    }
}

async fn bytes_changed_on_the_way_out_are_never_served() {
    for length in [50_000, CT, LONG] {
        let site = site(|_| {}).await;
        let content = bytes(1, length);
        let object = put(&*site.store, key(1), &content, 100_000).await.unwrap().object;
        for part in ["/objects/", "/trees/"] {
            // Once: asked for again. Always: damage.
            site.fault("GET", part, 1, Fault::ChangeAnswer(length / 40));
            assert!(read(&*site.store, &object).await.unwrap() == content, "{length} {part}");
        }
        site.fault("GET", "/objects/", usize::MAX, Fault::ChangeAnswer(1000));
        let mut stream = site.store.read(&object, 0..object.length).await.unwrap();
        let mut at = 0;
        let error = loop {
            match stream.next().await.unwrap() {
                Ok(chunk) => {
                    assert!(content[at..at + chunk.len()] == chunk);
                    at += chunk.len();
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert_eq!(at, 0);
    }
}

async fn a_read_goes_on_after_a_cut() {
    let site = site(|_| {}).await;
    let content = bytes(1, LONG);
    let object = put(&*site.store, key(1), &content, 100_000).await.unwrap().object;
    let seen = site.fault("GET", "/objects/", 4, Fault::CutAnswer(1_000_000));
    assert!(read_range(&*site.store, &object, 77..object.length).await.unwrap() == content[77..]);
    assert_eq!(seen.load(Ordering::Relaxed), 5);
}

async fn a_failed_or_dropped_upload_is_ended() {
    let site =
        site(|config| (config.deadline, config.attempt_timeout) = (Duration::from_secs(8), Duration::from_secs(8)))
            .await;
    site.fault("POST", "uploadId=", usize::MAX, Fault::Answer(503, "SlowDown"));
    let error = put(&*site.store, key(1), &bytes(1, LONG), 100_000).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let mut writer = site.store.put(key(2), None).await.unwrap();
    writer.write(bytes(2, LONG)).await.unwrap();
    drop(writer);
    site.store.close().await.unwrap();
    assert_eq!(site.bucket.uploads().await, 0);
    let left: Vec<String> = site.bucket.names().await.into_iter().filter(|name| !name.contains("probe")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn leftovers_of_a_crash_are_removed() {
    let site = site(|_| {}).await;
    let kept = put(&*site.store, key(1), &bytes(1, LONG), 100_000).await.unwrap();
    site.fault("POST", "uploadId=", usize::MAX, Fault::Slow(Duration::from_secs(60)));
    let store = site.store.clone();
    let putting = tokio::spawn(async move { put(&*store, key(2), &bytes(2, LONG), 100_000).await });
    let trees = async || site.bucket.names().await.iter().filter(|name| name.contains("/trees/")).count();
    while trees().await < 2 {
        tokio::task::yield_now().await;
    }
    site.bucket.proxy().end();
    putting.abort();
    assert_eq!(site.bucket.uploads().await, 1);
    let mut config = site.bucket.config(site.bucket.place.address());
    config.leftover_age = Duration::ZERO;
    let store = site.bucket.open_with(config).await.unwrap();
    while site.bucket.uploads().await > 0 || trees().await > 1 {
        tokio::task::yield_now().await;
    }
    assert!(read(&*store, &kept.object).await.unwrap() == bytes(1, LONG));
}

async fn little_memory_is_shared() {
    let site = site(|config| (config.memory_bytes_max, config.parts_in_flight_max) = (7 << 20, 2)).await;
    let puts = (0..60u64).map(|number| {
        let store = site.store.clone();
        let length = if number % 20 == 0 { LONG } else { CT };
        tokio::spawn(async move { put(&*store, key(number), &bytes(number, length), 16_372).await.unwrap() })
    });
    for stored in futures_util::future::join_all(puts).await {
        let object = stored.unwrap().object;
        assert_eq!(read(&*site.store, &object).await.unwrap().len() as u64, object.length);
    }
}

/// Memory of this process beyond what it had, in MiB.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
}

/// 210 MB, in memory of two parts and their reserve; alone in its process, since it measures it.
pub(crate) async fn memory_is_bounded_whatever_the_length() {
    const PIECES: u64 = 210;
    let site = site(|config| {
        (config.memory_bytes_max, config.parts_in_flight_max) = (24 << 20, 2);
        // It is not about time: other tests may keep the disk busy.
        (config.deadline, config.attempt_timeout) = (Duration::from_secs(120), Duration::from_secs(60));
    })
    .await;
    let before = resident_mib();
    let mut writer = site.store.put(key(1), None).await.unwrap();
    let mut most = 0;
    for piece in 0..PIECES {
        writer.write(bytes(piece, 1_000_000)).await.unwrap();
        most = most.max(resident_mib());
    }
    let object = writer.finish().await.unwrap().object;
    let mut stream = site.store.read(&object, 0..object.length).await.unwrap();
    let (mut length, mut hasher) = (0, blake3::Hasher::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        hasher.update(&chunk);
        length += chunk.len() as u64;
        most = most.max(resident_mib());
    }
    assert_eq!((length, *hasher.finalize().as_bytes()), (PIECES * 1_000_000, object.digest.0));
    println!("210 MB in and out: {} MiB at most", most - before);
    assert!(most - before < 64, "{} MiB", most - before);
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, run: fn() -> F) -> Trial {
    Trial::test(format!("object_store::s3_faults::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), run()).await })?;
        Ok(())
    })
}

macro_rules! trials {
    ($($name:ident),* $(,)?) => { vec![$(trial(stringify!($name), $name)),*] };
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        bursts_of_503_pass,
        lasting_503_is_unavailable_at_the_deadline,
        denied_is_told_at_once,
        conditions_not_known_are_refused,
        what_is_put_away_is_asked_for_and_is_no_damage,
        objects_are_put_in_the_class_that_is_asked_for,
        slow_is_waited_for,
        cut_requests_are_sent_again,
        a_lost_answer_is_read_back,
        lost_answers_of_an_upload_are_read_back,
        another_writer_is_seen_after_a_lost_answer,
        bytes_changed_on_the_way_in_are_sent_again,
        bytes_changed_on_the_way_out_are_never_served,
        a_read_goes_on_after_a_cut,
        a_failed_or_dropped_upload_is_ended,
        leftovers_of_a_crash_are_removed,
        little_memory_is_shared,
    ]
}
