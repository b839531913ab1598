//! Retention over the embedded log and stores, with a clock that is set, and an object store that fails in the middle.

use super::{RetentionService, With};
use crate::{
    append::Appender,
    config::ErasureConfig,
    fixity::{Copies, Damages},
    notes::Notes,
};
use async_trait::async_trait;
use cairn_archive::{
    Digest, Envelope, EventId, Hlc, Incarnation, KeyId, ObjectKey, Offset, Partition, Position, SiteId,
    erasure::{Stage, VERSIONS_ERASED},
    events::{Event, InstanceProtected, InstanceStored, Object, ObjectsDestroyed, SiteDeclaredDead, SitePromoted},
    sealing::{KeyBytes, SealingKey, is_shredded, keys_of, seal},
};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_key_store_embedded::{EmbeddedKeyStore, KeyStoreConfig};
use cairn_process::{
    clock::Clock,
    disk::{Disk, sim::SimDisk},
};
use cairn_service_api::{
    ErrorKind, Retention,
    retention::{ErasureGrounds, ErasureScope, NewHold},
};
use cairn_store_api::{
    ByteStream, EventLog, KeyPage, KeyRing, KeyRingConfig, KeyState, KeyStore, ObjectInfo, ObjectPage, ObjectRef,
    ObjectStore, ObjectWriter, Record, SealedLog, StoreError, StoreErrorKind, StoreSpace, as_stored,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

const STUDY: &str = "1.2.3";
pub(crate) const DAY_MS: u64 = 24 * 3600 * 1000;

/// A wall clock that is set, and time that passes.
#[derive(Default)]
pub(crate) struct Clocks {
    wall_ms: AtomicU64,
    elapsed_ms: AtomicU64,
}

impl Clocks {
    /// Time passes, and both clocks show it.
    pub(crate) fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }
}

impl Clock for Clocks {
    fn unix_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
    }
}

/// Objects that are only known by key and length; deleting fails once so many were deleted.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) there: Mutex<BTreeMap<ObjectKey, u64>>,
    deletes_left: AtomicU64,
}

fn unavailable() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "away")
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put(&self, _: ObjectKey, _: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(unavailable())
    }

    async fn repair(&self, _: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(unavailable())
    }

    async fn read(&self, _: &ObjectRef, _: Range<u64>) -> Result<ByteStream, StoreError> {
        Err(unavailable())
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        let length = self.there.lock().unwrap().get(&key).copied();
        let length = length.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "not there"))?;
        Ok(ObjectInfo { object: ObjectRef { key, length, digest: Digest([1; 32]) }, put_ended_at_ms: 0 })
    }

    async fn list(&self, _: Option<ObjectKey>, _: usize) -> Result<ObjectPage, StoreError> {
        Err(unavailable())
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        let take = |left: u64| left.checked_sub(1);
        self.deletes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| unavailable())?;
        self.there.lock().unwrap().remove(&key);
        Ok(())
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        Err(unavailable())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A site: everything of it but the service itself survives a crash.
pub(crate) struct Site {
    disk: SimDisk,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) objects: Arc<Objects>,
    notes: TempDir,
    /// Destroying keys fails while this is set.
    keeps_keys: Arc<AtomicBool>,
}

/// A key store that does not destroy keys for a while.
struct Keys {
    store: EmbeddedKeyStore,
    keeps: Arc<AtomicBool>,
}

#[async_trait]
impl KeyStore for Keys {
    async fn add(&self, keys: Vec<(KeyId, KeyBytes)>) -> Result<(), StoreError> {
        self.store.add(keys).await
    }

    async fn get(&self, id: KeyId) -> Result<KeyState, StoreError> {
        self.store.get(id).await
    }

    async fn destroy(&self, ids: Vec<KeyId>) -> Result<(), StoreError> {
        if self.keeps.load(Ordering::Relaxed) {
            return Err(unavailable());
        }
        self.store.destroy(ids).await
    }

