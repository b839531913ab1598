use crate::{
    claim::{Claims, timestamp},
    commit,
    config::{CqlIndexConfig, VALUE_BYTES_MAX},
    error,
    generations::{Generations, Life},
    metrics,
    placement::{neighbours, within},
    schema,
    session::{Cql, applied},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Page, Row, StoreError, StoreErrorKind, Table};
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::{response::PagingState, statement::prepared::PreparedStatement};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

/// An index store in a keyspace of a cluster. Several processes may have it open.
pub struct CqlIndexStore {
    cql: Cql,
    generations: Generations,
    claims: Claims,
    pointer: PreparedStatement,
    set_pointer: PreparedStatement,
    closed: AtomicBool,
}

impl CqlIndexStore {
    /// Opens the store. The keyspace is to have the schema of this build: see [`CqlIndexStore::migrate`].
    ///
    /// # Errors
    /// `Invalid` when the configuration can't be used, or the schema is missing, older or newer; `Unavailable` when the
    /// cluster can't be reached in time.
    pub async fn open(config: CqlIndexConfig) -> Result<Self, StoreError> {
        let cql = Cql::connect(config).await?;
        schema::check(&cql).await?;
        Ok(Self {
            generations: Generations::new(&cql).await?,
            claims: Claims::new(&cql).await?,
            pointer: cql.prepare_settled("SELECT value FROM pointer WHERE id = 0").await?,
            set_pointer: cql.prepare("UPDATE pointer SET value = ? WHERE id = 0 IF value = ?").await?,
            closed: AtomicBool::new(false),
            cql,
        })
    }

    /// Makes the keyspace if need be, and applies the migrations that are missing. For an operator, one at a time; gives
    /// the version that the schema has then.
    ///
    /// # Errors
    /// `Invalid` when the schema is of a newer build; `Unavailable` when the cluster can't be reached in time. It can be
    /// called again after any failure.
    pub async fn migrate(config: CqlIndexConfig) -> Result<i32, StoreError> {
        let cql = Cql::connect(config).await?;
        schema::create_keyspace(&cql).await?;
        schema::migrate(&cql).await
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(error::new(StoreErrorKind::Unavailable, "open", "the store is closed"));
        }
        Ok(())
    }

    /// The generation for reading. One that another process dropped has nothing.
    async fn life(&self, generation: Generation) -> Result<Option<Arc<Life>>, StoreError> {
        self.check_open()?;
        self.generations.find(&self.cql, generation).await
    }

    /// Runs a read on a generation; empty where there is none, or none any more.
    async fn reading<T: Default, F: Future<Output = Result<T, StoreError>>>(
        &self,
        generation: Generation,
        read: impl Fn(Arc<Life>) -> F,
    ) -> Result<T, StoreError> {
        // Once more if it was dropped, and perhaps begun anew, since it was looked up.
        for _ in 0..2 {
            let Some(life) = self.life(generation).await? else { return Ok(T::default()) };
            match read(life).await {
                Err(error) if error.kind() == StoreErrorKind::NotFound => self.generations.forget(generation),
                done => return done,
            }
        }
        Ok(T::default())
    }

    async fn read(
        &self,
        life: &Life,
        table: Table,
        pk: &Bytes,
        ck: &Bytes,
        deadline: Instant,
    ) -> Result<Option<Bytes>, StoreError> {
        let values = (neighbours(table, pk), i16::from(table.id), within(table, pk), ck);
        let rows = self.cql.select("get", deadline, &life.get, values).await?;
        let found = rows.maybe_first_row::<(Option<Bytes>,)>().map_err(|_| error::unreadable("get"))?;
        // A page of the driver holds the whole frame; a value that is kept should not.
        Ok(found.map(|(value,)| value.map_or_else(Bytes::new, |value| Bytes::copy_from_slice(&value))))
    }

    async fn scan_life(&self, life: &Life, scan: &Scan<'_>) -> Result<Page, StoreError> {
        let from = scan.range.from.clone().unwrap_or_default();
        let mut page = Page::default();
        if scan.range.to.as_ref().is_some_and(|to| *to <= from) {
            return Ok(page);
        }
        let [with_end, open] = &life.scans;
        let statements = if scan.range.to.is_some() { with_end } else { open };
        let mut statement = statements[usize::from(scan.reverse)].clone();
        let wanted = scan.max.saturating_add(1);
        let at_once = wanted.min(usize::from(self.cql.config.page_rows_max));
        statement.set_page_size(i32::try_from(at_once).unwrap_or(i32::MAX));
        let pk = Bytes::copy_from_slice(scan.pk);
        let key = (neighbours(scan.table, &pk), i16::from(scan.table.id), within(scan.table, &pk), from);
        let deadline = self.cql.deadline();
        let mut at = PagingState::start();
        loop {
            let (rows, next) = match &scan.range.to {
                None => self.cql.page("scan", deadline, &statement, &key, at).await?,
                Some(to) => {
                    let values = (&key.0, key.1, &key.2, &key.3, to);
                    self.cql.page("scan", deadline, &statement, values, at).await?
                }
            };
            for row in rows.rows::<(Bytes, Option<Bytes>)>().map_err(|_| error::unreadable("scan"))? {
                let (ck, value) = row.map_err(|_| error::unreadable("scan"))?;
                if page.rows.len() == scan.max {
                    page.more = true;
                    return Ok(page);
                }
                page.rows.push(Row { ck, value: value.unwrap_or_default() });
            }
            match next {
                Some(next) => at = next,
                None => return Ok(page),
            }
        }
    }

    async fn commit_claimed(&self, life: &Life, commit: &Commit, held: Option<i64>) -> Result<i64, StoreError> {
        let deadline = self.cql.deadline();
        let epoch = self.claims.claim(&self.cql, &life.id, commit, held, deadline).await?;
        commit::write(&self.cql, life, commit, timestamp(epoch, commit.to)?, deadline).await?;
        self.claims.advance(&self.cql, &life.id, commit, epoch, deadline).await?;
        Ok(epoch)
    }
}

