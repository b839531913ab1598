//! What each calling AE stored through this door and may expect to find.

use crate::pdu::AeTitle;
use cairn_archive::{Position, PositionVector};
use cairn_service_api::Index;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// AE titles remembered at most; beyond that one is forgotten, and its next query does not wait.
const TITLES_MAX: usize = 4096;

/// Positions of the last stores, by calling AE title, until the index is known to have folded them.
#[derive(Debug, Default)]
pub(crate) struct ReadAfter(Mutex<HashMap<AeTitle, PositionVector>>);

impl ReadAfter {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<AeTitle, PositionVector>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a store.
    pub(crate) fn stored(&self, by: &AeTitle, position: &Position) {
        self.with(|map| {
            if let Some(vector) = map.get_mut(by) {
                vector.include(position);
                return;
            }
            if map.len() >= TITLES_MAX
                && let Some(other) = map.keys().next().cloned()
            {
                map.remove(&other);
            }
            map.entry(by.clone()).or_default().include(position);
        });
    }

    /// Waits until the index has what this AE stored, or for `limit`: an index that lags makes an answer less
    /// fresh, never impossible.
    pub(crate) async fn wait(&self, by: &AeTitle, index: &dyn Index, limit: Duration) {
        let Some(vector) = self.with(|map| map.get(by).cloned()) else { return };
        match index.wait_for(&vector, limit).await {
            Ok(()) => self.with(|map| {
                if map.get(by) == Some(&vector) {
                    map.remove(by);
                }
            }),
            Err(error) => tracing::info!(calling_ae_title = %by, %error, "answering a query from an index that lags"),
        }
    }
}
