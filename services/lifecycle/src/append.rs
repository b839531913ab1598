//! Making facts.

use cairn_archive::{Envelope, EventId, Hlc, HybridClock, Offset, Partition, PositionVector, SiteId, events::Event};
use cairn_process::clock::Clock;
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{EventLog, Record};
use std::sync::{Arc, Mutex, PoisonError};

/// Appends events of lifecycle to the site's log.
pub(crate) struct Appender {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    hybrid: Mutex<HybridClock>,
}

impl Appender {
    pub(crate) fn new(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, hybrid: Mutex::default() }
    }

    pub(crate) fn site(&self) -> &SiteId {
        self.log.site()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// Takes note of an event that was read: what is appended later is later in the order of events.
    pub(crate) fn observe(&self, envelope: &Envelope) {
        self.hybrid.lock().unwrap_or_else(PoisonError::into_inner).observe(envelope.hlc);
    }

    /// The same, of which only its place in the order of events is known.
    pub(crate) fn observe_reading(&self, hlc: Hlc) {
        self.hybrid.lock().unwrap_or_else(PoisonError::into_inner).observe(hlc);
    }

    /// The latest place in the order of events of all that was read or appended.
    pub(crate) fn newest(&self) -> Hlc {
        self.hybrid.lock().unwrap_or_else(PoisonError::into_inner).last()
    }

    /// All that the log has of a study, as an index is waited for that is to know of it.
    ///
    /// # Errors
    /// That of the log.
    pub(crate) async fn all_of(&self, study_instance_uid: &str) -> Result<PositionVector, Error> {
        let partition = Partition::of_study(study_instance_uid, self.log.partitions());
        let mut all = PositionVector::default();
        all.0.insert((self.site().clone(), self.log.incarnation(), partition), self.log.end(partition).await?);
        Ok(all)
    }

    /// Makes something a fact, which may follow from an event; durable on return.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted`: it may be a fact or not.
    pub(crate) async fn append(&self, event: &Event, follows: impl Into<Option<EventId>>) -> Result<EventId, Error> {
        Ok(self.append_after(event, follows.into()).await?.0)
    }

    /// Makes something a fact; durable on return. Gives where it stands in the partition of its study.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted`: it may be a fact or not.
    pub(crate) async fn append_after(
        &self,
        event: &Event,
        follows: Option<EventId>,
    ) -> Result<(EventId, Offset), Error> {
        let hlc = self.hybrid.lock().unwrap_or_else(PoisonError::into_inner).tick(self.clock.unix_ms());
        let study_instance_uid = event.study_instance_uid().to_owned();
        let partition = Partition::of_study(&study_instance_uid, self.log.partitions());
        let envelope = Envelope {
            id: EventId(uuid::Uuid::now_v7()),
            kind: event.kind().into(),
            site: self.log.site().clone(),
            study_instance_uid,
            tenant: event.tenant().to_owned(),
            hlc,
            traceparent: None,
            correlation_id: None,
            causation_id: follows,
            object_keys: event.object_keys(),
            origin: None,
        };
        let id = envelope.id;
        let offset: Offset =
            self.log.append(partition, vec![Record { envelope, payload: event.encode() }]).await.map_err(|error| {
                match Error::from(error) {
                    error if error.kind == ErrorKind::Exhausted => error,
                    error => Error { kind: ErrorKind::Unavailable, ..error },
                }
            })?;
        Ok((id, offset))
    }
}
