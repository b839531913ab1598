//! The tables of generations: made on the first commit, dropped as a whole.

use crate::{
    error, schema,
    session::{Cql, applied},
};
use cairn_store_api::{Generation, StoreError, StoreErrorKind};
use scylla::statement::prepared::PreparedStatement;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A generation from when it was begun until it is dropped, and what is asked of its table.
pub(crate) struct Life {
    pub(crate) id: String,
    pub(crate) insert: PreparedStatement,
    pub(crate) delete: PreparedStatement,
    pub(crate) get: PreparedStatement,
    /// With an end, without; each in order, reversed.
    pub(crate) scans: [[PreparedStatement; 2]; 2],
}

/// Generations of a keyspace.
pub(crate) struct Generations {
    known: Mutex<HashMap<Generation, Arc<Life>>>,
    /// One of this process makes a table.
    making: tokio::sync::Mutex<()>,
    read: PreparedStatement,
    begin: PreparedStatement,
    advance: PreparedStatement,
    remove: PreparedStatement,
    writers: PreparedStatement,
    remove_offset: PreparedStatement,
    remove_writers: PreparedStatement,
}

const MAKING: &str = "making";
const READY: &str = "ready";
const DROPPING: &str = "dropping";

/// Pause before looking again after a step whose outcome is another process's or unknown.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn table_of(life: &str) -> String {
    format!("rows_{life}")
}

/// The table's id: the life is one.
fn id_of(life: &str) -> Result<uuid::Uuid, StoreError> {
    life.parse().map_err(|_| error::unreadable("generation"))
}

fn key(generation: Generation) -> i64 {
    i64::from(generation.0)
}

impl Generations {
    pub(crate) async fn new(cql: &Cql) -> Result<Self, StoreError> {
        Ok(Self {
            known: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            read: cql.prepare_settled("SELECT life, state FROM generations WHERE generation = ?").await?,
            begin: cql
                .prepare("INSERT INTO generations (generation, life, state) VALUES (?, ?, 'making') IF NOT EXISTS")
                .await?,
            advance: cql
                .prepare("UPDATE generations SET state = ? WHERE generation = ? IF life = ? AND state = ?")
                .await?,
            remove: cql.prepare("DELETE FROM generations WHERE generation = ? IF life = ?").await?,
            writers: cql.prepare("SELECT log_partition FROM writers WHERE life = ?").await?,
            remove_offset: cql.prepare("DELETE FROM offsets WHERE life = ? AND log_partition = ? IF EXISTS").await?,
            remove_writers: cql.prepare("DELETE FROM writers WHERE life = ?").await?,
        })
    }

