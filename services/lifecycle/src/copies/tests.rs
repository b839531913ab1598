//! Copies over embedded stores, on disks of their own.

use super::*;
use crate::{
    append::Appender,
    fixity::{Copies, Damages},
    orphans::tests::name,
    retention::tests::Site,
};
use cairn_archive::events::{Damage, DamageFoundBy, Event, object_repaired::Source};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::disk::{Disk, sim::SimDisk};
use std::path::Path;

const OBJECTS: &str = "/objects";

fn volumes(disk: &SimDisk, site: &Site) -> Arc<dyn ObjectStore> {
    let config = VolumeConfig { prewrite_bytes_min: 0, reserve_bytes: 0, ..VolumeConfig::new(OBJECTS) };
    Arc::new(VolumeStore::open(Arc::new(disk.clone()), config, site.clocks.clone()).unwrap())
}

struct Running {
    log: Arc<dyn EventLog>,
    appender: Arc<Appender>,
    notes: Arc<Notes>,
    first: Arc<dyn ObjectStore>,
    second: Arc<dyn ObjectStore>,
    copying: Arc<Copying>,
    damages: Damages,
}

impl Running {
    async fn new(site: &Site, disks: [&SimDisk; 2]) -> Self {
        let (log, notes, _) = site.open_with_notes().await;
        let [first, second] = disks.map(|disk| volumes(disk, site));
        let appender = Arc::new(Appender::new(log.clone(), site.clocks.clone()));
        let (both, config) = ((first.clone(), second.clone()), CopiesConfig::default());
        let copying = Arc::new(Copying::new(log.clone(), both, notes.clone(), config));
        let copies = Copies { second: Some(copying.clone()), ..Copies::default() };
        let damages = Damages::open(first.clone(), notes.clone(), appender.clone(), copies).await.unwrap();
        Self { log, appender, notes, first, second, copying, damages }
    }

    /// Stores an object and names it.
    async fn store(&self, number: u8) -> ObjectRef {
        let mut writer = self.first.put(ObjectKey::from_slice(&[number; 16]).unwrap(), None).await.unwrap();
        writer.write(vec![number; 10_000].into()).await.unwrap();
        let object = writer.finish().await.unwrap().object;
        name(&self.appender, object).await;
        object
    }

    async fn erase(&self, object: ObjectRef) {
        self.notes
            .change(vec![Change::put(Kind::Erased, object.key.as_bytes(), &CopiedNote::default())])
            .await
            .unwrap();
    }

    /// Every event of the log.
    async fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for partition in (0..self.log.partitions()).map(Partition) {
            let records = self.log.read(partition, Offset(0), 1000, 1 << 20).await.unwrap().records;
            let decoded =
                |record: LogRecord| Event::decode(&record.record.envelope.kind, record.record.payload).unwrap();
            events.extend(records.into_iter().map(decoded));
        }
        events
    }

    fn named(object: ObjectRef) -> cairn_service_api::lifecycle::NamedObject {
        unread(object, cairn_archive::EventId::from_slice(&[9; 16]).unwrap())
    }
}

async fn is_whole(store: &Arc<dyn ObjectStore>, object: &ObjectRef) -> bool {
    let Ok(bytes) = store.read(object, 0..object.length).await else { return false };
    bytes.try_collect::<Vec<_>>().await.is_ok_and(|chunks| chunks.concat().len() as u64 == object.length)
}

