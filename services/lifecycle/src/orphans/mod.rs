//! Orphans: objects that no event names are found, and removed when nothing can name them any more.
//!
//! A look reads the whole log, lists every object, and then reads what the log took meanwhile. What is found so is noted down,
//! and removed by a later look that still finds it unnamed after a grace of time at work, which no wall clock shortens; appends
//! have a deadline far below that. An object that was brought again meanwhile has its time anew.

mod look;
mod names;
#[cfg(test)]
pub(crate) mod tests;

use crate::{
    append::Appender,
    config::OrphansConfig,
    fixity::{Damages, Pace},
    metrics,
    notes::{Change, Kind, Notes, malformed},
    retention::RetentionService,
    sealing::Sealing,
};
use bytes::Bytes;
use cairn_archive::{Digest, Incarnation, ObjectKey};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    orphans::{Orphan, OrphanLook, OrphansKept, OrphansStatus},
};
use cairn_store_api::{EventLog, ObjectInfo, ObjectRef, ObjectStore};
use futures_util::{StreamExt, TryStreamExt, stream};
use prost::Message;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Notes that are read at once.
const PAGE: usize = 1_000;
/// Of a log that lost nothing.
const FIRST_LIFE: Incarnation = Incarnation(1);
/// After a look that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// An orphan, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct OrphanNote {
    #[prost(uint64, tag = "1")]
    length: u64,
    #[prost(bytes = "bytes", tag = "2")]
    blake3: Bytes,
    #[prost(uint64, tag = "3")]
    put_ended_at_ms: u64,
    #[prost(uint64, tag = "4")]
    found_at_ms: u64,
    /// Time at work when it was found.
    #[prost(uint64, tag = "5")]
    found_at_work_ms: u64,
    #[prost(uint64, tag = "6")]
    look: u64,
}

impl OrphanNote {
    fn orphan(self, key: &[u8]) -> Result<Orphan, Error> {
        let key = ObjectKey::from_slice(key).map_err(|_| malformed())?;
        let digest = Digest::from_slice(&self.blake3).map_err(|_| malformed())?;
        let object = ObjectRef { key, length: self.length, digest };
        let info = ObjectInfo { object, put_ended_at_ms: self.put_ended_at_ms };
        Ok(Orphan { info, found_at_ms: self.found_at_ms, look: self.look })
    }
}

/// The last look, as it is written down.
#[derive(Clone, Copy, PartialEq, Message)]
struct LookNote {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    began_at_ms: u64,
    #[prost(uint64, tag = "3")]
    ended_at_ms: u64,
    #[prost(uint64, tag = "4")]
    ended_at_work_ms: u64,
    #[prost(uint64, tag = "5")]
    events: u64,
    #[prost(uint64, tag = "6")]
    objects: u64,
    #[prost(uint64, tag = "7")]
    removed: u64,
    #[prost(uint64, tag = "8")]
    removed_bytes: u64,
    /// What it left.
    #[prost(uint64, tag = "9")]
    left: u64,
    #[prost(uint64, tag = "10")]
    left_bytes: u64,
    /// Why; 0: it is not their time yet.
    #[prost(uint32, tag = "11")]
    kept: u32,
}

impl LookNote {
    fn look(&self) -> OrphanLook {
        let Self { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes, .. } = *self;
        OrphanLook { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes }
    }

    fn kept(&self) -> Option<OrphansKept> {
        match self.kept {
            1 => Some(OrphansKept::TooMany),
            2 => Some(OrphansKept::NewLife),
            3 => Some(OrphansKept::UnreadableRecords),
            _ => None,
        }
    }
}

fn number(kept: Option<OrphansKept>) -> u32 {
    match kept {
        None => 0,
        Some(OrphansKept::TooMany) => 1,
        Some(OrphansKept::NewLife) => 2,
        Some(OrphansKept::UnreadableRecords) => 3,
    }
}

/// What an operator released.
#[derive(Clone, Copy, PartialEq, Message)]
struct ReleasedNote {
    /// Orphans that looks up to this one found.
    #[prost(uint64, tag = "1")]
    look: u64,
    /// The life of the log at that time: of it, orphans go by themselves again.
    #[prost(uint32, tag = "2")]
    incarnation: u32,
}

