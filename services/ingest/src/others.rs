//! Events that other processes of the site append: our clock goes past them, so that what is made here after what was made
//! there is later in the order of events, whichever wall clock runs ahead.

use crate::append::Appender;
use cairn_archive::{Offset, Partition};
use cairn_store_api::{StoreError, as_stored};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::task::JoinSet;

/// Bytes of the last record of a partition: its payload is not looked at.
const RECORD_BYTES: usize = 1;

/// Follows every partition's last event, looking at each at most once an `interval`. Ends when dropped, or with the appender.
pub(crate) fn observe(appender: &Arc<Appender>, interval: Duration) -> JoinSet<()> {
    let partitions = (0..appender.log().partitions()).map(Partition);
    partitions.map(|partition| follow(Arc::downgrade(appender), partition, interval)).collect()
}

async fn follow(appender: Weak<Appender>, partition: Partition, interval: Duration) {
    let mut seen = Offset(0);
    while let Some(appender) = appender.upgrade() {
        match observe_last(&appender, partition, seen).await {
            Ok(end) => seen = end,
            // The log is away: appends say so to those who store.
            Err(error) => {
                tracing::debug!(partition = partition.0, %error, "events of other processes are not observed")
            }
        }
        drop(appender);
        tokio::time::sleep(interval).await;
    }
}

async fn observe_last(appender: &Appender, partition: Partition, seen: Offset) -> Result<Offset, StoreError> {
    let end = appender.log().wait_beyond(partition, seen).await?;
    if let Some(last) = end.0.checked_sub(1).map(Offset) {
        let batch = as_stored(appender.log()).read(partition, last, 1, RECORD_BYTES).await?;
        batch.records.iter().for_each(|record| appender.observe(record.record.envelope.hlc));
    }
    Ok(end)
}
