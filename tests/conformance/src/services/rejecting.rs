use super::{SOON, Site, all, asking::query, fill, of_study, open, store};
use cairn_archive::{
    PositionVector,
    rejection::{KEY_OBJECT_SELECTION_DOCUMENT, RejectionTitle, Titles},
};
use cairn_dicom::{
    CharacterSet, Tag, Uid, Vr,
    dataset::{DataSet, Value},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};
use cairn_service_api::{
    DEFAULT_TENANT, ErrorKind, Reason,
    index::{Detail, InstanceRecord, Level, Query, Selection},
    ingest::{StoreOutcome, Stored},
    rejection::Revocation,
};
use cairn_synthetic::Generated;
use std::{collections::BTreeMap, sync::Arc};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// An instance by study, series and SOP Instance UID.
type Named = (Uid, Uid, Uid);

fn texts(texts: &[(Tag, &str)]) -> DataSet {
    let mut set = DataSet::new();
    texts.iter().for_each(|(tag, text)| set.put_text(*tag, text));
    set
}

fn put_items(set: &mut DataSet, tag: Tag, items: Vec<DataSet>) {
    set.put(tag, Vr::SQ, Value::Sequence(items));
}

/// A rejection note of a study, as a file.
fn note(n: u32, study: &Uid, title: &str, rejected: &[Named]) -> Vec<u8> {
    let mut studies: BTreeMap<&Uid, BTreeMap<&Uid, Vec<DataSet>>> = BTreeMap::new();
    for (study, series, sop) in rejected {
        let item = texts(&[(tags::REFERENCED_SOP_CLASS_UID, CT), (tags::REFERENCED_SOP_INSTANCE_UID, sop.as_str())]);
        studies.entry(study).or_default().entry(series).or_default().push(item);
    }
    let evidence = studies.into_iter().map(|(study, series)| {
        let series = series.into_iter().map(|(series, instances)| {
            let mut item = texts(&[(tags::SERIES_INSTANCE_UID, series.as_str())]);
            put_items(&mut item, tags::REFERENCED_SOP_SEQUENCE, instances);
            item
        });
        let mut item = texts(&[(tags::STUDY_INSTANCE_UID, study.as_str())]);
        put_items(&mut item, tags::REFERENCED_SERIES_SEQUENCE, series.collect());
        item
    });
    let sop: Uid = format!("2.25.77.{n}").parse().unwrap();
    let mut set = texts(&[
        (tags::SOP_CLASS_UID, KEY_OBJECT_SELECTION_DOCUMENT),
        (tags::SOP_INSTANCE_UID, sop.as_str()),
        (tags::STUDY_INSTANCE_UID, study.as_str()),
        (tags::SERIES_INSTANCE_UID, &format!("2.25.78.{n}")),
        (tags::MODALITY, "KO"),
        (tags::PATIENT_ID, "ANNA"),
    ]);
    let concept = texts(&[(tags::CODE_VALUE, title), (tags::CODING_SCHEME_DESIGNATOR, "DCM")]);
    put_items(&mut set, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]);
    put_items(&mut set, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, evidence.collect());
    let meta = write_file_meta(&NewFileMeta {
        sop_class_uid: &KEY_OBJECT_SELECTION_DOCUMENT.parse().unwrap(),
        sop_instance_uid: &sop,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    [meta, set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).unwrap()].concat()
}

fn quality() -> Titles {
    [RejectionTitle::QualityReasons].into_iter().collect()
}

async fn seen(site: &dyn Site, stored: &Stored) {
    let mut after = PositionVector::default();
    [&stored.position].into_iter().chain(&stored.rejections).for_each(|position| after.include(position));
    site.index().wait_for(&after, SOON).await.unwrap();
}

async fn revoke(site: &dyn Site, stored: &Stored) {
    for position in &stored.rejections {
        let revocation = Revocation { position: position.clone(), by: "trial".into(), reason: "it was right".into() };
        let at = site.ingest().revoke_rejection(revocation).await.unwrap();
        seen(site, &Stored { position: at, ..stored.clone() }).await;
    }
}

async fn instances(site: &dyn Site, selection: Selection) -> Vec<InstanceRecord> {
    all(site.index().instances(selection, Detail::Header).await.unwrap()).await
}

fn names(records: &[InstanceRecord]) -> Vec<Named> {
    let name = |record: &InstanceRecord| {
        let of = (record.study_instance_uid.clone(), record.series_instance_uid.clone());
        (of.0, of.1, record.sop_instance_uid.clone())
    };
    let mut names: Vec<_> = records.iter().map(name).collect();
    names.sort();
    names
}

/// A study of several instances, and its number.
fn several() -> (u64, Vec<Generated>) {
    (0..).map(|study| (study, cairn_synthetic::one_study(5, study))).find(|(_, made)| made.len() >= 4).unwrap()
}

/// The same, stored.
async fn stored_study(site: &dyn Site) -> Vec<Generated> {
    let (receipt, (_, made)) = (open(site).await, several());
    for one in &made {
        seen(site, &store(site, receipt, &one.file).await.unwrap()).await;
    }
    made
}

