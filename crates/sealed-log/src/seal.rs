//! Events into ranges.

use crate::{
    format::{BEGIN, put_footer, put_record},
    name::RangeName,
    ranges::{SealedRange, SealedRanges},
};
use bytes::{Bytes, BytesMut};
use cairn_archive::{
    Offset, Partition,
    events::{SealedBlock, SealedFooter},
};
use cairn_store_api::{EventLog, LogRecord, ObjectWriter, StoreError, StoreErrorKind};

/// Blocks are at least as long, all but the last: who reads from anywhere reads one too much at most.
const BLOCK: usize = 256 << 10;
/// Events and bytes that are asked of the log at a time.
const BATCH: (usize, usize) = (1_000, 1 << 20);

impl SealedRanges {
    /// Seals what follows the last range of a partition, up to `to`, or as far as it is of the newest life. `None`: all of that is
    /// sealed. A range that is there already, because whoever sealed it died then, is given as it is.
    ///
    /// # Errors
    /// `Conflict`: the log does not have the last event that was sealed; it was restored from a backup, or is another one.
    /// `Corrupt`: a range is damaged. Those of log and object store. Nothing is sealed then.
    /// # Cancel safety
    /// Dropped, it may be sealed or not.
    pub async fn seal(
        &self,
        log: &dyn EventLog,
        partition: Partition,
        to: Offset,
    ) -> Result<Option<SealedRange>, StoreError> {
        let mut known = self.looked_for(partition).await?;
        if let Some(last) = known.ranges.last() {
            self.goes_on(log, last).await?;
        }
        let (name, from) = (self.next(&known, partition), known.end());
        if from >= to {
            return Ok(None);
        }
        let range = match self.write(log, &name, from, to).await {
            Ok(range) => range,
            // Another process was faster.
            Err(error) if error.kind() == StoreErrorKind::Conflict => {
                let there = self.find(&name).await?;
                let (range, _) = there.ok_or(error)?;
                self.goes_on(log, &range).await?;
                range
            }
            Err(error) => return Err(error),
        };
        self.add(range.clone(), &mut known)?;
        Ok(Some(range))
    }

    /// The log has the last event of a range.
    async fn goes_on(&self, log: &dyn EventLog, range: &SealedRange) -> Result<(), StoreError> {
        let Some(sealed) = range.last else { return Ok(()) };
        let partition = range.name.partition;
        let last = Offset(range.offsets.end.0.saturating_sub(1));
        let there = log.read(partition, last, 1, 1).await?;
        if there.records.first().is_some_and(|record| record.record.envelope.id == sealed) {
            return Ok(());
        }
        let what = format!(
            "partition {} of the log does not have the last event that was sealed: it was restored from a backup, or is another log",
            partition.0
        );
        Err(StoreError::new(StoreErrorKind::Conflict, what))
    }

    async fn write(
        &self,
        log: &dyn EventLog,
        name: &RangeName,
        from: Offset,
        to: Offset,
    ) -> Result<SealedRange, StoreError> {
        let mut writing = Writing {
            writer: self.objects.put(name.key(), None).await?,
            block: BytesMut::from(BEGIN.as_slice()),
            position: 0,
            blocks: Vec::new(),
            last: None,
        };
        let mut next = from;
        while next < to {
            let batch = log.read(name.partition, next, BATCH.0, BATCH.1).await?;
            let Some(last) = batch.records.last() else { break };
            next = last.offset.next().min(to);
            for record in batch.records.into_iter().filter(|record| record.offset < to) {
                writing.add(record).await?;
            }
        }
        writing.finish(name, from).await
    }
}

/// A range on its way into the object store.
struct Writing {
    writer: Box<dyn ObjectWriter>,
    block: BytesMut,
    /// Of the block's first byte.
    position: u64,
    blocks: Vec<SealedBlock>,
    last: Option<LogRecord>,
}

impl Writing {
    async fn add(&mut self, record: LogRecord) -> Result<(), StoreError> {
        if self.block.len() >= BLOCK {
            self.flush().await?;
        }
        if self.blocks.last().is_none_or(|last| last.position < self.position) {
            let position = self.position + self.block.len() as u64;
            let (first_offset, appended_at_ms) = (record.offset.0, record.appended_at_ms);
            self.blocks.push(SealedBlock { first_offset, position, appended_at_ms });
        }
        put_record(&record, &mut self.block);
        self.last = Some(record);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.position += self.block.len() as u64;
        self.writer.write(self.block.split().freeze()).await
    }

    async fn finish(mut self, name: &RangeName, from: Offset) -> Result<SealedRange, StoreError> {
        let nothing = || StoreError::new(StoreErrorKind::Invalid, "there is nothing to seal");
        let last = self.last.take().ok_or_else(nothing)?;
        self.flush().await?;
        let (end, last_event) = (last.offset.next(), last.record.envelope.id);
        let footer = SealedFooter {
            site: name.site.to_string(),
            incarnation: name.incarnation.0,
            partition: name.partition.0.into(),
            ordinal: name.ordinal,
            first_offset: from.0,
            end_offset: end.0,
            last_event_id: Bytes::copy_from_slice(last_event.as_bytes()),
            last_appended_at_ms: last.appended_at_ms,
            blocks: std::mem::take(&mut self.blocks),
        };
        self.writer.write(put_footer(&footer)).await?;
        let object = self.writer.finish().await?.object;
        let last_appended_at_ms = last.appended_at_ms;
        Ok(SealedRange { name: name.clone(), offsets: from..end, object, last: Some(last_event), last_appended_at_ms })
    }
}