    async fn list(&self, after: Option<KeyId>, max: usize) -> Result<KeyPage, StoreError> {
        self.store.list(after, max).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let clocks = Arc::new(Clocks::default());
        clocks.set(1_800_000_000_000);
        let objects = Arc::new(Objects { deletes_left: AtomicU64::new(u64::MAX), ..Objects::default() });
        let (notes, keeps_keys) = (tempfile::tempdir().unwrap(), Arc::default());
        Self { disk: SimDisk::unrecorded(), clocks, objects, notes, keeps_keys }
    }

    async fn open(&self) -> (Arc<dyn EventLog>, RetentionService) {
        let (log, _, service) = self.open_with_notes().await;
        (log, service)
    }

    pub(crate) async fn open_with_notes(&self) -> (Arc<dyn EventLog>, Arc<Notes>, RetentionService) {
        let site = "main".parse().unwrap();
        let config = EventLogConfig { partitions: 3, reserve_bytes: 0, ..EventLogConfig::new(site) };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let log = EmbeddedEventLog::open(disk, self.clocks.clone(), Path::new("/log").into(), config).await.unwrap();
        let keys = self.keys();
        let log: Arc<dyn EventLog> = Arc::new(SealedLog::new(Arc::new(log), Some(keys.clone())));
        let store = EmbeddedIndexStore::open(self.notes.path().into(), IndexStoreConfig::default()).await.unwrap();
        let notes = Arc::new(Notes::new(Arc::new(store)));
        let appender = Arc::new(Appender::new(log.clone(), self.clocks.clone()));
        let (objects, copies) = (self.objects.clone(), Copies::default());
        let damages = Damages::open(objects.clone(), notes.clone(), appender.clone(), copies).await.unwrap();
        let with = With {
            log: log.clone(),
            keys: Some(keys),
            objects,
            notes: notes.clone(),
            appender,
            damages: Arc::new(damages),
            index: None,
            replication: None,
            clock: self.clocks.clone(),
        };
        (log, notes, RetentionService::new(with, ErasureConfig::default()))
    }

    fn keys(&self) -> Arc<KeyRing> {
        let (directory, master) = (Path::new("/keys").into(), KeyBytes([7; 32]));
        let config = KeyStoreConfig { directory, master, reserve_bytes: 0 };
        let store = EmbeddedKeyStore::open(Arc::new(self.disk.clone()), config).unwrap();
        let store = Keys { store, keeps: self.keeps_keys.clone() };
        Arc::new(KeyRing::new(Arc::new(store), KeyRingConfig::default()))
    }

    /// Stores instances of the study.
    async fn store(&self, log: &Arc<dyn EventLog>, count: u8) {
        let appender = Appender::new(log.clone(), self.clocks.clone());
        for n in 0..count {
            appender.append(&self.stored(n), None).await.unwrap();
        }
    }

    /// An instance of the study, whose object is here.
    fn stored(&self, n: u8) -> Event {
        let key = ObjectKey::from_slice(&[n + 1; 16]).unwrap();
        self.objects.there.lock().unwrap().insert(key, 100);
        Event::InstanceStored(Box::new(InstanceStored {
            tenant: "default".into(),
            study_instance_uid: STUDY.into(),
            series_instance_uid: "1.2.3.1".into(),
            sop_instance_uid: format!("1.2.3.1.{n}"),
            object: Some(Object { key: vec![n + 1; 16].into(), length_bytes: 100, blake3: vec![1; 32].into() }),
            protected: InstanceProtected { header: vec![0; 8].into(), extractor_version: 1 }.encode_to_vec().into(),
            ..InstanceStored::default()
        }))
    }

    fn left(&self) -> usize {
        self.objects.there.lock().unwrap().len()
    }
}

async fn requested(service: &RetentionService) -> EventId {
    let scope = ErasureScope {
        tenant: "default".into(),
        study: STUDY.parse().unwrap(),
        series: Vec::new(),
        instances: Vec::new(),
    };
    let grounds = ErasureGrounds { by: "operator".into(), reason: "a trial".into() };
    service.request_erasure(scope, 0, grounds).await.unwrap()[0]
}

