//! Trials of [`ObjectStore`].

mod objects;
mod reading;
mod writing;

use async_trait::async_trait;
use cairn_store_api::{ObjectStore, StoreError};
use libtest_mimic::Trial;
use std::{future::Future, pin::Pin, sync::Arc};

pub use objects::{bytes, key, put, read, read_range};

/// A place in which one store lives, and what can be done to it from outside.
#[async_trait]
pub trait ObjectStoreBackend: Send + Sync {
    /// Opens the store; the first opening creates it.
    async fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError>;

    /// What the backend can be made to suffer.
    fn faults(&self) -> Faults;

    /// The machine loses power, and has it again. The stores opened before are of no use any more.
    async fn crash(&self);

    /// Leaves no room, so that puts fail sooner or later (`true`), or room again (`false`).
    async fn fill(&self, full: bool);

    /// Changes one of the stored bytes that hold `bytes`.
    async fn damage(&self, bytes: &[u8]);

    /// Lets no write reach the medium from now on (`true`), or lets those that wait (`false`).
    async fn stall(&self, stalled: bool);
}

/// What a backend can be made to suffer. Trials that need more are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// [`ObjectStoreBackend::crash`].
    pub crash: bool,
    /// [`ObjectStoreBackend::fill`].
    pub full: bool,
    /// [`ObjectStoreBackend::damage`].
    pub damage: bool,
    /// [`ObjectStoreBackend::stall`].
    pub stall: bool,
    /// Only one process may have it open (OS-13).
    pub exclusive: bool,
}

/// A backend in a trial.
type Backend = Box<dyn ObjectStoreBackend>;
type Run = fn(Backend) -> Pin<Box<dyn Future<Output = ()>>>;
/// What a trial needs of its backend.
type Needs = fn(Faults) -> bool;

macro_rules! table {
    ($($name:literal, $needs:expr, $function:path;)*) => {
        [$(($name, $needs as Needs, (|backend| Box::pin($function(backend))) as Run)),*]
    };
}

/// The trials of the port, as `object_store::{name}::{clause}_{what}`.
pub fn trials(name: &str, backend: impl Fn() -> Backend + Clone + Send + 'static) -> Vec<Trial> {
    let any: Needs = |_| true;
    let table = table! {
        "OS-01_durable_on_finish", |f| f.crash, writing::durable_on_finish;
        "OS-01_durable_on_closing", any, writing::durable_on_closing;
        "OS-02_length_and_digest_of_exactly_the_bytes", any, writing::length_and_digest_of_exactly_the_bytes;
        "OS-03_readable_only_after_finish", any, writing::readable_only_after_finish;
        "OS-03_a_dropped_writer_leaves_nothing", any, writing::a_dropped_writer_leaves_nothing;
        "OS-04_a_present_key_is_a_conflict", any, writing::a_present_key_is_a_conflict;
        "OS-04_of_racing_writers_one_wins", any, writing::of_racing_writers_one_wins;
        "OS-05_ranges_are_exact", any, reading::ranges_are_exact;
        "OS-05_damage_is_never_served", |f| f.damage, reading::damage_is_never_served;
        "OS-06_absent_is_not_found", any, reading::absent_is_not_found;
        "OS-06_another_range_length_or_digest_is_invalid", any, reading::another_range_length_or_digest_is_invalid;
        "OS-07_listed_once_in_key_order", any, reading::listed_once_in_key_order;
        "OS-08_deleted_is_not_found_and_its_room_free", any, writing::deleted_is_not_found_and_its_room_free;
        "OS-08_deleted_stays_deleted", |f| f.crash, writing::deleted_stays_deleted;
        "OS-09_chunks_are_at_most_1_mib", any, reading::chunks_are_at_most_1_mib;
        "OS-09_a_writer_takes_no_more_than_it_can_pass_on", |f| f.stall, writing::a_writer_takes_no_more_than_it_can_pass_on;
        "OS-10_a_slow_writer_delays_nobody", any, writing::a_slow_writer_delays_nobody;
        "OS-10_writers_at_once", any, writing::writers_at_once;
        "OS-11_full_is_exhausted_and_passes", |f| f.full, writing::full_is_exhausted_and_passes;
        "OS-12_after_a_crash_what_was_finished_and_no_other", |f| f.crash, writing::what_was_finished_and_no_other;
        "OS-13_open_once", |f| f.exclusive, writing::open_once;
        "OS-14_a_repair_brings_the_same_bytes_and_no_other", any, writing::a_repair_brings_the_same_bytes_and_no_other;
        "OS-14_damage_is_repaired_for_good", |f| f.damage, writing::damage_is_repaired_for_good;
        "OS-15_other_bytes_than_said_are_not_kept", any, writing::other_bytes_than_said_are_not_kept;
    };
    let faults = backend().faults();
    let trial = |(clause, needs, run): (&str, Needs, Run)| {
        let backend = backend.clone();
        let trial = crate::trial(format!("object_store::{name}::{clause}"), move || run(backend()));
        trial.with_ignored_flag(!needs(faults))
    };
    table.into_iter().map(trial).collect()
}
