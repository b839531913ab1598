//! What erasures say of an instance.

use super::{
    EventOrder, Identity, Poison, Stamp,
    event::{event_id, identity},
};
use crate::{events::ErasedSeries, ids::EventId};

/// An erasure names versions of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasing {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Whether they are erased; else it was asked for, and nobody is to count on them from then on, whatever becomes of it.
    pub is_done: bool,
    /// Store events of the versions.
    pub store_events: Vec<EventId>,
}

/// What an event did about an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureStep {
    /// It asked for it.
    Requested,
    /// It withdrew it.
    Withdrawn,
    /// A site confirmed it.
    Confirmed,
    /// It took effect.
    Erased,
    /// A site destroyed the objects.
    Destroyed,
    /// It is said which keys go.
    KeysJudged,
    /// A site destroyed keys.
    KeysDestroyed,
}

impl ErasureStep {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::Withdrawn,
        Self::Confirmed,
        Self::Erased,
        Self::Destroyed,
        Self::KeysJudged,
        Self::KeysDestroyed,
    ];
}

/// An instance that an erasure names, and the store events of its versions.
pub(super) type Named = (Identity, Vec<EventId>);

/// What an erasure names.
pub(super) fn read_erased(series: &[ErasedSeries]) -> Result<Vec<Named>, Poison> {
    let named = series.iter().flat_map(|series| series.instances.iter().map(move |instance| (series, instance)));
    let read = |(series, instance): (&ErasedSeries, &crate::events::ErasedInstance)| {
        let store_events = instance.versions.iter().map(|version| event_id(&version.store_event_id));
        let mut store_events: Vec<EventId> = store_events.collect::<Result<_, _>>()?;
        store_events.sort_unstable();
        store_events.dedup();
        Ok((identity(&series.series_instance_uid, &instance.sop_instance_uid)?, store_events))
    };
    named.map(read).collect()
}
