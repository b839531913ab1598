//! Whatever way the planner takes, the answers are those of a plain look at every instance.

mod support;

use cairn_dicom::{
    Tag,
    dataset::DataSet,
    matching::{Keys, MatchOptions},
    tags,
};
use cairn_index::IndexService;
use cairn_service_api::{
    ErrorKind, Index, Reason,
    index::{Level, Query, QueryOptions, Returning},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{MemoryLog, MemoryStore, Spec, answers, query, settled, small, texts, whole};

const PATIENT: [Tag; 3] = [tags::PATIENT_NAME, tags::PATIENT_ID, tags::PATIENT_BIRTH_DATE];
const STUDY: [Tag; 4] = [tags::STUDY_DATE, tags::STUDY_TIME, tags::ACCESSION_NUMBER, tags::STUDY_DESCRIPTION];
const SERIES: [Tag; 3] = [tags::MODALITY, tags::SERIES_NUMBER, tags::SERIES_DESCRIPTION];

/// A study as its instances say, earliest first.
struct Naive {
    studies: BTreeMap<String, Vec<Spec>>,
}

fn level_of(tag: Tag) -> Level {
    match tag {
        tag if PATIENT.contains(&tag) => Level::Patient,
        tag if STUDY.contains(&tag) => Level::Study,
        tags::STUDY_INSTANCE_UID
        | tags::MODALITIES_IN_STUDY
        | tags::NUMBER_OF_STUDY_RELATED_INSTANCES
        | tags::NUMBER_OF_STUDY_RELATED_SERIES => Level::Study,
        tag if SERIES.contains(&tag) => Level::Series,
        tags::SERIES_INSTANCE_UID | tags::NUMBER_OF_SERIES_RELATED_INSTANCES => Level::Series,
        _ => Level::Instance,
    }
}

impl Naive {
    fn new(specs: &[Spec]) -> Self {
        let mut studies: BTreeMap<String, Vec<Spec>> = BTreeMap::new();
        specs.iter().for_each(|spec| studies.entry(spec.study.clone()).or_default().push(spec.clone()));
        studies.values_mut().for_each(|specs| specs.sort_by_key(|spec| (spec.at, spec.n)));
        Self { studies }
    }

    fn first<'a>(specs: &[&'a Spec], tag: Tag) -> Option<&'a str> {
        specs.iter().find_map(|spec| spec.set.text(tag))
    }

    /// Whether keys of some levels match what any of these instances says, and what is counted.
    fn matches(keys: &Keys, specs: &[&Spec], counted: &DataSet, wanted: impl Fn(Level) -> bool) -> bool {
        keys.keys.iter().filter(|key| wanted(level_of(key.tag))).all(|key| {
            let computed = counted.get(key.tag);
            if let Some(element) = computed {
                return key.matches(Some(&element.value));
            }
            let mut values = specs.iter().filter_map(|spec| spec.set.get(key.tag).map(|element| &element.value));
            values.any(|value| key.matches(Some(value)))
        })
    }

    fn series_of<'a>(specs: &[&'a Spec]) -> Vec<Vec<&'a Spec>> {
        let mut series: BTreeMap<&str, Vec<&Spec>> = BTreeMap::new();
        specs.iter().for_each(|spec| series.entry(&spec.series).or_default().push(spec));
        let mut series: Vec<Vec<&Spec>> = series.into_values().collect();
        series.sort_by_key(|specs| {
            let number = Self::first(specs, tags::SERIES_NUMBER).and_then(|text| text.parse().ok());
            (number.unwrap_or(i64::MAX), specs[0].series.clone())
        });
        series
    }

    /// UIDs of the answers, in order: study, series, instance as far as the level goes.
    fn answers(&self, level: Level, keys: &Keys) -> Vec<String> {
        let mut studies: Vec<Vec<&Spec>> = self.studies.values().map(|specs| specs.iter().collect()).collect();
        studies.sort_by_key(|specs| {
            let digits = |tag| Self::first(specs, tag).map(|text| std::cmp::Reverse(text.to_owned()));
            let (date, time) = (digits(tags::STUDY_DATE), digits(tags::STUDY_TIME));
            ((date.is_none(), date), (time.is_none(), time), specs[0].study.clone())
        });
        let mut found = Vec::new();
        for specs in studies {
            let series = Self::series_of(&specs);
            let mut counted = DataSet::new();
            counted.put_text(tags::STUDY_INSTANCE_UID, &specs[0].study);
            let modalities: BTreeSet<&str> = specs.iter().filter_map(|spec| spec.set.text(tags::MODALITY)).collect();
            let modalities: Vec<&str> = modalities.into_iter().collect();
            counted.put_text(tags::MODALITIES_IN_STUDY, &modalities.join("\\"));
            counted.put_text(tags::NUMBER_OF_STUDY_RELATED_SERIES, &series.len().to_string());
            counted.put_text(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, &specs.len().to_string());
            if !Self::matches(keys, &specs, &counted, |level| level <= Level::Study) {
                continue;
            }
            let mut below = Vec::new();
            for specs in series {
                let mut counted = DataSet::new();
                counted.put_text(tags::SERIES_INSTANCE_UID, &specs[0].series);
                counted.put_text(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, &specs.len().to_string());
                if !Self::matches(keys, &specs, &counted, |level| level == Level::Series) {
                    continue;
                }
                let mut instances = Vec::new();
                for spec in &specs {
                    let mut counted = DataSet::new();
                    counted.put_text(tags::SOP_INSTANCE_UID, &spec.instance);
                    if Self::matches(keys, &[spec], &counted, |level| level == Level::Instance) {
                        let number = spec.set.text(tags::INSTANCE_NUMBER).and_then(|text| text.parse().ok());
                        instances.push((number.unwrap_or(i64::MAX), spec.instance.clone()));
                    }
                }
                instances.sort();
                if !instances.is_empty() {
                    below.push((specs[0].series.clone(), instances));
                }
            }
            if below.is_empty() {
                continue;
            }
            match level {
                Level::Patient => unreachable!("not asked for here"),
                Level::Study => found.push(specs[0].study.clone()),
                Level::Series => found.extend(below.into_iter().map(|(series, _)| series)),
                Level::Instance => {
                    found.extend(below.into_iter().flat_map(|(_, instances)| instances).map(|(_, uid)| uid));
                }
            }
        }
        found
    }
}