/// What orphans need.
pub(crate) struct With {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) retention: Arc<RetentionService>,
}

/// Looks for orphans, and removes them.
pub(crate) struct Orphans {
    with: With,
    config: OrphansConfig,
    pace: Pace,
    asked: Notify,
}

impl Orphans {
    pub(crate) fn new(with: With, config: OrphansConfig) -> Self {
        Self { with, config, pace: Pace::default(), asked: Notify::new() }
    }

    /// Looks again and again. Stores that are away are waited for.
    ///
    /// # Cancel safety
    /// A look that is dropped begins anew with the next start.
    pub(crate) async fn run(&self) {
        loop {
            match self.turn().await {
                Ok(note) => metrics::orphans(note.left, note.kept().is_some()),
                Err(error) => {
                    tracing::warn!(%error, "looking for objects that no event names is held up");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Waits until a look is due, or asked for.
    async fn turn(&self) -> Result<LookNote, Error> {
        let at_work = self.with.retention.worked.now().await?;
        let due = self.last().await?.map(|last| Duration::from_millis(last.ended_at_work_ms) + self.config.interval);
        let wait = due.map(|due| due.saturating_sub(at_work)).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(wait), if self.config.enabled => {}
            () = self.asked.notified() => {}
        }
        self.look().await
    }

    /// Has a look begin now.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    async fn last(&self) -> Result<Option<LookNote>, Error> {
        self.with.notes.get(Kind::OrphanLook, &[]).await
    }

    async fn released(&self) -> Result<ReleasedNote, Error> {
        let released = self.with.notes.get(Kind::OrphansReleased, &[]).await?;
        Ok(released.unwrap_or(ReleasedNote { look: 0, incarnation: FIRST_LIFE.0 }))
    }

    pub(crate) async fn status(&self) -> Result<OrphansStatus, Error> {
        let last = self.last().await?;
        Ok(OrphansStatus {
            site: self.with.appender.site().clone(),
            at_ms: self.with.appender.now_ms(),
            last: last.as_ref().map(LookNote::look),
            orphans: last.map_or(0, |last| last.left),
            bytes: last.map_or(0, |last| last.left_bytes),
            kept: last.and_then(|last| last.kept()),
            grace: self.config.grace,
        })
    }

    /// Orphans after `after`, by key.
    async fn page(&self, after: Option<ObjectKey>) -> Result<Vec<(Orphan, Duration)>, Error> {
        let after = after.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let notes = self.with.notes.page::<OrphanNote>(Kind::Orphan, after, PAGE).await?;
        let orphans = notes.into_iter().map(|(key, note)| {
            let found_at_work = Duration::from_millis(note.found_at_work_ms);
            Ok((note.orphan(&key)?, found_at_work))
        });
        orphans.collect()
    }

    /// All that are noted down, by key.
    pub(crate) fn list(self: &Arc<Self>) -> AnswerStream<Orphan> {
        let pages = stream::try_unfold((self.clone(), None), |(this, after)| async move {
            let page = this.page(after).await?;
            let Some((last, _)) = page.last() else { return Ok::<_, Error>(None) };
            let after = Some(last.info.object.key);
            Ok(Some((stream::iter(page.into_iter().map(|(orphan, _)| Ok(orphan))), (this, after))))
        });
        Box::pin(pages.try_flatten().fuse())
    }

    pub(crate) async fn release(&self, look: u64) -> Result<(), Error> {
        if self.last().await?.is_none_or(|last| look == 0 || look > last.number) {
            return Err(Error::new(ErrorKind::Invalid, format!("there was no look {look} for orphans")));
        }
        let note = ReleasedNote { look, incarnation: self.with.log.incarnation().0 };
        self.with.notes.change(vec![Change::put(Kind::OrphansReleased, &[], &note)]).await
    }

    pub(crate) async fn read(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error> {
        let unknown = || Error::new(ErrorKind::NotFound, format!("object {key} is no orphan"));
        let note = self.with.notes.get::<OrphanNote>(Kind::Orphan, key.as_bytes()).await?.ok_or_else(unknown)?;
        let object = note.orphan(key.as_bytes())?.info.object;
        let bytes = self.with.objects.read(&object, 0..object.length).await?;
        Ok(Box::pin(bytes.map_err(Error::from)))
    }
}
