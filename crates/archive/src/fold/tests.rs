mod shredding;

use super::*;
use crate::{
    digest::HashSum,
    events::{
        AttributesCorrected, Comparison, CorrectionProtected, CorrectionRevoked, ErasedInstance, ErasedSeries,
        ErasedVersion, ErasureRequested, Event, EventRepaired, InstanceProtected, InstanceReceivedAgain,
        InstanceStored, InstancesRejected, Object, ObjectDamaged, ObjectRepaired, Receipt, ReceiptClosed,
        RejectedInstance, RejectedSeries, RejectionNote, RejectionRevoked, Replacement, ResendPolicy, RevokedSeries,
        SenderProfile, VersionChosen, VersionsCompared, VersionsErased, event_repaired,
    },
    hlc::Hlc,
    ids::EventId,
    rejection::{RejectionTitle, Titles},
};
use bytes::Bytes;
use cairn_dicom::{CharacterSet, dataset::DataSet, tags, transfer_syntax::Encoding};
use proptest::prelude::*;
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};

const STUDY: &str = "1.2.3";

fn key() -> StudyKey {
    StudyKey { tenant: "default".into(), study_instance_uid: STUDY.into() }
}

fn event_id(n: u64) -> EventId {
    format!("018f4d2e-9c3a-7000-8000-{n:012x}").parse().expect("valid")
}

fn order(at: u64, n: u64) -> EventOrder {
    let site = if n.is_multiple_of(2) { "east" } else { "west" };
    EventOrder { hlc: Hlc { wall_ms: at, counter: 0 }, site: site.parse().expect("valid"), id: event_id(n) }
}

/// What an instance's sender says of it.
#[derive(Clone, Debug)]
struct Said {
    series: u8,
    instance: u8,
    content: u8,
    patient: &'static str,
    description: String,
    modality: &'static str,
    policy: ResendPolicy,
    ae: &'static str,
}

fn header(said: &Said) -> Vec<u8> {
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_NAME, &format!("{}^NAME", said.patient));
    if !said.patient.is_empty() {
        set.put_text(tags::PATIENT_ID, said.patient);
    }
    set.put_text(tags::STUDY_DESCRIPTION, &said.description);
    set.put_text(tags::MODALITY, said.modality);
    set.put_text(tags::INSTANCE_NUMBER, &said.instance.to_string());
    set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).expect("encodes")
}

fn stored(n: u64, said: &Said) -> Event {
    let protected = InstanceProtected { header: header(said).into(), extractor_version: 1 };
    Event::InstanceStored(Box::new(InstanceStored {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series_instance_uid: format!("1.2.3.{}", said.series),
        sop_instance_uid: format!("1.2.3.9.{}", said.instance),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        object: Some(Object {
            key: event_id(n + 1_000_000).as_bytes().to_vec().into(),
            length_bytes: 100,
            blake3: vec![said.content; 32].into(),
        }),
        receipt: Some(Receipt { calling_ae_title: said.ae.into(), ..Receipt::default() }),
        sender_profile: Some(SenderProfile {
            issuer_of_patient_id: "HOSP".into(),
            resend_policy: said.policy.into(),
            ..SenderProfile::default()
        }),
        protected: protected.encode_to_vec().into(),
        ..InstanceStored::default()
    }))
}

/// Rows of one study, as an index store would hold them between batches.
#[derive(Clone, Debug, Default)]
struct Rows {
    study: Option<StudyState>,
    series: BTreeMap<String, SeriesState>,
    instances: BTreeMap<Identity, InstanceState>,
    traces: HashSet<EventId>,
    headers: HashMap<EventId, Bytes>,
}

impl Rows {
    fn fold(&mut self, batch: &[(EventOrder, Event)]) {
        let mut needs = Needs::default();
        batch.iter().for_each(|(order, event)| needs.add(order.id, event));
        let series: HashSet<&str> = needs.identities.iter().map(|identity| identity.series.as_str()).collect();
        let loaded = Loaded {
            study: self.study.clone(),
            torn: false,
            series: (self.series.iter())
                .filter(|(uid, _)| series.contains(uid.as_str()))
                .map(|(uid, state)| (uid.parse().expect("valid"), state.clone()))
                .collect(),
            instances: (self.instances.iter())
                .filter(|(identity, _)| needs.identities.contains(identity))
                // As the index does: without a row of its series an instance has none.
                .filter(|(identity, _)| self.series.contains_key(identity.series.as_str()))
                .map(|(identity, state)| (identity.clone(), state.clone()))
                .collect(),
            traces: self.traces.intersection(&needs.traces.iter().copied().collect()).copied().collect(),
        };
        let mut fold = StudyFold::new(key(), loaded);
        for (order, event) in batch {
            if fold.apply(order.clone(), Stamp(1), event.clone()) == Err(Poison::Encrypted) {
                assert!(is_poison(order.id), "only that is poison");
            }
        }
        let change = if fold.needs_rescan() { self.rescan(fold.rescan()) } else { fold.finish() };
        let Some(change) = change else { return };
        self.study = Some(change.after);
        for series in change.series {
            self.headers.extend(series.pending.into_iter().map(|pending| (pending.id, pending.header)));
            self.series.insert(series.uid.to_string(), series.after);
        }
        self.instances.extend(change.instances.into_iter().map(|change| (change.identity, change.state)));
        self.traces.extend(change.traces.iter().map(|trace| trace.order.id));
    }

    fn rescan(&self, mut rescan: Rescan) -> Option<StudyChange> {
        for (uid, state) in &self.series {
            rescan.add_series(uid.parse().expect("valid"), state.clone());
        }
        let all: Vec<(Identity, InstanceState)> =
            self.instances.iter().map(|(identity, state)| (identity.clone(), state.clone())).collect();
        let left = rescan.left().into_iter().map(|identity| (identity, InstanceState::default()));
        for (identity, stored) in all.into_iter().chain(left) {
            let Some(version) = rescan.shown(&identity, &stored) else { continue };
            let stored = || self.headers.get(&version.said_by()).cloned();
            let header = rescan.header(&version).or_else(stored).expect("a header is somewhere");
            rescan.tell(&identity, &version, &header);
        }
        rescan.finish()
    }

