use crate::{Lives, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition, SiteId, envelope::Envelope};

/// An event as it is appended: envelope and payload bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// CloudEvents attributes.
    pub envelope: Envelope,
    /// Encoded event; opaque to the log.
    pub payload: Bytes,
}

/// An event as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Place in the partition.
    pub offset: Offset,
    /// When this log took it, in milliseconds since the Unix epoch by the site's clock.
    pub appended_at_ms: u64,
    /// The event. Its bytes are as appended, also when this build can't decode them.
    pub record: Record,
}

/// Consecutive records of one partition.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// Records in offset order without gaps, beginning at the offset asked for.
    pub records: Vec<LogRecord>,
    /// First offset that is not durable yet, when the batch was read.
    pub end: Offset,
}

/// Append-only log of events in a fixed number of partitions.
///
/// * EL-01 When `append` returns, the records are durable: they survive a crash of process and machine.
/// * EL-02 Records of one append are adjacent, in order; records of one partition are read in the order appended.
/// * EL-03 A reader or tailer sees a record only after it is durable.
/// * EL-04 Offsets of a partition begin at 0 and have no gaps; a read from offset P begins with the record at P.
/// * EL-05 A failed append leaves none of its records readable, or (outcome unknown) all or a prefix of them; never a torn one.
/// * EL-06 Bytes, envelope and offset read are those appended, for ever; nothing expires.
/// * EL-07 `append` of a record over `record_bytes_max`, or to a partition that does not exist, is `Invalid` and changes nothing.
/// * EL-08 Appends by many callers share syncs; one caller's failure is no other's.
/// * EL-09 `offset_at` gives the first offset whose local append time is at or after the time asked for; append times never decrease within a partition.
/// * EL-10 `wait_beyond` returns once the end is past the offset given, and not before; dropping it has no effect.
/// * EL-11 Reopened, a log has the partitions, site and incarnation it was created with; opening it with another partition count or site is `Invalid`.
/// * EL-12 A log that finds its durable records damaged says `Corrupt` and gives none from there on; an unfinished tail is cut silently.
/// * EL-13 While a log is open no second process can open it for writing: `Conflict`.
/// * EL-14 When the disk is full, `append` is `Exhausted`, what was durable stays readable, and appends go on once there is room.
/// * EL-15 After `renew` a log that is opened again has one life more, and is otherwise the same; cut by a crash, or failed, it
///   has the new life whole or not at all. What is `Invalid` changes nothing.
/// * EL-16 `renew` ends the opening, and no opening that does not have the new life appends, or gives anything, once one has it.
/// * EL-17 `beginning` is the first offset that the log itself has: 0, unless what is older was lost beneath it. What stands
///   before it is `NotFound`, or read elsewhere; what stands from there on is given as ever.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Site whose log this is.
    fn site(&self) -> &SiteId;

    /// Its lives. They don't change while it is open: an event without an origin of its own became a fact in the life that
    /// its offset is of.
    fn lives(&self) -> &Lives;

    /// The present life.
    fn incarnation(&self) -> Incarnation {
        self.lives().newest()
    }

    /// Number of partitions, fixed at creation.
    fn partitions(&self) -> u16;

    /// The log below, as it is stored, where this one opens what is sealed: for those who look at envelopes alone, and should not
    /// wait for keys.
    fn below(&self) -> Option<&dyn EventLog> {
        None
    }

    /// Appends records to one partition; gives the offset of the first.
    ///
    /// # Errors
    /// `Exhausted`, `Invalid`: nothing was appended. `Unavailable`: the outcome is unknown; a retry may leave the
    /// records twice, which folds must bear.
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError>;

    /// Reads durable records from `from` on: at least one if there is one, at most `records_max`, and no more once
    /// `bytes_max` of payload are passed. At the end the batch is empty.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError>;

    /// First offset of the partition that is not durable yet.
    async fn end(&self, partition: Partition) -> Result<Offset, StoreError>;

    /// First offset of the partition that the log itself has. Logs whose files are their own have all from 0 on, or don't open.
    async fn beginning(&self, partition: Partition) -> Result<Offset, StoreError> {
        let _ = partition;
        Ok(Offset(0))
    }

    /// Waits until the partition's end is greater than `offset`; gives the end.
    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError>;

    /// First offset appended here at or after `unix_ms`; the end if there is none.
    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError>;

    /// Bytes that the log's files take; `None` when it has none on this machine.
    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Begins a new life at an offset of each partition, durably, and closes this opening. What stands from there on is of
    /// the new life; where its events are already known elsewhere as of the old one, they would be taken for others.
    ///
    /// # Errors
    /// `Invalid`: as [`Lives::renewed`]. `Conflict`: others may have the log open. Any other: the outcome is unknown; the
    /// log says what it is when it is opened again.
    /// # Cancel safety
    /// Dropped, the outcome is unknown.
    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError>;

    /// Stops taking appends, waits for those under way, and closes files.
    async fn close(&self) -> Result<(), StoreError>;
}

/// A log as it is stored: to look at envelopes, for which no keys are needed.
pub fn as_stored(log: &dyn EventLog) -> &dyn EventLog {
    log.below().unwrap_or(log)
}
