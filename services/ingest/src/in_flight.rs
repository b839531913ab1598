//! One store at a time decides about one SOP Instance UID; others wait for their turn.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Turns<K> = Mutex<HashMap<K, Arc<AsyncMutex<()>>>>;

/// Turns by key. Holds no more keys than there are stores under way.
pub(crate) struct InFlight<K: Eq + Hash + Clone> {
    turns: Turns<K>,
}

/// The turn of one store; the next begins when it is dropped.
pub(crate) struct Turn<'a, K: Eq + Hash + Clone> {
    turns: &'a Turns<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Default for InFlight<K> {
    fn default() -> Self {
        Self { turns: Mutex::default() }
    }
}

fn lock<K>(turns: &Turns<K>) -> MutexGuard<'_, HashMap<K, Arc<AsyncMutex<()>>>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    /// Waits for the turn of `key`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue up.
    pub(crate) async fn turn(&self, key: K) -> Turn<'_, K> {
        let mutex = lock(&self.turns).entry(key.clone()).or_default().clone();
        // Made before waiting, so that the key is tidied up also when this future is dropped.
        let mut turn = Turn { turns: &self.turns, key, held: None };
        turn.held = Some(mutex.lock_owned().await);
        turn
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = lock(self.turns);
        if turns.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn turns_come_one_by_one_and_leave_nothing_behind() {
        let in_flight = InFlight::default();
        let first = in_flight.turn("1.2").await;
        let other = in_flight.turn("1.3").await;
        let mut second = Box::pin(in_flight.turn("1.2"));
        assert!((&mut second).now_or_never().is_none());
        let mut given_up = Box::pin(in_flight.turn("1.2"));
        assert!((&mut given_up).now_or_never().is_none());
        drop(given_up);
        drop(first);
        let second = second.await;
        drop((second, other));
        assert!(lock(&in_flight.turns).is_empty());
    }
}
