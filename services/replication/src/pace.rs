//! How fast bytes may go to a peer, by the time of the week.

use crate::config::{BandwidthRule, PeerConfig};
use cairn_process::clock::Clock;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Bytes that go in one piece: a slow link must show signs of life between them.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

const MINUTES_OF_DAY: u64 = 24 * 60;

/// Lets bytes pass no faster than the peer's limit of the moment, in the order in which they ask.
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    always: Option<u64>,
    calendar: Vec<BandwidthRule>,
    /// When the next byte may go.
    next: tokio::sync::Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(clock: Arc<dyn Clock>, config: &PeerConfig) -> Self {
        let (always, calendar) = (config.bytes_per_second, config.calendar.clone());
        Self { clock, always, calendar, next: tokio::sync::Mutex::default() }
    }

    /// Whether there is ever a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.always.is_some() || !self.calendar.is_empty()
    }

    /// The limit now: of the first rule of the calendar that holds, else the one that holds always.
    fn limit(&self) -> Option<u64> {
        // 1970-01-01 was a Thursday: day 3 of a week that begins on Monday.
        let minutes = self.clock.unix_ms() / 60_000;
        let (day, minute) = (((minutes / MINUTES_OF_DAY) + 3) % 7, minutes % MINUTES_OF_DAY);
        let rule = self.calendar.iter().find(|rule| rule.holds(day, minute));
        rule.map(|rule| rule.bytes_per_second).or(self.always)
    }

    /// Waits until so many bytes may go.
    ///
    /// # Cancel safety
    /// Dropped while it waits for its time, the bytes count as sent.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(limit) = self.limit() else { return };
        let at = {
            let mut next = self.next.lock().await;
            let at = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(at + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Day, TimeOfDay};
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct At(AtomicU64);

    impl Clock for At {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn rule(days: &[Day], from: &str, to: &str, bytes_per_second: u64) -> BandwidthRule {
        let time = |text: &str| text.parse::<TimeOfDay>().expect("a time");
        BandwidthRule { days: days.to_vec(), from: time(from), to: time(to), bytes_per_second }
    }

    #[test]
    fn the_calendar_says_what_holds_when() {
        let clock = Arc::new(At::default());
        let office = rule(&[Day::Monday, Day::Friday], "08:00", "18:00", 5);
        let night = rule(&[], "22:00", "04:30", 50);
        let config = PeerConfig { calendar: vec![office, night], bytes_per_second: Some(20), ..PeerConfig::default() };
        let pace = Pace::new(clock.clone(), &config);
        // 2026-11-27 is a Friday.
        let midnight = 1_795_737_600_000;
        for (days, time, limit) in [
            (0, 8 * 60, 5),
            (0, 18 * 60, 20),
            (0, 22 * 60, 50),
            (1, 0, 50),
            (1, 4 * 60 + 29, 50),
            (1, 4 * 60 + 30, 20),
            (1, 9 * 60, 20),
            (3, 17 * 60 + 59, 5),
        ] {
            clock.0.store(midnight + (days * MINUTES_OF_DAY + time) * 60_000, Ordering::Relaxed);
            assert_eq!(pace.limit(), Some(limit), "{time} minutes into day {days}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_limit_whoever_sends_them() {
        let config = PeerConfig { bytes_per_second: Some(1_000), ..PeerConfig::default() };
        let pace = Pace::new(Arc::new(At::default()), &config);
        let begun = Instant::now();
        futures_util::future::join_all((0..30).map(|_| pace.take(500))).await;
        // The first goes at once; the last after those before it.
        assert_eq!(begun.elapsed().as_millis(), 29 * 500);
        assert!(!Pace::new(Arc::new(At::default()), &PeerConfig::default()).is_limited());
    }
}
