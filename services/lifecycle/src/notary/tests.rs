//! The notary over the embedded log and store, on disks and clocks of its own.

use super::{NotaryService, Signer};
use crate::{
    append::Appender,
    config::{NotaryConfig, SealingConfig},
    notes::Notes,
    sealing::Sealing,
};
use bytes::Bytes;
use cairn_archive::{
    Envelope, EventId, Hlc, Incarnation, Offset, Partition, Position, SiteId,
    notary::{Checkpoint, ConsistencyProof, EventProof, Frontier, Note, PublicKey, leaf_hash},
};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::Clock,
    disk::{Disk, sim::SimDisk},
};
use cairn_service_api::{ErrorKind, Notary};
use cairn_store_api::{EventLog, IndexStore, ObjectStore, Record};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

const PARTITIONS: u16 = 3;

fn site() -> SiteId {
    "main".parse().unwrap()
}

/// Stands until it is set.
#[derive(Default)]
pub(crate) struct Hand(pub(crate) AtomicU64);

impl Clock for Hand {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

/// Signs so that a test can tell, and nobody else could.
struct Stamp;

impl Signer for Stamp {
    fn public(&self) -> [u8; 32] {
        [9; 32]
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        [blake3_of(bytes), blake3_of(bytes)].concat()
    }
}

fn blake3_of(bytes: &[u8]) -> Vec<u8> {
    cairn_archive::notary::TreeHash::of_leaf(bytes).0.to_vec()
}

/// A machine: disk, clock, store of notes.
pub(crate) struct Machine {
    disk: SimDisk,
    pub(crate) clock: Arc<Hand>,
    notes: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(1_000_000)));
        Self { disk: SimDisk::unrecorded(), clock, notes: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn log(&self) -> Arc<dyn EventLog> {
        let config = EventLogConfig {
            partitions: PARTITIONS,
            segment_bytes: 4 << 20,
            append_bytes_max: 1 << 20,
            record_bytes_max: 64 << 10,
            group_bytes_max: 1 << 20,
            reserve_bytes: 0,
            ..EventLogConfig::new(site())
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        Arc::new(EmbeddedEventLog::open(disk, self.clock.clone(), Path::new("/log").into(), config).await.unwrap())
    }

    pub(crate) async fn store(&self) -> Arc<dyn IndexStore> {
        Arc::new(EmbeddedIndexStore::open(self.notes.path().into(), IndexStoreConfig::default()).await.unwrap())
    }

    async fn open(&self, export: bool) -> Running {
        let (log, store) = (self.log().await, self.store().await);
        let export_directory = export.then(|| "/worm".into());
        let config = NotaryConfig { export_directory, ..NotaryConfig::default() };
        let appender = Arc::new(Appender::new(log.clone(), self.clock.clone()));
        let signer: Option<Arc<dyn Signer>> = Some(Arc::new(Stamp));
        let disk = Arc::new(self.disk.clone());
        let sealing = self.sealing(&log, &store, &appender);
        let notary = NotaryService::open(log.clone(), store.clone(), disk, appender, sealing, signer, config);
        let notary = notary.await.unwrap();
        Running { log, store, notary }
    }

    fn sealing(&self, log: &Arc<dyn EventLog>, store: &Arc<dyn IndexStore>, appender: &Arc<Appender>) -> Arc<Sealing> {
        let notes = Arc::new(Notes::new(store.clone()));
        let config = SealingConfig::default();
        Arc::new(Sealing::new(log.clone(), self.objects(), notes, appender.clone(), config))
    }

    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        let volumes = VolumeConfig { prewrite_bytes_min: 0, reserve_bytes: 0, ..VolumeConfig::new("/objects") };
        Arc::new(VolumeStore::open(Arc::new(self.disk.clone()), volumes, self.clock.clone()).unwrap())
    }

    fn exported(&self) -> Vec<String> {
        let mut names = self.disk.list(Path::new("/worm")).unwrap_or_default();
        names.sort();
        names
    }
}

struct Running {
    log: Arc<dyn EventLog>,
    store: Arc<dyn IndexStore>,
    notary: NotaryService,
}

impl Running {
    async fn append(&self, partition: u16, from: u64, count: u64) {
        let records = (from..from + count).map(|number| record(number, b'p')).collect();
        self.log.append(Partition(partition), records).await.unwrap();
    }

    async fn checkpoint(&self) -> Checkpoint {
        read(&self.notary.checkpoint(false).await.unwrap().document)
    }