async fn stage(service: &RetentionService, id: EventId) -> Stage {
    service.erasure_report(id).await.unwrap().status.stage
}

#[tokio::test]
async fn a_clock_that_is_set_a_year_ahead_or_back_erases_nothing_early() {
    let site = Site::new();
    let (log, service) = site.open().await;
    site.store(&log, 2).await;
    let id = requested(&service).await;
    service.look().await.unwrap();
    // A year ahead: the time at work has not passed.
    site.clocks.set(site.clocks.unix_ms() + 365 * DAY_MS);
    service.look().await.unwrap();
    site.clocks.pass(6 * DAY_MS);
    service.look().await.unwrap();
    assert_eq!((stage(&service, id).await, site.left()), (Stage::Requested, 2));
    // A restart does not change that, and what was lived through before counts.
    drop((log, service));
    let (_log, service) = site.open().await;
    site.clocks.set(1_800_000_000_000 - 365 * DAY_MS);
    site.clocks.pass(2 * DAY_MS);
    service.look().await.unwrap();
    assert_eq!((stage(&service, id).await, site.left()), (Stage::Requested, 2), "by the wall clock it is too early");
    site.clocks.set(1_800_000_000_000 + 8 * DAY_MS);
    service.look().await.unwrap();
    assert_eq!((stage(&service, id).await, site.left()), (Stage::Erased, 0));
}

/// Something of another site comes, which so is a site.
async fn heard_of(log: &Arc<dyn EventLog>, site: &SiteId) {
    let promoted = Event::SitePromoted(SitePromoted { site: "nobody".into(), ..SitePromoted::default() });
    brought(log, site, 0, promoted, None).await;
}

/// An event of another site comes, the one at this place there, sealed there.
async fn brought(log: &Arc<dyn EventLog>, site: &SiteId, at: u64, mut event: Event, key: Option<&SealingKey>) {
    let partition = Partition::of_study(event.study_instance_uid(), log.partitions());
    let id = EventId(uuid::Uuid::now_v7());
    if let Some(key) = key {
        seal(&mut event, id, key, [[1; 12], [2; 12]]).unwrap();
    }
    let origin = Position { site: site.clone(), incarnation: Incarnation(1), partition, offset: Offset(at) };
    let envelope = Envelope {
        id,
        kind: event.kind().into(),
        site: site.clone(),
        study_instance_uid: event.study_instance_uid().into(),
        tenant: event.tenant().into(),
        hlc: Hlc::default(),
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: Some(origin),
    };
    log.append(partition, vec![Record { envelope, payload: event.encode() }]).await.unwrap();
}

/// This site has authority.
async fn promoted(site: &Site, log: &Arc<dyn EventLog>) -> EventId {
    let promoted = SitePromoted { site: "main".into(), epoch: 1, ..SitePromoted::default() };
    let appender = Appender::new(log.clone(), site.clocks.clone());
    appender.append(&Event::SitePromoted(promoted), None).await.unwrap()
}

fn declared(site: &SiteId, dead: bool, under: EventId) -> Event {
    Event::SiteDeclaredDead(SiteDeclaredDead {
        site: site.to_string(),
        dead,
        promotion_event_id: bytes::Bytes::copy_from_slice(under.as_bytes()),
        ..SiteDeclaredDead::default()
    })
}

