//! How far a partition of the log is folded, and whose turn it is to write.

use crate::{
    error,
    session::{Cql, applied},
};
use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition};
use cairn_store_api::{Commit, StoreError, StoreErrorKind};
use scylla::statement::prepared::PreparedStatement;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// Bits of a timestamp that are the offset; those above are the epoch.
const OFFSET_BITS: u32 = 40;

/// The timestamp of a commit's writes: those of a later epoch win, and within one those of a later offset.
pub(crate) fn timestamp(epoch: i64, to: Offset) -> Result<i64, StoreError> {
    let fits = epoch < 1 << (62 - OFFSET_BITS) && to.0 < 1 << OFFSET_BITS;
    let out = || error::new(StoreErrorKind::Internal, "commit", "epoch or offset is out of range");
    let offset = i64::try_from(to.0).ok().filter(|_| fits).ok_or_else(out)?;
    Ok(epoch << OFFSET_BITS | offset)
}

/// What is stored of a partition of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    epoch: Option<i64>,
    claimed_by: Option<String>,
    incarnation: Option<i64>,
    folded_to: Option<i64>,
    note: Option<Bytes>,
}

impl Stored {
    /// Offset and note, if something was committed.
    pub(crate) fn committed(self) -> Option<(Incarnation, Offset, Bytes)> {
        let life = u32::try_from(self.incarnation?).ok()?;
        let offset = u64::try_from(self.folded_to?).ok()?;
        Some((Incarnation(life), Offset(offset), self.note.unwrap_or_default()))
    }

    /// Whether a commit goes on from here.
    fn is_continued_by(&self, commit: &Commit) -> bool {
        match self.clone().committed() {
            None => commit.from == Offset(0),
            Some((life, _, _)) if commit.incarnation > life => commit.from == Offset(0),
            Some((life, offset, _)) => commit.incarnation == life && commit.from == offset,
        }
    }
}

/// The epoch that this process holds of a partition; none while a commit is under way or its outcome is unknown.
type Held = Arc<tokio::sync::Mutex<Option<i64>>>;

/// Claims of this process.
pub(crate) struct Claims {
    held: Mutex<HashMap<(String, Partition), Held>>,
    read: PreparedStatement,
    settle: PreparedStatement,
    register: PreparedStatement,
    claim: PreparedStatement,
    advance: PreparedStatement,
}

fn late() -> StoreError {
    error::new(
        StoreErrorKind::Conflict,
        "commit",
        "it does not continue from the committed offset, or another writer took over",
    )
}

impl Claims {
    pub(crate) async fn new(cql: &Cql) -> Result<Self, StoreError> {
        let row = "life = ? AND log_partition = ?";
        let read = format!("SELECT epoch, claimed_by, incarnation, folded_to, note FROM offsets WHERE {row}");
        let claim = format!("UPDATE offsets SET epoch = ?, claimed_by = ? WHERE {row} IF epoch = ? AND folded_to = ?");
        let advance = format!("UPDATE offsets SET incarnation = ?, folded_to = ?, note = ? WHERE {row} IF epoch = ?");
        Ok(Self {
            held: Mutex::default(),
            read: cql.prepare(&read).await?,
            settle: cql.prepare_settled(&read).await?,
            register: cql.prepare("INSERT INTO writers (life, log_partition) VALUES (?, ?)").await?,
            claim: cql.prepare(&claim).await?,
            advance: cql.prepare(&advance).await?,
        })
    }

    /// What this process holds of a partition: its commits take turns.
    pub(crate) fn of(&self, life: &str, partition: Partition) -> Held {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.entry((life.to_owned(), partition)).or_default().clone()
    }

