//! Reading the log for what is held and what is erased. Whoever decides reads it to its end first, and nobody else decides
//! meanwhile.

use super::known::{Known, concerns};
use crate::{
    append::Appender,
    notes::{Change, Kind, Notes, malformed},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, Incarnation, Offset, Partition, Position, SiteId,
    erasure::VERSIONS_ERASED,
    events::{ErasedSeries, Event},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{EventLog, LogRecord, as_stored};
use futures_util::future::try_join_all;
use prost::Message;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// Records, and bytes of them, that are read at once.
pub(super) const READ_RECORDS: usize = 256;
pub(super) const READ_BYTES: usize = 1 << 20;
/// Notes of erased objects that are written at once.
const ERASED_AT_ONCE: usize = 512;

/// How far a partition was read, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct FollowedNote {
    #[prost(uint64, tag = "1")]
    to: u64,
    /// `ce_id` of the event before it.
    #[prost(bytes = "bytes", tag = "2")]
    last: Bytes,
    /// Events from which something is known.
    #[prost(uint64, repeated, tag = "3")]
    at: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    origins: Vec<OriginNote>,
}

#[derive(Clone, PartialEq, Message)]
struct OriginNote {
    #[prost(string, tag = "1")]
    site: String,
    #[prost(uint32, tag = "2")]
    incarnation: u32,
    #[prost(uint64, tag = "3")]
    end: u64,
}

/// That an object is erased, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct ErasedNote {
    /// `ce_id` of the event that says so.
    #[prost(bytes = "bytes", tag = "1")]
    event: Bytes,
}

/// One partition, as far as it was read.
#[derive(Default)]
struct Followed {
    to: Offset,
    last: Option<EventId>,
    at: Vec<Offset>,
    noted: Offset,
}

/// What is known, and how far the log was read for it.
#[derive(Default)]
pub(crate) struct Read {
    /// Whether it goes on from what was noted down.
    is_resumed: bool,
    pub(crate) known: Known,
    followed: Vec<Followed>,
}

/// Reads the log.
pub(crate) struct Follower {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) appender: Arc<Appender>,
    read: Mutex<Read>,
}

/// The turn to decide: everything that the log had when it began is known, and it can be added to.
pub(crate) struct Turn<'a> {
    follower: &'a Follower,
    read: MutexGuard<'a, Read>,
}

impl Follower {
    pub(crate) fn new(log: Arc<dyn EventLog>, notes: Arc<Notes>, appender: Arc<Appender>) -> Self {
        Self { log, notes, appender, read: Mutex::default() }
    }

    /// Waits until nobody else decides, and reads the log to its end.
    ///
    /// # Errors
    /// The log's, or that of the notes.
    /// # Cancel safety
    /// What was read is known.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Error> {
        let mut read = self.read.lock().await;
        if !read.is_resumed {
            *read = self.resume().await?;
        }
        let mut turn = Turn { follower: self, read };
        turn.read_on().await?;
        Ok(turn)
    }

    /// What was known when it was last noted down, if the log is still the one that was read.
    async fn resume(&self) -> Result<Read, Error> {
        let mut read = Read { is_resumed: true, ..Read::default() };
        for partition in (0..self.log.partitions()).map(Partition) {
            let note = self.notes.get::<FollowedNote>(Kind::Followed, &partition.0.to_be_bytes()).await?;
            let note = note.unwrap_or_default();
            let mut followed = Followed::default();
            if note.to > 0 && self.is_before(partition, Offset(note.to), &note.last).await? {
                for offset in note.at.into_iter().map(Offset) {
                    let batch = as_stored(&*self.log).read(partition, offset, 1, 1).await?;
                    batch
                        .records
                        .iter()
                        .for_each(|record| read.known.include(partition, record, &self.origin(partition, record)));
                    followed.at.push(offset);
                }
                for OriginNote { site, incarnation, end } in note.origins {
                    let site: SiteId = site.parse().map_err(|_| malformed())?;
                    read.known.held.0.insert((site, Incarnation(incarnation), partition), Offset(end));
                }
                let last = EventId::from_slice(&note.last).map_err(|_| malformed())?;
                (followed.to, followed.last, followed.noted) = (Offset(note.to), Some(last), Offset(note.to));
            }
            read.followed.push(followed);
        }
        Ok(read)
    }

    /// Whether an event is the one before an offset.
    async fn is_before(&self, partition: Partition, offset: Offset, last: &[u8]) -> Result<bool, Error> {
        let before = Offset(offset.0.saturating_sub(1));
        if self.log.end(partition).await? < offset {
            return Ok(false);
        }
        let batch = as_stored(&*self.log).read(partition, before, 1, 1).await?;
        Ok(batch.records.first().is_some_and(|record| record.record.envelope.id.as_bytes() == last))
    }

    /// Where an event became a fact.
    pub(super) fn origin(&self, partition: Partition, record: &LogRecord) -> Position {
        let here = || Position {
            site: self.log.site().clone(),
            incarnation: self.log.lives().at(partition, record.offset),
            partition,
            offset: record.offset,
        };
        record.record.envelope.origin.clone().unwrap_or_else(here)
    }

    /// The event that stands at a place of the log, as it is stored.
    ///
    /// # Errors
    /// The log's; `Corrupt` if it can't be read.
    pub(crate) async fn event(&self, place: (Partition, Offset)) -> Result<Event, Error> {
        event_of(as_stored(&*self.log), place).await
    }

    /// The same, with what of it is sealed, as far as that can be had.
    ///
    /// # Errors
    /// Also `Unavailable`: its key is not here.
    pub(super) async fn opened(&self, place: (Partition, Offset)) -> Result<Event, Error> {
        event_of(&*self.log, place).await
    }
}

