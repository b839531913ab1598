//! Policies: what is done with studies by itself. A fold over events of no study.
//!
//! Adopting and withdrawing are decisions, void if a later promotion does not hold them. Of what was decided about a name the
//! last that counts, in the order of events, says what is so, in whatever order each site learnt of it (I11, I12).

use crate::{
    authority::{Authority, Decision},
    envelope::Envelope,
    events::{Event, MovePolicyAdopted, PolicyAction, PolicyAdopted, PolicyProtected, PolicyWithdrawn},
    hlc::Hlc,
    ids::{EventId, SiteId},
    position::Position,
};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// What types of events about policies begin with.
pub const KINDS: &str = "cairn.policy.";

/// What requests that a policy makes say of who asked, before its name.
pub const REQUESTED_BY: &str = "policy:";

/// What is done with studies that a policy means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is asked, at the site with authority, that they be erased.
    #[default]
    Erase,
    /// Each site that has a cold object store moves them there.
    Move,
}

/// A version of a policy, as it was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `ce_id` of its adoption.
    pub event: EventId,
    /// Whose studies.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// From 1, by name.
    pub version: u32,
    /// What is done.
    pub action: Action,
    /// Milliseconds that each site lets pass before what it asks for is erased, at least; of one that moves, for which a study is left
    /// alone after it was recalled.
    pub delay_ms: u64,
    /// Studies that one run acts on at most.
    pub studies_max: u64,
    /// The expression that must hold.
    pub expression: String,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub by: String,
    /// Site at which it was.
    pub site: SiteId,
    /// When, in milliseconds since the Unix epoch by the clock of the order of events.
    pub at_ms: u64,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in force.
    InForce,
    /// A later version is in its place.
    Replaced,
    /// It was withdrawn, by this one.
    Withdrawn(String),
    /// It was decided under a promotion that does not count any more.
    Void,
}

/// Place in the order of events.
type Order = (Hlc, SiteId, EventId);

/// A decision about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    under: Option<EventId>,
    position: Position,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Adopted(Box<Policy>),
    Withdrawn { by: String },
}

/// What is known of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// By tenant and name, in the order of events.
    decided: BTreeMap<(String, String), BTreeMap<Order, Decided>>,
    /// Events about policies that this build can't read: they may be of any.
    unreadable: BTreeSet<EventId>,
}

impl Policies {
    /// Takes an event in; one that is not about policies changes nothing. `position`: where it became a fact.
    pub fn include(&mut self, envelope: &Envelope, position: &Position, payload: Bytes) {
        if !envelope.kind.starts_with(KINDS) {
            return;
        }
        let read = match Event::decode(&envelope.kind, payload) {
            Ok(Event::PolicyAdopted(event)) => adopted(envelope, event),
            Ok(Event::MovePolicyAdopted(event)) => adopted_to_move(envelope, event),
            Ok(Event::PolicyWithdrawn(event)) => Some(withdrawn(event)),
            _ => None,
        };
        let Some((key, under, what)) = read else {
            self.unreadable.insert(envelope.id);
            return;
        };
        let order = (envelope.hlc, envelope.site.clone(), envelope.id);
        let decided = Decided { under: EventId::from_slice(&under).ok(), position: position.clone(), what };
        self.decided.entry(key).or_default().insert(order, decided);
    }

    /// The policies in force, by tenant and name.
    pub fn in_force<'a>(&'a self, authority: &'a Authority) -> impl Iterator<Item = &'a Policy> {
        self.all(authority).filter(|(_, state)| *state == State::InForce).map(|(policy, _)| policy)
    }

    /// Every version of every policy, by tenant, name and the order of events.
    pub fn all<'a>(&'a self, authority: &'a Authority) -> impl Iterator<Item = (&'a Policy, State)> {
        self.decided.values().flat_map(move |decided| states(decided, authority))
    }

    /// The number that the next version of a policy has.
    pub fn next_version(&self, tenant: &str, name: &str) -> u32 {
        let decided = self.decided.get(&(tenant.to_owned(), name.to_owned()));
        let versions = decided.into_iter().flat_map(BTreeMap::values).filter_map(|decided| match &decided.what {
            What::Adopted(policy) => Some(policy.version),
            What::Withdrawn { .. } => None,
        });
        versions.max().unwrap_or_default().saturating_add(1)
    }

    /// Events about policies that this build can't read; while there are any, no policy does anything.
    pub fn unreadable(&self) -> impl Iterator<Item = EventId> {
        self.unreadable.iter().copied()
    }
}

/// What became of each version of one policy.
fn states<'a>(decided: &'a BTreeMap<Order, Decided>, authority: &Authority) -> Vec<(&'a Policy, State)> {
    let mut after: Option<&What> = None;
    let mut states: Vec<(&Policy, State)> = Vec::new();
    for Decided { under, position, what } in decided.values().rev() {
        let is_void = authority.is_void(Decision { under: *under, position });
        if let What::Adopted(policy) = what {
            let state = match after {
                _ if is_void => State::Void,
                None => State::InForce,
                Some(What::Adopted(_)) => State::Replaced,
                Some(What::Withdrawn { by }) => State::Withdrawn(by.clone()),
            };
            states.push((policy, state));
        }
        if !is_void {
            after = Some(what);
        }
    }
    states.reverse();
    states
}

type Read = ((String, String), Bytes, What);

fn adopted(envelope: &Envelope, event: PolicyAdopted) -> Option<Read> {
    match PolicyAction::try_from(event.action) {
        Ok(PolicyAction::Erase) => {}
        Ok(PolicyAction::Unspecified) | Err(_) => return None,
    }
    let policy = Policy {
        event: envelope.id,
        tenant: event.tenant,
        name: event.name,
        version: event.version,
        action: Action::Erase,
        delay_ms: event.delay_ms,
        studies_max: event.studies_max,
        expression: String::new(),
        reason: String::new(),
        by: event.adopted_by,
        site: envelope.site.clone(),
        at_ms: envelope.hlc.wall_ms,
    };
    read(policy, event.promotion_event_id, &event.key_id, event.protected)
}

fn adopted_to_move(envelope: &Envelope, event: MovePolicyAdopted) -> Option<Read> {
    let policy = Policy {
        event: envelope.id,
        tenant: event.tenant,
        name: event.name,
        version: event.version,
        action: Action::Move,
        delay_ms: event.rest_ms,
        studies_max: event.studies_max,
        expression: String::new(),
        reason: String::new(),
        by: event.adopted_by,
        site: envelope.site.clone(),
        at_ms: envelope.hlc.wall_ms,
    };
    read(policy, event.promotion_event_id, &event.key_id, event.protected)
}

/// A policy with what may hold patient attributes.
fn read(policy: Policy, promotion: Bytes, key_id: &str, protected: Bytes) -> Option<Read> {
    let PolicyProtected { expression, reason } =
        PolicyProtected::decode(protected).ok().filter(|_| key_id.is_empty())?;
    // Nobody adopts a policy without a bound: one that says so is not what it seems.
    if policy.studies_max == 0 {
        return None;
    }
    let key = (policy.tenant.clone(), policy.name.clone());
    Some((key, promotion, What::Adopted(Box::new(Policy { expression, reason, ..policy }))))
}

fn withdrawn(event: PolicyWithdrawn) -> Read {
    ((event.tenant, event.name), event.promotion_event_id, What::Withdrawn { by: event.withdrawn_by })
}

#[cfg(test)]
mod tests;
