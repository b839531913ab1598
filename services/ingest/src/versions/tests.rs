use super::*;
use cairn_archive::ObjectKey;
use uuid::Uuid;

fn uid(text: &str) -> Uid {
    text.parse().expect("a UID")
}

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

/// A version of instance 1.2.3.4 with content `n`, stored as event `n`.
fn version(n: u8) -> Version {
    Version {
        study_instance_uid: uid("1.2"),
        series_instance_uid: uid("1.2.3"),
        object: ObjectRef { key: ObjectKey(Uuid::from_u128(n.into())), length: 1, digest: digest(n) },
        data_set_offset: 0,
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
        store_event: EventId(Uuid::from_u128(n.into())),
        position: None,
        calling_ae_title: Some("CT1".into()),
        issuer_of_patient_id: "EAST".into(),
        shown: false,
        live: true,
    }
}

fn elsewhere(n: u8) -> Version {
    Version { study_instance_uid: uid("1.9"), ..version(n) }
}

struct Given(Vec<Version>);

impl Given {
    fn when(&self, n: u8, source: (&str, &str), policy: ResendPolicy) -> Relation {
        let identity = Identity {
            study_instance_uid: uid("1.2"),
            series_instance_uid: uid("1.2.3"),
            sop_instance_uid: uid("1.2.3.4"),
            sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2"),
        };
        let source = Source { calling_ae_title: source.0, issuer_of_patient_id: source.1 };
        relate(&identity, digest(n), &self.0, source, policy)
    }
}

const CT1: (&str, &str) = ("CT1", "EAST");
const CT2: (&str, &str) = ("CT2", "WEST");

#[test]
fn nothing_known_is_new_and_something_in_another_study_is_told() {
    assert_eq!(Given(vec![]).when(1, CT1, ResendPolicy::Keep), Relation::New);
    assert_eq!(Given(vec![elsewhere(1)]).when(2, CT1, ResendPolicy::Keep), Relation::Elsewhere);
}

#[test]
fn the_same_bytes_are_found_among_many_versions_whatever_the_policy() {
    let given = Given(vec![version(1), elsewhere(4), version(3)]);
    for policy in [ResendPolicy::Keep, ResendPolicy::SupersedeSameSource, ResendPolicy::Refuse] {
        assert_eq!(given.when(3, CT2, policy), Relation::SameBytes(Box::new(version(3))));
    }
}

#[test]
fn other_bytes_are_shown_only_from_the_same_source_and_where_the_policy_says_so() {
    // Known in no order; told in event order, without those of other studies.
    let given = Given(vec![version(3), elsewhere(2), version(1)]);
    let shown = |source, policy| match given.when(9, source, policy) {
        Relation::OtherBytes { earlier, shown } => {
            assert_eq!(earlier, [version(1), version(3)]);
            shown
        }
        other => panic!("{other:?}"),
    };
    assert!(!shown(CT1, ResendPolicy::Keep) && !shown(CT1, ResendPolicy::Refuse));
    assert!(shown(CT1, ResendPolicy::SupersedeSameSource));
    assert!(shown(("CT2", "EAST"), ResendPolicy::SupersedeSameSource), "the issuer is enough");
    assert!(!shown(CT2, ResendPolicy::SupersedeSameSource));
    assert!(!shown(("", ""), ResendPolicy::SupersedeSameSource), "nothing is no source");
}

#[test]
fn what_is_remembered_and_what_is_indexed_are_one_list() {
    let indexed = Version { calling_ae_title: None, shown: true, ..version(1) };
    let joined = join(vec![version(1), version(2)], vec![indexed]);
    assert_eq!(joined.len(), 2);
    assert_eq!((joined[0].calling_ae_title.as_deref(), joined[0].shown), (Some("CT1"), true));
}

#[test]
fn memory_of_recent_stores_is_bounded_and_the_oldest_goes_first() {
    let recent = Recent::new(3);
    let key = |n: u8| ("default".to_owned(), uid(&format!("1.{n}")));
    recent.remember(key(1), version(1));
    recent.remember(key(1), version(2));
    recent.remember(key(2), version(3));
    recent.remember(key(3), version(4));
    assert_eq!(recent.get(&key(1)), [version(2)]);
    recent.remember(key(3), version(5));
    assert_eq!((recent.get(&key(1)), recent.get(&key(3)).len()), (vec![], 2));
    let none = Recent::new(0);
    none.remember(key(1), version(1));
    assert_eq!(none.get(&key(1)), []);
}
