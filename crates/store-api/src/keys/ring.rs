use super::{KeyState, KeyStore, cache::Cache};
use crate::{StoreError, StoreErrorKind};
use aws_lc_rs::rand;
use cairn_archive::{
    KeyId,
    sealing::{KeyBytes, Opening, SealingKey, SealingNonce, Subject, study_of},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use uuid::Builder;

/// How a process holds keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRingConfig {
    /// Whether what is appended is sealed. What was sealed before is opened in any case.
    pub seal: bool,
    /// Keys held in memory, to seal and to open with, each.
    pub cached_max: usize,
    /// Keys that are made durable at once, ahead of their use. Those that are left at the end of the process are used by nobody.
    pub made_at_once: usize,
}

impl Default for KeyRingConfig {
    fn default() -> Self {
        Self { seal: true, cached_max: 16 << 10, made_at_once: 32 }
    }
}

/// A key as one site hands it to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedKey {
    /// Names it.
    pub id: KeyId,
    /// `None`: it is destroyed.
    pub bytes: Option<KeyBytes>,
}

/// The keys of a process: which one seals for whom, and what opens what. A key seals for one patient in one study, and only in
/// the process that made it; after a restart others are made, so that who seals with a key is always known here.
pub struct KeyRing {
    store: Arc<dyn KeyStore>,
    config: KeyRingConfig,
    held: Mutex<Held>,
    /// Durable, and not in use.
    spare: tokio::sync::Mutex<Vec<Arc<SealingKey>>>,
    /// An append is over.
    ended: Notify,
}

struct Held {
    sealing: Cache<Subject, Arc<SealingKey>>,
    opening: Cache<KeyId, Opening>,
    /// Appends under way: the studies for which each seals, and whether keys of one were retired before it reached the log.
    under_way: HashMap<u64, (HashSet<[u8; 32]>, bool)>,
    next: u64,
}

/// An append for which keys are in use, until it is over.
pub(super) struct InUse {
    ring: Arc<KeyRing>,
    number: u64,
}

impl InUse {
    /// Whether what was sealed may be appended: no key of it was retired meanwhile. From then on whoever retires one waits for it.
    pub(super) fn may_be_appended(&self) -> bool {
        self.ring.held().under_way.get(&self.number).is_some_and(|(_, is_retired)| !is_retired)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.ring.held().under_way.remove(&self.number);
        self.ring.ended.notify_waiters();
    }
}

