//! Making an event a fact: identity, place in the order of events, and an append with a deadline.

use crate::{
    config::IngestConfig,
    crash::{Step, crash_point},
    metrics,
};
use cairn_archive::{
    Envelope, EventId, Hlc, HybridClock, ObjectKey, Offset, Partition, Position, events::Event, ids::ReceiptId,
};
use cairn_process::{clock::Clock, trace};
use cairn_service_api::{Error, ErrorKind, Reason};
use cairn_store_api::{EventLog, Record, StoreError, StoreErrorKind, as_stored};
use futures_util::future::try_join_all;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use uuid::{Builder, Uuid};

/// Records of a partition looked at when the clock is recovered. The last ones may stand in another order than their
/// readings, but not by more than the appends that were under way at once.
const RECOVERED_RECORDS: u64 = 64;
const RECOVERED_BYTES: usize = 256 << 10;

/// What an event belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) traceparent: Option<String>,
    pub(crate) correlation: Option<ReceiptId>,
    pub(crate) causation: Option<EventId>,
    /// Every object that the event names.
    pub(crate) objects: Vec<ObjectKey>,
}

/// A fact.
#[derive(Clone, Debug)]
pub(crate) struct Appended {
    pub(crate) id: EventId,
    pub(crate) position: Position,
}

/// Why it is none, or may be none.
#[derive(Debug)]
pub(crate) enum NotAppended {
    /// It is not in the log and will not be.
    Surely(Error),
    /// It may be in the log: what it names must stay.
    Perhaps(Error),
}

impl From<NotAppended> for Error {
    fn from(not_appended: NotAppended) -> Self {
        match not_appended {
            NotAppended::Surely(error) | NotAppended::Perhaps(error) => error,
        }
    }
}

/// Appends events of this site.
pub(crate) struct Appender {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    hlc: Mutex<HybridClock>,
    config: IngestConfig,
}

impl Appender {
    /// An appender whose clock is past every event in the log.
    pub(crate) async fn open(
        log: Arc<dyn EventLog>,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
    ) -> Result<Self, StoreError> {
        let last = last_reading(as_stored(log.as_ref())).await?;
        Ok(Self { log, clock, hlc: Mutex::new(HybridClock::starting_after(last)), config })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(crate) fn log(&self) -> &dyn EventLog {
        self.log.as_ref()
    }

    fn hlc(&self) -> MutexGuard<'_, HybridClock> {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an event made elsewhere, so that later ones come after it.
    pub(crate) fn observe(&self, reading: Hlc) {
        self.hlc().observe(reading);
    }

    /// Whether the wall clock can be believed.
    pub(crate) fn check_clock(&self) -> Result<(), Error> {
        let (config, now) = (&self.config.clock, self.clock.unix_ms());
        let behind = Duration::from_millis(self.hlc().last().wall_ms.saturating_sub(now));
        metrics::clock_behind_log(behind, behind > config.behind_log_alarm);
        let within = (config.not_before_ms..=config.not_after_ms).contains(&now)
            && config.behind_log_max.is_none_or(|max| behind <= max);
        if within || config.accept_implausible {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "wall clock is implausible: set it right, or allow it by configuration"))
    }

    /// Whether the log can be read.
    pub(crate) async fn check_log(&self) -> Result<(), Error> {
        self.log.end(Partition(0)).await.map(|_| ()).map_err(Error::from)
    }

    /// The envelope of the event at a position of this site's log, if there is one.
    pub(crate) async fn envelope_at(&self, position: &Position) -> Result<Option<Envelope>, Error> {
        Ok(self.record_at(position).await?.map(|record| record.envelope))
    }

    /// The event at a position of this site's log, with its id; `None`: there is none that this build can read.
    pub(crate) async fn event_at(&self, position: &Position) -> Result<Option<(EventId, Event)>, Error> {
        let found = self.record_at(position).await?;
        let read =
            |record: Record| Event::decode(&record.envelope.kind, record.payload).ok().zip(Some(record.envelope));
        Ok(found.and_then(read).map(|(event, envelope)| (envelope.id, event)))
    }

    /// The same with its envelope.
    pub(crate) async fn fact_at(&self, position: &Position) -> Result<Option<(Envelope, Event)>, Error> {
        let found = self.record_at(position).await?;
        let read = |record: Record| {
            let event = Event::decode(&record.envelope.kind, record.payload).ok()?;
            Some((record.envelope, event))
        };
        Ok(found.and_then(read))
    }

