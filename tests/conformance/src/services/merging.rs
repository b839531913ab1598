use super::{SOON, Site, all, asking::query, collect, of_study, open, store};
use cairn_archive::{Position, PositionVector, fold::PatientIdentity, patients::Standing};
use cairn_dicom::{Tag, Uid, dataset::DataSet, tags};
use cairn_service_api::{
    DEFAULT_TENANT, Error, ErrorKind,
    index::{Level, Selection},
    patients::{FactsOf, KnownFact, PatientChange, PatientRevocation, PatientStatement},
    retrieval::Part,
};
use cairn_synthetic::Generated as Instance;
use futures_util::StreamExt;
use std::{collections::BTreeMap, sync::Arc};

/// Studies of two patients.
struct Two {
    one: Instance,
    other: Instance,
}

/// Stores the first instance of studies until two are of different patients.
async fn two_patients(site: &dyn Site, seed: u64) -> Two {
    let receipt = open(site).await;
    let mut made: Vec<Instance> = Vec::new();
    for instance in cairn_synthetic::studies(seed, 12) {
        if made.iter().all(|other| other.study_instance_uid != instance.study_instance_uid) {
            let stored = store(site, receipt, &instance.file).await.unwrap();
            seen(site, &stored.position).await;
            made.push(instance);
        }
    }
    let one = made.remove(0);
    let id = whose(site, &one).await.id;
    for other in made {
        if whose(site, &other).await.id != id {
            return Two { one, other };
        }
    }
    panic!("all synthetic studies are of one patient");
}

async fn seen(site: &dyn Site, position: &Position) {
    let mut after = PositionVector::default();
    after.include(position);
    site.index().wait_for(&after, SOON).await.unwrap();
}

async fn answer(site: &dyn Site, instance: &Instance) -> DataSet {
    let keys = [
        (tags::STUDY_INSTANCE_UID, instance.study_instance_uid.as_str()),
        (tags::PATIENT_ID, ""),
        (tags::ISSUER_OF_PATIENT_ID, ""),
        (tags::PATIENT_NAME, ""),
        (tags::OTHER_PATIENT_IDS_SEQUENCE, ""),
        (tags::NUMBER_OF_PATIENT_RELATED_STUDIES, ""),
    ];
    all(site.index().query(query(Level::Study, &keys)).await.unwrap()).await.pop().unwrap()
}

/// Whose a study is.
async fn whose(site: &dyn Site, instance: &Instance) -> PatientIdentity {
    let answer = answer(site, instance).await;
    let text = |tag| answer.text(tag).unwrap_or_default().to_owned();
    PatientIdentity { issuer: text(tags::ISSUER_OF_PATIENT_ID), id: text(tags::PATIENT_ID) }
}

async fn studies(site: &dyn Site, keys: &[(Tag, &str)]) -> Vec<Uid> {
    let keys = [&[(tags::STUDY_INSTANCE_UID, "")], keys].concat();
    let answers = all(site.index().query(query(Level::Study, &keys)).await.unwrap()).await;
    answers.iter().filter_map(|answer| answer.uid(tags::STUDY_INSTANCE_UID)).collect()
}

async fn say(site: &dyn Site, change: PatientChange) -> Result<Position, Error> {
    let statement = PatientStatement {
        tenant: DEFAULT_TENANT.into(),
        change,
        by: "trial".into(),
        reason: "registered twice".into(),
    };
    let position = site.ingest().say_of_patients(statement).await?;
    seen(site, &position).await;
    Ok(position)
}

async fn take_back(site: &dyn Site, position: Position) -> Result<Position, Error> {
    let revocation = PatientRevocation { position, by: "trial".into(), reason: "two people".into() };
    let at = site.ingest().revoke_patient_fact(revocation).await?;
    seen(site, &at).await;
    Ok(at)
}

/// Files of a selection by SOP Instance UID.
async fn files(site: &dyn Site, selection: Selection) -> BTreeMap<Uid, Vec<u8>> {
    let mut found = site.retrieval().instances(selection, Part::File).await.unwrap();
    let mut files = BTreeMap::new();
    while let Some(instance) = found.next().await {
        let instance = instance.unwrap();
        files.insert(instance.record.sop_instance_uid, collect(instance.bytes).await.unwrap());
    }
    files
}

async fn facts(site: &dyn Site, of: FactsOf) -> Vec<KnownFact> {
    all(site.index().patient_facts(DEFAULT_TENANT, of).await.unwrap()).await
}

