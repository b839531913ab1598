//! Going through every object that the log names, about in the order in which they were stored, and so in the order in
//! which they lie in the store.

use super::damage::{Damages, Look};
use crate::{
    append::Appender,
    config::FixityConfig,
    named::{Named, named, unread},
    notes::{Change, Kind, Notes},
};
use cairn_archive::{Offset, Partition, events::DamageFoundBy};
use cairn_service_api::{
    Error,
    lifecycle::{NamedObject, Round},
};
use cairn_store_api::{EventLog, LogRecord, ObjectStore, StoreErrorKind};
use futures_util::{StreamExt, TryStreamExt, stream};
use prost::Message;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

/// Records, and bytes of them, that are held of one partition.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 128 << 10;
/// Events gone past before it is looked how long ago that was noted down.
const STEP_EVENTS: usize = 64;
/// A round is read somewhat faster than the period asks for, so that it ends within it.
const MARGIN: f64 = 1.25;
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// A round, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct RoundNote {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    began_at_ms: u64,
    #[prost(uint64, optional, tag = "3")]
    ended_at_ms: Option<u64>,
    #[prost(uint64, tag = "4")]
    events: u64,
    #[prost(uint64, tag = "5")]
    events_total: u64,
    #[prost(uint64, tag = "6")]
    objects: u64,
    #[prost(uint64, tag = "7")]
    bytes: u64,
    #[prost(uint64, tag = "8")]
    damaged: u64,
    #[prost(uint64, tag = "9")]
    repaired: u64,
    /// Of each partition of the log, where to go on.
    #[prost(uint64, repeated, tag = "10")]
    next: Vec<u64>,
    /// Of each partition, where the log ended when the round began.
    #[prost(uint64, repeated, tag = "11")]
    ends: Vec<u64>,
    /// Whether somebody asked for it, and it is to go as fast as it may.
    #[prost(bool, tag = "12")]
    asked: bool,
}

/// What is known of rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// The one under way, or the last one.
    pub(crate) round: Option<Round>,
    /// The last that came to its end.
    pub(crate) last_whole: Option<Round>,
    /// Bytes a second at which it goes.
    pub(crate) bytes_per_second: u64,
    /// Whether that is enough.
    pub(crate) period_is_kept: bool,
}

/// Rounds, one after the other.
pub(crate) struct Rounds {
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    notes: Arc<Notes>,
    appender: Arc<Appender>,
    damages: Arc<Damages>,
    config: FixityConfig,
    asked: Notify,
    known: watch::Sender<Known>,
}

/// One partition of a round.
struct Cursor {
    partition: Partition,
    /// First offset not read from the log.
    read: Offset,
    end: Offset,
    ahead: VecDeque<LogRecord>,
}

impl Rounds {
    pub(crate) async fn open(
        log: Arc<dyn EventLog>,
        objects: Arc<dyn ObjectStore>,
        notes: Arc<Notes>,
        appender: Arc<Appender>,
        damages: Arc<Damages>,
        config: FixityConfig,
    ) -> Result<Self, Error> {
        let noted = |note: Option<RoundNote>| note.as_ref().map(round_of);
        let round = noted(notes.get(Kind::Round, &[]).await?);
        let last_whole = noted(notes.get(Kind::LastRound, &[]).await?);
        let known = Known { round, last_whole, bytes_per_second: config.bytes_per_second_max, period_is_kept: true };
        let (asked, known) = (Notify::new(), watch::Sender::new(known));
        Ok(Self { log, objects, notes, appender, damages, config, asked, known })
    }

    pub(crate) fn known(&self) -> Known {
        *self.known.borrow()
    }

