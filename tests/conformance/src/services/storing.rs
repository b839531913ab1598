use super::{SOON, Site, a_file, all, chunks, collect, of_study, open, store};
use cairn_archive::{PositionVector, events::ReceiptEnd, ids::ReceiptId};
use cairn_dicom::part10::Part10Reader;
use cairn_service_api::{
    DEFAULT_TENANT, Error, ErrorKind, Reason,
    index::{ConflictKind, Detail},
    ingest::{InstanceOffer, OfferedForm, StoreOutcome, Stored},
};
use cairn_synthetic::Generated;
use futures_util::{StreamExt, stream};
use std::sync::Arc;

fn one() -> Generated {
    cairn_synthetic::one_study(3, 1).remove(0)
}

async fn seen(site: &dyn Site, stored: &Stored) {
    let mut after = PositionVector::default();
    after.include(&stored.position);
    site.index().wait_for(&after, SOON).await.unwrap();
}

pub(super) async fn a_new_instance_is_stored_and_found(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let stored = store(&*site, receipt, &made.file).await.unwrap();
    assert_eq!(stored.outcome, StoreOutcome::New);
    assert_eq!(
        (&stored.sop_instance_uid, &stored.study_instance_uid),
        (&made.sop_instance_uid, &made.study_instance_uid)
    );
    seen(&*site, &stored).await;
    let found = all(site.index().instances(of_study(&made.study_instance_uid), Detail::Location).await.unwrap()).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].object.digest, found[0].object.length), (stored.digest, stored.length));
    assert!(found[0].shown);
    site.ingest().ready().await.unwrap();
}

pub(super) async fn the_same_bytes_again_are_a_repeat(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let first = store(&*site, receipt, &made.file).await.unwrap();
    seen(&*site, &first).await;
    let again = store(&*site, receipt, &made.file).await.unwrap();
    assert_eq!((again.outcome, again.digest), (StoreOutcome::Repeat, first.digest));
    seen(&*site, &again).await;
    let found = all(site.index().instances(of_study(&made.study_instance_uid), Detail::Location).await.unwrap()).await;
    assert_eq!(found.len(), 1);
}

pub(super) async fn other_bytes_are_a_conflict_and_can_be_chosen(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let first = store(&*site, receipt, &made.file).await.unwrap();
    seen(&*site, &first).await;
    let mut other = made.file.clone();
    *other.last_mut().unwrap() ^= 1;
    let second = store(&*site, receipt, &other).await.unwrap();
    assert_eq!(second.outcome, StoreOutcome::Conflict { shown: false });
    seen(&*site, &second).await;
    let conflicts = all(site.index().conflicts(DEFAULT_TENANT, true).await.unwrap()).await;
    let [conflict] = conflicts.as_slice() else { panic!("one conflict, not {conflicts:?}") };
    assert_ne!(conflict.kind, ConflictKind::Elsewhere);
    let shown: Vec<_> = conflict.versions.iter().map(|version| (version.digest, version.shown)).collect();
    assert_eq!(shown, [(first.digest, true), (second.digest, false)]);

    let identity =
        (conflict.study_instance_uid.clone(), conflict.series_instance_uid.clone(), made.sop_instance_uid.clone());
    let event = conflict.versions[1].store_event;
    let chosen = site.ingest().choose_version(DEFAULT_TENANT, identity, event, "trial", "it is right").await.unwrap();
    seen(&*site, &Stored { position: chosen, ..second.clone() }).await;
    let found = all(site.index().instances(of_study(&made.study_instance_uid), Detail::Location).await.unwrap()).await;
    assert_eq!(found.iter().map(|record| record.object.digest).collect::<Vec<_>>(), [second.digest]);
}

