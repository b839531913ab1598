//! A lifecycle service over embedded stores, with an index and requesters that do as they are told.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, ObjectKey, Partition, Position, PositionVector,
    commitment::{Reference, State},
    envelope::Envelope,
    events::{CommitmentReporting, Door, Event, InstanceReceivedAgain, InstanceStored, Receipt},
    rejection::Titles,
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_lifecycle::{Behind, CommitmentConfig, LifecycleConfig, LifecycleService};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use cairn_service_api::{
    AnswerStream, Commitments, DEFAULT_TENANT, Error, ErrorKind, Index,
    commitment::{Commitment, Report, Reporter, Request, Transaction},
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
    parked::{ParkedEvent, ParkedSelection},
};
use cairn_store_api::{EventLog, IndexStore, ObjectRef, ObjectStore, Record};
use futures_util::stream;
use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::watch;

pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const STUDY: &str = "1.2.1";
/// Longest wait for anything that must happen.
pub const SOON: Duration = Duration::from_secs(20);

pub fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn never<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Internal, "not asked by lifecycle"))
}

/// Knows what it is told.
#[derive(Default)]
pub struct ToldIndex {
    pub records: Mutex<Vec<InstanceRecord>>,
    pub events: Mutex<Vec<FoldedEvent>>,
    /// Whether it can't be asked.
    pub away: Mutex<bool>,
}

#[async_trait]
impl Index for ToldIndex {
    async fn query(&self, _: Query) -> Result<AnswerStream<DataSet>, Error> {
        never()
    }

    async fn instances(&self, selection: Selection, _: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        assert!(selection.all_versions, "versions that are not shown count too");
        let records = self.records.lock().unwrap().clone();
        let found = records.into_iter().filter(move |record| selection.instances.contains(&record.sop_instance_uid));
        Ok(Box::pin(stream::iter(found.map(Ok).collect::<Vec<_>>())))
    }

    async fn wait_for(&self, _: &PositionVector, _: Duration) -> Result<(), Error> {
        match *self.away.lock().unwrap() {
            true => Err(Error::new(ErrorKind::Unavailable, "the index is away")),
            false => Ok(()),
        }
    }

    async fn conflicts(&self, _: &str, _: bool) -> Result<AnswerStream<Conflict>, Error> {
        never()
    }

    async fn parked(&self, _: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error> {
        never()
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        never()
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        never()
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        never()
    }

    async fn manage(&self, _: Change) -> Result<Changed, Error> {
        never()
    }

    async fn diff(&self, _: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        never()
    }

    async fn digest_tree(&self) -> Result<DigestTree, Error> {
        never()
    }

    async fn study_digests(&self, _: &str, _: Of) -> Result<AnswerStream<StudyDigest>, Error> {
        never()
    }

    async fn study_events(&self, _: &str, _: &Uid, only: Vec<EventId>) -> Result<AnswerStream<FoldedEvent>, Error> {
        let events = self.events.lock().unwrap().clone();
        let asked = events.into_iter().filter(move |event| only.is_empty() || only.contains(&event.event));
        Ok(Box::pin(stream::iter(asked.map(Ok).collect::<Vec<_>>())))
    }

    async fn patient_facts(
        &self,
        _: &str,
        _: cairn_service_api::patients::FactsOf,
    ) -> Result<AnswerStream<cairn_service_api::patients::KnownFact>, Error> {
        never()
    }

    async fn survey(
        &self,
        _: cairn_service_api::survey::Survey,
    ) -> Result<AnswerStream<cairn_service_api::survey::Surveyed>, Error> {
        never()
    }
}

/// Requesters: they take reports, unless they are to fail first.
#[derive(Default)]
pub struct Requesters {
    pub told: watch::Sender<Vec<Report>>,
    pub failures: Mutex<VecDeque<ErrorKind>>,
}

#[async_trait]
impl Reporter for Requesters {
    async fn report(&self, report: Report) -> Result<(), Error> {
        if let Some(kind) = self.failures.lock().unwrap().pop_front() {
            return Err(Error::new(kind, "nobody listens"));
        }
        self.told.send_modify(|told| told.push(report));
        Ok(())
    }
}

impl Requesters {
    pub async fn told(&self, count: usize) -> Vec<Report> {
        let mut told = self.told.subscribe();
        let told = tokio::time::timeout(SOON, told.wait_for(|told| told.len() >= count)).await;
        told.expect("nobody was told in time").unwrap().clone()
    }
}

/// A site whose lifecycle service can be stopped and started.
pub struct Site {
    folder: TempDir,
    pub config: CommitmentConfig,
    pub log: Arc<dyn EventLog>,
    pub objects: Arc<dyn ObjectStore>,
    pub index: Arc<ToldIndex>,
    pub requesters: Arc<Requesters>,
    clock: Arc<dyn Clock>,
    running: Option<Arc<LifecycleService>>,
}

impl Site {
    pub async fn open() -> Self {
        let config = CommitmentConfig {
            instances_wait: Duration::from_millis(300),
            look_interval: Duration::from_millis(20),
            report_interval: Duration::from_millis(20),
            report_interval_max: Duration::from_millis(50),
            ..CommitmentConfig::default()
        };
        Self::with(config).await
    }