fn vocabulary(tag: Tag) -> Vec<&'static str> {
    match tag {
        tags::PATIENT_NAME => vec![
            "",
            "DOE^JANE",
            "Doe^John",
            "SMITH^ANN",
            "SMITHERS^A",
            "O'BRIEN^PAT",
            "Müller^Änne",
            "李^明",
            "Yamada^Tarou=山田^太郎",
        ],
        tags::PATIENT_ID => vec!["", "P1", "P12", "P123", "A-77"],
        tags::PATIENT_BIRTH_DATE => vec!["", "19700101", "19801231"],
        tags::STUDY_DATE => vec!["", "20231231", "20240101", "20240131", "20240201", "20240615", "20250101"],
        tags::STUDY_TIME => vec!["", "0930", "103000", "104500"],
        tags::ACCESSION_NUMBER => vec!["", "ACC1", "ACC12", "XACC3"],
        tags::STUDY_DESCRIPTION => vec!["", "CT CHEST", "MR HEAD", "chest x-ray"],
        tags::MODALITY => vec!["CT", "MR", "SR", ""],
        tags::SERIES_NUMBER => vec!["1", "2", "10", ""],
        tags::SERIES_DESCRIPTION => vec!["axial", "sagittal", ""],
        tags::INSTANCE_NUMBER => vec!["1", "2", "11", ""],
        tags::IMAGE_COMMENTS => vec!["", "artefact", "good"],
        _ => vec![""],
    }
}

