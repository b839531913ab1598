//! Durability, shown: recovery runs on every prefix of the recorded operations and on seeded parts of what was not
//! synced; and each sync is shown to be needed, because leaving it out makes a check fail.

mod damage;
mod explore;
mod failed_sync;
mod syncs;
mod work;

use cairn_process::disk::sim::SimDisk;

/// Checks a run of the shipped code.
#[test]
fn every_crash_point_keeps_what_was_acknowledged() {
    let disk = SimDisk::new();
    let acks = work::run(&disk);
    let explored = explore::explore(&disk, &acks, 0..4, &|_| {}).unwrap_or_else(|broken| panic!("{broken:?}"));
    // How many there are depends on how appends fall into groups; a handful would mean that recording broke.
    assert!(explored > 200, "many crashes were looked at: {explored}");
}