    /// Counts are those of what is shown and hidden.
    fn check_counts(&self) {
        let study = self.study.clone().unwrap_or_default();
        let states = || self.instances.values();
        assert_eq!(study.shown, states().filter(|state| state.shown().is_some()).count() as u64);
        assert_eq!(study.hidden, states().filter(|state| state.is_hidden()).count() as u64);
        assert_eq!(study.versions, states().map(|state| state.versions().len() as u64).sum::<u64>());
        assert_eq!(study.bytes, study.versions * 100);
        let senders = states().filter_map(InstanceState::shown).map(|version| version.calling_ae_title.clone());
        assert_eq!(study.senders, senders.filter(|sender| !sender.is_empty()).collect());
        assert_eq!(study.series, self.series.values().filter(|series| series.shown > 0).count() as u64);
        for version in states().filter_map(InstanceState::shown) {
            assert!(states().any(|state| state.shown() == Some(version) && state.titles(version).is_empty()));
        }
    }

    /// All that must not depend on how events arrived.
    fn canonical(&self) -> (Option<[u8; 32]>, HashSum, String) {
        let study = self.study.clone().unwrap_or_default();
        let mut text = format!(
            "{:?}",
            (study.attributes.variants(), study.series, study.shown, study.versions, study.hidden, &study.modalities)
        );
        for (uid, series) in &self.series {
            text += &format!("{uid} {:?} {} {}", series.attributes.variants(), series.shown, series.versions);
        }
        for (identity, state) in &self.instances {
            text += &format!("{identity:?} {state:?}");
        }
        (self.study.as_ref().map(|study| study.hash(&key())), study.events, text)
    }
}

fn said() -> impl Strategy<Value = Said> {
    (
        (0..3_u8, 0..4_u8, 0..3_u8),
        prop::sample::select(vec!["", "ANNA", "BERT"]),
        0..30_u32,
        prop::sample::select(vec!["CT", "MR"]),
        prop::sample::select(vec![ResendPolicy::Keep, ResendPolicy::SupersedeSameSource, ResendPolicy::Refuse]),
        prop::sample::select(vec!["ONE", "TWO", ""]),
    )
        .prop_map(|((series, instance, content), patient, description, modality, policy, ae)| Said {
            series,
            instance,
            content,
            patient,
            // More variants than are kept, some too long to keep.
            description: format!("description {description} {}", "x".repeat(description as usize * 60)),
            modality,
            policy,
            ae,
        })
}

/// The events that can't be folded have numbers of their own.
const POISONED: std::ops::Range<u64> = 900..904;

fn is_poison(id: EventId) -> bool {
    POISONED.map(event_id).any(|poison| poison == id)
}

/// When a poisoned event happened.
fn poisoned_at(n: u64) -> u64 {
    (n - POISONED.start) * 5
}

fn poisoned(n: u64, said: &Said) -> (EventOrder, Event) {
    let Event::InstanceStored(mut event) = stored(n, said) else { unreachable!() };
    event.key_id = "k".into();
    (order(poisoned_at(n), n), Event::InstanceStored(event))
}

fn repaired(event: &EventOrder, remedy: event_repaired::Remedy) -> Event {
    Event::EventRepaired(Box::new(EventRepaired {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        event_id: Bytes::copy_from_slice(event.id.as_bytes()),
        event_site: event.site.to_string(),
        event_wall_ms: event.hlc.wall_ms,
        event_counter: event.hlc.counter,
        remedy: Some(remedy),
        ..EventRepaired::default()
    }))
}

fn replaced(by: &Event) -> event_repaired::Remedy {
    event_repaired::Remedy::Replacement(Replacement { event_type: by.kind().into(), payload: by.encode() })
}

/// Poison, and repairs of it and of events that can be folded or never came.
fn repairs() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let poison = prop::collection::vec((said(), POISONED), 0..4);
    let repairs = prop::collection::vec((said(), 896..906_u64, 0..8_u8, 0..20_u64, 0..4_u64), 0..8);
    (poison, repairs).prop_map(|(poison, repairs)| {
        let mut events: Vec<_> = poison.iter().map(|(said, n)| poisoned(*n, said)).collect();
        events.sort_by_key(|(order, _)| order.id);
        events.dedup_by_key(|(order, _)| order.id);
        for ((said, target, what, at, folded), n) in repairs.into_iter().zip(700..) {
            let event = if POISONED.contains(&target) { order(poisoned_at(target), target) } else { order(at, folded) };
            let remedy = match what {
                0 => event_repaired::Remedy::Dismissed(true),
                1 => event_repaired::Remedy::FoldedAgain(true),
                2 => replaced(&Event::ReceiptClosed(ReceiptClosed {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    stored: at as u32,
                    ..ReceiptClosed::default()
                })),
                6 => replaced(&rejected(
                    0,
                    RejectionTitle::QualityReasons,
                    &[(said.series, said.instance, vec![folded])],
                )),
                7 => replaced(&revoked(800 + folded, &[(said.series, said.instance)])),
                3 => replaced(&Event::VersionChosen(VersionChosen {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    series_instance_uid: format!("1.2.3.{}", said.series),
                    sop_instance_uid: format!("1.2.3.9.{}", said.instance),
                    store_event_id: Bytes::copy_from_slice(event_id(folded).as_bytes()),
                    ..VersionChosen::default()
                })),
                _ => replaced(&stored(target, &said)),
            };
            events.push((order(at, n), repaired(&event, remedy)));
        }
        events
    })
}

