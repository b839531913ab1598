//! Looks over embedded stores, on disks and clocks of their own.

use super::*;
use crate::{
    config::SealingConfig,
    fixity::Copies,
    retention::tests::{Clocks, DAY_MS, Site},
};
use async_trait::async_trait;
use cairn_archive::{
    Offset, Partition,
    events::{Event, InstanceProtected, InstanceStored, Object},
};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::disk::sim::SimDisk;
use cairn_sealed_log::SealedRanges;
use cairn_store_api::{ByteStream, ObjectPage, ObjectWriter, StoreError, StoreSpace};
use std::{ops::Range, sync::Mutex};

const GRACE_MS: u64 = DAY_MS;

/// A store in which somebody names an object in the moment in which it is removed.
struct Objects {
    volumes: VolumeStore,
    named_when_removed: Mutex<Option<(Arc<Appender>, ObjectRef)>>,
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put(&self, key: ObjectKey, hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.volumes.put(key, hint).await
    }

    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.volumes.repair(object).await
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.volumes.read(object, range).await
    }

    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.volumes.stat(key).await
    }

    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError> {
        self.volumes.list(after, max).await
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError> {
        let named = self.named_when_removed.lock().unwrap().take();
        if let Some((appender, object)) = named {
            name(&appender, object).await;
        }
        self.volumes.delete(key).await
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        self.volumes.space().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.volumes.close().await
    }
}

/// Makes it a fact that an object is an instance.
pub(crate) async fn name(appender: &Appender, object: ObjectRef) {
    let object = Object {
        key: Bytes::copy_from_slice(object.key.as_bytes()),
        length_bytes: object.length,
        blake3: Bytes::copy_from_slice(&object.digest.0),
    };
    let stored = InstanceStored {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        series_instance_uid: "1.2.3.1".into(),
        sop_instance_uid: "1.2.3.1.1".into(),
        object: Some(object),
        protected: InstanceProtected { header: vec![0; 8].into(), extractor_version: 1 }.encode_to_vec().into(),
        ..InstanceStored::default()
    };
    appender.append(&Event::InstanceStored(Box::new(stored)), None).await.unwrap();
}

struct Running {
    clocks: Arc<Clocks>,
    log: Arc<dyn EventLog>,
    appender: Arc<Appender>,
    objects: Arc<Objects>,
    damages: Arc<Damages>,
    orphans: Arc<Orphans>,
}

impl Running {
    async fn new(site: &Site, disk: &SimDisk, unattended_max: usize) -> Self {
        let clocks = site.clocks.clone();
        let (log, notes, retention) = site.open_with_notes().await;
        let volumes = VolumeConfig { prewrite_bytes_min: 0, reserve_bytes: 0, ..VolumeConfig::new("/objects") };
        let volumes = VolumeStore::open(Arc::new(disk.clone()), volumes, clocks.clone()).unwrap();
        let objects = Arc::new(Objects { volumes, named_when_removed: Mutex::default() });
        let appender = Arc::new(Appender::new(log.clone(), clocks.clone()));
        let damages = Damages::open(objects.clone(), notes.clone(), appender.clone(), Copies::default()).await.unwrap();
        let damages = Arc::new(damages);
        let config = SealingConfig::default();
        let sealing = Sealing::new(log.clone(), objects.clone(), notes.clone(), appender.clone(), config);
        let with = With {
            log: log.clone(),
            objects: objects.clone(),
            notes,
            appender: appender.clone(),
            damages: damages.clone(),
            sealing: Arc::new(sealing),
            retention: Arc::new(retention),
        };
        let config = OrphansConfig { unattended_max, ..OrphansConfig::default() };
        Self { clocks, log, appender, objects, damages, orphans: Arc::new(Orphans::new(with, config)) }
    }

    async fn put(&self, number: u8) -> ObjectRef {
        let mut writer = self.objects.put(ObjectKey::from_slice(&[number; 16]).unwrap(), None).await.unwrap();
        writer.write(vec![number; 100].into()).await.unwrap();
        writer.finish().await.unwrap().object
    }

    async fn has(&self, object: ObjectRef) -> bool {
        self.objects.stat(object.key).await.is_ok()
    }

    /// Looks, and gives how many it removed, how many it left, and why.
    async fn look(&self) -> (u64, u64, Option<OrphansKept>) {
        let note = self.orphans.look().await.unwrap();
        (note.removed, note.left, note.kept())
    }

    async fn found(&self) -> Vec<ObjectRef> {
        self.orphans.list().map(|orphan| orphan.unwrap().info.object).collect().await
    }

