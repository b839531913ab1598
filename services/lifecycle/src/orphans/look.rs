//! One look: what the log names, what the store has, and what becomes of the difference.

use super::{LookNote, OrphanNote, Orphans, PAGE, names::Names, number};
use crate::{
    metrics,
    named::named,
    notes::{Change, Kind},
};
use bytes::Bytes;
use cairn_archive::{
    Envelope, ObjectKey, Offset, Partition,
    events::{Damage, DamageFoundBy},
};
use cairn_service_api::{
    Error, ErrorKind,
    orphans::{Orphan, OrphansKept},
};
use cairn_store_api::{ObjectInfo, Record, StoreErrorKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Records, and bytes of them, that are read at once.
const READ: (usize, usize) = (1_000, 1 << 20);
/// Orphans that are removed before it is looked whether one of them was named meanwhile.
const REMOVED_AT_ONCE: usize = 100;

/// How far the log was read, and what of.
struct Reading {
    places: Vec<Offset>,
    events: u64,
    /// Whether some records don't tell what they name.
    unreadable: bool,
}

impl Orphans {
    /// Looks, and removes what is due.
    ///
    /// # Errors
    /// Stores that are away; then what was not noted down is found by the next look.
    pub(super) async fn look(&self) -> Result<LookNote, Error> {
        let last = self.last().await?.unwrap_or_default();
        let (number, began_at_ms) = (last.number + 1, self.with.appender.now_ms());
        let mut names = Names::new(self.events().await?, self.config.memory_max, number);
        let places = vec![Offset(0); usize::from(self.with.log.partitions())];
        let mut reading = Reading { places, events: 0, unreadable: false };
        self.read_on(&mut reading, |record| record.envelope.object_keys.iter().for_each(|key| names.add(key))).await?;
        let (objects, mut found) = self.unnamed(&names).await?;
        drop(names);
        // An object is listed before what may have been appended of it is read.
        self.read_on(&mut reading, |record| {
            record.envelope.object_keys.iter().for_each(|key| _ = found.remove(key));
        })
        .await?;
        // A range of the log is found by its name: the event that says where it is may be what the log lost.
        for key in self.with.sealing.keys().await? {
            found.remove(&key);
        }
        let note = LookNote { number, began_at_ms, objects, ..LookNote::default() };
        let due = self.note_found(found, &note).await?;
        self.remove_due(due, &mut reading, note).await
    }

    /// About how many events there are.
    async fn events(&self) -> Result<u64, Error> {
        let mut events = 0;
        for partition in 0..self.with.log.partitions() {
            events += self.with.log.end(Partition(partition)).await?.0;
        }
        Ok(events)
    }

    /// Reads to where the log ends now.
    async fn read_on(&self, reading: &mut Reading, mut tell: impl FnMut(&Record)) -> Result<(), Error> {
        for (partition, place) in (0..).map(Partition).zip(&mut reading.places) {
            let end = self.with.log.end(partition).await?;
            while *place < end {
                let records = self.with.log.read(partition, *place, READ.0, READ.1).await?.records;
                let Some(last) = records.last() else {
                    return Err(Error::new(ErrorKind::Corrupt, "the log has less than it said"));
                };
                *place = last.offset.next();
                self.pace.take(records.len() as u64, self.config.events_per_second_max).await;
                for read in &records {
                    reading.unreadable |= read.record.envelope.kind == Envelope::UNREADABLE;
                    tell(&read.record);
                }
                reading.events += records.len() as u64;
            }
        }
        Ok(())
    }

    /// How many objects the store has, and those that are not in `names`.
    async fn unnamed(&self, names: &Names) -> Result<(u64, BTreeMap<ObjectKey, ObjectInfo>), Error> {
        let (mut objects, mut unnamed, mut after) = (0, BTreeMap::new(), None);
        loop {
            let page = self.with.objects.list(after, PAGE).await?;
            objects += page.objects.len() as u64;
            after = page.objects.last().map(|info| info.object.key);
            let found = page.objects.into_iter().filter(|info| !names.may_have(&info.object.key));
            let room = self.config.noted_max.saturating_sub(unnamed.len());
            unnamed.extend(found.take(room).map(|info| (info.object.key, info)));
            if !page.more || after.is_none() {
                return Ok((objects, unnamed));
            }
        }
    }

    /// Notes down what was found, forgets what was not, and gives those whose time has come.
    async fn note_found(
        &self,
        mut found: BTreeMap<ObjectKey, ObjectInfo>,
        look: &LookNote,
    ) -> Result<Vec<Orphan>, Error> {
        let at_work = self.with.retention.worked.now().await?;
        let (mut due, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(after).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.info.object.key);
            let mut gone = Vec::new();
            for (orphan, found_at_work) in page {
                let key = orphan.info.object.key;
                match found.get(&key) {
                    // Still there, and not brought again meanwhile.
                    Some(info) if *info == orphan.info => {
                        found.remove(&key);
                        if at_work.saturating_sub(found_at_work) >= self.config.grace {
                            due.push(orphan);
                        }
                    }
                    _ => gone.push(Change::remove(Kind::Orphan, key.as_bytes())),
                }
            }
            if !gone.is_empty() {
                self.with.notes.change(gone).await?;
            }
        }
        let notes: Vec<_> = found.into_values().map(|info| self.note_of(&info, at_work, look.number)).collect();
        let mut notes = notes.into_iter().peekable();
        while notes.peek().is_some() {
            self.with.notes.change(notes.by_ref().take(PAGE).collect()).await?;
        }
        Ok(due)
    }

    fn note_of(&self, info: &ObjectInfo, at_work: Duration, look: u64) -> Change {
        let note = OrphanNote {
            length: info.object.length,
            blake3: Bytes::copy_from_slice(&info.object.digest.0),
            put_ended_at_ms: info.put_ended_at_ms,
            found_at_ms: self.with.appender.now_ms(),
            found_at_work_ms: u64::try_from(at_work.as_millis()).unwrap_or(u64::MAX),
            look,
        };
        Change::put(Kind::Orphan, info.object.key.as_bytes(), &note)
    }

    /// Removes what is due and may go, and notes down what the look came to.
    async fn remove_due(&self, due: Vec<Orphan>, reading: &mut Reading, note: LookNote) -> Result<LookNote, Error> {
        let released = self.released().await?;
        let (free, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|orphan| orphan.look <= released.look);
        let kept = if others.is_empty() {
            None
        } else if reading.unreadable {
            Some(OrphansKept::UnreadableRecords)
        } else if self.with.log.incarnation().0 != released.incarnation {
            Some(OrphansKept::NewLife)
        // Most of what there is: a log that was begun anew over the objects of another.
        } else if others.len() > self.config.unattended_max || others.len() as u64 > note.objects / 2 {
            Some(OrphansKept::TooMany)
        } else {
            None
        };
        let going: Vec<_> = free.into_iter().chain(others.into_iter().filter(|_| kept.is_none())).collect();
        let (mut removed, mut removed_bytes) = (0, 0);
        for orphans in going.chunks(REMOVED_AT_ONCE) {
            for bytes in self.remove(orphans, reading).await? {
                removed += 1;
                removed_bytes += bytes;
            }
        }
        let (left, left_bytes) = self.left().await?;
        let ended_at_work = self.with.retention.worked.now().await?;
        let note = LookNote {
            ended_at_ms: self.with.appender.now_ms(),
            ended_at_work_ms: u64::try_from(ended_at_work.as_millis()).unwrap_or(u64::MAX),
            events: reading.events,
            removed,
            removed_bytes,
            left,
            left_bytes,
            kept: number(kept),
            ..note
        };
        self.with.notes.change(vec![Change::put(Kind::OrphanLook, &[], &note)]).await?;
        metrics::orphans_removed(removed, removed_bytes);
        Ok(note)
    }

    /// Removes some that no event names up to now; gives their lengths.
    async fn remove(&self, orphans: &[Orphan], reading: &mut Reading) -> Result<Vec<u64>, Error> {
        let mut named_meanwhile = BTreeSet::new();
        self.read_on(reading, |record| named_meanwhile.extend(record.envelope.object_keys.iter().copied())).await?;
        let (mut removed, mut changes) = (BTreeMap::new(), Vec::new());
        for orphan in orphans {
            let ObjectInfo { object, .. } = orphan.info;
            match self.with.objects.stat(object.key).await {
                Ok(info) if info == orphan.info && !named_meanwhile.contains(&object.key) => {
                    self.with.objects.delete(object.key).await?;
                    tracing::info!(object_key = %object.key, bytes = object.length, "an object is removed that no event names");
                    removed.insert(object.key, object.length);
                }
                Ok(_) => {}
                Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            changes.push(Change::remove(Kind::Orphan, object.key.as_bytes()));
        }
        self.with.notes.change(changes).await?;
        self.bring_back(&removed, reading).await?;
        Ok(removed.into_values().collect())
    }

    /// Another site may have named an object in the moment in which it was removed: that site has its bytes.
    async fn bring_back(&self, removed: &BTreeMap<ObjectKey, u64>, reading: &mut Reading) -> Result<(), Error> {
        let mut gone = Vec::new();
        self.read_on(reading, |record| {
            let known = named(record).known.into_iter();
            gone.extend(known.filter(|named| removed.contains_key(&named.object.key)));
        })
        .await?;
        for named in gone {
            self.with.damages.found(&named, Damage::Gone, DamageFoundBy::Scrub).await?;
        }
        Ok(())
    }

    /// How many are noted down, and their bytes.
    async fn left(&self) -> Result<(u64, u64), Error> {
        let (mut left, mut bytes, mut after) = (0, 0, None);
        loop {
            let page = self.page(after).await?;
            let Some((last, _)) = page.last() else { return Ok((left, bytes)) };
            after = Some(last.info.object.key);
            left += page.len() as u64;
            bytes += page.iter().map(|(orphan, _)| orphan.info.object.length).sum::<u64>();
        }
    }
}
