//! The key store, and the master key that its keys are wrapped under.

use crate::{
    commands::Failure,
    config::{Config, LogKind},
    signing::of_file,
};
use aws_lc_rs::rand;
use cairn_archive::sealing::KeyBytes;
use cairn_key_store_embedded::{EmbeddedKeyStore, FILE_NAME, KeyStoreConfig};
use cairn_process::disk::Disk;
use cairn_store_api::{KeyRing, StoreError};
use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Directory of the key store.
pub fn directory(config: &Config) -> PathBuf {
    config.data.directory.join("keys")
}

/// File of its keys.
pub fn file(config: &Config) -> PathBuf {
    directory(config).join(FILE_NAME)
}

/// File of the master key.
pub fn master_file(config: &Config) -> PathBuf {
    config.keys.master_key_file.clone().unwrap_or_else(|| directory(config).join("master.key"))
}

/// Whether this archive has a key store: it goes with the log that one process has.
pub fn has_store(config: &Config) -> bool {
    config.stores.log == LogKind::Embedded
}

/// The keys of this process; `None`: the log is one that has no key store.
pub async fn ring(config: &Config, disk: &Arc<dyn Disk>) -> Result<Option<Arc<KeyRing>>, Failure> {
    if !has_store(config) {
        return Ok(None);
    }
    let (config, disk) = (config.clone(), disk.clone());
    let ring = config.keys.ring();
    let store = tokio::task::spawn_blocking(move || open(&config, disk)).await.map_err(Failure::failed)??;
    Ok(Some(Arc::new(KeyRing::new(Arc::new(store), ring))))
}

/// Opens the key store; the first time it is made, and its master key.
///
/// # Errors
/// A store without its master key, or under another one; another process has it.
pub fn open(config: &Config, disk: Arc<dyn Disk>) -> Result<EmbeddedKeyStore, Failure> {
    let (directory, path) = (directory(config), master_file(config));
    let master = match (read_master(&path)?, file(config).exists()) {
        (Some(master), _) => master,
        (None, false) => make_master(&path)?,
        (None, true) => {
            return Err(of_file(
                &path,
                "there is no master key, and keys are under one: bring it back from its backup",
            ));
        }
    };
    let store = KeyStoreConfig { directory: directory.clone(), master, reserve_bytes: config.data.reserve_bytes / 4 };
    EmbeddedKeyStore::open(disk, store).map_err(|error| super::failed(&directory, "keys", error))
}

/// The master key in a file; `None`: there is no such file.
///
/// # Errors
/// It can't be read, or is none.
pub fn read_master(path: &Path) -> Result<Option<KeyBytes>, Failure> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| of_file(path, error))?,
    };
    let digits = text.trim().as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.0.iter().map(byte).collect();
    let key = bytes.filter(|_| digits.1.is_empty()).and_then(|bytes| bytes.try_into().ok());
    key.map(|key| Some(KeyBytes(key))).ok_or_else(|| of_file(path, "not 64 hexadecimal digits, which a master key is"))
}

/// Makes a master key, in a file that only its owner reads; durable on return.
fn make_master(path: &Path) -> Result<KeyBytes, Failure> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| Failure::failed("the system gives no randomness"))?;
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let written = || {
        fs::create_dir_all(directory)?;
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Whole or not at all.
        fs::rename(&new, path)?;
        fs::File::open(directory)?.sync_all()
    };
    written().map_err(|error| of_file(path, error))?;
    tracing::info!(file = %path.display(), "a master key is made: without it, and a backup of the keys, events can't be read");
    Ok(KeyBytes(key))
}

/// Opens a file of keys for reading alone; it may be in use.
///
/// # Errors
/// Its, or that of the master key.
pub fn open_to_read(disk: &dyn Disk, file: &Path, master: &Path) -> Result<EmbeddedKeyStore, Failure> {
    let key = read_master(master)?.ok_or_else(|| of_file(master, "there is no master key"))?;
    EmbeddedKeyStore::open_to_read(disk, file, &key).map_err(|error: StoreError| of_file(file, error))
}