/// Events of a study: stores, and comparisons, choices and repeats of them.
fn events() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let stores = prop::collection::vec((said(), 0..20_u64), 1..24);
    let about =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8, 0..20_u64), 0..8);
    (stores, about).prop_map(|(stores, about)| {
        let mut events: Vec<(EventOrder, Event)> =
            stores.iter().zip(0..).map(|((said, at), n)| (order(*at, n), stored(n, said))).collect();
        for ((first, second, what, at), n) in about.into_iter().zip(500..) {
            let (first, second) = (first.index(stores.len()), second.index(stores.len()));
            let said = &stores[first].0;
            let (series, sop) = (format!("1.2.3.{}", said.series), format!("1.2.3.9.{}", said.instance));
            let id = |n: usize| Bytes::copy_from_slice(event_id(n as u64).as_bytes());
            let event = match what {
                0 | 1 => Event::VersionsCompared(VersionsCompared {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    series_instance_uid: series,
                    sop_instance_uid: sop,
                    first_store_event_id: id(first),
                    second_store_event_id: id(second),
                    comparison: if what == 0 { Comparison::AnotherEncoding } else { Comparison::Different }.into(),
                }),
                2 => Event::VersionChosen(VersionChosen {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    series_instance_uid: series,
                    sop_instance_uid: sop,
                    store_event_id: id(first),
                    ..VersionChosen::default()
                }),
                _ if second.is_multiple_of(2) => Event::InstanceReceivedAgain(Box::new(InstanceReceivedAgain {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    series_instance_uid: series,
                    sop_instance_uid: sop,
                    store_event_id: id(first),
                    ..InstanceReceivedAgain::default()
                })),
                _ => Event::ReceiptClosed(ReceiptClosed {
                    tenant: "default".into(),
                    study_instance_uid: STUDY.into(),
                    stored: 3,
                    ..ReceiptClosed::default()
                }),
            };
            events.push((order(at, n), event));
        }
        events
    })
}

/// A rejection by a note of instances, each by series and number, with the stores that it hides.
fn rejected(note: u64, title: RejectionTitle, named: &[(u8, u8, Vec<u64>)]) -> Event {
    let series = named.iter().map(|(series, instance, stores)| RejectedSeries {
        series_instance_uid: format!("1.2.3.{series}"),
        instances: vec![RejectedInstance {
            sop_instance_uid: format!("1.2.3.9.{instance}"),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            store_event_ids: stores.iter().map(|n| Bytes::copy_from_slice(event_id(*n).as_bytes())).collect(),
        }],
    });
    Event::InstancesRejected(Box::new(InstancesRejected {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        note: Some(RejectionNote {
            store_event_id: Bytes::copy_from_slice(event_id(note).as_bytes()),
            title_code: title.code().into(),
            ..RejectionNote::default()
        }),
        series: series.collect(),
        parts: 1,
        part: 1,
    }))
}

fn revoked(rejection: u64, named: &[(u8, u8)]) -> Event {
    let series = named.iter().map(|(series, instance)| RevokedSeries {
        series_instance_uid: format!("1.2.3.{series}"),
        sop_instance_uids: vec![format!("1.2.3.9.{instance}")],
    });
    Event::RejectionRevoked(Box::new(RejectionRevoked {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        rejection_event_id: Bytes::copy_from_slice(event_id(rejection).as_bytes()),
        series: series.collect(),
        ..RejectionRevoked::default()
    }))
}

/// Notes about instances that are there, come later or never, and revocations of them and of none.
fn rejections() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let named = prop::collection::vec((0..3_u8, 0..4_u8, prop::collection::vec(0..24_u64, 0..3)), 1..5);
    let notes = prop::collection::vec((named, prop::sample::select(RejectionTitle::ALL.to_vec()), 0..20_u64), 0..6);
    (notes, prop::collection::vec((0..8_u64, 0..20_u64), 0..4)).prop_map(|(notes, revocations)| {
        let mut events = Vec::new();
        for ((named, title, at), n) in notes.iter().zip(800..) {
            events.push((order(*at, n), rejected(n, *title, named)));
        }
        for ((rejection, at), n) in revocations.into_iter().zip(820..) {
            let of = notes.get(rejection as usize).map(|(named, ..)| named.as_slice()).unwrap_or_default();
            let named: Vec<_> = of.iter().map(|(series, instance, _)| (*series, *instance)).collect();
            events.push((order(at, n), revoked(800 + rejection, &named)));
        }
        events
    })
}

/// A site finds the object of a store damaged, or whole again.
fn condition(store: u64, damaged: bool, site: &str) -> Event {
    let (series, instance) = ("1.2.3.1".to_owned(), "1.2.3.9.1".to_owned());
    condition_of(store, (series, instance), damaged, site)
}

fn condition_of(store: u64, (series, instance): (String, String), damaged: bool, site: &str) -> Event {
    let named_by = Bytes::copy_from_slice(event_id(store).as_bytes());
    let (tenant, study) = ("default".to_owned(), STUDY.to_owned());
    if damaged {
        return Event::ObjectDamaged(ObjectDamaged {
            tenant,
            study_instance_uid: study,
            series_instance_uid: series,
            sop_instance_uid: instance,
            site: site.into(),
            named_by_event_id: named_by,
            ..ObjectDamaged::default()
        });
    }
    Event::ObjectRepaired(ObjectRepaired {
        tenant,
        study_instance_uid: study,
        series_instance_uid: series,
        sop_instance_uid: instance,
        site: site.into(),
        named_by_event_id: named_by,
        ..ObjectRepaired::default()
    })
}

/// Damage and repairs at two sites, of objects that are there, come later or never.
fn conditions() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let one = (0..24_u64, 0..3_u8, 0..4_u8, any::<bool>(), prop::sample::select(vec!["east", "west"]), 0..20_u64);
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let event = |((store, series, instance, damaged, site, at), n): (_, u64)| {
            let identity = (format!("1.2.3.{series}"), format!("1.2.3.9.{instance}"));
            (order(at, n), condition_of(store, identity, damaged, site))
        };
        all.into_iter().zip(860..).map(event).collect()
    })
}

/// An erasure of instances, each by series and number, with the stores that it names.
fn named_by_erasure(named: &[(u8, u8, Vec<u64>)]) -> Vec<ErasedSeries> {
    let id = |n: u64| Bytes::copy_from_slice(event_id(n).as_bytes());
    let series = named.iter().map(|(series, instance, stores)| ErasedSeries {
        series_instance_uid: format!("1.2.3.{series}"),
        instances: vec![ErasedInstance {
            sop_instance_uid: format!("1.2.3.9.{instance}"),
            versions: stores
                .iter()
                .map(|n| ErasedVersion { store_event_id: id(*n), object_keys: Vec::new() })
                .collect(),
            repeat_event_ids: Vec::new(),
        }],
    });
    series.collect()
}

