//! An archive in memory to retrieve from.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, ObjectKey, PositionVector,
    events::{
        BulkDataEntry, FragmentedFrames, FrameTable, InstanceProtected, InstanceStoredSide, NativeFrames,
        frame_table::Layout,
    },
};
use cairn_dicom::{Tag, TransferSyntax, Vr, WalkLimits, dataset::DataSet, tags, walk};
use cairn_retrieval::{RetrievalConfig, RetrievalService, Told};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index,
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
};
use cairn_store_api::{
    ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace,
};
use futures_util::TryStreamExt;
use prost::Message;
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const JPEG: &str = "1.2.840.10008.1.2.4.50";
/// Where a data set begins in an object of these tests.
const DATA_SET_OFFSET: usize = 200;
const GROUP: u64 = 64 << 10;

/// Objects in memory.
#[derive(Default)]
pub(crate) struct Objects {
    held: Mutex<BTreeMap<ObjectKey, (Bytes, Digest)>>,
    damaged: Mutex<Vec<(ObjectKey, u64)>>,
    /// Whether they can't be reached.
    pub(crate) are_away: AtomicBool,
    /// Bytes that were verified to serve what was read: whole groups.
    pub(crate) bytes_read: AtomicU64,
    /// Bytes handed out and not yet dropped are not known here; reads under way are.
    pub(crate) reads: AtomicU64,
}

impl Objects {
    pub(crate) fn add(&self, bytes: Vec<u8>) -> ObjectRef {
        let mut held = self.held.lock().expect("not poisoned");
        let key = ObjectKey(uuid::Uuid::from_u128(held.len() as u128 + 1));
        let object = ObjectRef { key, length: bytes.len() as u64, digest: Digest(*blake3::hash(&bytes).as_bytes()) };
        held.insert(key, (bytes.into(), object.digest));
        object
    }

    /// Makes reads of the group around this byte fail.
    pub(crate) fn damage(&self, key: ObjectKey, offset: u64) {
        self.damaged.lock().expect("not poisoned").push((key, offset / GROUP));
    }

    pub(crate) fn remove(&self, key: ObjectKey) {
        self.held.lock().expect("not poisoned").remove(&key);
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put(&self, _: ObjectKey, _: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "retrieval writes nothing"))
    }

    async fn repair(&self, _: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "retrieval writes nothing"))
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
        if self.are_away.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the cold object store is away"));
        }
        let held = self.held.lock().expect("not poisoned");
        let (bytes, digest) = held
            .get(&object.key)
            .cloned()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "no such object"))?;
        if digest != object.digest || range.start > range.end || range.end > bytes.len() as u64 {
            return Err(StoreError::new(StoreErrorKind::Invalid, "not what is stored"));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut chunks = Vec::new();
        let mut at = range.start;
        let damaged = self.damaged.lock().expect("not poisoned").clone();
        while at < range.end {
            let group = at / GROUP;
            let end = ((group + 1) * GROUP).min(range.end);
            self.bytes_read.fetch_add(GROUP.min(bytes.len() as u64 - group * GROUP), Ordering::Relaxed);
            if damaged.contains(&(object.key, group)) {
                chunks.push(Err(StoreError::new(StoreErrorKind::Corrupt, "bytes are not what was stored")));
                break;
            }
            chunks.push(Ok(bytes.slice(at as usize..end as usize)));
            at = end;
        }
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }

    async fn stat(&self, _: ObjectKey) -> Result<ObjectInfo, StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "not asked in these tests"))
    }

    async fn list(&self, _: Option<ObjectKey>, _: usize) -> Result<ObjectPage, StoreError> {
        Ok(ObjectPage::default())
    }

    async fn delete(&self, _: ObjectKey) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::Internal, "retrieval removes nothing"))
    }

    async fn space(&self) -> Result<StoreSpace, StoreError> {
        Ok(StoreSpace { available: None, used: 0 })
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// An index that has what it was given.
#[derive(Default)]
pub(crate) struct Records(pub(crate) Mutex<Vec<InstanceRecord>>);

fn not_asked<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Internal, "not asked in these tests"))
}