    fn known(&self, generation: Generation) -> Option<Arc<Life>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned()
    }

    /// The generation, if it was begun.
    pub(crate) async fn find(&self, cql: &Cql, generation: Generation) -> Result<Option<Arc<Life>>, StoreError> {
        if let Some(life) = self.known(generation) {
            return Ok(Some(life));
        }
        match self.state(cql, generation, cql.deadline()).await? {
            Some((life, state)) if state == READY => self.open(cql, generation, life).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The generation; begins it if need be. One caller of a process at a time asks how far it is.
    pub(crate) async fn ensure(&self, cql: &Cql, generation: Generation) -> Result<Arc<Life>, StoreError> {
        let deadline = Instant::now() + cql.config.schema_timeout;
        if let Some(life) = self.known(generation) {
            return Ok(life);
        }
        let _alone = self.making.lock().await;
        loop {
            if let Some(life) = self.known(generation) {
                return Ok(life);
            }
            match self.state(cql, generation, cql.deadline()).await? {
                None => {
                    let life = uuid::Uuid::now_v7().simple().to_string();
                    let begun = cql.once("begin", &self.begin, (key(generation), &life)).await;
                    if begun.is_ok_and(|begun| applied("begin", begun).unwrap_or(false)) {
                        self.make(cql, generation, &life).await?;
                        continue;
                    }
                }
                Some((life, state)) if state == READY => return self.open(cql, generation, life).await,
                Some((life, state)) if state == DROPPING => self.finish_drop(cql, generation, &life).await?,
                // Another process makes it, or died while it did. Who makes the table doesn't matter.
                Some((life, _)) => {
                    self.make(cql, generation, &life).await?;
                    continue;
                }
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(error::new(StoreErrorKind::Unavailable, "begin", "no answer in time"));
            }
            tokio::time::sleep(LOOK_AGAIN.min(cql.config.retry_pause)).await;
        }
    }

    /// Makes the table of a life. Any number of processes may do so at once: its name and its id are the life's.
    async fn make(&self, cql: &Cql, generation: Generation, life: &str) -> Result<(), StoreError> {
        let (table, id) = (table_of(life), id_of(life)?);
        cql.define(&schema::generation(&table, id)).await?;
        let values = (READY, key(generation), life, MAKING);
        let made = cql.execute("begin", cql.deadline(), &self.advance, values).await?;
        // Another one was faster; or it was dropped meanwhile, and nothing else would remove what was made just now.
        let ready = applied("begin", made)?
            || self.state(cql, generation, cql.deadline()).await? == Some((life.to_owned(), READY.to_owned()));
        if ready { Ok(()) } else { cql.define(&format!("DROP TABLE IF EXISTS {table}")).await }
    }

    async fn state(
        &self,
        cql: &Cql,
        generation: Generation,
        deadline: Instant,
    ) -> Result<Option<(String, String)>, StoreError> {
        let rows = cql.select("generation", deadline, &self.read, (key(generation),)).await?;
        rows.maybe_first_row::<(String, String)>().map_err(|_| error::unreadable("generation"))
    }

    async fn open(&self, cql: &Cql, generation: Generation, id: String) -> Result<Arc<Life>, StoreError> {
        let table = table_of(&id);
        let row = "neighbours = ? AND kind = ? AND pk = ? AND ck = ?";
        let scan = |end: &str, order: &str| {
            let range = "neighbours = ? AND kind = ? AND pk = ? AND ck >= ?";
            format!("SELECT ck, value FROM {table} WHERE {range}{end} ORDER BY kind {order}, pk {order}, ck {order}")
        };
        let mut scans = Vec::with_capacity(4);
        for end in [" AND ck < ?", ""] {
            for order in ["ASC", "DESC"] {
                scans.push(cql.prepare(&scan(end, order)).await?);
            }
        }
        let scans: [PreparedStatement; 4] = scans.try_into().map_err(|_| error::unreadable("prepare"))?;
        let [up, down, open_up, open_down] = scans;
        let insert =
            format!("INSERT INTO {table} (neighbours, kind, pk, ck, value) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?");
        let life = Arc::new(Life {
            insert: cql.prepare(&insert).await?,
            delete: cql.prepare(&format!("DELETE FROM {table} USING TIMESTAMP ? WHERE {row}")).await?,
            get: cql.prepare(&format!("SELECT value FROM {table} WHERE {row}")).await?,
            scans: [[up, down], [open_up, open_down]],
            id,
        });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(generation, life.clone());
        Ok(life)
    }

    /// Forgets what is known of a generation: it was dropped.
    pub(crate) fn forget(&self, generation: Generation) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&generation);
    }

    /// The partitions of the log that have written in a life.
    pub(crate) async fn partitions(&self, cql: &Cql, life: &str, deadline: Instant) -> Result<Vec<i32>, StoreError> {
        let rows = cql.select("writers", deadline, &self.writers, (life,)).await?;
        let partitions = rows.rows::<(i32,)>().map_err(|_| error::unreadable("writers"))?;
        partitions.map(|row| row.map(|(partition,)| partition).map_err(|_| error::unreadable("writers"))).collect()
    }

    /// Drops a generation, or finishes a drop that was cut short.
    pub(crate) async fn drop(&self, cql: &Cql, generation: Generation) -> Result<(), StoreError> {
        let _alone = self.making.lock().await;
        self.forget(generation);
        let deadline = cql.deadline();
        let Some((life, mut state)) = self.state(cql, generation, deadline).await? else { return Ok(()) };
        // Whoever makes the generation takes a step now and then; each may come between the look and the mark.
        while state != DROPPING {
            let values = (DROPPING, key(generation), &life, &state);
            if applied("drop", cql.execute("drop", deadline, &self.advance, values).await?)? {
                break;
            }
            match self.state(cql, generation, deadline).await? {
                Some((same, now)) if same == life => state = now,
                // Somebody else dropped that life.
                _ => return Ok(()),
            }
            if Instant::now() >= deadline {
                return Err(error::new(StoreErrorKind::Conflict, "drop", "another process changes the generation"));
            }
        }
        self.finish_drop(cql, generation, &life).await
    }

    async fn finish_drop(&self, cql: &Cql, generation: Generation, life: &str) -> Result<(), StoreError> {
        cql.define(&format!("DROP TABLE IF EXISTS {}", table_of(life))).await?;
        let deadline = Instant::now() + cql.config.schema_timeout;
        for partition in self.partitions(cql, life, deadline).await? {
            cql.execute("drop", deadline, &self.remove_offset, (life, partition)).await?;
        }
        cql.execute("drop", deadline, &self.remove_writers, (life,)).await?;
        cql.execute("drop", deadline, &self.remove, (key(generation), life)).await.map(drop)
    }
}
