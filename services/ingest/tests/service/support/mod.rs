//! A site in memory to try ingest on: given what is there, when something is sent, then these are the facts.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod data;
pub(crate) mod index;
pub(crate) mod memory;

use bytes::Bytes;
use cairn_archive::{
    Envelope,
    events::{Door, Event, InstanceStored},
    ids::ReceiptId,
};
use cairn_ingest::{IngestConfig, IngestService, Quarantine, QuarantineConfig};
use cairn_process::{clock::Clock, disk::sim::SimDisk};
use cairn_service_api::{
    Error, Ingest,
    ingest::{InstanceOffer, OfferedForm, Sender, Stored},
};
use data::{CT, Image};
use index::MemoryIndex;
use memory::{Faults, MemoryLog, MemoryObjects};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// 2026-06-01
pub(crate) const NOW_MS: u64 = 1_780_272_000_000;

/// A clock that stands still until it is told otherwise.
pub(crate) struct TestClock {
    pub(crate) unix_ms: AtomicU64,
    pub(crate) elapsed_ms: AtomicU64,
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
    }
}

/// A site.
pub(crate) struct Site {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) objects: Arc<MemoryObjects>,
    pub(crate) index: Arc<MemoryIndex>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) disk: SimDisk,
    pub(crate) config: IngestConfig,
    pub(crate) quarantine: QuarantineConfig,
    pub(crate) faults: Faults,
}

impl Default for Site {
    fn default() -> Self {
        let faults = Faults::default();
        let log = MemoryLog::new(faults.clone());
        let mut config = IngestConfig::default();
        // Versions are compared when they are stored, not found by searching, unless a test is about that.
        config.compare.search_interval = Duration::from_secs(3_600);
        Self {
            index: MemoryIndex::new(log.clone()),
            objects: MemoryObjects::new(faults.clone()),
            clock: Arc::new(TestClock { unix_ms: NOW_MS.into(), elapsed_ms: 0.into() }),
            disk: SimDisk::new(),
            config,
            quarantine: QuarantineConfig::default(),
            log,
            faults,
        }
    }
}

impl Site {
    pub(crate) fn configured(configure: impl FnOnce(&mut IngestConfig)) -> Self {
        let mut site = Self::default();
        configure(&mut site.config);
        site
    }

    /// The service with an index.
    pub(crate) async fn open(&self) -> IngestService {
        self.try_open(true).await.expect("opens")
    }

    pub(crate) async fn try_open(&self, with_index: bool) -> Result<IngestService, Error> {
        let index = with_index.then(|| self.index.clone() as Arc<dyn cairn_service_api::Index>);
        let disk = Arc::new(self.disk.clone());
        let quarantine = Quarantine::open(disk, "/quarantine".into(), self.quarantine.clone()).expect("opens");
        let (log, objects, clock) = (self.log.clone(), self.objects.clone(), self.clock.clone());
        IngestService::open(log, objects, index, quarantine, clock, self.config.clone()).await
    }

    /// Every event, in the order appended.
    pub(crate) fn events(&self) -> Vec<(Envelope, Event)> {
        let decode = |payload: Bytes, envelope: Envelope| {
            let event = Event::decode(&envelope.kind, payload).expect("an event");
            (envelope, event)
        };
        self.log.records().into_iter().map(|record| decode(record.payload, record.envelope)).collect()
    }

    /// The types of every event, without what is common to them.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let short = |kind: &str| kind.trim_start_matches("cairn.").trim_end_matches(".v1").to_owned();
        self.events().iter().map(|(envelope, _)| short(&envelope.kind)).collect()
    }

    pub(crate) fn stored_events(&self) -> Vec<(Envelope, InstanceStored)> {
        let stored = |(envelope, event)| match event {
            Event::InstanceStored(event) => Some((envelope, *event)),
            _ => None,
        };
        self.events().into_iter().filter_map(stored).collect()
    }

    /// I1: every object that an event names is there, with the bytes that the event says; nothing else is.
    pub(crate) fn assert_bytes_and_events_agree(&self, orphans_allowed: bool) {
        let mut named = std::collections::BTreeSet::new();
        for (envelope, event) in self.stored_events() {
            let object = index::object_of(&event);
            let bytes = self.objects.bytes(object.key).expect("I1: an event names bytes that are not there");
            assert_eq!(object.digest.0, *blake3::hash(&bytes).as_bytes());
            assert_eq!(object.length, bytes.len() as u64);
            assert!(envelope.object_keys.contains(&object.key));
            for key in envelope.object_keys {
                assert!(self.objects.bytes(key).is_some(), "I1: an event names bytes that are not there");
                named.insert(key);
            }
        }
        let unnamed: Vec<_> = self.objects.keys().into_iter().filter(|key| !named.contains(key)).collect();
        assert!(orphans_allowed || unnamed.is_empty(), "objects that no event names: {unnamed:?}");
    }
}

pub(crate) fn sender(calling_ae_title: &str) -> Sender {
    Sender {
        tenant: "default".into(),
        door: Door::Dimse,
        calling_ae_title: calling_ae_title.into(),
        called_ae_title: "CAIRN".into(),
        peer_address: "127.0.0.1:4242".into(),
        implementation_class_uid: "1.2.3.4.5.6".into(),
        implementation_version_name: "TEST_1".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..Sender::default()
    }
}

pub(crate) fn offer(image: &Image) -> InstanceOffer {
    InstanceOffer {
        form: OfferedForm::DataSet {
            transfer_syntax_uid: image.transfer_syntax().parse().expect("a UID"),
            sop_class_uid: CT.parse().expect("a UID"),
            sop_instance_uid: image.instance.parse().expect("a UID"),
        },
        length_hint: None,
        study_instance_uid: None,
    }
}

pub(crate) fn file_offer() -> InstanceOffer {
    InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None }
}

/// A body in pieces.
pub(crate) fn body(bytes: &[u8], piece: usize) -> cairn_service_api::ingest::Body<'static> {
    let pieces: Vec<_> = bytes.chunks(piece.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(futures_util::stream::iter(pieces))
}

/// Sends an image by C-STORE, in a receipt that is open.
pub(crate) async fn send(service: &IngestService, receipt: ReceiptId, image: &Image) -> Result<Stored, Error> {
    service.store(receipt, offer(image), body(&image.bytes(), 1_000)).await
}

/// Sends an image by C-STORE, in a receipt of its own that stays open.
pub(crate) async fn send_from(service: &IngestService, title: &str, image: &Image) -> Result<Stored, Error> {
    let receipt = service.open_receipt(sender(title)).await.expect("a receipt");
    send(service, receipt, image).await
}
