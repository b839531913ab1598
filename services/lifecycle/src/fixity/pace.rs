//! How fast objects are read.

use std::time::Duration;
use tokio::time::Instant;

/// Lets bytes pass no faster than a limit.
#[derive(Default)]
pub(crate) struct Pace {
    next: tokio::sync::Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until so many bytes may be read.
    ///
    /// # Cancel safety
    /// Dropped while it waits, the bytes count as read.
    pub(crate) async fn take(&self, bytes: u64, per_second: u64) {
        let at = {
            let mut next = self.next.lock().await;
            let at = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(at + Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}
