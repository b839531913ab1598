//! What an operator's repair says of an event that could not be folded.

use super::{
    EventOrder, Poison,
    event::{TraceKind, event_id},
};
use crate::{
    events::{Event, EventError, EventRepaired, Replacement, event_repaired},
    hlc::Hlc,
    sealing::without_sealed,
};

/// A repair, read.
pub(super) struct Repair {
    /// The place of the event repaired.
    pub(super) event: EventOrder,
    /// What stands in for it.
    pub(super) replacement: Option<Event>,
    /// What the repair leaves behind itself.
    pub(super) trace: TraceKind,
}

/// What a repair does about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another payload stands in for it.
    Replaced,
    /// It means nothing.
    Dismissed,
    /// It is folded again.
    Retried,
}

impl Repair {
    /// Reads a repair.
    ///
    /// # Errors
    /// [`Poison`]: a repair can itself be such that it can't be folded.
    pub(super) fn read(repair: &EventRepaired) -> Result<Self, Poison> {
        let event = EventOrder {
            hlc: Hlc { wall_ms: repair.event_wall_ms, counter: repair.event_counter },
            site: repair.event_site.parse().map_err(|_| Poison::Malformed)?,
            id: event_id(&repair.event_id)?,
        };
        let (remedy, replacement, content) = match repair.remedy.as_ref().ok_or(Poison::Malformed)? {
            event_repaired::Remedy::Replacement(by) => (Remedy::Replaced, Some(replacement(repair, by)?), content(by)),
            event_repaired::Remedy::Dismissed(_) => (Remedy::Dismissed, None, [0; 32]),
            event_repaired::Remedy::FoldedAgain(_) => (Remedy::Retried, None, [0; 32]),
        };
        let trace = TraceKind::Repaired { event: event.id, remedy, content };
        Ok(Self { event, replacement, trace })
    }
}

/// The event that a replacement is.
pub(super) fn replacement(repair: &EventRepaired, by: &Replacement) -> Result<Event, Poison> {
    let event = Event::decode(&by.event_type, by.payload.clone()).map_err(|error| match error {
        EventError::UnknownType => Poison::UnknownType,
        EventError::Undecodable(_) => Poison::Undecodable,
    })?;
    if matches!(event, Event::EventRepaired(_)) || event.is_of_no_study() {
        return Err(Poison::Malformed);
    }
    if event.study_instance_uid() != repair.study_instance_uid || event.tenant() != repair.tenant {
        return Err(Poison::Disagreement);
    }
    Ok(event)
}

fn content(by: &Replacement) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(by.event_type.len() as u64).to_le_bytes()).update(by.event_type.as_bytes());
    // It stays the same when a key is destroyed.
    *hasher.update(&without_sealed(&by.event_type, &by.payload)).finalize().as_bytes()
}
