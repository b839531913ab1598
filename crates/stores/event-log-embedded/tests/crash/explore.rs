//! Crashes at every point, and what must hold after each.

use crate::work::{Ack, USED, block_on, open, read_all};
use cairn_archive::{Offset, Partition};
use cairn_conformance::event_log::record;
use cairn_event_log_embedded::EmbeddedEventLog;
use cairn_process::disk::sim::{Loss, SimDisk};
use cairn_store_api::EventLog;
use std::collections::BTreeSet;

/// What a crash must leave as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// The log opens.
    Opens,
    /// A crash alone damages nothing.
    NotDamaged,
    /// Recovery reads the open segment alone: no index of a sealed one was lost.
    IndexesThere,
    /// What was acknowledged is there, at its place.
    AcknowledgedThere,
    /// Offsets have no gaps, and no record is there twice.
    InOrder,
    /// What was readable after a recovery is so after a further crash.
    ReadableStays,
    /// What is appended after a recovery survives a further crash.
    AppendsGoOn,
}

/// A check that failed, and where.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) check: Check,
    #[expect(dead_code, reason = "shown when the check fails")]
    at: String,
}

/// Sets faults on a disk before recovery.
pub(crate) type Faults<'a> = &'a dyn Fn(&SimDisk);

/// Crashes a run at every point with several losses; gives how many it looked at.
pub(crate) fn explore(
    disk: &SimDisk,
    acks: &[Ack],
    seeds: std::ops::Range<u64>,
    faults: Faults<'_>,
) -> Result<usize, Broken> {
    let mut looked_at = 0;
    for at in 0..=disk.operations() {
        // Other seeds at each point.
        let seeded = seeds.clone().map(|seed| Loss::Seeded(at as u64 * 1000 + seed));
        for loss in [Loss::Nothing, Loss::Everything].into_iter().chain(seeded) {
            let crashed = disk.crash(at, loss);
            faults(&crashed);
            check(&crashed, acks, at)
                .map_err(|(check, what)| Broken { check, at: format!("{what}, crashed at {at} with {loss:?}") })?;
            looked_at += 1;
        }
    }
    Ok(looked_at)
}

pub(crate) type Failed = (Check, String);

/// Offsets and numbers of each partition's records.
pub(crate) type Readable = Vec<Vec<(Offset, u64)>>;

/// Checks a disk as found after a crash when `at` operations had been done.
fn check(disk: &SimDisk, acks: &[Ack], at: usize) -> Result<(), Failed> {
    let log = reopen(disk)?;
    let readable = read_partitions(&log)?;
    for ack in acks.iter().filter(|ack| ack.operations <= at) {
        let found = readable[usize::from(ack.partition.0)].get(ack.offset.0 as usize);
        if found != Some(&(ack.offset, ack.number)) {
            return Err((Check::AcknowledgedThere, format!("{ack:?} is {found:?}")));
        }
    }
    disk.clear_hook();
    let recovered = disk.operations();
    append_and_crash(disk, &log, &readable, at)?;
    drop(log);
    // A further crash, at once after recovery.
    let further = disk.crash(recovered, Loss::Everything);
    let log = reopen(&further)?;
    let after = read_partitions(&log)?;
    if !readable.iter().zip(&after).all(|(before, after)| after.starts_with(before)) {
        return Err((Check::ReadableStays, format!("{readable:?} became {after:?}")));
    }
    append_and_crash(&further, &log, &after, at)
}

/// What a recovery makes readable.
pub(crate) fn readable(disk: &SimDisk) -> Result<Readable, Failed> {
    read_partitions(&reopen(disk)?)
}

/// What was readable is so after a further crash.
pub(crate) fn stays_readable(disk: &SimDisk, before: &Readable) -> Result<(), Failed> {
    let after = readable(&disk.crash(disk.operations(), Loss::Everything))?;
    if before.iter().zip(&after).all(|(before, after)| after.starts_with(before)) {
        return Ok(());
    }
    Err((Check::ReadableStays, format!("{before:?} became {after:?}")))
}

/// Appends a little, crashes while it is under way, and looks again.
fn append_and_crash(
    disk: &SimDisk,
    log: &EmbeddedEventLog,
    before: &[Vec<(Offset, u64)>],
    at: usize,
) -> Result<(), Failed> {
    let mut points = Vec::new();
    let begun = disk.operations();
    for (index, partition) in (0..USED).map(Partition).enumerate() {
        let number = 1_000_000 + index as u64;
        let offset = block_on(log.append(partition, vec![record(0, number, 300)]))
            .map_err(|error| (Check::AppendsGoOn, format!("append fails: {error}")))?;
        points.push((partition, offset, number));
    }
    // The first of them is written and not synced; the last of them is; all are done.
    let done = disk.operations();
    let seeded = (0..4).map(|seed| Loss::Seeded(at as u64 * 1000 + seed));
    let first = seeded.clone().map(|loss| (begun + 1, 0, loss));
    let last = seeded.take(2).map(|loss| (done - 1, points.len() - 1, loss));
    for (crash_at, there, loss) in first.chain(last).chain([(done, points.len(), Loss::Everything)]) {
        let crashed = disk.crash(crash_at, loss);
        let log = reopen(&crashed)?;
        let after = read_partitions(&log)?;
        for (partition, offset, number) in &points[..there] {
            let partition = usize::from(partition.0);
            if after[partition].get(offset.0 as usize) != Some(&(*offset, *number)) {
                return Err((Check::AppendsGoOn, format!("{number} was acknowledged and is lost")));
            }
            if !after[partition].starts_with(&before[partition]) {
                return Err((Check::AppendsGoOn, "older records are lost".to_owned()));
            }
        }
    }
    Ok(())
}

fn reopen(disk: &SimDisk) -> Result<EmbeddedEventLog, Failed> {
    let log = open(disk).map_err(|error| (Check::Opens, error.to_string()))?;
    let found = log.recovery();
    if found.damage.is_some() {
        return Err((Check::NotDamaged, format!("{found:?}")));
    }
    if found.indexes_rebuilt > 0 || found.segments_scanned > 1 {
        return Err((Check::IndexesThere, format!("{found:?}")));
    }
    Ok(log)
}

fn read_partitions(log: &EmbeddedEventLog) -> Result<Readable, Failed> {
    let mut seen = BTreeSet::new();
    let mut partitions = Vec::new();
    for partition in (0..USED).map(Partition) {
        let (records, error) = block_on(read_all(log, partition));
        if let Some(error) = error {
            return Err((Check::NotDamaged, error.to_string()));
        }
        for (index, (offset, number)) in records.iter().enumerate() {
            if offset.0 != index as u64 || !seen.insert(*number) {
                return Err((Check::InOrder, format!("record {number} at {offset:?} of {partition:?}")));
            }
        }
        partitions.push(records);
    }
    Ok(partitions)
}
