use crate::config::Timeouts;
use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long a peer may be waited for: without any progress, and on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallLimit {
    idle: Duration,
    rate_min_bytes_per_s: u64,
    grace: Duration,
}

impl StallLimit {
    /// For answers that are written.
    pub(crate) fn of(timeouts: &Timeouts) -> Self {
        Self {
            idle: timeouts.write_stall,
            rate_min_bytes_per_s: timeouts.rate_min_bytes_per_s,
            grace: timeouts.rate_grace,
        }
    }

    /// For request bodies that are read.
    pub(crate) fn of_body(timeouts: &Timeouts) -> Self {
        Self { idle: timeouts.body_idle, ..Self::of(timeouts) }
    }
}

/// Adds up the time spent waiting for a peer. Time in which the peer was not waited for does not count.
pub(crate) struct StallClock {
    limit: StallLimit,
    waited: Duration,
    bytes: u64,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl StallClock {
    /// With nothing waited for yet.
    pub(crate) fn new(limit: StallLimit) -> Self {
        Self { limit, waited: Duration::ZERO, bytes: 0, waiting: None }
    }

    /// The peer made progress.
    pub(crate) fn progress(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// The peer is waited for; ready when it has been for too long.
    pub(crate) fn poll_too_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let allowed = self.allowed();
        let (_, sleep) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until(now + allowed)))
        });
        sleep.as_mut().poll(context)
    }

    /// How long this wait may be: what the bytes so far have earned, and no more than the idle limit.
    fn allowed(&self) -> Duration {
        let earned = self.bytes.checked_div(self.limit.rate_min_bytes_per_s).map_or(Duration::MAX, Duration::from_secs);
        let budget = self.limit.grace.saturating_add(earned);
        budget.saturating_sub(self.waited).min(self.limit.idle)
    }
}

/// A stream whose writes fail when its peer takes nothing for too long, or too little on average.
pub(super) struct StallingWriter<S> {
    stream: S,
    clock: StallClock,
}

impl<S> StallingWriter<S> {
    pub(super) fn new(stream: S, limit: StallLimit) -> Self {
        Self { stream, clock: StallClock::new(limit) }
    }

    fn after(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.clock.progress(result.as_ref().map_or(0, |bytes| *bytes));
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.clock.poll_too_long(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallingWriter<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallingWriter<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, buf);
        this.after(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bufs);
        this.after(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(waited_s: u64, bytes: u64) -> StallClock {
        let limit =
            StallLimit { idle: Duration::from_secs(30), rate_min_bytes_per_s: 1000, grace: Duration::from_secs(60) };
        StallClock { limit, waited: Duration::from_secs(waited_s), bytes, waiting: None }
    }

    #[test]
    fn a_peer_must_move_and_must_keep_up_on_average() {
        assert_eq!(clock(0, 0).allowed(), Duration::from_secs(30));
        assert_eq!(clock(50, 0).allowed(), Duration::from_secs(10));
        assert_eq!(clock(60, 999).allowed(), Duration::ZERO);
        assert_eq!(clock(600, 1_000_000).allowed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_write() {
        use tokio::io::AsyncWriteExt;
        let (ours, _theirs) = tokio::io::duplex(16);
        let limit = StallLimit::of(&Timeouts::default());
        let mut writer = StallingWriter::new(ours, limit);
        let before = Instant::now();
        let error = writer.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), 30);
    }
}
