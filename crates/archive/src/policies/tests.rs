use super::*;
use crate::{
    events::{OriginEnd, SitePromoted},
    position::{Incarnation, Offset, Partition},
};
use proptest::prelude::*;

fn event_id(n: u64) -> EventId {
    EventId(uuid::Uuid::from_u128(n.into()))
}

type Record = (Envelope, Position, Bytes);

/// The event at an offset of a site's log.
fn record(n: u64, site: &str, event: &Event) -> Record {
    let site: SiteId = site.parse().unwrap();
    let envelope = Envelope {
        id: event_id(n),
        kind: event.kind().into(),
        site: site.clone(),
        study_instance_uid: String::new(),
        tenant: event.tenant().to_owned(),
        hlc: Hlc { wall_ms: 1_000 + n, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    let position = Position { site, incarnation: Incarnation(1), partition: Partition(0), offset: Offset(n) };
    (envelope, position, event.encode())
}

fn adopt(name: &str, version: u32, under: Option<u64>) -> PolicyAdopted {
    let protected = PolicyProtected { expression: format!("versions == {version}"), reason: "a trial".into() };
    PolicyAdopted {
        tenant: "default".into(),
        name: name.into(),
        version,
        promotion_event_id: under.map(|n| Bytes::copy_from_slice(event_id(n).as_bytes())).unwrap_or_default(),
        action: PolicyAction::Erase.into(),
        delay_ms: 5,
        studies_max: 10,
        adopted_by: "operator".into(),
        key_id: String::new(),
        protected: protected.encode_to_vec().into(),
    }
}

fn withdraw(name: &str) -> Event {
    let (tenant, name, withdrawn_by) = ("default".into(), name.into(), "another".into());
    Event::PolicyWithdrawn(PolicyWithdrawn { tenant, name, withdrawn_by, ..PolicyWithdrawn::default() })
}

fn folded(records: &[Record]) -> (Policies, Authority) {
    let (mut policies, mut authority) = (Policies::default(), Authority::default());
    for (envelope, position, payload) in records {
        policies.include(envelope, position, payload.clone());
        authority.include(envelope, position, payload.clone()).unwrap();
    }
    (policies, authority)
}

fn said(records: &[Record]) -> Vec<(String, u32, State)> {
    let (policies, authority) = folded(records);
    policies.all(&authority).map(|(policy, state)| (policy.name.clone(), policy.version, state)).collect()
}

#[test]
fn the_last_that_was_decided_counts() {
    let records = [
        record(1, "east", &Event::PolicyAdopted(adopt("a", 1, None))),
        record(2, "east", &Event::PolicyAdopted(adopt("a", 2, None))),
        record(3, "east", &Event::PolicyAdopted(adopt("b", 1, None))),
        record(4, "east", &withdraw("b")),
    ];
    let expected = [("a", 1, State::Replaced), ("a", 2, State::InForce), ("b", 1, State::Withdrawn("another".into()))];
    assert_eq!(said(&records), expected.map(|(name, version, state)| (name.to_owned(), version, state)));
    let (policies, authority) = folded(&records);
    let in_force: Vec<_> = policies.in_force(&authority).collect();
    assert_eq!((in_force.len(), in_force[0].expression.as_str(), in_force[0].at_ms), (1, "versions == 2", 1_002));
    let next = ["a", "b", "c"].map(|name| policies.next_version("default", name));
    assert_eq!(next, [3, 2, 1]);
}

fn to_move(name: &str, version: u32) -> MovePolicyAdopted {
    let PolicyAdopted { tenant, name, adopted_by, studies_max, protected, .. } = adopt(name, version, None);
    MovePolicyAdopted {
        tenant,
        name,
        version,
        rest_ms: 7,
        studies_max,
        adopted_by,
        protected,
        ..MovePolicyAdopted::default()
    }
}

#[test]
fn one_that_moves_takes_the_place_of_one_that_erases_and_is_withdrawn_likewise() {
    let records = [
        record(1, "east", &Event::PolicyAdopted(adopt("a", 1, None))),
        record(2, "east", &Event::MovePolicyAdopted(to_move("a", 2))),
        record(3, "east", &withdraw("a")),
    ];
    let (policies, authority) = folded(&records[..2]);
    let in_force: Vec<_> = policies.in_force(&authority).collect();
    let told =
        in_force.iter().map(|policy| (policy.version, policy.action, policy.delay_ms, policy.expression.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), [(2, Action::Move, 7, "versions == 2")]);
    let expected = [("a".to_owned(), 1, State::Replaced), ("a".to_owned(), 2, State::Withdrawn("another".into()))];
    assert_eq!(said(&records), expected);
    let unbounded = MovePolicyAdopted { studies_max: 0, ..to_move("a", 1) };
    let (policies, _) = folded(&[record(1, "east", &Event::MovePolicyAdopted(unbounded))]);
    assert_eq!(policies.unreadable().count(), 1);
}

#[test]
fn what_a_later_promotion_does_not_hold_is_void() {
    let promotion = |site: &str, epoch, held: u64| {
        let holds = vec![OriginEnd { site: "east".into(), incarnation: 1, partition: 0, end: held }];
        Event::SitePromoted(SitePromoted { site: site.into(), epoch, holds, ..SitePromoted::default() })
    };
    let records = [
        record(1, "east", &promotion("east", 1, 1)),
        record(2, "east", &Event::PolicyAdopted(adopt("a", 1, Some(1)))),
        record(3, "east", &Event::PolicyAdopted(adopt("a", 2, Some(1)))),
        record(9, "west", &promotion("west", 2, 3)),
    ];
    let expected = [("a".to_owned(), 1, State::InForce), ("a".to_owned(), 2, State::Void)];
    assert_eq!(said(&records), expected);
}

#[test]
fn what_can_not_be_read_is_known_to_be_there() {
    let bad = [
        PolicyAdopted { key_id: "k".into(), ..adopt("a", 1, None) },
        PolicyAdopted { action: 99, ..adopt("a", 1, None) },
        PolicyAdopted { studies_max: 0, ..adopt("a", 1, None) },
    ];
    for (n, event) in (1_u64..).zip(bad) {
        let (policies, authority) = folded(&[record(n, "east", &Event::PolicyAdopted(event))]);
        assert_eq!(policies.unreadable().collect::<Vec<_>>(), [event_id(n)]);
        assert_eq!(policies.in_force(&authority).count(), 0);
    }
}

proptest! {
    /// Whatever the order of arrival, and however often: the same (I11).
    #[test]
    fn order_and_repetition_change_nothing(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(), again in 0..6_usize) {
        let records = [
            record(1, "east", &Event::PolicyAdopted(adopt("a", 1, None))),
            record(2, "east", &withdraw("a")),
            record(3, "west", &Event::PolicyAdopted(adopt("a", 2, None))),
            record(4, "east", &Event::PolicyAdopted(adopt("b", 1, None))),
            record(5, "west", &withdraw("b")),
            record(6, "east", &Event::PolicyAdopted(PolicyAdopted { action: 0, ..adopt("c", 1, None) })),
        ];
        let mut arrived: Vec<Record> = order.into_iter().map(|n| records[n].clone()).collect();
        arrived.push(records[again].clone());
        prop_assert_eq!(folded(&arrived).0, folded(&records).0);
    }
}
