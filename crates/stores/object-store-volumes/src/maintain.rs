//! The thread that does what can wait: writes the index down, merges its segments, writes zeros ahead, gives room back.

use crate::commit::Request;
use crate::index::{Merge, Table};
use crate::layout::Record;
use crate::lock;
use crate::manifest::Manifest;
use crate::segment::{Segment, SegmentWriter, file_name};
use crate::shared::Shared;
use crate::volumes::{Holdings, Place, Prewritten};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Changes of the index to be written down.
pub(crate) struct Checkpoint {
    /// Last group that they know.
    pub(crate) group: u64,
    /// Where the journal goes on after it, and the volumes then.
    pub(crate) place: Option<(Place, Holdings)>,
    pub(crate) table: Arc<Table>,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// The last before an orderly end.
    pub(crate) last: bool,
}

/// What the thread is told.
#[derive(Default)]
pub(crate) struct Maintenance {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    ended: bool,
    /// Stays until it was written.
    checkpoint: Option<Arc<Checkpoint>>,
    /// Whether the last try failed.
    failed: bool,
    /// Tries that failed one after the other.
    failures: u32,
    /// When it is tried again, though nothing else happens.
    retry_at: Option<Instant>,
}

impl State {
    /// Time until the checkpoint is tried again by itself.
    fn retry_in(&self) -> Option<Duration> {
        let at = self.retry_at.filter(|_| self.failed && self.checkpoint.is_some())?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// Pause after the first failure of a checkpoint; doubled with each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Maintenance {
    /// There may be something to do.
    pub(crate) fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_all();
    }

    pub(crate) fn checkpoint(&self, checkpoint: Checkpoint) {
        let mut state = lock(&self.state);
        state.checkpoint = Some(Arc::new(checkpoint));
        state.failed = false;
        self.changed.notify_all();
    }

    /// Waits until the checkpoint under way, if any, is written or has failed; tells whether none is left to write.
    pub(crate) fn settle(&self) -> bool {
        let mut state = lock(&self.state);
        while state.checkpoint.is_some() && !state.failed && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.checkpoint.is_none()
    }

    /// Ends the thread as soon as it can; what waits is left.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    fn is_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// Waits for something to do, at most for `patience`; `None` at the end.
    fn wait(&self, patience: Option<Duration>) -> Option<Option<Arc<Checkpoint>>> {
        let mut state = lock(&self.state);
        let mut late = patience == Some(Duration::ZERO);
        loop {
            if state.ended {
                return None;
            }
            let retry_in = state.retry_in();
            let retried = retry_in == Some(Duration::ZERO);
            let due = state.checkpoint.clone().filter(|_| !state.failed || state.woken || retried);
            if late || state.woken || due.is_some() {
                state.woken = false;
                // Other work does not bring its time nearer.
                state.failed &= due.is_none();
                return Some(due);
            }
            state = match patience.into_iter().chain(retry_in).min() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (state, waited) =
                        self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    late = waited.timed_out() && Some(patience) != retry_in;
                    state
                }
            };
        }
    }

    fn done(&self, written: bool) {
        let mut state = lock(&self.state);
        if written {
            state.checkpoint = None;
            state.failures = 0;
        } else {
            let pause = RETRY_PAUSE.saturating_mul(1 << state.failures.min(16)).min(RETRY_PAUSE_MAX);
            state.failures += 1;
            state.retry_at = Some(Instant::now() + pause);
        }
        state.failed = !written;
        self.changed.notify_all();
    }
}

pub(crate) struct Maintainer {
    shared: Arc<Shared>,
    /// As last written.
    manifest: Manifest,
    /// Empty volume whose removal was asked for last, so that a failing one is not asked for over and over.
    asked: Option<u32>,
    /// Bytes that were given out at the last look: more since means that objects come in.
    given_out: u64,
}

/// When nothing came in for so long, the disk is free for writing ahead.
const PAUSE: Duration = Duration::from_millis(500);

