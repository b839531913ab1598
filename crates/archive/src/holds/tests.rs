use super::*;
use crate::{
    events::SitePromoted,
    hlc::Hlc,
    position::{Incarnation, Offset, Partition},
};
use proptest::prelude::*;

fn event_id(n: u128) -> EventId {
    EventId(uuid::Uuid::from_u128(n))
}

fn hold_id(n: u128) -> Bytes {
    Bytes::copy_from_slice(event_id(n).as_bytes())
}

/// An event as the first in the log of a site, or after it.
fn record(n: u128, site: &str, event: &Event) -> (Envelope, Position, Bytes) {
    let site: SiteId = site.parse().unwrap();
    let envelope = Envelope {
        id: event_id(n),
        kind: event.kind().into(),
        site: site.clone(),
        study_instance_uid: String::new(),
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

fn placed(hold: u128, studies: &[&str], patient: Option<(&str, Option<&str>)>) -> Event {
    let patient = patient
        .map(|(id, issuer)| HeldPatient { patient_id: id.into(), issuer_of_patient_id: issuer.map(str::to_owned) });
    Event::HoldPlaced(HoldPlaced {
        tenant: "default".into(),
        hold_id: hold_id(hold),
        study_instance_uids: studies.iter().map(|study| (*study).to_owned()).collect(),
        placed_by: "operator".into(),
        key_id: String::new(),
        protected: HoldProtected { patient, query: String::new(), reason: "why".into() }.encode_to_vec().into(),
    })
}

fn merged(prior: &str, surviving: &str) -> Event {
    let named = |id: &str| crate::events::NamedPatient { patient_id: id.into(), issuer_of_patient_id: "H".into() };
    let patients = vec![named(prior), named(surviving)];
    let protected = crate::events::PatientProtected { patients, ..Default::default() }.encode_to_vec().into();
    Event::PatientsMerged(crate::events::PatientsMerged { tenant: "default".into(), protected, ..Default::default() })
}

#[test]
fn a_hold_of_a_patient_holds_the_studies_of_those_merged_with_it() {
    let mut holds = Holds::default();
    let whose = |id: &str| PatientIdentity { issuer: "H".into(), id: id.into() };
    let (study, mut patients) = ("1.2", Patients::default());
    patients.add(Named::Patient(whose("OLD")));
    let authority = Authority::default();
    for (n, event) in [(1, placed(7, &[], Some(("NEW", Some("H"))))), (2, merged("OLD", "NEW"))] {
        assert_eq!(holds.held(&authority, "default", study, &patients), None);
        assert_eq!(holds.lookup(&authority, "default").held(study, &[whose("OLD")]), None);
        let (envelope, position, payload) = record(n, "east", &event);
        holds.include(&envelope, &position, payload);
    }
    let id = HoldId::from_slice(&hold_id(7)).unwrap();
    assert_eq!(holds.held(&authority, "default", study, &patients), Some(HeldBy::Hold(id)));
    assert_eq!(holds.lookup(&authority, "default").held(study, &[whose("OLD")]), Some(HeldBy::Hold(id)));
    assert_eq!(holds.lookup(&authority, "default").held(study, &[whose("OTHER")]), None);
    let mut other = Patients::default();
    other.add(Named::Patient(whose("OTHER")));
    assert_eq!(holds.held(&authority, "default", study, &other), None);
}

fn released(hold: u128, under: Option<u128>) -> Event {
    Event::HoldReleased(HoldReleased {
        tenant: "default".into(),
        hold_id: hold_id(hold),
        promotion_event_id: under.map(hold_id).unwrap_or_default(),
        ..HoldReleased::default()
    })
}

fn promoted(site: &str, epoch: u64) -> Event {
    Event::SitePromoted(SitePromoted { site: site.into(), epoch, ..SitePromoted::default() })
}

fn folded(records: &[(Envelope, Position, Bytes)]) -> (Holds, Authority) {
    let (mut holds, mut authority) = (Holds::default(), Authority::default());
    for (envelope, position, payload) in records {
        holds.include(envelope, position, payload.clone());
        authority.include(envelope, position, payload.clone()).unwrap();
    }
    (holds, authority)
}

fn is_held(records: &[(Envelope, Position, Bytes)], study: &str, patients: &[Named]) -> bool {
    let (holds, authority) = folded(records);
    let mut all = Patients::default();
    patients.iter().for_each(|named| all.add(named.clone()));
    holds.held(&authority, "default", study, &all).is_some()
}

fn patient(id: &str, issuer: &str) -> Named {
    Named::Patient(PatientIdentity { issuer: issuer.into(), id: id.into() })
}

#[test]
fn a_hold_holds_its_studies_and_all_of_its_patient() {
    let of_studies = [record(1, "east", &placed(7, &["1.2", "1.3"], None))];
    assert!(is_held(&of_studies, "1.2", &[]) && is_held(&of_studies, "1.3", &[]) && !is_held(&of_studies, "1.4", &[]));
    let of_anybodys = [record(1, "east", &placed(7, &[], Some(("ID1 ", None))))];
    assert!(is_held(&of_anybodys, "1.4", &[patient("ID2", "A"), patient("ID1", "B")]));
    assert!(!is_held(&of_anybodys, "1.4", &[patient("ID2", "A"), Named::Nobody]));
    let of_one = [record(1, "east", &placed(7, &[], Some(("ID1", Some("A")))))];
    assert!(is_held(&of_one, "1.4", &[patient("ID1", "A")]) && !is_held(&of_one, "1.4", &[patient("ID1", "B")]));
    assert!(is_held(&of_one, "1.4", &[Named::Unknown]), "it may be that patient");
    assert!(!is_held(&of_studies, "1.4", &[Named::Unknown]), "no patient is held");
    let (holds, authority) = folded(&of_studies);
    assert_eq!(holds.held(&authority, "other", "1.2", &Patients::default()), None, "another tenant");
}

#[test]
fn what_cannot_be_read_holds_everything() {
    let mut encrypted = placed(7, &[], None);
    if let Event::HoldPlaced(event) = &mut encrypted {
        event.key_id = "a key".into();
    }
    assert!(is_held(&[record(1, "east", &encrypted)], "1.9", &[]));
    let mut newer = record(1, "east", &placed(7, &["1.2"], None));
    newer.0.kind = "cairn.hold.placed.v9".into();
    let mut holds = Holds::default();
    holds.include(&newer.0, &newer.1, newer.2);
    let held = holds.held(&Authority::default(), "default", "1.9", &Patients::default());
    assert_eq!(held, Some(HeldBy::Unreadable(event_id(1))));
}

#[test]
fn a_release_of_an_older_epoch_that_the_promoted_site_does_not_hold_is_void() {
    let hold = record(1, "east", &placed(7, &["1.2"], None));
    let east = record(2, "east", &promoted("east", 1));
    let release = record(3, "east", &released(7, Some(2)));
    assert!(!is_held(&[hold.clone(), east.clone(), release.clone()], "1.2", &[]));
    // West took authority and holds nothing of east.
    let west = record(4, "west", &promoted("west", 2));
    let all = [hold, east, release, west];
    assert!(is_held(&all, "1.2", &[]));
    let again = record(5, "west", &released(7, Some(4)));
    assert!(!is_held(&[&all[..], &[again]].concat(), "1.2", &[]));
}

proptest! {
    /// I11, I12
    #[test]
    fn order_and_repetition_change_nothing(order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(), again in 0..8_usize) {
        let records = [
            record(1, "east", &placed(7, &["1.2"], None)),
            record(2, "west", &placed(7, &["1.3"], Some(("ID1", None)))),
            record(3, "west", &placed(8, &["1.4"], None)),
            record(4, "east", &promoted("east", 1)),
            record(5, "east", &released(7, Some(4))),
            record(6, "west", &released(8, None)),
            record(7, "west", &promoted("west", 2)),
            record(8, "west", &placed(9, &[], Some(("ID2", Some("A"))))),
        ];
        let mut shuffled: Vec<_> = order.iter().map(|at| records[*at].clone()).collect();
        shuffled.push(records[again].clone());
        prop_assert_eq!(folded(&shuffled).0, folded(&records).0);
    }
}

#[test]
fn a_look_up_says_what_the_fold_says() {
    let records = [
        record(1, "east", &placed(1, &["1.2"], None)),
        record(2, "east", &placed(2, &[], Some(("ID1", None)))),
        record(3, "east", &placed(3, &[], Some(("ID2", Some("EAST"))))),
        record(4, "east", &placed(4, &["1.4"], None)),
        record(5, "east", &released(4, None)),
    ];
    let (holds, authority) = folded(&records);
    let lookup = holds.lookup(&authority, "default");
    let identity = |id: &str, issuer: &str| PatientIdentity { issuer: issuer.into(), id: id.into() };
    for (study, of) in [
        ("1.2", vec![]),
        ("1.3", vec![identity("ID1 ", "WEST")]),
        ("1.3", vec![identity("ID3", ""), identity("ID2", "EAST")]),
        ("1.3", vec![identity("ID2", "WEST")]),
        ("1.4", vec![]),
    ] {
        let mut patients = Patients::default();
        of.iter().for_each(|patient| patients.add(Named::Patient(patient.clone())));
        let held = holds.held(&authority, "default", study, &patients);
        assert_eq!(lookup.held(study, &of), held, "{study} {of:?}");
    }
    assert_eq!(holds.lookup(&authority, "another").held("1.2", &[]), None);
}
