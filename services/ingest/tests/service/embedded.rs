//! Ingest over the embedded log and object store, on one simulated disk: whatever a crash of the machine takes away,
//! every acknowledged instance is there whole, and every event has its bytes.

use crate::support::{
    NOW_MS, TestClock, body,
    data::{Form, Image},
    index::{MemoryIndex, object_of, records_of},
    offer, send_from, sender,
};
use cairn_archive::{Digest, events::Event};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_ingest::{IngestConfig, IngestService, Quarantine, QuarantineConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::disk::sim::{Loss, SimDisk};
use cairn_service_api::{ErrorKind, Ingest, ingest::StoreOutcome};
use cairn_store_api::{EventLog, ObjectRef, ObjectStore};
use futures_util::TryStreamExt;
use std::{collections::BTreeSet, sync::Arc};

struct Stores {
    log: Arc<EmbeddedEventLog>,
    objects: Arc<VolumeStore>,
    service: IngestService,
}

async fn open(disk: &SimDisk) -> Stores {
    let clock = Arc::new(TestClock { unix_ms: NOW_MS.into(), elapsed_ms: 0.into() });
    let shared = Arc::new(disk.clone());
    let log_config = EventLogConfig {
        partitions: 4,
        segment_bytes: 4 << 20,
        append_bytes_max: 1 << 20,
        group_bytes_max: 1 << 20,
        reserve_bytes: 0,
        ..EventLogConfig::new("test".parse().expect("a name"))
    };
    let log = EmbeddedEventLog::open(shared.clone(), clock.clone(), "/data/log".into(), log_config).await;
    let log = Arc::new(log.expect("the log opens"));
    let volumes = VolumeConfig {
        volume_bytes_first: 256 << 10,
        volume_bytes_max: 1 << 20,
        prewrite_bytes_min: 128 << 10,
        prewrite_bytes_max: 256 << 10,
        reserve_bytes: 0,
        ..VolumeConfig::new("/data/objects")
    };
    let objects = Arc::new(VolumeStore::open(shared.clone(), volumes, clock.clone()).expect("the objects open"));
    let quarantine = Quarantine::open(shared, "/data/quarantine".into(), QuarantineConfig::default()).expect("opens");
    let index = MemoryIndex::new(log.clone());
    let config = IngestConfig { reserved_room: 0, ..IngestConfig::default() };
    let service = IngestService::open(log.clone(), objects.clone(), Some(index), quarantine, clock, config).await;
    Stores { log, objects, service: service.expect("ingest opens") }
}

impl Stores {
    async fn close(&self) {
        self.service.close().await.expect("closes");
        self.log.close().await.expect("closes");
        self.objects.close().await.expect("closes");
    }

    /// I1: what every event names can be read. Gives the versions there.
    async fn check(&self) -> BTreeSet<(String, Digest)> {
        let mut there = BTreeSet::new();
        for record in records_of(self.log.as_ref()).await {
            let event = Event::decode(&record.envelope.kind, record.payload).expect("an event");
            if let Event::InstanceStored(event) = event {
                let object = object_of(&event);
                self.read(&object).await;
                if let Some(side) = &event.side_object {
                    let key = cairn_archive::ObjectKey::from_slice(&side.key).expect("a key");
                    let digest = Digest::from_slice(&side.blake3).expect("a digest");
                    self.read(&ObjectRef { key, length: side.length_bytes, digest }).await;
                }
                there.insert((event.sop_instance_uid.clone(), object.digest));
            }
        }
        there
    }

    async fn read(&self, object: &ObjectRef) {
        let chunks = self.objects.read(object, 0..object.length).await.expect("I1: an event names bytes that are gone");
        let bytes = chunks.try_collect::<Vec<_>>().await.expect("I1: an event names bytes that are damaged").concat();
        assert_eq!(object.digest.0, *blake3::hash(&bytes).as_bytes());
    }
}

fn image(n: u32) -> Image {
    Image { instance: format!("1.2.3.4.{n}"), study: format!("1.2.3.{}", n % 3), ..Image::default() }
}

/// Two senders at once: new instances, repeats, conflicts, a large header, and what is refused. Gives for each
/// acknowledged version how many operations the disk had done.
async fn workload(disk: &SimDisk) -> Vec<(usize, String, Digest)> {
    let stores = open(disk).await;
    let sends = |title: &'static str, images: Vec<Image>| {
        let service = stores.service.clone();
        async move {
            let mut acknowledged = Vec::new();
            for image in images {
                let stored = send_from(&service, title, &image).await.expect("stored");
                acknowledged.push((disk.operations(), image.instance.clone(), stored.digest));
            }
            let receipt = service.open_receipt(sender(title)).await.expect("opens");
            let refused = service.store(receipt, offer(&image(0)), body(b"no data set", 4)).await;
            assert_eq!(refused.map_err(|error| error.kind), Err(ErrorKind::Invalid));
            acknowledged
        }
    };
    let large = Image { private_bytes: 600_000, ..image(9) };
    let conflict = Image { pixel: 9, ..image(1) };
    let encoded = Image { form: Form::Implicit, ..image(2) };
    let (mut all, others) = tokio::join!(
        sends("CT1", vec![image(1), image(2), large, image(1), image(3)]),
        sends("CT2", vec![image(4), image(4), conflict, encoded, image(5)]),
    );
    all.extend(others);
    stores.close().await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_crash_what_was_acknowledged_is_there_and_no_event_lacks_its_bytes() {
    let disk = SimDisk::new();
    let acknowledged = workload(&disk).await;
    assert_eq!(acknowledged.len(), 10);
    let operations = disk.operations();
    // Every third crash point, each with another loss; those right at an acknowledgement with all of them.
    let at_answers: BTreeSet<_> = acknowledged.iter().map(|(at, ..)| *at).collect();
    for at in 0..=operations {
        let seeded = Loss::Seeded(at as u64 ^ 0x5EED);
        let losses = match (at_answers.contains(&at), at % 9) {
            (true, _) => vec![Loss::Nothing, Loss::Everything, seeded],
            (false, 0) => vec![Loss::Everything],
            (false, 3) => vec![seeded],
            (false, 6) => vec![Loss::Nothing],
            _ => continue,
        };
        for loss in losses {
            let stores = open(&disk.crash(at, loss)).await;
            let there = stores.check().await;
            for (since, instance, digest) in &acknowledged {
                let lost = at >= *since && !there.contains(&(instance.clone(), *digest));
                assert!(
                    !lost,
                    "I2: {instance} was acknowledged at {since} and is gone after a crash at {at} of {operations}"
                );
            }
            stores.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_senders_go_on_where_they_were() {
    let disk = SimDisk::new();
    workload(&disk).await;
    for share in 1..8 {
        let at = disk.operations() * share / 8;
        let crashed = disk.crash(at, Loss::Seeded(share as u64));
        let acknowledged = workload(&crashed).await;
        let stores = open(&crashed).await;
        let there = stores.check().await;
        assert!(acknowledged.iter().all(|(_, instance, digest)| there.contains(&(instance.clone(), *digest))));
        let again = send_from(&stores.service, "CT1", &image(5)).await.expect("a repeat");
        assert_eq!(again.outcome, StoreOutcome::Repeat);
        stores.close().await;
    }
}
