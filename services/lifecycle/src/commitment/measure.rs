//! How many requests are under way, and for how long.

use super::ledger::Ledger;
use crate::metrics;
use cairn_archive::commitment::State;
use std::time::Duration;

/// Requests that are so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UnderWay {
    pub(crate) count: u64,
    /// Age of the oldest.
    pub(crate) oldest: Duration,
}

pub(super) fn measured(ledger: &Ledger, now_ms: u64) {
    let (mut pending, mut unreported) = (UnderWay::default(), UnderWay::default());
    ledger.each_open(|(_, known)| {
        let (of, since) = match known.folded.state()? {
            State::Pending => (&mut pending, known.folded.request()?.order.hlc.wall_ms),
            State::Unreported => (&mut unreported, known.folded.decision()?.order.hlc.wall_ms),
            _ => return None,
        };
        of.count += 1;
        of.oldest = of.oldest.max(Duration::from_millis(now_ms.saturating_sub(since)));
        None::<()>
    });
    metrics::commitments_under_way(&pending, &unreported);
}
