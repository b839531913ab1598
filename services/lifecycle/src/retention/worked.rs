//! Time that lifecycle of this site has been at work: by a clock that nobody sets, noted down, so that it goes on after a
//! restart. A delay that is counted so is never cut short by a wall clock that is set ahead; time in which nobody was at work
//! does not count.

use crate::notes::{Change, Kind, Notes};
use cairn_archive::EventId;
use cairn_process::clock::Clock;
use cairn_service_api::Error;
use prost::Message;
use std::{sync::Arc, time::Duration};
use tokio::sync::OnceCell;

#[derive(Clone, Copy, PartialEq, Message)]
struct WorkedNote {
    #[prost(uint64, tag = "1")]
    ms: u64,
}

/// The time at work.
pub(crate) struct Worked {
    notes: Arc<Notes>,
    clock: Arc<dyn Clock>,
    began: Duration,
    /// What there was before this process.
    before: OnceCell<Duration>,
}

impl Worked {
    pub(super) fn new(notes: Arc<Notes>, clock: Arc<dyn Clock>) -> Self {
        let began = clock.elapsed();
        Self { notes, clock, began, before: OnceCell::new() }
    }

    /// The time at work, of this process and those before it.
    ///
    /// # Errors
    /// That of the notes.
    pub(crate) async fn now(&self) -> Result<Duration, Error> {
        let before = self.before.get_or_try_init(|| self.noted(Kind::Worked, &[])).await?;
        Ok(*before + self.clock.elapsed().saturating_sub(self.began))
    }

    async fn noted(&self, kind: Kind, key: &[u8]) -> Result<Duration, Error> {
        Ok(self.notes.get::<WorkedNote>(kind, key).await?.map(duration).unwrap_or_default())
    }

    /// Time at work since this site learnt of an event: from now on, if it learns of it now.
    pub(super) async fn since_learnt(&self, event: EventId) -> Result<Duration, Error> {
        let now = self.now().await?;
        match self.notes.get::<WorkedNote>(Kind::Learnt, event.as_bytes()).await? {
            Some(learnt) => Ok(now.saturating_sub(duration(learnt))),
            None => {
                self.notes.change(vec![Change::put(Kind::Learnt, event.as_bytes(), &note(now))]).await?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// Notes it down.
    pub(super) async fn note_down(&self) -> Result<(), Error> {
        let now = self.now().await?;
        self.notes.change(vec![Change::put(Kind::Worked, &[], &note(now))]).await
    }
}

fn note(time: Duration) -> WorkedNote {
    WorkedNote { ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
}

fn duration(note: WorkedNote) -> Duration {
    Duration::from_millis(note.ms)
}