#[async_trait]
impl Index for Records {
    async fn query(&self, _: Query) -> Result<AnswerStream<DataSet>, Error> {
        not_asked()
    }

    async fn instances(&self, selection: Selection, detail: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        let mut records = self.0.lock().expect("not poisoned").clone();
        records.retain(|r| selection.instances.is_empty() || selection.instances.contains(&r.sop_instance_uid));
        for record in &mut records {
            if detail != Detail::Header {
                record.header = Bytes::new();
            }
        }
        Ok(Box::pin(futures_util::stream::iter(records.into_iter().map(Ok))))
    }

    async fn wait_for(&self, _: &PositionVector, _: Duration) -> Result<(), Error> {
        not_asked()
    }

    async fn conflicts(&self, _: &str, _: bool) -> Result<AnswerStream<Conflict>, Error> {
        not_asked()
    }

    async fn parked(
        &self,
        _: cairn_service_api::parked::ParkedSelection,
    ) -> Result<AnswerStream<cairn_service_api::parked::ParkedEvent>, Error> {
        not_asked()
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        not_asked()
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        not_asked()
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        not_asked()
    }

    async fn manage(&self, _: Change) -> Result<Changed, Error> {
        not_asked()
    }

    async fn diff(&self, _: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        not_asked()
    }

    async fn digest_tree(&self) -> Result<cairn_service_api::digests::DigestTree, Error> {
        not_asked()
    }

    async fn study_digests(
        &self,
        _: &str,
        _: cairn_service_api::digests::Of,
    ) -> Result<AnswerStream<cairn_service_api::digests::StudyDigest>, Error> {
        not_asked()
    }

    async fn study_events(
        &self,
        _: &str,
        _: &cairn_dicom::Uid,
        _: Vec<cairn_archive::EventId>,
    ) -> Result<AnswerStream<cairn_service_api::digests::FoldedEvent>, Error> {
        not_asked()
    }

    async fn patient_facts(
        &self,
        _: &str,
        _: cairn_service_api::patients::FactsOf,
    ) -> Result<AnswerStream<cairn_service_api::patients::KnownFact>, Error> {
        not_asked()
    }

    async fn survey(
        &self,
        _: cairn_service_api::survey::Survey,
    ) -> Result<AnswerStream<cairn_service_api::survey::Surveyed>, Error> {
        not_asked()
    }
}

#[derive(Default)]
pub(crate) struct Archive {
    pub(crate) objects: Arc<Objects>,
    pub(crate) records: Arc<Records>,
}

impl Archive {
    pub(crate) fn service(&self) -> RetrievalService {
        self.configured(RetrievalConfig::default())
    }

    pub(crate) fn configured(&self, config: RetrievalConfig) -> RetrievalService {
        RetrievalService::new(self.records.clone(), self.objects.clone(), config)
    }

    /// With somebody to be told.
    pub(crate) fn telling(&self, told: Told) -> RetrievalService {
        RetrievalService::telling(told, self.records.clone(), self.objects.clone(), RetrievalConfig::default())
    }

    /// Says that an instance was moved to the cold store.
    pub(crate) fn cool(&self, record: &InstanceRecord) -> InstanceRecord {
        let mut records = self.records.0.lock().expect("not poisoned");
        let same = |other: &&mut InstanceRecord| other.sop_instance_uid == record.sop_instance_uid;
        let cooled = records.iter_mut().find(same).expect("there");
        cooled.is_cold = true;
        cooled.clone()
    }