fn keys_of(tag: Tag) -> Vec<&'static str> {
    match tag {
        tags::PATIENT_NAME => vec![
            "DOE*",
            "doe^jane",
            "*smith*",
            "SMITH*",
            "S?ITH*",
            "*o'b*",
            "mül*",
            "muller",
            "*明*",
            "山田*",
            "*ar*",
            "ann smith",
            "*",
            "D*",
            "*E^J*",
        ],
        tags::PATIENT_ID => vec!["P1", "P12", "P1*", "*2*", "*123*", "P1\\A-77", "?1"],
        tags::PATIENT_BIRTH_DATE => vec!["19700101", "1970-1975"],
        tags::STUDY_DATE => {
            vec!["20240101", "20240101-20240131", "20240201-", "-20231231", "20230101-20251231", "2024"]
        }
        tags::STUDY_TIME => vec!["1000-1100", "1030", "-0930"],
        tags::ACCESSION_NUMBER => vec!["ACC1", "*ACC*", "ACC*", "*CC1*", "ACC1\\ACC12"],
        tags::STUDY_DESCRIPTION => vec!["*CHEST*", "MR*", "CT CHEST", "*HEAD"],
        tags::MODALITY => vec!["CT", "MR\\SR", "C*"],
        tags::MODALITIES_IN_STUDY => vec!["CT", "MR\\CT", "S?"],
        tags::SERIES_NUMBER => vec!["1", "10"],
        tags::SERIES_DESCRIPTION => vec!["axial", "*tal"],
        tags::INSTANCE_NUMBER => vec!["1", "11"],
        tags::IMAGE_COMMENTS => vec!["artefact", "*oo*"],
        tags::NUMBER_OF_STUDY_RELATED_INSTANCES => vec!["1", "2", "3"],
        tags::NUMBER_OF_STUDY_RELATED_SERIES => vec!["1", "2"],
        tags::NUMBER_OF_SERIES_RELATED_INSTANCES => vec!["1", "2"],
        tags::STUDY_INSTANCE_UID => vec!["1.2.1", "1.2.2\\1.2.3\\1.2.77"],
        tags::SERIES_INSTANCE_UID => vec!["1.2.1.1", "1.2.2.1\\1.2.3.2"],
        tags::SOP_INSTANCE_UID => vec!["1.2.1.1.1", "1.2.2.1.1\\1.2.3.2.2"],
        _ => vec![""],
    }
}

const TOLD: [Tag; 12] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::STUDY_DESCRIPTION,
    tags::MODALITY,
    tags::SERIES_NUMBER,
    tags::SERIES_DESCRIPTION,
    tags::INSTANCE_NUMBER,
    tags::IMAGE_COMMENTS,
];

const ASKED: [Tag; 7] = [
    tags::MODALITIES_IN_STUDY,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::SOP_INSTANCE_UID,
];

/// Instances, most of which agree within their study.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let words = prop::collection::vec(any::<prop::sample::Index>(), TOLD.len());
    let one = (0..12_u64, 1..3_u64, 1..4_u64, 0..40_u64, words, prop::bool::weighted(0.15));
    prop::collection::vec(one, 1..40).prop_map(|all| {
        let mut agreed: BTreeMap<(u64, Option<u64>), Vec<prop::sample::Index>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut specs = Vec::new();
        for ((study, series, instance, at, words, differs), n) in all.into_iter().zip(1..) {
            if !seen.insert((study, series, instance)) {
                continue;
            }
            let mut spec = Spec::new(n, study, series, instance);
            spec.at = at;
            for (place, tag) in TOLD.into_iter().enumerate() {
                let of = match level_of(tag) {
                    Level::Patient | Level::Study => (study, None),
                    _ => (study, Some(series)),
                };
                let common = agreed.entry(of).or_insert_with(|| words.clone());
                let word = if differs || level_of(tag) == Level::Instance { &words } else { common };
                let vocabulary = vocabulary(tag);
                let text = vocabulary[word[place].index(vocabulary.len())];
                if text.is_empty() {
                    spec.set.remove(tag);
                } else {
                    spec.set.put_text(tag, text);
                }
            }
            specs.push(spec);
        }
        specs
    })
}

type Asked = (Level, Vec<(Tag, String)>, bool, u64, Option<u64>);