    async fn record_at(&self, position: &Position) -> Result<Option<Record>, Error> {
        let own = (self.log.site(), self.log.incarnation());
        if own != (&position.site, position.incarnation) || position.partition.0 >= self.log.partitions() {
            return Ok(None);
        }
        let found = self.log.read(position.partition, position.offset, 1, 1).await?.records.into_iter().next();
        Ok(found.filter(|found| found.offset == position.offset).map(|found| found.record))
    }

    /// Mints an id that sorts by time.
    pub(crate) fn mint(&self) -> Uuid {
        let chance = Uuid::now_v7();
        let mut random = [0; 10];
        random.copy_from_slice(&chance.as_bytes()[6..]);
        Builder::from_unix_timestamp_millis(self.clock.unix_ms(), &random).into_uuid()
    }

    fn record(&self, event: &Event, context: Context) -> Record {
        let envelope = Envelope {
            id: EventId(self.mint()),
            kind: event.kind().into(),
            site: self.log.site().clone(),
            study_instance_uid: event.study_instance_uid().to_owned(),
            tenant: event.tenant().to_owned(),
            hlc: self.hlc().tick(self.clock.unix_ms()),
            traceparent: trace::traceparent().or(context.traceparent),
            correlation_id: context.correlation.map(|id| id.to_string()),
            causation_id: context.causation,
            object_keys: context.objects,
            origin: None,
        };
        Record { envelope, payload: event.encode() }
    }

    /// Appends one event and returns once it is durable, within the deadline.
    #[tracing::instrument(name = "log.append", skip_all, fields(kind = event.kind()))]
    pub(crate) async fn append(&self, event: &Event, context: Context) -> Result<Appended, NotAppended> {
        let partition = Partition::of_study(event.study_instance_uid(), self.log.partitions());
        let record = self.record(event, context);
        let id = record.envelope.id;
        let offset = self.append_records(partition, vec![record]).await?;
        Ok(Appended { id, position: self.position(partition, offset) })
    }

    fn position(&self, partition: Partition, offset: Offset) -> Position {
        Position { site: self.log.site().clone(), incarnation: self.log.incarnation(), partition, offset }
    }

    /// Appends an event and those that follow from it, which are made with its id. Those of its partition go with it; a crash
    /// may leave it without those that come after. Once it may be in the log, so is the answer.
    #[tracing::instrument(name = "log.append", skip_all, fields(kind = event.kind()))]
    pub(crate) async fn append_with(
        &self,
        event: &Event,
        context: Context,
        followers: impl FnOnce(EventId) -> Vec<Event>,
    ) -> Result<(Appended, Vec<Position>), NotAppended> {
        let partition = |event: &Event| Partition::of_study(event.study_instance_uid(), self.log.partitions());
        let own = partition(event);
        let after = Context { objects: Vec::new(), ..context.clone() };
        let record = self.record(event, context);
        let id = record.envelope.id;
        let after = Context { causation: Some(id), ..after };
        let (beside, elsewhere): (Vec<_>, Vec<_>) =
            followers(id).into_iter().partition(|follower| partition(follower) == own);
        let mut records = vec![record];
        records.extend(beside.iter().map(|event| self.record(event, after.clone())));
        let mut positions = Vec::with_capacity(records.len());
        for records in in_appends(records) {
            let count = records.len() as u64;
            let first = match self.append_records(own, records).await {
                Ok(first) => first,
                Err(not_appended) if positions.is_empty() => return Err(not_appended),
                Err(not_appended) => return Err(NotAppended::Perhaps(not_appended.into())),
            };
            positions.extend((first.0..first.0 + count).map(|offset| self.position(own, Offset(offset))));
        }
        if !elsewhere.is_empty() {
            crash_point(Step::BeforeRejectionsElsewhere);
        }
        let elsewhere = elsewhere.into_iter().map(|event| (event, after.clone())).collect();
        for appended in self.append_all(elsewhere).await {
            positions.push(appended.map_err(|error| NotAppended::Perhaps(error.into()))?.position);
        }
        let position = positions.remove(0);
        Ok((Appended { id, position }, positions))
    }

