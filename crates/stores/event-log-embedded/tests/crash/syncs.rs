//! Each sync is needed: without it, one of the checks fails.

use crate::{
    explore::{Broken, Check, explore},
    work,
};
use cairn_process::disk::sim::{Event, SimDisk, Verdict};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// What was done to the disk so far, as far as it tells one sync from another.
#[derive(Default)]
struct Seen {
    /// Syncs of each file.
    syncs: HashMap<PathBuf, usize>,
    /// The name changed last.
    named: PathBuf,
}

/// A sync to leave out.
type Which = fn(&Seen, Event<'_>) -> bool;

fn is(path: &Path, suffix: &str) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(suffix))
}

fn segment_sync(seen: &Seen, event: Event<'_>, counts: impl Fn(usize) -> bool) -> bool {
    matches!(event, Event::SyncData(path) if is(path, ".segment") && counts(seen.syncs[path]))
}

fn dir_sync_after(seen: &Seen, event: Event<'_>, suffix: &str) -> bool {
    matches!(event, Event::SyncDir(dir) if dir == Path::new(work::DIR) && is(&seen.named, suffix))
}

/// Leaves out some syncs from now on.
fn leave_out(disk: &SimDisk, which: Which) {
    let seen = Mutex::new(Seen::default());
    disk.set_hook(move |event| {
        let mut seen = seen.lock().expect("not poisoned");
        match event {
            Event::SyncData(path) => *seen.syncs.entry(path.to_owned()).or_default() += 1,
            Event::Name(path) => seen.named = path.to_owned(),
            _ => {}
        }
        if which(&seen, event) { Verdict::Pretend } else { Verdict::Proceed }
    });
}

fn broken(explored: Result<usize, Broken>) -> Check {
    match explored {
        Err(broken) => broken.check,
        Ok(looked_at) => panic!("nothing fails in {looked_at} crashes"),
    }
}

/// Runs the work without some syncs, and gives the check that fails.
fn without(which: Which) -> Check {
    let disk = SimDisk::new();
    leave_out(&disk, which);
    let acks = work::run_rounds(&disk, 14);
    disk.clear_hook();
    broken(explore(&disk, &acks, 0..12, &|_| {}))
}

/// Runs the work as it is and recovery without some syncs, and gives the check that fails.
fn recovery_without(which: Which) -> Check {
    let disk = SimDisk::new();
    let acks = work::run_rounds(&disk, 14);
    broken(explore(&disk, &acks, 0..12, &|disk| leave_out(disk, which)))
}

// Of each segment's file the first sync is that of its preparation, the second that of its opening.

#[test]
fn of_a_groups_data() {
    assert_eq!(without(|seen, event| segment_sync(seen, event, |count| count > 2)), Check::AcknowledgedThere);
}

#[test]
fn of_a_segments_length() {
    let check = without(|seen, event| segment_sync(seen, event, |count| count == 1));
    assert!(matches!(check, Check::NotDamaged | Check::Opens), "{check:?}");
}

#[test]
fn of_a_segments_opening() {
    assert_eq!(without(|seen, event| segment_sync(seen, event, |count| count == 2)), Check::NotDamaged);
}

#[test]
fn of_a_segments_name() {
    let check = without(|seen, event| dir_sync_after(seen, event, ".segment") && !is(&seen.named, "0000.segment"));
    assert_eq!(check, Check::NotDamaged);
}

#[test]
fn of_the_first_segments_name() {
    // The meta file may then be there without it.
    assert_eq!(without(|seen, event| dir_sync_after(seen, event, ".segment")), Check::NotDamaged);
}

#[test]
fn of_an_indexs_data() {
    let check = without(|_, event| matches!(event, Event::SyncData(path) if is(path, ".index.new")));
    assert_eq!(check, Check::IndexesThere);
}

#[test]
fn of_an_indexs_name() {
    assert_eq!(without(|seen, event| dir_sync_after(seen, event, ".index")), Check::IndexesThere);
}

#[test]
fn of_the_meta_files_data() {
    assert_eq!(without(|_, event| matches!(event, Event::SyncData(path) if is(path, "meta.new"))), Check::Opens);
}

#[test]
fn of_the_meta_files_name() {
    // Recovery and the next segment sync the same directory: all until then.
    let which: Which = |seen, event| {
        matches!(event, Event::SyncDir(dir) if dir == Path::new(work::DIR)) && !is(&seen.named, ".segment")
    };
    let check = without(which);
    assert!(matches!(check, Check::Opens | Check::AcknowledgedThere), "{check:?}");
}

#[test]
fn of_the_directorys_own_name() {
    let check = without(|_, event| matches!(event, Event::SyncDir(dir) if dir != Path::new(work::DIR)));
    assert_eq!(check, Check::AcknowledgedThere);
}

#[test]
fn of_the_marker_that_recovery_writes() {
    let check = recovery_without(|seen, event| segment_sync(seen, event, |count| count == 2));
    assert_eq!(check, Check::NotDamaged);
}

#[test]
fn of_the_names_that_recovery_relies_on() {
    let check = recovery_without(|_, event| matches!(event, Event::SyncDir(_)));
    assert!(matches!(check, Check::ReadableStays | Check::AppendsGoOn), "{check:?}");
}
