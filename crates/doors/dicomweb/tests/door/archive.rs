//! An archive in memory behind the services' traits.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, PositionVector,
    events::{BulkDataEntry, ReceiptEnd},
    ids::{ObjectKey, ReceiptId},
    position::{Incarnation, Offset, Partition, Position},
};
use cairn_dicom::{
    DataSet, Tag, Uid,
    dataset::{DecodeLimits, Value},
    frames::FrameTable,
    part10::Part10Reader,
    tags,
    transfer_syntax::Encoding,
    walk::{HeaderWalker, WalkLimits, Walked},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Ingest, Reason, Retrieval,
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Level, Query,
        Returning, Selection, StateDigest, StudyDifference,
    },
    ingest::{Body, InstanceOffer, QuarantineEntry, Sender, StoreOutcome, Stored},
    retrieval::{Frame, Part, RetrievedInstance},
};
use cairn_store_api::ObjectRef;
use futures_util::{StreamExt, stream};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes of a chunk that retrieval gives.
const CHUNK: usize = 256 * 1024;

/// One stored instance.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) record: InstanceRecord,
    pub(crate) file: Bytes,
    pub(crate) set: Arc<DataSet>,
    walked: Arc<Walked>,
}

/// What the archive holds, and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) held: Vec<Held>,
    pub(crate) senders: Vec<Sender>,
    pub(crate) offers: Vec<InstanceOffer>,
    pub(crate) closed: Vec<ReceiptEnd>,
    pub(crate) queries: Vec<Query>,
    pub(crate) waited_for: Vec<PositionVector>,
    pub(crate) ranges: Vec<Part>,
    /// Next stores fail like this.
    pub(crate) refusals: VecDeque<Error>,
    /// Next query fails like this.
    pub(crate) query_error: Option<Error>,
    /// Waiting for a position fails.
    pub(crate) behind: bool,
    /// Objects whose bytes are damaged, from this chunk on.
    pub(crate) damaged: Vec<(Digest, usize)>,
    /// Answers that the index gives instead of its own, as many as asked for.
    pub(crate) invented: Option<u64>,
    /// Bytes of bodies that are thrown away and answered as stored, for measurements.
    pub(crate) swallow: bool,
}

/// The archive.
#[derive(Default)]
pub(crate) struct Archive(Mutex<State>);

fn uid(text: &str) -> Uid {
    text.parse().expect("a UID")
}

impl Archive {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file in as if it had been stored.
    pub(crate) fn hold(&self, file: &[u8]) -> Result<Held, Error> {
        let held = read(file)?;
        let mut state = self.state();
        let mut held = held;
        held.record.shown = !state.held.iter().any(|other| same_identity(other, &held));
        state.held.push(held.clone());
        Ok(held)
    }

    fn selected(&self, selection: &Selection) -> Vec<Held> {
        let within = |list: &[Uid], uid: &Uid| list.is_empty() || list.contains(uid);
        let fits = |held: &&Held| {
            let record = &held.record;
            within(&selection.studies, &record.study_instance_uid)
                && within(&selection.series, &record.series_instance_uid)
                && within(&selection.instances, &record.sop_instance_uid)
                && selection.version.is_none_or(|version| version == record.object.digest)
                && (record.shown || selection.all_versions)
        };
        self.state().held.iter().filter(fits).cloned().collect()
    }

    fn chunks(&self, held: &Held, bytes: Bytes) -> AnswerStream<Bytes> {
        let damage = self.state().damaged.iter().find(|(digest, _)| *digest == held.record.object.digest).map(|d| d.1);
        let chunks = (0..bytes.len()).step_by(CHUNK).map(move |at| bytes.slice(at..bytes.len().min(at + CHUNK)));
        let chunks = chunks.enumerate().map(move |(at, chunk)| match damage {
            Some(from) if at >= from => Err(Error::new(ErrorKind::Corrupt, "stored bytes differ from their digest")),
            _ => Ok(chunk),
        });
        Box::pin(stream::iter(chunks.collect::<Vec<_>>()))
    }

    fn of(&self, record: &InstanceRecord) -> Result<Held, Error> {
        let gone = || Error::new(ErrorKind::NotFound, "gone");
        let state = self.state();
        state.held.iter().find(|held| held.record.object.digest == record.object.digest).cloned().ok_or_else(gone)
    }
}

