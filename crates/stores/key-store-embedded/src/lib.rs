//! KeyStore of one machine: a file of slots, each with a key wrapped under the master key.
//!
//! Slots are added at the end, several by one sync, and never moved. What destroys a key is first added as a slot of its own,
//! durable, and then the key's slot is overwritten; an opening does that again for every key that is said to be destroyed. A
//! copy of the file, made at any time, is a backup.
#![forbid(unsafe_code)]

mod file;
mod master;
mod slot;

use async_trait::async_trait;
use cairn_archive::{KeyId, sealing::KeyBytes};
use cairn_process::disk::{Disk, create_dir_durable};
use cairn_store_api::{KeyPage, KeyState, KeyStore, StoreError, StoreErrorKind};
use file::{KeyFile, Room};
use std::{
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Name of the file of keys in the store's directory.
pub const FILE_NAME: &str = "keys";

/// What a store needs.
#[derive(Clone, Debug)]
pub struct KeyStoreConfig {
    /// Its directory.
    pub directory: PathBuf,
    /// The key that wraps the others.
    pub master: KeyBytes,
    /// Room that is left free on the disk: keys are refused before it is touched.
    pub reserve_bytes: u64,
}

/// What a file of keys holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCounts {
    /// Keys that are there.
    pub present: u64,
    /// Keys that are destroyed.
    pub destroyed: u64,
    /// Keys that are not here and are not waited for.
    pub abandoned: u64,
    /// Slots that can't be read: each may be of a key.
    pub damaged: u64,
}

/// A key store in a directory.
pub struct EmbeddedKeyStore {
    file: Arc<Mutex<Option<KeyFile>>>,
}

impl EmbeddedKeyStore {
    /// Opens the store, creating what is not there, and overwrites what is destroyed and was not yet. Blocking.
    ///
    /// # Errors
    /// `Conflict`: another process has it open. `Invalid`: it is under another master key. `Corrupt`: its beginning can't be
    /// read.
    pub fn open(disk: Arc<dyn Disk>, config: KeyStoreConfig) -> Result<Self, StoreError> {
        let io = |error| StoreError::io("open key store", &error);
        let KeyStoreConfig { directory, master, reserve_bytes } = config;
        create_dir_durable(&*disk, &directory).map_err(io)?;
        let lock = disk.lock(&directory.join("lock")).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::new(StoreErrorKind::Conflict, "key store is in use"),
            _ => io(error),
        })?;
        KeyFile::create(&*disk, &directory, &master)?;
        let mut file = KeyFile::read(&*disk, &directory.join(FILE_NAME), &master)?;
        file.settle(Room { disk, directory, reserve_bytes, _lock: lock })?;
        Ok(Self { file: Arc::new(Mutex::new(Some(file))) })
    }

    /// Opens a file of keys for reading alone, such as a backup, or that of a store that is in use. Blocking.
    ///
    /// # Errors
    /// As [`EmbeddedKeyStore::open`].
    pub fn open_to_read(disk: &dyn Disk, file: &Path, master: &KeyBytes) -> Result<Self, StoreError> {
        let file = KeyFile::read(disk, file, master)?;
        Ok(Self { file: Arc::new(Mutex::new(Some(file))) })
    }

    /// What it holds.
    ///
    /// # Errors
    /// `Unavailable`: it is closed.
    pub fn counts(&self) -> Result<KeyCounts, StoreError> {
        with(&self.file, |file| Ok(file.counts()))
    }

    /// Gives up slots that can't be read, once what they had was restored: a key that is not here is then absent.
    ///
    /// # Errors
    /// The disk's.
    pub fn give_damaged_up(&self) -> Result<(), StoreError> {
        with(&self.file, KeyFile::give_damaged_up)
    }

    /// Says of keys that are not here that nobody is to wait for them; durable on return. One that comes after all is here again.
    ///
    /// # Errors
    /// `Conflict`: one is here, or destroyed. `Corrupt`: one may be in a slot that can't be read. Nothing was changed then.
    pub fn abandon(&self, ids: &[KeyId]) -> Result<(), StoreError> {
        with(&self.file, |file| file.abandon(ids))
    }

    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut KeyFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || with(&file, work)).await;
        done.map_err(|_| StoreError::new(StoreErrorKind::Internal, "a task of the key store has ended"))?
    }
}

fn with<T>(
    file: &Mutex<Option<KeyFile>>,
    work: impl FnOnce(&mut KeyFile) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match &mut *file.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(file) => work(file),
        None => Err(StoreError::new(StoreErrorKind::Unavailable, "key store is closed")),
    }
}

#[async_trait]
impl KeyStore for EmbeddedKeyStore {
    async fn add(&self, keys: Vec<(KeyId, KeyBytes)>) -> Result<(), StoreError> {
        self.on_file(move |file| file.add(&keys)).await
    }

    async fn get(&self, id: KeyId) -> Result<KeyState, StoreError> {
        self.on_file(move |file| file.get(id)).await
    }

    async fn destroy(&self, ids: Vec<KeyId>) -> Result<(), StoreError> {
        self.on_file(move |file| file.destroy(&ids)).await
    }

    async fn list(&self, after: Option<KeyId>, max: usize) -> Result<KeyPage, StoreError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.on_file(move |file| Ok(file.list(after, max))).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        // Whoever is at work has it until that is done.
        let closed = tokio::task::spawn_blocking(move || file.lock().unwrap_or_else(PoisonError::into_inner).take());
        closed
            .await
            .map(drop)
            .map_err(|_| StoreError::new(StoreErrorKind::Internal, "a task of the key store has ended"))
    }
}