    /// Puts a data set there as ingest does; gives its record with tables and header.
    pub(crate) fn add(&self, transfer_syntax_uid: &str, data_set: &[u8]) -> InstanceRecord {
        let mut file = vec![0; DATA_SET_OFFSET];
        file.extend_from_slice(data_set);
        let object = self.objects.add(file);
        let uid: cairn_dicom::Uid = transfer_syntax_uid.parse().expect("a UID");
        let walked = walk(data_set, &TransferSyntax::from(&uid), WalkLimits::default()).expect("walks");
        let identity = walked.identity().expect("identifiers");
        let bulk = walked.bulk.iter().map(|entry| BulkDataEntry {
            path: entry.path.to_vec(),
            vr: u32::from(u16::from_be_bytes(entry.vr.as_str().as_bytes().try_into().expect("two letters"))),
            offset: entry.offset,
            length_bytes: entry.length,
            encapsulated: entry.encapsulated,
        });
        let record = InstanceRecord {
            study_instance_uid: identity.study_instance_uid,
            series_instance_uid: identity.series_instance_uid,
            sop_instance_uid: identity.sop_instance_uid,
            sop_class_uid: identity.sop_class_uid,
            transfer_syntax_uid: uid,
            store_event: EventId(uuid::Uuid::from_u128(1)),
            object,
            data_set_offset: DATA_SET_OFFSET as u64,
            pixel_data_offset: walked.pixel_data.map_or(0, |data| data.offset + DATA_SET_OFFSET as u64),
            shown: true,
            rejected: Default::default(),
            damaged: false,
            is_to_be_erased: false,
            is_cold: false,
            corrections: Vec::new(),
            corrected_length: None,
            frames: walked.frames.as_ref().map_or(0, cairn_dicom::FrameTable::frames),
            frame_table: walked.frames.as_ref().map(table),
            bulk_data: bulk.collect(),
            header: walked.header.into(),
            side_object: None,
            default_character_set: String::new(),
            issuer_of_patient_id: String::new(),
        };
        self.records.0.lock().expect("not poisoned").push(record.clone());
        record
    }

    /// Moves header and tables of a record to a side object.
    pub(crate) fn move_aside(&self, record: &InstanceRecord) -> InstanceRecord {
        let side = InstanceStoredSide {
            protected: Some(InstanceProtected { header: record.header.clone(), extractor_version: 1 }),
            frame_table: record.frame_table.clone(),
            bulk_data: record.bulk_data.clone(),
        };
        let mut moved = record.clone();
        moved.side_object = Some(self.objects.add(side.encode_to_vec()));
        (moved.header, moved.frame_table, moved.bulk_data) = (Bytes::new(), None, Vec::new());
        let mut records = self.records.0.lock().expect("not poisoned");
        let same = |other: &&mut InstanceRecord| other.sop_instance_uid == record.sop_instance_uid;
        *records.iter_mut().find(same).expect("there") = moved.clone();
        moved
    }
}

fn table(frames: &cairn_dicom::FrameTable) -> FrameTable {
    let layout = match frames {
        cairn_dicom::FrameTable::Native { first_offset, frame_length, frames } => Layout::Native(NativeFrames {
            first_offset: *first_offset,
            frame_length_bytes: *frame_length,
            frames: *frames,
        }),
        cairn_dicom::FrameTable::Fragmented(fragmented) => {
            let mut made = FragmentedFrames { range_ends: fragmented.ends().collect(), ..FragmentedFrames::default() };
            let mut end = 0;
            for range in fragmented.ranges() {
                made.range_start_gaps.push(range.start - end);
                made.range_lengths.push(range.end - range.start);
                end = range.end;
            }
            Layout::Fragmented(made)
        }
        cairn_dicom::FrameTable::Derived { frames } => Layout::DerivedFrames(*frames),
    };
    FrameTable { layout: Some(layout) }
}

/// A multi-frame image.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) instance: String,
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) bits_allocated: u16,
    pub(crate) frames: u32,
}

impl Default for Image {
    fn default() -> Self {
        Self { instance: "1.2.3.4.5".into(), rows: 16, columns: 16, bits_allocated: 8, frames: 3 }
    }
}

pub(crate) fn element(out: &mut Vec<u8>, big: bool, tag: Tag, vr: Vr, length: Option<u32>, value: &[u8]) {
    let ordered = |bytes: &[u8]| if big { bytes.iter().rev().copied().collect() } else { bytes.to_vec() };
    out.extend(ordered(&tag.group().to_le_bytes()));
    out.extend(ordered(&tag.element().to_le_bytes()));
    let length = length.unwrap_or((value.len() + value.len() % 2) as u32);
    if tag.group() != 0xFFFE {
        out.extend(vr.as_str().as_bytes());
    }
    if tag.group() == 0xFFFE {
        out.extend(ordered(&length.to_le_bytes()));
    } else if vr.has_long_length() {
        out.extend([0, 0]);
        out.extend(ordered(&length.to_le_bytes()));
    } else {
        out.extend(ordered(&(length as u16).to_le_bytes()));
    }
    out.extend(value);
    out.resize(out.len() + value.len() % 2, if vr.is_text() && vr != Vr::UI { b' ' } else { 0 });
}

