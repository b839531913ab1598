//! Proof that history was not altered: checkpoints and proofs of the real executable, verified by it and by a script that
//! shares nothing with it.

use crate::{
    sites::{made, store},
    support::{Archive, Start, cairn, directory, eventually, python, repository},
};
use cairn_archive::{Offset, Partition, SiteId};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_process::{clock::Clock, disk::RealDisk};
use cairn_store_api::{EventLog, LogRecord};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// An archive that notarises, and where its things are.
struct Notarised {
    folder: TempDir,
    public: PathBuf,
}

impl Notarised {
    fn new() -> Self {
        let folder = directory();
        let (private, public) = (folder.path().join("key.pem"), folder.path().join("public.pem"));
        let made = offline(&["audit", "key", &shown(&private)]);
        assert!(made.status.success(), "{made:?}");
        fs::write(&public, made.stdout).unwrap();
        Self { folder, public }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn start(&self, interval: &str) -> Archive {
        let environment = vec![
            ("CAIRN__LIFECYCLE__NOTARY__KEY", shown(&self.path("key.pem"))),
            ("CAIRN__LIFECYCLE__NOTARY__EXPORT_DIRECTORY", shown(&self.path("worm"))),
            ("CAIRN__LIFECYCLE__NOTARY__INTERVAL", interval.to_owned()),
            ("CAIRN__LIFECYCLE__NOTARY__FOLLOW_INTERVAL", "20ms".to_owned()),
        ];
        Archive::start_with(&self.data(), Start { environment, ..Start::default() })
    }

    /// The executable's verdict on files, and the script's: they must be one.
    fn verdict(&self, files: &[&Path]) -> (bool, String, Vec<Value>) {
        let files: Vec<String> = files.iter().map(|path| shown(path)).collect();
        let mut arguments = vec!["audit", "verify", "--public-key"];
        let public = shown(&self.public);
        arguments.push(&public);
        arguments.extend(files.iter().map(String::as_str));
        let ours = offline(&arguments);
        let script = repository().join("tests/system/python/verify_audit.py");
        let theirs = Command::new(python()).arg(script).arg(&public).args(&files).output().unwrap();
        let said = String::from_utf8_lossy(&ours.stdout).into_owned() + &String::from_utf8_lossy(&ours.stderr);
        let found = lines(&String::from_utf8(theirs.stdout.clone()).unwrap());
        assert_eq!(ours.status.success(), theirs.status.success(), "{said}\n{theirs:?}");
        assert!(ours.status.success() || ours.status.code() == Some(4), "{ours:?}");
        (ours.status.success(), said, found)
    }

    fn holds(&self, files: &[&Path]) -> Vec<Value> {
        let (holds, said, found) = self.verdict(files);
        assert!(holds, "{said}");
        found
    }

    fn verify_log(&self, checkpoint: &Path, data: &Path) -> Output {
        let (public, data) = (shown(&self.public), shown(data));
        offline(&["audit", "verify-log", &shown(checkpoint), "--public-key", &public, "--data", &data])
    }

    fn exported(&self) -> Vec<PathBuf> {
        let Ok(directory) = fs::read_dir(self.path("worm")) else { return Vec::new() };
        let paths = directory.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "checkpoint")).collect();
        paths.sort();
        paths
    }
}

/// Runs `cairn` without an archive.
fn offline(arguments: &[&str]) -> Output {
    Command::new(cairn()).args(arguments).env_remove("CAIRN_SERVER").stdin(Stdio::null()).output().unwrap()
}

/// Where the stored instances' events stand.
fn positions(archive: &Archive) -> Vec<String> {
    let all = archive.ok(&["events", "tail", "--from", "beginning", "--no-follow", "-o", "json"]);
    let events = lines(&all).into_iter().filter(|event| event["Type"] == "cairn.instance.stored.v1");
    events.map(|event| event["Position"].as_str().unwrap().to_owned()).collect()
}

fn checkpoint(archive: &Archive, out: &Path) {
    archive.ok(&["audit", "checkpoint", "--out", &shown(out)]);
}