fn asked() -> impl Strategy<Value = Asked> {
    let tags: Vec<Tag> = TOLD.into_iter().chain(ASKED).collect();
    let key = (prop::sample::select(tags), any::<prop::sample::Index>()).prop_map(|(tag, word)| {
        let words = keys_of(tag);
        (tag, words[word.index(words.len())].to_owned())
    });
    (
        prop::sample::select(vec![Level::Study, Level::Series, Level::Instance]),
        prop::collection::vec(key, 0..4),
        any::<bool>(),
        0..3_u64,
        prop::option::of(0..6_u64),
    )
}

fn uid_tag(level: Level) -> Tag {
    match level {
        Level::Patient => tags::PATIENT_ID,
        Level::Study => tags::STUDY_INSTANCE_UID,
        Level::Series => tags::SERIES_INSTANCE_UID,
        Level::Instance => tags::SOP_INSTANCE_UID,
    }
}

fn request((level, keys, fuzzy, offset, limit): &Asked) -> Query {
    let keys: Vec<(Tag, &str)> = keys.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
    let mut request = query(*level, &keys);
    request.options = QueryOptions { fuzzy_person_names: *fuzzy, ..QueryOptions::default() };
    (request.offset, request.limit) = (*offset, *limit);
    request
}

async fn index_of(specs: &[Spec]) -> std::sync::Arc<IndexService> {
    index_over(MemoryStore::new(), specs).await
}

