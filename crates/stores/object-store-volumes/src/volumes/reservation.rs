//! Room of objects on their way in.

use super::{Active, Volumes};
use crate::layout::{BLOCK, EXTENTS_MAX, Extent};
use crate::lock;
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{collections::BTreeSet, sync::Arc};

/// Requests up to this size are put into gaps.
const GAPS_MAX: u64 = 1024 * 1024;

impl Volumes {
    /// Takes up to `want` bytes, the last extent going on if possible; at least a block.
    fn take(&self, want: u64, needed: u64, last: Option<&mut Extent>) -> Result<Option<Extent>, StoreError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        self.check_room(state, needed)?;
        // The end of a volume is used by what goes on elsewhere anyway; what fits in one piece goes on to the next volume.
        let full = |active: &Active| {
            let left = active.capacity.saturating_sub(active.frontier);
            left < needed || left < want / 4
        };
        let mut last = last;
        if let (Some(last), Some(active)) = (last.as_deref_mut(), state.active.as_mut())
            && last.volume == active.id
            && last.end() == active.frontier
            && active.capacity.saturating_sub(active.frontier) >= BLOCK
        {
            let length = want.min(active.capacity - active.frontier);
            last.length += length;
            active.frontier += length;
            state.fresh += length;
            return Ok(None);
        }
        // Only the small use up gaps: a large object would come to have too many pieces.
        let mut extent = state.active.as_mut().filter(|_| want <= GAPS_MAX).and_then(|active| take_gap(active, needed));
        if extent.is_none() {
            let active = match &mut state.active {
                Some(active) if !full(active) => active,
                _ => self.activate(state).map_err(|error| StoreError::io("starting a volume", &error))?,
            };
            let length = want.min(active.capacity - active.frontier);
            extent = Some(Extent { volume: active.id, offset: active.frontier, length });
            active.frontier += length;
            state.fresh += length;
        }
        if let (Some(last), Some(next)) = (last, extent)
            && (last.volume, last.end()) == (next.volume, next.offset)
        {
            last.length += next.length;
            return Ok(None);
        }
        if let Some(volume) = extent.and_then(|extent| state.volumes.get_mut(&extent.volume)) {
            volume.in_flight += 1;
        }
        Ok(extent)
    }

    /// Gives back the end of an extent; all of it when nothing of it is used.
    fn give_back(&self, extent: Extent, used: u64) {
        let rest = Extent { offset: extent.offset + used, length: extent.length - used, ..extent };
        let mut state = lock(&self.state);
        let punch = match &mut state.active {
            Some(active) if active.id == extent.volume => {
                if rest.end() == active.frontier && rest.offset >= active.floor {
                    active.frontier = rest.offset;
                } else if rest.length > 0 {
                    active.gaps.push(rest);
                }
                false
            }
            _ => rest.length > 0,
        };
        if let (0, Some(volume)) = (used, state.volumes.get_mut(&extent.volume)) {
            volume.in_flight = volume.in_flight.saturating_sub(1);
        }
        if punch && let Some(volume) = state.volumes.get_mut(&extent.volume) {
            volume.unused.push(rest);
        }
    }
}

/// The smallest gap that all of `needed` fits in.
fn take_gap(active: &mut Active, needed: u64) -> Option<Extent> {
    let fitting = active.gaps.iter().enumerate().filter(|(_, gap)| gap.length >= needed);
    let (index, _) = fitting.min_by_key(|(_, gap)| gap.length)?;
    let gap = active.gaps.get_mut(index)?;
    let extent = Extent { length: needed, ..*gap };
    gap.offset += needed;
    gap.length -= needed;
    if gap.length == 0 {
        active.gaps.swap_remove(index);
    }
    Some(extent)
}

/// Room of an object on its way in. What was not committed is given back when it is dropped.
pub(crate) struct Reservation {
    volumes: Arc<Volumes>,
    extents: Vec<Extent>,
}

impl Reservation {
    pub(crate) fn new(volumes: Arc<Volumes>) -> Self {
        Self { volumes, extents: Vec::new() }
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    pub(crate) fn length(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }

    /// Adds room: all of `needed`, and up to `want`.
    pub(crate) fn grow(&mut self, needed: u64, want: u64) -> Result<(), StoreError> {
        let blocks = |bytes: u64| bytes.max(1).next_multiple_of(BLOCK);
        let enough = self.length() + blocks(needed);
        while self.length() < enough {
            let missing = enough - self.length();
            if let Some(extent) = self.volumes.take(blocks(want).max(missing), missing, self.extents.last_mut())? {
                self.extents.push(extent);
            }
            if self.extents.len() > EXTENTS_MAX {
                return Err(StoreError::new(StoreErrorKind::Exhausted, "object in too many pieces"));
            }
        }
        Ok(())
    }

    /// Gives back what is beyond the first `used` bytes.
    pub(crate) fn trim(&mut self, used: u64) {
        let mut left = used.next_multiple_of(BLOCK);
        self.extents.retain_mut(|extent| {
            let keep = left.min(extent.length);
            left -= keep;
            if keep < extent.length {
                self.volumes.give_back(*extent, keep);
                extent.length = keep;
            }
            keep > 0
        });
    }

    /// Volumes that hold a part.
    pub(crate) fn volumes(&self) -> BTreeSet<u32> {
        self.extents.iter().map(|extent| extent.volume).collect()
    }

    /// Leaves the room to the object. Call it once the object counts as live, lest its volume be found empty.
    pub(crate) fn commit(mut self) {
        let mut state = lock(&self.volumes.state);
        for extent in std::mem::take(&mut self.extents) {
            if let Some(volume) = state.volumes.get_mut(&extent.volume) {
                volume.in_flight = volume.in_flight.saturating_sub(1);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for extent in self.extents.drain(..) {
            self.volumes.give_back(extent, 0);
        }
    }
}