    pub async fn with(config: CommitmentConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
        let log_config = EventLogConfig { partitions: 4, ..EventLogConfig::new("main".parse().unwrap()) };
        let log = EmbeddedEventLog::open(disk.clone(), clock.clone(), folder.path().join("log"), log_config);
        let volumes = VolumeConfig { prewrite_bytes_min: 0, ..VolumeConfig::new(folder.path().join("objects")) };
        let objects = VolumeStore::open(disk, volumes, clock.clone()).unwrap();
        let (index, requesters) = (Arc::default(), Arc::default());
        let (log, objects) = (Arc::new(log.await.unwrap()), Arc::new(objects));
        let mut site = Self { folder, config, log, objects, index, requesters, clock, running: None };
        site.start().await;
        site
    }

    pub fn notes(&self) -> &Path {
        self.folder.path()
    }

    pub async fn start(&mut self) {
        let notes = EmbeddedIndexStore::open(self.folder.path().join("lifecycle"), IndexStoreConfig::default());
        let notes: Arc<dyn IndexStore> = Arc::new(notes.await.unwrap());
        let behind = Behind {
            log: self.log.clone(),
            opened_log: self.log.clone(),
            keys: None,
            objects: self.objects.clone(),
            tiers: None,
            copies: None,
            notes,
            index: Some(self.index.clone()),
            replication: None,
            reporter: Some(self.requesters.clone()),
            clock: self.clock.clone(),
            disk: Arc::new(RealDisk),
            signer: None,
        };
        let config = LifecycleConfig { commitment: self.config.clone(), ..LifecycleConfig::default() };
        self.running = Some(LifecycleService::open(behind, config).await.unwrap());
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.close().await.unwrap();
    }

    pub fn service(&self) -> Arc<LifecycleService> {
        self.running.clone().unwrap()
    }

    /// Stores an object; gives what the index knows of it, as a version that is shown.
    pub async fn stored(&self, instance: &str, bytes: &'static [u8], by: &str) -> InstanceRecord {
        let key = ObjectKey(uuid::Uuid::now_v7());
        let mut writer = self.objects.put(key, None).await.unwrap();
        writer.write(Bytes::from_static(bytes)).await.unwrap();
        let object = writer.finish().await.unwrap().object;
        let receipt = Some(Receipt { calling_ae_title: by.into(), ..Receipt::default() });
        let event = Event::InstanceStored(Box::new(InstanceStored {
            tenant: DEFAULT_TENANT.into(),
            study_instance_uid: STUDY.into(),
            series_instance_uid: "1.2.2".into(),
            sop_instance_uid: instance.into(),
            receipt,
            ..InstanceStored::default()
        }));
        let store_event = self.fold(&event, Some(instance)).await;
        let record = record(instance, store_event, object);
        self.index.records.lock().unwrap().push(record.clone());
        record
    }