#[test]
fn an_event_and_an_older_checkpoint_are_proved_to_a_script_that_has_the_public_key_alone() {
    let site = Notarised::new();
    let archive = site.start("1h");
    store(&archive, &made(171, 2));
    let (older, newer) = (site.path("older"), site.path("newer"));
    checkpoint(&archive, &older);
    let events = positions(&archive);
    let (bare, full, consistency) = (site.path("bare"), site.path("full"), site.path("consistency"));
    archive.ok(&["audit", "prove", &events[0], "--out", &shown(&bare)]);
    archive.ok(&["audit", "prove", &events[1], "--with-payload", "--out", &shown(&full)]);
    assert!(fs::metadata(&bare).unwrap().len() < fs::metadata(&full).unwrap().len());
    store(&archive, &made(172, 1));
    checkpoint(&archive, &newer);
    archive.ok(&["audit", "prove-consistency", &shown(&older), "--out", &shown(&consistency)]);
    let found = site.holds(&[&older, &newer, &bare, &full, &consistency]);
    for (event, proven) in events.iter().zip(&found[2..4]) {
        let without_life: Vec<&str> =
            event.split('/').enumerate().filter(|(at, _)| *at != 1).map(|(_, part)| part).collect();
        assert_eq!(proven["position"], without_life.join("/"), "{proven}");
        assert_eq!(proven["type"], "cairn.instance.stored.v1", "{proven}");
    }
    assert_eq!(found[4]["older"], found[0]["checkpoint"]);
    assert_eq!(site.exported().len() as u64, found[1]["checkpoint"].as_u64().unwrap());
    site.holds(&site.exported().iter().map(PathBuf::as_path).collect::<Vec<_>>());

    // What is there is not written over, and what is not there is not proved.
    let again = archive.command(&["audit", "prove", &events[0], "--out", &shown(&bare)]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let beyond = archive.command(&["audit", "prove", "main/1/0/999999"]);
    assert_eq!(beyond.status.code(), Some(1), "{beyond:?}");
    let status = &lines(&archive.ok(&["audit", "status", "-o", "json"]))[0];
    assert_eq!((&status["EventsInTrees"], &status["Trouble"]), (&status["EventsInLog"], &Value::Null), "{status}");
    archive.stop();

    assert!(site.verify_log(&newer, &site.data()).status.success());
    assert!(site.verify_log(&older, &site.data()).status.success());
}

#[test]
fn a_flipped_bit_in_a_proof_or_a_checkpoint_is_named() {
    let site = Notarised::new();
    let archive = site.start("1h");
    store(&archive, &made(173, 1));
    let (checkpointed, proof) = (site.path("checkpoint"), site.path("proof"));
    checkpoint(&archive, &checkpointed);
    archive.ok(&["audit", "prove", &positions(&archive)[0], "--with-payload", "--out", &shown(&proof)]);
    site.holds(&[&checkpointed, &proof]);
    let flipped = site.path("flipped");
    for document in [&checkpointed, &proof] {
        let whole = fs::read(document).unwrap();
        // Spread over all of it, at bits that differ; each bit of small documents is tried beside the code.
        for number in 0..24 {
            let mut bytes = whole.clone();
            let at = number * (whole.len() - 1) / 23;
            bytes[at] ^= 1 << (number % 7);
            fs::write(&flipped, bytes).unwrap();
            let (holds, said, _) = site.verdict(&[&flipped]);
            assert!(!holds && said.contains(&shown(&flipped)), "byte {at} of {}: {said}", document.display());
        }
    }
    let other = Notarised::new();
    let (holds, said, _) = other.verdict(&[&proof]);
    assert!(!holds && said.contains("signed by none of the keys"), "{said}");
    archive.stop();
}

/// As the records of a log were taken: their times come again.
struct Then(AtomicU64);

impl Clock for Then {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

fn opened(data: &Path, clock: Arc<dyn Clock>) -> impl Future<Output = EmbeddedEventLog> {
    let site: SiteId = "main".parse().unwrap();
    let (directory, config) = (data.join("log"), EventLogConfig { reserve_bytes: 0, ..EventLogConfig::new(site) });
    async move { EmbeddedEventLog::open(Arc::new(RealDisk), clock, directory, config).await.unwrap() }
}

/// Writes a log anew, whole to all appearances, with other records in it than it had.
async fn rewritten(from: &Path, to: &Path, mut alter: impl FnMut(Partition, &mut Vec<LogRecord>)) {
    let then = Arc::new(Then(AtomicU64::new(0)));
    let (old, new) = (opened(from, then.clone()).await, opened(to, then.clone()).await);
    let mut all = Vec::new();
    for partition in (0..old.partitions()).map(Partition) {
        let mut records = old.read(partition, Offset(0), usize::MAX, usize::MAX).await.unwrap().records;
        alter(partition, &mut records);
        all.extend(records.into_iter().map(|record| (partition, record)));
    }
    // A log's time does not go back.
    all.sort_by_key(|(partition, record)| (record.appended_at_ms, *partition, record.offset));
    for (partition, record) in all {
        then.0.store(record.appended_at_ms, Ordering::Relaxed);
        new.append(partition, vec![record.record]).await.unwrap();
    }
    old.close().await.unwrap();
    new.close().await.unwrap();
}

#[test]
fn a_log_that_was_rewritten_is_not_the_one_that_was_signed() {
    let site = Notarised::new();
    let archive = site.start("1h");
    store(&archive, &made(174, 3));
    let signed = site.path("signed");
    checkpoint(&archive, &signed);
    let event = positions(&archive)[0].clone();
    archive.stop();
    let partition: u16 = event.split('/').nth(2).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rewrite = |name: &str, alter: &mut dyn FnMut(&mut Vec<LogRecord>)| {
        let to = site.path(name);
        fs::create_dir_all(&to).unwrap();
        runtime.block_on(rewritten(&site.data(), &to, |of, records| {
            if of.0 == partition {
                alter(records);
            }
        }));
        site.verify_log(&signed, &to)
    };
    let same = rewrite("same", &mut |_| {});
    assert!(same.status.success(), "the same events make the same trees: {same:?}");
    let flipped = rewrite("flipped", &mut |records| {
        let mut payload = records[0].record.payload.to_vec();
        payload[7] ^= 1;
        records[0].record.payload = payload.into();
    });
    let cut = rewrite("cut", &mut Vec::clear);
    let renamed = rewrite("renamed", &mut |records| records[0].record.envelope.tenant.push('x'));
    for altered in [flipped, cut, renamed] {
        let said = String::from_utf8_lossy(&altered.stderr);
        assert_eq!(altered.status.code(), Some(4), "{altered:?}");
        assert!(said.contains(&format!("partition {partition}")), "{said}");
    }

    // A bit that the disk flipped: the log says where, by itself.
    let segment = site.data().join("log/0000000000.segment");
    let mut bytes = fs::read(&segment).unwrap();
    let needle = b"cairn.instance.stored.v1";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let damaged = site.verify_log(&signed, &site.data());
    let said = String::from_utf8_lossy(&damaged.stderr);
    assert!(damaged.status.code() == Some(4) && said.contains("partition"), "{damaged:?}");
    let absent = site.verify_log(&signed, &site.path("nowhere"));
    assert!(absent.status.code() == Some(1) && !site.path("nowhere/log").exists(), "{absent:?}");
}

#[test]
fn it_signs_by_itself_and_kill_9_leaves_a_chain_of_whole_checkpoints() {
    let site = Notarised::new();
    for round in 0..4 {
        let archive = site.start("1ms");
        store(&archive, &made(180 + round, 1));
        let before = site.exported().len();
        eventually("a checkpoint by itself", || (site.exported().len() > before).then_some(()));
        let (asking, address) = (AtomicBool::new(true), format!("http://{}", archive.grpc));
        std::thread::scope(|scope| {
            // Checkpoints are made as fast as they can be, until the process is gone.
            scope.spawn(|| {
                while asking.load(Ordering::Relaxed) {
                    let mut command = Command::new(cairn());
                    command.args(["audit", "checkpoint"]).env("CAIRN_SERVER", &address);
                    let _cut_short = command.stdin(Stdio::null()).output().unwrap();
                }
            });
            eventually("more of them", || (site.exported().len() > before + 3).then_some(()));
            archive.kill();
            asking.store(false, Ordering::Relaxed);
        });
    }
    let archive = site.start("1h");
    let last = site.path("last");
    checkpoint(&archive, &last);
    let exported = site.exported();
    let found = site.holds(&exported.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for (number, found) in (1..).zip(&found) {
        assert_eq!(found["checkpoint"], number, "none is missing, none is there twice");
    }
    for (at, older) in exported.iter().enumerate().step_by(7) {
        let proof = site.path(&format!("consistency-{at}"));
        archive.ok(&["audit", "prove-consistency", &shown(older), &shown(&last), "--out", &shown(&proof)]);
        site.holds(&[&proof]);
    }
    archive.stop();
    assert!(site.verify_log(&last, &site.data()).status.success());
}
