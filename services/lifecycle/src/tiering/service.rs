//! What is asked of tiering.

use super::queue::{MoveNote, Queue, Study, key};
use crate::{
    append::Appender,
    config::TieringConfig,
    fixity::{Damages, Pace},
    metrics,
    notes::{Change, Kind, Notes},
};
use async_trait::async_trait;
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Tiering,
    tiering::{NewMoves, QueuedMove, TierStatus, TieringStatus},
};
use cairn_store_api::{Tier, Tiers};
use futures_util::stream;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{Mutex, Notify};

/// Notes that are read, or written, at once.
const NOTES_AT_ONCE: usize = 512;
/// Bytes of who asks at most.
const TEXT_BYTES_MAX: usize = 256;

/// Tiering of a site.
pub struct TieringService {
    pub(super) tiers: Option<Arc<dyn Tiers>>,
    pub(super) index: Option<Arc<dyn Index>>,
    pub(super) notes: Arc<Notes>,
    pub(super) appender: Arc<Appender>,
    pub(super) damages: Arc<Damages>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: TieringConfig,
    pub(super) queue: Mutex<Queue>,
    /// Something was asked.
    pub(super) asked: Notify,
    pub(super) pace: Pace,
    pub(super) moved: Moved,
}

/// What was moved since lifecycle began to work.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) studies: AtomicU64,
    pub(super) objects: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What tiering works on.
pub(crate) struct With {
    /// `None`: the site has one store.
    pub(crate) tiers: Option<Arc<dyn Tiers>>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl TieringService {
    /// Reads what waits.
    ///
    /// # Errors
    /// That of the notes.
    pub(crate) async fn open(with: With, config: TieringConfig) -> Result<Self, Error> {
        let With { tiers, index, notes, appender, damages, clock } = with;
        let (mut queue, mut after) = (Queue::default(), None);
        loop {
            let page = notes.page::<MoveNote>(Kind::Move, after, NOTES_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            page.into_iter().try_for_each(|(key, note)| queue.resume(&key, note))?;
        }
        let (asked, pace, moved) = (Notify::new(), Pace::default(), Moved::default());
        let queue = Mutex::new(queue);
        Ok(Self { tiers, index, notes, appender, damages, clock, config, queue, asked, pace, moved })
    }

    /// Sets gauges.
    pub(crate) async fn measure(&self) -> Result<(), Error> {
        if self.tiers.is_some() {
            metrics::tiering(&self.tiering().await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Tiering for TieringService {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        let mut tiers = Vec::new();
        if let Some(both) = &self.tiers {
            for tier in [Tier::Hot, Tier::Cold] {
                let space = tokio::time::timeout(self.config.look_timeout, both.space_of(tier)).await;
                let space = space.map_err(|_| "it does not answer".to_owned());
                let space = space.and_then(|space| space.map_err(|error| error.to_string()));
                tiers.push(TierStatus { tier, space });
            }
        }
        let (to_hot, to_cold) = self.queue.lock().await.counts();
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Ok(TieringStatus {
            tiers,
            to_cold,
            to_hot,
            studies_moved: count(&self.moved.studies),
            objects_moved: count(&self.moved.objects),
            bytes_moved: count(&self.moved.bytes),
        })
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        let NewMoves { tenant, studies, to, by } = moves;
        if self.tiers.is_none() {
            return Err(Error::new(ErrorKind::Invalid, "this site has no cold store: tiers.cold"));
        }
        if by.len() > TEXT_BYTES_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("a text is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let mut queue = self.queue.lock().await;
        let study = |uid| Study { tenant: tenant.clone(), uid };
        let mut new: Vec<Study> = studies.into_iter().map(study).filter(|study| !queue.has(study, to)).collect();
        new.sort_by(|a, b| a.uid.cmp(&b.uid));
        new.dedup();
        let more = new.iter().filter(|study| !queue.waits(study)).count();
        if queue.len() + more > self.config.waiting_max {
            let message = format!("{} studies wait to be moved, and no more may", self.config.waiting_max);
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let now = self.appender.now_ms();
        for some in new.chunks(NOTES_AT_ONCE) {
            let noted: Vec<MoveNote> = some.iter().map(|_| queue.note(to, &by, now)).collect();
            let put = |(study, note): (&Study, &MoveNote)| Change::put(Kind::Move, &key(study), note);
            self.notes.change(some.iter().zip(&noted).map(put).collect()).await?;
            for (study, note) in some.iter().zip(noted) {
                queue.resume(&study.key(), note)?;
            }
        }
        if new.is_empty() {
            return Ok(0);
        }
        self.asked.notify_one();
        tracing::info!(studies = new.len(), ?to, "it is asked that studies be moved");
        Ok(new.len() as u64)
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        let all = self.queue.lock().await.all();
        Ok(Box::pin(stream::iter(all.into_iter().map(Ok))))
    }
}