/// Names of what was made.
async fn names_of(site: &dyn Site, made: &[Generated]) -> Vec<Named> {
    names(&instances(site, of_study(&made[0].study_instance_uid)).await)
}

pub(super) async fn a_note_hides_what_it_names_until_it_is_revoked(site: Arc<dyn Site>) {
    let (made, receipt) = (stored_study(&*site).await, open(&*site).await);
    let study = &made[0].study_instance_uid;
    let before = names_of(&*site, &made).await;
    let file = note(1, study, "113001", &before[..2]);
    let stored = store(&*site, receipt, &file).await.unwrap();
    assert_eq!((stored.outcome, stored.rejections.len()), (StoreOutcome::New, 1));
    seen(&*site, &stored).await;
    let shown = instances(&*site, of_study(study)).await;
    let noted = (study.clone(), "2.25.78.1".parse().unwrap(), "2.25.77.1".parse().unwrap());
    let mut expected = [&before[2..], std::slice::from_ref(&noted)].concat();
    expected.sort();
    assert_eq!(names(&shown), expected, "the note itself is shown");
    let to_others = instances(&*site, Selection { sees_rejected: quality(), ..of_study(study) }).await;
    assert_eq!(to_others.len(), before.len() + 1);
    assert!(to_others.iter().all(|record| !record.header.is_empty() && record.shown == record.rejected.is_empty()));
    let every = instances(&*site, Selection { all_versions: true, ..of_study(study) }).await;
    let rejected: Vec<_> = every.iter().filter(|record| record.rejected == quality()).cloned().collect();
    assert_eq!((every.len(), names(&rejected)), (before.len() + 1, before[..2].to_vec()));
    let digest = rejected[0].object.digest;
    let by_digest = instances(&*site, Selection { version: Some(digest), ..of_study(study) }).await;
    assert_eq!(by_digest.len(), 1, "its bytes are there for who names them");

    let again = store(&*site, receipt, &file).await.unwrap();
    assert_eq!((again.outcome, again.rejections.len()), (StoreOutcome::Repeat, 0), "it says nothing new");
    revoke(&*site, &stored).await;
    assert_eq!(names(&instances(&*site, of_study(study)).await).len(), before.len() + 1);
    let again = store(&*site, receipt, &file).await.unwrap();
    assert_eq!(again.rejections.len(), 0, "what was taken back stays taken back");
    for nowhere in [stored.position.clone(), again.position] {
        let revocation = Revocation { position: nowhere, by: String::new(), reason: String::new() };
        assert_eq!(site.ingest().revoke_rejection(revocation).await.unwrap_err().kind, ErrorKind::NotFound);
    }
}

pub(super) async fn what_is_rejected_is_counted_for_those_who_see_it(site: Arc<dyn Site>) {
    let (made, receipt) = (stored_study(&*site).await, open(&*site).await);
    let study = made[0].study_instance_uid.clone();
    let before = names_of(&*site, &made).await;
    let asked = |level, sees_rejected| Query {
        sees_rejected,
        ..query(
            level,
            &[
                (tags::STUDY_INSTANCE_UID, study.as_str()),
                (tags::PATIENT_NAME, ""),
                (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, ""),
                (tags::NUMBER_OF_STUDY_RELATED_SERIES, ""),
                (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, ""),
            ],
        )
    };
    let ask = async |level, sees| all(site.index().query(asked(level, sees)).await.unwrap()).await;
    let earlier = [ask(Level::Study, quality()).await, ask(Level::Series, quality()).await];
    // The note is in another study, so that nothing of this one is left.
    let other: Uid = "2.25.79".parse().unwrap();
    let stored = store(&*site, receipt, &note(1, &other, "113001", &before)).await.unwrap();
    seen(&*site, &stored).await;
    for level in [Level::Study, Level::Series, Level::Instance] {
        assert!(ask(level, Titles::default()).await.is_empty(), "{level:?}: hidden");
        let safety = [RejectionTitle::PatientSafetyReasons].into_iter().collect();
        assert!(ask(level, safety).await.is_empty(), "{level:?}: by another title than they see");
    }
    assert_eq!([ask(Level::Study, quality()).await, ask(Level::Series, quality()).await], earlier);
    assert_eq!(ask(Level::Instance, quality()).await.len(), before.len());
    let name = earlier[0][0].text(tags::PATIENT_NAME).unwrap();
    let by_name = |sees_rejected| Query {
        sees_rejected,
        ..query(Level::Study, &[(tags::PATIENT_NAME, name), (tags::STUDY_INSTANCE_UID, "")])
    };
    let found = async |sees| all(site.index().query(by_name(sees)).await.unwrap()).await;
    assert!(found(Titles::default()).await.is_empty());
    assert_eq!(found(quality()).await[0].text(tags::STUDY_INSTANCE_UID), Some(study.as_str()), "by any key");
    let everything = |offset| Query { offset, sees_rejected: quality(), ..query(Level::Study, &[]) };
    assert_eq!(all(site.index().query(everything(0)).await.unwrap()).await.len(), 2);
    assert_eq!(all(site.index().query(everything(1)).await.unwrap()).await.len(), 1);
    let digest = site.index().digest().await.unwrap().0;
    assert_eq!(digest.studies, 2, "what is hidden is in the digest");
}