impl Maintainer {
    pub(crate) fn new(shared: Arc<Shared>, manifest: Manifest) -> Self {
        Self { shared, manifest, asked: None, given_out: 0 }
    }

    pub(crate) fn run(mut self) {
        // Of what was deleted before the last end.
        if let Err(error) = self.shared.give_back() {
            tracing::error!(%error, "room of deleted objects is not given back");
        }
        let mut patience = Some(Duration::ZERO);
        while let Some(checkpoint) = self.shared.maintenance.wait(patience) {
            if let Some(checkpoint) = checkpoint {
                let written = self.write_checkpoint(&checkpoint);
                if let Err(error) = &written {
                    tracing::error!(%error, "the object index can't be written down; it is kept in memory");
                }
                self.shared.maintenance.done(written.is_ok());
            }
            if let Err(error) = self.merge_segments()
                && !self.shared.maintenance.is_ended()
            {
                tracing::error!(%error, "index segments can't be merged");
            }
            if let Err(error) = self.shared.volumes.punch_unused() {
                tracing::warn!(%error, "unused room can't be given back to the disk");
            }
            self.ask_for_removal();
            patience = self.prewrite();
        }
    }

    /// First volume whose journal a restart would read.
    pub(crate) fn replayed_from(&self) -> u32 {
        self.manifest.place.as_ref().map_or(0, |place| place.volume)
    }

    /// Writes ahead; gives when to look again, if nothing else happens.
    fn prewrite(&mut self) -> Option<Duration> {
        let given_out = self.shared.volumes.fresh();
        let busy = std::mem::replace(&mut self.given_out, given_out) != given_out;
        match self.shared.volumes.prewrite(self.shared.totals().1, busy) {
            Ok(Prewritten::Some) => Some(Duration::ZERO),
            Ok(Prewritten::EnoughWhileBusy) => Some(PAUSE),
            Ok(Prewritten::Enough) => None,
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => None,
            Err(error) => {
                // A sync's error is told once. The volume may be in use by now, and then the error was the writers'.
                self.shared.poison("writing ahead", &error);
                None
            }
        }
    }

    fn ask_for_removal(&mut self) {
        let empty = self.shared.volumes.empty();
        if let Some(volume) = empty
            && self.asked != empty
            && self.shared.check_writable().is_ok()
        {
            let asked = self.shared.queue.push(Request::Evacuate { volume }, self.shared.config.writers_max);
            self.asked = asked.is_ok().then_some(volume);
        }
    }