impl Image {
    fn header(&self, big: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut add = |tag, vr, value: &[u8]| element(&mut out, big, tag, vr, None, value);
        add(tags::SOP_CLASS_UID, Vr::UI, b"1.2.840.10008.5.1.4.1.1.7");
        add(tags::SOP_INSTANCE_UID, Vr::UI, self.instance.as_bytes());
        add(tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2.3");
        add(tags::SERIES_INSTANCE_UID, Vr::UI, b"1.2.3.4");
        add(tags::SAMPLES_PER_PIXEL, Vr::US, &number(1));
        add(tags::NUMBER_OF_FRAMES, Vr::IS, self.frames.to_string().as_bytes());
        add(tags::ROWS, Vr::US, &number(self.rows));
        add(tags::COLUMNS, Vr::US, &number(self.columns));
        add(tags::BITS_ALLOCATED, Vr::US, &number(self.bits_allocated));
        out
    }

    /// Pixels of all frames, every byte another.
    pub(crate) fn pixels(&self) -> Vec<u8> {
        let bits = u64::from(self.rows) * u64::from(self.columns) * u64::from(self.bits_allocated);
        let bytes = (bits * u64::from(self.frames)).div_ceil(8);
        (0..bytes).map(|n| (n.wrapping_mul(167) ^ (n >> 8)) as u8).collect()
    }

    pub(crate) fn native(&self) -> Vec<u8> {
        let mut out = self.header(false);
        let vr = if self.bits_allocated > 8 { Vr::OW } else { Vr::OB };
        element(&mut out, false, tags::PIXEL_DATA, vr, None, &self.pixels());
        out
    }

    /// OW also for pixels of eight bits, two to a word; OB for those of one bit.
    fn big_endian_vr(&self) -> Vr {
        if self.bits_allocated > 1 { Vr::OW } else { Vr::OB }
    }

    pub(crate) fn big_endian(&self) -> Vec<u8> {
        let mut out = self.header(true);
        let (vr, mut pixels) = (self.big_endian_vr(), self.pixels());
        pixels.resize(pixels.len() + pixels.len() % 2, 0);
        pixels.chunks_exact_mut(vr.unit_bytes()).for_each(<[u8]>::reverse);
        element(&mut out, true, tags::PIXEL_DATA, vr, None, &pixels);
        out
    }

    pub(crate) fn deflated(&self) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&self.native()).expect("to memory");
        encoder.finish().expect("to memory")
    }

    /// Encapsulated: each frame in so many fragments, with a Basic Offset Table.
    pub(crate) fn encapsulated(&self, frames: &[Vec<&[u8]>]) -> Vec<u8> {
        let mut out = self.header(false);
        let item = Tag::new(0xFFFE, 0xE000);
        let (mut offsets, mut fragments) = (Vec::new(), Vec::new());
        for frame in frames {
            offsets.extend((fragments.len() as u32).to_le_bytes());
            frame.iter().for_each(|fragment| element(&mut fragments, false, item, Vr::UN, None, fragment));
        }
        element(&mut out, false, tags::PIXEL_DATA, Vr::OB, Some(u32::MAX), &[]);
        element(&mut out, false, item, Vr::UN, None, &offsets);
        out.extend(fragments);
        element(&mut out, false, Tag::new(0xFFFE, 0xE0DD), Vr::UN, None, &[]);
        out
    }
}

/// All bytes of a stream, or the error that ended it.
pub(crate) async fn collect(bytes: AnswerStream<Bytes>) -> Result<Vec<u8>, Error> {
    Ok(bytes.try_collect::<Vec<_>>().await?.concat())
}