fn to_be_erased(named: &[(u8, u8, Vec<u64>)]) -> Event {
    Event::ErasureRequested(Box::new(ErasureRequested {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series: named_by_erasure(named),
        ..ErasureRequested::default()
    }))
}

fn erased(request: u64, named: &[(u8, u8, Vec<u64>)]) -> Event {
    Event::VersionsErased(Box::new(VersionsErased {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        erasure_event_id: Bytes::copy_from_slice(event_id(request).as_bytes()),
        series: named_by_erasure(named),
        ..VersionsErased::default()
    }))
}

/// Erasures of instances that are there, come later or never; some of them took effect.
fn erasures() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let named = prop::collection::vec((0..3_u8, 0..4_u8, prop::collection::vec(0..24_u64, 0..3)), 1..5);
    prop::collection::vec((named, any::<bool>(), 0..20_u64), 0..4).prop_map(|all| {
        let mut events = Vec::new();
        for ((named, takes_effect, at), n) in all.into_iter().zip((900..).step_by(2)) {
            events.push((order(at, n), to_be_erased(&named)));
            events.extend(takes_effect.then(|| (order(at + 1, n + 1), erased(n, &named))));
        }
        events
    })
}

fn corrected(scope: (Option<u8>, Option<u8>), texts: &[(cairn_dicom::Tag, &str)]) -> Event {
    let mut elements = DataSet::new();
    texts.iter().for_each(|(tag, text)| elements.put_text(*tag, text));
    let protected =
        CorrectionProtected { elements: crate::correction::encode(&elements), reason: "typed wrongly".into() };
    Event::AttributesCorrected(Box::new(AttributesCorrected {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        series_instance_uid: scope.0.map(|series| format!("1.2.3.{series}")).unwrap_or_default(),
        sop_instance_uid: scope.1.map(|instance| format!("1.2.3.9.{instance}")).unwrap_or_default(),
        protected: protected.encode_to_vec().into(),
        key_id: String::new(),
        corrected_by: "operator".into(),
    }))
}

fn correction_revoked(corrections: &[u64]) -> Event {
    Event::CorrectionRevoked(Box::new(CorrectionRevoked {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        correction_event_ids: corrections.iter().map(|n| event_id(*n).as_bytes().to_vec().into()).collect(),
        revoked_by: "operator".into(),
        reason: Bytes::new(),
        key_id: String::new(),
    }))
}

/// Corrections of any scope, and revocations of some.
fn corrections() -> impl Strategy<Value = Vec<(EventOrder, Event)>> {
    let tag = prop::sample::select(vec![
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::ISSUER_OF_PATIENT_ID,
        tags::STUDY_DESCRIPTION,
    ]);
    let scope = (prop::option::of(0..3_u8), prop::option::of(0..4_u8));
    let one = (
        scope,
        prop::collection::vec((tag, prop::sample::select(vec!["", "X", "Yé"])), 1..3),
        any::<bool>(),
        0..20_u64,
    );
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let mut events = Vec::new();
        for ((scope, texts, is_revoked, at), n) in all.into_iter().zip((1_000..).step_by(2)) {
            events.push((order(at, n), corrected(scope, &texts)));
            events.extend(is_revoked.then(|| (order(at + 1, n + 1), correction_revoked(&[n]))));
        }
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// I11, I12: any order, any repetition, any batches.
    #[test]
    fn i11_i12_arrival_changes_nothing(
        events in (events(), repairs(), rejections(), conditions(), erasures(), corrections()).prop_map(
            |(events, repairs, rejections, conditions, erasures, corrections)| {
                [events, repairs, rejections, conditions, erasures, corrections].concat()
            },
        ),
        shuffled in any::<prop::sample::Index>(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        cuts in prop::collection::vec(1..6_usize, 40),
        seed in any::<u64>(),
    ) {
        let mut at_once = Rows::default();
        at_once.fold(&events);
        let mut arrived = events.clone();
        arrived.extend(again.iter().map(|at| events[at.index(events.len())].clone()));
        // A shuffle that proptest can repeat.
        let mut state = seed | 1;
        for at in (1..arrived.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            arrived.swap(at, (state % (at as u64 + 1)) as usize);
        }
        let middle = shuffled.index(arrived.len());
        arrived.rotate_left(middle);
        let mut piecewise = Rows::default();
        let mut rest = arrived.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, after) = rest.split_at((*cut).min(rest.len()));
            piecewise.fold(batch);
            rest = after;
        }
        prop_assert_eq!(at_once.canonical(), piecewise.canonical());
        piecewise.check_counts();
    }
}

#[test]
fn where_the_shown_bytes_are_damaged_the_same_bytes_are_shown_whole() {
    use ResendPolicy::Keep;
    let (first, again, other) =
        (stored(1, &one(1, Keep, "A")), stored(2, &one(1, Keep, "A")), stored(3, &one(2, Keep, "A")));
    let (first, again, other) = ((1, first), (2, again), (3, other));
    let all = |more: &[(u64, Event)]| [&[first.clone(), again.clone(), other.clone()], more].concat();
    assert_eq!(shown_of(&all(&[])), 1);
    assert_eq!(shown_of(&all(&[(4, condition(1, true, "east"))])), 2);
    assert_eq!(shown_of(&all(&[(4, condition(1, true, "east")), (5, condition(1, false, "east"))])), 1);
    // What another site repaired is damaged here all the same.
    assert_eq!(shown_of(&all(&[(4, condition(1, true, "east")), (5, condition(1, false, "west"))])), 2);
    // Other content never takes its place.
    assert_eq!(shown_of(&all(&[(4, condition(1, true, "east")), (5, condition(2, true, "west"))])), 1);
    assert_eq!(shown_of(&[first.clone(), other.clone(), (4, condition(1, true, "east"))]), 1);
}

