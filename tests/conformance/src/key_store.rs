//! Trials of [`KeyStore`].

mod keys;

use async_trait::async_trait;
use cairn_store_api::{KeyStore, StoreError};
use libtest_mimic::Trial;
use std::{future::Future, pin::Pin, sync::Arc};

/// A place in which one store lives, and what can be done to it from outside.
#[async_trait]
pub trait KeyStoreBackend: Send + Sync {
    /// Opens the store; the first opening creates it.
    async fn open(&self) -> Result<Arc<dyn KeyStore>, StoreError>;

    /// The same with another master key.
    async fn open_with_another_master(&self) -> Result<Arc<dyn KeyStore>, StoreError>;

    /// What the backend can be made to suffer.
    fn faults(&self) -> KeyFaults;

    /// The machine lost power, so many steps on its disk before now; none: after everything that was done. The stores opened
    /// before are of no use any more.
    async fn crash(&self, steps: u64);

    /// Leaves no room (`true`), or room again (`false`).
    async fn fill(&self, full: bool);

    /// Changes one of the stored bytes that hold `bytes`.
    async fn damage(&self, bytes: &[u8]);

    /// Everything that the store has written and not taken away.
    async fn stored(&self) -> Vec<u8>;
}

/// What a backend can be made to suffer. Trials that need more are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFaults {
    /// [`KeyStoreBackend::crash`].
    pub crash: bool,
    /// [`KeyStoreBackend::fill`].
    pub full: bool,
    /// [`KeyStoreBackend::damage`].
    pub damage: bool,
    /// Only one process may have it open (KS-08).
    pub exclusive: bool,
}

/// A backend in a trial.
type Backend = Box<dyn KeyStoreBackend>;
type Run = fn(Backend) -> Pin<Box<dyn Future<Output = ()>>>;
/// What a trial needs of its backend.
type Needs = fn(KeyFaults) -> bool;

macro_rules! table {
    ($($name:literal, $needs:expr, $function:path;)*) => {
        [$(($name, $needs as Needs, (|backend| Box::pin($function(backend))) as Run)),*]
    };
}

/// The trials of the port, as `key_store::{name}::{clause}_{what}`.
pub fn trials(name: &str, backend: impl Fn() -> Backend + Clone + Send + 'static) -> Vec<Trial> {
    let any: Needs = |_| true;
    let table = table! {
        "KS-01_durable_when_added", |f| f.crash, keys::durable_when_added;
        "KS-02_given_as_added_after_closing", any, keys::given_as_added_after_closing;
        "KS-03_present_and_destroyed_stay_as_they_are", any, keys::present_and_destroyed_stay_as_they_are;
        "KS-04_destroyed_is_for_ever", any, keys::destroyed_is_for_ever;
        "KS-05_nothing_stored_gives_a_destroyed_key", any, keys::nothing_stored_gives_a_destroyed_key;
        "KS-06_absent_is_absent", any, keys::absent_is_absent;
        "KS-06_damage_is_corrupt", |f| f.damage, keys::damage_is_corrupt;
        "KS-07_listed_once_in_order", any, keys::listed_once_in_order;
        "KS-08_open_once", |f| f.exclusive, keys::open_once;
        "KS-09_after_a_crash_whole_or_not_at_all", |f| f.crash, keys::whole_or_not_at_all;
        "KS-10_another_master_key_opens_nothing", any, keys::another_master_key_opens_nothing;
        "KS-11_full_is_exhausted_and_passes", |f| f.full, keys::full_is_exhausted_and_passes;
    };
    let faults = backend().faults();
    let trial = |(clause, needs, run): (&str, Needs, Run)| {
        let backend = backend.clone();
        let trial = crate::trial(format!("key_store::{name}::{clause}"), move || run(backend()));
        trial.with_ignored_flag(!needs(faults))
    };
    table.into_iter().map(trial).collect()
}