    /// Writes the changes to a segment of their own, then the manifest that names it.
    pub(crate) fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.shared.give_back()?;
        let mut segments = self.shared.index.segments().to_vec();
        let mut manifest = self.manifest.clone();
        if !checkpoint.table.is_empty() {
            // With no older segment there is nothing that a deletion has to hide.
            let rows = checkpoint.table.values().filter(|row| !segments.is_empty() || matches!(row, Record::Put(_)));
            let segment = self.write_segment(&mut manifest, checkpoint.table.len() as u64, rows.cloned().map(Ok))?;
            segments.push(Arc::new(segment));
        }
        manifest.group = checkpoint.group;
        if let Some((place, volumes)) = &checkpoint.place {
            manifest.place = Some(place.clone());
            manifest.volumes = volumes.clone();
        }
        (manifest.objects, manifest.bytes) = (checkpoint.objects, checkpoint.bytes);
        manifest.segments = segments.iter().map(|segment| segment.number).collect();
        manifest.clean = checkpoint.last && self.shared.check_writable().is_ok();
        manifest.write(&*self.shared.disk, &self.shared.config.directory)?;
        self.manifest = manifest;
        self.shared.volumes.set_replayed_from(self.replayed_from());
        self.shared.index.set_segments(segments, true);
        Ok(())
    }

    /// Writes rows to a new segment. Its number is never used again, whatever comes of it.
    fn write_segment(
        &mut self,
        manifest: &mut Manifest,
        records_max: u64,
        mut rows: impl Iterator<Item = Result<Record, StoreError>>,
    ) -> Result<Segment, StoreError> {
        let failed = |error: io::Error| StoreError::io("writing an index segment", &error);
        let number = self.manifest.next_segment;
        self.manifest.next_segment += 1;
        manifest.next_segment = self.manifest.next_segment;
        let Shared { disk, config, volumes, .. } = &*self.shared;
        let mut write = || {
            let mut writer = SegmentWriter::create(&**disk, &config.directory, number, *volumes.secret(), records_max)
                .map_err(failed)?;
            rows.try_for_each(|record| writer.push(&record?).map_err(failed))?;
            writer.finish()
        };
        write().inspect_err(|_| self.remove(number))
    }

    /// Merges the newest segments into one when there are enough of about one size.
    fn merge_segments(&mut self) -> Result<(), StoreError> {
        let mut segments = self.shared.index.segments().to_vec();
        let class = |segment: &Arc<Segment>| segment.records.max(1).ilog2() / 3;
        let Some(largest) = segments.last().map(class) else { return Ok(()) };
        let count = segments.iter().rev().take_while(|segment| class(segment) <= largest).count();
        if count < self.shared.config.segments_merged {
            return Ok(());
        }
        let merged = segments.split_off(segments.len() - count);
        let mut manifest = self.manifest.clone();
        let mut merge = Merge::of_segments(&merged, None);
        let oldest = segments.is_empty();
        let shared = self.shared.clone();
        let rows = std::iter::from_fn(|| match shared.maintenance.is_ended() {
            true => Some(Err(crate::unavailable("object store is closing"))),
            false => merge.next().transpose(),
        });
        let rows = rows.filter(|row| !oldest || !matches!(row, Ok(Record::Delete(..))));
        let records_max = merged.iter().map(|segment| segment.records).sum();
        segments.push(Arc::new(self.write_segment(&mut manifest, records_max, rows)?));
        manifest.segments = segments.iter().map(|segment| segment.number).collect();
        manifest.write(&*self.shared.disk, &self.shared.config.directory)?;
        self.manifest = manifest;
        self.shared.index.set_segments(segments, false);
        for segment in merged {
            self.remove(segment.number);
        }
        Ok(())
    }

    fn remove(&self, number: u64) {
        let path = self.shared.config.directory.join(file_name(number));
        if let Err(error) = self.shared.disk.remove(&path) {
            tracing::warn!(number, %error, "an index segment that is not used any more can't be removed");
        }
    }
}

impl Drop for Maintainer {
    fn drop(&mut self) {
        // Also when the thread has panicked: nobody waits for what will not come.
        self.shared.maintenance.end();
    }
}

/// An error that rebuilding the index from the volumes cures.
pub(crate) fn is_curable(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::Corrupt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_failed_is_tried_again_by_itself_later_each_time() {
        let maintenance = Maintenance::default();
        let (place, table) = (None, Arc::default());
        maintenance.checkpoint(Checkpoint { group: 7, place, table, objects: 0, bytes: 0, last: false });
        let due = || maintenance.wait(None).expect("not ended").map(|checkpoint| checkpoint.group);
        assert_eq!(due(), Some(7));
        let begun = Instant::now();
        maintenance.done(false);
        // While it waits, other work is not kept from its time.
        assert!(maintenance.wait(Some(Duration::ZERO)).expect("not ended").is_none());
        assert_eq!(due(), Some(7), "though nobody woke the thread");
        assert!(begun.elapsed() >= RETRY_PAUSE);
        maintenance.done(false);
        let pause = lock(&maintenance.state).retry_in().expect("tried again");
        assert!(pause <= 2 * RETRY_PAUSE, "{pause:?}");
        assert_eq!(lock(&maintenance.state).failures, 2, "the pause doubles");
        maintenance.done(true);
        assert_eq!(lock(&maintenance.state).retry_in(), None);
    }
}