pub(super) async fn a_data_set_alone_is_stored(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let start = Part10Reader::new(1 << 20).push(&made.file).unwrap().unwrap();
    let data_set = &made.file[usize::try_from(start.data_set_offset).unwrap()..];
    let offer = InstanceOffer {
        form: OfferedForm::DataSet {
            transfer_syntax_uid: "1.2.840.10008.1.2.1".parse().unwrap(),
            sop_class_uid: start.meta.sop_class_uid().unwrap(),
            sop_instance_uid: made.sop_instance_uid.clone(),
        },
        length_hint: None,
        study_instance_uid: None,
    };
    let alone = site.ingest().store(receipt, offer.clone(), chunks(data_set, 4_096)).await.unwrap();
    seen(&*site, &alone).await;
    let as_file = store(&*site, receipt, &made.file).await.unwrap();
    assert_eq!((as_file.outcome, as_file.digest), (StoreOutcome::Repeat, alone.digest), "equal by either form");

    let other = OfferedForm::DataSet {
        transfer_syntax_uid: "1.2.840.10008.1.2.1".parse().unwrap(),
        sop_class_uid: start.meta.sop_class_uid().unwrap(),
        sop_instance_uid: "1.2.3".parse().unwrap(),
    };
    let refused = site.ingest().store(receipt, InstanceOffer { form: other, ..offer }, chunks(data_set, 4_096)).await;
    assert_eq!(kind_and_reason(refused), (ErrorKind::Invalid, Reason::DoesNotMatch));
}

fn kind_and_reason(result: Result<Stored, Error>) -> (ErrorKind, Reason) {
    let error = result.expect_err("refused");
    (error.kind, error.reason)
}

pub(super) async fn what_is_no_dicom_is_refused_and_kept(site: Arc<dyn Site>) {
    let receipt = open(&*site).await;
    let garbage = b"nothing that could be read as a data set of any kind".repeat(40);
    let refused = store(&*site, receipt, &garbage).await;
    let (kind, reason) = kind_and_reason(refused);
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(matches!(reason, Reason::CannotUnderstand | Reason::BadIdentifier), "{reason:?}");
    let entries = all(site.ingest().quarantine().await.unwrap()).await;
    let [entry] = entries.as_slice() else { panic!("one entry, not {entries:?}") };
    assert_eq!((entry.calling_ae_title.as_str(), entry.length, entry.complete), ("TRIAL", garbage.len() as u64, true));
    let kept = collect(site.ingest().quarantined_bytes(entry.id).await.unwrap()).await.unwrap();
    assert_eq!(kept, garbage);
}

pub(super) async fn another_study_than_asked_for_does_not_match(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let offer = InstanceOffer { study_instance_uid: Some("1.2.3".parse().unwrap()), ..a_file() };
    let refused = site.ingest().store(receipt, offer, chunks(&made.file, 1_000)).await;
    assert_eq!(kind_and_reason(refused), (ErrorKind::Invalid, Reason::DoesNotMatch));
}

pub(super) async fn a_body_that_breaks_off_stores_nothing(site: Arc<dyn Site>) {
    let (receipt, made) = (open(&*site).await, one());
    let gone = stream::iter([Err(Error::new(ErrorKind::Aborted, "the peer went away"))]);
    let body = chunks(&made.file[..made.file.len() / 2], 1_000).chain(gone);
    let aborted = site.ingest().store(receipt, a_file(), Box::pin(body)).await;
    assert_eq!(aborted.expect_err("aborted").kind, ErrorKind::Aborted);
    let stored = store(&*site, receipt, &made.file).await.unwrap();
    assert_eq!(stored.outcome, StoreOutcome::New, "nothing was there");
}

pub(super) async fn a_receipt_closes_once(site: Arc<dyn Site>) {
    let receipt = open(&*site).await;
    site.ingest().close_receipt(receipt, ReceiptEnd::Completed).await.unwrap();
    let again = site.ingest().close_receipt(receipt, ReceiptEnd::Completed).await;
    assert_eq!(again.expect_err("closed").kind, ErrorKind::NotFound);
}

pub(super) async fn an_unknown_receipt_is_not_found(site: Arc<dyn Site>) {
    let unknown = ReceiptId::from_slice(&[9; 16]).unwrap();
    assert_eq!(store(&*site, unknown, &one().file).await.expect_err("unknown").kind, ErrorKind::NotFound);
}
