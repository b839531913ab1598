//! A transaction as it is noted down: its events without what is large, and where they stand.

use crate::notes::malformed;
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, Offset, SiteId,
    commitment::{Key, State, Transaction as Folded},
    events::{CommitmentDecided, Event},
    fold::EventOrder,
};
use cairn_service_api::{
    Error,
    commitment::{Commitment, Transaction},
};
use prost::Message;
use std::collections::BTreeMap;

/// Events of one transaction that are kept at most. A requester that asks again and again makes two each time.
pub(super) const EVENTS_MAX: usize = 256;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TransactionNote {
    #[prost(message, repeated, tag = "1")]
    events: Vec<EventNote>,
}

#[derive(Clone, PartialEq, Message)]
struct EventNote {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(uint64, tag = "2")]
    wall_ms: u64,
    #[prost(uint32, tag = "3")]
    counter: u32,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(bytes = "bytes", tag = "6")]
    payload: Bytes,
}

/// A transaction, and where its events stand in the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) folded: Folded,
    at: BTreeMap<EventId, Offset>,
}

impl Known {
    /// Takes an event in, without its references.
    pub(super) fn include(&mut self, order: EventOrder, offset: Offset, event: Event) {
        self.at.entry(order.id).or_insert(offset);
        self.folded.include(order, stripped(event));
    }

    /// Where an event stands.
    pub(super) fn offset(&self, event: EventId) -> Option<Offset> {
        self.at.get(&event).copied()
    }

    /// Events kept.
    pub(super) fn len(&self) -> usize {
        self.folded.events().count()
    }

    /// The latest reading of a clock among its events.
    pub(super) fn last(&self) -> Hlc {
        self.folded.events().map(|(order, _)| order.hlc).max().unwrap_or_default()
    }

    pub(super) fn to_note(&self) -> TransactionNote {
        let note = |(order, event): (&EventOrder, Event)| EventNote {
            id: Bytes::copy_from_slice(order.id.as_bytes()),
            wall_ms: order.hlc.wall_ms,
            counter: order.hlc.counter,
            offset: self.offset(order.id).unwrap_or_default().0,
            kind: event.kind().to_owned(),
            payload: event.encode(),
        };
        TransactionNote { events: self.folded.events().map(note).collect() }
    }

    pub(super) fn from_note(note: TransactionNote, site: &SiteId) -> Result<Self, Error> {
        let mut known = Self::default();
        for EventNote { id, wall_ms, counter, offset, kind, payload } in note.events {
            let id = EventId::from_slice(&id).map_err(|_| malformed())?;
            let order = EventOrder { hlc: Hlc { wall_ms, counter }, site: site.clone(), id };
            known.include(order, Offset(offset), Event::decode(&kind, payload).map_err(|_| malformed())?);
        }
        Ok(known)
    }

    /// How far it is, for whoever asks; `None`: nothing was asked for.
    pub(super) fn summary(&self, transaction: &Transaction) -> Option<Commitment> {
        let request = self.folded.request()?;
        let decision = self.folded.decision();
        let failed = decision.iter().flat_map(|decided| &decided.event.failed);
        let failed = failed.filter_map(|failures| {
            let reason = u16::try_from(failures.failure_reason).ok()?;
            Some((cairn_archive::commitment::FailureReason(reason), failures.count))
        });
        let state = self.folded.state()?;
        let is_told = matches!(state, State::Reported | State::GivenUp);
        let report = self.folded.report().filter(|_| is_told);
        Some(Commitment {
            transaction: transaction.clone(),
            state,
            door: request.event.door(),
            requested_at_ms: request.order.hlc.wall_ms,
            references: request.event.reference_count,
            confirmed_sites: request.event.confirmed_sites,
            decided_at_ms: decision.map(|decided| decided.order.hlc.wall_ms),
            committed: decision.map_or(0, |decided| decided.event.committed),
            failed: failed.collect(),
            reported_at_ms: report.map(|report| report.order.hlc.wall_ms),
            report_failure: report.map(|report| report.event.reason.clone()).filter(|reason| !reason.is_empty()),
        })
    }
}

/// An event without what is read from the log when it is needed.
fn stripped(event: Event) -> Event {
    match event {
        Event::CommitmentRequested(mut event) => {
            (event.references, event.side_object) = (None, None);
            Event::CommitmentRequested(event)
        }
        Event::CommitmentDecided(mut event) => {
            event.failed.iter_mut().for_each(|failures| failures.place_gaps = Vec::new());
            Event::CommitmentDecided(event)
        }
        other => other,
    }
}

