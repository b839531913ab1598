//! How many bytes objects take: counted by a listing now and then, and by what this process stores and deletes meanwhile.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

pub(crate) struct Usage {
    /// Of the last listing; `None` before the first.
    counted: watch::Sender<Option<u64>>,
    /// Since it began.
    changed: AtomicI64,
    /// When the last count began; `None`: it is time for one.
    begun: Mutex<Option<Instant>>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { counted: watch::Sender::new(None), changed: AtomicI64::new(0), begun: Mutex::default() }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Usage {
    pub(crate) fn add(&self, bytes: u64) {
        self.changed.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        self.changed.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    fn begun(&self) -> MutexGuard<'_, Option<Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a count is to begin now. Whoever is told so, counts.
    pub(crate) fn is_due(&self, interval: Duration) -> bool {
        let mut begun = self.begun();
        let due = begun.is_none_or(|begun| begun.elapsed() >= interval);
        if due {
            *begun = Some(Instant::now());
        }
        due
    }

    /// The count that began came to nothing.
    pub(crate) fn failed(&self) {
        *self.begun() = None;
    }

    /// A listing begins; gives what its result is to be handed in with.
    pub(crate) fn begin(&self) -> i64 {
        self.changed.load(Ordering::Relaxed)
    }

    pub(crate) fn counted(&self, begun: i64, bytes: u64) {
        let _turn = self.begun();
        // What changed while it was listed counts on: too much rather than too little, until the next count.
        self.changed.fetch_sub(begun, Ordering::Relaxed);
        self.counted.send_replace(Some(bytes));
    }

    pub(crate) async fn wait_counted(&self) {
        // The sender is ours: there is no end.
        let _ = self.counted.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn used(&self) -> u64 {
        let _turn = self.begun();
        let (counted, changed) = (*self.counted.borrow(), self.changed.load(Ordering::Relaxed));
        u64::try_from(signed(counted.unwrap_or(0)).saturating_add(changed)).unwrap_or(0)
    }
}
