//! The service: what doors call.

use crate::{
    ahead::{Opening, range_of, read_ahead},
    byte_order::{self, StoredValue},
    config::RetrievalConfig,
    corrected::corrected,
    derived::pixel_entry,
    frames::{Planned, bad_table, plan},
    metrics, read,
    recall::Recaller,
    report::Reporter,
    side::SideCache,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::events::BulkDataEntry;
use cairn_dicom::TransferSyntax;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Lifecycle, Retrieval, Tiering,
    index::{Detail, InstanceRecord, Selection},
    retrieval::{Frame, Part, RetrievedInstance},
};
use cairn_store_api::ObjectStore;
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The retrieval service. Cloning is cheap; all clones are one service.
#[derive(Clone)]
pub struct RetrievalService(Arc<Service>);

pub(crate) struct Service {
    pub(crate) index: Arc<dyn Index>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) config: RetrievalConfig,
    pub(crate) sides: SideCache,
    /// Room for what all retrievals read ahead, in bytes.
    pub(crate) shared_room: Arc<Semaphore>,
    /// Who is told of objects that can't be read.
    reporter: Option<Reporter>,
    /// Who is asked to recall what is cold.
    recaller: Option<Recaller>,
}

/// Who is told of what could not be read, or should be nearer.
#[derive(Default)]
pub struct Told {
    /// Of objects that are damaged or gone.
    pub lifecycle: Option<Arc<dyn Lifecycle>>,
    /// Of studies that are cold.
    pub tiering: Option<Arc<dyn Tiering>>,
    /// Whose instances.
    pub tenant: String,
    /// Whether whatever is cold and read is asked to be recalled; else what can't be read.
    pub recall_on_read: bool,
}

impl RetrievalService {
    /// A service over an index and an object store.
    pub fn new(index: Arc<dyn Index>, objects: Arc<dyn ObjectStore>, config: RetrievalConfig) -> Self {
        Self::telling(Told::default(), index, objects, config)
    }

    /// The same, with somebody to be told of what can't be read.
    pub fn telling(told: Told, index: Arc<dyn Index>, objects: Arc<dyn ObjectStore>, config: RetrievalConfig) -> Self {
        let Told { lifecycle, tiering, tenant, recall_on_read } = told;
        let recaller = tiering.map(|tiering| Recaller::new(tiering, tenant.clone(), recall_on_read));
        let reporter = lifecycle.map(|lifecycle| Reporter::new(lifecycle, tenant));
        let shared_room = usize::try_from(config.read_ahead_shared_bytes).unwrap_or(usize::MAX);
        let shared_room = Arc::new(Semaphore::new(shared_room.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Service { index, objects, config, sides: SideCache::default(), shared_room, reporter, recaller }))
    }

    /// An instance's bytes, with whoever is to be told when they can't be read.
    fn watched(&self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> AnswerStream<Bytes> {
        let bytes = match &self.0.reporter {
            Some(reporter) => reporter.watch(record, bytes),
            None => bytes,
        };
        match &self.0.recaller {
            Some(recaller) => recaller.watch(record, bytes),
            None => bytes,
        }
    }

    /// The same where it shows before any byte.
    fn told<T>(&self, record: &InstanceRecord, opened: Result<T, Error>) -> Result<T, Error> {
        if let (Some(reporter), Err(error)) = (&self.0.reporter, &opened)
            && error.kind == ErrorKind::Corrupt
        {
            reporter.tell(record);
        }
        if let (Some(recaller), Err(error)) = (&self.0.recaller, &opened) {
            recaller.could_not(record, error.kind);
        }
        opened
    }
}

#[async_trait]
impl Retrieval for RetrievalService {
    #[tracing::instrument(name = "retrieval.instances", skip_all)]
    async fn instances(&self, selection: Selection, part: Part) -> Result<AnswerStream<RetrievedInstance>, Error> {
        let records = self.0.index.instances(selection, Detail::Tables).await?;
        let service = self.0.clone();
        let records = records.then(move |record| {
            let service = service.clone();
            async move {
                let mut record = record?;
                metrics::opened("instance", record.object.length);
                // The bytes can be given without the tables; what is wrong with these was logged.
                let _ = service.complete(&mut record, false).await;
                let corrected = corrected(service.objects.as_ref(), &record).await;
                let length = corrected.as_ref().ok().and_then(Option::as_ref).map(|corrected| corrected.length);
                record.corrected_length = length;
                Ok(Opening { record, corrected })
            }
        });
        let shared = self.0.shared_room.clone();
        let instances = read_ahead(self.0.objects.clone(), records.boxed(), part, shared, &self.0.config);
        let watching = self.clone();
        let watched = instances.map(move |instance| {
            let RetrievedInstance { record, bytes } = instance?;
            let bytes = watching.watched(&record, bytes);
            Ok(RetrievedInstance { record, bytes })
        });
        Ok(watched.boxed())
    }

