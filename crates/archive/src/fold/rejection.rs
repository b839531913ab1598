//! What rejections, and revocations of them, say of an instance.

use super::{
    EventOrder, Identity, Poison, Stamp,
    event::{event_id, identity},
};
use crate::{
    events::{InstancesRejected, RejectionRevoked},
    ids::EventId,
    rejection::RejectionTitle,
};

/// A note rejected an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Title of the note.
    pub title: RejectionTitle,
    /// The store events that it hides; none: all there are and will be.
    pub store_events: Vec<EventId>,
}

impl Rejected {
    /// Whether it hides what this event stored.
    pub fn hides(&self, store_event: EventId) -> bool {
        self.store_events.is_empty() || self.store_events.contains(&store_event)
    }
}

/// A rejection was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// The rejection.
    pub rejection: EventId,
}

/// An instance that a rejection names, and the store events that it hides.
pub(super) type Named = (Identity, Vec<EventId>);

/// What a rejection says: its title, the note's store event, and of which instances.
pub(super) fn read_rejection(event: &InstancesRejected) -> Result<(RejectionTitle, EventId, Vec<Named>), Poison> {
    let note = event.note.as_ref().ok_or(Poison::Malformed)?;
    // The title of a later build is parked, not passed over.
    let title = RejectionTitle::of_code(&note.title_code).ok_or(Poison::Malformed)?;
    let named = event.series.iter().flat_map(|series| series.instances.iter().map(move |instance| (series, instance)));
    let read = |(series, instance): (&crate::events::RejectedSeries, &crate::events::RejectedInstance)| {
        let mut store_events: Vec<EventId> =
            instance.store_event_ids.iter().map(|id| event_id(id)).collect::<Result<_, _>>()?;
        store_events.sort_unstable();
        store_events.dedup();
        Ok((identity(&series.series_instance_uid, &instance.sop_instance_uid)?, store_events))
    };
    Ok((title, event_id(&note.store_event_id)?, named.map(read).collect::<Result<_, _>>()?))
}

/// What a revocation says: of which rejection, and of which instances.
pub(super) fn read_revocation(event: &RejectionRevoked) -> Result<(EventId, Vec<Identity>), Poison> {
    let named = event.series.iter().flat_map(|series| series.sop_instance_uids.iter().map(move |uid| (series, uid)));
    let identities = named.map(|(series, uid)| identity(&series.series_instance_uid, uid));
    Ok((event_id(&event.rejection_event_id)?, identities.collect::<Result<_, _>>()?))
}
