//! An index that folds the log anew for each question, as plainly as can be.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, ObjectKey, Offset, Partition, PositionVector,
    events::{Comparison, Event, InstanceStored},
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Reason,
    index::{
        Change, Changed, Conflict, ConflictKind, ConflictVersion, Detail, Diff, GenerationStatus, IndexStatus,
        InstanceRecord, Query, Selection, StateDigest, StudyDifference,
    },
};
use cairn_store_api::{EventLog, ObjectRef, Record};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) struct MemoryIndex {
    log: Arc<dyn EventLog>,
    /// Every call fails.
    pub(crate) away: AtomicBool,
    /// It never gets any further.
    pub(crate) behind: AtomicBool,
    /// Versions that are not live any more.
    pub(crate) gone: Mutex<HashSet<EventId>>,
}

type Identity = (Uid, Uid, Uid);

impl MemoryIndex {
    pub(crate) fn new(log: Arc<dyn EventLog>) -> Arc<Self> {
        Arc::new(Self { log, away: false.into(), behind: false.into(), gone: Mutex::default() })
    }

    fn check(&self) -> Result<(), Error> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "index is away")),
            false => Ok(()),
        }
    }

    async fn stored(&self) -> Vec<(EventId, u64, InstanceStored)> {
        let mut stored = Vec::new();
        if self.behind.load(Ordering::Relaxed) {
            return stored;
        }
        let mut records = records_of(self.log.as_ref()).await;
        let gone = self.gone.lock().expect("not poisoned");
        records.sort_by_key(|record| (record.envelope.hlc, record.envelope.id));
        for record in records {
            let event = Event::decode(&record.envelope.kind, record.payload).expect("a known event");
            if let Event::InstanceStored(event) = event
                && !gone.contains(&record.envelope.id)
            {
                stored.push((record.envelope.id, record.envelope.hlc.wall_ms, *event));
            }
        }
        stored
    }

    async fn comparisons(&self) -> Vec<(EventId, EventId, Comparison)> {
        let id = |bytes: &Bytes| EventId::from_slice(bytes).expect("an id");
        let events =
            records_of(self.log.as_ref()).await.into_iter().map(|r| Event::decode(&r.envelope.kind, r.payload));
        let compared = |event| match event {
            Ok(Event::VersionsCompared(event)) => {
                Some((id(&event.first_store_event_id), id(&event.second_store_event_id), event.comparison()))
            }
            _ => None,
        };
        events.filter_map(compared).collect()
    }

    async fn identities(&self) -> BTreeMap<Identity, Vec<(EventId, u64, InstanceStored)>> {
        let mut identities = BTreeMap::<Identity, Vec<_>>::new();
        for (id, at, event) in self.stored().await {
            let uid = |text: &str| text.parse::<Uid>().expect("a UID");
            let identity =
                (uid(&event.study_instance_uid), uid(&event.series_instance_uid), uid(&event.sop_instance_uid));
            identities.entry(identity).or_default().push((id, at, event));
        }
        identities
    }
}

/// Every record of a log.
pub(crate) async fn records_of(log: &dyn EventLog) -> Vec<Record> {
    let mut records = Vec::new();
    for partition in (0..log.partitions()).map(Partition) {
        let mut from = Offset(0);
        loop {
            let batch = log.read(partition, from, 1_000, 16 << 20).await.expect("reads");
            let Some(last) = batch.records.last() else { break };
            from = last.offset.next();
            records.extend(batch.records.into_iter().map(|record| record.record));
        }
    }
    records
}

pub(crate) fn object_of(event: &InstanceStored) -> ObjectRef {
    let object = event.object.as_ref().expect("an object");
    ObjectRef {
        key: ObjectKey::from_slice(&object.key).expect("a key"),
        length: object.length_bytes,
        digest: Digest::from_slice(&object.blake3).expect("a digest"),
    }
}

