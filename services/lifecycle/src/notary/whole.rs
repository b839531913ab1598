//! A whole log against a checkpoint: every event is hashed, and every tree must come to what was signed.

use super::tree::leaf_of;
use cairn_archive::{
    Offset, Partition,
    notary::{Frontier, TreeHead},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::EventLog;
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 1024;
const READ_BYTES: usize = 1 << 20;

/// What is wrong with a log that should have these trees, by partition: nothing, if it is the one that was signed.
/// `at_once` partitions are hashed beside each other, each by a task of its own.
///
/// # Errors
/// Those of a log that can't be read; a damaged one is a finding.
pub async fn verify_log(log: &Arc<dyn EventLog>, trees: &[TreeHead], at_once: usize) -> Result<Vec<String>, Error> {
    if usize::from(log.partitions()) != trees.len() {
        return Err(Error::new(ErrorKind::Invalid, "the checkpoint is of another log"));
    }
    let partitions = (0..).map(Partition).zip(trees.to_vec());
    let compared = stream::iter(partitions).map(|(partition, head)| {
        // A task for each: hashing is most of it.
        tokio::spawn(partition_differs(log.clone(), partition, head))
    });
    let found: Vec<_> = compared.buffered(at_once.max(1)).collect().await;
    let mut wrong = Vec::new();
    for found in found {
        let ended = |error| Error::new(ErrorKind::Internal, format!("verification ended: {error}"));
        wrong.extend(found.map_err(ended)??);
    }
    Ok(wrong)
}

async fn partition_differs(
    log: Arc<dyn EventLog>,
    partition: Partition,
    head: TreeHead,
) -> Result<Option<String>, Error> {
    let number = partition.0;
    match tree(&*log, partition, head.size).await {
        Ok(tree) if tree.size() < head.size => {
            Ok(Some(format!("partition {number} has {} events: the checkpoint has {}", tree.size(), head.size)))
        }
        Ok(tree) if tree.root() != head.root => {
            Ok(Some(format!("partition {number}: its first {} events are not those that were signed", head.size)))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind == ErrorKind::Corrupt => Ok(Some(format!("partition {number}: {error}"))),
        Err(error) => Err(error),
    }
}

/// The tree of the first `size` events, or of those that there are.
async fn tree(log: &dyn EventLog, partition: Partition, size: u64) -> Result<Frontier, Error> {
    let mut tree = Frontier::default();
    while tree.size() < size {
        let wanted = usize::try_from(size - tree.size()).unwrap_or(READ_RECORDS).min(READ_RECORDS);
        let batch = log.read(partition, Offset(tree.size()), wanted, READ_BYTES).await?;
        if batch.records.is_empty() {
            break;
        }
        batch.records.iter().for_each(|record| tree.push(leaf_of(log.site(), partition, record), |_, _| {}));
    }
    Ok(tree)
}
