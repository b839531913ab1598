//! Whether the wall clock can be right: ages are counted by it, and nobody shall erase early because it was set.
//!
//! It is right while it is not behind the newest event, and did not go on by much more than the time that passed since it was
//! last found right, which is counted by a clock that nobody sets. What is found is noted down, so that a clock which is wrong
//! after a restart is found too. An operator may say that it is right after all.

use crate::{
    config::PoliciesConfig,
    notes::{Change, Kind, Notes},
};
use cairn_archive::Hlc;
use cairn_process::clock::Clock;
use cairn_service_api::Error;
use prost::Message;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;

#[derive(Clone, Copy, PartialEq, Message)]
struct ClockNote {
    /// The wall clock when it was last found right.
    #[prost(uint64, tag = "1")]
    wall_ms: u64,
    /// Events up to this time do not count: an operator knows that a wrong clock made them.
    #[prost(uint64, tag = "2")]
    passed_over_ms: u64,
}

/// The wall clock, watched.
pub(super) struct Watch {
    notes: Arc<Notes>,
    clock: Arc<dyn Clock>,
    ahead_max: Duration,
    behind_max: Duration,
    /// What was found last, and when by the clock that nobody sets. `None`: the note says.
    found: Mutex<Option<(ClockNote, Duration)>>,
}

impl Watch {
    pub(super) fn new(notes: Arc<Notes>, clock: Arc<dyn Clock>, config: &PoliciesConfig) -> Self {
        let (ahead_max, behind_max) = (config.clock_ahead_max, config.clock_behind_max);
        Self { notes, clock, ahead_max, behind_max, found: Mutex::default() }
    }

    /// Whether it can be right, where `newest` is the latest place in the order of events that is known.
    ///
    /// # Errors
    /// That of the notes.
    pub(super) async fn is_right(&self, newest: Hlc) -> Result<bool, Error> {
        let mut found = self.found.lock().await;
        let (wall_ms, elapsed) = (self.clock.unix_ms(), self.clock.elapsed());
        let (note, passed) = match *found {
            Some((note, at)) => (note, elapsed.saturating_sub(at)),
            None => (self.noted(newest).await?, Duration::ZERO),
        };
        let expected_ms = note.wall_ms.saturating_add(ms(passed));
        let is_ahead = note.wall_ms > 0 && wall_ms > expected_ms.saturating_add(ms(self.ahead_max));
        let is_behind =
            newest.wall_ms > note.passed_over_ms && wall_ms.saturating_add(ms(self.behind_max)) < newest.wall_ms;
        if is_ahead || is_behind {
            return Ok(false);
        }
        self.note(&mut found, ClockNote { wall_ms, ..note }, elapsed).await?;
        Ok(true)
    }

    /// Takes somebody's word that it is right now.
    ///
    /// # Errors
    /// That of the notes.
    pub(super) async fn accept(&self, newest: Hlc) -> Result<(), Error> {
        let mut found = self.found.lock().await;
        let note = ClockNote { wall_ms: self.clock.unix_ms(), passed_over_ms: newest.wall_ms };
        self.note(&mut found, note, self.clock.elapsed()).await
    }

    /// What was noted down; the first time, that the clock was right when the newest event was made.
    async fn noted(&self, newest: Hlc) -> Result<ClockNote, Error> {
        let noted = self.notes.get::<ClockNote>(Kind::Clock, &[]).await?;
        Ok(noted.unwrap_or(ClockNote { wall_ms: newest.wall_ms, passed_over_ms: 0 }))
    }

    async fn note(
        &self,
        found: &mut Option<(ClockNote, Duration)>,
        note: ClockNote,
        elapsed: Duration,
    ) -> Result<(), Error> {
        self.notes.change(vec![Change::put(Kind::Clock, &[], &note)]).await?;
        *found = Some((note, elapsed));
        Ok(())
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