#[tokio::test]
async fn an_erasure_waits_for_a_site_until_it_is_declared_dead_and_a_delay_has_passed() {
    let site = Site::new();
    let (log, service) = site.open().await;
    let appender = Appender::new(log.clone(), site.clocks.clone());
    let south: SiteId = "south".parse().unwrap();
    heard_of(&log, &south).await;
    let promotion = promoted(&site, &log).await;
    site.store(&log, 2).await;
    let id = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(30 * DAY_MS);
    service.look().await.unwrap();
    let waits_for = service.erasure_report(id).await.unwrap().status.waits_for;
    assert_eq!((waits_for, site.left()), (vec![south.clone()], 2));

    let declared = |dead| declared(&south, dead, promotion);
    appender.append(&declared(true), None).await.unwrap();
    service.look().await.unwrap();
    site.clocks.pass(6 * DAY_MS);
    service.look().await.unwrap();
    // A year ahead by the wall clock alone, which is set right again.
    site.clocks.set(site.clocks.unix_ms() + 365 * DAY_MS);
    service.look().await.unwrap();
    site.clocks.set(site.clocks.unix_ms() - 365 * DAY_MS);
    assert_eq!(site.left(), 2);
    // Thought dead by mistake, and then again: the delay begins anew.
    appender.append(&declared(false), None).await.unwrap();
    appender.append(&declared(true), None).await.unwrap();
    service.look().await.unwrap();
    site.clocks.pass(2 * DAY_MS);
    service.look().await.unwrap();
    assert_eq!(site.left(), 2);
    site.clocks.pass(5 * DAY_MS);
    service.look().await.unwrap();
    assert_eq!((stage(&service, id).await, site.left()), (Stage::Erased, 0));
}

#[tokio::test]
async fn a_destruction_that_is_cut_short_goes_on_after_a_restart() {
    let site = Site::new();
    let (log, service) = site.open().await;
    site.store(&log, 5).await;
    let id = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(8 * DAY_MS);
    site.objects.deletes_left.store(2, Ordering::Relaxed);
    service.look().await.unwrap_err();
    assert_eq!((stage(&service, id).await, site.left()), (Stage::Erased, 3));
    assert!(service.erasure_report(id).await.unwrap().status.destroyed.is_empty());
    drop((log, service));

    let (_log, service) = site.open().await;
    site.objects.deletes_left.store(u64::MAX, Ordering::Relaxed);
    service.look().await.unwrap();
    let report = service.erasure_report(id).await.unwrap();
    assert_eq!(site.left(), 0);
    let (_, destroyed) = report.status.destroyed[0].clone();
    assert_eq!((destroyed.objects, destroyed.bytes, destroyed.absent), (3, 300, 2));
    assert_eq!(report.objects.len(), 5);
    assert!(report.objects.iter().all(|object| !object.is_stored));
    // Once more changes nothing.
    service.look().await.unwrap();
    assert_eq!(service.erasure_report(id).await.unwrap().status, report.status);
}

/// Stored instances as the log has them, opened or not.
async fn stored(log: &dyn EventLog) -> Vec<InstanceStored> {
    let mut all = Vec::new();
    for partition in (0..log.partitions()).map(Partition) {
        for read in log.read(partition, Offset(0), 100, 1 << 20).await.unwrap().records {
            if let Ok(Event::InstanceStored(event)) = Event::decode(&read.record.envelope.kind, read.record.payload) {
                all.push(*event);
            }
        }
    }
    all
}