fn one(content: u8, policy: ResendPolicy, ae: &'static str) -> Said {
    Said { series: 1, instance: 1, content, patient: "ANNA", description: "first".into(), modality: "CT", policy, ae }
}

fn shown_of(events: &[(u64, Event)]) -> u64 {
    let mut rows = Rows::default();
    for (n, event) in events {
        rows.fold(&[(order(*n, *n), event.clone())]);
    }
    let state = rows.instances.values().next().expect("one identity");
    let shown = state.shown().expect("one is shown").order.id;
    events.iter().map(|(n, _)| *n).find(|n| event_id(*n) == shown).expect("an event of these")
}

#[test]
fn the_first_version_is_shown_unless_a_decision_says_otherwise() {
    use ResendPolicy::{Keep, Refuse, SupersedeSameSource};
    let version = |n, content, policy, ae| (n, stored(n, &one(content, policy, ae)));
    let chosen = |n, store| {
        let Event::InstanceStored(event) = stored(store, &one(1, Keep, "ONE")) else { unreachable!() };
        let event = VersionChosen {
            tenant: event.tenant,
            study_instance_uid: event.study_instance_uid,
            series_instance_uid: event.series_instance_uid,
            sop_instance_uid: event.sop_instance_uid,
            store_event_id: Bytes::copy_from_slice(event_id(store).as_bytes()),
            ..VersionChosen::default()
        };
        (n, Event::VersionChosen(event))
    };
    let first = version(1, 1, Keep, "ONE");
    assert_eq!(shown_of(&[first.clone(), version(2, 2, Keep, "ONE")]), 1);
    assert_eq!(shown_of(&[first.clone(), version(2, 2, Refuse, "ONE")]), 1);
    assert_eq!(shown_of(&[first.clone(), version(2, 2, SupersedeSameSource, "ONE")]), 2);
    // The same bytes again correct nothing.
    assert_eq!(shown_of(&[first.clone(), version(2, 1, SupersedeSameSource, "ONE")]), 1);
    assert_eq!(shown_of(&[first.clone(), version(2, 2, Keep, "ONE"), chosen(3, 2)]), 2);
    assert_eq!(shown_of(&[first.clone(), version(2, 2, Keep, "ONE"), chosen(3, 2), chosen(4, 1)]), 1);
    let corrected = version(4, 3, SupersedeSameSource, "ONE");
    assert_eq!(shown_of(&[first, version(2, 2, Keep, "ONE"), chosen(3, 2), corrected]), 4);
}

/// What a study says of its patient: names, and patients.
fn patient_of(rows: &Rows) -> (Vec<String>, Vec<(String, String)>) {
    let study = rows.study.clone().expect("there");
    let names = study.attributes.texts(tags::PATIENT_NAME).map(str::to_owned).collect();
    (names, study.patients().into_iter().map(|patient| (patient.issuer, patient.id)).collect())
}

#[test]
fn a_correction_counts_for_what_came_before_and_what_comes_after_until_it_is_taken_back() {
    let first = (order(1, 1), stored(1, &one(1, ResendPolicy::Keep, "ONE")));
    let mut second = one(2, ResendPolicy::Keep, "ONE");
    second.instance = 2;
    let texts = [(tags::PATIENT_NAME, "RIGHT"), (tags::PATIENT_ID, "P9"), (tags::ISSUER_OF_PATIENT_ID, "OTHER")];
    let name = (order(5, 5), corrected((None, None), &texts));
    let mut rows = Rows::default();
    rows.fold(std::slice::from_ref(&first));
    let before = rows.study.clone().expect("there").attributes.variants().to_vec();
    rows.fold(&[name]);
    let right = (vec!["RIGHT".to_owned()], vec![("OTHER".to_owned(), "P9".to_owned())]);
    assert_eq!(patient_of(&rows), right);
    rows.fold(&[(order(6, 6), stored(6, &second))]);
    assert_eq!(patient_of(&rows), right, "of what comes later too");
    rows.fold(&[(order(7, 7), corrected((None, None), &[(tags::PATIENT_NAME, "BETTER")]))]);
    assert_eq!(patient_of(&rows).0, ["BETTER"], "the last counts");
    rows.fold(&[(order(8, 8), correction_revoked(&[7]))]);
    assert_eq!(patient_of(&rows), right);
    rows.fold(&[(order(9, 9), correction_revoked(&[5]))]);
    assert_eq!(rows.study.expect("there").attributes.variants(), before, "undone exactly");
}

#[test]
fn a_correction_of_a_series_or_an_instance_is_of_that_alone() {
    let mut other = one(2, ResendPolicy::Keep, "ONE");
    (other.series, other.instance) = (2, 2);
    let stores = [(order(1, 1), stored(1, &one(1, ResendPolicy::Keep, "ONE"))), (order(2, 2), stored(2, &other))];
    for scope in [(Some(2), None), (None, Some(2)), (Some(2), Some(2))] {
        let mut rows = Rows::default();
        rows.fold(&stores);
        rows.fold(&[(order(5, 5), corrected(scope, &[(tags::PATIENT_NAME, "OTHER")]))]);
        assert_eq!(patient_of(&rows).0, ["ANNA^NAME", "OTHER"], "{scope:?}");
    }
    let mut rows = Rows::default();
    rows.fold(&stores);
    rows.fold(&[(order(5, 5), corrected((Some(1), Some(2)), &[(tags::PATIENT_NAME, "OTHER")]))]);
    assert_eq!(patient_of(&rows).0, ["ANNA^NAME"], "there is no such instance");
}

