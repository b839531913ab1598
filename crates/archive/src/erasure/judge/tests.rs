use super::*;
use crate::{
    events::{HeldPatient, HoldPlaced, HoldProtected, InstanceReceivedAgain, Object, SenderProfile},
    hlc::Hlc,
    position::{Incarnation, Offset, Partition, Position},
};
use cairn_dicom::{CharacterSet, dataset::DataSet, transfer_syntax::Encoding};
use proptest::prelude::*;

const STUDY: &str = "1.2.3";

fn id(n: u128) -> EventId {
    EventId(uuid::Uuid::from_u128(n))
}

fn bytes(n: u128) -> Bytes {
    copied(id(n).as_bytes())
}

fn envelope(n: u128, event: &Event) -> Envelope {
    Envelope {
        id: id(n),
        kind: event.kind().into(),
        site: "east".parse().unwrap(),
        study_instance_uid: event.study_instance_uid().to_owned(),
        tenant: event.tenant().to_owned(),
        hlc: Hlc { wall_ms: 1_000 + n as u64, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    }
}

fn stored(n: u128, instance: &str) -> Event {
    let mut header = DataSet::new();
    header.put_text(tags::PATIENT_ID, "ID1");
    let header = header.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).unwrap();
    Event::InstanceStored(Box::new(InstanceStored {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series_instance_uid: "1.2.3.1".into(),
        sop_instance_uid: instance.into(),
        object: Some(Object { key: bytes(n + 1000), length_bytes: 100, blake3: vec![1; 32].into() }),
        sender_profile: Some(SenderProfile { issuer_of_patient_id: "HOSP".into(), ..SenderProfile::default() }),
        protected: InstanceProtected { header: header.into(), extractor_version: 1 }.encode_to_vec().into(),
        ..InstanceStored::default()
    }))
}

fn again(of: u128, instance: &str) -> Event {
    Event::InstanceReceivedAgain(Box::new(InstanceReceivedAgain {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series_instance_uid: "1.2.3.1".into(),
        sop_instance_uid: instance.into(),
        store_event_id: bytes(of),
        ..InstanceReceivedAgain::default()
    }))
}

/// Two instances, one of which came twice.
fn known() -> Vec<(u128, Event)> {
    vec![(1, stored(1, "1.2.3.1.1")), (2, stored(2, "1.2.3.1.2")), (3, again(2, "1.2.3.1.2"))]
}

fn facts(events: &[(u128, Event)]) -> StudyFacts {
    let mut facts = StudyFacts::default();
    events.iter().for_each(|(n, event)| facts.include(&envelope(*n, event), event.encode()));
    facts
}

fn request() -> ErasureRequested {
    let (series, bytes) = facts(&known()).to_erase(|_, _| true);
    assert_eq!(bytes, 200);
    ErasureRequested {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series,
        ..ErasureRequested::default()
    }
}

/// Store events erased, and why the others were kept.
fn judged(facts: &StudyFacts, holds: &Holds) -> (Vec<EventId>, Vec<(EventId, KeptBecause)>) {
    let Judged { series, kept } = judge(&request(), facts, holds, &Authority::default());
    let erased = versions(&series).filter_map(|(_, version)| store_event(version)).collect();
    let because = |kept: &KeptVersion| {
        (EventId::from_slice(&kept.store_event_id).unwrap(), KeptBecause::try_from(kept.because).unwrap())
    };
    (erased, kept.iter().map(because).collect())
}

#[test]
fn everything_that_was_seen_is_erased() {
    assert_eq!(judged(&facts(&known()), &Holds::default()), (vec![id(1), id(2)], Vec::new()));
}

#[test]
fn what_came_of_an_instance_unseen_keeps_it_and_no_other() {
    let with = |n, event| facts(&[known(), vec![(n, event)]].concat());
    let version = judged(&with(9, stored(9, "1.2.3.1.1")), &Holds::default());
    assert_eq!(version, (vec![id(2)], vec![(id(1), KeptBecause::StoredAgain)]));
    let repeat = judged(&with(9, again(1, "1.2.3.1.1")), &Holds::default());
    assert_eq!(repeat, (vec![id(2)], vec![(id(1), KeptBecause::ReceivedAgain)]));
    let other = judged(&with(9, stored(9, "1.2.3.1.3")), &Holds::default());
    assert_eq!(other.0, [id(1), id(2)], "of another instance");
}

#[test]
fn a_hold_of_the_patient_keeps_everything() {
    let protected = HoldProtected {
        patient: Some(HeldPatient { patient_id: "ID1".into(), issuer_of_patient_id: Some("HOSP".into()) }),
        ..HoldProtected::default()
    };
    let hold = Event::HoldPlaced(HoldPlaced {
        tenant: "default".into(),
        hold_id: bytes(70),
        protected: protected.encode_to_vec().into(),
        ..HoldPlaced::default()
    });
    let (site, offset) = ("east".parse().unwrap(), Offset(0));
    let position = Position { site, incarnation: Incarnation(1), partition: Partition(0), offset };
    let mut holds = Holds::default();
    holds.include(&envelope(70, &hold), &position, hold.encode());
    let (erased, kept) = judged(&facts(&known()), &holds);
    assert!(erased.is_empty());
    assert_eq!(kept, [(id(1), KeptBecause::Held), (id(2), KeptBecause::Held)]);
}

#[test]
fn a_study_of_which_something_cannot_be_read_is_kept_until_that_is_settled() {
    let mut incomplete = facts(&known());
    let event = stored(9, "1.2.3.1.9");
    incomplete.include(&envelope(9, &event), Bytes::from_static(b"\xFF\xFF"));
    let (erased, kept) = judged(&incomplete, &Holds::default());
    assert!(erased.is_empty() && kept.iter().all(|(_, why)| *why == KeptBecause::Incomplete));
    let dismissed = Event::EventRepaired(Box::new(EventRepaired {
        study_instance_uid: STUDY.into(),
        event_id: bytes(9),
        remedy: Some(event_repaired::Remedy::Dismissed(true)),
        ..EventRepaired::default()
    }));
    incomplete.include(&envelope(10, &dismissed), dismissed.encode());
    assert_eq!(judged(&incomplete, &Holds::default()).0, [id(1), id(2)]);
}

proptest! {
    /// I11, I12
    #[test]
    fn order_and_repetition_change_nothing(order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(), repeated in 0..5_usize) {
        let all = [known(), vec![(8, stored(8, "1.2.3.1.1")), (9, again(2, "1.2.3.1.2"))]].concat();
        let mut shuffled: Vec<_> = order.iter().map(|at| all[*at].clone()).collect();
        shuffled.push(all[repeated].clone());
        prop_assert_eq!(facts(&shuffled), facts(&all));
    }
}
