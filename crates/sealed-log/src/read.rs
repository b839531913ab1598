//! Events out of ranges.

use crate::{
    format::{corrupt, take_record},
    ranges::{Footer, Known, SealedRange, SealedRanges},
};
use bytes::{Bytes, BytesMut};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{ByteStream, LogRecord, ObjectRef, ObjectStore, StoreError};
use futures_util::TryStreamExt;
use std::{ops::Range, sync::Arc};
use tokio::sync::MutexGuard;

/// All bytes of a range.
pub(crate) async fn read_bytes(
    objects: &dyn ObjectStore,
    object: &ObjectRef,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    let mut stream = objects.read(object, range).await?;
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

impl SealedRanges {
    /// Events from `from` on, as [`cairn_store_api::EventLog::read`] gives them, up to the end of a range; `None`: what stands
    /// there is not sealed.
    ///
    /// # Errors
    /// `Corrupt`: the range is damaged; those of the object store.
    pub async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Vec<LogRecord>>, StoreError> {
        let mut known = self.with(partition, |range| range.offsets.end > from).await?;
        let at = known.ranges.partition_point(|range| range.offsets.end <= from);
        let Some(range) = known.ranges.get(at).cloned() else { return Ok(None) };
        let footer = self.footer_of(&range, &mut known).await?;
        drop(known);
        let mut events = self.events_from(&range, &footer, from, bytes_max).await?;
        let (mut records, mut bytes): (Vec<LogRecord>, _) = (Vec::new(), 0);
        while records.len() < records_max.max(1) && (records.is_empty() || bytes < bytes_max) {
            let Some(record) = events.next().await? else { break };
            bytes += record.record.payload.len();
            records.push(record);
        }
        match records.is_empty() {
            true => Err(corrupt("it lacks events that it should have")),
            false => Ok(Some(records)),
        }
    }

    /// First offset that the log took at or after a time; `None`: nothing that is sealed.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Option<Offset>, StoreError> {
        let known = self.with(partition, |range| range.last_appended_at_ms >= unix_ms).await?;
        let at = known.ranges.partition_point(|range| range.last_appended_at_ms < unix_ms);
        let later: Vec<SealedRange> = known.ranges.get(at..).unwrap_or_default().to_vec();
        drop(known);
        for range in later {
            if let Some(offset) = self.offset_in(&range, unix_ms).await? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    async fn offset_in(&self, range: &SealedRange, unix_ms: u64) -> Result<Option<Offset>, StoreError> {
        let footer = self.footer(&range.object).await?;
        let later = footer.said.blocks.partition_point(|block| block.appended_at_ms < unix_ms);
        let block = later.checked_sub(1).and_then(|before| footer.said.blocks.get(before));
        let from = block.map_or(range.offsets.start, |block| Offset(block.first_offset));
        let mut events = self.events_from(range, &footer, from, usize::MAX).await?;
        while let Some(record) = events.next().await? {
            if record.appended_at_ms >= unix_ms {
                return Ok(Some(record.offset));
            }
        }
        Ok(None)
    }

    /// What is known of a partition; the object store is asked for more only if the last range is not as asked for.
    async fn with(
        &self,
        partition: Partition,
        is_enough: impl Fn(&SealedRange) -> bool,
    ) -> Result<MutexGuard<'_, Known>, StoreError> {
        let known = self.partition(partition)?.lock().await;
        if known.ranges.last().is_some_and(is_enough) {
            return Ok(known);
        }
        drop(known);
        self.looked_for(partition).await
    }

    async fn footer_of(&self, range: &SealedRange, known: &mut Known) -> Result<Arc<Footer>, StoreError> {
        if let Some((_, footer)) = known.footer.as_ref().filter(|(name, _)| *name == range.name) {
            return Ok(footer.clone());
        }
        let footer = Arc::new(self.footer(&range.object).await?);
        known.footer = Some((range.name.clone(), footer.clone()));
        Ok(footer)
    }

    /// Opens a range at an event in it. Little more than `bytes` are asked of the object store.
    async fn events_from(
        &self,
        range: &SealedRange,
        footer: &Footer,
        from: Offset,
        bytes: usize,
    ) -> Result<Events<'_>, StoreError> {
        let blocks = &footer.said.blocks;
        let begun = blocks.partition_point(|block| block.first_offset <= from.0);
        let block = begun.checked_sub(1).and_then(|at| blocks.get(at));
        let block = block.ok_or_else(|| corrupt("it has no block of an event that it should have"))?;
        let wanted = block.position.saturating_add(bytes as u64);
        // An event more than fits, and the one that is asked for whatever its length.
        let mut following = blocks.iter().skip(begun).map(|block| block.position);
        let end = following.find(|position| *position > wanted).unwrap_or(footer.events_end);
        if block.position >= end {
            return Err(corrupt("its blocks are in no order"));
        }
        let stream = self.objects.read(&range.object, block.position..end).await?;
        let mut events = Events {
            ranges: self,
            stream,
            bytes: BytesMut::new(),
            next: Offset(block.first_offset),
            end: range.offsets.end,
        };
        while events.next < from {
            events.next().await?.ok_or_else(|| corrupt("it lacks events that it should have"))?;
        }
        Ok(events)
    }
}

/// Events of a range, one after the other.
struct Events<'a> {
    ranges: &'a SealedRanges,
    stream: ByteStream,
    bytes: BytesMut,
    next: Offset,
    end: Offset,
}

impl Events<'_> {
    /// The next one; `None`: no more was asked for, or the range ends.
    async fn next(&mut self) -> Result<Option<LogRecord>, StoreError> {
        if self.next >= self.end {
            return Ok(None);
        }
        loop {
            if let Some(record) = take_record(&mut self.bytes, self.next, &self.ranges.site)? {
                self.next = self.next.next();
                return Ok(Some(record));
            }
            match self.stream.try_next().await? {
                Some(piece) => self.bytes.extend_from_slice(&piece),
                None if self.bytes.is_empty() => return Ok(None),
                None => return Err(corrupt("an event is cut off")),
            }
        }
    }
}