#[test]
fn a_correction_that_cannot_be_folded_changes_nothing() {
    let with = |change: fn(&mut AttributesCorrected)| {
        let Event::AttributesCorrected(mut event) = corrected((None, None), &[(tags::PATIENT_NAME, "A")]) else {
            panic!("a correction")
        };
        change(&mut event);
        let mut fold = StudyFold::new(key(), Loaded::default());
        let outcome = fold.apply(order(1, 1), Stamp(1), Event::AttributesCorrected(event));
        (outcome, fold.finish().is_none())
    };
    assert_eq!(with(|event| event.key_id = "k".into()), (Err(Poison::Encrypted), true));
    assert_eq!(with(|event| event.protected = Bytes::from_static(&[0xFF])), (Err(Poison::Undecodable), true));
    assert_eq!(with(|event| event.protected = Bytes::new()), (Err(Poison::Malformed), true));
    assert_eq!(with(|event| event.sop_instance_uid = "x".into()), (Err(Poison::BadIdentifier), true));
}

#[test]
fn attributes_follow_the_version_that_is_shown() {
    let mut rows = Rows::default();
    let mut corrected = one(2, ResendPolicy::SupersedeSameSource, "ONE");
    corrected.description = "corrected".into();
    corrected.modality = "MR";
    rows.fold(&[(order(1, 1), stored(1, &one(1, ResendPolicy::Keep, "ONE")))]);
    rows.fold(&[(order(2, 2), stored(2, &corrected))]);
    let study = rows.study.expect("there");
    assert_eq!(study.attributes.texts(tags::STUDY_DESCRIPTION).collect::<Vec<_>>(), ["corrected"]);
    assert_eq!(study.modalities.into_iter().collect::<Vec<_>>(), ["MR"]);
    assert_eq!((study.shown, study.versions, study.series), (1, 2, 1));
}

#[test]
fn disagreements_are_listed_and_the_earliest_value_counts() {
    let mut rows = Rows::default();
    let mut late = one(1, ResendPolicy::Keep, "ONE");
    late.instance = 2;
    late.patient = "BERT";
    rows.fold(&[(order(5, 2), stored(2, &late))]);
    rows.fold(&[(order(1, 1), stored(1, &one(1, ResendPolicy::Keep, "ONE")))]);
    let study = rows.study.expect("there");
    assert_eq!(study.attributes.texts(tags::PATIENT_ID).collect::<Vec<_>>(), ["ANNA", "BERT"]);
    assert_eq!(study.patient(), PatientIdentity { issuer: "HOSP".into(), id: "ANNA".into() });
    let disagreements: Vec<_> = study.attributes.disagreements().filter(|tag| !tag.is_private()).collect();
    assert_eq!(disagreements, [tags::PATIENT_NAME, tags::PATIENT_ID]);
}

#[test]
fn what_cannot_be_folded_says_why_and_changes_nothing() {
    let said = one(1, ResendPolicy::Keep, "ONE");
    let with = |change: fn(&mut InstanceStored)| {
        let Event::InstanceStored(mut event) = stored(1, &said) else { unreachable!() };
        change(&mut event);
        let mut fold = StudyFold::new(key(), Loaded::default());
        let outcome = fold.apply(order(1, 1), Stamp(1), Event::InstanceStored(event));
        assert!(fold.finish().is_none());
        outcome.expect_err("poison")
    };
    assert_eq!(with(|event| event.series_instance_uid = "x".into()), Poison::BadIdentifier);
    assert_eq!(with(|event| event.object = None), Poison::Malformed);
    assert_eq!(with(|event| event.key_id = "k".into()), Poison::Encrypted);
    assert_eq!(with(|event| event.tenant = "other".into()), Poison::Disagreement);
    assert_eq!(with(|event| event.protected = vec![0xFF; 3].into()), Poison::Undecodable);
}

/// One identity after these events, in this order, and what the study's S and E are.
fn folded(events: &[(EventOrder, Event)]) -> (InstanceState, [u8; 32], HashSum) {
    let mut rows = Rows::default();
    events.iter().for_each(|event| rows.fold(std::slice::from_ref(event)));
    let study = rows.study.clone().expect("there");
    (rows.instances.values().next().cloned().unwrap_or_default(), study.hash(&key()), study.events)
}

#[test]
fn a_repair_takes_the_place_of_the_event_before_or_after_it() {
    let said = one(1, ResendPolicy::Keep, "ONE");
    let poison = poisoned(901, &said);
    let repair = (order(50, 700), repaired(&poison.0, replaced(&stored(901, &said))));
    let later = (order(9, 2), stored(2, &one(2, ResendPolicy::Keep, "TWO")));
    let all = [poison.clone(), later.clone(), repair.clone()];
    let (state, s, e) = folded(&all);
    let shown = state.shown().expect("one is shown");
    assert_eq!((&shown.order, shown.by), (&poison.0, Some(event_id(700))), "in its place, so the first");
    assert_eq!(state.versions().len(), 2);
    for turned in [[2, 0, 1], [2, 1, 0], [1, 2, 0], [0, 2, 1], [1, 0, 2]] {
        let turned = turned.map(|at| all[at].clone());
        assert_eq!(folded(&turned), (state.clone(), s, e));
    }
    // Without the repair the study is another one, and with the repair alone it is the same: the event says nothing.
    assert_ne!(folded(&[poison, later.clone()]).1, s);
    assert_eq!(folded(&[later, repair]).1, s);
}

#[test]
fn of_several_repairs_the_first_counts_and_an_event_that_can_be_folded_needs_none() {
    let (good, bad) = (one(1, ResendPolicy::Keep, "ONE"), one(2, ResendPolicy::Keep, "TWO"));
    let place = order(5, 901);
    let first = (order(90, 700), repaired(&place, replaced(&stored(901, &good))));
    let second = (order(80, 701), repaired(&place, replaced(&stored(901, &bad))));
    let one_way = folded(&[first.clone(), second.clone()]);
    assert_eq!(one_way, folded(&[second.clone(), first.clone()]));
    let (state, ..) = one_way;
    assert_eq!(state.versions().iter().map(|version| version.by).collect::<Vec<_>>(), [Some(event_id(700))]);
    let itself = (place, stored(901, &bad));
    let (state, s, e) = folded(&[itself.clone(), first.clone(), second.clone()]);
    assert_eq!((state.versions().len(), state.versions()[0].by), (1, None));
    assert_eq!(folded(&[first.clone(), itself.clone(), second.clone()]), (state.clone(), s, e));
    assert_eq!(folded(&[second, first, itself]), (state, s, e));
}

