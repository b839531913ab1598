use super::*;
use crate::events::{ErasedSeries, ErasureRequested, ErasureWithdrawn, InstanceStored, SenderProfile, VersionChosen};
use proptest::prelude::*;
use uuid::Uuid;

fn event_id(n: u128) -> EventId {
    EventId(Uuid::from_u128(n))
}

fn key(n: u8) -> SealingKey {
    SealingKey::new(KeyId(Uuid::from_u128(n.into())), &KeyBytes([n; 32])).unwrap()
}

fn header(patient: &str) -> Bytes {
    let mut header = b"\x10\x00\x20\x00LO".to_vec();
    header.extend((patient.len() as u16).to_le_bytes());
    header.extend(patient.as_bytes());
    header.into()
}

fn stored(study: &str, issuer: &str, patient: &str) -> Event {
    let protected = InstanceProtected { header: header(patient), extractor_version: 1 };
    Event::InstanceStored(Box::new(InstanceStored {
        tenant: "default".into(),
        study_instance_uid: study.into(),
        series_instance_uid: "1.2.4".into(),
        sender_profile: Some(SenderProfile { issuer_of_patient_id: issuer.into(), ..SenderProfile::default() }),
        protected: protected.encode_to_vec().into(),
        ..InstanceStored::default()
    }))
}

fn chosen(reason: &[u8]) -> Event {
    Event::VersionChosen(VersionChosen {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        reason: Bytes::copy_from_slice(reason),
        ..VersionChosen::default()
    })
}

fn repaired(inner: &Event, reason: &[u8]) -> Event {
    let by = Replacement { event_type: inner.kind().into(), payload: inner.encode() };
    Event::EventRepaired(Box::new(EventRepaired {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        remedy: Some(Remedy::Replacement(by)),
        reason: Bytes::copy_from_slice(reason),
        ..EventRepaired::default()
    }))
}

fn sealed(event: &Event, id: EventId, key: &SealingKey) -> Event {
    let mut sealed = event.clone();
    seal(&mut sealed, id, key, [[1; NONCE_LEN], [2; NONCE_LEN]]).unwrap();
    sealed
}

fn opened(event: &Event, id: EventId, opening: Opening) -> Event {
    let keys = keys_of(event.kind(), &event.encode()).into_iter().map(|id| (id, opening.clone())).collect();
    Event::decode(event.kind(), open(event.kind(), id, event.encode(), &keys)).unwrap()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened_by_its_key_alone_and_does_not_show_before(
        patient in "[A-Z0-9]{6,40}",
        reason in proptest::collection::vec(any::<u8>(), 0..40),
        which in 0..4,
        n in any::<u128>(),
    ) {
        let event = match which {
            0 => stored("1.2.3", "EAST", &patient),
            1 => chosen(patient.as_bytes()),
            2 => repaired(&stored("1.2.3", "EAST", &patient), &reason),
            _ => repaired(&chosen(b""), patient.as_bytes()),
        };
        let (id, own, other) = (event_id(n), key(1), key(2));
        prop_assert!(subject(&event).is_some());
        let sealed = sealed(&event, id, &own);
        prop_assert!(!has(&sealed.encode(), patient.as_bytes()));
        prop_assert_eq!(keys_of(sealed.kind(), &sealed.encode()), vec![own.id()]);
        prop_assert_eq!(subject(&sealed), None, "nothing is sealed twice");
        prop_assert_eq!(&opened(&sealed, id, Opening::Key(Arc::new(key(1)))), &event);
        prop_assert_eq!(&opened(&sealed, id, Opening::Key(Arc::new(other))), &sealed);
        prop_assert_eq!(&opened(&sealed, event_id(n ^ 1), Opening::Key(Arc::new(own))), &sealed, "in another event");
        let gone = opened(&sealed, id, Opening::Destroyed);
        prop_assert!(!has(&gone.encode(), patient.as_bytes()));
        // What stands in for another event is compared so.
        if which < 2 {
            let without = |event: &Event| without_sealed(event.kind(), &event.encode());
            prop_assert_eq!((without(&event), without(&event)), (without(&sealed), without(&gone)));
        }
    }

    #[test]
    fn no_changed_bit_is_taken_for_what_was_sealed(bit in any::<prop::sample::Index>()) {
        let (id, own) = (event_id(7), key(1));
        let Event::InstanceStored(mut event) = sealed(&stored("1.2.3", "EAST", "P1"), id, &own) else { unreachable!() };
        let mut field = event.protected.to_vec();
        let at = bit.index(field.len() * 8);
        field[at / 8] ^= 1 << (at % 8);
        event.protected = field.into();
        let changed = Event::InstanceStored(event);
        prop_assert_eq!(&opened(&changed, id, Opening::Key(Arc::new(own))), &changed);
    }
}

