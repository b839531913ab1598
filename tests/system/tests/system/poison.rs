//! Events in the log that this build can't fold, written by something else than it; and an index that is not what the log
//! says.

use crate::support::{Archive, directory, synthetic_files};
use cairn_archive::{
    EventId, Offset, Partition, Position,
    index_rows::{LEAVES, decode_leaf, encode_leaf},
    sealing::KeyBytes,
};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_key_store_embedded::{EmbeddedKeyStore, KeyStoreConfig};
use cairn_process::{clock::SystemClock, disk::RealDisk};
use cairn_store_api::{
    CkRange, Commit, EventLog, Generation, IndexStore, KeyRing, KeyRingConfig, Mutation, Record, SealedLog, Table,
};
use serde_json::Value;
use std::{fs, path::Path, process::Output, sync::Arc};
use uuid::Uuid;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn said(output: Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

/// Runs something on the log of an archive that is stopped, opened by its keys.
fn in_log<T>(data: &Path, work: impl AsyncFnOnce(&SealedLog) -> T) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
        let config = EventLogConfig::new("main".parse().unwrap());
        let log = EmbeddedEventLog::open(disk.clone(), clock, data.join("log"), config).await.unwrap();
        let log = SealedLog::new(Arc::new(log), Some(keys(data, disk)));
        let done = work(&log).await;
        log.close().await.unwrap();
        done
    })
}

fn keys(data: &Path, disk: Arc<RealDisk>) -> Arc<KeyRing> {
    let text = fs::read_to_string(data.join("keys/master.key")).unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    let master = KeyBytes(std::array::from_fn(byte));
    let config = KeyStoreConfig { directory: data.join("keys"), master, reserve_bytes: 0 };
    Arc::new(KeyRing::new(Arc::new(EmbeddedKeyStore::open(disk, config).unwrap()), KeyRingConfig::default()))
}

/// The first event of a type, and its partition.
async fn first(log: &SealedLog, kind: &str) -> (Partition, Record) {
    for partition in (0..log.partitions()).map(Partition) {
        let records = log.read(partition, Offset(0), 1_000, 64 << 20).await.unwrap().records;
        if let Some(found) = records.into_iter().find(|found| found.record.envelope.kind == kind) {
            return (partition, found.record);
        }
    }
    panic!("no {kind}");
}

/// What a build that knows more, or something broken, wrote: a payload that is none, a type of the future, and a field of
/// the future. Gives the positions of the first two, and the event whose payload is missing.
fn poisoned(data: &Path) -> ([String; 2], Record) {
    in_log(data, async |log| {
        let (partition, good) = first(log, "cairn.instance.stored.v1").await;
        let copy = |kind: &str, payload: &[u8]| {
            let mut record = good.clone();
            record.envelope.id = EventId(Uuid::now_v7());
            record.envelope.kind = kind.to_owned().into();
            record.payload = payload.to_vec().into();
            record
        };
        let unknown = copy("cairn.instance.dreamt.v9", &good.payload);
        let at = log.append(partition, vec![copy(&good.envelope.kind, &[0xFF; 24]), unknown]).await.unwrap();
        let (partition_closed, mut closed) = first(log, "cairn.receipt.closed.v1").await;
        closed.envelope.id = EventId(Uuid::now_v7());
        // Field 1000 with the number 1.
        closed.payload = [&closed.payload[..], &[0xC0, 0x3E, 1]].concat().into();
        log.append(partition_closed, vec![closed]).await.unwrap();
        let (site, incarnation) = (log.site().clone(), log.incarnation());
        let position = |offset| Position { site: site.clone(), incarnation, partition, offset }.to_string();
        ([position(at), position(at.next())], good)
    })
}

/// Bytes of the log's event at a position, as `cairn events show` tells them.
fn shown(archive: &Archive, position: &str) -> Value {
    serde_json::from_str(&archive.ok(&["events", "show", position, "-o", "json"])).unwrap()
}

