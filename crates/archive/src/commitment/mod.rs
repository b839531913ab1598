//! Storage commitment (PS3.4 annex J, edition 2025c): what was asked, what was decided, and who knows of it.
//!
//! A transaction is a fold over the set of its events: in which order they came, and how often, changes nothing. Of its
//! requests the first in the order of events counts, of its decisions the first about that request; so a requester is never
//! told two things, whatever died in between.

mod references;
#[cfg(test)]
mod tests;

pub use references::{FailureReason, Malformed, Reference, Within, digest, failures, from_groups, outcomes, to_groups};

use crate::{
    envelope::Envelope,
    events::{
        CommitmentDecided, CommitmentReportOutcome, CommitmentReported, CommitmentReporting, CommitmentRequested, Event,
    },
    fold::EventOrder,
    ids::{EventId, SiteId},
};
use std::collections::BTreeMap;

/// What types of events about storage commitment begin with.
pub const KINDS: &str = "cairn.commitment.";

/// The name of a transaction. Each site has its own: the one at which a request came in works on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The site.
    pub site: SiteId,
    /// Whose instances.
    pub tenant: String,
    /// AE title of the requester.
    pub requester: String,
    /// Transaction UID.
    pub transaction_uid: String,
}

impl Key {
    /// The transaction that an event is of; `None`: it is not about storage commitment.
    pub fn of(envelope: &Envelope, event: &Event) -> Option<Self> {
        let (tenant, requester, transaction_uid) = match event {
            Event::CommitmentRequested(event) => (&event.tenant, &event.requester, &event.transaction_uid),
            Event::CommitmentDecided(event) => (&event.tenant, &event.requester, &event.transaction_uid),
            Event::CommitmentReported(event) => (&event.tenant, &event.requester, &event.transaction_uid),
            _ => return None,
        };
        Some(Self {
            site: envelope.site.clone(),
            tenant: tenant.clone(),
            requester: requester.clone(),
            transaction_uid: transaction_uid.clone(),
        })
    }
}

/// An event of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    /// Which, and when.
    pub order: EventOrder,
    /// What it says.
    pub event: T,
}

/// The requests for one list of references.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    first: Said<CommitmentRequested>,
    last: Said<CommitmentRequested>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It was asked for.
    Pending,
    /// It is decided, and the requester is to be told.
    Unreported,
    /// It is decided, and the requester asks by itself.
    Decided,
    /// The requester was told.
    Reported,
    /// The requester could not be told.
    GivenUp,
}

/// One transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// By the digest of what is asked about.
    asked: BTreeMap<Vec<u8>, Asked>,
    /// The first about each request.
    decided: BTreeMap<EventId, Said<CommitmentDecided>>,
    /// The last about each decision.
    reported: BTreeMap<EventId, Said<CommitmentReported>>,
}

impl Transaction {
    /// Takes an event of the transaction in; any other changes nothing.
    pub fn include(&mut self, order: EventOrder, event: Event) {
        match event {
            Event::CommitmentRequested(event) => self.ask(Said { order, event: *event }),
            Event::CommitmentDecided(event) => {
                let Ok(request) = EventId::from_slice(&event.request_event_id) else { return };
                let known = self.decided.get(&request);
                if known.is_none_or(|known| order < known.order) {
                    self.decided.insert(request, Said { order, event });
                }
            }
            Event::CommitmentReported(event) => {
                let Ok(decision) = EventId::from_slice(&event.decision_event_id) else { return };
                let known = self.reported.get(&decision);
                if known.is_none_or(|known| order > known.order) {
                    self.reported.insert(decision, Said { order, event });
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, said: Said<CommitmentRequested>) {
        let about = said.event.references_blake3.to_vec();
        let asked = self.asked.entry(about).or_insert_with(|| Asked { first: said.clone(), last: said.clone() });
        if said.order < asked.first.order {
            asked.first = said;
        } else if said.order > asked.last.order {
            asked.last = said;
        }
    }

    fn counts(&self) -> Option<&Asked> {
        self.asked.values().min_by(|a, b| a.first.order.cmp(&b.first.order))
    }

    /// The request that counts.
    pub fn request(&self) -> Option<&Said<CommitmentRequested>> {
        self.counts().map(|asked| &asked.first)
    }

    /// The last request for the same: how the requester wants to be told now.
    pub fn asked_last(&self) -> Option<&Said<CommitmentRequested>> {
        self.counts().map(|asked| &asked.last)
    }

    /// The decision that counts.
    pub fn decision(&self) -> Option<&Said<CommitmentDecided>> {
        self.decided.get(&self.request()?.order.id)
    }

    /// The last report of that decision.
    pub fn report(&self) -> Option<&Said<CommitmentReported>> {
        self.reported.get(&self.decision()?.order.id)
    }

    /// How far it is; `None`: nothing was asked.
    pub fn state(&self) -> Option<State> {
        let asked = self.asked_last()?;
        if self.decision().is_none() {
            return Some(State::Pending);
        }
        if asked.event.reporting() == CommitmentReporting::AskedFor {
            return Some(State::Decided);
        }
        Some(match self.report().filter(|report| report.order > asked.order) {
            None => State::Unreported,
            Some(report) if report.event.outcome() == CommitmentReportOutcome::GivenUp => State::GivenUp,
            Some(_) => State::Reported,
        })
    }

    /// Whether a request for references of this digest is about the same as the one that counts.
    pub fn is_about(&self, references_blake3: &[u8]) -> bool {
        self.request().is_some_and(|request| request.event.references_blake3.as_ref() == references_blake3)
    }

    /// Events that are kept of it.
    pub fn events(&self) -> impl Iterator<Item = (&EventOrder, Event)> {
        let request = |said: &Said<CommitmentRequested>| Event::CommitmentRequested(Box::new(said.event.clone()));
        let asked = self.asked.values().flat_map(move |asked| {
            let again = (asked.last.order != asked.first.order).then_some(&asked.last);
            [Some(&asked.first), again].into_iter().flatten().map(move |said| (&said.order, request(said)))
        });
        let decided = self.decided.values().map(|said| (&said.order, Event::CommitmentDecided(said.event.clone())));
        let reported = self.reported.values().map(|said| (&said.order, Event::CommitmentReported(said.event.clone())));
        asked.chain(decided).chain(reported)
    }
}
