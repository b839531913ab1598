//! How fast bytes may go to a peer, by the time of the week.

use bytes::Bytes;
use cairn_process::clock::Clock;
use cairn_service_api::{AnswerStream, Error, schedule::Schedule};
use futures_util::{Stream, StreamExt, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Bytes that go in one piece: a slow link must show signs of life between them.
const PIECE_BYTES: usize = 64 << 10;

/// Lets bytes pass no faster than the peer's limit of the moment, in the order in which they ask.
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    /// When the next byte may go.
    next: tokio::sync::Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(clock: Arc<dyn Clock>, schedule: Schedule) -> Self {
        Self { clock, schedule, next: tokio::sync::Mutex::default() }
    }

    /// Whether there is ever a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.schedule.is_limited()
    }

    /// Waits until so many bytes may go.
    ///
    /// # Cancel safety
    /// Dropped while it waits for its time, the bytes count as sent.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(limit) = self.schedule.limit_at(self.clock.unix_ms()) else { return };
        let at = {
            let mut next = self.next.lock().await;
            let at = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(at + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// Hands bytes on, where there is a limit in small pieces, each when it may go.
pub(crate) fn paced(
    bytes: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    pace: Arc<Pace>,
) -> AnswerStream<Bytes> {
    if !pace.is_limited() {
        return Box::pin(bytes);
    }
    let pieces = bytes.flat_map(|chunk| {
        let pieces: Vec<_> = match chunk {
            Ok(chunk) => chunk.chunks(PIECE_BYTES).map(|piece| Ok(chunk.slice_ref(piece))).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    });
    Box::pin(pieces.then(move |piece| {
        let pace = pace.clone();
        async move {
            if let Ok(piece) = &piece {
                pace.take(piece.len()).await;
            }
            piece
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_process::clock::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_limit_whoever_sends_them() {
        let schedule = Schedule { always: Some(1_000), ..Schedule::default() };
        let pace = Pace::new(Arc::new(SystemClock::new()), schedule);
        let begun = Instant::now();
        futures_util::future::join_all((0..30).map(|_| pace.take(500))).await;
        // The first goes at once; the last after those before it.
        assert_eq!(begun.elapsed().as_millis(), 29 * 500);
        assert!(!Pace::new(Arc::new(SystemClock::new()), Schedule::default()).is_limited());
    }
}
