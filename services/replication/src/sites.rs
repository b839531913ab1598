//! What this site knows of sites: the events about them, all in one partition of the log, as it grows.

use crate::{
    follow::{READ_BYTES, READ_RECORDS, event_before},
    reached::Place,
};
use cairn_archive::{
    Envelope, EventId, HybridClock, Offset,
    authority::{self, Authority},
    events::Event,
};
use cairn_process::clock::Clock;
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{EventLog, LogRecord, Record};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, MutexGuard, watch};

/// What types of events about sites begin with.
const KINDS: &str = "cairn.site.";

/// How far the partition was read, and where in it events about sites stand: what is noted down, so that a restart reads
/// those alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) to: Offset,
    pub(crate) last: Option<EventId>,
    pub(crate) at: Vec<Offset>,
}

#[derive(Default)]
struct Known {
    seen: Seen,
    authority: Authority,
}

/// The follower.
pub(crate) struct Sites {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    place: Place,
    known: watch::Sender<Known>,
    /// Held while something is decided: what it is based on must not change meanwhile.
    deciding: Mutex<()>,
}

impl Sites {
    /// Goes on from what was noted down, if the log is still the one that was read.
    pub(crate) async fn open(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>, noted: Seen) -> Result<Self, Error> {
        let partition = authority::partition(log.partitions());
        let place = Place { site: log.site().clone(), lives: log.lives().clone(), partition };
        let known = watch::Sender::new(Known::default());
        let this = Self { log, clock, place, known, deciding: Mutex::default() };
        if event_before(&*this.log, partition, noted.to).await? == noted.last {
            for offset in noted.at {
                let batch = this.log.read(partition, offset, 1, 1).await?;
                batch.records.iter().for_each(|record| this.include(record));
            }
            this.known.send_modify(|known| (known.seen.to, known.seen.last) = (noted.to, noted.last));
        }
        Ok(this)
    }

    /// Goes past a record, which is the next that is about sites, or the next.
    fn include(&self, record: &LogRecord) {
        let Record { envelope, payload } = &record.record;
        self.known.send_modify(|known| {
            if envelope.kind.starts_with(KINDS) {
                known.seen.at.push(record.offset);
                let included = known.authority.include(envelope, &self.place.origin(record), payload.clone());
                if let Err(error) = included {
                    tracing::warn!(kind = %envelope.kind, %error, "an event about sites is passed over: it needs a newer build");
                }
            }
            (known.seen.to, known.seen.last) = (record.offset.next(), Some(envelope.id));
        });
    }

    /// Follows for ever. A log that is away is waited for.
    pub(crate) async fn follow(&self, retry_pause: Duration) {
        loop {
            if let Err(error) = self.read_on().await {
                tracing::warn!(%error, "what is decided of sites can't be read from the log");
                tokio::time::sleep(retry_pause).await;
            }
        }
    }

    async fn read_on(&self) -> Result<(), Error> {
        let from = self.known.borrow().seen.to;
        let batch = self.log.read(self.place.partition, from, READ_RECORDS, READ_BYTES).await?;
        if batch.records.is_empty() {
            self.log.wait_beyond(self.place.partition, from).await?;
        }
        batch.records.iter().for_each(|record| self.include(record));
        Ok(())
    }

    /// How far it is, to be noted down.
    pub(crate) fn seen(&self) -> Seen {
        self.known.borrow().seen.clone()
    }

    /// Asks what is known.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Authority) -> T) -> T {
        question(&self.known.borrow().authority)
    }

    /// Nobody else decides until this is dropped; what was appended before is known.
    pub(crate) async fn deciding(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let turn = self.deciding.lock().await;
        let end = self.log.end(self.place.partition).await?;
        self.wait_for(end).await;
        Ok(turn)
    }

    /// Waits until everything before `offset` is known.
    async fn wait_for(&self, offset: Offset) {
        let mut known = self.known.subscribe();
        // The sender is `self`: it can't be gone.
        let _never = known.wait_for(|known| known.seen.to >= offset).await;
    }

    /// Makes something a fact; it is durable, and known, on return.
    pub(crate) async fn append(&self, _turn: &MutexGuard<'_, ()>, event: Event) -> Result<(), Error> {
        let wall_ms = self.clock.unix_ms();
        let hlc = HybridClock::starting_after(self.ask(Authority::last)).tick(wall_ms);
        let envelope = Envelope {
            id: EventId(uuid::Uuid::now_v7()),
            kind: event.kind().into(),
            site: self.place.site.clone(),
            study_instance_uid: event.study_instance_uid().to_owned(),
            tenant: event.tenant().to_owned(),
            hlc,
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        };
        let record = Record { envelope, payload: event.encode() };
        let offset = self
            .log
            .append(self.place.partition, vec![record])
            .await
            .map_err(|error| Error { kind: ErrorKind::Unavailable, ..Error::from(error) })?;
        self.wait_for(offset.next()).await;
        Ok(())
    }
}