async fn index_over(store: std::sync::Arc<MemoryStore>, specs: &[Spec]) -> std::sync::Arc<IndexService> {
    let log = MemoryLog::new(4);
    for spec in specs {
        log.put(spec.record()).await;
    }
    let index = IndexService::open(log.clone(), store, whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    index
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_planner_never_changes_answers(specs in specs(), all in prop::collection::vec(asked(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
        runtime.block_on(async {
            let index = index_of(&specs).await;
            let exact = index_over(MemoryStore::exact(), &specs).await;
            let naive = Naive::new(&specs);
            for asked in &all {
                let request = request(asked);
                let options =
                    MatchOptions { fuzzy_person_names: asked.2, ..MatchOptions::default() };
                let keys = Keys::parse(&request.identifier, &options).expect("usable");
                let expected: Vec<String> = naive
                    .answers(asked.0, &keys)
                    .into_iter()
                    .skip(asked.3 as usize)
                    .take(asked.4.unwrap_or(u64::MAX) as usize)
                    .collect();
                for index in [&index, &exact] {
                    let found = texts(index, request.clone(), uid_tag(asked.0)).await;
                    assert_eq!(found, expected, "{asked:?}");
                }
                let patients = Query { level: Level::Patient, returning: Returning::All, ..request };
                let told = answers(&exact, patients.clone()).await;
                assert_eq!(told, answers(&index, patients).await, "{asked:?} of patients");
            }
            index.close().await.expect("closes");
            exact.close().await.expect("closes");
        });
    }
}

#[tokio::test]
async fn an_unusable_key_is_refused_and_never_matches_all() {
    let index = index_of(&[Spec::new(1, 1, 1, 1)]).await;
    for (tag, text) in [
        (tags::STUDY_DATE, "yesterday"),
        (tags::STUDY_DATE, "20240201-20240101"),
        (tags::STUDY_INSTANCE_UID, "1.2.*"),
        (tags::SERIES_NUMBER, "one"),
    ] {
        let error = index.query(query(Level::Study, &[(tag, text)])).await.err().expect("refused");
        assert_eq!((error.kind, error.reason, error.tags), (ErrorKind::Invalid, Reason::UnusableKey, vec![tag]));
        assert!(!error.message.contains(text), "no value in a message");
    }
    // An empty one and `*` are universal.
    assert_eq!(
        answers(&index, query(Level::Study, &[(tags::PATIENT_NAME, "*"), (tags::STUDY_DATE, "")])).await.len(),
        1
    );
}

#[tokio::test]
async fn patients_are_by_issuer_and_id_and_counted() {
    let mut specs = vec![
        Spec::new(1, 1, 1, 1),
        Spec::new(2, 1, 2, 1),
        Spec::new(3, 2, 1, 1),
        Spec::new(4, 3, 1, 1),
        Spec::new(5, 4, 1, 1),
        Spec::new(6, 5, 1, 1),
    ];
    specs[3].issuer = "OTHER";
    for at in [4, 5] {
        specs[at].set.remove(tags::PATIENT_ID);
        specs[at].set.put_text(tags::PATIENT_NAME, "NOBODY");
    }
    specs[2].set.put_text(tags::PATIENT_SEX, "F");
    for store in [MemoryStore::new(), MemoryStore::exact()] {
        let index = index_over(store, &specs).await;
        patients_are_counted(&index).await;
    }
}

async fn patients_are_counted(index: &IndexService) {
    let counts = [
        tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
        tags::NUMBER_OF_PATIENT_RELATED_SERIES,
        tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
    ];
    let told = |set: &DataSet| {
        let counts: Vec<String> = counts.iter().map(|tag| set.text(*tag).unwrap_or_default().to_owned()).collect();
        let text = |tag| set.text(tag).unwrap_or_default().to_owned();
        (text(tags::ISSUER_OF_PATIENT_ID), text(tags::PATIENT_ID), counts.join(" "))
    };
    let owned = |issuer: &str, id: &str, counts: &str| (issuer.to_owned(), id.to_owned(), counts.to_owned());
    let mut all = query(Level::Patient, &[]);
    all.returning = Returning::All;
    let found = answers(index, all.clone()).await;
    let expected =
        [owned("", "", "1 1 1"), owned("", "", "1 1 1"), owned("", "P1", "2 3 3"), owned("OTHER", "P1", "1 1 1")];
    assert_eq!(found.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(found[2].text(tags::PATIENT_SEX), Some("F"), "said by one of the patient's studies");

    // The same by a way through lists, in pages of the small sorting room.
    let mut named = query(Level::Patient, &[(tags::PATIENT_ID, "P*")]);
    named.returning = Returning::All;
    assert_eq!(answers(index, named).await.iter().map(told).collect::<Vec<_>>(), expected[2..]);
    let mut one = query(Level::Patient, &[(tags::PATIENT_ID, "P1"), (tags::ISSUER_OF_PATIENT_ID, "OTHER")]);
    one.returning = Returning::Keys;
    assert_eq!(texts(index, one, tags::ISSUER_OF_PATIENT_ID).await, ["OTHER"]);
    all.offset = 1;
    all.limit = Some(2);
    assert_eq!(answers(index, all).await.iter().map(told).collect::<Vec<_>>(), expected[1..3]);

    // Counts also restrict, and come with studies.
    let counted = query(Level::Study, &[(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, "2")]);
    assert_eq!(answers(index, counted).await.len(), 2);
    // Another tenant sees nothing.
    let mut other = query(Level::Patient, &[]);
    other.tenant = "other".into();
    assert!(answers(index, other).await.is_empty());
}

#[tokio::test]
async fn sequences_return_keys_and_everything() {
    let mut spec = Spec::new(1, 1, 1, 1);
    let item = |id: &str| {
        let mut item = DataSet::new();
        item.put_text(tags::SCHEDULED_PROCEDURE_STEP_ID, id);
        item.put_text(tags::REQUESTED_PROCEDURE_ID, "R1");
        item
    };
    let vr = cairn_dicom::Vr::SQ;
    let sequence = |items| cairn_dicom::dataset::Value::Sequence(items);
    spec.set.put(tags::REQUEST_ATTRIBUTES_SEQUENCE, vr, sequence(vec![item("S1"), item("S2")]));
    spec.set.put_text(tags::ROWS, "512");
    spec.set.put_text(tags::AVAILABLE_TRANSFER_SYNTAX_UID, "1.2.840.10008.1.2.4.50");
    spec.set.put(
        cairn_dicom::Tag(0x0009_0010),
        cairn_dicom::Vr::LO,
        cairn_dicom::dataset::Value::Text(vec!["MAKER".into()]),
    );
    let index = index_of(&[spec]).await;
    let mut key = DataSet::new();
    key.put_text(tags::SCHEDULED_PROCEDURE_STEP_ID, "S2");
    let mut request = query(Level::Series, &[(tags::STUDY_DATE, ""), (tags::ROWS, "")]);
    request.identifier.put(tags::REQUEST_ATTRIBUTES_SEQUENCE, vr, sequence(vec![key.clone()]));
    request.returning = Returning::Keys;
    let found = answers(&index, request.clone()).await;
    assert_eq!(found.len(), 1);
    let items = found[0].items(tags::REQUEST_ATTRIBUTES_SEQUENCE);
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].elements().len(), 1, "the key's item names one attribute");
    assert_eq!(found[0].text(tags::STUDY_DATE), Some("20240102"));
    assert!(found[0].get(tags::ROWS).is_none(), "of a lower level: does not exist here");
    let mut instances = query(Level::Instance, &[(tags::ROWS, ""), (tags::WINDOW_CENTER, "")]);
    instances.returning = Returning::Keys;
    let instance = answers(&index, instances).await.remove(0);
    assert!(instance.get(tags::ROWS).is_some());
    assert!(instance.get(tags::WINDOW_CENTER).is_some_and(|element| element.value.is_empty()), "no value: empty");
    key.put_text(tags::SCHEDULED_PROCEDURE_STEP_ID, "S3");
    request.identifier.put(tags::REQUEST_ATTRIBUTES_SEQUENCE, vr, sequence(vec![key]));
    assert!(answers(&index, request).await.is_empty());

    let mut all = query(Level::Instance, &[]);
    all.returning = Returning::All;
    let found = answers(&index, all).await;
    assert_eq!(found[0].text(cairn_dicom::Tag(0x0009_0010)), Some("MAKER"));
    assert_eq!(found[0].text(tags::MODALITIES_IN_STUDY), Some("CT"));
    assert_eq!(found[0].text(tags::INSTANCE_AVAILABILITY), Some("ONLINE"));
    assert_eq!(found[0].text(tags::AVAILABLE_TRANSFER_SYNTAX_UID), Some("1.2.840.10008.1.2.1"));
    for (syntax, number) in [("1.2.840.10008.1.2.1", 1), ("1.2.840.10008.1.2.4.70", 0)] {
        let stored_as = query(Level::Instance, &[(tags::AVAILABLE_TRANSFER_SYNTAX_UID, syntax)]);
        assert_eq!(answers(&index, stored_as).await.len(), number, "{syntax}");
    }
}

#[tokio::test]
async fn readers_that_stall_keep_nobody_from_asking() {
    let specs: Vec<Spec> = (1..=40).map(|n| Spec::new(n, n, 1, 1)).collect();
    let log = MemoryLog::new(4);
    for spec in &specs {
        log.put(spec.record()).await;
    }
    let config = cairn_index::IndexConfig { queries_max: 1, ..small() };
    let index = IndexService::open(log.clone(), MemoryStore::new(), whole(&*log), config).await.expect("opens");
    settled(&index).await;
    let all = || query(Level::Study, &[(tags::STUDY_INSTANCE_UID, "")]);
    let mut stalled = Vec::new();
    for _ in 0..5 {
        stalled.push(index.query(all()).await.expect("usable"));
    }
    let asked = tokio::time::timeout(std::time::Duration::from_secs(20), answers(&index, all()));
    assert_eq!(asked.await.expect("answered beside them").len(), specs.len());
    for reader in stalled {
        let late: Vec<_> = futures_util::StreamExt::collect(reader).await;
        assert!(late.iter().all(Result::is_ok) && late.len() == specs.len(), "nothing is missing for the late");
    }
}

#[tokio::test]
async fn a_defect_is_an_error_and_never_the_end_of_the_answers() {
    let log = MemoryLog::new(1);
    log.put(Spec::new(1, 1, 1, 1).record()).await;
    let store = MemoryStore::new();
    let index = IndexService::open(log.clone(), store.clone(), whole(&*log), small()).await.expect("opens");
    settled(&index).await;
    *store.fault.lock().expect("not poisoned") = support::Fault::PanicAtReads;
    for level in [Level::Patient, Level::Study, Level::Series, Level::Instance] {
        let stream = index.query(query(level, &[(tags::STUDY_INSTANCE_UID, "")])).await.expect("usable");
        let given: Vec<_> = futures_util::StreamExt::collect(stream).await;
        assert!(matches!(&given[..], [Err(error)] if error.kind == ErrorKind::Internal), "{level:?}: {given:?}");
    }
}
