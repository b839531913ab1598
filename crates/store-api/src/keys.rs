//! Keys of patient attributes in events: the port, what a process holds of it, and a log that is sealed by it.

mod cache;
mod ring;
mod sealed_log;

pub use ring::{HandedKey, KeyRing, KeyRingConfig};
pub use sealed_log::SealedLog;

use crate::StoreError;
use async_trait::async_trait;
use cairn_archive::{KeyId, sealing::KeyBytes};

/// What a key store knows of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key.
    Key(KeyBytes),
    /// It is destroyed, for ever.
    Destroyed,
    /// Nothing was ever here under that id.
    Absent,
    /// It is absent, and an operator says that nobody is to wait for it.
    Abandoned,
}

/// Ids in order, each with whether its key is destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// At most as many as asked for.
    pub keys: Vec<(KeyId, bool)>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Keys by ids that the caller draws at random. A store alone, or a copy of it, gives no key away: they are wrapped under a
/// master key, which is kept elsewhere.
///
/// * KS-01 When `add` returns, the keys are durable: they survive a crash of process and machine.
/// * KS-02 `get` gives the bytes that were added, until the key is destroyed.
/// * KS-03 Adding the same bytes under a present id changes nothing; other bytes are `Conflict`, and what is there stays. What
///   is destroyed stays destroyed, and adding it again is no error.
/// * KS-04 When `destroy` returns, the keys are `Destroyed` durably and for ever, those too that were never here.
/// * KS-05 Nothing in the store's files gives a destroyed key, with the master key neither.
/// * KS-06 An id that nothing was added under is `Absent`. A key that can't be read is `Corrupt`: never `Absent`, never `Destroyed`.
/// * KS-07 `list` gives every id once, in order.
/// * KS-08 While a store that keeps state in its process is open no second process can open it for writing: `Conflict`.
/// * KS-09 Reopened after a crash at any point, each key is there whole or not at all, and each destruction as well.
/// * KS-10 With another master key the store does not open: `Invalid`. Without it its files give no key.
/// * KS-11 When the disk is full `add` is `Exhausted`, what was there stays readable, and adding goes on once there is room.
/// * KS-12 What is `Abandoned` is not listed, and becomes what it is added or destroyed as.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Adds keys.
    ///
    /// # Errors
    /// `Conflict`, `Exhausted`: nothing was changed, or some of them were added.
    /// # Cancel safety
    /// Dropped, some of them may be added.
    async fn add(&self, keys: Vec<(KeyId, KeyBytes)>) -> Result<(), StoreError>;

    /// What is known of an id.
    async fn get(&self, id: KeyId) -> Result<KeyState, StoreError>;

    /// Destroys keys.
    ///
    /// # Cancel safety
    /// Dropped, some of them may be destroyed.
    async fn destroy(&self, ids: Vec<KeyId>) -> Result<(), StoreError>;

    /// Ids greater than `after`, in order.
    async fn list(&self, after: Option<KeyId>, max: usize) -> Result<KeyPage, StoreError>;

    /// Waits for what is under way, and closes files.
    async fn close(&self) -> Result<(), StoreError>;
}
