//! What is known of the bytes of a version at some site.

use super::{
    EventOrder, Identity, Poison, Stamp,
    event::{event_id, identity},
};
use crate::{
    events::{ObjectDamaged, ObjectRepaired},
    ids::EventId,
};

/// A site found an object damaged or gone, or whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// The store event that names the object.
    pub store_event: EventId,
    /// The site.
    pub site: String,
    /// Whether it is damaged or gone there.
    pub damaged: bool,
}

/// Of which instance, by which store event.
pub(super) fn read_damage(event: &ObjectDamaged) -> Result<(Identity, EventId), Poison> {
    let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
    Ok((identity, event_id(&event.named_by_event_id)?))
}

/// Of which instance, by which store event.
pub(super) fn read_repair(event: &ObjectRepaired) -> Result<(Identity, EventId), Poison> {
    let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
    Ok((identity, event_id(&event.named_by_event_id)?))
}