    /// Somebody sends the bytes of a version again.
    pub async fn sent_again(&self, version: &InstanceRecord, by: &str) {
        let event = Event::InstanceReceivedAgain(Box::new(InstanceReceivedAgain {
            tenant: DEFAULT_TENANT.into(),
            study_instance_uid: STUDY.into(),
            series_instance_uid: "1.2.2".into(),
            sop_instance_uid: version.sop_instance_uid.to_string(),
            store_event_id: Bytes::copy_from_slice(version.store_event.as_bytes()),
            receipt: Some(Receipt { calling_ae_title: by.into(), ..Receipt::default() }),
            ..InstanceReceivedAgain::default()
        }));
        self.fold(&event, None).await;
    }

    /// Appends an event of the study, and lets the index know.
    async fn fold(&self, event: &Event, about: Option<&str>) -> EventId {
        let partition = Partition::of_study(STUDY, self.log.partitions());
        let id = EventId(uuid::Uuid::now_v7());
        let wall_ms = self.clock.unix_ms();
        let end = self.log.end(partition).await.unwrap();
        let envelope = Envelope {
            id,
            kind: event.kind().into(),
            site: self.log.site().clone(),
            study_instance_uid: STUDY.into(),
            tenant: DEFAULT_TENANT.into(),
            hlc: Hlc { wall_ms, counter: end.0 as u32 },
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        };
        let record = Record { envelope, payload: event.encode() };
        let offset = self.log.append(partition, vec![record]).await.unwrap();
        let (site, incarnation) = (self.log.site().clone(), self.log.incarnation());
        let position = Position { site: site.clone(), incarnation, partition, offset };
        self.index.events.lock().unwrap().push(FoldedEvent {
            about: about.map(|instance| (uid("1.2.2"), uid(instance))),
            event: id,
            kind: event.kind().into(),
            site,
            happened_at_ms: wall_ms,
            origin: Some(position.clone()),
            position: Some(position),
        });
        id
    }

    /// Waits until a transaction is so far.
    pub async fn until(&self, transaction: &Transaction, state: State) -> Commitment {
        let service = self.service();
        let reached = async {
            loop {
                match service.commitment(transaction, Duration::ZERO).await {
                    Ok(commitment) if commitment.state == state => return commitment,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{transaction:?} is not {state:?}"))
    }
}

pub fn record(instance: &str, store_event: EventId, object: ObjectRef) -> InstanceRecord {
    InstanceRecord {
        study_instance_uid: uid(STUDY),
        series_instance_uid: uid("1.2.2"),
        sop_instance_uid: uid(instance),
        sop_class_uid: uid(CT),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
        store_event,
        object,
        data_set_offset: 0,
        pixel_data_offset: 0,
        shown: true,
        damaged: false,
        is_to_be_erased: false,
        is_cold: false,
        corrections: Vec::new(),
        corrected_length: None,
        rejected: Titles::default(),
        frames: 0,
        frame_table: None,
        bulk_data: Vec::new(),
        header: Bytes::new(),
        side_object: None,
        default_character_set: String::new(),
        issuer_of_patient_id: String::new(),
    }
}

pub fn transaction(number: u32) -> Transaction {
    let transaction_uid = uid(&format!("1.9.{number}"));
    Transaction { tenant: DEFAULT_TENANT.into(), requester: "PACS".into(), transaction_uid }
}

pub fn request(number: u32, instances: &[&str]) -> Request {
    let reference =
        |instance: &&str| Reference { sop_class_uid: uid(CT), sop_instance_uid: uid(instance), within: None };
    Request {
        transaction: transaction(number),
        called_ae_title: "CAIRN".into(),
        door: Door::Dimse,
        peer_address: String::new(),
        references: instances.iter().map(reference).collect(),
        confirmed_sites: 0,
        reporting: CommitmentReporting::NewAssociation,
    }
}
