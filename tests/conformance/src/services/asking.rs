use super::{Site, all, fill, of_study};
use cairn_archive::{
    Offset, PositionVector,
    digest::{HashSum, event_hash},
};
use cairn_dicom::{dataset::DataSet, tags};
use cairn_service_api::survey::{FoundStudy, Survey};
use cairn_service_api::{
    DEFAULT_TENANT, ErrorKind, Index, Reason,
    digests::Of,
    index::{Certificate, Change, Detail, Diff, Level, Query, QueryOptions, Returning, Role, Then, Until},
};
use futures_util::StreamExt;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub(super) fn query(level: Level, keys: &[(cairn_dicom::Tag, &str)]) -> Query {
    let mut identifier = DataSet::new();
    for (tag, value) in keys {
        if value.is_empty() {
            identifier.put_empty(*tag);
        } else {
            identifier.put_text(*tag, value);
        }
    }
    Query {
        tenant: DEFAULT_TENANT.into(),
        level,
        identifier,
        options: QueryOptions::default(),
        returning: Returning::Keys,
        offset: 0,
        limit: None,
        generation: None,
        sees_rejected: Default::default(),
    }
}

pub(super) async fn every_level_answers(site: Arc<dyn Site>) {
    let made = fill(&*site, 5, 6).await;
    let studies: BTreeSet<_> = made.iter().map(|one| one.study_instance_uid.to_string()).collect();
    let instances: BTreeSet<_> = made.iter().map(|one| one.sop_instance_uid.to_string()).collect();
    let texts = |answers: Vec<DataSet>, tag| -> BTreeSet<String> {
        answers.iter().map(|answer| answer.text(tag).unwrap().to_owned()).collect()
    };
    let index = site.index();
    let found = all(index.query(query(Level::Study, &[(tags::STUDY_INSTANCE_UID, "")])).await.unwrap()).await;
    assert_eq!(texts(found, tags::STUDY_INSTANCE_UID), studies);
    let found = all(index.query(query(Level::Instance, &[(tags::SOP_INSTANCE_UID, "")])).await.unwrap()).await;
    assert_eq!(texts(found, tags::SOP_INSTANCE_UID), instances);
    let series = all(index.query(query(Level::Series, &[(tags::SERIES_INSTANCE_UID, "")])).await.unwrap()).await;
    assert!(series.len() >= studies.len());
    let patients = all(index.query(query(Level::Patient, &[(tags::PATIENT_ID, "")])).await.unwrap()).await;
    assert!(!patients.is_empty() && patients.len() <= studies.len());
    let levels = [(Level::Patient, false), (Level::Study, false), (Level::Series, false), (Level::Instance, true)];
    for (level, supported) in levels {
        let keys = [(tags::PATIENT_COMMENTS, ""), (tags::INSTANCE_AVAILABILITY, ""), (tags::WINDOW_CENTER, "")];
        let found = all(index.query(query(level, &keys)).await.unwrap()).await;
        assert!(!found.is_empty());
        for answer in found {
            assert!(answer.get(tags::PATIENT_COMMENTS).is_some(), "{level:?}: with or without a value");
            assert_eq!(answer.text(tags::INSTANCE_AVAILABILITY), Some("ONLINE"), "{level:?}");
            assert_eq!(answer.get(tags::WINDOW_CENTER).is_some(), supported, "{level:?}: left out if unsupported");
        }
    }
    let mut everything = query(Level::Study, &[]);
    everything.returning = Returning::All;
    let found = all(index.query(everything).await.unwrap()).await;
    assert!(found.iter().all(|answer| answer.get(tags::STUDY_DESCRIPTION).is_some()));
}

pub(super) async fn limit_and_offset_cut_one_stable_order(site: Arc<dyn Site>) {
    fill(&*site, 6, 7).await;
    let index = site.index();
    let studies = query(Level::Study, &[(tags::STUDY_INSTANCE_UID, ""), (tags::STUDY_DATE, "")]);
    let whole = all(index.query(studies.clone()).await.unwrap()).await;
    assert_eq!(whole.len(), 7);
    let dates: Vec<_> = whole.iter().map(|answer| answer.text(tags::STUDY_DATE).unwrap()).collect();
    assert!(dates.is_sorted_by(|a, b| a >= b), "{dates:?}");
    let mut pages = Vec::new();
    for offset in (0..9).step_by(3) {
        let page = Query { offset, limit: Some(3), ..studies.clone() };
        pages.extend(all(index.query(page).await.unwrap()).await);
    }
    assert_eq!(pages, whole);
}

