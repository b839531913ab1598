//! Trials of [`EventLog`].

mod damage;
mod lives;
mod reading;
mod records;
mod writing;

use async_trait::async_trait;
use cairn_archive::{Incarnation, Offset, Partition, SiteId};
use cairn_store_api::{EventLog, LogRecord, StoreError};
use libtest_mimic::Trial;
use std::{pin::Pin, sync::Arc};

pub use records::record;

/// A place in which one log lives, and what can be done to it from outside.
#[async_trait]
pub trait EventLogBackend: Send + Sync {
    /// Opens the log; the first opening creates it with this incarnation.
    async fn open(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partitions: u16,
    ) -> Result<Arc<dyn EventLog>, StoreError>;

    /// Opens it as [`EventLog::renew`] needs it: nobody else appends meanwhile.
    async fn open_to_renew(&self, site: &SiteId, partitions: u16) -> Result<Arc<dyn EventLog>, StoreError> {
        self.open(site, Incarnation(3), partitions).await
    }

    /// Longest record that the log takes, envelope included.
    fn record_bytes_max(&self) -> usize;

    /// What the backend can be made to suffer.
    fn faults(&self) -> Faults;

    /// The machine loses power, and has it again. The logs opened before are of no use any more.
    async fn crash(&self);

    /// Leaves no room, so that appends fail sooner or later (`true`), or room again (`false`).
    async fn fill(&self, full: bool);

    /// Changes one of the stored bytes that hold `payload`.
    async fn damage(&self, payload: &[u8]);
}

/// What a backend can be made to suffer. Trials that need more are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// [`EventLogBackend::crash`].
    pub crash: bool,
    /// [`EventLogBackend::fill`].
    pub full: bool,
    /// [`EventLogBackend::damage`].
    pub damage: bool,
    /// Only one process may have it open (EL-13).
    pub exclusive: bool,
}

/// A backend in a trial.
type Backend = Box<dyn EventLogBackend>;
type Run = fn(Backend) -> Pin<Box<dyn Future<Output = ()>>>;

/// What a trial needs of its backend.
type Needs = fn(Faults) -> bool;

macro_rules! table {
    ($($name:literal, $needs:expr, $function:path;)*) => {
        [$(($name, $needs as Needs, (|backend| Box::pin($function(backend))) as Run)),*]
    };
}

/// The trials of the port, as `event_log::{name}::{clause}_{what}`.
pub fn trials(name: &str, backend: impl Fn() -> Backend + Clone + Send + 'static) -> Vec<Trial> {
    let any: Needs = |_| true;
    let table = table! {
        "EL-01_acknowledged_records_survive_a_crash", |f| f.crash, writing::acknowledged_records_survive_a_crash;
        "EL-01_acknowledged_records_survive_closing", any, writing::acknowledged_records_survive_closing;
        "EL-02_ordered_within_partition", any, writing::ordered_within_partition;
        "EL-02_records_of_one_append_are_adjacent", any, writing::records_of_one_append_are_adjacent;
        "EL-03_seen_only_after_durable", |f| f.crash, reading::seen_only_after_durable;
        "EL-04_offsets_begin_at_0_without_gaps", any, reading::offsets_begin_at_0_without_gaps;
        "EL-04_a_read_begins_at_its_offset", any, reading::a_read_begins_at_its_offset;
        "EL-04_reads_keep_their_bounds", any, reading::reads_keep_their_bounds;
        "EL-05_an_append_cut_by_a_crash_is_a_prefix", |f| f.crash, writing::an_append_cut_by_a_crash_is_a_prefix;
        "EL-06_bytes_and_envelope_as_appended", any, reading::bytes_and_envelope_as_appended;
        "EL-07_over_long_records_and_absent_partitions_are_invalid", any, writing::refusals_change_nothing;
        "EL-08_callers_do_not_harm_each_other", any, writing::callers_do_not_harm_each_other;
        "EL-09_offset_at_finds_the_first_at_or_after", any, reading::offset_at_finds_the_first_at_or_after;
        "EL-10_wait_beyond_returns_once_it_is_so", any, reading::wait_beyond_returns_once_it_is_so;
        "EL-10_a_dropped_wait_has_no_effect", any, reading::a_dropped_wait_has_no_effect;
        "EL-11_reopened_it_is_what_it_was", any, writing::reopened_it_is_what_it_was;
        "EL-12_damage_is_corrupt_and_ends_reading", |f| f.damage, damage::damage_is_corrupt_and_ends_reading;
        "EL-12_damage_is_found_after_reopening", |f| f.damage, damage::damage_is_found_after_reopening;
        "EL-13_a_second_opening_is_a_conflict", |f| f.exclusive, writing::a_second_opening_is_a_conflict;
        "EL-14_a_full_disk_refuses_and_recovers", |f| f.full, damage::a_full_disk_refuses_and_recovers;
        "EL-15_a_new_life_begins_where_it_was_said", any, lives::a_new_life_begins_where_it_was_said;
        "EL-15_what_is_invalid_begins_no_life", any, lives::what_is_invalid_begins_no_life;
        "EL-15_a_life_survives_a_crash", |f| f.crash, lives::a_life_survives_a_crash;
        "EL-16_who_has_it_open_in_an_older_life_appends_nothing", any, lives::an_older_opening_appends_nothing;
        "closed_it_refuses", any, writing::closed_it_refuses;
    };
    let trial = |(clause, needs, run): (&str, Needs, Run)| {
        let make = backend.clone();
        let ignored = !needs(make().faults());
        crate::trial(format!("event_log::{name}::{clause}"), move || run(make())).with_ignored_flag(ignored)
    };
    table.into_iter().map(trial).collect()
}

fn site() -> SiteId {
    "main".parse().unwrap()
}

/// Opens the log of a trial.
async fn open(backend: &dyn EventLogBackend, partitions: u16) -> Arc<dyn EventLog> {
    backend.open(&site(), Incarnation(3), partitions).await.unwrap()
}

/// All records of a partition, read in small steps, with offsets checked.
async fn read_all(log: &dyn EventLog, partition: Partition) -> Vec<LogRecord> {
    let mut all: Vec<LogRecord> = Vec::new();
    loop {
        let from = Offset(all.len() as u64);
        let batch = log.read(partition, from, 7, 4096).await.unwrap();
        if batch.records.is_empty() {
            assert_eq!(batch.end, from, "an empty batch means the end");
            return all;
        }
        for record in batch.records {
            assert_eq!(record.offset, Offset(all.len() as u64), "offsets have no gaps");
            all.push(record);
        }
    }
}
