use crate::ranges::SealedRanges;
use async_trait::async_trait;
use cairn_archive::{Incarnation, Offset, Partition, SiteId};
use cairn_store_api::{EventLog, Lives, LogBatch, ObjectStore, Record, StoreError, StoreErrorKind};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A log that reads what it has lost from its beginning on (EL-17) out of sealed ranges. All else is the log's own.
pub struct SealedEventLog {
    log: Arc<dyn EventLog>,
    ranges: SealedRanges,
    /// By partition, the first offset that the log still has, as far as it is known.
    begins: Vec<AtomicU64>,
}

impl SealedEventLog {
    /// Over a log that is open.
    ///
    /// # Errors
    /// `Corrupt`: the log has lost events that are not sealed. Those of log and object store.
    pub async fn open(log: Arc<dyn EventLog>, objects: Arc<dyn ObjectStore>) -> Result<Self, StoreError> {
        let ranges = SealedRanges::new(&*log, objects);
        let mut begins = Vec::with_capacity(usize::from(log.partitions()));
        for partition in (0..log.partitions()).map(Partition) {
            let begin = log.beginning(partition).await?;
            if begin > Offset(0) {
                let sealed = ranges.of(partition).await?.last().map(|range| range.offsets.end).unwrap_or_default();
                if sealed < begin {
                    return Err(lost(partition, sealed, begin));
                }
                tracing::warn!(
                    partition = partition.0,
                    begins_at = begin.0,
                    "the log has lost its beginning, which is read from sealed ranges"
                );
            }
            begins.push(AtomicU64::new(begin.0));
        }
        Ok(Self { log, ranges, begins })
    }

    fn begin(&self, partition: Partition) -> Offset {
        Offset(self.begins.get(usize::from(partition.0)).map_or(0, |begin| begin.load(Ordering::Acquire)))
    }

    /// Asks the log again where it begins, when it did not give what stands at `from`.
    async fn has_lost(&self, partition: Partition, from: Offset) -> bool {
        let Ok(begin) = self.log.beginning(partition).await else { return false };
        if let Some(known) = self.begins.get(usize::from(partition.0))
            && known.fetch_max(begin.0, Ordering::AcqRel) < begin.0
        {
            tracing::warn!(partition = partition.0, begins_at = begin.0, "the log has lost its beginning");
        }
        from < begin
    }

    async fn read_sealed(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        let begin = self.begin(partition);
        let records = self.ranges.read(partition, from, records_max, bytes_max).await?;
        let records = records.ok_or_else(|| lost(partition, from, begin))?;
        let end = records.last().map(|last| last.offset.next()).unwrap_or_default();
        // What a follower compares its place with must not be where the range ends.
        Ok(LogBatch { records, end: self.log.end(partition).await?.max(end) })
    }
}

fn lost(partition: Partition, from: Offset, to: Offset) -> StoreError {
    let what = format!(
        "the log has lost partition {} from offset {} to {}, and it is not in sealed ranges",
        partition.0, from.0, to.0
    );
    StoreError::new(StoreErrorKind::Corrupt, what)
}

#[async_trait]
impl EventLog for SealedEventLog {
    fn site(&self) -> &SiteId {
        self.log.site()
    }

    fn lives(&self) -> &Lives {
        self.log.lives()
    }

    fn partitions(&self) -> u16 {
        self.log.partitions()
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        self.log.append(partition, records).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        if from >= self.begin(partition) {
            match self.log.read(partition, from, records_max, bytes_max).await {
                Err(_) if self.has_lost(partition, from).await => {}
                answer => return answer,
            }
        }
        self.read_sealed(partition, from, records_max, bytes_max).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.log.end(partition).await
    }

    async fn beginning(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.log.beginning(partition).await
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        self.log.wait_beyond(partition, offset).await
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        let begin = self.log.beginning(partition).await?;
        if begin > Offset(0)
            && let Some(offset) = self.ranges.offset_at(partition, unix_ms).await?
            && offset < begin
        {
            return Ok(offset);
        }
        self.log.offset_at(partition, unix_ms).await
    }

    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.log.file_bytes().await
    }

    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError> {
        self.log.renew(incarnation, begins).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.log.close().await
    }
}