fn record_of(identity: &Identity, id: EventId, event: &InstanceStored, shown: bool) -> InstanceRecord {
    InstanceRecord {
        study_instance_uid: identity.0.clone(),
        series_instance_uid: identity.1.clone(),
        sop_instance_uid: identity.2.clone(),
        sop_class_uid: event.sop_class_uid.parse().expect("a UID"),
        transfer_syntax_uid: event.transfer_syntax_uid.parse().expect("a UID"),
        store_event: id,
        object: object_of(event),
        data_set_offset: event.data_set_offset,
        pixel_data_offset: event.pixel_data_offset,
        shown,
        rejected: Default::default(),
        damaged: false,
        is_to_be_erased: false,
        is_cold: false,
        corrections: Vec::new(),
        corrected_length: None,
        frames: 0,
        frame_table: event.frame_table.clone(),
        bulk_data: event.bulk_data.clone(),
        header: Bytes::new(),
        side_object: None,
        default_character_set: String::new(),
        issuer_of_patient_id: event.sender_profile.clone().unwrap_or_default().issuer_of_patient_id,
    }
}

#[async_trait]
impl Index for MemoryIndex {
    async fn query(&self, _query: Query) -> Result<AnswerStream<DataSet>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn instances(&self, selection: Selection, _: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        self.check()?;
        let mut records = Vec::new();
        for (identity, versions) in self.identities().await {
            let matches = |list: &[Uid], uid: &Uid| list.is_empty() || list.contains(uid);
            if !matches(&selection.studies, &identity.0)
                || !matches(&selection.series, &identity.1)
                || !matches(&selection.instances, &identity.2)
            {
                continue;
            }
            for (place, (id, _, event)) in versions.iter().enumerate() {
                let record = record_of(&identity, *id, event, place == 0);
                let wanted = selection.version.is_none_or(|digest| digest == record.object.digest);
                if wanted && (selection.all_versions || record.shown) {
                    records.push(Ok(record));
                }
            }
        }
        Ok(Box::pin(futures_util::stream::iter(records)))
    }

    async fn wait_for(&self, _after: &PositionVector, timeout: Duration) -> Result<(), Error> {
        self.check()?;
        if self.behind.load(Ordering::Relaxed) {
            tokio::time::sleep(timeout).await;
            return Err(Error::because(ErrorKind::Unavailable, Reason::NotYetIndexed, "index is behind"));
        }
        Ok(())
    }

    async fn conflicts(&self, _tenant: &str, _: bool) -> Result<AnswerStream<Conflict>, Error> {
        self.check()?;
        let comparisons = self.comparisons().await;
        let mut conflicts = Vec::new();
        for (identity, versions) in self.identities().await.into_iter().filter(|(_, versions)| versions.len() > 1) {
            let compared = |id: EventId| comparisons.iter().any(|(_, second, _)| *second == id);
            let all = versions.iter().skip(1).all(|(id, _, _)| compared(*id));
            let version = |(id, at, event): &(EventId, u64, InstanceStored)| ConflictVersion {
                store_event: *id,
                digest: object_of(event).digest,
                transfer_syntax_uid: event.transfer_syntax_uid.parse().expect("a UID"),
                stored_at_ms: *at,
                calling_ae_title: String::new(),
                study_instance_uid: identity.0.clone(),
                series_instance_uid: identity.1.clone(),
                shown: false,
            };
            conflicts.push(Ok(Conflict {
                study_instance_uid: identity.0.clone(),
                series_instance_uid: identity.1.clone(),
                sop_instance_uid: identity.2.clone(),
                kind: if all { ConflictKind::Content } else { ConflictKind::NotComparedYet },
                versions: versions.iter().map(version).collect(),
            }));
        }
        Ok(Box::pin(futures_util::stream::iter(conflicts)))
    }

    async fn parked(
        &self,
        _: cairn_service_api::parked::ParkedSelection,
    ) -> Result<AnswerStream<cairn_service_api::parked::ParkedEvent>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        Ok(IndexStatus::default())
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn manage(&self, _: Change) -> Result<Changed, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn diff(&self, _: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn digest_tree(&self) -> Result<cairn_service_api::digests::DigestTree, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn study_digests(
        &self,
        _: &str,
        _: cairn_service_api::digests::Of,
    ) -> Result<AnswerStream<cairn_service_api::digests::StudyDigest>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn study_events(
        &self,
        _: &str,
        _: &cairn_dicom::Uid,
        _: Vec<cairn_archive::EventId>,
    ) -> Result<AnswerStream<cairn_service_api::digests::FoldedEvent>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn patient_facts(
        &self,
        _: &str,
        _: cairn_service_api::patients::FactsOf,
    ) -> Result<AnswerStream<cairn_service_api::patients::KnownFact>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }

    async fn survey(
        &self,
        _: cairn_service_api::survey::Survey,
    ) -> Result<AnswerStream<cairn_service_api::survey::Surveyed>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
    }
}