/// The name of a transaction of this site in notes.
pub(super) fn note_key(transaction: &Transaction) -> Bytes {
    let Transaction { tenant, requester, transaction_uid } = transaction;
    [tenant.as_bytes(), &[0], requester.as_bytes(), &[0], transaction_uid.as_str().as_bytes()].concat().into()
}

/// What names of a tenant's transactions, or of one of its requesters, begin with.
pub(super) fn note_prefix(tenant: &str, requester: Option<&str>) -> Bytes {
    let requester = requester.map(|requester| [requester.as_bytes(), &[0]].concat()).unwrap_or_default();
    [tenant.as_bytes(), &[0], &requester].concat().into()
}

/// The reverse of [`note_key`].
pub(super) fn transaction_from(key: &[u8]) -> Result<Transaction, Error> {
    let text = std::str::from_utf8(key).map_err(|_| malformed())?;
    let mut parts = text.splitn(2, '\0').map(str::to_owned);
    let (tenant, rest) = (parts.next().ok_or_else(malformed)?, parts.next().ok_or_else(malformed)?);
    let (requester, uid) = rest.rsplit_once('\0').ok_or_else(malformed)?;
    let transaction_uid = uid.parse().map_err(|_| malformed())?;
    Ok(Transaction { tenant, requester: requester.to_owned(), transaction_uid })
}

/// The name that an event's key has for whoever asks; `None`: no door took such a request.
pub(super) fn transaction_of(key: &Key) -> Option<Transaction> {
    let transaction_uid = key.transaction_uid.parse().ok()?;
    Some(Transaction { tenant: key.tenant.clone(), requester: key.requester.clone(), transaction_uid })
}

/// The event that says a decision, for the log.
pub(super) fn decided(
    transaction: &Transaction,
    request: EventId,
    outcomes: &[Option<cairn_archive::commitment::FailureReason>],
) -> Event {
    let committed = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    Event::CommitmentDecided(CommitmentDecided {
        tenant: transaction.tenant.clone(),
        transaction_uid: transaction.transaction_uid.to_string(),
        requester: transaction.requester.clone(),
        request_event_id: Bytes::copy_from_slice(request.as_bytes()),
        committed: u32::try_from(committed).unwrap_or(u32::MAX),
        failed: cairn_archive::commitment::failures(outcomes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::{
        commitment::FailureReason,
        events::{CommitmentReferences, CommitmentReporting, CommitmentRequested, Object},
    };

    fn transaction() -> Transaction {
        Transaction { tenant: "t".into(), requester: "PACS 1".into(), transaction_uid: "1.9".parse().unwrap() }
    }

    #[test]
    fn what_is_noted_down_is_all_that_is_told_but_no_list() {
        let site: SiteId = "main".parse().unwrap();
        let order = |at| EventOrder {
            hlc: Hlc { wall_ms: at, counter: 1 },
            site: site.clone(),
            id: EventId(uuid::Uuid::from_u128(at.into())),
        };
        let mut known = Known::default();
        let requested = CommitmentRequested {
            reference_count: 3,
            references_blake3: vec![1; 32].into(),
            references: Some(CommitmentReferences::default()),
            side_object: Some(Object::default()),
            reporting: CommitmentReporting::NewAssociation.into(),
            ..CommitmentRequested::default()
        };
        known.include(order(5), Offset(70), Event::CommitmentRequested(Box::new(requested)));
        let missing = Some(FailureReason::NO_SUCH_OBJECT_INSTANCE);
        known.include(order(6), Offset(80), decided(&transaction(), order(5).id, &[None, missing, missing]));
        let again = Known::from_note(known.to_note(), &site).unwrap();
        assert_eq!(again.folded, known.folded);
        assert_eq!((again.offset(order(5).id), again.offset(order(6).id)), (Some(Offset(70)), Some(Offset(80))));
        let summary = again.summary(&transaction()).unwrap();
        assert_eq!((summary.state, summary.committed), (State::Unreported, 1));
        assert_eq!(summary.failed, [(FailureReason::NO_SUCH_OBJECT_INSTANCE, 2)]);
        let request = &again.folded.request().unwrap().event;
        assert!(request.references.is_none() && request.side_object.is_none());
        assert!(again.folded.decision().unwrap().event.failed[0].place_gaps.is_empty());
        assert_eq!(again.last(), order(6).hlc);
    }

    #[test]
    fn names_read_back() {
        let named = transaction();
        assert_eq!(transaction_from(&note_key(&named)).unwrap(), named);
        assert!(note_key(&named).starts_with(&note_prefix("t", Some("PACS 1"))));
        assert!(!note_key(&named).starts_with(&note_prefix("t", Some("PACS"))));
        let nameless = Transaction { requester: String::new(), ..named };
        assert_eq!(transaction_from(&note_key(&nameless)).unwrap(), nameless);
    }
}