    /// Forgets a life that was dropped.
    pub(crate) fn forget(&self, life: &str) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != life);
    }

    /// What is stored, with transactions under way settled.
    pub(crate) async fn stored(
        &self,
        cql: &Cql,
        life: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<Stored, StoreError> {
        self.read_by(&self.settle, cql, life, partition, deadline).await
    }

    /// What is stored, without settling transactions under way: far cheaper, and no older than what was last acknowledged.
    pub(crate) async fn seen(
        &self,
        cql: &Cql,
        life: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<Stored, StoreError> {
        self.read_by(&self.read, cql, life, partition, deadline).await
    }

    async fn read_by(
        &self,
        statement: &PreparedStatement,
        cql: &Cql,
        life: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<Stored, StoreError> {
        type Columns = (Option<i64>, Option<String>, Option<i64>, Option<i64>, Option<Bytes>);
        let rows = cql.select("offset", deadline, statement, (life, partition)).await?;
        let found = rows.maybe_first_row::<Columns>().map_err(|_| error::unreadable("offset"))?;
        let (epoch, claimed_by, incarnation, folded_to, note) = found.unwrap_or_default();
        Ok(Stored { epoch, claimed_by, incarnation, folded_to, note })
    }

    /// Makes sure that this process may write what a commit says; gives the epoch.
    ///
    /// # Errors
    /// `Conflict` where the commit does not go on from what is stored. `Unavailable`: not known; nothing of it is written.
    pub(crate) async fn claim(
        &self,
        cql: &Cql,
        life: &str,
        commit: &Commit,
        held: Option<i64>,
        deadline: Instant,
    ) -> Result<i64, StoreError> {
        let partition = i32::from(commit.partition.0);
        let read = if held.is_some() { &self.read } else { &self.settle };
        let mut stored = self.read_by(read, cql, life, partition, deadline).await?;
        // Offsets of another life of the log begin anew, so its timestamps need an epoch of their own.
        let same_life = stored.incarnation.is_none_or(|life| life == i64::from(commit.incarnation.0));
        if let Some(epoch) = held.filter(|epoch| Some(*epoch) == stored.epoch && same_life) {
            return if stored.is_continued_by(commit) { Ok(epoch) } else { Err(late()) };
        }
        if stored.epoch.is_none() {
            cql.execute("register", deadline, &self.register, (life, partition)).await?;
        }
        let me = uuid::Uuid::now_v7().simple().to_string();
        loop {
            if !stored.is_continued_by(commit) {
                return Err(late());
            }
            let epoch = stored.epoch.unwrap_or(0) + 1;
            let values = (epoch, &me, life, partition, stored.epoch, stored.folded_to);
            match cql.once("claim", &self.claim, values).await.and_then(|answer| applied("claim", answer)) {
                Ok(true) => return Ok(epoch),
                Err(error) if !error.kind().is_retryable() => return Err(error),
                // Another one was faster, or it is not known.
                _ => {}
            }
            stored = self.stored(cql, life, partition, deadline).await?;
            if stored.claimed_by.as_ref() == Some(&me) {
                return stored.epoch.ok_or_else(|| error::unreadable("claim"));
            }
            if Instant::now() >= deadline {
                return Err(error::new(StoreErrorKind::Unavailable, "claim", "no answer in time"));
            }
            tokio::time::sleep(cql.config.retry_pause).await;
        }
    }

    /// Advances the offset past a commit whose rows are written.
    ///
    /// # Errors
    /// `Conflict` where another writer took over: the offset is not advanced. `Unavailable`: not known.
    pub(crate) async fn advance(
        &self,
        cql: &Cql,
        life: &str,
        commit: &Commit,
        epoch: i64,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let out = |_| error::new(StoreErrorKind::Internal, "commit", "offset is out of range");
        let (to, incarnation) = (i64::try_from(commit.to.0).map_err(out)?, i64::from(commit.incarnation.0));
        let partition = i32::from(commit.partition.0);
        loop {
            let values = (incarnation, to, &commit.note, life, partition, epoch);
            match cql.once("advance", &self.advance, values).await.and_then(|answer| applied("advance", answer)) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(late()),
                Err(error) if !error.kind().is_retryable() => return Err(error),
                Err(_) => {}
            }
            let stored = self.stored(cql, life, partition, deadline).await?;
            if stored.epoch != Some(epoch) {
                return Err(error::new(StoreErrorKind::Unavailable, "commit", "another writer took over meanwhile"));
            }
            if stored.folded_to == Some(to) && stored.incarnation == Some(incarnation) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(error::new(StoreErrorKind::Unavailable, "commit", "no answer in time"));
            }
            tokio::time::sleep(cql.config.retry_pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_epochs_win_then_later_offsets() {
        let at = |epoch, to| timestamp(epoch, Offset(to)).expect("fits");
        assert!(at(1, 0) < at(1, 1) && at(1, (1 << 40) - 1) < at(2, 0) && at(2, 0) < at(2, 7));
        assert!(at((1 << 22) - 1, (1 << 40) - 1) > 0);
        assert!(timestamp(1 << 22, Offset(0)).is_err() && timestamp(1, Offset(1 << 40)).is_err());
    }
}