    /// Appends events, those of one partition at once.
    pub(crate) async fn append_all(&self, events: Vec<(Event, Context)>) -> Vec<Result<Appended, NotAppended>> {
        let partitions: Vec<_> = events
            .iter()
            .map(|(event, _)| Partition::of_study(event.study_instance_uid(), self.log.partitions()))
            .collect();
        let mut groups = std::collections::BTreeMap::<Partition, Vec<(usize, Record)>>::new();
        for (index, ((event, context), partition)) in events.into_iter().zip(partitions).enumerate() {
            groups.entry(partition).or_default().push((index, self.record(&event, context)));
        }
        let appends = groups.into_iter().map(|(partition, records)| async move {
            let (indices, records): (Vec<_>, Vec<Record>) = records.into_iter().unzip();
            let ids: Vec<EventId> = records.iter().map(|record| record.envelope.id).collect();
            (partition, indices.into_iter().zip(ids), self.append_records(partition, records).await)
        });
        let mut results = Vec::new();
        for (partition, records, outcome) in futures_util::future::join_all(appends).await {
            for ((index, id), after_first) in records.zip(0..) {
                let result = match &outcome {
                    Ok(first) => Ok(Appended { id, position: self.position(partition, Offset(first.0 + after_first)) }),
                    Err(NotAppended::Surely(error)) => Err(NotAppended::Surely(error.clone())),
                    Err(NotAppended::Perhaps(error)) => Err(NotAppended::Perhaps(error.clone())),
                };
                results.push((index, result));
            }
        }
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn append_records(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, NotAppended> {
        let late = || {
            let message = "append to the event log took longer than its deadline";
            NotAppended::Perhaps(Error::new(ErrorKind::Unavailable, message))
        };
        let begun = self.clock.elapsed();
        let append = self.log.append(partition, records);
        let outcome = tokio::time::timeout(self.config.append_deadline, append).await;
        let took = self.clock.elapsed().saturating_sub(begun);
        metrics::append_took(took);
        match outcome {
            Err(_) => Err(late()),
            Ok(Err(error)) => Err(not_appended(&error)),
            // The machine may have slept: a timer does not count that, this clock does.
            Ok(Ok(_)) if took > self.config.append_deadline => Err(late()),
            Ok(Ok(offset)) => Ok(offset),
        }
    }
}

/// Bytes of payload that are appended at once, at most, where there are several records.
const APPEND_BYTES_MAX: usize = 4 << 20;

/// Records as they are appended, in their order.
fn in_appends(records: Vec<Record>) -> Vec<Vec<Record>> {
    let (mut appends, mut bytes) = (Vec::<Vec<Record>>::new(), 0);
    for record in records {
        bytes += record.payload.len();
        match appends.last_mut().filter(|_| bytes <= APPEND_BYTES_MAX) {
            Some(append) => append.push(record),
            None => {
                bytes = record.payload.len();
                appends.push(vec![record]);
            }
        }
    }
    appends
}

fn not_appended(error: &StoreError) -> NotAppended {
    match error.kind() {
        StoreErrorKind::Exhausted => {
            NotAppended::Surely(Error::because(ErrorKind::Exhausted, Reason::OutOfRoom, error.to_string()))
        }
        StoreErrorKind::Invalid => NotAppended::Surely(Error::new(ErrorKind::Internal, error.to_string())),
        _ => NotAppended::Perhaps(Error::new(ErrorKind::Unavailable, error.to_string())),
    }
}

/// A reading past every one in the log: no clock that stepped back between two lives of the process gives an event
/// an earlier place than one it may have seen.
///
/// Within a partition the last records may stand in another order than their readings. A reading is at most the
/// append time of its own record, and append times never decrease, unless the log is ahead of the wall clock; then all
/// readings share one millisecond until the counter overflows.
async fn last_reading(log: &dyn EventLog) -> Result<Hlc, StoreError> {
    // All at once: a log may be far away.
    let readings = (0..log.partitions()).map(|partition| last_reading_of(log, Partition(partition)));
    let wall_ms = try_join_all(readings).await?.into_iter().max().unwrap_or_default();
    Ok(Hlc { wall_ms, counter: if wall_ms == 0 { 0 } else { u32::MAX } })
}

async fn last_reading_of(log: &dyn EventLog, partition: Partition) -> Result<u64, StoreError> {
    let mut wall_ms = 0;
    let end = log.end(partition).await?;
    let mut from = Offset(end.0.saturating_sub(RECOVERED_RECORDS));
    while from < end {
        let batch = log.read(partition, from, RECOVERED_RECORDS as usize, RECOVERED_BYTES).await?;
        let Some(last) = batch.records.last() else { break };
        from = last.offset.next();
        let readings = batch.records.iter().map(|r| r.record.envelope.hlc.wall_ms.max(r.appended_at_ms));
        wall_ms = readings.fold(wall_ms, u64::max);
    }
    Ok(wall_ms)
}
