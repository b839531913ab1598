use super::{SOON, Site, all, asking::query, collect, fill, of_study, open, store};
use cairn_archive::{Position, PositionVector};
use cairn_dicom::{Tag, Uid, dataset::DataSet, tags};
use cairn_service_api::{
    DEFAULT_TENANT, ErrorKind,
    correction::{Correction, CorrectionRevocation},
    index::{Level, Selection},
    ingest::StoreOutcome,
    retrieval::Part,
};
use futures_util::StreamExt;
use std::{collections::BTreeMap, sync::Arc};

fn correction(study: &Uid, texts: &[(Tag, &str)]) -> Correction {
    let mut elements = DataSet::new();
    texts.iter().for_each(|(tag, text)| elements.put_text(*tag, text));
    Correction {
        tenant: DEFAULT_TENANT.into(),
        study: study.clone(),
        series: None,
        instance: None,
        elements,
        by: "trial".into(),
        reason: "typed wrongly".into(),
    }
}

async fn seen(site: &dyn Site, position: &Position) {
    let mut after = PositionVector::default();
    after.include(position);
    site.index().wait_for(&after, SOON).await.unwrap();
}

/// Files of a selection by SOP Instance UID.
async fn files(site: &dyn Site, selection: Selection) -> BTreeMap<Uid, Vec<u8>> {
    let mut found = site.retrieval().instances(selection, Part::File).await.unwrap();
    let mut files = BTreeMap::new();
    while let Some(instance) = found.next().await {
        let instance = instance.unwrap();
        let bytes = collect(instance.bytes).await.unwrap();
        assert_eq!(instance.record.given_length(), Some(bytes.len() as u64));
        files.insert(instance.record.sop_instance_uid, bytes);
    }
    files
}

async fn studies(site: &dyn Site, tag: Tag, value: &str) -> Vec<Uid> {
    let keys = [(tags::STUDY_INSTANCE_UID, ""), (tag, value)];
    let answers = all(site.index().query(query(Level::Study, &keys)).await.unwrap()).await;
    answers.iter().filter_map(|answer| answer.uid(tags::STUDY_INSTANCE_UID)).collect()
}

pub(super) async fn a_correction_is_found_and_given_out_until_it_is_taken_back(site: Arc<dyn Site>) {
    let made = fill(&*site, 5, 2).await;
    let study = &made[0].study_instance_uid;
    let before = files(&*site, of_study(study)).await;
    let texts = [(tags::PATIENT_NAME, "Right^Jürgen"), (tags::PATIENT_ID, "RIGHT-1")];
    let at = site.ingest().correct(correction(study, &texts)).await.unwrap();
    seen(&*site, &at).await;
    assert_eq!(studies(&*site, tags::PATIENT_NAME, "RIGHT*").await, std::slice::from_ref(study));
    assert_eq!(studies(&*site, tags::PATIENT_ID, "RIGHT-1").await, std::slice::from_ref(study));
    let after = files(&*site, of_study(study)).await;
    assert!(before.iter().all(|(uid, bytes)| after[uid] != *bytes));
    let records = all(site.retrieval().metadata(of_study(study)).await.unwrap()).await;
    for record in &records {
        let header = cairn_dicom::Header::new(&record.header);
        assert_eq!(header.text(tags::PATIENT_ID), Some(&b"RIGHT-1"[..]));
        assert!(header.get(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).is_some());
        // A part of the corrected file is a part of it.
        let whole = &after[&record.sop_instance_uid];
        let open = async |part| collect(site.retrieval().open(record, part).await.unwrap()).await.unwrap();
        assert_eq!(&open(Part::File).await, whole);
        assert_eq!(open(Part::FileRange(300..900)).await, &whole[300..900]);
        let offset = usize::try_from(record.data_set_offset).unwrap();
        assert_eq!(open(Part::DataSet).await, &whole[offset..]);
        let beyond = Part::FileRange(0..whole.len() as u64 + 1);
        assert_eq!(site.retrieval().open(record, beyond).await.err().map(|error| error.kind), Some(ErrorKind::Invalid));
    }
    assert_eq!(files(&*site, Selection { as_stored: true, ..of_study(study) }).await, before);
    let receipt = open(&*site).await;
    let again = store(&*site, receipt, &made[0].file).await.unwrap();
    assert_eq!(again.outcome, StoreOutcome::Repeat, "what is stored is what it was");

    let revocation = CorrectionRevocation { position: at.clone(), by: "trial".into(), reason: "it was right".into() };
    let revoked = site.ingest().revoke_correction(revocation.clone()).await.unwrap();
    seen(&*site, &revoked).await;
    assert_eq!(files(&*site, of_study(study)).await, before, "undone to the byte");
    assert!(studies(&*site, tags::PATIENT_ID, "RIGHT-1").await.is_empty());
    let nowhere = CorrectionRevocation { position: revoked, ..revocation };
    assert_eq!(site.ingest().revoke_correction(nowhere).await.unwrap_err().kind, ErrorKind::NotFound);
}

pub(super) async fn a_correction_that_says_nothing_usable_is_refused(site: Arc<dyn Site>) {
    let made = fill(&*site, 6, 1).await;
    let study = &made[0].study_instance_uid;
    for bad in [
        vec![],
        vec![(tags::STUDY_INSTANCE_UID, "1.2")],
        vec![(tags::MODALITY, "MR")],
        vec![(tags::PATIENT_NAME, "A"), (tags::PATIENT_BIRTH_DATE, "yesterday")],
    ] {
        let error = site.ingest().correct(correction(study, &bad)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(!error.message.contains("yesterday"));
    }
    let elsewhere = correction(&"1.2.3".parse().unwrap(), &[(tags::PATIENT_NAME, "A")]);
    assert_eq!(site.ingest().correct(elsewhere).await.unwrap_err().kind, ErrorKind::NotFound);
    let no_such =
        Correction { series: Some("1.2.3".parse().unwrap()), ..correction(study, &[(tags::PATIENT_NAME, "A")]) };
    assert_eq!(site.ingest().correct(no_such).await.unwrap_err().kind, ErrorKind::NotFound);
}
