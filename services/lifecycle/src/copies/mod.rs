//! Second copies: what the log names is copied to another object store of this site, on another disk or in a bucket. Damaged
//! objects are had again from there.
//!
//! It follows the log, so a copy comes after its event, and never for what no event names. What is copied and what is erased
//! meanwhile is settled by a second look: an erased object is noted before it is destroyed.

use crate::{
    config::CopiesConfig,
    fixity::Pace,
    metrics,
    named::{Named, named, unread},
    notes::{Change, Kind, Notes},
};
use bytes::Bytes;
use cairn_archive::{ObjectKey, Offset, Partition};
use cairn_service_api::{Error, lifecycle::SecondCopies};
use cairn_store_api::{EventLog, LogRecord, ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind};
use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use prost::Message;
use std::sync::Arc;
use tokio::sync::watch;

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 1 << 20;

/// How far a partition was copied, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct CopiedNote {
    #[prost(uint64, tag = "1")]
    to: u64,
    /// `ce_id` of the event before it.
    #[prost(bytes = "bytes", tag = "2")]
    last: Bytes,
}

/// Copies what is stored, and looks after the copies.
pub(crate) struct Copying {
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    second: Arc<dyn ObjectStore>,
    notes: Arc<Notes>,
    config: CopiesConfig,
    pace: Pace,
    known: watch::Sender<SecondCopies>,
}

/// What became of an object that was to be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// It is there now.
    Made,
    /// It was there already.
    Was,
    /// It can't be read here, or is erased.
    Left,
}