#[test]
fn a_destroyed_key_leaves_an_event_that_is_known_to_be_shredded() {
    let sealed = sealed(&stored("1.2.3", "EAST", "P1"), event_id(1), &key(1));
    let Event::InstanceStored(gone) = opened(&sealed, event_id(1), Opening::Destroyed) else { unreachable!() };
    assert!(is_shredded(&gone.key_id, &gone.protected));
    let Event::InstanceStored(sealed) = sealed else { unreachable!() };
    assert!(!is_shredded(&sealed.key_id, &sealed.protected) && !is_shredded("", b""));
}

#[test]
fn a_subject_is_one_patient_in_one_study() {
    let subjects = [
        subject(&stored("1.2.3", "EAST", "P1")),
        subject(&stored("1.2.3", "EAST", "P2")),
        subject(&stored("1.2.3", "WEST", "P1")),
        subject(&stored("1.2.4", "EAST", "P1")),
    ];
    for (at, one) in subjects.iter().enumerate() {
        assert!(one.is_some() && subjects.iter().skip(at + 1).all(|other| other != one));
    }
    assert_eq!(subjects[0], subject(&stored("1.2.3", "EAST", "P1")));
    assert_eq!(subjects[0].unwrap().study, study_of("default", "1.2.3"));
    assert_eq!(subject(&chosen(b"")), None, "nothing is said");
}

#[test]
fn of_an_erasure_the_words_go_with_the_key_and_what_it_names_stays() {
    let (tenant, study_instance_uid) = ("default".to_owned(), "1.2.3".to_owned());
    let reason = Bytes::from_static(b"Jane asked for it");
    let requested = ErasureRequested {
        tenant: tenant.clone(),
        study_instance_uid: study_instance_uid.clone(),
        reason: reason.clone(),
        series: vec![ErasedSeries { series_instance_uid: "1.2.3.1".into(), ..ErasedSeries::default() }],
        ..ErasureRequested::default()
    };
    let withdrawn = ErasureWithdrawn { tenant, study_instance_uid, reason, ..ErasureWithdrawn::default() };
    for event in [Event::ErasureRequested(Box::new(requested)), Event::ErasureWithdrawn(withdrawn)] {
        assert_eq!(subject(&event), subject(&chosen(b"the same study")));
        let mut sealed = event.clone();
        seal(&mut sealed, event_id(1), &key(1), [[1; 12], [2; 12]]).unwrap();
        assert!(!sealed.encode().windows(4).any(|text| text == b"Jane"));
        assert_eq!(keys_of(event.kind(), &sealed.encode()), [key(1).id()]);
        let opened = |opening| {
            let keys = BTreeMap::from([(key(1).id(), opening)]);
            Event::decode(event.kind(), open(event.kind(), event_id(1), sealed.encode(), &keys)).unwrap()
        };
        assert_eq!(opened(Opening::Key(Arc::new(key(1)))), event);
        let gone = opened(Opening::Destroyed);
        assert_eq!(without_sealed(event.kind(), &gone.encode()), without_sealed(event.kind(), &event.encode()));
        let Some((key_id, reason)) =
            sealed_fields(&mut gone.clone()).map(|(key_id, field)| (key_id.clone(), field.clone()))
        else {
            panic!("it has a sealed field");
        };
        assert_eq!((key_id, reason), (key(1).id().to_string(), Bytes::new()));
    }
}
