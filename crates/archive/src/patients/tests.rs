use super::*;
use crate::{
    Hlc,
    correction::encode,
    envelope::Envelope,
    fold::Stamp,
    index_rows::{FactRow, PATIENT_FACTS, decode_patient_fact, patient_fact_rows},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn who(number: usize) -> PatientIdentity {
    PatientIdentity { issuer: "H".into(), id: format!("P{number}") }
}

fn order(number: usize) -> EventOrder {
    let id = EventId::from_slice(&[u8::try_from(number + 1).expect("small"); 16]).expect("16 bytes");
    EventOrder { hlc: Hlc { wall_ms: 1_000 + number as u64, counter: 0 }, site: "east".parse().expect("a site"), id }
}

fn fact(number: usize, said: Said) -> PatientFact {
    PatientFact { order: order(number), said }
}

fn merged(prior: usize, surviving: usize) -> Said {
    Said::Merged { prior: who(prior), surviving: who(surviving) }
}

fn updated(of: usize, name: &str) -> Said {
    let mut elements = DataSet::new();
    elements.put_text(tags::PATIENT_NAME, name);
    Said::Updated { patient: who(of), elements: encode(&elements) }
}

fn revoked(number: usize, patients: Vec<PatientIdentity>) -> Said {
    Said::Revoked { fact: order(number).id, patients }
}

fn standings(resolution: &Resolution) -> Vec<Standing> {
    resolution.facts().iter().map(|(_, standing)| *standing).collect()
}

#[test]
fn a_merged_patient_is_the_surviving_one_over_any_number_of_steps() {
    let resolution = Resolution::of([fact(0, merged(1, 2)), fact(1, merged(2, 3)), fact(2, merged(4, 3))]);
    assert_eq!(resolution.survivor(&who(1)), &who(3));
    assert_eq!(resolution.members(&who(4)), [who(1), who(2), who(3), who(4)]);
    let ids: Vec<_> =
        resolution.applied(&who(1)).iter().map(|a| a.elements.text(tags::PATIENT_ID).map(str::to_owned)).collect();
    assert_eq!(ids, [Some("P2".to_owned()), Some("P3".to_owned())]);
    assert!(resolution.applied(&who(3)).is_empty());
}

#[test]
fn of_merges_that_close_a_cycle_the_last_is_void_until_another_is_taken_back() {
    let both = [fact(0, merged(1, 2)), fact(1, merged(2, 1))];
    let resolution = Resolution::of(both.clone());
    assert_eq!(standings(&resolution), [Standing::Counts, Standing::Cycle]);
    assert_eq!(resolution.survivor(&who(2)), &who(2));
    let undone = Resolution::of(both.into_iter().chain([fact(2, revoked(0, vec![who(1), who(2)]))]));
    assert_eq!(standings(&undone), [Standing::Revoked, Standing::Counts, Standing::Counts]);
    assert_eq!(undone.survivor(&who(2)), &who(1));
    let long = Resolution::of([fact(0, merged(1, 2)), fact(1, merged(2, 3)), fact(2, merged(3, 1))]);
    assert_eq!(standings(&long)[2], Standing::Cycle);
}

#[test]
fn nobody_is_merged_twice() {
    let resolution = Resolution::of([fact(0, merged(1, 2)), fact(1, merged(1, 3))]);
    assert_eq!(standings(&resolution), [Standing::Counts, Standing::MergedAlready]);
    assert_eq!(resolution.survivor(&who(1)), &who(2));
}

#[test]
fn what_is_updated_of_the_survivor_comes_after_what_is_of_the_merged_one() {
    let facts = [
        fact(0, updated(2, "LAST^TWO")),
        fact(1, updated(1, "FIRST^ONE")),
        fact(2, updated(1, "LAST^ONE")),
        fact(3, merged(1, 2)),
    ];
    let resolution = Resolution::of(facts);
    let names = |patient: &PatientIdentity| -> Vec<String> {
        let applied = resolution.applied(patient);
        applied.iter().filter_map(|one| one.elements.text(tags::PATIENT_NAME).map(str::to_owned)).collect()
    };
    assert_eq!(names(&who(1)), ["LAST^ONE", "LAST^TWO"], "one that a later one leaves nothing of is left out");
    assert_eq!(names(&who(2)), ["LAST^TWO"]);
}

#[test]
fn links_are_between_survivors() {
    let linked = Said::Linked { one: who(1), other: who(5) };
    let resolution = Resolution::of([fact(0, linked), fact(1, merged(1, 2))]);
    assert_eq!(resolution.linked(&who(2)), [who(5)]);
    assert_eq!(resolution.linked(&who(5)), [who(2)]);
    assert_eq!(resolution.members(&who(2)), [who(1), who(2)]);
}

#[test]
fn ties_hold_whatever_becomes_of_the_facts() {
    let mut ties = Ties::default();
    for (number, said) in
        [(0, merged(1, 2)), (1, merged(2, 1)), (2, merged(2, 3)), (3, revoked(2, vec![who(2), who(3)]))]
    {
        let (event, fact) = (event_of(&said), fact(number, said));
        ties.include(&envelope(&event, &fact.order), event.encode());
    }
    assert_eq!(ties.of("default", &who(1)), BTreeSet::from([who(1), who(2), who(3)]));
    assert_eq!(ties.of("another", &who(1)), BTreeSet::from([who(1)]));
    assert!(ties.is_whole());
    let unknown = event_of(&merged(1, 2));
    ties.include(&envelope(&unknown, &order(9)), Bytes::from_static(b"\xFF"));
    assert!(!ties.is_whole());
}

fn envelope(event: &Event, order: &EventOrder) -> Envelope {
    Envelope {
        id: order.id,
        kind: event.kind().into(),
        site: order.site.clone(),
        study_instance_uid: String::new(),
        tenant: event.tenant().to_owned(),
        hlc: order.hlc,
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    }
}

/// The event that says so.
fn event_of(said: &Said) -> Event {
    let (tenant, key_id) = ("default".to_owned(), String::new());
    let elements = match said {
        Said::Updated { elements, .. } => elements.clone(),
        _ => Bytes::new(),
    };
    let patients = said.patients().into_iter().map(named).collect();
    let protected = PatientProtected { patients, elements, reason: "trial".into() }.encode_to_vec().into();
    match said {
        Said::Merged { .. } => {
            Event::PatientsMerged(PatientsMerged { tenant, protected, key_id, ..Default::default() })
        }
        Said::Linked { .. } => {
            Event::PatientsLinked(PatientsLinked { tenant, protected, key_id, ..Default::default() })
        }
        Said::Updated { .. } => {
            Event::PatientUpdated(PatientUpdated { tenant, protected, key_id, ..Default::default() })
        }
        Said::Revoked { fact, .. } => Event::PatientFactRevoked(PatientFactRevoked {
            tenant,
            fact_event_id: Bytes::copy_from_slice(fact.as_bytes()),
            protected,
            key_id,
            ..Default::default()
        }),
        Said::Gone => Event::PatientsMerged(PatientsMerged { key_id: "gone".into(), ..Default::default() }),
    }
}

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        (0..5_usize, 0..5_usize).prop_map(|(a, b)| merged(a, if a == b { b + 1 } else { b })),
        (0..5_usize, 0..5_usize)
            .prop_map(|(a, b)| Said::Linked { one: who(a), other: who(if a == b { b + 1 } else { b }) }),
        (0..5_usize, "[A-Z]{1,8}").prop_map(|(of, name)| updated(of, &name)),
        (0..12_usize, 0..5_usize).prop_map(|(number, of)| revoked(number, vec![who(of)])),
        Just(Said::Gone),
    ]
}