/// Flips a bit of an object of this number, wherever it lies.
fn damage(disk: &SimDisk, number: u8) {
    for name in disk.list(Path::new(OBJECTS)).unwrap().into_iter().filter(|name| name.starts_with("volume-")) {
        let path = Path::new(OBJECTS).join(name);
        let file = disk.open(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        if let Some(at) = bytes.windows(4096).position(|window| window.iter().all(|byte| *byte == number)) {
            disk.damage(&path, at as u64 + 9, &[number ^ 1]).unwrap();
            return;
        }
    }
    panic!("object {number} lies nowhere");
}

#[tokio::test]
async fn what_is_damaged_or_gone_is_had_again_from_its_copy_and_none_is_copied_twice() {
    let (site, disks) = (Site::new(), [SimDisk::unrecorded(), SimDisk::unrecorded()]);
    let running = Running::new(&site, [&disks[0], &disks[1]]).await;
    let (damaged, gone) = (running.store(1).await, running.store(2).await);
    running.copying.follow().await.unwrap();
    assert_eq!(running.copying.known().behind_events, 0);
    assert!(is_whole(&running.second, &damaged).await && is_whole(&running.second, &gone).await);

    damage(&disks[0], 1);
    running.first.delete(gone.key).await.unwrap();
    for (object, what) in [(damaged, Damage::Bytes), (gone, Damage::Gone)] {
        assert!(!is_whole(&running.first, &object).await);
        assert!(running.damages.found(&Running::named(object), what, DamageFoundBy::Scrub).await.unwrap());
        assert!(is_whole(&running.first, &object).await);
    }
    let mut sources: Vec<_> = running
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event {
            Event::ObjectRepaired(repaired) => repaired.source,
            _ => None,
        })
        .collect();
    sources.sort_by_key(|source| format!("{source:?}"));
    let own = |object: ObjectRef| Source::OtherObjectKey(Bytes::copy_from_slice(object.key.as_bytes()));
    assert_eq!(sources, [own(damaged), own(gone)], "of its own key: its copy");
    // Nothing is copied again that was copied before.
    running.second.delete(gone.key).await.unwrap();
    let later = running.store(3).await;
    running.copying.follow().await.unwrap();
    assert!(is_whole(&running.second, &later).await && !is_whole(&running.second, &gone).await);
    // But a round finds that it is missing.
    running.damages.look_after_copy(&gone, u64::MAX).await.unwrap();
    assert!(is_whole(&running.second, &gone).await);
}

#[tokio::test]
async fn a_damaged_copy_is_made_anew_and_what_is_damaged_here_is_never_copied() {
    let (site, disks) = (Site::new(), [SimDisk::unrecorded(), SimDisk::unrecorded()]);
    let running = Running::new(&site, [&disks[0], &disks[1]]).await;
    let (first, second) = (running.store(1).await, running.store(2).await);
    damage(&disks[0], 2);
    running.copying.follow().await.unwrap();
    assert!(is_whole(&running.second, &first).await);
    assert!(running.second.stat(second.key).await.is_err());
    damage(&disks[1], 1);
    assert!(!is_whole(&running.second, &first).await);
    running.damages.look_after_copy(&first, u64::MAX).await.unwrap();
    assert!(is_whole(&running.second, &first).await);
    assert_eq!(running.copying.known().made_anew, 1);
}

#[tokio::test]
async fn what_is_erased_has_no_copy_whenever_that_is_and_nothing_is_destroyed_while_copies_are_away() {
    let (site, disks) = (Site::new(), [SimDisk::unrecorded(), SimDisk::unrecorded()]);
    let running = Running::new(&site, [&disks[0], &disks[1]]).await;
    let (early, late) = (running.store(1).await, running.store(2).await);
    running.erase(early).await;
    running.copying.follow().await.unwrap();
    assert!(!running.copying.has(early.key).await.unwrap() && running.copying.has(late.key).await.unwrap());
    running.erase(late).await;
    running.damages.destroy(late.key).await.unwrap();
    assert!(!running.damages.is_stored(late.key).await.unwrap());
    // A round that began before does not bring it back.
    running.damages.look_after_copy(&late, u64::MAX).await.unwrap();
    assert!(!running.copying.has(late.key).await.unwrap());

    let held_up = running.store(3).await;
    running.copying.follow().await.unwrap();
    running.erase(held_up).await;
    running.second.close().await.unwrap();
    assert!(running.damages.destroy(held_up.key).await.is_err());
    assert!(is_whole(&running.first, &held_up).await, "it is destroyed in both or not yet");
}