async fn event_of(log: &dyn EventLog, (partition, offset): (Partition, Offset)) -> Result<Event, Error> {
    let batch = log.read(partition, offset, 1, 1).await?;
    let record = batch.records.into_iter().next().map(|record| record.record);
    let event = record.and_then(|record| Event::decode(&record.envelope.kind, record.payload).ok());
    event.ok_or_else(|| Error::new(ErrorKind::Corrupt, "an event about erasures can't be read again"))
}

impl Turn<'_> {
    /// What is known.
    pub(crate) fn known(&self) -> &Known {
        &self.read.known
    }

    /// Makes something a fact that follows from another; it is durable, and known, on return.
    ///
    /// # Errors
    /// The log's: it may be a fact or not.
    pub(crate) async fn append(&mut self, event: &Event, follows: Option<EventId>) -> Result<EventId, Error> {
        let id = self.follower.appender.append(event, follows).await?;
        self.read_on().await?;
        Ok(id)
    }

    /// Reads every partition to the end that it has now.
    pub(super) async fn read_on(&mut self) -> Result<(), Error> {
        // All at once: a log of several processes asks its brokers, and what is asked together is one question.
        let log = &self.follower.log;
        let ends = try_join_all((0..log.partitions()).map(|partition| log.end(Partition(partition)))).await?;
        for (partition, end) in (0..).map(Partition).zip(ends) {
            while self.followed(partition).is_some_and(|followed| followed.to < end) {
                let from = self.followed(partition).map_or(Offset(0), |followed| followed.to);
                let batch = as_stored(&*self.follower.log).read(partition, from, READ_RECORDS, READ_BYTES).await?;
                if batch.records.is_empty() {
                    break;
                }
                for record in &batch.records {
                    self.include(partition, record).await?;
                }
            }
        }
        Ok(())
    }

    fn followed(&mut self, partition: Partition) -> Option<&mut Followed> {
        self.read.followed.get_mut(usize::from(partition.0))
    }

    async fn include(&mut self, partition: Partition, record: &LogRecord) -> Result<(), Error> {
        let envelope = &record.record.envelope;
        self.follower.appender.observe(envelope);
        let origin = self.follower.origin(partition, record);
        if envelope.kind == VERSIONS_ERASED {
            self.note_erased(record).await?;
        }
        let read = &mut *self.read;
        read.known.held.include(&origin);
        let concerns = concerns(&envelope.kind);
        if concerns {
            read.known.include(partition, record, &origin);
        }
        if let Some(followed) = read.followed.get_mut(usize::from(partition.0)) {
            followed.at.extend(concerns.then_some(record.offset));
            (followed.to, followed.last) = (record.offset.next(), Some(envelope.id));
        }
        Ok(())
    }

    /// Notes down what is erased, before anything of it is destroyed: nobody is to call it gone.
    async fn note_erased(&self, record: &LogRecord) -> Result<(), Error> {
        let record = &record.record;
        let Ok(Event::VersionsErased(event)) = Event::decode(&record.envelope.kind, record.payload.clone()) else {
            return Ok(());
        };
        let note = ErasedNote { event: Bytes::copy_from_slice(record.envelope.id.as_bytes()) };
        let keys: Vec<&Bytes> = object_keys(&event.series).collect();
        for some in keys.chunks(ERASED_AT_ONCE) {
            let put = |key: &&Bytes| Change::put(Kind::Erased, key, &note);
            self.follower.notes.change(some.iter().map(put).collect()).await?;
        }
        Ok(())
    }

    /// Notes down how far the log was read, where it went on.
    ///
    /// # Errors
    /// That of the notes.
    pub(crate) async fn note_down(&mut self) -> Result<(), Error> {
        let follower = self.follower;
        let Read { known, followed, .. } = &mut *self.read;
        for (number, followed) in
            (0_u16..).zip(followed.iter_mut()).filter(|(_, followed)| followed.noted != followed.to)
        {
            let of = |((site, incarnation, partition), end): (&(SiteId, Incarnation, Partition), &Offset)| {
                let (site, incarnation) = (site.to_string(), incarnation.0);
                (partition.0 == number).then_some(OriginNote { site, incarnation, end: end.0 })
            };
            let note = FollowedNote {
                to: followed.to.0,
                last: followed.last.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
                at: followed.at.iter().map(|offset| offset.0).collect(),
                origins: known.held.0.iter().filter_map(of).collect(),
            };
            follower.notes.change(vec![Change::put(Kind::Followed, &number.to_be_bytes(), &note)]).await?;
            followed.noted = followed.to;
        }
        Ok(())
    }
}

/// Keys of everything that an erasure names.
pub(super) fn object_keys(series: &[ErasedSeries]) -> impl Iterator<Item = &Bytes> {
    let versions = series.iter().flat_map(|series| &series.instances).flat_map(|instance| &instance.versions);
    versions.flat_map(|version| &version.object_keys)
}
