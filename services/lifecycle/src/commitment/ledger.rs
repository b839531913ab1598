//! What is known of transactions: their events, all in one partition of the log, as it grows, and noted down so that years of
//! them need not be read again.

use super::record::{Known, TransactionNote, note_key, note_prefix, transaction_from, transaction_of};
use crate::{
    append::Appender,
    notes::{Change, Kind, Notes, malformed},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, Offset, Partition, authority,
    commitment::{KINDS, Key, State},
    events::Event,
    fold::EventOrder,
};
use cairn_service_api::{
    Error,
    commitment::{Commitment, Transaction},
};
use cairn_store_api::{EventLog, LogRecord};
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 256;
const READ_BYTES: usize = 1 << 20;
/// Records gone past, none of them about storage commitment, after which that is noted down.
const NOTED_EVERY: u64 = 4096;
/// Notes that are read at once.
const PAGE: usize = 256;

/// How far the partition was read, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct ReadNote {
    #[prost(uint64, tag = "1")]
    to: u64,
    #[prost(bytes = "bytes", tag = "2")]
    last: Bytes,
}

/// Says only that a transaction is not done.
#[derive(Clone, PartialEq, Message)]
struct OpenNote {}

/// How far the partition was read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    to: Offset,
    last: Option<EventId>,
    noted: Offset,
}

/// The transactions of this site.
pub(super) struct Ledger {
    log: Arc<dyn EventLog>,
    notes: Arc<Notes>,
    appender: Arc<Appender>,
    partition: Partition,
    read: watch::Sender<Read>,
    /// Those that are not done, or of which somebody is to be told.
    open: Mutex<BTreeMap<Transaction, Known>>,
    /// Changes of any of them, counted.
    changes: watch::Sender<u64>,
}

/// Whether there is something to be done about a transaction.
fn is_open(known: &Known) -> bool {
    matches!(known.folded.state(), Some(State::Pending | State::Unreported))
}

impl Ledger {
    /// Goes on from what was noted down, if the log is still the one that was read.
    pub(super) async fn open(
        log: Arc<dyn EventLog>,
        notes: Arc<Notes>,
        appender: Arc<Appender>,
    ) -> Result<Self, Error> {
        let partition = authority::partition(log.partitions());
        let (read, open) = (watch::Sender::new(Read::default()), Mutex::default());
        let this = Self { log, notes, appender, partition, read, open, changes: watch::Sender::default() };
        let noted = this.notes.get::<ReadNote>(Kind::TransactionsRead, &[]).await?.unwrap_or_default();
        let (to, last) = (Offset(noted.to), EventId::from_slice(&noted.last).ok());
        if this.event_before(to).await? == last {
            this.read.send_replace(Read { to, last, noted: to });
            this.load_open().await?;
        } else {
            this.forget().await?;
        }
        Ok(this)
    }

    /// The event before an offset; `None`: the log has none there.
    async fn event_before(&self, offset: Offset) -> Result<Option<EventId>, Error> {
        let Some(before) = offset.0.checked_sub(1).map(Offset) else { return Ok(None) };
        if self.log.end(self.partition).await? < offset {
            return Ok(None);
        }
        let batch = self.log.read(self.partition, before, 1, 1).await?;
        Ok(batch.records.first().map(|record| record.record.envelope.id))
    }

