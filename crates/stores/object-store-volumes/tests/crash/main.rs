//! What is left after a crash at any operation, with any part of what was not synced; and proof that these tests notice
//! when a sync is left out.
#![allow(clippy::unwrap_used)]

mod damage;
mod floor;
mod given_back;
mod late;
mod upkeep;
mod workload;

use cairn_process::disk::sim::{Event, Loss, Verdict};
use workload::{Run, Workload, fails, is_file};

/// Seeds per crash point, beside losing everything and nothing.
const SEEDS: u64 = 3;

/// Checks every crash point of a run; gives the first violation.
fn check_all(run: &Run) -> Result<usize, String> {
    let mut checked = 0;
    for at in 0..=run.operations() {
        let seeds = (0..SEEDS).map(|seed| Loss::Seeded((at as u64) << 8 | seed));
        for loss in [Loss::Everything, Loss::Nothing].into_iter().chain(seeds) {
            run.check(at, loss)?;
            checked += 1;
        }
    }
    Ok(checked)
}

#[test]
fn every_crash_point_leaves_what_was_acknowledged_and_nothing_unfinished() {
    for workload in [Workload::small(1), Workload::spanning(2), Workload::reopened(3), Workload::emptied(10)] {
        let run = workload.run();
        let checked = check_all(&run).unwrap();
        println!("{}: {} operations, {checked} crashes", workload.name, run.operations());
        assert!(run.operations() > 100, "the workload does too little");
    }
}

#[test]
fn a_crash_after_a_crash_leaves_it_too() {
    let run = Workload::small(4).run();
    let mut dropped = 0;
    for at in 0..=run.operations() {
        for loss in [Loss::Nothing, Loss::Seeded(at as u64), Loss::Seeded(at as u64 + 5000)] {
            dropped += usize::from(run.check_twice(at, loss).unwrap());
        }
    }
    assert!(dropped > 0, "no restart found an object that was not whole");
}

#[test]
fn what_a_restart_shows_survives_a_crash() {
    for workload in [Workload::small(11), Workload::spanning(12)] {
        let run = workload.run();
        (0..=run.operations()).for_each(|at| run.check_killed(at).unwrap());
    }
}

#[test]
fn room_given_back_after_a_checkpoint_does_not_hide_the_journal() {
    floor::run();
}

#[test]
fn without_the_sync_of_volumes_the_trial_fails() {
    assert!(fails(Workload::small(5), |event| matches!(event, Event::SyncData(path) if is_file(path, "volume-"))));
}

#[test]
fn without_the_sync_of_the_directory_the_trial_fails() {
    assert!(fails(Workload::small(6), |event| matches!(event, Event::SyncDir(_))));
}

#[test]
fn without_the_sync_of_index_segments_the_trial_fails() {
    assert!(fails(Workload::small(7), |event| matches!(event, Event::SyncData(path) if is_file(path, "index-"))));
}

#[test]
fn with_bytes_written_after_the_sync_the_trial_fails() {
    let run = Workload::small(8).run_on(late::Late::new);
    assert!(check_all(&run).is_err(), "late bytes were not noticed");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_reading_goes_on() {
    let mut refused = 0;
    for failing in 1..12 {
        let workload = Workload::small(9);
        let syncs = std::sync::atomic::AtomicU64::new(0);
        let run = workload.run_with(move |event| match event {
            Event::SyncData(path) if is_file(path, "volume-") => {
                let number = syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number == failing { Verdict::Fail(std::io::ErrorKind::Other) } else { Verdict::Proceed }
            }
            _ => Verdict::Proceed,
        });
        refused += run.refused;
        for at in (0..=run.operations()).rev().step_by(17) {
            run.check(at, Loss::Everything).unwrap();
            run.check(at, Loss::Seeded(at as u64)).unwrap();
        }
    }
    assert!(refused > 50, "only {refused} calls failed though syncs did");
}
