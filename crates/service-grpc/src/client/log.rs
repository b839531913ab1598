use super::{Connection, Wire, answers};
use crate::{
    convert::{copied, handed_key, position_from, vector_from},
    error::{from_status, malformed},
    log_proto::{self as pb, Start, event_log_service_client::EventLogServiceClient},
};
use cairn_archive::{Incarnation, KeyId, Offset, Partition, PositionVector, SiteId, envelope::Envelope};
use cairn_service_api::{AnswerStream, Error};
use cairn_store_api::{HandedKey, LogRecord, Record};

/// What a log is, and how far it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct LogDescription {
    /// Site whose log it is.
    pub site: SiteId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Number of partitions.
    pub partitions: u16,
    /// First offset of each that is not there yet.
    pub end: PositionVector,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// With this offset.
    Offset(Offset),
    /// With the first record taken at this time or later, in milliseconds since the Unix epoch.
    Time(u64),
}

/// The reading half of an event log somewhere else.
#[derive(Clone)]
pub struct LogClient(EventLogServiceClient<Wire>);

impl LogClient {
    /// Reads at the first address of `connection`.
    ///
    /// # Errors
    /// `Invalid` when the address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        Ok(Self(connection.event_log()?))
    }

    /// What the log is, and how far it goes.
    ///
    /// # Errors
    /// `Unavailable`
    pub async fn describe(&self) -> Result<LogDescription, Error> {
        let described = self.0.clone().describe(pb::DescribeRequest {}).await.map_err(from_status)?.into_inner();
        Ok(LogDescription {
            site: described.site.parse().map_err(|_| malformed("site"))?,
            incarnation: Incarnation(described.incarnation),
            partitions: u16::try_from(described.partitions).map_err(|_| malformed("partitions"))?,
            end: vector_from(described.end.ok_or_else(|| malformed("end"))?)?,
        })
    }

    /// The records of a partition in order, up to its end. Each has its origin, those that became facts here too.
    ///
    /// # Errors
    /// `Unavailable`
    pub async fn read(&self, partition: Partition, from: ReadFrom) -> Result<AnswerStream<LogRecord>, Error> {
        self.records(partition, from, false).await
    }

    /// The same as they are stored: what of them is sealed, stays so.
    ///
    /// # Errors
    /// `Unavailable`
    pub async fn read_as_stored(&self, partition: Partition, from: ReadFrom) -> Result<AnswerStream<LogRecord>, Error> {
        self.records(partition, from, true).await
    }

    /// Keys that events are sealed under.
    ///
    /// # Errors
    /// `NotFound`: one is not there. `Unavailable`
    pub async fn keys(&self, ids: &[KeyId]) -> Result<Vec<HandedKey>, Error> {
        let ids = ids.iter().map(|id| copied(id.as_bytes())).collect();
        let keys = self.0.clone().keys(pb::KeysRequest { ids }).await.map_err(from_status)?.into_inner().keys;
        keys.iter().map(|key| handed_key(&key.id, &key.bytes)).collect()
    }

    async fn records(
        &self,
        partition: Partition,
        from: ReadFrom,
        as_stored: bool,
    ) -> Result<AnswerStream<LogRecord>, Error> {
        let (start, time_ms, offset) = match from {
            ReadFrom::Offset(offset) => (Start::Offset, 0, offset.0),
            ReadFrom::Time(time_ms) => (Start::Time, time_ms, 0),
        };
        let partitions = vec![partition.0.into()];
        let request = pb::ReadRequest {
            partitions,
            start: start.into(),
            time_ms,
            offset,
            as_stored,
            ..pb::ReadRequest::default()
        };
        let records = self.0.clone().read(request).await.map_err(from_status)?.into_inner();
        Ok(answers(records, record))
    }
}

fn record(read: pb::ReadResponse) -> Result<LogRecord, Error> {
    let position = position_from(read.position.ok_or_else(|| malformed("position"))?)?;
    let envelope = Envelope::from_headers(|name| read.headers.get(name).map(String::as_str));
    let mut envelope = envelope.map_err(|_| malformed("envelope"))?;
    let offset = position.offset;
    envelope.origin.get_or_insert(position);
    Ok(LogRecord { offset, appended_at_ms: read.appended_at_ms, record: Record { envelope, payload: read.payload } })
}