#[test]
fn dismissing_and_folding_again_leave_a_trace_and_nothing_else() {
    let said = one(1, ResendPolicy::Keep, "ONE");
    let place = order(5, 901);
    let stored = (order(1, 1), stored(1, &said));
    let (state, s, e) = folded(std::slice::from_ref(&stored));
    let remedies = [event_repaired::Remedy::Dismissed(true), event_repaired::Remedy::FoldedAgain(true)];
    let mut seen = vec![s];
    for remedy in remedies {
        let (after, with, events) = folded(&[stored.clone(), (order(9, 700), repaired(&place, remedy))]);
        assert_eq!(after, state);
        assert_ne!(events, e, "it was folded");
        assert!(!seen.contains(&with), "it left its trace");
        seen.push(with);
    }
}

#[test]
fn a_repair_that_cannot_be_folded_is_poison_itself_and_changes_nothing() {
    let said = one(1, ResendPolicy::Keep, "ONE");
    let place = order(5, 901);
    let good = replaced(&stored(901, &said));
    let with = |remedy: event_repaired::Remedy, change: fn(&mut EventRepaired)| {
        let Event::EventRepaired(mut repair) = repaired(&place, remedy) else { unreachable!() };
        change(&mut repair);
        let mut fold = StudyFold::new(key(), Loaded::default());
        let outcome = fold.apply(order(9, 700), Stamp(1), Event::EventRepaired(repair));
        assert!(outcome.is_ok() || fold.finish().is_none());
        outcome
    };
    let of = |kind: &str, payload: &[u8]| {
        let payload = Bytes::copy_from_slice(payload);
        event_repaired::Remedy::Replacement(Replacement { event_type: kind.into(), payload })
    };
    assert_eq!(with(good.clone(), |_| {}), Ok(()));
    assert_eq!(with(good.clone(), |repair| repair.event_id = vec![1; 3].into()), Err(Poison::Malformed));
    assert_eq!(with(good.clone(), |repair| repair.event_site = "no such/site".into()), Err(Poison::Malformed));
    assert_eq!(with(good.clone(), |repair| repair.remedy = None), Err(Poison::Malformed));
    assert_eq!(with(good.clone(), |repair| repair.tenant = "other".into()), Err(Poison::Disagreement));
    let nested = repaired(&place, good);
    assert_eq!(with(replaced(&nested), |_| {}), Err(Poison::Malformed), "no repair of a repair within");
    assert_eq!(with(of("cairn.instance.dreamt.v9", b""), |_| {}), Err(Poison::UnknownType));
    assert_eq!(with(of("cairn.instance.stored.v1", &[0xFF; 4]), |_| {}), Err(Poison::Undecodable));
    assert_eq!(with(replaced(&poisoned(901, &said).1), |_| {}), Err(Poison::Encrypted));
    let empty = Event::InstanceReceivedAgain(Box::new(InstanceReceivedAgain {
        tenant: "default".into(),
        study_instance_uid: STUDY.into(),
        ..InstanceReceivedAgain::default()
    }));
    assert_eq!(with(replaced(&empty), |_| {}), Err(Poison::BadIdentifier));
}

/// One instance after these events, told one by one: what is shown, by its number.
fn shown_after(events: &[(u64, Event)]) -> Option<u64> {
    let (state, ..) = folded(&events.iter().map(|(n, event)| (order(*n, *n), event.clone())).collect::<Vec<_>>());
    let shown = state.shown().map(|version| version.order.id);
    events.iter().map(|(n, _)| *n).find(|n| Some(event_id(*n)) == shown)
}

#[test]
fn a_note_hides_the_stores_that_it_names_or_all_where_it_names_none() {
    let store = |n, content| (n, stored(n, &one(content, ResendPolicy::Keep, "ONE")));
    let note = |n, stores: &[u64]| (n, rejected(n, RejectionTitle::QualityReasons, &[(1, 1, stores.to_vec())]));
    assert_eq!(shown_after(&[store(1, 1), note(5, &[1])]), None);
    assert_eq!(shown_after(&[note(5, &[1]), store(1, 1)]), None, "in any order of arrival");
    assert_eq!(shown_after(&[store(1, 1), note(5, &[1]), store(7, 1)]), Some(7), "stored again it is shown");
    assert_eq!(shown_after(&[store(2, 1), note(5, &[1])]), Some(2), "one that it did not see is shown");
    assert_eq!(shown_after(&[store(1, 1), note(5, &[]), store(7, 1)]), None, "it names none: all are hidden");
    assert_eq!(shown_after(&[note(5, &[]), store(1, 1)]), None);
    assert_eq!(shown_after(&[store(1, 1), store(2, 2), note(5, &[1])]), Some(2));
    let mut other = one(1, ResendPolicy::Keep, "ONE");
    other.instance = 2;
    let elsewhere = rejected(5, RejectionTitle::QualityReasons, &[(1, 2, vec![])]);
    let (state, ..) = folded(&[(order(1, 1), stored(1, &other)), (order(5, 5), elsewhere)]);
    assert!(state.shown().is_none());
}

#[test]
fn a_choice_and_a_correction_show_nothing_that_is_rejected() {
    let store = |n, content, policy| (n, stored(n, &one(content, policy, "ONE")));
    let note = |n, stores: &[u64]| (n, rejected(n, RejectionTitle::QualityReasons, &[(1, 1, stores.to_vec())]));
    let first = store(1, 1, ResendPolicy::Keep);
    let corrected = store(2, 2, ResendPolicy::SupersedeSameSource);
    assert_eq!(shown_after(&[first.clone(), corrected.clone(), note(5, &[2])]), Some(1));
    assert_eq!(shown_after(&[first, corrected, note(5, &[1])]), Some(2));
}