    #[tracing::instrument(name = "retrieval.metadata", skip_all)]
    async fn metadata(&self, selection: Selection) -> Result<AnswerStream<InstanceRecord>, Error> {
        let records = self.0.index.instances(selection, Detail::Header).await?;
        let service = self.0.clone();
        let records = records.then(move |record| {
            let service = service.clone();
            async move {
                let mut record = record?;
                service.complete(&mut record, true).await?;
                Ok(record)
            }
        });
        Ok(records.boxed())
    }

    #[tracing::instrument(name = "retrieval.open", skip_all)]
    async fn open(&self, record: &InstanceRecord, part: Part) -> Result<AnswerStream<Bytes>, Error> {
        let corrected = self.told(record, corrected(self.0.objects.as_ref(), record).await)?;
        if let Some(corrected) = corrected {
            let range = corrected.range_of(&part)?;
            metrics::opened("instance", range.end - range.start);
            return Ok(self.watched(record, corrected.open(self.0.objects.clone(), range)));
        }
        let range = range_of(record.object.length, record.data_set_offset, &part)?;
        metrics::opened("instance", range.end - range.start);
        let opened = read::open(self.0.objects.as_ref(), &record.object, range).await;
        Ok(self.watched(record, self.told(record, opened)?))
    }

    #[tracing::instrument(name = "retrieval.frames", skip_all)]
    async fn frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        let frames = self.told(record, self.unwatched_frames(record, numbers).await)?;
        let (watching, record) = (self.clone(), record.clone());
        let watched = frames.map(move |frame| {
            let frame = frame?;
            Ok(Frame { bytes: watching.watched(&record, frame.bytes), ..frame })
        });
        Ok(watched.boxed())
    }

    #[tracing::instrument(name = "retrieval.bulk-data", skip_all)]
    async fn bulk_data(&self, record: &InstanceRecord, path: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error> {
        let find = |entries: &[BulkDataEntry]| entries.iter().find(|entry| entry.path == path).cloned();
        let entry = match (find(&record.bulk_data), &record.side_object) {
            (Some(entry), _) => Some(entry),
            (None, Some(object)) => find(&self.0.side(object).await?.bulk_data),
            (None, None) => None,
        };
        let none = || Error::new(ErrorKind::NotFound, "instance has no bulk data under this path");
        let entry = entry.ok_or_else(none)?;
        let outside = || Error::new(ErrorKind::Internal, "bulk data table of the instance contradicts itself");
        let end = entry.offset.checked_add(entry.length_bytes).ok_or_else(outside)?;
        metrics::opened("bulk-data", entry.length_bytes);
        if TransferSyntax::from(&record.transfer_syntax_uid).encoding.is_deflated() {
            return Ok((entry.length_bytes, self.0.inflated(record).stream(entry.offset..end)));
        }
        let start = record.data_set_offset.checked_add(entry.offset).ok_or_else(outside)?;
        let end = record.data_set_offset.checked_add(end).ok_or_else(outside)?;
        let unit = byte_order::unit_of(record, &entry);
        if unit > 1 {
            let value = StoredValue { range: start..end, unit };
            return Ok((
                entry.length_bytes,
                byte_order::open_later(self.0.objects.clone(), record.object, &value, start..end),
            ));
        }
        let opened = read::open(self.0.objects.as_ref(), &record.object, start..end).await;
        Ok((entry.length_bytes, self.watched(record, self.told(record, opened)?)))
    }
}

impl RetrievalService {
    async fn unwatched_frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        let mut record = record.clone();
        self.0.complete(&mut record, false).await?;
        let none = || Error::new(ErrorKind::NotFound, "instance has no frames");
        let planned = plan(record.frame_table.as_ref().ok_or_else(none)?, numbers, record.data_set_offset)?;
        match planned {
            Some(planned) => {
                let stored = turned_pixels(&record)?;
                metrics::opened("frames", planned.iter().map(Planned::length).sum());
                match stored {
                    Turned::No => Ok(self.0.clone().planned_frames(record.object, planned)),
                    Turned::Value(value) => Ok(self.0.clone().turned_frames(record.object, planned, value)),
                    // The header has it, in little endian.
                    Turned::InHeader => self.0.clone().derived_frames(record, numbers).await,
                }
            }
            None => self.0.clone().derived_frames(record, numbers).await,
        }
    }
}

/// Whether frames are to be turned round.
enum Turned {
    No,
    Value(StoredValue),
    InHeader,
}

fn turned_pixels(record: &InstanceRecord) -> Result<Turned, Error> {
    let Some(entry) = pixel_entry(record) else {
        let big = TransferSyntax::from(&record.transfer_syntax_uid).encoding.is_big_endian();
        return Ok(if big { Turned::InHeader } else { Turned::No });
    };
    let unit = byte_order::unit_of(record, entry);
    if unit <= 1 {
        return Ok(Turned::No);
    }
    let start = record.data_set_offset.checked_add(entry.offset).ok_or_else(bad_table)?;
    let end = start.checked_add(entry.length_bytes).ok_or_else(bad_table)?;
    Ok(Turned::Value(StoredValue { range: start..end, unit }))
}