impl KeyRing {
    /// Over a store.
    pub fn new(store: Arc<dyn KeyStore>, config: KeyRingConfig) -> Self {
        let held = Held {
            sealing: Cache::new(config.cached_max),
            opening: Cache::new(config.cached_max),
            under_way: HashMap::new(),
            next: 0,
        };
        Self { store, config, held: Mutex::new(held), spare: tokio::sync::Mutex::default(), ended: Notify::new() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn KeyStore> {
        &self.store
    }

    pub(super) fn seals(&self) -> bool {
        self.config.seal
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to seal for studies.
    pub(super) fn in_use(self: &Arc<Self>, studies: HashSet<[u8; 32]>) -> InUse {
        let mut held = self.held();
        held.next += 1;
        let number = held.next;
        held.under_way.insert(number, (studies, false));
        InUse { ring: self.clone(), number }
    }

    /// Has nothing come under the keys that are in use so far for a study, once it returns: what was sealed under them is in the
    /// log by then, or never will be, and what comes later is sealed under others. So what is under those keys can be told from the log.
    ///
    /// # Cancel safety
    /// Dropped, those keys are not used for anything new, and something may be under way yet.
    pub async fn retire(&self, tenant: &str, study_instance_uid: &str) {
        let study = study_of(tenant, study_instance_uid);
        let awaited: Vec<u64> = {
            let mut held = self.held();
            held.sealing.retain(|subject| subject.study != study);
            let of_study = held.under_way.iter_mut().filter(|(_, (studies, _))| studies.contains(&study));
            of_study
                .map(|(number, (_, is_retired))| {
                    *is_retired = true;
                    *number
                })
                .collect()
        };
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // What ends from here on is told.
            ended.as_mut().enable();
            if awaited.iter().all(|number| !self.held().under_way.contains_key(number)) {
                return;
            }
            ended.await;
        }
    }

    /// The key to seal with for a subject; durable.
    pub(super) async fn sealing(&self, subject: &Subject) -> Result<Arc<SealingKey>, StoreError> {
        if let Some(key) = self.held().sealing.get(subject) {
            return Ok(key);
        }
        let mut spare = self.spare.lock().await;
        // Another one may have come for the same subject meanwhile.
        if let Some(key) = self.held().sealing.get(subject) {
            return Ok(key);
        }
        if spare.is_empty() {
            *spare = self.make().await?;
        }
        let key = spare.pop().ok_or_else(|| internal("no key was made"))?;
        let mut held = self.held();
        held.sealing.insert(*subject, key.clone());
        held.opening.insert(key.id(), Opening::Key(key.clone()));
        Ok(key)
    }

    async fn make(&self) -> Result<Vec<Arc<SealingKey>>, StoreError> {
        let (mut ready, mut added) = (Vec::new(), Vec::new());
        for _ in 0..self.config.made_at_once.max(1) {
            let (id, bytes) = (KeyId(Builder::from_random_bytes(random()?).into_uuid()), KeyBytes(random()?));
            ready.push(Arc::new(sealing_key(id, &bytes)?));
            added.push((id, bytes));
        }
        self.store.add(added).await?;
        Ok(ready)
    }

    /// What opens what is sealed under these keys; nothing for one that was abandoned.
    ///
    /// # Errors
    /// The store's. `Unavailable`: a key is not here, or not yet.
    pub async fn opening(&self, ids: &[KeyId]) -> Result<BTreeMap<KeyId, Opening>, StoreError> {
        let mut openings = BTreeMap::new();
        for id in ids {
            let known = self.held().opening.get(id);
            let opening = match known {
                Some(opening) => Some(opening),
                None => self.read(*id).await?,
            };
            openings.extend(opening.map(|opening| (*id, opening)));
        }
        Ok(openings)
    }

    async fn read(&self, id: KeyId) -> Result<Option<Opening>, StoreError> {
        let opening = match self.store.get(id).await? {
            KeyState::Key(bytes) => Opening::Key(Arc::new(sealing_key(id, &bytes)?)),
            KeyState::Destroyed => Opening::Destroyed,
            KeyState::Absent => return Err(not_here(id)),
            KeyState::Abandoned => return Ok(None),
        };
        let mut held = self.held();
        // A destruction may have come between: it stays.
        if let Some(Opening::Destroyed) = held.opening.get(&id) {
            return Ok(Some(Opening::Destroyed));
        }
        held.opening.insert(id, opening.clone());
        Ok(Some(opening))
    }

    /// Destroys keys, for ever.
    ///
    /// # Errors
    /// The store's: some may be destroyed.
    pub async fn destroy(&self, ids: Vec<KeyId>) -> Result<(), StoreError> {
        self.store.destroy(ids.clone()).await?;
        let mut held = self.held();
        ids.into_iter().for_each(|id| held.opening.insert(id, Opening::Destroyed));
        Ok(())
    }

    /// Keys as another site needs them to read what it is sent; without those that were abandoned, which it has, or abandons too.
    ///
    /// # Errors
    /// The store's. `NotFound`: one is not here.
    pub async fn hand(&self, ids: impl IntoIterator<Item = KeyId>) -> Result<Vec<HandedKey>, StoreError> {
        let mut handed = Vec::new();
        for id in ids {
            let bytes = match self.store.get(id).await? {
                KeyState::Key(bytes) => Some(bytes),
                KeyState::Destroyed => None,
                KeyState::Absent => return Err(not_found(id)),
                KeyState::Abandoned => continue,
            };
            handed.push(HandedKey { id, bytes });
        }
        Ok(handed)
    }

    /// Takes keys from another site, so that those of `needed` are here. What is said to be destroyed, and is here, stays until
    /// the log says so.
    ///
    /// # Errors
    /// The store's. `Conflict`: another key is here under an id. `NotFound`: a needed one was not handed, and is not here.
    pub async fn take(&self, handed: Vec<HandedKey>, needed: &[KeyId]) -> Result<(), StoreError> {
        let (mut keys, mut destroyed) = (Vec::new(), Vec::new());
        for HandedKey { id, bytes } in handed {
            match bytes {
                Some(bytes) => keys.push((id, bytes)),
                None if self.store.get(id).await? == KeyState::Absent => destroyed.push(id),
                None => {}
            }
        }
        if !keys.is_empty() {
            self.store.add(keys).await?;
        }
        if !destroyed.is_empty() {
            self.destroy(destroyed).await?;
        }
        for id in needed {
            if self.store.get(*id).await? == KeyState::Absent {
                return Err(not_found(*id));
            }
        }
        Ok(())
    }
}

/// A nonce.
pub(super) fn nonce() -> Result<SealingNonce, StoreError> {
    random()
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| internal("the system gives no randomness"))?;
    Ok(bytes)
}

fn sealing_key(id: KeyId, bytes: &KeyBytes) -> Result<SealingKey, StoreError> {
    SealingKey::new(id, bytes).map_err(|error| internal(&error.to_string()))
}

fn not_here(id: KeyId) -> StoreError {
    let message = format!("key {id} is not in the key store: an event waits for it");
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn not_found(id: KeyId) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("key {id} is not in the key store"))
}

fn internal(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Internal, message)
}
