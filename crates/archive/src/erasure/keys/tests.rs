use super::*;
use crate::{
    events::{
        AttributesCorrected, ErasedInstance, ErasedVersion, ErasureConfirmed, InstanceStored, ObjectsDestroyed,
        VersionChosen, VersionsErased,
    },
    hlc::Hlc,
    position::Partition,
};
use proptest::prelude::*;
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

/// Where an event became a fact: at its site, in the order of its number.
fn position(envelope: &Envelope) -> Position {
    let (incarnation, partition, offset) = (Incarnation(1), Partition(0), Offset(envelope.hlc.wall_ms));
    Position { site: envelope.site.clone(), incarnation, partition, offset }
}

fn of_site(site: &str, (envelope, payload): (Envelope, Bytes)) -> (Envelope, Bytes) {
    (Envelope { site: site.parse().unwrap(), ..envelope }, payload)
}

/// A site retired its keys, and confirmed an erasure.
fn confirmed(n: u128, site: &str) -> (Envelope, Bytes) {
    let event = Event::ErasureConfirmed(ErasureConfirmed { site: site.into(), ..ErasureConfirmed::default() });
    of_site(site, (envelope(n, event.kind()), event.encode()))
}

/// A site retired its keys, and destroyed what was erased.
fn destroyed(n: u128, site: &str) -> (Envelope, Bytes) {
    let event = Event::ObjectsDestroyed(ObjectsDestroyed { site: site.into(), ..ObjectsDestroyed::default() });
    of_site(site, (envelope(n, event.kind()), event.encode()))
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

/// What becomes of keys, by events in this order and turned round, once this site has confirmed.
fn judged(events: &[(Envelope, Bytes)], erased: &[u128]) -> (Vec<KeyId>, Vec<(KeyId, EventId)>) {
    let event = verdict(events, erased);
    let kept = event.kept.iter().map(|kept| {
        let needed_by = EventId::from_slice(&kept.needed_by_event_id).unwrap();
        (KeyId::from_slice(&kept.key_id).unwrap(), needed_by)
    });
    (judged_keys(&event).collect(), kept.collect())
}

fn verdict(events: &[(Envelope, Bytes)], erased: &[u128]) -> KeysJudged {
    let all = [events, &[confirmed(98, "main")]].concat();
    let of = |keys: StudyKeys| {
        keys.judge(id(99), &VersionsErased { series: series(erased), ..VersionsErased::default() }, &BTreeSet::new())
    };
    let found = of(known(all.iter()));
    assert_eq!(found, of(known(all.iter().rev())), "in any order");
    found
}

fn known<'a>(events: impl Iterator<Item = &'a (Envelope, Bytes)>) -> StudyKeys {
    let mut keys = StudyKeys::default();
    events.for_each(|(envelope, payload)| keys.include(envelope, &position(envelope), payload.clone()));
    keys
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

#[test]
fn what_a_site_that_has_not_confirmed_may_seal_under_stays_until_it_is_back() {
    let some = [
        stored(1, Some(key(1))),
        of_site("south", stored(2, Some(key(2)))),
        of_site("south", corrected(3, key(3))),
        erased(4, &[1, 2]),
    ];
    let south: SiteId = "south".parse().unwrap();
    assert_eq!(judged(&some, &[1, 2]), (vec![key(1)], vec![(key(2), id(2)), (key(3), id(3))]));
    assert_eq!(known(some.iter()).needed_by(key(2), &BTreeSet::new()), Some(NeededBy::Site(south, id(2))));
    // What it confirmed of another erasure, before, says nothing of what it sealed since.
    let early = [&[confirmed(0, "south")], &some[..]].concat();
    assert_eq!(judged(&early, &[1, 2]).0, [key(1)]);
    // It is back with something under one of them.
    let more = [&some[..], &[of_site("south", stored(5, Some(key(2)))), destroyed(6, "south")]].concat();
    assert_eq!(judged(&more, &[1, 2]).1, [(key(2), id(5))], "what was written is needed with it");
    let all = [&more[..], &[erased(7, &[5]), said_to_go(8, &[key(1)])]].concat();
    assert_eq!(judged(&all, &[5]), (vec![key(2), key(3)], Vec::new()));
}

#[test]
fn what_was_written_about_a_study_stays_for_what_a_site_may_have_of_it_that_took_no_part() {
    let events = [stored(1, Some(key(1))), corrected(2, key(2)), erased(3, &[1]), confirmed(4, "main")];
    let verdict = |absent: &[&str]| {
        let absent = absent.iter().map(|site| site.parse().unwrap()).collect();
        let erased = VersionsErased { series: series(&[1]), ..VersionsErased::default() };
        known(events.iter()).judge(id(5), &erased, &absent)
    };
    let away = verdict(&["south"]);
    assert_eq!(judged_keys(&away).collect::<Vec<_>>(), [key(1)], "its own are others");
    assert_eq!(away.kept.iter().map(|kept| &kept.key_id[..]).collect::<Vec<_>>(), [key(2).as_bytes()]);
    assert!(away.correction_event_ids.is_empty());
    let back = verdict(&[]);
    assert_eq!(judged_keys(&back).collect::<Vec<_>>(), [key(1), key(2)]);
    assert_eq!(back.correction_event_ids, [id(2).as_bytes().to_vec()]);
}

/// What a site does with a study, one thing after the other.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// It stores an instance under a key in use: with several patients there are several.
    Store(u8),
    Correct,
    /// It retires its keys, and confirms or destroys.
    Retire(bool),
}