pub(super) async fn a_merged_patient_is_the_surviving_one_until_that_is_taken_back(site: Arc<dyn Site>) {
    let Two { one, other } = two_patients(&*site, 21).await;
    let (prior, surviving) = (whose(&*site, &one).await, whose(&*site, &other).await);
    let (study, of_other) = (&one.study_instance_uid, &other.study_instance_uid);
    let (before, digest) = (files(&*site, of_study(study)).await, site.index().digest().await.unwrap().0);
    let theirs = |id: &str| vec![(tags::PATIENT_ID, id.to_owned())];
    let of = async |keys: Vec<(Tag, String)>| {
        let keys: Vec<(Tag, &str)> = keys.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
        studies(&*site, &keys).await
    };
    let (of_prior, of_surviving) = (of(theirs(&prior.id)).await, of(theirs(&surviving.id)).await);
    assert!(of_prior.contains(study) && !of_surviving.contains(study));

    let merge = PatientChange::Merge { prior: prior.clone(), surviving: surviving.clone() };
    let at = say(&*site, merge.clone()).await.unwrap();
    let mut together = [of_prior.clone(), of_surviving.clone()].concat();
    together.sort();
    for id in [&prior.id, &surviving.id] {
        let mut found = of(theirs(id)).await;
        found.sort();
        assert_eq!(found, together, "whichever ID is asked for");
    }
    let start: String = surviving.id.chars().take(surviving.id.chars().count() - 1).collect();
    assert!(of(theirs(&format!("{start}*"))).await.contains(study), "by a part of the surviving ID");
    let pair = [(tags::PATIENT_ID, prior.id.as_str()), (tags::ISSUER_OF_PATIENT_ID, "ANOTHER-ISSUER")];
    assert!(studies(&*site, &pair).await.is_empty(), "another issuer's patient of the same ID");
    assert_eq!(whose(&*site, &one).await, surviving);
    let count = answer(&*site, &one).await.text(tags::NUMBER_OF_PATIENT_RELATED_STUDIES).map(str::to_owned);
    assert_eq!(count, Some(together.len().to_string()));
    let patients = |id: &str| vec![(tags::PATIENT_ID, id.to_owned())];
    for keys in [patients(""), patients(&prior.id), patients(&surviving.id)] {
        let keys: Vec<(Tag, &str)> = keys.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
        let answers = all(site.index().query(query(Level::Patient, &keys)).await.unwrap()).await;
        let ids: Vec<_> = answers.iter().filter_map(|answer| answer.text(tags::PATIENT_ID)).collect();
        assert_eq!(ids.iter().filter(|id| **id == surviving.id).count(), 1, "one answer for both: {ids:?}");
        assert!(!ids.contains(&prior.id.as_str()));
    }
    let by_patient = Selection { patient: Some((prior.id.clone(), None)), ..Selection::default() };
    let by_patient = Selection { tenant: DEFAULT_TENANT.into(), ..by_patient };
    let given = files(&*site, by_patient).await;
    assert!(given.contains_key(&one.sop_instance_uid) && given.contains_key(&other.sop_instance_uid));
    for record in all(site.retrieval().metadata(of_study(study)).await.unwrap()).await {
        let header = cairn_dicom::Header::new(&record.header);
        assert_eq!(header.text(tags::PATIENT_ID), Some(surviving.id.as_bytes()));
        assert!(header.get(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).is_some());
    }
    assert!(before.iter().all(|(uid, bytes)| given[uid] != *bytes));
    assert_eq!(files(&*site, Selection { as_stored: true, ..of_study(study) }).await, before);
    let known = facts(&*site, FactsOf::Study(of_other.clone())).await;
    assert_eq!(known.iter().map(|fact| fact.position.clone()).collect::<Vec<_>>(), [Some(at.clone())]);
    assert_eq!(facts(&*site, FactsOf::Everybody).await, known);

    let again = say(&*site, merge).await.unwrap_err();
    let back = PatientChange::Merge { prior: surviving.clone(), surviving: prior.clone() };
    let cycle = say(&*site, back).await.unwrap_err();
    assert_eq!([again.kind, cycle.kind], [ErrorKind::Conflict; 2]);
    assert!(!cycle.message.contains(&prior.id), "{cycle}");

    let undone = take_back(&*site, at).await.unwrap();
    assert_eq!(files(&*site, of_study(study)).await, before, "undone to the byte");
    assert_eq!(of(theirs(&prior.id)).await, of_prior);
    assert_eq!(of(theirs(&surviving.id)).await, of_surviving);
    assert_eq!(whose(&*site, &one).await, prior);
    let now = site.index().digest().await.unwrap().0;
    assert!(now.events != digest.events && now.studies == digest.studies);
    assert_eq!(take_back(&*site, undone).await.unwrap_err().kind, ErrorKind::NotFound);
    let known = facts(&*site, FactsOf::Patient(prior)).await;
    let resolution = cairn_archive::patients::Resolution::of(known.iter().map(KnownFact::fact));
    let standings: Vec<Standing> = resolution.facts().iter().map(|(_, standing)| *standing).collect();
    assert_eq!(standings, [Standing::Revoked, Standing::Counts]);
}

