use super::Answers;
use crate::{
    common,
    convert::copied,
    error::{malformed, to_status},
    log_proto::{self as pb, Start, event_log_service_server::EventLogService},
    streams::filled_by,
};
use cairn_archive::{Envelope, KeyId, Offset, Partition};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{EventLog, HandedKey, KeyRing, LogRecord, StoreError};
use futures_util::{
    StreamExt,
    future::{join_all, try_join_all},
};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc::Sender;
use tonic::{Request, Response, Status, async_trait};

/// A log as it is served.
pub struct ServedLog {
    /// What of events is sealed is opened.
    pub opened: Arc<dyn EventLog>,
    /// Events as they are stored.
    pub stored: Arc<dyn EventLog>,
    /// What they are sealed under; `None`: there is no key store here.
    pub keys: Option<Arc<KeyRing>>,
}

/// A log that is there once it is opened.
pub type LateLog = Arc<OnceLock<ServedLog>>;

/// Serves the reading half of an [`EventLog`].
pub struct EventLogServer(pub(super) LateLog);

/// Records and payload bytes per read of the log.
const READ_RECORDS: usize = 256;
const READ_BYTES: usize = 1024 * 1024;

fn store_status(error: StoreError) -> Status {
    to_status(error.into())
}

impl EventLogServer {
    fn log(&self) -> Result<&ServedLog, Status> {
        self.0.get().ok_or_else(|| to_status(Error::new(ErrorKind::Unavailable, "the log is starting")))
    }

    async fn starts(log: &dyn EventLog, request: &pb::ReadRequest) -> Result<Vec<(Partition, Offset)>, Status> {
        let wanted = request.partitions.iter().map(|p| u16::try_from(*p).ok().filter(|p| *p < log.partitions()));
        let mut partitions = wanted.collect::<Option<Vec<u16>>>().ok_or_else(|| to_status(malformed("partition")))?;
        if partitions.is_empty() {
            partitions = (0..log.partitions()).collect();
        }
        let mut starts = Vec::with_capacity(partitions.len());
        for partition in partitions.into_iter().map(Partition) {
            let offset = match Start::try_from(request.start) {
                Ok(Start::Beginning) => Offset(0),
                Ok(Start::End) => log.end(partition).await.map_err(store_status)?,
                Ok(Start::Time) => log.offset_at(partition, request.time_ms).await.map_err(store_status)?,
                Ok(Start::Offset) => Offset(request.offset),
                Ok(Start::Unspecified) | Err(_) => return Err(to_status(malformed("start"))),
            };
            starts.push((partition, offset));
        }
        Ok(starts)
    }

    fn message(log: &dyn EventLog, partition: Partition, record: LogRecord) -> pb::ReadResponse {
        let headers = record.record.envelope.to_headers();
        pb::ReadResponse {
            position: Some(common::Position {
                site: log.site().to_string(),
                incarnation: log.lives().at(partition, record.offset).0,
                partition: partition.0.into(),
                offset: record.offset.0,
            }),
            appended_at_ms: record.appended_at_ms,
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            payload: record.record.payload,
        }
    }
}

/// Sends a partition's records from `from` on; ends at the log's end unless following, or when the reader has gone.
async fn send_partition(
    log: Arc<dyn EventLog>,
    partition: Partition,
    mut from: Offset,
    request: Arc<pb::ReadRequest>,
    sender: Sender<Result<pb::ReadResponse, Status>>,
) {
    loop {
        let batch = match log.read(partition, from, READ_RECORDS, READ_BYTES).await {
            Ok(batch) => batch,
            Err(error) => return drop(sender.send(Err(store_status(error))).await),
        };
        let Some(last) = batch.records.last() else {
            if !request.follow {
                return;
            }
            // The end is the offset after the last record: waiting beyond it waits for one more.
            if let Err(error) = log.wait_beyond(partition, batch.end.max(from)).await {
                return drop(sender.send(Err(store_status(error))).await);
            }
            continue;
        };
        from = last.offset.next();
        for record in batch.records {
            if !is_wanted(&record.record.envelope, &request) {
                continue;
            }
            if sender.send(Ok(EventLogServer::message(&*log, partition, record))).await.is_err() {
                return;
            }
        }
    }
}

/// Whether an event is of those that were asked for.
fn is_wanted(envelope: &Envelope, request: &pb::ReadRequest) -> bool {
    let pb::ReadRequest { study_instance_uid: study, types, correlation_id: belongs_to, .. } = request;
    (study.is_empty() || envelope.study_instance_uid == *study)
        && (types.is_empty() || types.iter().any(|kind| *kind == envelope.kind))
        && (belongs_to.is_empty() || envelope.correlation_id.as_ref() == Some(belongs_to))
}

#[async_trait]
impl EventLogService for EventLogServer {
    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        let log = &self.log()?.stored;
        let ends = try_join_all((0..log.partitions()).map(|partition| log.end(Partition(partition)))).await;
        let position = |(partition, end): (u32, Offset)| common::Position {
            site: log.site().to_string(),
            incarnation: log.incarnation().0,
            partition,
            offset: end.0,
        };
        let ends = (0..).zip(ends.map_err(store_status)?).map(position).collect();
        Ok(Response::new(pb::DescribeResponse {
            site: log.site().to_string(),
            incarnation: log.incarnation().0,
            partitions: log.partitions().into(),
            end: Some(common::PositionVector { ends }),
        }))
    }

    type ReadStream = Answers<pb::ReadResponse>;

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = Arc::new(request.into_inner());
        let (served, limit) = (self.log()?, request.limit);
        let log = if request.as_stored { &served.stored } else { &served.opened };
        let log = log.clone();
        let starts = Self::starts(&*log, &request).await?;
        let sent = filled_by(to_status, |sender| async move {
            let partitions = starts
                .into_iter()
                .map(|(partition, from)| send_partition(log.clone(), partition, from, request.clone(), sender.clone()));
            join_all(partitions).await;
        });
        Ok(Response::new(match limit {
            0 => Box::pin(sent),
            limit => Box::pin(sent.take(usize::try_from(limit).unwrap_or(usize::MAX))),
        }))
    }

    async fn keys(&self, request: Request<pb::KeysRequest>) -> Result<Response<pb::KeysResponse>, Status> {
        let none = || to_status(Error::new(ErrorKind::NotFound, "there is no key store here"));
        let keys = self.log()?.keys.as_ref().ok_or_else(none)?;
        let ids = request.get_ref().ids.iter().map(|id| KeyId::from_slice(id));
        let ids: Vec<KeyId> = ids.collect::<Result<_, _>>().map_err(|_| to_status(malformed("key id")))?;
        let handed = keys.hand(ids).await.map_err(store_status)?;
        let key = |HandedKey { id, bytes }: HandedKey| pb::Key {
            id: copied(id.as_bytes()),
            bytes: bytes.map(|bytes| copied(&bytes.0)).unwrap_or_default(),
        };
        Ok(Response::new(pb::KeysResponse { keys: handed.into_iter().map(key).collect() }))
    }
}