    async fn load_open(&self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.notes.page::<OpenNote>(Kind::OpenTransaction, after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, _) in page {
                let transaction = transaction_from(&key)?;
                if let Some(known) = self.noted(&transaction).await? {
                    self.appender.observe_reading(known.last());
                    self.opened().insert(transaction, known);
                }
            }
        }
    }

    /// What was noted is of another log.
    async fn forget(&self) -> Result<(), Error> {
        for kind in [Kind::Transaction, Kind::OpenTransaction] {
            loop {
                let page = self.notes.page::<TransactionNote>(kind, None, PAGE).await?;
                if page.is_empty() {
                    break;
                }
                self.notes.change(page.into_iter().map(|(key, _)| Change::remove(kind, &key)).collect()).await?;
            }
        }
        Ok(())
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<Transaction, Known>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn noted(&self, transaction: &Transaction) -> Result<Option<Known>, Error> {
        let note = self.notes.get::<TransactionNote>(Kind::Transaction, &note_key(transaction)).await?;
        note.map(|note| Known::from_note(note, self.log.site())).transpose()
    }

    /// What is known of a transaction.
    pub(super) async fn known(&self, transaction: &Transaction) -> Result<Option<Known>, Error> {
        let open = self.opened().get(transaction).cloned();
        match open {
            Some(known) => Ok(Some(known)),
            None => self.noted(transaction).await,
        }
    }

    /// Asks about each of those that are not done.
    pub(super) fn each_open<T>(&self, each: impl FnMut((&Transaction, &Known)) -> Option<T>) -> Vec<T> {
        self.opened().iter().filter_map(each).collect()
    }

    /// Tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something else than an event changed what is to be done.
    pub(super) fn touch(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Waits until everything in the log is known.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn caught_up(&self) -> Result<(), Error> {
        let end = self.log.end(self.partition).await?;
        let mut read = self.read.subscribe();
        // The sender is `self`: it can't be gone.
        let _never = read.wait_for(|read| read.to >= end).await;
        Ok(())
    }

    /// Makes something a fact; it is known on return.
    ///
    /// # Errors
    /// The log's: it may be a fact or not.
    pub(super) async fn append(
        &self,
        event: Event,
        follows: Option<EventId>,
        known: Option<&Known>,
    ) -> Result<(), Error> {
        if let Some(known) = known {
            self.appender.observe_reading(known.last());
        }
        self.appender.append_after(&event, follows).await?;
        self.caught_up().await
    }

    /// An event of a transaction, whole.
    ///
    /// # Errors
    /// The log's; `Corrupt`: it does not have it.
    pub(super) async fn event(&self, known: &Known, id: EventId) -> Result<Event, Error> {
        let offset = known.offset(id).ok_or_else(malformed)?;
        let batch = self.log.read(self.partition, offset, 1, 1).await?;
        let record = batch.records.into_iter().next().filter(|record| record.record.envelope.id == id);
        let record = record.ok_or_else(malformed)?.record;
        Event::decode(&record.envelope.kind, record.payload).map_err(|_| malformed())
    }

    /// Transactions of a tenant, or of one of its requesters, after one.
    pub(super) async fn page(
        &self,
        tenant: &str,
        requester: Option<&str>,
        after: Option<Bytes>,
    ) -> Result<Vec<(Bytes, Commitment)>, Error> {
        let prefix = note_prefix(tenant, requester);
        let after = after.unwrap_or_else(|| prefix.clone());
        let page = self.notes.page::<TransactionNote>(Kind::Transaction, Some(after), PAGE).await?;
        let mut found = Vec::with_capacity(page.len());
        for (key, note) in page.into_iter().take_while(|(key, _)| key.starts_with(&prefix)) {
            let known = Known::from_note(note, self.log.site())?;
            found.extend(known.summary(&transaction_from(&key)?).map(|summary| (key, summary)));
        }
        Ok(found)
    }

    /// Follows for ever. A log that is away is waited for.
    pub(super) async fn follow(&self, retry_pause: Duration) {
        loop {
            if let Err(error) = self.read_on().await {
                tracing::warn!(%error, "requests for storage commitment can't be read from the log, or noted down");
                tokio::time::sleep(retry_pause).await;
            }
        }
    }

    async fn read_on(&self) -> Result<(), Error> {
        let from = *self.read.borrow();
        let batch = self.log.read(self.partition, from.to, READ_RECORDS, READ_BYTES).await?;
        let Some(last) = batch.records.last() else {
            self.log.wait_beyond(self.partition, from.to).await?;
            return Ok(());
        };
        let mut read = Read { to: last.offset.next(), last: Some(last.record.envelope.id), ..from };
        let changed = self.fold(batch.records).await?;
        if !changed.is_empty() || read.to.0 - read.noted.0 >= NOTED_EVERY {
            self.note(&changed, &read).await?;
            read.noted = read.to;
        }
        let has_changed = !changed.is_empty();
        let mut open = self.opened();
        for (transaction, known) in changed {
            if is_open(&known) {
                open.insert(transaction, known)
            } else {
                open.remove(&transaction)
            };
        }
        drop(open);
        self.read.send_replace(read);
        if has_changed {
            self.touch();
        }
        Ok(())
    }

    /// Transactions of this site as they are with these records.
    async fn fold(&self, records: Vec<LogRecord>) -> Result<HashMap<Transaction, Known>, Error> {
        let mut changed: HashMap<Transaction, Known> = HashMap::new();
        for LogRecord { offset, record, .. } in records {
            let envelope = record.envelope;
            self.appender.observe(&envelope);
            if !envelope.kind.starts_with(KINDS) || envelope.site != *self.log.site() {
                continue;
            }
            let event = match Event::decode(&envelope.kind, record.payload) {
                Ok(event) => event,
                Err(error) => {
                    tracing::warn!(kind = %envelope.kind, %error, "an event is passed over: it needs a newer build");
                    continue;
                }
            };
            let Some(transaction) = Key::of(&envelope, &event).as_ref().and_then(transaction_of) else { continue };
            let mut known = match changed.remove(&transaction) {
                Some(known) => known,
                None => self.known(&transaction).await?.unwrap_or_default(),
            };
            known.include(EventOrder::of(&envelope), offset, event);
            changed.insert(transaction, known);
        }
        Ok(changed)
    }

    async fn note(&self, changed: &HashMap<Transaction, Known>, read: &Read) -> Result<(), Error> {
        let last = read.last.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default();
        let mut changes = vec![Change::put(Kind::TransactionsRead, &[], &ReadNote { to: read.to.0, last })];
        for (transaction, known) in changed {
            let key = note_key(transaction);
            changes.push(Change::put(Kind::Transaction, &key, &known.to_note()));
            changes.push(match is_open(known) {
                true => Change::put(Kind::OpenTransaction, &key, &OpenNote {}),
                false => Change::remove(Kind::OpenTransaction, &key),
            });
        }
        self.notes.change(changes).await
    }
}
