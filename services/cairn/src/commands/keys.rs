//! `cairn keys`: what events are sealed under. It works on the files, so that it also does when no archive can start.

use super::{
    Failure, load,
    table::{Cell, one},
};
use crate::{
    cli::{ConfigSource, KeysAction, Output},
    config::Config,
    signing::of_file,
    stores::keys,
};
use cairn_archive::KeyId;
use cairn_key_store_embedded::{EmbeddedKeyStore, KeyCounts};
use cairn_process::disk::{Disk, RealDisk};
use cairn_store_api::{KeyState, KeyStore, StoreError};
use std::{fs, io, path::Path, sync::Arc};

/// Keys that are brought back at once.
const RESTORED_AT_ONCE: usize = 1024;

pub async fn run(action: KeysAction) -> Result<(), Failure> {
    match action {
        KeysAction::Status { source, output } => status(&configured(&source)?, output),
        KeysAction::Backup { file, source } => backup(&configured(&source)?, &file),
        KeysAction::Restore { file, source, master_key_file } => {
            restore(&configured(&source)?, &file, master_key_file.as_deref()).await
        }
        KeysAction::Abandon { keys, source } => abandon(&configured(&source)?, &keys).await,
    }
}

/// The configuration of an archive that has a key store.
fn configured(source: &ConfigSource) -> Result<Config, Failure> {
    let config = load(source)?.config;
    match keys::has_store(&config) {
        true => Ok(config),
        false => Err(Failure::failed("a log that several processes share has no key store")),
    }
}

fn counted(store: &EmbeddedKeyStore) -> Result<KeyCounts, Failure> {
    store.counts().map_err(Failure::failed)
}

fn status(config: &Config, output: Output) -> Result<(), Failure> {
    let store = keys::open_to_read(&RealDisk, &keys::file(config), &keys::master_file(config))?;
    let KeyCounts { present, destroyed, abandoned, damaged } = counted(&store)?;
    let fields = [("Keys", present), ("Destroyed", destroyed), ("Abandoned", abandoned), ("Unreadable", damaged)];
    one(output, &fields.map(|(name, count)| (name, Cell::Number(count))))?;
    match damaged {
        0 => Ok(()),
        count => {
            Err(Failure::Differs(format!("{count} keys can't be read: bring them back with `cairn keys restore`")))
        }
    }
}

/// Slots are whole sectors, added at the end: a copy made while the archive runs is a state that the file had, or is about to
/// have.
fn backup(config: &Config, to: &Path) -> Result<(), Failure> {
    let from = keys::file(config);
    let copied = || {
        let mut source = fs::File::open(&from)?;
        let mut target = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
        io::copy(&mut source, &mut target)?;
        target.sync_all()
    };
    copied().map_err(|error| of_file(to, error))?;
    let KeyCounts { present, destroyed, damaged, .. } =
        counted(&keys::open_to_read(&RealDisk, to, &keys::master_file(config))?)?;
    println!("{}: {present} keys, and {destroyed} that are destroyed", to.display());
    match damaged {
        0 => Ok(()),
        count => Err(Failure::Differs(format!("{}: {count} keys can't be read", to.display()))),
    }
}

async fn restore(config: &Config, from: &Path, master: Option<&Path>) -> Result<(), Failure> {
    let of_backup = master.map_or_else(|| keys::master_file(config), Path::to_owned);
    let backup = keys::open_to_read(&RealDisk, from, &of_backup)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = keys::open(config, disk)?;
    let before = counted(&store)?;
    bring_back(&backup, &store).await.map_err(|error| of_file(from, error))?;
    if before.damaged > 0 {
        // What of them was not in the backup is lost: events under it wait until another backup has it.
        store.give_damaged_up().map_err(Failure::failed)?;
    }
    let after = counted(&store)?;
    store.close().await.map_err(Failure::failed)?;
    println!(
        "{} keys brought back, {} are here, {} are destroyed",
        after.present.saturating_sub(before.present),
        after.present,
        after.destroyed
    );
    Ok(())
}

async fn abandon(config: &Config, ids: &[KeyId]) -> Result<(), Failure> {
    let store = keys::open(config, Arc::new(RealDisk))?;
    store.abandon(ids).map_err(Failure::failed)?;
    store.close().await.map_err(Failure::failed)?;
    println!("{} keys are not waited for any more: events under them are parked", ids.len());
    Ok(())
}

async fn bring_back(backup: &EmbeddedKeyStore, store: &EmbeddedKeyStore) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = backup.list(after, RESTORED_AT_ONCE).await?;
        let (mut present, mut destroyed) = (Vec::new(), Vec::new());
        for (id, _) in &page.keys {
            match backup.get(*id).await? {
                KeyState::Key(key) => present.push((*id, key)),
                KeyState::Destroyed => destroyed.push(*id),
                KeyState::Absent | KeyState::Abandoned => {}
            }
        }
        // What is destroyed first: nothing is there for a moment that should not be.
        store.destroy(destroyed).await?;
        store.add(present).await?;
        after = page.keys.last().map(|(id, _)| *id);
        if !page.more {
            return Ok(());
        }
    }
}
