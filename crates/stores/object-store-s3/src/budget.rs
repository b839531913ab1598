//! Memory for what was received and is not stored yet, shared by all writers.
//!
//! Two parts: a pool from which anyone takes what there is, and a reserve of one whole part that one writer at a time may
//! have. So when the pool is used up by writers that all need more, one of them can always fill its part, send it, and
//! give memory back: they never wait for each other in a circle.

use crate::metrics;
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a permit stands for.
const UNIT: u64 = 1024;

#[derive(Debug)]
pub(crate) struct Budget {
    pool: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    patience: Duration,
}

/// Memory taken, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pool: Option<OwnedSemaphorePermit>,
    /// All that is wanted, up to a part.
    reserve: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, part_bytes: u64, patience: Duration) -> Self {
        let pool = bytes_max.saturating_sub(part_bytes) / UNIT;
        let pool = Arc::new(Semaphore::new(usize::try_from(pool).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { pool, reserve: Arc::new(Semaphore::new(1)), patience }
    }

    /// Takes more memory; `bytes` is at most a part's.
    pub(crate) async fn grow(&self, lease: &mut Lease, bytes: u64) -> Result<(), StoreError> {
        let full = || StoreError::new(StoreErrorKind::Exhausted, "no memory left for objects on their way in");
        if lease.reserve.is_none() {
            let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| full())?;
            let either = async {
                tokio::select! {
                    biased;
                    permit = self.pool.clone().acquire_many_owned(units) => (permit.ok(), None),
                    permit = self.reserve.clone().acquire_owned() => (None, permit.ok()),
                }
            };
            let (pool, reserve) = tokio::time::timeout(self.patience, either).await.map_err(|_| full())?;
            match (pool, &mut lease.pool) {
                (Some(more), Some(permit)) => permit.merge(more),
                (more, permit @ None) => *permit = more,
                (None, Some(_)) => {}
            }
            lease.reserve = reserve;
        }
        lease.bytes += bytes;
        metrics::memory(bytes as f64);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        metrics::memory(-(self.bytes as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_many_that_need_more_one_always_goes_on() {
        let budget = Budget::new(10 * UNIT, 4 * UNIT, Duration::from_millis(20));
        let mut leases: Vec<Lease> = (0..6).map(|_| Lease::default()).collect();
        for lease in &mut leases {
            budget.grow(lease, UNIT).await.unwrap();
        }
        // The pool is used up: the first takes the reserve, the second waits in vain.
        for _ in 0..3 {
            budget.grow(&mut leases[0], UNIT).await.unwrap();
        }
        assert_eq!(budget.grow(&mut leases[1], UNIT).await.unwrap_err().kind(), StoreErrorKind::Exhausted);
        leases.remove(0);
        budget.grow(&mut leases[0], UNIT).await.unwrap();
        leases.clear();
        assert_eq!((budget.pool.available_permits(), budget.reserve.available_permits()), (6, 1));
    }
}