/// What a scan reads.
struct Scan<'a> {
    table: Table,
    pk: &'a [u8],
    range: &'a CkRange,
    reverse: bool,
    max: usize,
}

#[async_trait]
impl IndexStore for CqlIndexStore {
    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let (pk, ck) = (&Bytes::copy_from_slice(pk), &Bytes::copy_from_slice(ck));
        let deadline = self.cql.deadline();
        let read = |life: Arc<Life>| async move { self.read(&life, table, pk, ck, deadline).await };
        self.reading(generation, read).await
    }

    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let deadline = self.cql.deadline();
        let in_flight = usize::from(self.cql.config.reads_in_flight_max);
        let read = |life: Arc<Life>| async move {
            let life = &life;
            let keys = keys.iter().cloned();
            let reads = keys.map(|(pk, ck)| async move { self.read(life, table, &pk, &ck, deadline).await });
            stream::iter(reads).buffered(in_flight).try_collect::<Vec<_>>().await
        };
        let found = self.reading(generation, read).await?;
        Ok(if found.len() == keys.len() { found } else { vec![None; keys.len()] })
    }

    async fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError> {
        let scan = &Scan { table, pk, range, reverse, max };
        self.reading(generation, |life| async move { self.scan_life(&life, scan).await }).await
    }

    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError> {
        self.check_open()?;
        commit::check(&commit)?;
        let life = self.generations.ensure(&self.cql, generation).await?;
        let claim = self.claims.of(&life.id, commit.partition);
        let mut held = claim.lock().await;
        // Given back on success alone: after a commit that failed, or was dropped half-way, the next one takes a higher
        // epoch, so that its writes win over what this one has left.
        let epoch = held.take();
        match self.commit_claimed(&life, &commit, epoch).await {
            Ok(epoch) => *held = Some(epoch),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                self.generations.forget(generation);
                self.claims.forget(&life.id);
                return Err(commit::dropped());
            }
            Err(error) => {
                if error.kind() == StoreErrorKind::Conflict {
                    metrics::conflicted();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn offsets(
        &self,
        generation: Generation,
    ) -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError> {
        let deadline = self.cql.deadline();
        let in_flight = usize::from(self.cql.config.reads_in_flight_max);
        let read = |life: Arc<Life>| async move {
            let life = &life;
            let partitions = self.generations.partitions(&self.cql, &life.id, deadline).await?;
            let reads = partitions.into_iter().map(|partition| async move {
                let stored = self.claims.seen(&self.cql, &life.id, partition, deadline).await?;
                let partition = u16::try_from(partition).map_err(|_| error::unreadable("offsets"))?;
                Ok::<_, StoreError>((Partition(partition), stored.committed()))
            });
            stream::iter(reads).buffered(in_flight).try_collect::<Vec<_>>().await
        };
        let found = self.reading(generation, read).await?;
        let committed = found.into_iter().filter_map(|(partition, committed)| {
            let (life, offset, note) = committed?;
            Some((life, partition, offset, note))
        });
        let committed: Vec<_> = committed.collect();
        let newest = committed.iter().map(|(life, ..)| *life).max();
        Ok(committed.into_iter().filter(|(life, ..)| Some(*life) == newest).collect())
    }

    async fn offset(
        &self,
        generation: Generation,
        partition: Partition,
    ) -> Result<Option<(Incarnation, Offset, Bytes)>, StoreError> {
        let deadline = self.cql.deadline();
        let read = |life: Arc<Life>| async move {
            self.claims.stored(&self.cql, &life.id, partition.0.into(), deadline).await
        };
        Ok(self.reading(generation, read).await?.committed())
    }

    async fn pointer(&self) -> Result<Bytes, StoreError> {
        self.check_open()?;
        let rows = self.cql.select("pointer", self.cql.deadline(), &self.pointer, ()).await?;
        let found = rows.maybe_first_row::<(Option<Bytes>,)>().map_err(|_| error::unreadable("pointer"))?;
        Ok(found.and_then(|(value,)| value).unwrap_or_default())
    }

    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        self.check_open()?;
        if new.len() > VALUE_BYTES_MAX {
            return Err(error::new(StoreErrorKind::Invalid, "pointer", "it is too long"));
        }
        // An empty pointer and none are the same.
        let some = |value: &[u8]| (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
        let deadline = self.cql.deadline();
        loop {
            match self.cql.once("set pointer", &self.set_pointer, (some(&new), some(expected))).await {
                Ok(answer) => return applied("set pointer", answer),
                Err(error) if !error.kind().is_retryable() || Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
            // Not known: it is there, it was not applied, or another one was faster.
            let present = self.pointer().await?;
            if present[..] != *expected {
                return Ok(present == new);
            }
            tokio::time::sleep(self.cql.config.retry_pause).await;
        }
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        self.check_open()?;
        if let Some(life) = self.generations.find(&self.cql, generation).await? {
            self.claims.forget(&life.id);
        }
        self.generations.drop(&self.cql, generation).await
    }

    /// Everything committed is durable already, as the cluster has it.
    async fn sync(&self, close: bool) -> Result<(), StoreError> {
        if close {
            self.closed.store(true, Ordering::Release);
            return Ok(());
        }
        self.check_open()
    }
}
