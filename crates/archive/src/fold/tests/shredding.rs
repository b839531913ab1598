//! Keys of a study are destroyed: what was folded before comes to the same as what is folded after.

use super::*;
use crate::events::KeysJudged;

/// An event as it is read once its key is destroyed.
fn shredded(event: &Event) -> Event {
    let key_id = "00000000-0000-0000-0000-000000000001".to_owned();
    match event.clone() {
        Event::InstanceStored(stored) => {
            Event::InstanceStored(Box::new(InstanceStored { key_id, protected: Bytes::new(), ..*stored }))
        }
        Event::AttributesCorrected(corrected) => {
            Event::AttributesCorrected(Box::new(AttributesCorrected { key_id, protected: Bytes::new(), ..*corrected }))
        }
        Event::CorrectionRevoked(revoked) => {
            Event::CorrectionRevoked(Box::new(CorrectionRevoked { key_id, reason: Bytes::new(), ..*revoked }))
        }
        other => other,
    }
}

/// Everything that was stored is erased, and its keys go.
fn gone(events: &[(EventOrder, Event)]) -> [(EventOrder, Event); 2] {
    let mut named: BTreeMap<(&str, &str), Vec<ErasedVersion>> = BTreeMap::new();
    for (order, event) in events {
        if let Event::InstanceStored(stored) = event {
            let store_event_id = Bytes::copy_from_slice(order.id.as_bytes());
            let identity = (stored.series_instance_uid.as_str(), stored.sop_instance_uid.as_str());
            named.entry(identity).or_default().push(ErasedVersion { store_event_id, object_keys: Vec::new() });
        }
    }
    let series = named.into_iter().map(|((series, instance), versions)| ErasedSeries {
        series_instance_uid: series.into(),
        instances: vec![ErasedInstance { sop_instance_uid: instance.into(), versions, repeat_event_ids: Vec::new() }],
    });
    let erased = VersionsErased {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        erasure_event_id: Bytes::copy_from_slice(event_id(1_999).as_bytes()),
        series: series.collect(),
        ..VersionsErased::default()
    };
    let corrections = events.iter().filter(|(_, event)| matches!(event, Event::AttributesCorrected(_)));
    let judged = KeysJudged {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        versions_erased_event_id: Bytes::copy_from_slice(event_id(2_000).as_bytes()),
        correction_event_ids: corrections.map(|(order, _)| Bytes::copy_from_slice(order.id.as_bytes())).collect(),
        ..KeysJudged::default()
    };
    let erased = Event::VersionsErased(Box::new(erased));
    [(order(100, 2_000), erased), (order(101, 2_001), Event::KeysJudged(judged))]
}

/// What all that was folded comes to: S and E of the study, and what each instance is.
#[derive(Debug, PartialEq)]
struct Outcome {
    state: Option<[u8; 32]>,
    events: Option<HashSum>,
    instances: Vec<Option<[u8; 32]>>,
}

fn outcome(rows: &Rows) -> Outcome {
    let study = rows.study.as_ref();
    let instances = rows.instances.iter();
    let hash = |(identity, state): (&Identity, &InstanceState)| {
        state.hash(identity.series.as_str(), identity.instance.as_str())
    };
    Outcome {
        state: study.map(|study| study.hash(&key())),
        events: study.map(|study| study.events),
        instances: instances.map(hash).collect(),
    }
}

fn folded(batches: &[&[(EventOrder, Event)]]) -> Rows {
    let mut rows = Rows::default();
    batches.iter().for_each(|batch| rows.fold(batch));
    rows.check_counts();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn keys_that_go_leave_the_same_before_and_after(
        events in (events(), rejections(), conditions(), corrections()).prop_map(
            |(events, rejections, conditions, corrections)| [events, rejections, conditions, corrections].concat(),
        ),
        middle in any::<prop::sample::Index>(),
    ) {
        let gone = gone(&events);
        let rebuilt: Vec<_> = events.iter().map(|(order, event)| (order.clone(), shredded(event))).collect();
        let live = folded(&[&events, &gone]);
        prop_assert_eq!(outcome(&live), outcome(&folded(&[&rebuilt, &gone])));
        // What was still read when it was said to go, and comes late.
        prop_assert_eq!(outcome(&live), outcome(&folded(&[&gone, &events])));
        // Keys go while it is folded.
        let (before, _) = events.split_at(middle.index(events.len()));
        let (_, after) = rebuilt.split_at(before.len());
        prop_assert_eq!(outcome(&live), outcome(&folded(&[before, after, &gone])));
        let state = format!("{:?} {:?}", live.study, live.series);
        prop_assert!(!["ANNA", "BERT", "description"].iter().any(|text| state.contains(text)), "{}", state);
        prop_assert!(live.study.is_none_or(|study| study.corrections.said.is_empty()));
    }
}