pub(super) async fn names_in_every_script_come_back(site: Arc<dyn Site>) {
    fill(&*site, 7, 40).await;
    let found = all(site.index().query(query(Level::Patient, &[(tags::PATIENT_NAME, "")])).await.unwrap()).await;
    let names: BTreeSet<_> = found.iter().map(|answer| answer.text(tags::PATIENT_NAME).unwrap()).collect();
    for name in ["MÜLLER-LÜDENSCHEIDT^SYNTHETIC", "ДОСТОЕВСКИЙ^SYNTHETIC", "Yamada^SYNTHETIC=山田^太郎=やまだ^たろう"]
    {
        assert!(names.contains(name), "{name} is not in {names:?}");
        let by_name = query(Level::Patient, &[(tags::PATIENT_NAME, name)]);
        assert!(!all(site.index().query(by_name).await.unwrap()).await.is_empty(), "{name}");
    }
}

pub(super) async fn an_unusable_key_is_an_error(site: Arc<dyn Site>) {
    fill(&*site, 8, 1).await;
    for (tag, value) in [(tags::STUDY_DATE, "2026-13-45"), (tags::STUDY_INSTANCE_UID, "not-a-uid")] {
        let answer = match site.index().query(query(Level::Study, &[(tag, value)])).await {
            Err(error) => error,
            Ok(mut answers) => answers.next().await.expect("an error").expect_err("an error, never every study"),
        };
        assert_eq!((answer.kind, answer.reason), (ErrorKind::Invalid, Reason::UnusableKey), "{tag:?}");
        assert!(!answer.message.contains(value), "the value may be a patient's");
    }
}

pub(super) async fn waiting_for_what_will_not_come_ends(site: Arc<dyn Site>) {
    fill(&*site, 9, 1).await;
    let mut after: PositionVector = site.index().status().await.unwrap().folded;
    after.0.values_mut().for_each(|end| *end = Offset(end.0 + 1_000));
    let late = site.index().wait_for(&after, Duration::from_millis(20)).await.expect_err("not there");
    assert_eq!((late.kind, late.reason), (ErrorKind::Unavailable, Reason::NotYetIndexed));
}

pub(super) async fn status_counts_and_digest_is_reproduced(site: Arc<dyn Site>) {
    let made = fill(&*site, 10, 4).await;
    let index = site.index();
    let status = index.status().await.unwrap();
    assert_eq!((status.studies, status.instances, status.parked), (4, made.len() as u64, 0));
    let (digest, _) = index.digest().await.unwrap();
    for then in [Then::Drop, Then::Serve] {
        let begun = index.manage(Change::Rebuild { then }).await.unwrap().generation;
        let certificate = decided(&*index, begun).await;
        assert_eq!((certificate.serving, certificate.own), (digest, digest));
        assert_eq!(index.status().await.unwrap().generation == begun, then == Then::Serve);
    }
    let again = index.status().await.unwrap();
    assert_eq!((again.studies, again.instances), (status.studies, status.instances));
    assert!(again.generation > status.generation);
}

