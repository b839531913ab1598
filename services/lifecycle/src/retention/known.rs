//! What follows from the events about sites, holds, patients, erasures and policies, of every partition of the log as far as it was read.

use cairn_archive::{
    EventId, Offset, Partition, Position, PositionVector, SiteId,
    authority::Authority,
    erasure::{Erasures, Stage},
    events::OriginEnd,
    holds::Holds,
    policies::Policies,
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{LogRecord, Record};
use std::collections::{BTreeMap, BTreeSet};

/// What types of events about sites begin with.
const SITE_KINDS: &str = "cairn.site.";

/// What is known.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) authority: Authority,
    pub(crate) holds: Holds,
    pub(crate) erasures: Erasures,
    pub(crate) policies: Policies,
    /// Everything that the log has, by origin.
    pub(crate) held: PositionVector,
    /// Where requests and effects of erasures stand in this log.
    pub(crate) places: BTreeMap<EventId, (Partition, Offset)>,
}

/// Whether a type of event is one that something is known from.
pub(crate) fn concerns(kind: &str) -> bool {
    let begins_with = |kinds: &str| kind.starts_with(kinds);
    [SITE_KINDS, cairn_archive::holds::KINDS, cairn_archive::policies::KINDS, cairn_archive::patients::KINDS]
        .into_iter()
        .any(begins_with)
        || Erasures::concern(kind)
}

impl Known {
    /// Takes in an event that [`concerns`] says something.
    pub(crate) fn include(&mut self, partition: Partition, record: &LogRecord, origin: &Position) {
        let Record { envelope, payload } = &record.record;
        if envelope.kind.starts_with(SITE_KINDS) {
            if let Err(error) = self.authority.include(envelope, origin, payload.clone()) {
                tracing::warn!(kind = %envelope.kind, %error, "an event about sites is passed over: it needs a newer build");
            }
            return;
        }
        self.holds.include(envelope, origin, payload.clone());
        self.erasures.include(envelope, origin, payload.clone());
        self.policies.include(envelope, origin, payload.clone());
        if Erasures::concern(&envelope.kind) {
            self.places.insert(envelope.id, (partition, record.offset));
        }
    }

    /// Sites that an event here is of.
    pub(crate) fn sites(&self) -> BTreeSet<SiteId> {
        self.held.0.keys().map(|(site, ..)| site.clone()).collect()
    }

    /// Whether this site may decide what does not commute: it has authority; before the first promotion, where it is alone.
    ///
    /// # Errors
    /// `Conflict`: it may not.
    pub(crate) fn may_decide(&self, own: &SiteId, others: &BTreeSet<SiteId>) -> Result<(), Error> {
        let is_alone = self.authority.epoch() == 0 && others.is_empty();
        match self.authority.primary() {
            Some(primary) if primary == own => Ok(()),
            None if is_alone => Ok(()),
            Some(primary) => Err(conflict(format!("{own} has no authority: this is decided at {primary}"))),
            None => Err(conflict("no site has authority: one is to be promoted first".to_owned())),
        }
    }

    /// The promotion under which something is decided now, as events carry it.
    pub(crate) fn under(&self) -> bytes::Bytes {
        let current = self.authority.current();
        current.map(|current| bytes::Bytes::copy_from_slice(current.id.as_bytes())).unwrap_or_default()
    }

    /// Everything that the log has, as events carry it.
    pub(crate) fn ends(&self) -> Vec<OriginEnd> {
        let end = |((site, incarnation, partition), end): (&(SiteId, _, Partition), &Offset)| OriginEnd {
            site: site.to_string(),
            incarnation: cairn_archive::Incarnation::clone(incarnation).0,
            partition: partition.0.into(),
            end: end.0,
        };
        self.held.0.iter().map(end).collect()
    }

    /// Erasures that may take effect.
    pub(crate) fn requested(&self) -> Vec<EventId> {
        let open = self.erasures.iter().filter(|(_, erasure)| erasure.stage(&self.authority) == Stage::Requested);
        open.map(|(id, _)| id).collect()
    }

    /// What took effect of which this site has not said that it destroyed it.
    pub(crate) fn to_destroy(&self, own: &SiteId) -> Vec<EventId> {
        let known = self.erasures.iter().filter(|(_, erasure)| erasure.requested().is_some());
        known.flat_map(|(_, erasure)| erasure.not_destroyed(own)).collect()
    }

    /// Whether events about holds or erasures are here that this build can't read. Nothing is erased meanwhile.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.holds.unreadable().next().is_some() || self.erasures.unreadable().next().is_some()
    }
}

pub(crate) fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}
