//! How far the index is behind the log, and since when, with few looks into the log: each one takes a place from whoever
//! folds.

use cairn_archive::{Offset, Partition};
use cairn_service_api::Error;
use cairn_store_api::{EventLog, as_stored};
use futures_util::{TryStreamExt, stream, stream::StreamExt};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Looks into the log at the same time: readers may read ahead.
const LOOKS_AT_ONCE: usize = 8;

/// A partition as it is folded.
pub(crate) struct Folded {
    pub(crate) partition: Partition,
    pub(crate) end: Offset,
    /// When the last event that was folded here was appended.
    pub(crate) last_ms: Option<u64>,
}

/// When events were appended that were the first not to be folded.
#[derive(Default)]
pub(crate) struct Firsts(Mutex<HashMap<Partition, (Offset, u64)>>);

impl Firsts {
    /// When the oldest event of those that are not folded was appended, of partitions that have such events.
    ///
    /// What comes after the last event that was folded was appended after it, so most partitions need no look.
    pub(crate) async fn oldest(&self, log: &dyn EventLog, behind: Vec<Folded>) -> Result<Option<u64>, Error> {
        let (mut bounded, unknown): (Vec<_>, Vec<_>) = behind.into_iter().partition(|folded| folded.last_ms.is_some());
        let looks = unknown.iter().map(|folded| self.first(log, folded)).collect::<Vec<_>>();
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).try_collect().await?;
        let mut oldest = looks.into_iter().flatten().min();
        bounded.sort_unstable_by_key(|folded| folded.last_ms);
        for folded in &bounded {
            if oldest.is_some_and(|oldest| folded.last_ms >= Some(oldest)) {
                break;
            }
            oldest = oldest.into_iter().chain(self.first(log, folded).await?).min();
        }
        Ok(oldest)
    }

    async fn first(&self, log: &dyn EventLog, folded: &Folded) -> Result<Option<u64>, Error> {
        let Folded { partition, end, .. } = *folded;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied();
        if let Some((_, first)) = known.filter(|(of, _)| *of == end) {
            return Ok(Some(first));
        }
        let read = as_stored(log).read(partition, end, 1, 1).await?;
        let Some(first) = read.records.first().map(|record| record.appended_at_ms) else { return Ok(None) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, (end, first));
        Ok(Some(first))
    }
}