pub(super) async fn an_updated_patient_is_found_and_given_out_so(site: Arc<dyn Site>) {
    let Two { one, other } = two_patients(&*site, 22).await;
    let patient = whose(&*site, &one).await;
    let study = &one.study_instance_uid;
    let before = files(&*site, of_study(study)).await;
    let named = answer(&*site, &one).await.text(tags::PATIENT_NAME).unwrap().to_owned();
    let mut elements = DataSet::new();
    elements.put_text(tags::PATIENT_NAME, "Updated^Jürgen");
    let update = PatientChange::Update { patient: patient.clone(), elements };
    let at = say(&*site, update).await.unwrap();
    for name in ["UPDATED*", "Updated^Jürgen", named.as_str()] {
        assert!(studies(&*site, &[(tags::PATIENT_NAME, name)]).await.contains(study), "every variant matches");
    }
    assert_eq!(answer(&*site, &one).await.text(tags::PATIENT_NAME), Some("Updated^Jürgen"));
    let others = answer(&*site, &other).await;
    assert_ne!(others.text(tags::PATIENT_NAME), Some("Updated^Jürgen"));
    assert!(files(&*site, of_study(study)).await.iter().all(|(uid, bytes)| before[uid] != *bytes));
    take_back(&*site, at).await.unwrap();
    assert_eq!(files(&*site, of_study(study)).await, before, "undone to the byte");
    assert!(studies(&*site, &[(tags::PATIENT_NAME, "UPDATED*")]).await.is_empty());
}

pub(super) async fn linked_patients_stay_and_are_found_together(site: Arc<dyn Site>) {
    let Two { one, other } = two_patients(&*site, 23).await;
    let (first, second) = (whose(&*site, &one).await, whose(&*site, &other).await);
    let before = files(&*site, of_study(&one.study_instance_uid)).await;
    let at = say(&*site, PatientChange::Link { one: first.clone(), other: second.clone() }).await.unwrap();
    let found = studies(&*site, &[(tags::PATIENT_ID, first.id.as_str())]).await;
    assert!(found.contains(&one.study_instance_uid) && found.contains(&other.study_instance_uid));
    assert_eq!(whose(&*site, &other).await, second, "both stay");
    let listed = answer(&*site, &one).await;
    let others: Vec<_> =
        listed.items(tags::OTHER_PATIENT_IDS_SEQUENCE).iter().filter_map(|item| item.text(tags::PATIENT_ID)).collect();
    assert_eq!(others, [second.id.as_str()]);
    assert_eq!(files(&*site, of_study(&one.study_instance_uid)).await, before);
    take_back(&*site, at).await.unwrap();
    let found = studies(&*site, &[(tags::PATIENT_ID, first.id.as_str())]).await;
    assert!(!found.contains(&other.study_instance_uid));
}

pub(super) async fn what_can_not_be_said_of_patients_is_refused(site: Arc<dyn Site>) {
    let who = |issuer: &str, id: &str| PatientIdentity { issuer: issuer.into(), id: id.into() };
    let update = |tag, text: &str| {
        let mut elements = DataSet::new();
        elements.put_text(tag, text);
        PatientChange::Update { patient: who("H", "P1"), elements }
    };
    for bad in [
        PatientChange::Merge { prior: who("H", "P1"), surviving: who("H", " P1 ") },
        PatientChange::Merge { prior: who("H", ""), surviving: who("H", "P1") },
        PatientChange::Link { one: who("H", "A\\B"), other: who("H", "P1") },
        update(tags::PATIENT_ID, "P2"),
        update(tags::STUDY_DESCRIPTION, "A"),
        update(tags::PATIENT_BIRTH_DATE, "yesterday"),
    ] {
        let error = say(&*site, bad).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(!error.message.contains("yesterday") && !error.message.contains("P1"), "{error}");
    }
}