const SITES: [&str; 3] = ["main", "north", "south"];

/// What sites append, one list for each, with the keys that processes make: after each retiring, new ones.
fn logs(acts: &[Vec<Act>]) -> Vec<Vec<(Envelope, Bytes)>> {
    let mut logs = Vec::new();
    for (at, (site, acts)) in SITES.iter().zip(acts).enumerate() {
        let (mut retired, mut log) = (0, Vec::new());
        for (n, act) in acts.iter().enumerate() {
            let (number, key_of) =
                ((at * 100 + n) as u128, |which: u8| key((at * 1000 + retired * 10) as u128 + u128::from(which)));
            log.push(match act {
                Act::Store(patient) => of_site(site, stored(number, Some(key_of(*patient)))),
                Act::Correct => of_site(site, corrected(number, key_of(9))),
                Act::Retire(confirms) => {
                    retired += 1;
                    if *confirms { confirmed(number, site) } else { destroyed(number, site) }
                }
            });
        }
        logs.push(log);
    }
    logs
}

fn acts() -> impl Strategy<Value = Vec<Vec<Act>>> {
    let act = prop_oneof![
        4 => (0_u8..2).prop_map(Act::Store),
        1 => Just(Act::Correct),
        2 => any::<bool>().prop_map(Act::Retire),
    ];
    prop::collection::vec(prop::collection::vec(act, 0..8), SITES.len())
}

proptest! {
    /// Of each site a part is known, all of that is erased, and then the rest comes: nothing of it is under a key that went.
    #[test]
    fn no_live_version_anywhere_is_under_a_key_that_goes(
        acts in acts(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), SITES.len()),
    ) {
        let logs = logs(&acts);
        let (mut here, mut to_come) = (Vec::new(), Vec::new());
        for (log, cut) in logs.iter().zip(cuts) {
            let (known, unknown) = log.split_at(cut.index(log.len() + 1));
            here.extend_from_slice(known);
            to_come.extend_from_slice(unknown);
        }
        let versions = |events: &[(Envelope, Bytes)]| -> Vec<u128> {
            let stored = events.iter().filter(|(envelope, _)| envelope.kind.starts_with("cairn.instance.stored"));
            stored.map(|(envelope, _)| envelope.id.0.as_u128()).collect()
        };
        let all = versions(&here);
        here.push(of_site("judge", erased(5_000, &all)));
        let verdict = |events: &[(Envelope, Bytes)]| {
            let event = VersionsErased { series: series(&all), ..VersionsErased::default() };
            known(events.iter()).judge(id(6_000), &event, &BTreeSet::new())
        };
        let gone: Vec<KeyId> = judged_keys(&verdict(&here)).collect();
        for (envelope, payload) in &to_come {
            let keys = keys_of(&envelope.kind, payload);
            prop_assert!(!keys.iter().any(|key| gone.contains(key)), "{envelope:?} is under a key that went");
        }
        // Once everybody is back and has said so, nothing of what is erased keeps a key.
        let said = SITES.iter().map(|site| destroyed(99, site)).map(|(envelope, payload)| {
            let offset = Hlc { wall_ms: 9_000, counter: 0 };
            (Envelope { hlc: offset, ..envelope }, payload)
        });
        let whole: Vec<_> = here.iter().chain(&to_come).cloned().chain(said).collect();
        let keys = known(whole.iter());
        let live = versions(&to_come);
        for kept in verdict(&whole).kept {
            let needed_by = EventId::from_slice(&kept.needed_by_event_id).unwrap();
            prop_assert!(live.contains(&needed_by.0.as_u128()), "{:?}", keys.needed_by(KeyId::from_slice(&kept.key_id).unwrap(), &BTreeSet::new()));
        }
    }
}
