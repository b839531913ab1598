use super::*;
use crate::{
    events::{AttributesCorrected, ErasedInstance, ErasedVersion, InstanceStored, VersionChosen, VersionsErased},
    hlc::Hlc,
};
use uuid::Uuid;

fn id(n: u128) -> EventId {
    EventId(Uuid::from_u128(n))
}

fn key(n: u128) -> KeyId {
    KeyId(Uuid::from_u128(1_000 + n))
}

fn envelope(n: u128, kind: &'static str) -> Envelope {
    Envelope {
        id: id(n),
        kind: kind.into(),
        site: "main".parse().unwrap(),
        study_instance_uid: "1.2".into(),
        tenant: "default".into(),
        hlc: Hlc { wall_ms: n as u64, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    }
}

fn stored(n: u128, key_id: Option<KeyId>) -> (Envelope, Bytes) {
    let key_id = key_id.map(|key| key.to_string()).unwrap_or_default();
    let event = Event::InstanceStored(Box::new(InstanceStored { key_id, ..InstanceStored::default() }));
    (envelope(n, event.kind()), event.encode())
}

fn series(versions: &[u128]) -> Vec<ErasedSeries> {
    let versions = versions
        .iter()
        .map(|n| ErasedVersion { store_event_id: Bytes::copy_from_slice(id(*n).as_bytes()), object_keys: Vec::new() });
    let instance = ErasedInstance { versions: versions.collect(), ..ErasedInstance::default() };
    vec![ErasedSeries { instances: vec![instance], ..ErasedSeries::default() }]
}

fn erased(n: u128, versions: &[u128]) -> (Envelope, Bytes) {
    let event =
        Event::VersionsErased(Box::new(VersionsErased { series: series(versions), ..VersionsErased::default() }));
    (envelope(n, event.kind()), event.encode())
}

fn chosen(n: u128, key: KeyId) -> (Envelope, Bytes) {
    let reason = Bytes::from_static(b"sealed");
    let event = Event::VersionChosen(VersionChosen { reason, key_id: key.to_string(), ..VersionChosen::default() });
    (envelope(n, event.kind()), event.encode())
}

fn corrected(n: u128, key: KeyId) -> (Envelope, Bytes) {
    let protected = Bytes::from_static(b"sealed");
    let event = AttributesCorrected { protected, key_id: key.to_string(), ..AttributesCorrected::default() };
    let event = Event::AttributesCorrected(Box::new(event));
    (envelope(n, event.kind()), event.encode())
}

fn said_to_go(n: u128, keys: &[KeyId]) -> (Envelope, Bytes) {
    let key_ids = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
    let event = Event::KeysJudged(KeysJudged { key_ids, ..KeysJudged::default() });
    (envelope(n, event.kind()), event.encode())
}

/// What becomes of keys, by events in this order and turned round.
fn judged(events: &[(Envelope, Bytes)], erased: &[u128]) -> (Vec<KeyId>, Vec<(KeyId, EventId)>) {
    let event = verdict(events, erased);
    let kept = event.kept.iter().map(|kept| {
        let needed_by = EventId::from_slice(&kept.needed_by_event_id).unwrap();
        (KeyId::from_slice(&kept.key_id).unwrap(), needed_by)
    });
    (judged_keys(&event).collect(), kept.collect())
}

fn verdict(events: &[(Envelope, Bytes)], erased: &[u128]) -> KeysJudged {
    let of = |events: &mut dyn Iterator<Item = &(Envelope, Bytes)>| {
        let mut keys = StudyKeys::default();
        events.for_each(|(envelope, payload)| keys.include(envelope, payload.clone()));
        keys.judge(id(99), &VersionsErased { series: series(erased), ..VersionsErased::default() })
    };
    let found = of(&mut events.iter());
    assert_eq!(found, of(&mut events.iter().rev()), "in any order");
    found
}

#[test]
fn a_key_goes_when_everything_under_it_is_erased_and_not_before() {
    let both = [stored(1, Some(key(1))), stored(2, Some(key(1))), stored(3, Some(key(2)))];
    let first = [&both[..], &[erased(4, &[1])]].concat();
    assert_eq!(judged(&first, &[1]), (Vec::new(), vec![(key(1), id(2))]));
    let second = [&first[..], &[erased(5, &[2])]].concat();
    assert_eq!(judged(&second, &[2]), (vec![key(1)], Vec::new()));
    let said = [&second[..], &[said_to_go(6, &[key(1)])]].concat();
    assert_eq!(judged(&said, &[2]), (Vec::new(), Vec::new()), "once");
}

#[test]
fn what_was_never_sealed_has_no_key() {
    let events = [stored(1, None), erased(2, &[1])];
    assert_eq!(judged(&events, &[1]), (Vec::new(), Vec::new()));
}

#[test]
fn what_was_written_about_a_study_goes_with_the_last_of_it() {
    let some = [stored(1, Some(key(1))), stored(2, Some(key(2))), chosen(3, key(3)), erased(4, &[1])];
    assert_eq!(judged(&some, &[1]).0, [key(1)]);
    let all = [&some[..], &[erased(5, &[2])]].concat();
    assert_eq!(judged(&all, &[2]).0, [key(1), key(2), key(3)]);
}

#[test]
fn corrections_that_go_with_a_key_are_named() {
    let some = [stored(1, Some(key(1))), stored(2, Some(key(2))), corrected(3, key(3)), erased(4, &[1])];
    assert!(verdict(&some, &[1]).correction_event_ids.is_empty(), "it counts for what is live");
    let all = [&some[..], &[erased(5, &[2])]].concat();
    assert_eq!(verdict(&all, &[2]).correction_event_ids, [id(3).as_bytes().to_vec()]);
}

#[test]
fn what_can_not_be_read_may_need_any_key() {
    let unreadable = (envelope(9, "cairn.instance.dreamt.v9"), Bytes::new());
    let events = [stored(1, Some(key(1))), erased(2, &[1]), unreadable];
    assert_eq!(judged(&events, &[1]), (Vec::new(), vec![(key(1), id(9))]));
}
