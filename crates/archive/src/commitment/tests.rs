use super::*;
use crate::hlc::Hlc;
use cairn_dicom::Uid;
use proptest::prelude::*;

fn order(at: u64) -> EventOrder {
    EventOrder {
        hlc: Hlc { wall_ms: at, counter: 0 },
        site: "main".parse().unwrap(),
        id: EventId(uuid::Uuid::from_u128(u128::from(at) + 1)),
    }
}

fn id(at: u64) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(order(at).id.as_bytes())
}

fn requested(about: u8, reporting: CommitmentReporting) -> Event {
    Event::CommitmentRequested(Box::new(CommitmentRequested {
        references_blake3: vec![about; 32].into(),
        reporting: reporting.into(),
        ..CommitmentRequested::default()
    }))
}

fn decided(request: u64, committed: u32) -> Event {
    let request_event_id = id(request);
    Event::CommitmentDecided(CommitmentDecided { request_event_id, committed, ..CommitmentDecided::default() })
}

fn reported(decision: u64, outcome: CommitmentReportOutcome) -> Event {
    let decision_event_id = id(decision);
    let outcome = outcome.into();
    Event::CommitmentReported(CommitmentReported { decision_event_id, outcome, ..CommitmentReported::default() })
}

fn folded(events: &[(u64, Event)]) -> Transaction {
    let mut transaction = Transaction::default();
    events.iter().for_each(|(at, event)| transaction.include(order(*at), event.clone()));
    transaction
}

#[test]
fn a_transaction_goes_from_request_to_report_and_is_reported_again_when_asked_again() {
    use CommitmentReportOutcome::{GivenUp, NewAssociation};
    let ask = || requested(1, CommitmentReporting::NewAssociation);
    let mut events: Vec<(u64, Event)> = Vec::new();
    let mut then = |at, event, state| {
        events.push((at, event));
        assert_eq!(folded(&events).state(), Some(state), "at {at}");
    };
    then(1, ask(), State::Pending);
    then(2, requested(2, CommitmentReporting::NewAssociation), State::Pending);
    then(3, decided(2, 9), State::Pending);
    then(4, decided(1, 7), State::Unreported);
    then(5, decided(1, 6), State::Unreported);
    then(6, reported(5, NewAssociation), State::Unreported);
    then(7, reported(4, GivenUp), State::GivenUp);
    then(8, ask(), State::Unreported);
    then(9, reported(4, NewAssociation), State::Reported);
    then(10, requested(1, CommitmentReporting::AskedFor), State::Decided);
    let transaction = folded(&events);
    assert_eq!(transaction.decision().unwrap().event.committed, 7, "the first about the first request");
    assert!(transaction.is_about(&[1; 32]) && !transaction.is_about(&[2; 32]));
    assert_eq!(Transaction::default().state(), None);
}

fn any_event() -> impl Strategy<Value = Event> {
    use CommitmentReporting::{AskedFor, NewAssociation, SameAssociation};
    let reporting = prop_oneof![Just(AskedFor), Just(NewAssociation), Just(SameAssociation)];
    let outcome = prop_oneof![
        Just(CommitmentReportOutcome::SameAssociation),
        Just(CommitmentReportOutcome::NewAssociation),
        Just(CommitmentReportOutcome::GivenUp),
    ];
    prop_oneof![
        (0..3_u8, reporting).prop_map(|(about, reporting)| requested(about, reporting)),
        (0..12_u64, 0..5_u32).prop_map(|(request, committed)| decided(request, committed)),
        (0..12_u64, outcome).prop_map(|(decision, outcome)| reported(decision, outcome)),
    ]
}

/// Events, and an order of arrival in which each comes at least once.
fn arrivals() -> impl Strategy<Value = (Vec<(u64, Event)>, Vec<usize>)> {
    proptest::collection::vec(any_event(), 1..12).prop_flat_map(|events| {
        let events: Vec<_> = (0..).zip(events).collect();
        let repeats = proptest::collection::vec(0..events.len(), 0..12);
        let all: Vec<usize> = (0..events.len()).collect();
        let order = repeats.prop_flat_map(move |mut more| {
            more.extend(&all);
            Just(more).prop_shuffle()
        });
        (Just(events), order)
    })
}

proptest! {
    #[test]
    fn order_and_repetition_of_arrival_change_nothing((events, arrival) in arrivals()) {
        let in_order = folded(&events);
        let arrived: Vec<_> = arrival.iter().map(|at| events[*at].clone()).collect();
        let transaction = folded(&arrived);
        prop_assert_eq!(&transaction, &in_order);
        let mut from_kept = Transaction::default();
        in_order.events().for_each(|(order, event)| from_kept.include(order.clone(), event));
        prop_assert_eq!(from_kept, in_order, "what is kept is enough");
    }

    #[test]
    fn once_decided_nothing_that_comes_later_decides_otherwise((events, _) in arrivals(), cut in 0..12_usize) {
        let cut = cut.min(events.len());
        let before = folded(&events[..cut]);
        if let Some(decision) = before.decision() {
            let after = folded(&events);
            prop_assert_eq!(after.decision(), Some(decision));
            prop_assert_eq!(after.request(), before.request());
        }
    }

    #[test]
    fn references_survive_the_way_through_an_event(picks in proptest::collection::vec((0..3_u8, 0..3_u8, 0..200_u16), 0..300)) {
        let uid = |text: String| text.parse::<Uid>().unwrap();
        let reference = |(class, place, instance): &(u8, u8, u16)| Reference {
            sop_class_uid: uid(format!("1.2.{class}")),
            sop_instance_uid: uid(format!("1.3.{instance}")),
            within: (*place > 0).then(|| Within {
                study_instance_uid: uid("1.4".to_owned()),
                series_instance_uid: uid(format!("1.4.{place}")),
            }),
        };
        let references: Vec<_> = picks.iter().map(reference).collect();
        let groups = to_groups(&references);
        prop_assert_eq!(from_groups(&groups), Ok(references.clone()));
        let mut other = references;
        if other.pop().is_some() {
            prop_assert_ne!(digest(&to_groups(&other)), digest(&groups));
        }
    }

    #[test]
    fn failures_survive_the_way_through_an_event(picks in proptest::collection::vec(proptest::option::of(0x0110..0x0115_u16), 0..300)) {
        let all: Vec<_> = picks.into_iter().map(|reason| reason.map(FailureReason)).collect();
        prop_assert_eq!(outcomes(all.len(), &failures(&all)), Ok(all));
    }
}

#[test]
fn failures_beyond_what_was_asked_about_are_malformed() {
    let failed =
        |failure_reason, place_gaps| [crate::events::CommitmentFailures { failure_reason, count: 1, place_gaps }];
    assert_eq!(outcomes(2, &failed(0x0112, vec![2])), Err(Malformed));
    assert_eq!(outcomes(2, &failed(0x0112, vec![1, u32::MAX])), Err(Malformed));
    assert_eq!(outcomes(2, &failed(1 << 16, vec![0])), Err(Malformed));
}
