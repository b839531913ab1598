use crate::{envelope::Envelope, hlc::Hlc, ids::EventId, ids::SiteId};

/// Where an event stands in the order of events: the same at every site, whatever the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventOrder {
    /// Hybrid logical clock.
    pub hlc: Hlc,
    /// Site at which it became a fact.
    pub site: SiteId,
    /// `ce_id`.
    pub id: EventId,
}

impl EventOrder {
    /// Of an event by its envelope.
    pub fn of(envelope: &Envelope) -> Self {
        Self { hlc: envelope.hlc, site: envelope.site.clone(), id: envelope.id }
    }
}

/// Where the log's position was when something was folded: incarnation * 2^48 + offset. A local fact, so no part of
/// the canonical state. Rows carry it so that what a torn commit left behind can be told from what was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The stamp of a place in a log.
    pub fn new(incarnation: crate::Incarnation, offset: crate::Offset) -> Self {
        Self((u64::from(incarnation.0) << 48) | (offset.0 & ((1 << 48) - 1)))
    }
}
