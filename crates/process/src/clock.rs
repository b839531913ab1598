//! Wall time and elapsed time as arguments of the world, not calls into it.

use std::time::Duration;

/// The site's clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May step in either direction.
    fn unix_ms(&self) -> u64;

    /// Time since some fixed moment; never steps back, and counts suspension of the machine where the system can.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// The machine's clock, with elapsed time from now on.
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