fn same_identity(one: &Held, other: &Held) -> bool {
    let key = |held: &Held| {
        let record = &held.record;
        (record.study_instance_uid.clone(), record.series_instance_uid.clone(), record.sop_instance_uid.clone())
    };
    key(one) == key(other)
}

fn read(file: &[u8]) -> Result<Held, Error> {
    let refuse = |text: &str| Error::because(ErrorKind::Invalid, Reason::CannotUnderstand, text);
    let mut reader = Part10Reader::default();
    let start = match reader.push(file).map_err(|error| refuse(&error.to_string()))? {
        Some(start) => start,
        None => reader.finish().map_err(|error| refuse(&error.to_string()))?,
    };
    let syntax = start.transfer_syntax.clone();
    let mut walker = HeaderWalker::new(&syntax, WalkLimits::default());
    walker.push(&file[start.data_set_offset as usize..]).map_err(|error| refuse(&error.to_string()))?;
    let walked = walker.finish().map_err(|error| refuse(&error.to_string()))?;
    let identity = walked
        .identity()
        .map_err(|error| Error::because(ErrorKind::Invalid, Reason::BadIdentifier, error.to_string()))?;
    let header = Bytes::from(walked.header.clone());
    let set = DataSet::decode(&header, Encoding::ExplicitLittle, Default::default(), &DecodeLimits::default());
    let digest = Digest(*blake3::hash(file).as_bytes());
    let record = InstanceRecord {
        study_instance_uid: identity.study_instance_uid,
        series_instance_uid: identity.series_instance_uid,
        sop_instance_uid: identity.sop_instance_uid,
        sop_class_uid: identity.sop_class_uid,
        transfer_syntax_uid: uid(syntax.uid()),
        store_event: EventId(uuid::Uuid::now_v7()),
        object: ObjectRef { key: ObjectKey(uuid::Uuid::now_v7()), length: file.len() as u64, digest },
        data_set_offset: start.data_set_offset,
        pixel_data_offset: walked.pixel_data.map_or(0, |pixels| start.data_set_offset + pixels.offset),
        shown: true,
        rejected: Default::default(),
        damaged: false,
        is_to_be_erased: false,
        is_cold: false,
        corrections: Vec::new(),
        corrected_length: None,
        frames: walked.frames.as_ref().map_or(0, FrameTable::frames),
        frame_table: None,
        bulk_data: walked.bulk.iter().map(entry).collect(),
        header,
        side_object: None,
        default_character_set: String::new(),
        issuer_of_patient_id: String::new(),
    };
    let set = set.map_err(|error| refuse(&error.to_string()))?.0;
    Ok(Held { record, file: Bytes::copy_from_slice(file), set: set.into(), walked: walked.into() })
}

fn entry(bulk: &cairn_dicom::walk::BulkEntry) -> BulkDataEntry {
    let letters = bulk.vr.as_str().as_bytes();
    BulkDataEntry {
        path: bulk.path.to_vec(),
        vr: u32::from(letters[0]) << 8 | u32::from(letters[1]),
        offset: bulk.offset,
        length_bytes: bulk.length,
        encapsulated: bulk.encapsulated,
    }
}

fn position(offset: u64) -> Position {
    Position {
        site: "here".parse().expect("a site"),
        incarnation: Incarnation(1),
        partition: Partition(7),
        offset: Offset(offset),
    }
}

#[async_trait]
impl Ingest for Archive {
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error> {
        self.state().senders.push(sender);
        Ok(ReceiptId(uuid::Uuid::now_v7()))
    }

