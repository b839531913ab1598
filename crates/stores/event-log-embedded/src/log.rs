use crate::{
    config::EventLogConfig,
    format,
    meta::Meta,
    reader,
    recovery::{self, Recovery},
    shared::{self, Shared, State},
    writer::{Pending, Writer},
};
use async_trait::async_trait;
use bytes::BytesMut;
use cairn_archive::{Incarnation, Offset, Partition, SiteId, envelope::compact};
use cairn_process::{clock::Clock, disk::Disk};
use cairn_store_api::{EventLog, Lives, LogBatch, Record, StoreError, StoreErrorKind};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// An event log in a directory.
///
/// Dropping it waits for appends under way, as [`EventLog::close`] does without blocking the thread.
pub struct EmbeddedEventLog {
    shared: Arc<Shared>,
    report: Recovery,
    /// Room for bytes in the queue.
    room: Arc<Semaphore>,
    queue: Mutex<Option<mpsc::Sender<Pending>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    closing: tokio::sync::Mutex<()>,
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl EmbeddedEventLog {
    /// Opens the log in `dir`, or creates it there. Takes time in proportion to one segment, whatever the log's length.
    ///
    /// A damaged log opens too: see [`Self::recovery`].
    ///
    /// # Errors
    /// `Conflict` when it is open already; `Invalid` when it is of another site or has another number of partitions, or
    /// the configuration contradicts itself; `Corrupt` when it can't be told what it is; `Exhausted` when there is no room for
    /// a first segment.
    /// # Cancel safety
    /// Dropping the future lets the opening go on, and closes the log after it.
    pub async fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: PathBuf,
        config: EventLogConfig,
    ) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(disk, clock, dir, config)).await
    }

    /// As [`Self::open`], on a thread that may block.
    pub fn open_blocking(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: PathBuf,
        config: EventLogConfig,
    ) -> Result<Self, StoreError> {
        config.check()?;
        recovery::create_dir(disk.as_ref(), &dir)?;
        let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::new(StoreErrorKind::Conflict, "event log is open already"),
            _ => StoreError::io("lock event log", &error),
        })?;
        let recovered = recovery::recover(disk.as_ref(), &dir, &config, clock.unix_ms())?;
        tell(&recovered.report);
        let partitions = usize::from(config.partitions);
        let state = State {
            sealed: recovered.sealed,
            index: recovered.index,
            file: recovered.open.file.clone(),
            damaged_from: recovered.damaged_from.map_or_else(|| vec![u64::MAX; partitions], |from| from.to_vec()),
            damage: recovered.report.damage.clone(),
        };
        let (sender, receiver) = mpsc::channel(usize::from(config.queue_appends_max));
        let room = Arc::new(Semaphore::new(config.queue_bytes_max as usize));
        let shared = Arc::new(Shared::new(config, recovered.meta, disk, clock, dir, state));
        let writer = Writer::new(shared.clone(), receiver, recovered.open);
        let thread = std::thread::Builder::new().name("cairn-log-writer".to_owned()).spawn(|| writer.run());
        let thread = thread.map_err(|error| StoreError::io("start event log writer", &error))?;
        Ok(Self {
            shared,
            report: recovered.report,
            room,
            queue: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            closing: tokio::sync::Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// What the opening found: for health checks and operators.
    pub fn recovery(&self) -> &Recovery {
        &self.report
    }

    fn index_of(&self, partition: Partition) -> Result<usize, StoreError> {
        let index = usize::from(partition.0);
        if partition.0 < self.shared.config.partitions {
            return Ok(index);
        }
        let what = format!("event log has no partition {}", partition.0);
        Err(StoreError::new(StoreErrorKind::Invalid, what))
    }

    /// The records as they are written, but for place and time.
    fn encode(&self, partition: Partition, records: &[Record]) -> Result<BytesMut, StoreError> {
        let too_long = |what: &str, length: usize, most: u32| {
            let what = format!("{what} of {length} bytes is over {most}");
            StoreError::new(StoreErrorKind::Invalid, what)
        };
        let config = &self.shared.config;
        let payloads: usize = records.iter().map(|record| record.payload.len()).sum();
        if payloads > config.append_bytes_max as usize {
            return Err(too_long("append", payloads, config.append_bytes_max));
        }
        let mut frames = BytesMut::with_capacity(payloads + records.len() * 256);
        for record in records {
            let start = format::begin_record(&mut frames);
            compact::encode(&record.envelope, &mut frames);
            let envelope = frames.len() - start - format::RECORD_HEAD;
            frames.extend_from_slice(&record.payload);
            let body = frames.len() - start - format::RECORD_HEAD;
            if body > config.record_bytes_max as usize {
                return Err(too_long("event log record", body, config.record_bytes_max));
            }
            format::end_record(&mut frames, start, partition, envelope);
        }
        if frames.len() > config.append_bytes_max as usize {
            return Err(too_long("append", frames.len(), config.append_bytes_max));
        }
        Ok(frames)
    }

    fn queue(&self) -> Result<mpsc::Sender<Pending>, StoreError> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(shared::closed)
    }

    /// Lets the writer end once it has answered all; gives its thread to wait for.
    fn stop(&self) -> Option<JoinHandle<()>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the writer has answered all.
    async fn end_writing(&self) -> Result<(), StoreError> {
        let Some(writer) = self.stop() else { return Ok(()) };
        blocking(move || {
            let ended = |_| StoreError::new(StoreErrorKind::Internal, "event log writer panicked");
            writer.join().map_err(ended)
        })
        .await
    }

    fn ends(&self) -> Vec<Offset> {
        self.shared.ends.iter().map(|end| Offset(*end.borrow())).collect()
    }

    fn release(&self) {
        self.shared.set_closed();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for EmbeddedEventLog {
    fn drop(&mut self) {
        if let Some(writer) = self.stop() {
            // It does not panic; should it, there is nothing left to do.
            let _ = writer.join();
        }
        self.release();
    }
}

fn tell(report: &Recovery) {
    if report.bytes_cut > 0 {
        tracing::info!(bytes = report.bytes_cut, "event log: an unfinished group was cut");
    }
    if report.indexes_rebuilt > 0 {
        tracing::warn!(indexes = report.indexes_rebuilt, "event log: segment indexes were lost and made anew");
    }
    if let Some(damage) = &report.damage {
        tracing::error!("{damage}");
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |error| StoreError::new(StoreErrorKind::Internal, format!("event log task ended: {error}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}

#[async_trait]
impl EventLog for EmbeddedEventLog {
    fn site(&self) -> &SiteId {
        &self.shared.meta.site
    }

    fn lives(&self) -> &Lives {
        &self.shared.meta.lives
    }

    fn partitions(&self) -> u16 {
        self.shared.meta.partitions
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        let index = self.index_of(partition)?;
        self.shared.check_appendable()?;
        if records.is_empty() {
            return Ok(Offset(*self.shared.ends[index].borrow()));
        }
        let frames = self.encode(partition, &records)?;
        drop(records);
        let queue = self.queue()?;
        let bytes = (frames.len() as u32).min(self.shared.config.queue_bytes_max);
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| shared::closed())?;
        let (reply, answer) = oneshot::channel();
        queue.send(Pending { partition, frames, reply, room }).await.map_err(|_| shared::closed())?;
        drop(queue);
        answer.await.map_err(|_| shared::closed())?
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        let index = self.index_of(partition)?;
        let end = *self.shared.ends[index].borrow();
        if from.0 >= end && from.0 < self.shared.read().damaged_from[index] && !self.shared.is_closed() {
            return Ok(LogBatch { records: Vec::new(), end: Offset(end) });
        }
        let request = reader::Request { partition, from, records_max, bytes_max };
        if let Some(batch) = reader::read_at_once(&self.shared, request)? {
            return Ok(batch);
        }
        let shared = self.shared.clone();
        blocking(move || reader::read(&shared, request)).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        let index = self.index_of(partition)?;
        if self.shared.is_closed() { Err(shared::closed()) } else { Ok(Offset(*self.shared.ends[index].borrow())) }
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        let index = self.index_of(partition)?;
        let damaged = self.shared.read().damaged_from[index];
        let mut ends = self.shared.ends[index].subscribe();
        if *ends.borrow() <= offset.0 && offset.0 >= damaged.saturating_sub(1) {
            return Err(reader::corrupt(partition, Offset(damaged)));
        }
        let end = ends.wait_for(|end| *end > offset.0 || self.shared.is_closed()).await.map(|end| *end);
        match end {
            Ok(end) if !self.shared.is_closed() => Ok(Offset(end)),
            _ => Err(shared::closed()),
        }
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        self.index_of(partition)?;
        let shared = self.shared.clone();
        blocking(move || reader::offset_at(&shared, partition, unix_ms)).await
    }

    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        let shared = self.shared.clone();
        let measured = move || shared.segment_bytes().map_err(|error| StoreError::io("measure event log", &error));
        blocking(measured).await.map(Some)
    }

    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError> {
        let _one = self.closing.lock().await;
        self.shared.check_appendable()?;
        // Ends move on until the writer has ended: what holds for these holds for those.
        let lives = self.shared.meta.lives.renewed(incarnation, begins, &self.ends())?;
        self.end_writing().await?;
        let (shared, meta) = (self.shared.clone(), Meta { lives, ..self.shared.meta.clone() });
        let renewed = blocking(move || meta.store(shared.disk.as_ref(), &shared.dir)).await;
        self.release();
        renewed
    }

    async fn close(&self) -> Result<(), StoreError> {
        let _one = self.closing.lock().await;
        self.end_writing().await?;
        self.release();
        Ok(())
    }
}