    /// Begins a round now, or hurries the one under way.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Goes round for ever. Stores that are away are waited for.
    ///
    /// # Cancel safety
    /// The next start goes on from what was noted down last.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.go_on().await {
                tracing::warn!(%error, "a round of reading everything is held up");
                tokio::time::sleep(self.config.retry_pause).await;
            }
        }
    }

    /// Goes on with the round under way, or begins one when it is time.
    async fn go_on(&self) -> Result<(), Error> {
        let note = match self.notes.get::<RoundNote>(Kind::Round, &[]).await? {
            Some(note) if note.ended_at_ms.is_none() => note,
            last => {
                let asked = self.wait_for_time(last.as_ref()).await;
                let note = self.begin(last.map_or(1, |last| last.number + 1), asked).await?;
                self.note(&note).await?;
                note
            }
        };
        self.go_round(note).await
    }

    /// Waits until the next round is due, or asked for; gives whether it was asked for.
    async fn wait_for_time(&self, last: Option<&RoundNote>) -> bool {
        let Some(last) = last else { return false };
        let period = u64::try_from(self.config.period.as_millis()).unwrap_or(u64::MAX);
        let due_at = last.began_at_ms.saturating_add(period);
        // A clock that is set back must not put it off for longer than a period.
        let wait = due_at.saturating_sub(self.appender.now_ms()).min(period);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait)) => false,
            () = self.asked.notified() => true,
        }
    }

    async fn begin(&self, number: u64, asked: bool) -> Result<RoundNote, Error> {
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions() {
            ends.push(self.log.end(Partition(partition)).await?.0);
        }
        let events_total = ends.iter().sum();
        let (began_at_ms, next) = (self.appender.now_ms(), vec![0; ends.len()]);
        Ok(RoundNote { number, began_at_ms, events_total, next, ends, asked, ..RoundNote::default() })
    }

    async fn go_round(&self, mut note: RoundNote) -> Result<(), Error> {
        let mut cursors = self.cursors(&note);
        let mut noted = tokio::time::Instant::now();
        let mut speed = self.measure(&note).await?;
        loop {
            let step = self.next_step(&mut cursors).await?;
            if step.is_empty() {
                note.ended_at_ms = Some(self.appender.now_ms());
                self.measure(&note).await?;
                return self.note(&note).await;
            }
            self.read_all(&step, speed, &mut note).await?;
            for (partition, record) in &step {
                if let Some(next) = note.next.get_mut(usize::from(partition.0)) {
                    *next = record.offset.next().0;
                }
            }
            note.events += step.len() as u64;
            if futures_util::FutureExt::now_or_never(self.asked.notified()).is_some() {
                note.asked = true;
            }
            if noted.elapsed() >= self.config.notes_interval {
                self.note(&note).await?;
                noted = tokio::time::Instant::now();
            }
            speed = self.measure(&note).await?;
        }
    }

    fn cursors(&self, note: &RoundNote) -> Vec<Cursor> {
        let places = note.next.iter().zip(&note.ends);
        let numbered = (0..self.log.partitions()).zip(places);
        numbered
            .map(|(partition, (next, end))| Cursor {
                partition: Partition(partition),
                read: Offset(*next),
                end: Offset(*end),
                ahead: VecDeque::new(),
            })
            .collect()
    }

    /// The next records by the time at which this log took them; none at the end.
    async fn next_step(&self, cursors: &mut [Cursor]) -> Result<Vec<(Partition, LogRecord)>, Error> {
        let mut step = Vec::with_capacity(STEP_EVENTS);
        while step.len() < STEP_EVENTS {
            for cursor in cursors.iter_mut().filter(|cursor| cursor.ahead.is_empty() && cursor.read < cursor.end) {
                let batch = self.log.read(cursor.partition, cursor.read, READ_RECORDS, READ_BYTES).await?;
                // A log that was cut has nothing more there.
                cursor.read = batch.records.last().map_or(cursor.end, |record| record.offset.next());
                let meant = batch.records.into_iter().filter(|record| record.offset < cursor.end);
                cursor.ahead.extend(meant);
            }
            let filled = cursors.iter_mut().filter(|cursor| !cursor.ahead.is_empty());
            let first = filled.min_by_key(|cursor| cursor.ahead.front().map(|record| record.appended_at_ms));
            let Some(cursor) = first else { break };
            step.extend(cursor.ahead.pop_front().map(|record| (cursor.partition, record)));
        }
        Ok(step)
    }

    /// Reads every object that some records name.
    async fn read_all(
        &self,
        step: &[(Partition, LogRecord)],
        per_second: u64,
        note: &mut RoundNote,
    ) -> Result<(), Error> {
        let mut objects = Vec::new();
        for (_, record) in step {
            self.appender.observe(&record.record.envelope);
            let Named { known, keys } = named(&record.record);
            for named in known {
                // What is erased is not to be there.
                if !self.notes.is_erased(&named.object.key).await? {
                    objects.push(named);
                }
            }
            for key in keys {
                if self.notes.is_erased(&key).await? {
                    continue;
                }
                match self.objects.stat(key).await {
                    Ok(info) => objects.push(unread(info.object, record.record.envelope.id)),
                    // Nobody says what it should be: it can be neither compared nor had again.
                    Err(error) if error.kind() == StoreErrorKind::NotFound => {
                        tracing::error!(object_key = %key, "an object is gone that an event of a newer build names");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let looked_at = stream::iter(objects).map(|named| {
            let damages = self.damages.clone();
            async move { look_at(&damages, &named, per_second).await }
        });
        let mut looked_at = looked_at.buffer_unordered(self.config.objects_at_once.max(1));
        while let Some((bytes, damaged, repaired)) = looked_at.try_next().await? {
            note.objects += 1;
            note.bytes += bytes;
            note.damaged += u64::from(damaged);
            note.repaired += u64::from(repaired);
        }
        Ok(())
    }

    /// Says how far the round is, and gives how fast it should go.
    async fn measure(&self, note: &RoundNote) -> Result<u64, Error> {
        let used = self.objects.space().await?.used;
        let max = self.config.bytes_per_second_max.max(BYTES_PER_SECOND_MIN);
        let needed = used as f64 / self.config.period.as_secs_f64().max(1.0);
        let wanted = (needed * MARGIN) as u64;
        let bytes_per_second = if note.asked { max } else { wanted.clamp(BYTES_PER_SECOND_MIN, max) };
        let age_ms = note.ended_at_ms.unwrap_or_else(|| self.appender.now_ms()).saturating_sub(note.began_at_ms);
        let period_is_kept = needed <= max as f64 && u128::from(age_ms) <= self.config.period.as_millis();
        self.known.send_modify(|known| {
            let round = round_of(note);
            *known = Known { round: Some(round), bytes_per_second, period_is_kept, ..*known };
            if note.ended_at_ms.is_some() {
                known.last_whole = Some(round);
            }
        });
        Ok(bytes_per_second)
    }

    async fn note(&self, note: &RoundNote) -> Result<(), Error> {
        let mut changes = vec![Change::put(Kind::Round, &[], note)];
        if note.ended_at_ms.is_some() {
            changes.push(Change::put(Kind::LastRound, &[], note));
        }
        self.notes.change(changes).await
    }
}

/// Gives an object's length, whether it was damaged, and whether it is whole again.
async fn look_at(damages: &Damages, named: &NamedObject, per_second: u64) -> Result<(u64, bool, bool), Error> {
    let length = named.object.length;
    match damages.look(&named.object, per_second).await? {
        Look::PutAway => Ok((0, false, false)),
        Look::Whole => {
            damages.is_whole(&named.object).await?;
            damages.look_after_copy(&named.object, per_second).await?;
            Ok((length, false, false))
        }
        Look::Damaged(damage) => {
            let whole = damages.found(named, damage, DamageFoundBy::Scrub).await?;
            Ok((length, true, whole))
        }
    }
}

fn round_of(note: &RoundNote) -> Round {
    Round {
        number: note.number,
        began_at_ms: note.began_at_ms,
        ended_at_ms: note.ended_at_ms,
        events: note.events,
        events_total: note.events_total,
        objects: note.objects,
        bytes: note.bytes,
        damaged: note.damaged,
        repaired: note.repaired,
    }
}
