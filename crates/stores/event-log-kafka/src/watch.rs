//! Whether the log still has the life in which it was opened.
//!
//! Every so often the end of the last partition is asked for. When it has moved, somebody claims a new life, and this opening
//! gives and takes nothing any more. When it could not be asked for as long as `life_lease`, appends and reads are refused
//! until it could. So by `life_lease` after a claim nobody else begins an append, by `append_timeout` later none is under way
//! in a client, and by `request_timeout` later none on its way to a broker: that long who claimed waits, and only then looks
//! at the log.

use crate::{ends::Ends, shared::Shared};
use cairn_archive::{Offset, Partition};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often it is asked, within the time that an answer holds.
const ASKED_WITHIN_LEASE: u32 = 8;

pub(crate) struct Watch {
    pub(crate) ends: Arc<Ends>,
    pub(crate) shared: Arc<Shared>,
    /// The last partition of the topic.
    pub(crate) partition: Partition,
    /// Its end, when it was read.
    pub(crate) end: Offset,
    pub(crate) lease: Duration,
}

impl Watch {
    /// Watches until another life is claimed.
    pub(crate) async fn run(self) {
        loop {
            let asked = Instant::now();
            match self.ends.end(self.partition).await {
                Ok(end) if end > self.end => {
                    // It refuses everything, and says why, from now on.
                    let _broken = self.shared.break_off("a new life of it is begun");
                    return;
                }
                Ok(_) => self.shared.is_alive_at(asked.into_std()),
                Err(error) => tracing::debug!(%error, "whether the log has a new life is not known"),
            }
            tokio::time::sleep(self.lease / ASKED_WITHIN_LEASE).await;
        }
    }
}