    async fn store(&self, _: ReceiptId, offer: InstanceOffer, mut body: Body<'_>) -> Result<Stored, Error> {
        let study = offer.study_instance_uid.clone();
        self.state().offers.push(offer);
        let swallow = self.state().swallow;
        let mut file = Vec::new();
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = body.next().await.transpose()? {
            if swallow {
                hasher.update(&chunk);
            }
            if !swallow || file.len() < 4096 {
                file.extend_from_slice(&chunk);
            }
        }
        if let Some(refusal) = self.state().refusals.pop_front() {
            return Err(refusal);
        }
        let held = read(&file)?;
        let record = held.record.clone();
        if study.is_some_and(|study| study != record.study_instance_uid) {
            return Err(Error::because(ErrorKind::Invalid, Reason::DoesNotMatch, "another study is in the path"));
        }
        let mut state = self.state();
        let mut others = state.held.iter().filter(|other| same_identity(other, &held));
        let outcome = match others.next() {
            _ if swallow => StoreOutcome::New,
            None => StoreOutcome::New,
            Some(other) if other.record.object.digest == record.object.digest => StoreOutcome::Repeat,
            Some(_) => StoreOutcome::Conflict { shown: false },
        };
        let offset = state.held.len() as u64;
        if outcome != StoreOutcome::Repeat && !swallow {
            let shown = outcome == StoreOutcome::New;
            let record = InstanceRecord { shown, ..record.clone() };
            state.held.push(Held { record, ..held.clone() });
        }
        Ok(Stored {
            confirmed_sites: 0,
            rejections: Vec::new(),
            study_instance_uid: record.study_instance_uid,
            series_instance_uid: record.series_instance_uid,
            sop_instance_uid: record.sop_instance_uid,
            sop_class_uid: record.sop_class_uid,
            digest: record.object.digest,
            length: record.object.length,
            position: position(offset),
            outcome,
            findings: match swallow {
                true => Vec::new(),
                false => {
                    held.walked.findings.iter().map(|f| (f.kind.code().to_owned(), f.tag.unwrap_or_default())).collect()
                }
            },
        })
    }

    async fn close_receipt(&self, _: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        self.state().closed.push(end);
        Ok(())
    }

    async fn choose_version(
        &self,
        _: &str,
        _: (Uid, Uid, Uid),
        _: EventId,
        _: &str,
        _: &str,
    ) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn repair(&self, _: cairn_service_api::parked::Repair) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn revoke_rejection(&self, _: cairn_service_api::rejection::Revocation) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn correct(&self, _: cairn_service_api::correction::Correction) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn revoke_correction(
        &self,
        _: cairn_service_api::correction::CorrectionRevocation,
    ) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn say_of_patients(&self, _: cairn_service_api::patients::PatientStatement) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn revoke_patient_fact(&self, _: cairn_service_api::patients::PatientRevocation) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn quarantined_bytes(&self, _: EventId) -> Result<AnswerStream<Bytes>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn key_of(level: Level) -> Tag {
    match level {
        Level::Patient => tags::PATIENT_ID,
        Level::Study => tags::STUDY_INSTANCE_UID,
        Level::Series => tags::SERIES_INSTANCE_UID,
        Level::Instance => tags::SOP_INSTANCE_UID,
    }
}

/// Equality only: what matching means is tested where it is done.
fn matches(set: &DataSet, identifier: &DataSet) -> bool {
    identifier.elements().iter().all(|key| match &key.value {
        Value::Text(wanted) => set.texts(key.tag).iter().any(|own| wanted.contains(own)),
        _ => true,
    })
}

#[async_trait]
impl Index for Archive {
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error> {
        let mut state = self.state();
        state.queries.push(query.clone());
        if let Some(error) = state.query_error.take() {
            return Err(error);
        }
        let range = (query.offset as usize, query.limit.unwrap_or(u64::MAX) as usize);
        if let Some(count) = state.invented {
            let answer = |n: u64| {
                let mut set = DataSet::new();
                set.put_text(tags::STUDY_INSTANCE_UID, &format!("1.2.{n}"));
                set.put_text(tags::PATIENT_NAME, "NAME^OF SOME^LENGTH");
                Ok(set)
            };
            return Ok(Box::pin(stream::iter((0..count).skip(range.0).take(range.1).map(answer))));
        }
        let mut seen = BTreeSet::new();
        let mut answers = Vec::new();
        for held in state.held.iter().filter(|held| held.record.shown && matches(&held.set, &query.identifier)) {
            if !seen.insert(held.set.texts(key_of(query.level)).to_vec()) {
                continue;
            }
            let wanted = |tag: Tag| match &query.returning {
                Returning::All => true,
                Returning::Keys => false,
                Returning::DefaultAnd(more) => {
                    tag.group() == 0x0020 || tag == tags::PATIENT_NAME || more.contains(&tag)
                }
            };
            let asked = |tag: Tag| wanted(tag) || query.identifier.get(tag).is_some();
            answers.push(Ok(held.set.elements().iter().filter(|e| asked(e.tag)).cloned().collect()));
        }
        Ok(Box::pin(stream::iter(answers.into_iter().skip(range.0).take(range.1))))
    }