#[tokio::test]
async fn keys_go_with_what_is_erased_and_a_destruction_that_is_cut_short_goes_on() {
    let site = Site::new();
    let (log, service) = site.open().await;
    site.store(&log, 2).await;
    let sealed = stored(as_stored(&*log)).await;
    assert!(sealed.iter().all(|event| event.key_id == sealed[0].key_id && !event.key_id.is_empty()));
    let id = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(8 * DAY_MS);
    site.keeps_keys.store(true, Ordering::Relaxed);
    service.look().await.unwrap_err();
    let report = service.erasure_report(id).await.unwrap();
    let are_destroyed = report.keys.iter().map(|key| key.is_destroyed).collect::<Vec<_>>();
    assert_eq!(are_destroyed, [Some(false); 2], "it is said of the patient's and of what was written, and not done");
    assert_eq!(report.reason, "a trial");
    assert_eq!((site.left(), report.keys_destroyed.len()), (0, 0));
    assert!(stored(&*log).await.iter().all(|event| event.key_id.is_empty()), "they can still be read");
    drop((log, service));

    let (log, service) = site.open().await;
    site.keeps_keys.store(false, Ordering::Relaxed);
    service.look().await.unwrap();
    let report = service.erasure_report(id).await.unwrap();
    assert_eq!(report.keys.iter().map(|key| key.is_destroyed).collect::<Vec<_>>(), [Some(true); 2]);
    assert_eq!((report.keys_destroyed.len(), &report.reason[..]), (1, ""), "the words are gone with their key");
    assert!(stored(&*log).await.iter().all(|event| is_shredded(&event.key_id, &event.protected)));
    // What comes again is under another key, and once more changes nothing.
    site.store(&log, 1).await;
    service.look().await.unwrap();
    assert_eq!(service.erasure_report(id).await.unwrap().keys_destroyed, report.keys_destroyed);
    let last = stored(as_stored(&*log)).await.pop().unwrap();
    assert_ne!(last.key_id, sealed[0].key_id);
    let event = Event::InstanceStored(Box::new(last));
    let key = keys_of(event.kind(), &event.encode())[0];
    assert!(!report.keys.iter().any(|gone| gone.id == key));
}

#[tokio::test]
async fn a_key_that_something_live_is_under_stays_until_that_goes_too() {
    let site = Site::new();
    let (log, service) = site.open().await;
    site.store(&log, 2).await;
    let (tenant, study) = ("default".to_owned(), STUDY.parse().unwrap());
    let instances = vec!["1.2.3.1.0".parse().unwrap()];
    let scope = ErasureScope { tenant, study, series: Vec::new(), instances };
    let id = service.request_erasure(scope, 0, ErasureGrounds::default()).await.unwrap()[0];
    service.look().await.unwrap();
    site.clocks.pass(8 * DAY_MS);
    service.look().await.unwrap();
    let report = service.erasure_report(id).await.unwrap();
    assert_eq!((report.objects.len(), report.keys.len(), report.kept_keys.len()), (1, 0, 1));
    assert!(stored(&*log).await.iter().all(|event| event.key_id.is_empty()), "all can be read");
    let rest = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(8 * DAY_MS);
    service.look().await.unwrap();
    let of_rest = service.erasure_report(rest).await.unwrap();
    assert!(of_rest.keys.iter().any(|key| key.id == report.kept_keys[0].id));
    assert!(service.erasure_report(id).await.unwrap().kept_keys.is_empty());
    assert!(stored(&*log).await.iter().all(|event| is_shredded(&event.key_id, &event.protected)));
}

/// What took effect of an erasure.
async fn effects(log: &dyn EventLog) -> Vec<EventId> {
    let partition = Partition::of_study(STUDY, log.partitions());
    let all = as_stored(log).read(partition, Offset(0), 100, 1 << 20).await.unwrap().records;
    let envelopes = all.into_iter().map(|read| read.record.envelope);
    envelopes.filter(|envelope| envelope.kind == VERSIONS_ERASED).map(|envelope| envelope.id).collect()
}