#[test]
fn poison_is_parked_shown_and_repaired_while_the_archive_goes_on() {
    let folder = directory();
    let (data, files) = (folder.path().join("data"), synthetic_files(&folder.path().join("in"), 91, 2));
    let archive = Archive::start(&data);
    archive.ok(&["import", "--quiet", &files[0].display().to_string()]);
    archive.settled();
    archive.stop();
    let ([undecodable, unknown], good) = poisoned(&data);

    let mut archive = Archive::start(&data);
    archive.expect_in_log("an event can't be folded and is parked");
    archive.expect_in_log("an event that is tried again stays parked");
    archive.settled();
    let parked = lines(&archive.ok(&["parked", "list", "-o", "json"]));
    let told: Vec<_> = parked.iter().map(|parked| (text(parked, "Position"), text(parked, "Reason"))).collect();
    assert_eq!(told.len(), 2);
    for expected in [(undecodable.as_str(), "undecodable"), (&unknown, "unknown-type")] {
        assert!(told.contains(&expected), "{told:?}");
    }
    let study = good.envelope.study_instance_uid.as_str();
    assert_eq!(lines(&archive.ok(&["parked", "list", "--study", study, "-o", "json"])), parked);
    assert_eq!(archive.ok(&["parked", "list", "--study", "1.2.3", "-o", "json"]), "");
    let one = lines(&archive.ok(&["parked", "show", &undecodable, "-o", "json"]));
    assert!(one.len() == 1 && parked.contains(&one[0]) && text(&one[0], "StudyInstanceUID") == study);
    assert!(archive.ok(&["parked", "show", &unknown]).contains("event type is not known to this build"));
    assert_eq!(said(archive.command(&["parked", "show", "main/1/0/999999"])).0, 1);
    let gauges = |archive: &Archive| {
        ["cairn_index_parked_events", "cairn_index_incomplete_studies"].map(|name| archive.metric(name))
    };
    assert_eq!(gauges(&archive), [2.0, 1.0]);
    // What this build does not know stays as it was written.
    assert!(shown(&archive, &undecodable)["event"]["error"].is_string());
    assert_eq!(shown(&archive, &unknown)["headers"]["ce_type"], "cairn.instance.dreamt.v9");

    // Later events apply, of this study too.
    for file in &files {
        archive.ok(&["import", "--quiet", &file.display().to_string()]);
    }
    archive.settled();
    assert_eq!(lines(&archive.ok(&["query", "instances", "-o", "json"])).len(), files.len());

    // Nothing is changed by trying again: exit status 3. A payload that is none is refused.
    let (status, out) = said(archive.command(&["parked", "retry"]));
    assert!(status == 3 && out.contains("2 events stay parked"), "{status} {out}");
    let payload = folder.path().join("payload");
    fs::write(&payload, [0xFF; 4]).unwrap();
    let file = payload.display().to_string();
    let kind = "cairn.instance.stored.v1";
    let replace =
        ["parked", "repair", &undecodable, "--payload", &file, "--type", kind, "--reason", "cut", "--by", "me"];
    assert_eq!(said(archive.command(&replace)).0, 1);
    fs::write(&payload, &good.payload).unwrap();
    assert!(archive.ok(&replace).contains("is not parked any more"));
    assert_eq!(gauges(&archive), [1.0, 1.0]);
    archive.ok(&["parked", "repair", &unknown, "--dismiss", "--reason", "from a trial", "--by", "me"]);
    assert_eq!((archive.ok(&["parked", "list", "-o", "json"]).as_str(), gauges(&archive)), ("", [0.0, 0.0]));
    let events = lines(&archive.ok(&["events", "tail", "--from", "beginning", "--no-follow", "-o", "json"]));
    let repairs: Vec<_> = events.iter().filter(|event| text(event, "Type") == "cairn.event.repaired.v1").collect();
    assert_eq!(repairs.len(), 4, "two trials, a replacement and a dismissal");
    let last = shown(&archive, text(repairs.last().unwrap(), "Position"));
    assert_eq!((&last["event"]["dismissed"], &last["event"]["repairedBy"]), (&Value::Bool(true), &"me".into()));
    assert!(archive.ok(&["index", "verify"]).contains("equal"));
    archive.stop();

    let archive = Archive::start(&data);
    archive.settled();
    assert_eq!(gauges(&archive), [0.0, 0.0], "after a restart too");
    archive.stop();
}

/// Changes the sums of the index of a stopped archive, as a defect might.
fn falsify(data: &Path, generation: u32) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = EmbeddedIndexStore::open(data.join("index"), IndexStoreConfig::default()).await.unwrap();
        let (generation, leaves) = (Generation(generation), Table { id: LEAVES.id, name: LEAVES.name });
        let (incarnation, partition, offset, note) = store.offsets(generation).await.unwrap().remove(0);
        let pk = partition.0.to_be_bytes().to_vec();
        let page = store.scan(generation, leaves, &pk, &CkRange::default(), false, 1).await.unwrap();
        let row = &page.rows[0];
        let leaf = decode_leaf(&row.value).unwrap();
        let mut now = leaf.now;
        now.state.add(&[1; 32]);
        let value = encode_leaf(leaf.stamp, &now, leaf.before.as_ref());
        let mutations = vec![Mutation::Put { table: leaves, pk: pk.into(), ck: row.ck.clone(), value }];
        let commit = Commit { incarnation, partition, from: offset, to: offset, note, mutations, purge: false };
        store.commit(generation, commit).await.unwrap();
        store.sync(true).await.unwrap();
    });
}

#[test]
fn an_index_that_is_not_what_the_log_says_is_exit_status_4_until_it_is_rebuilt() {
    let folder = directory();
    let (data, files) = (folder.path().join("data"), synthetic_files(&folder.path().join("in"), 92, 1));
    let archive = Archive::start(&data);
    archive.ok(&["import", "--quiet", &files[0].display().to_string()]);
    archive.settled();
    let status = lines(&archive.ok(&["index", "status", "-o", "json"]));
    let generation = text(&status[0], "Generation").parse().unwrap();
    assert_eq!(said(archive.command(&["index", "verify"])).0, 0);
    archive.stop();
    falsify(&data, generation);
    let mut archive = Archive::start(&data);
    archive.expect_in_log("is not equal to the serving one");
    let (status, out) = said(archive.command(&["index", "verify"]));
    assert!(status == 4 && out.contains("not what the log says"), "{status} {out}");
    let (status, out) = said(archive.command(&["index", "rebuild"]));
    assert!(status == 4 && out.contains("DIFFERENT"), "what it served was wrong: {status} {out}");
    // It does not serve by itself: a person says so.
    let filled = out.split("index switch ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned();
    let (status, out) = said(archive.command(&["index", "switch", &filled, "--accept-difference"]));
    assert_eq!(status, 0, "{out}");
    let (status, out) = said(archive.command(&["index", "verify"]));
    assert_eq!(status, 0, "what it serves now is not: {out}");
    archive.stop();
}