    async fn instances(&self, selection: Selection, _: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        let records: Vec<_> = self.selected(&selection).into_iter().map(|held| Ok(held.record)).collect();
        Ok(Box::pin(stream::iter(records)))
    }

    async fn wait_for(&self, after: &PositionVector, _: Duration) -> Result<(), Error> {
        let mut state = self.state();
        state.waited_for.push(after.clone());
        match state.behind {
            true => Err(Error::because(ErrorKind::Unavailable, Reason::NotYetIndexed, "the index is behind")),
            false => Ok(()),
        }
    }

    async fn conflicts(&self, _: &str, _: bool) -> Result<AnswerStream<Conflict>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn parked(
        &self,
        _: cairn_service_api::parked::ParkedSelection,
    ) -> Result<AnswerStream<cairn_service_api::parked::ParkedEvent>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        Ok(IndexStatus::default())
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn manage(&self, _: Change) -> Result<Changed, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn diff(&self, _: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn digest_tree(&self) -> Result<cairn_service_api::digests::DigestTree, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn study_digests(
        &self,
        _: &str,
        _: cairn_service_api::digests::Of,
    ) -> Result<AnswerStream<cairn_service_api::digests::StudyDigest>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn study_events(
        &self,
        _: &str,
        _: &cairn_dicom::Uid,
        _: Vec<cairn_archive::EventId>,
    ) -> Result<AnswerStream<cairn_service_api::digests::FoldedEvent>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn patient_facts(
        &self,
        _: &str,
        _: cairn_service_api::patients::FactsOf,
    ) -> Result<AnswerStream<cairn_service_api::patients::KnownFact>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }

    async fn survey(
        &self,
        _: cairn_service_api::survey::Survey,
    ) -> Result<AnswerStream<cairn_service_api::survey::Surveyed>, Error> {
        Err(Error::new(ErrorKind::Internal, "not asked by this door"))
    }
}

#[async_trait]
impl Retrieval for Archive {
    async fn instances(&self, selection: Selection, _: Part) -> Result<AnswerStream<RetrievedInstance>, Error> {
        let found: Vec<_> = self
            .selected(&selection)
            .into_iter()
            .map(|held| Ok(RetrievedInstance { bytes: self.chunks(&held, held.file.clone()), record: held.record }))
            .collect();
        Ok(Box::pin(stream::iter(found)))
    }

    async fn metadata(&self, selection: Selection) -> Result<AnswerStream<InstanceRecord>, Error> {
        Index::instances(self, selection, Detail::Header).await
    }

    async fn open(&self, record: &InstanceRecord, part: Part) -> Result<AnswerStream<Bytes>, Error> {
        let held = self.of(record)?;
        self.state().ranges.push(part.clone());
        let bytes = match part {
            Part::File => held.file.clone(),
            Part::DataSet => held.file.slice(record.data_set_offset as usize..),
            Part::FileRange(range) => held.file.slice(range.start as usize..range.end as usize),
        };
        Ok(self.chunks(&held, bytes))
    }

    async fn frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        let held = self.of(record)?;
        let none = || Error::new(ErrorKind::NotFound, "the instance has no such frame");
        let data_set = held.file.slice(record.data_set_offset as usize..);
        let mut frames = Vec::new();
        for number in numbers {
            let ranges = held.walked.frames.as_ref().and_then(|table| table.ranges(number - 1)).ok_or_else(none)?;
            let slice = |range: &std::ops::Range<u64>| data_set.slice(range.start as usize..range.end as usize);
            let bytes = match ranges.as_slice() {
                [only] => slice(only),
                several => several.iter().map(slice).collect::<Vec<_>>().concat().into(),
            };
            let length = bytes.len() as u64;
            frames.push(Ok(Frame { number: *number, length, bytes: self.chunks(&held, bytes) }));
        }
        Ok(Box::pin(stream::iter(frames)))
    }

    async fn bulk_data(&self, record: &InstanceRecord, path: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error> {
        let held = self.of(record)?;
        let none = || Error::new(ErrorKind::NotFound, "the instance has no such value");
        let entry = record.bulk_data.iter().find(|entry| entry.path == path).ok_or_else(none)?;
        let start = (record.data_set_offset + entry.offset) as usize;
        let bytes = held.file.slice(start..start + entry.length_bytes as usize);
        Ok((entry.length_bytes, self.chunks(&held, bytes)))
    }
}
