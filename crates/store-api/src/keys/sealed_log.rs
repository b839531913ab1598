use super::{KeyRing, ring};
use crate::{EventLog, Lives, LogBatch, Record, StoreError, StoreErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Envelope, Incarnation, Offset, Partition, SiteId,
    events::Event,
    sealing::{Subject, keys_of, may_be_sealed, open, seal, subject},
};
use std::{collections::HashSet, sync::Arc};

/// A log as the services of a site see it: what they append is sealed, what they read is opened. The log below has what is
/// sealed, and that is what other sites are sent and what is notarised.
///
/// An event whose key is not here, or not to be had at present, can't be read: `Unavailable`, and whoever reads waits for it. One
/// whose key is destroyed is given without what was sealed; one whose key was abandoned as it is stored.
pub struct SealedLog {
    log: Arc<dyn EventLog>,
    /// `None`: there is no key store, nothing is sealed, and what is can't be read.
    keys: Option<Arc<KeyRing>>,
}

impl SealedLog {
    /// Over a log and the keys of the process.
    pub fn new(log: Arc<dyn EventLog>, keys: Option<Arc<KeyRing>>) -> Self {
        Self { log, keys }
    }

    async fn opened(&self, envelope: &Envelope, payload: Bytes) -> Result<Bytes, StoreError> {
        let ids = keys_of(&envelope.kind, &payload);
        if ids.is_empty() {
            return Ok(payload);
        }
        let Some(keys) = &self.keys else {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "an event is sealed, and there is no key store here",
            ));
        };
        let keys = keys.opening(&ids).await?;
        Ok(open(&envelope.kind, envelope.id, payload, &keys))
    }
}

/// Records that are to be sealed, by their places, each with the subject of its event.
fn to_seal(records: &[Record]) -> Vec<(usize, Event, Subject)> {
    let decoded = records.iter().enumerate().filter_map(|(at, record)| {
        let Record { envelope, payload } = record;
        let event = may_be_sealed(&envelope.kind).then(|| Event::decode(&envelope.kind, payload.clone()).ok())??;
        let subject = subject(&event)?;
        Some((at, event, subject))
    });
    decoded.collect()
}

async fn sealed(
    keys: &KeyRing,
    id: cairn_archive::EventId,
    mut event: Event,
    whom: &Subject,
) -> Result<Bytes, StoreError> {
    let key = keys.sealing(whom).await?;
    seal(&mut event, id, &key, [ring::nonce()?, ring::nonce()?])
        .map_err(|error| StoreError::new(StoreErrorKind::Internal, error.to_string()))?;
    Ok(event.encode())
}

#[async_trait]
impl EventLog for SealedLog {
    fn site(&self) -> &SiteId {
        self.log.site()
    }

    fn lives(&self) -> &Lives {
        self.log.lives()
    }

    fn partitions(&self) -> u16 {
        self.log.partitions()
    }

    fn below(&self) -> Option<&dyn EventLog> {
        Some(&*self.log)
    }

    async fn append(&self, partition: Partition, mut records: Vec<Record>) -> Result<Offset, StoreError> {
        let Some(keys) = self.keys.as_ref().filter(|keys| keys.seals()) else {
            return self.log.append(partition, records).await;
        };
        let events = to_seal(&records);
        if events.is_empty() {
            return self.log.append(partition, records).await;
        }
        let in_use = keys.in_use(events.iter().map(|(.., subject)| subject.study).collect::<HashSet<_>>());
        for (at, event, subject) in events {
            if let Some(record) = records.get_mut(at) {
                // The key is durable before what is under it is (I1, of keys).
                record.payload = sealed(keys, record.envelope.id, event, &subject).await?;
            }
        }
        if !in_use.may_be_appended() {
            let message = "a key was retired while something was sealed under it: it is to be brought again";
            return Err(StoreError::new(StoreErrorKind::Unavailable, message));
        }
        let log = self.log.clone();
        // Dropped by its caller it goes on, and so its keys stay in use.
        let appended = tokio::spawn(async move {
            let appended = log.append(partition, records).await;
            drop(in_use);
            appended
        });
        appended.await.map_err(|_| StoreError::new(StoreErrorKind::Internal, "an append ended abnormally"))?
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        let LogBatch { records, end } = self.log.read(partition, from, records_max, bytes_max).await?;
        let mut opened = Vec::with_capacity(records.len());
        for mut read in records {
            match self.opened(&read.record.envelope, read.record.payload).await {
                Ok(payload) => read.record.payload = payload,
                // What stands before it can be read.
                Err(_) if !opened.is_empty() => break,
                Err(error) => return Err(error),
            }
            opened.push(read);
        }
        Ok(LogBatch { records: opened, end })
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.log.end(partition).await
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        self.log.wait_beyond(partition, offset).await
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
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