pub(super) async fn a_rejected_instance_sent_again_is_shown(site: Arc<dyn Site>) {
    let (made, receipt) = (stored_study(&*site).await, open(&*site).await);
    let study = &made[0].study_instance_uid;
    let before = names_of(&*site, &made).await;
    seen(&*site, &store(&*site, receipt, &note(1, study, "113037", &before)).await.unwrap()).await;
    let again = store(&*site, receipt, &made[0].file).await.unwrap();
    assert_eq!(again.outcome, StoreOutcome::New, "as if it were not there");
    seen(&*site, &again).await;
    let shown = instances(&*site, of_study(study)).await;
    assert_eq!(shown.iter().filter(|record| record.sop_instance_uid == made[0].sop_instance_uid).count(), 1);
    assert_eq!(shown.len(), 2, "it and the note: {shown:?}");
    let once_more = store(&*site, receipt, &made[0].file).await.unwrap();
    assert_eq!(once_more.outcome, StoreOutcome::Repeat, "of the one that is shown");
    assert!(all(site.index().conflicts(DEFAULT_TENANT, true).await.unwrap()).await.is_empty());
}

pub(super) async fn a_note_before_its_instances_hides_them(site: Arc<dyn Site>) {
    let receipt = open(&*site).await;
    let (number, made) = several();
    let study = &made[0].study_instance_uid;
    let first = (study.clone(), cairn_synthetic::uid(5, number, 1, 0), made[0].sop_instance_uid.clone());
    // In another series than it will be in: what is meant is the instance, but nobody can know where it will be.
    let elsewhere = (study.clone(), "2.25.1".parse().unwrap(), made[1].sop_instance_uid.clone());
    let file = note(1, study, "113038", &[first.clone(), elsewhere]);
    seen(&*site, &store(&*site, receipt, &file).await.unwrap()).await;
    for one in &made {
        seen(&*site, &store(&*site, receipt, &one.file).await.unwrap()).await;
    }
    let shown = names_of(&*site, &made).await;
    assert_eq!(shown.len(), made.len(), "all but the first, and the note");
    assert!(!shown.contains(&first));
    let moved = (study.clone(), "2.25.1".parse().unwrap(), made[1].sop_instance_uid.clone());
    seen(&*site, &store(&*site, receipt, &note(2, study, "113038", &[moved])).await.unwrap()).await;
    let shown = names_of(&*site, &made).await;
    assert!(shown.iter().all(|(_, _, sop)| *sop != made[1].sop_instance_uid), "in the series that it is in");
}

pub(super) async fn a_note_about_other_studies_rejects_there(site: Arc<dyn Site>) {
    let (made, receipt) = (fill(&*site, 5, 3).await, open(&*site).await);
    let mut named: Vec<Named> =
        names(&instances(&*site, Selection { tenant: DEFAULT_TENANT.into(), ..Selection::default() }).await);
    named.dedup_by_key(|(study, _, _)| study.clone());
    assert_eq!(named.len(), 3);
    let file = note(1, &made[0].study_instance_uid, "113039", &named);
    let stored = store(&*site, receipt, &file).await.unwrap();
    assert_eq!(stored.rejections.len(), 3);
    seen(&*site, &stored).await;
    for (study, _, sop) in &named {
        assert!(instances(&*site, of_study(study)).await.iter().all(|record| record.sop_instance_uid != *sop));
    }
    let again = store(&*site, receipt, &file).await.unwrap();
    assert_eq!((again.outcome, again.rejections.len()), (StoreOutcome::Repeat, 0));
    revoke(&*site, &stored).await;
    for (study, _, sop) in &named {
        assert!(instances(&*site, of_study(study)).await.iter().any(|record| record.sop_instance_uid == *sop));
    }
}

pub(super) async fn a_note_that_names_nothing_is_refused(site: Arc<dyn Site>) {
    let receipt = open(&*site).await;
    let file = note(1, &"2.25.80".parse().unwrap(), "113001", &[]);
    let refused = store(&*site, receipt, &file).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (ErrorKind::Invalid, Reason::CannotUnderstand));
    let entries = all(site.ingest().quarantine().await.unwrap()).await;
    let [entry] = entries.as_slice() else { panic!("one entry, not {entries:?}") };
    assert!(entry.complete && entry.length > 0);
    // Another document of the kind is nothing special.
    let other = store(&*site, receipt, &note(2, &"2.25.80".parse().unwrap(), "113000", &[])).await.unwrap();
    assert_eq!((other.outcome, other.rejections.len()), (StoreOutcome::New, 0));
}