#[tokio::test]
async fn what_a_dead_site_sealed_meanwhile_is_whole_when_it_is_back_and_its_key_goes_with_the_last_of_it() {
    let site = Site::new();
    let (log, service) = site.open().await;
    let south: SiteId = "south".parse().unwrap();
    let (id, secret) = (KeyId(uuid::Uuid::from_u128(7)), KeyBytes([9; 32]));
    let key = SealingKey::new(id, &secret).unwrap();
    service.keys.as_ref().unwrap().store().add(vec![(id, secret)]).await.unwrap();
    let promotion = promoted(&site, &log).await;
    site.store(&log, 1).await;
    brought(&log, &south, 0, site.stored(1), Some(&key)).await;
    let appender = Appender::new(log.clone(), site.clocks.clone());
    appender.append(&declared(&south, true, promotion), None).await.unwrap();
    let first = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(30 * DAY_MS);
    service.look().await.unwrap();
    let report = service.erasure_report(first).await.unwrap();
    assert_eq!((report.status.stage, site.left(), report.keys.len()), (Stage::Erased, 0, 1), "{report:?}");
    assert_eq!(report.kept_keys.len(), 2, "south's, and that of what was written about the study: {report:?}");
    assert!(report.kept_keys.iter().any(|kept| kept.id == id));
    assert!(report.kept_keys.iter().all(|kept| kept.may_be_used_at.as_ref() == Some(&south)));
    assert!(report.keys.iter().all(|gone| gone.id != id && gone.is_destroyed == Some(true)));

    // It is back, with what it took meanwhile under that key, and does its part.
    brought(&log, &south, 1, site.stored(2), Some(&key)).await;
    let destroyed = |effect: EventId| {
        Event::ObjectsDestroyed(ObjectsDestroyed {
            tenant: "default".into(),
            study_instance_uid: STUDY.into(),
            versions_erased_event_id: bytes::Bytes::copy_from_slice(effect.as_bytes()),
            site: south.to_string(),
            ..ObjectsDestroyed::default()
        })
    };
    brought(&log, &south, 2, destroyed(effects(&*log).await[0]), None).await;
    service.look().await.unwrap();
    let kept = service.erasure_report(first).await.unwrap().kept_keys;
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|kept| kept.may_be_used_at.is_none()), "what is live needs them: {kept:?}");
    let live = stored(&*log).await.pop().unwrap();
    assert!(live.key_id.is_empty() && !live.protected.is_empty(), "it can be read");

    let rest = requested(&service).await;
    service.look().await.unwrap();
    site.clocks.pass(30 * DAY_MS);
    service.look().await.unwrap();
    let report = service.erasure_report(rest).await.unwrap();
    let gone: Vec<_> = report.keys.iter().map(|key| (key.id, key.is_destroyed)).collect();
    assert_eq!(gone, [(id, Some(true))], "south said of it that it is not used any more");
    brought(&log, &south, 3, destroyed(effects(&*log).await[1]), None).await;
    service.look().await.unwrap();
    assert_eq!(service.erasure_report(rest).await.unwrap().keys.len(), 3, "with what was written");
    assert!(service.erasure_report(first).await.unwrap().kept_keys.is_empty());
    assert!(stored(&*log).await.iter().all(|event| is_shredded(&event.key_id, &event.protected)));
    // Once more nothing is said.
    let end = log.end(Partition::of_study(STUDY, log.partitions())).await.unwrap();
    service.look().await.unwrap();
    assert_eq!(log.end(Partition::of_study(STUDY, log.partitions())).await.unwrap(), end);
}

#[tokio::test]
async fn a_hold_names_something_and_not_too_much() {
    let site = Site::new();
    let (_log, service) = site.open().await;
    for hold in [
        NewHold::default(),
        NewHold { patient: Some((" ".into(), None)), ..NewHold::default() },
        NewHold { studies: vec![STUDY.parse().unwrap(); 100_001], ..NewHold::default() },
    ] {
        assert_eq!(service.place_hold(hold).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    // More studies than one event names.
    let studies: Vec<_> = (0..5_000).map(|n| format!("1.2.3.{n}").parse().unwrap()).collect();
    let hold = NewHold { tenant: "default".into(), studies, by: "operator".into(), ..NewHold::default() };
    let id = service.place_hold(hold.clone()).await.unwrap();
    let holds: Vec<_> = futures_util::TryStreamExt::try_collect(service.holds().await.unwrap()).await.unwrap();
    let [in_force]: [cairn_service_api::retention::HoldInForce; 1] = Vec::try_into(holds).unwrap();
    assert_eq!((in_force.id, in_force.hold.studies.len()), (id, 5_000));
    service.release_hold(id, ErasureGrounds::default()).await.unwrap();
    let again = service.release_hold(id, ErasureGrounds::default()).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::NotFound);
}
