use super::*;
use crate::{
    events::{ErasedInstance, ErasedSeries, ErasedVersion, OriginEnd, SitePromoted},
    hlc::Hlc,
    position::{Incarnation, Offset, Partition},
};
use proptest::prelude::*;

fn id(n: u128) -> EventId {
    EventId(uuid::Uuid::from_u128(n))
}

fn bytes(n: u128) -> Bytes {
    Bytes::copy_from_slice(id(n).as_bytes())
}

type Said = (Envelope, Position, Bytes);

fn said(n: u128, site: &str, event: &Event) -> Said {
    let site: SiteId = site.parse().unwrap();
    let envelope = Envelope {
        id: id(n),
        kind: event.kind().into(),
        site: site.clone(),
        study_instance_uid: event.study_instance_uid().to_owned(),
        tenant: event.tenant().to_owned(),
        hlc: Hlc { wall_ms: 1_000 + n as u64, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    let position = Position { site, incarnation: Incarnation(1), partition: Partition(0), offset: Offset(n as u64) };
    (envelope, position, event.encode())
}

fn series() -> Vec<ErasedSeries> {
    let version = ErasedVersion { store_event_id: bytes(90), object_keys: vec![bytes(91)] };
    let instance =
        ErasedInstance { sop_instance_uid: "1.4".into(), versions: vec![version], repeat_event_ids: Vec::new() };
    vec![ErasedSeries { series_instance_uid: "1.3".into(), instances: vec![instance] }]
}

fn requested(under: Option<u128>) -> Event {
    Event::ErasureRequested(Box::new(ErasureRequested {
        tenant: "default".into(),
        study_instance_uid: "1.2".into(),
        promotion_event_id: under.map(bytes).unwrap_or_default(),
        series: series(),
        delay_ms: 5,
        requested_by: "operator".into(),
        ..ErasureRequested::default()
    }))
}

fn withdrawn(of: u128, under: Option<u128>) -> Event {
    Event::ErasureWithdrawn(ErasureWithdrawn {
        erasure_event_id: bytes(of),
        promotion_event_id: under.map(bytes).unwrap_or_default(),
        withdrawn_by: "operator".into(),
        ..ErasureWithdrawn::default()
    })
}

fn confirmed(of: u128, site: &str) -> Event {
    let holds = vec![OriginEnd { site: "east".into(), incarnation: 1, partition: 0, end: 9 }];
    Event::ErasureConfirmed(ErasureConfirmed {
        erasure_event_id: bytes(of),
        site: site.into(),
        holds,
        ..ErasureConfirmed::default()
    })
}

fn erased(of: u128) -> Event {
    Event::VersionsErased(Box::new(VersionsErased {
        erasure_event_id: bytes(of),
        series: series(),
        ..VersionsErased::default()
    }))
}

fn destroyed(of: u128, site: &str) -> Event {
    Event::ObjectsDestroyed(ObjectsDestroyed {
        versions_erased_event_id: bytes(of),
        site: site.into(),
        objects: 1,
        bytes: 100,
        ..ObjectsDestroyed::default()
    })
}

fn promoted(site: &str, epoch: u64) -> Event {
    Event::SitePromoted(SitePromoted { site: site.into(), epoch, ..SitePromoted::default() })
}

fn folded(all: &[Said]) -> (Erasures, Authority) {
    let (mut erasures, mut authority) = (Erasures::default(), Authority::default());
    for (envelope, position, payload) in all {
        erasures.include(envelope, position, payload.clone());
        authority.include(envelope, position, payload.clone()).unwrap();
    }
    (erasures, authority)
}

fn stage(all: &[Said]) -> Stage {
    let (erasures, authority) = folded(all);
    erasures.get(id(1)).map_or(Stage::Unknown, |erasure| erasure.stage(&authority))
}

#[test]
fn an_erasure_goes_on_from_its_request_until_it_took_effect() {
    let mut all = vec![said(1, "east", &requested(None))];
    assert_eq!(stage(&all), Stage::Requested);
    all.push(said(2, "east", &confirmed(1, "east")));
    all.push(said(3, "west", &confirmed(1, "east")));
    let (erasures, authority) = folded(&all);
    let erasure = erasures.get(id(1)).unwrap();
    assert_eq!(
        erasure.confirmed().keys().map(SiteId::as_str).collect::<Vec<_>>(),
        ["east"],
        "nobody says it for another"
    );
    assert_eq!(erasure.confirmed().values().next().unwrap().holds.0.len(), 1);
    assert_eq!(erasure.stage(&authority), Stage::Requested);
    all.push(said(4, "east", &erased(1)));
    assert_eq!(stage(&all), Stage::Erased);
    let (east, west): (SiteId, SiteId) = ("east".parse().unwrap(), "west".parse().unwrap());
    all.push(said(5, "east", &destroyed(4, "east")));
    let (erasures, _) = folded(&all);
    let erasure = erasures.get(id(1)).unwrap();
    assert!(erasure.not_destroyed(&east).is_empty());
    assert_eq!(erasure.not_destroyed(&west), [id(4)]);
    assert_eq!(erasure.destroyed()[&east].bytes, 100);
}

fn judged(of: u128) -> Event {
    Event::KeysJudged(KeysJudged { versions_erased_event_id: bytes(of), ..KeysJudged::default() })
}

fn follows(of: u128, (envelope, position, payload): Said) -> Said {
    (Envelope { causation_id: Some(id(of)), ..envelope }, position, payload)
}

#[test]
fn keys_are_judged_once_and_again_for_each_site_that_is_back() {
    let east_confirmed = Event::VersionsErased(Box::new(VersionsErased {
        confirmation_event_ids: vec![bytes(2)],
        erasure_event_id: bytes(1),
        series: series(),
        ..VersionsErased::default()
    }));
    let mut all = vec![
        said(1, "east", &requested(None)),
        said(2, "east", &confirmed(1, "east")),
        said(4, "east", &east_confirmed),
        said(5, "east", &destroyed(4, "east")),
    ];
    let took_part = |all: &[Said]| {
        let erasures = folded(all).0;
        let sites = erasures.of(id(4)).unwrap().took_part(id(4));
        sites.into_iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let to_judge = |all: &[Said]| folded(all).0.keys_to_judge().collect::<Vec<_>>();
    assert_eq!(to_judge(&all), [(id(4), id(4))]);
    all.push(follows(4, said(6, "east", &judged(4))));
    assert!(to_judge(&all).is_empty(), "once, and not for who confirmed it in time");
    // West was declared dead, is back, and confirms too late.
    all.push(said(7, "west", &confirmed(1, "west")));
    assert_eq!(took_part(&all), ["east"]);
    all.push(said(8, "west", &destroyed(4, "west")));
    assert_eq!(to_judge(&all), [(id(4), id(8))]);
    all.push(follows(8, said(9, "east", &judged(4))));
    assert!(to_judge(&all).is_empty());
    assert_eq!(took_part(&all), ["east", "west"]);
    all.reverse();
    assert!(to_judge(&all).is_empty(), "in any order");
}

#[test]
fn what_was_withdrawn_or_decided_in_an_older_epoch_does_not_go_on_but_what_took_effect_did() {
    let request = said(1, "east", &requested(None));
    let withdrawal = said(2, "east", &withdrawn(1, None));
    assert_eq!(stage(&[request.clone(), withdrawal.clone()]), Stage::Withdrawn);
    // A promoted site that holds neither.
    let west = said(3, "west", &promoted("west", 1));
    assert_eq!(stage(&[request.clone(), west.clone()]), Stage::Void);
    let effect = said(4, "east", &erased(1));
    assert_eq!(stage(&[request, withdrawal, west, effect]), Stage::Erased);
}

#[test]
fn what_cannot_be_read_is_remembered() {
    let mut newer = said(1, "east", &requested(None));
    newer.0.kind = "cairn.erasure.requested.v9".into();
    let mut erasures = Erasures::default();
    erasures.include(&newer.0, &newer.1, newer.2);
    assert_eq!(erasures.unreadable().collect::<Vec<_>>(), [id(1)]);
}

proptest! {
    /// I11, I12
    #[test]
    fn order_and_repetition_change_nothing(order in Just((0..9).collect::<Vec<usize>>()).prop_shuffle(), again in 0..9_usize) {
        let all = [
            said(1, "east", &requested(None)),
            said(2, "east", &confirmed(1, "east")),
            said(3, "west", &confirmed(1, "west")),
            said(4, "west", &confirmed(1, "west")),
            said(5, "east", &erased(1)),
            said(6, "east", &destroyed(5, "east")),
            said(7, "west", &destroyed(5, "west")),
            said(8, "west", &destroyed(5, "west")),
            said(9, "west", &withdrawn(1, None)),
        ];
        let mut shuffled: Vec<_> = order.iter().map(|at| all[*at].clone()).collect();
        shuffled.push(all[again].clone());
        prop_assert_eq!(folded(&shuffled).0, folded(&all).0);
    }
}