    async fn stop(self) {
        self.log.close().await.unwrap();
        self.objects.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_no_event_names_goes_after_its_time_at_work_whatever_the_wall_clock_says() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let (named, orphan) = (running.put(1).await, running.put(2).await);
    name(&running.appender, named).await;
    assert_eq!(running.look().await, (0, 1, None));
    assert_eq!(running.found().await, [orphan]);
    let bytes: Vec<_> = running.orphans.read(orphan.key).await.unwrap().try_collect().await.unwrap();
    assert_eq!(bytes.concat(), [2; 100]);
    assert_eq!(running.orphans.read(named.key).await.err().unwrap().kind, ErrorKind::NotFound);

    running.clocks.set(1_900_000_000_000);
    assert_eq!(running.look().await, (0, 1, None), "the wall clock was set years ahead");
    running.clocks.pass(GRACE_MS - 1);
    assert_eq!(running.look().await, (0, 1, None));
    running.clocks.pass(1);
    assert_eq!(running.look().await, (1, 0, None));
    assert!(running.has(named).await && !running.has(orphan).await);
    let status = running.orphans.status().await.unwrap();
    assert_eq!((status.orphans, status.last.unwrap().removed_bytes, status.last.unwrap().objects), (0, 100, 2));
}

#[tokio::test]
async fn what_is_named_or_brought_again_meanwhile_stays() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let (named_late, brought_again) = (running.put(1).await, running.put(2).await);
    assert_eq!(running.look().await, (0, 2, None));
    running.clocks.pass(GRACE_MS);
    name(&running.appender, named_late).await;
    let mut writer = running.objects.repair(&brought_again).await.unwrap();
    writer.write(vec![2; 100].into()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(running.look().await, (0, 1, None));
    assert_eq!(running.found().await, [brought_again]);
    running.clocks.pass(GRACE_MS - 1);
    assert_eq!(running.look().await, (0, 1, None), "its time began anew");
    running.clocks.pass(1);
    assert_eq!(running.look().await, (1, 0, None));
    assert!(running.has(named_late).await && !running.has(brought_again).await);
}

#[tokio::test]
async fn many_are_kept_until_an_operator_releases_those_that_a_look_found() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 1).await;
    assert_eq!(running.orphans.release(1).await.unwrap_err().kind, ErrorKind::Invalid, "there was no look");
    let first = [running.put(1).await, running.put(2).await];
    assert_eq!(running.look().await, (0, 2, None));
    let later = [running.put(3).await, running.put(4).await];
    running.clocks.pass(GRACE_MS);
    assert_eq!(running.look().await, (0, 4, Some(OrphansKept::TooMany)));
    running.orphans.release(1).await.unwrap();
    running.clocks.pass(GRACE_MS);
    assert_eq!(running.look().await, (2, 2, Some(OrphansKept::TooMany)));
    assert!(!running.has(first[0]).await && !running.has(first[1]).await);
    assert!(running.has(later[0]).await && running.has(later[1]).await);
}

#[tokio::test]
async fn most_of_what_there_is_does_not_go_by_itself() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let (orphans, named) = ([running.put(1).await, running.put(2).await], running.put(3).await);
    name(&running.appender, named).await;
    running.look().await;
    running.clocks.pass(GRACE_MS);
    assert_eq!(running.look().await, (0, 2, Some(OrphansKept::TooMany)));
    assert!(running.has(orphans[0]).await && running.has(orphans[1]).await);
}

#[tokio::test]
async fn in_a_new_life_of_the_log_nothing_goes_by_itself() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let (orphan, named) = (running.put(1).await, running.put(9).await);
    name(&running.appender, named).await;
    assert_eq!(running.look().await, (0, 1, None));
    let mut ends = Vec::new();
    for partition in 0..running.log.partitions() {
        ends.push(running.log.end(Partition(partition)).await.unwrap());
    }
    running.log.renew(Incarnation(2), ends).await.unwrap();
    running.stop().await;

    let running = Running::new(&site, &disk, 100).await;
    running.clocks.pass(GRACE_MS);
    assert_eq!(running.look().await, (0, 1, Some(OrphansKept::NewLife)));
    assert!(running.has(orphan).await);
    running.orphans.release(2).await.unwrap();
    assert_eq!(running.look().await, (1, 0, None));
    running.put(2).await;
    running.look().await;
    running.clocks.pass(GRACE_MS);
    assert_eq!(running.look().await, (1, 0, None), "in this life they go by themselves again");
}

#[tokio::test]
async fn a_range_of_the_log_is_no_orphan_though_no_event_names_it_yet() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let named = running.put(1).await;
    name(&running.appender, named).await;
    let partition = Partition::of_study("1.2.3", running.log.partitions());
    let ranges = SealedRanges::new(&*running.log, running.objects.clone());
    let end = running.log.end(partition).await.unwrap();
    assert_eq!(end, Offset(1));
    ranges.seal(&*running.log, partition, end).await.unwrap().unwrap();
    assert_eq!(running.look().await, (0, 0, None));
}

#[tokio::test]
async fn what_is_named_in_the_moment_of_its_removal_is_had_again_as_what_is_gone_is() {
    let (site, disk) = (Site::new(), SimDisk::unrecorded());
    let running = Running::new(&site, &disk, 100).await;
    let (orphan, named) = (running.put(1).await, running.put(2).await);
    name(&running.appender, named).await;
    running.look().await;
    running.clocks.pass(GRACE_MS);
    *running.objects.named_when_removed.lock().unwrap() = Some((running.appender.clone(), orphan));
    assert_eq!(running.look().await, (1, 0, None));
    let gone = running.damages.page(None).await.unwrap();
    assert_eq!(gone.iter().map(|gone| gone.named.object).collect::<Vec<_>>(), [orphan]);
}
