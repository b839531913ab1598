//! Verifying a whole log: every event is hashed, and every tree must come to what was signed.

use super::verify::Keys;
use crate::{
    cli::ConfigSource,
    commands::{Failure, load},
    config::LogKind,
    stores,
};
use cairn_archive::{
    Offset, Partition,
    notary::{Frontier, Note, TreeHead, leaf_hash},
};
use cairn_store_api::{EventLog, StoreError, StoreErrorKind};
use futures_util::{StreamExt, stream};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 1024;
const READ_BYTES: usize = 1 << 20;

/// Verifies the log that the configuration names against a checkpoint.
///
/// # Errors
/// `Differs`: it is not the log that was signed; where is said.
pub async fn verify(path: &Path, public_keys: &[PathBuf], source: &ConfigSource) -> Result<(), Failure> {
    let differs = |what: String| Failure::Differs(format!("{}: {what}", path.display()));
    let note = Note::parse(&super::read(path)?).map_err(|what| differs(what.to_string()))?;
    let (checkpoint, _) = Keys::read(public_keys)?.checkpoint(&note).map_err(|what| differs(what.to_string()))?;
    let config = load(source)?.config;
    let directory = config.data.directory.join("log");
    if config.stores.log == LogKind::Embedded && !directory.is_dir() {
        return Err(Failure::failed(format!("{}: there is no log", directory.display())));
    }
    let log = stores::log_alone(&config).await?;
    let found = match *log.site() == checkpoint.site && usize::from(log.partitions()) == checkpoint.trees.len() {
        true => compared(&log, &checkpoint.trees).await,
        false => Err(differs("the checkpoint is of another log".into())),
    };
    log.close().await.map_err(Failure::failed)?;
    let wrong = found?;
    if !wrong.is_empty() {
        return Err(Failure::Differs(wrong.join("\n")));
    }
    println!("{} events are those of checkpoint {}", checkpoint.events(), checkpoint.number);
    Ok(())
}

/// What is wrong with each partition.
async fn compared(log: &Arc<dyn EventLog>, trees: &[TreeHead]) -> Result<Vec<String>, Failure> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let partitions = (0..).map(Partition).zip(trees.iter().copied()).collect::<Vec<_>>();
    let compared = stream::iter(partitions).map(|(partition, head)| {
        // A thread for each: hashing is most of it.
        tokio::spawn(partition_differs(log.clone(), partition, head))
    });
    let found: Vec<_> = compared.buffered(at_once).collect().await;
    let mut wrong = Vec::new();
    for found in found {
        wrong.extend(found.map_err(Failure::failed)??);
    }
    Ok(wrong)
}

async fn partition_differs(
    log: Arc<dyn EventLog>,
    partition: Partition,
    head: TreeHead,
) -> Result<Option<String>, Failure> {
    let number = partition.0;
    match root(&*log, partition, head.size).await {
        Ok(tree) if tree.size() < head.size => {
            Ok(Some(format!("partition {number} has {} events: the checkpoint has {}", tree.size(), head.size)))
        }
        Ok(tree) if tree.root() != head.root => {
            Ok(Some(format!("partition {number}: its first {} events are not those that were signed", head.size)))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(Some(format!("partition {number}: {error}"))),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// The tree of the first `size` events, or of those that there are.
async fn root(log: &dyn EventLog, partition: Partition, size: u64) -> Result<Frontier, StoreError> {
    let mut tree = Frontier::default();
    while tree.size() < size {
        let wanted = usize::try_from(size - tree.size()).unwrap_or(READ_RECORDS).min(READ_RECORDS);
        let batch = log.read(partition, Offset(tree.size()), wanted, READ_BYTES).await?;
        if batch.records.is_empty() {
            break;
        }
        for record in &batch.records {
            let place = (log.site(), partition, record.offset);
            let (envelope, payload) = (&record.record.envelope, &record.record.payload);
            tree.push(leaf_hash(place, record.appended_at_ms, envelope, payload), |_, _| {});
        }
    }
    Ok(tree)
}
