//! Reading this site's own log as it grows: what it holds, by origin, and how much.

use crate::{
    notes::Notes,
    reached::{Origin, Place, Reached},
};
use cairn_archive::{EventId, ObjectKey, Offset, Partition, erasure::VERSIONS_ERASED, events::Event};
use cairn_service_api::{Error, replication::Mark};
use cairn_store_api::{EventLog, LogRecord, Record, StoreError};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Records, and bytes of them, that are read at once.
pub(crate) const READ_RECORDS: usize = 256;
pub(crate) const READ_BYTES: usize = 1 << 20;

/// The event before an offset; `None` if the log has none there.
pub(crate) async fn event_before(
    log: &dyn EventLog,
    partition: Partition,
    offset: Offset,
) -> Result<Option<EventId>, StoreError> {
    let Some(before) = offset.0.checked_sub(1).map(Offset) else { return Ok(None) };
    if log.end(partition).await? < offset {
        return Ok(None);
    }
    let batch = log.read(partition, before, 1, 1).await?;
    Ok(batch.records.first().map(|record| record.record.envelope.id))
}

/// Objects that a record says are erased.
fn erased(record: &LogRecord) -> Vec<ObjectKey> {
    let Record { envelope, payload } = &record.record;
    if envelope.kind != VERSIONS_ERASED {
        return Vec::new();
    }
    let Ok(Event::VersionsErased(event)) = Event::decode(&envelope.kind, payload.clone()) else { return Vec::new() };
    let instances = event.series.iter().flat_map(|series| &series.instances);
    let keys = instances.flat_map(|instance| &instance.versions).flat_map(|version| &version.object_keys);
    keys.filter_map(|key| ObjectKey::from_slice(key).ok()).collect()
}

/// One partition of the log, followed.
pub(crate) struct Followed {
    log: Arc<dyn EventLog>,
    pub(crate) place: Place,
    reached: Mutex<Reached>,
    /// Its `to`, for those who wait for it.
    to: watch::Sender<Offset>,
}

impl Followed {
    pub(crate) fn new(log: Arc<dyn EventLog>, partition: Partition, reached: Reached) -> Self {
        let place = Place { site: log.site().clone(), lives: log.lives().clone(), partition };
        let to = watch::Sender::new(reached.to);
        Self { log, place, reached: Mutex::new(reached), to }
    }

    pub(crate) fn reached(&self) -> MutexGuard<'_, Reached> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event before an offset; `None` if the log has none there.
    pub(crate) async fn event_before(&self, offset: Offset) -> Result<Option<EventId>, StoreError> {
        event_before(&*self.log, self.place.partition, offset).await
    }

    /// Waits until everything before `end` of an origin has been read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn wait_for_origin(&self, origin: &Origin, end: Offset) {
        let mut to = self.to.subscribe();
        let _never = to.wait_for(|_| self.reached().origins.get(origin).is_some_and(|(held, _)| *held >= end)).await;
    }

    /// Whether this log has what another site holds of it, as `mark` says.
    pub(crate) async fn agrees(&self, mark: &Mark) -> Result<bool, StoreError> {
        // Nobody can hold anything of a life that it has not had.
        let Some(of_life) = self.place.lives.range(mark.incarnation, mark.partition) else { return Ok(false) };
        // What a life had beyond its end was lost with a disk; it comes back from those who hold it.
        Ok(mark.end > of_life.end || self.event_before(mark.end).await? == Some(mark.last))
    }

    /// Waits until everything before `offset` has been read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn wait_for(&self, offset: Offset) {
        let mut to = self.to.subscribe();
        // The sender is `self`: it can't be gone.
        let _never = to.wait_for(|to| *to >= offset).await;
    }

    /// Follows for ever. A log that is away is waited for.
    pub(crate) async fn follow(&self, notes: &Notes, retry_pause: Duration) {
        loop {
            if let Err(error) = self.read_on(notes).await {
                tracing::warn!(partition = self.place.partition.0, %error, "replication can't read the log");
                tokio::time::sleep(retry_pause).await;
            }
        }
    }

    async fn read_on(&self, notes: &Notes) -> Result<(), Error> {
        let from = self.reached().to;
        let batch = self.log.read(self.place.partition, from, READ_RECORDS, READ_BYTES).await?;
        if batch.records.is_empty() {
            self.log.wait_beyond(self.place.partition, from).await?;
            return Ok(());
        }
        // Before it counts as read: nobody is to ask for what is not there.
        notes.note_erased(&batch.records.iter().flat_map(erased).collect::<Vec<_>>()).await?;
        let to = {
            let mut reached = self.reached();
            batch.records.iter().for_each(|record| reached.include(&self.place, record));
            reached.to
        };
        self.to.send_replace(to);
        Ok(())
    }
}