    async fn stop(self) {
        self.store.sync(true).await.unwrap();
        self.log.close().await.unwrap();
    }
}

pub(crate) fn record(number: u64, content: u8) -> Record {
    let envelope = Envelope {
        id: EventId(uuid::Uuid::from_u128(number.into())),
        kind: "a.type".into(),
        site: site(),
        study_instance_uid: "1.2.3".into(),
        tenant: "default".into(),
        hlc: Hlc { wall_ms: number, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    Record { envelope, payload: Bytes::from(vec![content; 40]) }
}

fn read(document: &str) -> Checkpoint {
    let note = Note::parse(document).unwrap();
    assert_eq!(note.signatures[0].signature, Stamp.sign(note.body.as_bytes()));
    Checkpoint::parse(&note.body).unwrap()
}

/// The tree of a partition, by hashing all of it.
async fn tree(log: &dyn EventLog, partition: Partition, size: u64) -> Frontier {
    let mut tree = Frontier::default();
    while tree.size() < size {
        let batch = log.read(partition, Offset(tree.size()), (size - tree.size()) as usize, usize::MAX).await.unwrap();
        for record in batch.records {
            let place = (log.site(), partition, record.offset);
            let hash = leaf_hash(place, record.appended_at_ms, &record.record.envelope, &record.record.payload);
            tree.push(hash, |_, _| {});
        }
    }
    tree
}

async fn is_of(log: &dyn EventLog, checkpoint: &Checkpoint) {
    for (partition, head) in (0..).map(Partition).zip(&checkpoint.trees) {
        assert_eq!(tree(log, partition, head.size).await.root(), head.root, "partition {}", partition.0);
    }
}

fn at(partition: u16, offset: u64) -> Position {
    Position { site: site(), incarnation: Incarnation(1), partition: Partition(partition), offset: Offset(offset) }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_have_the_trees_of_the_log_and_every_event_is_proved() {
    let machine = Machine::new();
    let archive = machine.open(false).await;
    // Blocks and tiles that are full, and not.
    archive.append(0, 0, 64 * 64 + 64 * 3 + 5).await;
    archive.append(1, 0, 64).await;
    let first = archive.checkpoint().await;
    is_of(&*archive.log, &first).await;
    archive.append(0, 10_000, 700).await;
    archive.append(2, 0, 1).await;
    let second = archive.checkpoint().await;
    is_of(&*archive.log, &second).await;
    assert_eq!((first.number, second.number, second.events()), (1, 2, first.events() + 702));
    for (partition, head) in (0..).zip(&second.trees) {
        for offset in (0..head.size).step_by(61).chain(head.size.checked_sub(1)) {
            let proof = archive.notary.prove_event(&at(partition, offset), offset % 2 == 0).await.unwrap();
            let proof = EventProof::parse(&proof).unwrap();
            assert_eq!(proof.verify().unwrap().position, at(partition, offset));
            assert_eq!(proof.payload.is_some(), offset % 2 == 0);
        }
    }
    let beyond = archive.notary.prove_event(&at(2, second.trees[2].size), false).await.unwrap_err();
    assert_eq!(beyond.kind, ErrorKind::NotFound);
    let other_life = Position { incarnation: Incarnation(2), ..at(0, 0) };
    assert_eq!(archive.notary.prove_event(&other_life, false).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_goes_on_from_any_older_one() {
    let machine = Machine::new();
    let archive = machine.open(false).await;
    let mut documents = Vec::new();
    for number in 0..6 {
        archive.append(0, number * 1000, 1 + number * 90).await;
        archive.append(1, number * 1000, 7).await;
        documents.push(archive.notary.checkpoint(false).await.unwrap().document);
    }
    for older in 0..6 {
        for newer in older..6 {
            let proof = archive.notary.prove_consistency(&documents[older], Some(&documents[newer])).await.unwrap();
            let (old, new) = ConsistencyProof::parse(&proof).unwrap().verify().unwrap();
            assert_eq!((old.number, new.number), (older as u64 + 1, newer as u64 + 1));
        }
        let latest = archive.notary.prove_consistency(&documents[older], None).await.unwrap();
        assert_eq!(ConsistencyProof::parse(&latest).unwrap().verify().unwrap().1.number, 6);
    }
    let backwards = archive.notary.prove_consistency(&documents[3], Some(&documents[1])).await.unwrap_err();
    assert_eq!(backwards.kind, ErrorKind::Invalid);
    let mut larger = read(&documents[5]);
    larger.trees[1].size = u64::MAX;
    let key = PublicKey { name: "main".into(), bytes: Stamp.public() };
    let larger = Note::signed(larger.body(), &key, |bytes| Stamp.sign(bytes)).to_text();
    let beyond = archive.notary.prove_consistency(&documents[0], Some(&larger)).await.unwrap_err();
    assert_eq!(beyond.kind, ErrorKind::Conflict, "more than the log has: {beyond}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_and_lost_or_wrong_notes_are_made_anew() {
    let mut machine = Machine::new();
    let archive = machine.open(false).await;
    archive.append(0, 0, 5_000).await;
    let first = archive.checkpoint().await;
    archive.stop().await;
    let archive = machine.open(false).await;
    archive.append(0, 6_000, 100).await;
    let second = archive.checkpoint().await;
    is_of(&*archive.log, &second).await;
    assert_eq!(second.previous, Some(cairn_archive::notary::body_hash(&first.body())));
    archive.stop().await;
    // A store without anything: the latest checkpoint is found in the log.
    machine.notes = tempfile::tempdir().unwrap();
    let archive = machine.open(false).await;
    let third = archive.checkpoint().await;
    is_of(&*archive.log, &third).await;
    assert_eq!((third.number, third.previous), (3, Some(cairn_archive::notary::body_hash(&second.body()))));
    assert!(archive.notary.prove_event(&at(0, 4_000), true).await.is_ok());
}

/// Two logs that differ in one event; the second has the notes of the first.
async fn altered(change: bool) -> (Machine, Running) {
    let (machine, mut other) = (Machine::new(), Machine::new());
    let archive = machine.open(false).await;
    archive.append(0, 0, 300).await;
    archive.append(1, 0, 300).await;
    archive.checkpoint().await;
    archive.stop().await;
    let log = other.log().await;
    let altered = |number: u64| record(number, if change && number == 130 { b'q' } else { b'p' });
    log.append(Partition(0), (0..300).map(|number| record(number, b'p')).collect()).await.unwrap();
    log.append(Partition(1), (0..300).map(altered).collect()).await.unwrap();
    log.close().await.unwrap();
    other.notes = machine.notes;
    let archive = other.open(false).await;
    (other, archive)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_event_is_not_proved_and_its_partition_is_named() {
    let (_machine, archive) = altered(true).await;
    // The trees are of the log as it was: they are not made anew because of an event in the middle.
    let proof = archive.notary.prove_event(&at(1, 130), false).await.unwrap_err();
    assert_eq!(proof.kind, ErrorKind::Corrupt);
    assert!(proof.message.contains("offset 130 of partition 1"), "{proof}");
    assert!(archive.notary.prove_event(&at(1, 200), false).await.is_ok(), "others are what they were");
    assert!(archive.notary.prove_event(&at(1, 131), false).await.is_err(), "of its block none can be told from it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_over_an_altered_log_unless_somebody_says_so() {
    let (mut machine, archive) = altered(true).await;
    archive.stop().await;
    // Without the trees as they were, but with the checkpoint that was signed.
    machine.notes = {
        let latest = super::trees::Kept::new(machine.store().await).latest().await.unwrap().unwrap();
        let fresh = Machine::new();
        let store = fresh.store().await;
        super::trees::Kept::new(store.clone()).keep_latest(&latest).await.unwrap();
        store.sync(true).await.unwrap();
        fresh.notes
    };
    let archive = machine.open(false).await;
    let refused = archive.notary.checkpoint(false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("partition 1 of the log does not go on from checkpoint 1"), "{refused}");
    assert_eq!(archive.notary.notary().await.unwrap().latest.unwrap().number, 1);
    let accepted = read(&archive.notary.checkpoint(true).await.unwrap().document);
    assert_eq!((accepted.number, accepted.breaks.len(), accepted.breaks[0].partition), (2, 1, Partition(1)));
    is_of(&*archive.log, &accepted).await;
    archive.append(1, 400, 3).await;
    assert!(archive.checkpoint().await.breaks.is_empty(), "from there it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_of_the_log_says_by_itself_where_history_breaks() {
    let machine = Machine::new();
    let archive = machine.open(false).await;
    archive.append(0, 0, 50).await;
    archive.append(1, 0, 50).await;
    archive.checkpoint().await;
    archive.stop().await;
    // A backup of before: less of partition 1, and then other events.
    let mut restored = Machine::new();
    let log = restored.log().await;
    log.append(Partition(0), (0..50).map(|number| record(number, b'p')).collect()).await.unwrap();
    log.append(Partition(1), (0..20).map(|number| record(number, b'p')).collect()).await.unwrap();
    log.append(Partition(1), (90..130).map(|number| record(number, b'p')).collect()).await.unwrap();
    log.renew(Incarnation(2), vec![Offset(50), Offset(20), log.end(Partition(2)).await.unwrap()]).await.unwrap();
    restored.notes = machine.notes;
    let archive = restored.open(false).await;
    let checkpoint = archive.checkpoint().await;
    let broken: Vec<_> = checkpoint.breaks.iter().map(|broken| (broken.partition.0, broken.before.size)).collect();
    assert_eq!(broken.first(), Some(&(1, 50)), "{broken:?}");
    assert_eq!(
        (checkpoint.newest_life(), checkpoint.life_at(Partition(1), Offset(20))),
        (Incarnation(2), Incarnation(2))
    );
    is_of(&*archive.log, &checkpoint).await;
    let proven =
        archive.notary.prove_event(&Position { incarnation: Incarnation(2), ..at(1, 20) }, false).await.unwrap();
    assert_eq!(EventProof::parse(&proven).unwrap().verify().unwrap().position.incarnation, Incarnation(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_exported_in_order_once_there_is_a_directory() {
    let machine = Machine::new();
    let archive = machine.open(false).await;
    let mut documents = Vec::new();
    for number in 0..3 {
        archive.append(0, number * 100, 10).await;
        documents.push(archive.notary.checkpoint(false).await.unwrap().document);
    }
    assert!(machine.exported().is_empty());
    archive.stop().await;
    let archive = machine.open(true).await;
    documents.push(archive.notary.checkpoint(false).await.unwrap().document);
    let names: Vec<String> = documents.iter().map(|document| read(document).file_name()).collect();
    assert_eq!(machine.exported(), names);
    assert_eq!(archive.notary.notary().await.unwrap().exported, Some(4));
    for (name, document) in names.iter().zip(&documents) {
        let file = machine.disk.open(&Path::new("/worm").join(name)).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, document.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lacks_an_exported_checkpoint_was_restored_and_is_not_signed_for() {
    let machine = Machine::new();
    let archive = machine.open(true).await;
    archive.append(0, 0, 10).await;
    archive.checkpoint().await;
    archive.stop().await;
    let mut restored = Machine::new();
    let log = restored.log().await;
    log.append(Partition(0), (0..10).map(|number| record(number, b'p')).collect()).await.unwrap();
    log.close().await.unwrap();
    let exported = machine.disk.clone();
    restored.notes = tempfile::tempdir().unwrap();
    // The directory is another machine's: what is in it is put beside the restored log.
    super::export::Exports { disk: Arc::new(restored.disk.clone()), directory: "/worm".into() }
        .write(&machine.exported()[0], b"signed then")
        .unwrap();
    drop(exported);
    let archive = restored.open(true).await;
    let refused = archive.notary.checkpoint(false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("restored from a backup"), "{refused}");
    let accepted = read(&archive.notary.checkpoint(true).await.unwrap().document);
    assert_eq!(accepted.number, 2, "the number that is taken stays taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_signed() {
    let machine = Machine::new();
    let (log, store) = (machine.log().await, machine.store().await);
    let appender = Arc::new(Appender::new(log.clone(), machine.clock.clone()));
    let disk = Arc::new(machine.disk.clone());
    let sealing = machine.sealing(&log, &store, &appender);
    let config = NotaryConfig::default();
    let notary = NotaryService::open(log, store, disk, appender, sealing, None, config).await.unwrap();
    assert_eq!(notary.checkpoint(false).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(notary.prove_event(&at(0, 0), false).await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(!notary.notary().await.unwrap().has_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_it_signs_when_it_is_time_and_something_came() {
    let machine = Machine::new();
    let archive = machine.open(false).await;
    let signed = async || {
        archive.notary.turn().await.unwrap();
        archive.notary.notary().await.unwrap().latest.map_or(0, |latest| latest.number)
    };
    assert_eq!(signed().await, 0, "an empty log");
    archive.append(0, 0, 3).await;
    assert_eq!(signed().await, 1);
    archive.append(0, 10, 3).await;
    assert_eq!(signed().await, 1, "it is not time yet");
    machine.clock.0.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(signed().await, 2);
    machine.clock.0.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(signed().await, 2, "its own event is nothing new");
    archive.append(0, 20, 1).await;
    machine.clock.0.store(0, Ordering::Relaxed);
    assert_eq!(signed().await, 3, "also when the clock was set back");
}