/// How a generation compared, once it is not being filled any more.
async fn decided(index: &dyn Index, generation: u32) -> Certificate {
    for _ in 0..3_000 {
        let all = index.generations().await.unwrap();
        let own = all.into_iter().find(|status| status.generation == generation).expect("listed");
        if own.role != Role::Filling {
            return own.certificate.expect("compared");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("generation {generation} is filled in time");
}

pub(super) async fn generations_are_told_apart_and_asked(site: Arc<dyn Site>) {
    fill(&*site, 10, 4).await;
    let index = site.index();
    let first = index.status().await.unwrap().generation;
    let begun = index.manage(Change::Rebuild { then: Then::Serve }).await.unwrap().generation;
    decided(&*index, begun).await;
    let diff = |a, b| Diff { tenant: DEFAULT_TENANT.into(), a, b, limit: 3 };
    assert!(all(index.diff(diff(first, begun)).await.unwrap()).await.is_empty());
    let refused = index.manage(Change::Drop(begun)).await.expect_err("it serves");
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(index.manage(Change::Pause(9_999)).await.expect_err("none such").kind, ErrorKind::NotFound);
    // What the archive was like before anything was stored.
    let until = Until::Position(PositionVector::default());
    let before = index.manage(Change::Freeze(until)).await.unwrap().generation;
    let mut asked = query(Level::Study, &[]);
    assert_eq!(all(index.query(asked.clone()).await.unwrap()).await.len(), 4);
    asked.generation = Some(before);
    assert_eq!(all(index.query(asked.clone()).await.unwrap()).await.len(), 0);
    let other = all(index.diff(diff(before, begun)).await.unwrap()).await;
    assert!(other.len() == 3 && other.iter().all(|study| study.a.is_none() && study.b.is_some()));
    asked.generation = Some(9_999);
    let answer = match index.query(asked).await {
        Err(error) => error,
        Ok(mut answers) => answers.next().await.expect("an error").expect_err("no such generation"),
    };
    assert_eq!(answer.kind, ErrorKind::NotFound);
    index.manage(Change::Drop(before)).await.unwrap();
    let back = index.manage(Change::Rollback).await.unwrap();
    assert_eq!((back.generation, index.status().await.unwrap().generation), (first, first));
}

pub(super) async fn digests_lead_from_the_whole_to_events(site: Arc<dyn Site>) {
    let made = fill(&*site, 12, 3).await;
    let index = site.index();
    let tree = index.digest_tree().await.unwrap();
    let (digest, position) = index.digest().await.unwrap();
    assert_eq!((tree.leaves.roots(), tree.fold_version), ((digest.events, digest.state), digest.fold_version));
    assert_eq!(tree.folded, position);
    let leaves: Vec<u8> = (0..=u8::MAX).filter(|leaf| tree.leaves.get(*leaf).studies > 0).collect();
    let studies = all(index.study_digests(DEFAULT_TENANT, Of::Leaves(leaves)).await.unwrap()).await;
    assert_eq!(studies.len(), 3);
    let stored = "cairn.instance.stored.v1";
    let (mut total, mut instances) = (HashSum::default(), BTreeSet::new());
    for study in &studies {
        let uid = &study.study_instance_uid;
        let of = Of::Studies(vec![uid.clone(), "9.9".parse().unwrap()]);
        assert_eq!(all(index.study_digests(DEFAULT_TENANT, of).await.unwrap()).await, std::slice::from_ref(study));
        let events = all(index.study_events(DEFAULT_TENANT, uid, Vec::new()).await.unwrap()).await;
        events.iter().for_each(|event| total.add(&event_hash(&event.event)));
        let facts = events.iter().filter(|event| event.kind == stored).filter_map(|event| event.about.clone());
        instances.extend(facts.map(|(_, instance)| instance));
        let last = events.last().unwrap().event;
        let with_origin = all(index.study_events(DEFAULT_TENANT, uid, vec![last]).await.unwrap()).await;
        let [one] = &with_origin[..] else { panic!("one, not {with_origin:?}") };
        assert!(one.event == last && one.origin.as_ref().is_some_and(|origin| tree.folded.contains(origin)));
    }
    assert_eq!(total.to_bytes(), digest.events);
    assert_eq!(instances, made.iter().map(|made| made.sop_instance_uid.clone()).collect());
}

pub(super) async fn instances_come_with_the_detail_asked_for(site: Arc<dyn Site>) {
    let made = fill(&*site, 11, 3).await;
    for study in made.iter().map(|one| &one.study_instance_uid).collect::<BTreeSet<_>>() {
        let sent = made.iter().filter(|one| one.study_instance_uid == *study).count();
        for detail in [Detail::Location, Detail::Tables, Detail::Header] {
            let found = all(site.index().instances(of_study(study), detail).await.unwrap()).await;
            assert_eq!(found.len(), sent);
            for record in found {
                assert_eq!(record.header.is_empty(), detail != Detail::Header);
                assert!(detail == Detail::Location || record.frames == 0 || record.frame_table.is_some());
            }
        }
    }
}

pub(super) async fn a_survey_goes_through_all_studies(site: Arc<dyn Site>) {
    let made = fill(&*site, 5, 6).await;
    let index = site.index();
    let survey = |expression: String| {
        let index = index.clone();
        async move {
            let survey = Survey { tenant: DEFAULT_TENANT.into(), expression, at_ms: u64::MAX / 2 };
            let parts = all(index.survey(survey).await.unwrap()).await;
            let sums = (parts.iter().map(|part| part.studies).sum(), parts.iter().map(|part| part.undecided).sum());
            let found: Vec<FoundStudy> = parts.into_iter().flat_map(|part| part.found).collect();
            let (studies, undecided): (u64, u64) = sums;
            (studies, undecided, found)
        }
    };
    let (studies, undecided, mut found) = survey("true".into()).await;
    assert_eq!((studies, undecided, found.len()), (6, 0, 6));
    found.sort_by(|a, b| a.study_instance_uid.cmp(&b.study_instance_uid));
    let one = &found[0];
    let own: Vec<_> = made.iter().filter(|made| made.study_instance_uid == one.study_instance_uid).collect();
    assert_eq!((one.instances, one.versions), (own.len() as u64, own.len() as u64));
    assert!(one.bytes > 0 && one.received_at_ms > 0 && one.study_date.is_some() && one.patients.len() == 1);
    // What is said of a study is what is found by saying it.
    let said = format!(
        "study_uid == '{}' && bytes == {} && '{}' in modalities && instances == {} && received_days > 1 && study_age_days > 1",
        one.study_instance_uid, one.bytes, one.modalities[0], one.instances
    );
    let (_, _, same) = survey(said).await;
    assert_eq!(same.as_slice(), std::slice::from_ref(one));
    let unusable = Survey { tenant: DEFAULT_TENANT.into(), expression: "colour == 1".into(), at_ms: 0 };
    assert_eq!(index.survey(unusable).await.err().unwrap().kind, ErrorKind::Invalid);
}