impl Copying {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        (objects, second): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>),
        notes: Arc<Notes>,
        config: CopiesConfig,
    ) -> Self {
        let (pace, known) = (Pace::default(), watch::Sender::new(SecondCopies::default()));
        Self { log, objects, second, notes, config, pace, known }
    }

    pub(crate) fn known(&self) -> SecondCopies {
        *self.known.borrow()
    }

    /// Follows the log for ever. Stores that are away are waited for.
    ///
    /// # Cancel safety
    /// The next start goes on from what was noted down last.
    pub(crate) async fn run(&self) {
        loop {
            let followed = self.follow().await;
            self.known.send_modify(|known| known.is_away = followed.is_err());
            let pause = match followed {
                Ok(()) => self.config.look_interval,
                Err(error) => {
                    tracing::warn!(%error, "second copies are held up");
                    self.config.retry_pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Copies what the log has that was not copied.
    async fn follow(&self) -> Result<(), Error> {
        let mut places = Vec::new();
        for partition in (0..self.log.partitions()).map(Partition) {
            places.push((partition, self.place(partition).await?));
        }
        loop {
            let ends = try_join_all(places.iter().map(|(partition, _)| self.log.end(*partition))).await?;
            let behind = ends.iter().zip(&places).map(|(end, (_, place))| end.0.saturating_sub(place.to)).sum();
            self.known.send_modify(|known| known.behind_events = behind);
            metrics::copies_behind(behind);
            if behind == 0 {
                return Ok(());
            }
            let mut has_moved = false;
            for (partition, place) in &mut places {
                has_moved |= self.step(*partition, place).await?;
            }
            if !has_moved {
                return Ok(());
            }
        }
    }

    /// Where a partition goes on, if the log is still the one that was read; else from its beginning.
    async fn place(&self, partition: Partition) -> Result<CopiedNote, Error> {
        let note: CopiedNote = self.notes.get(Kind::Copied, &partition.0.to_be_bytes()).await?.unwrap_or_default();
        let Some(before) = note.to.checked_sub(1) else { return Ok(note) };
        if self.log.end(partition).await? <= Offset(before) {
            return Ok(CopiedNote::default());
        }
        let found = self.log.read(partition, Offset(before), 1, READ_BYTES).await?.records;
        let is_same =
            found.first().is_some_and(|record| note.last.as_ref() == record.record.envelope.id.as_bytes().as_slice());
        Ok(if is_same { note } else { CopiedNote::default() })
    }

    /// Copies what some records name; gives whether there were any.
    async fn step(&self, partition: Partition, place: &mut CopiedNote) -> Result<bool, Error> {
        let records = self.log.read(partition, Offset(place.to), READ_RECORDS, READ_BYTES).await?.records;
        let Some(last) = records.last() else { return Ok(false) };
        let objects = self.objects_of(&records).await?;
        let copied = stream::iter(objects).map(|object| async move { self.copy(&object).await });
        copied.buffer_unordered(self.config.objects_at_once.max(1)).try_for_each(async |_| Ok(())).await?;
        *place =
            CopiedNote { to: last.offset.next().0, last: Bytes::copy_from_slice(last.record.envelope.id.as_bytes()) };
        self.notes.change(vec![Change::put(Kind::Copied, &partition.0.to_be_bytes(), place)]).await?;
        Ok(true)
    }

    async fn objects_of(&self, records: &[LogRecord]) -> Result<Vec<ObjectRef>, Error> {
        let mut objects = Vec::new();
        for record in records {
            let Named { known, keys } = named(&record.record);
            objects.extend(known.into_iter().map(|named| named.object));
            for key in keys {
                // What it should be, the store says alone.
                match self.objects.stat(key).await {
                    Ok(info) => objects.push(unread(info.object, record.record.envelope.id).object),
                    Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(objects)
    }

    /// Copies an object, unless there is a copy.
    async fn copy(&self, object: &ObjectRef) -> Result<Copied, Error> {
        if self.notes.is_erased(&object.key).await? {
            self.second.delete(object.key).await?;
            return Ok(Copied::Left);
        }
        match self.second.stat(object.key).await {
            Ok(_) => return Ok(Copied::Was),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let writer = match self.second.put(object.key, Some(object.length)).await {
            Err(error) if error.kind() == StoreErrorKind::Conflict => return Ok(Copied::Was),
            writer => writer?,
        };
        self.fill(object, writer).await
    }

    /// Gives a writer to the second store what this site has of an object.
    async fn fill(&self, object: &ObjectRef, mut writer: Box<dyn ObjectWriter>) -> Result<Copied, Error> {
        match self.pump(object, &mut *writer).await {
            Ok(()) => {}
            // Fixity finds that too, and says so. A round copies what can be read by then.
            Err(error) if is_damage(&error) || error.kind() == StoreErrorKind::Archived => return Ok(Copied::Left),
            Err(error) => return Err(error.into()),
        }
        match writer.finish_as(object.length, object.digest).await {
            Err(error) if error.kind() == StoreErrorKind::Conflict => return Ok(Copied::Was),
            finished => finished?,
        };
        if self.notes.is_erased(&object.key).await? {
            // Erased since the first look, and destroyed maybe before the copy was there.
            self.second.delete(object.key).await?;
            return Ok(Copied::Left);
        }
        metrics::copied(object.length);
        Ok(Copied::Made)
    }

    async fn pump(&self, object: &ObjectRef, into: &mut dyn ObjectWriter) -> Result<(), StoreError> {
        let mut bytes = self.objects.read(object, 0..object.length).await?;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            self.pace.take(chunk.len() as u64, self.config.bytes_per_second_max).await;
            into.write(chunk).await?;
        }
        Ok(())
    }

    /// Reads the copy of an object that is whole here, and makes it anew if it is not what it should be. A second store that is
    /// away is looked at in another round.
    ///
    /// # Errors
    /// That of the notes, or of the first store.
    pub(crate) async fn look_after(&self, object: &ObjectRef, per_second: u64) -> Result<(), Error> {
        let is_damaged = match self.read(object, per_second).await {
            Ok(()) => return Ok(()),
            Err(error) => is_damage(&error),
        };
        if is_damaged && self.make_anew(object).await? == Copied::Made {
            tracing::warn!(object_key = %object.key, "a second copy was damaged or not there, and is made anew");
            metrics::copy_made_anew();
            self.known.send_modify(|known| known.made_anew += 1);
        }
        Ok(())
    }

    async fn make_anew(&self, object: &ObjectRef) -> Result<Copied, Error> {
        match self.copy(object).await? {
            Copied::Was => self.fill(object, self.second.repair(object).await?).await,
            copied => Ok(copied),
        }
    }

    async fn read(&self, object: &ObjectRef, per_second: u64) -> Result<(), StoreError> {
        let mut bytes = self.second.read(object, 0..object.length).await?;
        while let Some(chunk) = bytes.next().await {
            self.pace.take(chunk?.len() as u64, per_second).await;
        }
        Ok(())
    }

    /// Writes what the copy of an object has where it is to be whole again.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`: there is no whole copy. Others as of the two stores.
    pub(crate) async fn give_back(&self, object: &ObjectRef) -> Result<(), StoreError> {
        let mut bytes = self.second.read(object, 0..object.length).await?;
        let mut writer = self.objects.repair(object).await?;
        while let Some(chunk) = bytes.next().await {
            writer.write(chunk?).await?;
        }
        writer.finish().await.map(drop)
    }

    /// Destroys the copy of an object that is noted as erased.
    ///
    /// # Errors
    /// That of the second store: while it is away nothing in it is destroyed.
    pub(crate) async fn destroy(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.second.delete(key).await
    }

    /// Whether there is a copy of an object.
    ///
    /// # Errors
    /// That of the second store.
    pub(crate) async fn has(&self, key: ObjectKey) -> Result<bool, StoreError> {
        match self.second.stat(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that an object is not what it should be.
fn is_damage(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Corrupt | StoreErrorKind::Invalid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests;