#[test]
fn revoking_is_exact_whatever_came_meanwhile() {
    let store = |n, content| (order(n, n), stored(n, &one(content, ResendPolicy::Keep, "ONE")));
    let note = |n, title, stores: &[u64]| (order(n, n), rejected(n, title, &[(1, 1, stores.to_vec())]));
    let revoke = |n, rejection| (order(n, n), revoked(rejection, &[(1, 1)]));
    let quality = note(5, RejectionTitle::QualityReasons, &[1]);
    let safety = note(6, RejectionTitle::PatientSafetyReasons, &[1]);
    let all = [store(1, 1), quality, safety, revoke(8, 5), revoke(9, 6)];
    let shown = |events: &[(EventOrder, Event)]| folded(events).0.shown().map(|version| version.order.id);
    assert_eq!(shown(&all[..4]), None, "another note still says so");
    assert_eq!(shown(&all), Some(event_id(1)));
    let mut rows = Rows::default();
    all.iter().for_each(|event| rows.fold(std::slice::from_ref(event)));
    let study = rows.study.clone().expect("there");
    assert_eq!((study.shown, study.hidden, study.series), (1, 0, 1));
    assert_eq!(study.attributes.texts(tags::PATIENT_ID).collect::<Vec<_>>(), ["ANNA"], "its attributes are back");
    // The revocation may come first.
    let mut turned = all.clone();
    turned.reverse();
    assert_eq!(folded(&turned), folded(&all));
}

#[test]
fn attributes_and_counts_are_of_what_is_shown() {
    let mut rows = Rows::default();
    let mut other = one(1, ResendPolicy::Keep, "ONE");
    (other.series, other.instance, other.patient, other.modality) = (2, 2, "BERT", "MR");
    rows.fold(&[(order(1, 1), stored(1, &one(1, ResendPolicy::Keep, "ONE"))), (order(2, 2), stored(2, &other))]);
    rows.fold(&[(order(5, 5), rejected(5, RejectionTitle::IncorrectWorklistEntry, &[(1, 1, vec![1])]))]);
    let study = rows.study.clone().expect("there");
    assert_eq!((study.shown, study.hidden, study.series, study.versions), (1, 1, 1, 2));
    assert_eq!(study.attributes.texts(tags::PATIENT_ID).collect::<Vec<_>>(), ["BERT"]);
    assert_eq!(study.modalities.into_iter().collect::<Vec<_>>(), ["MR"]);
    rows.fold(&[(order(6, 6), rejected(6, RejectionTitle::IncorrectWorklistEntry, &[(2, 2, vec![])]))]);
    let study = rows.study.expect("there");
    assert_eq!((study.shown, study.hidden, study.series), (0, 2, 0));
    assert!(study.attributes.variants().is_empty() && study.modalities.is_empty());
}

#[test]
fn who_sees_a_title_is_shown_what_it_alone_hides() {
    let store = |n, content| (order(n, n), stored(n, &one(content, ResendPolicy::Keep, "ONE")));
    let note = |n, title, stores: &[u64]| (order(n, n), rejected(n, title, &[(1, 1, stores.to_vec())]));
    let quality: Titles = [RejectionTitle::QualityReasons].into_iter().collect();
    let seen = |events: &[(EventOrder, Event)], sees| folded(events).0.shown_to(sees).map(|version| version.order.id);
    let hidden = [store(1, 1), note(5, RejectionTitle::QualityReasons, &[1])];
    assert_eq!(seen(&hidden, Titles::default()), None);
    assert_eq!(seen(&hidden, quality), Some(event_id(1)));
    let twice =
        [store(1, 1), note(5, RejectionTitle::QualityReasons, &[1]), note(6, RejectionTitle::RetentionExpired, &[])];
    assert_eq!(seen(&twice, quality), None);
    assert_eq!(seen(&twice, Titles::ALL), Some(event_id(1)));
    let again = [store(1, 1), note(5, RejectionTitle::QualityReasons, &[1]), store(7, 2)];
    assert_eq!(seen(&again, quality), Some(event_id(7)), "what everybody is shown goes first");
}

#[test]
fn a_rejection_that_cannot_be_folded_changes_nothing() {
    let with = |change: fn(&mut InstancesRejected)| {
        let Event::InstancesRejected(mut event) = rejected(1, RejectionTitle::QualityReasons, &[(1, 1, vec![1])])
        else {
            unreachable!()
        };
        change(&mut event);
        let mut fold = StudyFold::new(key(), Loaded::default());
        let outcome = fold.apply(order(1, 1), Stamp(1), Event::InstancesRejected(event));
        assert!(fold.finish().is_none());
        outcome.expect_err("poison")
    };
    assert_eq!(with(|event| event.note = None), Poison::Malformed);
    assert_eq!(with(|event| event.note.get_or_insert_default().title_code = "113000".into()), Poison::Malformed);
    assert_eq!(with(|event| event.note.get_or_insert_default().store_event_id = Bytes::new()), Poison::Malformed);
    assert_eq!(with(|event| event.series[0].series_instance_uid = "x".into()), Poison::BadIdentifier);
    assert_eq!(with(|event| event.series[0].instances[0].store_event_ids = vec![Bytes::new()]), Poison::Malformed);
}

#[test]
fn what_is_erased_is_not_there_and_what_comes_again_is() {
    let said = one(1, ResendPolicy::Keep, "CT1");
    let named = [(1, 1, vec![1, 2])];
    let (first, second) =
        ((order(1, 1), stored(1, &said)), (order(2, 2), stored(2, &Said { content: 2, ..said.clone() })));
    let all = [first, second, (order(3, 10), to_be_erased(&named)), (order(4, 11), erased(10, &named))];
    let (state, ..) = folded(&all[..3]);
    assert!(state.shown().is_some() && state.is_to_be_erased(event_id(1)) && !state.is_erased(event_id(1)));
    let (state, ..) = folded(&all);
    assert!(state.shown().is_none() && state.versions().is_empty() && state.relation() == Relation::Same);
    assert!(state.version(event_id(1)).is_none() && state.is_erased(event_id(1)));
    // One that the erasure does not name.
    let again = [&all[..], &[(order(5, 3), stored(3, &said))]].concat();
    let (state, ..) = folded(&again);
    assert_eq!(state.shown().map(|version| version.order.id), Some(event_id(3)));
    assert!(!state.is_to_be_erased(event_id(3)));
}