proptest! {
    #[test]
    fn facts_read_back_from_events_and_rows(said in any_said()) {
        let read = PatientFact::read(order(3), &event_of(&said)).expect("about patients").expect("readable");
        prop_assert_eq!(&read.said, &said);
        let row = FactRow { fact: read, stamp: Stamp(7) };
        let rows = patient_fact_rows("default", &row);
        let under: Vec<_> = rows.iter().filter(|row| row.table == PATIENT_FACTS).collect();
        prop_assert_eq!(under.len(), row.patients().len());
        for found in under {
            prop_assert_eq!(&decode_patient_fact(found.value.as_ref().expect("a value")).expect("readable"), &row);
        }
    }

    #[test]
    fn order_and_repetition_change_nothing_and_nobody_is_their_own_prior(
        said in prop::collection::vec(any_said(), 0..12),
        seed in any::<u64>(),
    ) {
        let facts: Vec<_> = said.into_iter().enumerate().map(|(number, said)| fact(number, said)).collect();
        let resolution = Resolution::of(facts.clone());
        let mut shuffled = facts.clone();
        shuffled.sort_by_key(|fact| fact.hash()[usize::try_from(seed % 32).expect("small")]);
        shuffled.extend(facts.into_iter().take(usize::try_from(seed % 5).expect("small")));
        prop_assert_eq!(&Resolution::of(shuffled), &resolution);
        for number in 0..6 {
            let survivor = resolution.survivor(&who(number)).clone();
            prop_assert_eq!(resolution.survivor(&survivor), &survivor);
            prop_assert!(resolution.members(&survivor).contains(&who(number)));
        }
    }
}
