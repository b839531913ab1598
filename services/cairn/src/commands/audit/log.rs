//! Verifying a whole log, with nothing else of the archive.

use super::verify::Keys;
use crate::{
    cli::ConfigSource,
    commands::{Failure, load},
    config::LogKind,
    stores,
};
use cairn_archive::notary::Note;
use cairn_lifecycle::verify_log;
use std::path::{Path, PathBuf};

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
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let found = match *log.site() == checkpoint.site && usize::from(log.partitions()) == checkpoint.trees.len() {
        true => verify_log(&log, &checkpoint.trees, at_once).await.map_err(Failure::failed),
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
