//! Which ranges there are.

use crate::{
    format::{TAIL, corrupt, footer_length, read_footer},
    name::RangeName,
    read::read_bytes,
};
use cairn_archive::{EventId, Offset, Partition, SiteId, events::SealedFooter};
use cairn_store_api::{EventLog, Lives, ObjectRef, ObjectStore, StoreError, StoreErrorKind};
use std::{ops::Range, sync::Arc};
use tokio::sync::{Mutex, MutexGuard};

/// A range of a partition that is in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRange {
    /// Which one it is.
    pub name: RangeName,
    /// Offsets in it.
    pub offsets: Range<Offset>,
    /// Its object.
    pub object: ObjectRef,
    /// `ce_id` of the last event; `None` where the object goes on with what is not of the log any more.
    pub last: Option<EventId>,
    /// When the log took the last event of the object, in milliseconds since the Unix epoch.
    pub last_appended_at_ms: u64,
}

/// The sealed ranges of a site's log.
///
/// What was found is kept: a hundred bytes a range.
pub struct SealedRanges {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) site: SiteId,
    lives: Lives,
    known: Vec<Mutex<Known>>,
}

/// The end of an object.
pub(crate) struct Footer {
    pub(crate) said: SealedFooter,
    /// Where events end.
    pub(crate) events_end: u64,
}

/// What is known of a partition.
#[derive(Default)]
pub(crate) struct Known {
    /// In order, without gaps from offset 0; each as far as it is of its life.
    pub(crate) ranges: Vec<SealedRange>,
    /// The next one in the life that was looked at last; `None`: nothing was looked for yet.
    next: Option<RangeName>,
    /// The range that was read last, and where events are in it.
    pub(crate) footer: Option<(RangeName, Arc<Footer>)>,
}

impl Known {
    /// Where the next range begins.
    pub(crate) fn end(&self) -> Offset {
        self.ranges.last().map(|range| range.offsets.end).unwrap_or_default()
    }
}

impl SealedRanges {
    /// Those of a log, in an object store. Nothing is read yet.
    pub fn new(log: &dyn EventLog, objects: Arc<dyn ObjectStore>) -> Self {
        let known = (0..log.partitions()).map(|_| Mutex::default()).collect();
        Self { objects, site: log.site().clone(), lives: log.lives().clone(), known }
    }

    /// What is sealed of a partition, in order and without gaps from offset 0; also what another process sealed meanwhile.
    ///
    /// # Errors
    /// `Corrupt`: a range is damaged, or not what its name says; those of the object store.
    pub async fn of(&self, partition: Partition) -> Result<Vec<SealedRange>, StoreError> {
        Ok(self.looked_for(partition).await?.ranges.clone())
    }

    pub(crate) fn partition(&self, partition: Partition) -> Result<&Mutex<Known>, StoreError> {
        let absent = || StoreError::new(StoreErrorKind::Invalid, format!("event log has no partition {}", partition.0));
        self.known.get(usize::from(partition.0)).ok_or_else(absent)
    }

    /// With all ranges that are there.
    pub(crate) async fn looked_for(&self, partition: Partition) -> Result<MutexGuard<'_, Known>, StoreError> {
        let mut known = self.partition(partition)?.lock().await;
        let mut lives =
            std::iter::once(self.lives.first()).chain(self.lives.later().iter().map(|life| life.incarnation));
        if let Some(next) = &known.next {
            lives.find(|life| *life == next.incarnation);
        }
        loop {
            if let Some(next) = known.next.clone() {
                self.look_from(next, &mut known).await?;
            }
            let Some(incarnation) = lives.next() else { return Ok(known) };
            known.next = Some(RangeName { site: self.site.clone(), incarnation, partition, ordinal: 0 });
        }
    }

    /// Finds the ranges of one life from `next` on.
    async fn look_from(&self, mut next: RangeName, known: &mut Known) -> Result<(), StoreError> {
        while let Some((range, footer)) = self.find(&next).await? {
            self.add(range, &mut *known)?;
            known.footer = Some((next, Arc::new(footer)));
            next = known.next.clone().ok_or_else(|| corrupt("it has no successor"))?;
        }
        Ok(())
    }

    /// Adds the next range, as far as it is of its life.
    pub(crate) fn add(&self, mut range: SealedRange, known: &mut Known) -> Result<(), StoreError> {
        let RangeName { incarnation, partition, .. } = range.name;
        let next = range.name.next();
        let of_life = self.lives.range(incarnation, partition).map_or(Offset(0), |life| life.end);
        if range.offsets.end > of_life {
            (range.offsets.end, range.last) = (of_life, None);
        }
        // All of it is of a later life.
        if range.offsets.start >= of_life {
            known.next = Some(next);
            return Ok(());
        }
        if range.offsets.start != known.end() {
            return Err(corrupt(&format!("one of partition {} does not begin where the last one ends", partition.0)));
        }
        known.ranges.push(range);
        known.next = Some(next);
        Ok(())
    }

    /// The name that the next range of a partition has.
    pub(crate) fn next(&self, known: &Known, partition: Partition) -> RangeName {
        let first = || RangeName { site: self.site.clone(), incarnation: self.lives.newest(), partition, ordinal: 0 };
        known.next.clone().unwrap_or_else(first)
    }

    /// The range of a name; `None`: there is none.
    pub(crate) async fn find(&self, name: &RangeName) -> Result<Option<(SealedRange, Footer)>, StoreError> {
        let object = match self.objects.stat(name.key()).await {
            Ok(info) => info.object,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = self.footer(&object).await?;
        let footer = &found.said;
        let named = footer.site == name.site.as_str()
            && footer.incarnation == name.incarnation.0
            && footer.partition == u32::from(name.partition.0)
            && footer.ordinal == name.ordinal;
        let last = EventId::from_slice(&footer.last_event_id).map_err(|_| corrupt("its last event has no id"))?;
        if !named || footer.first_offset >= footer.end_offset {
            return Err(corrupt("it is not the one that its key is of"));
        }
        let range = SealedRange {
            name: name.clone(),
            offsets: Offset(footer.first_offset)..Offset(footer.end_offset),
            object,
            last: Some(last),
            last_appended_at_ms: footer.last_appended_at_ms,
        };
        Ok(Some((range, found)))
    }

    pub(crate) async fn footer(&self, object: &ObjectRef) -> Result<Footer, StoreError> {
        let end = object.length.checked_sub(TAIL).ok_or_else(|| corrupt("it has no end"))?;
        let length = footer_length(read_bytes(&*self.objects, object, end..object.length).await?)?;
        let begin = end.checked_sub(length).ok_or_else(|| corrupt("its footer is longer than it"))?;
        let said = read_footer(read_bytes(&*self.objects, object, begin..end).await?)?;
        Ok(Footer { said, events_end: begin })
    }
}
