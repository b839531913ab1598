//! What is refused: with which reason, and that it leaves a trace and nothing else.

use crate::support::{
    Site, body,
    data::{CT, Form, Image, element},
    file_offer, offer, send_from, sender,
};
use bytes::Bytes;
use cairn_dicom::{Vr, tags};
use cairn_service_api::{
    Error, ErrorKind, Ingest, Reason,
    ingest::{InstanceOffer, OfferedForm, QuarantineEntry},
};
use futures_util::{StreamExt, TryStreamExt};
use std::time::Duration;

async fn refused(site: &Site, offer: InstanceOffer, bytes: &[u8]) -> (Error, QuarantineEntry, Vec<u8>) {
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let error = service.store(receipt, offer, body(bytes, 700)).await.expect_err("refused");
    let entries: Vec<_> = service.quarantine().await.expect("lists").try_collect().await.expect("lists");
    let kept: Vec<Bytes> =
        service.quarantined_bytes(entries[0].id).await.expect("reads").try_collect().await.expect("reads");
    assert_eq!(site.kinds(), [""; 0]);
    assert!(site.objects.keys().is_empty());
    assert_eq!(entries[0].calling_ae_title, "CT1");
    (error, entries[0].clone(), kept.concat())
}

fn without(image: &Image, drop: cairn_dicom::Tag) -> Vec<u8> {
    let bytes = image.bytes();
    let header = cairn_dicom::Header::new(&bytes);
    let mut out = Vec::new();
    for e in header.elements().filter(|e| e.tag != drop) {
        element(&mut out, Form::Explicit, e.tag, e.vr, e.value);
    }
    out
}

#[tokio::test]
async fn each_kind_of_bad_input_has_its_reason_and_its_trace() {
    let image = Image::default();
    let mut bad_uid = Vec::new();
    element(&mut bad_uid, Form::Explicit, tags::SOP_CLASS_UID, Vr::UI, CT.as_bytes());
    element(&mut bad_uid, Form::Explicit, tags::SOP_INSTANCE_UID, Vr::UI, b"../../etc/passwd");
    element(&mut bad_uid, Form::Explicit, tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2");
    element(&mut bad_uid, Form::Explicit, tags::SERIES_INSTANCE_UID, Vr::UI, b"1.2.3");
    let cases: Vec<(&str, Vec<u8>, Reason, &str)> = vec![
        ("empty", Vec::new(), Reason::CannotUnderstand, "cannot-understand"),
        ("noise", vec![0xFF; 5_000], Reason::CannotUnderstand, "cannot-understand"),
        ("cut within the identifiers", image.bytes()[..60].to_vec(), Reason::CannotUnderstand, "cannot-understand"),
        ("no study", without(&image, tags::STUDY_INSTANCE_UID), Reason::BadIdentifier, "bad-identifier"),
        ("no series", without(&image, tags::SERIES_INSTANCE_UID), Reason::BadIdentifier, "bad-identifier"),
        ("no instance", without(&image, tags::SOP_INSTANCE_UID), Reason::BadIdentifier, "bad-identifier"),
        ("an instance that is a path", bad_uid, Reason::BadIdentifier, "bad-identifier"),
        (
            "another instance than announced",
            Image { instance: "1.2.3.4.6".into(), ..image.clone() }.bytes(),
            Reason::DoesNotMatch,
            "does-not-match",
        ),
        (
            "another class than announced",
            Image { sop_class: Some("1.2.840.10008.5.1.4.1.1.4"), ..image.clone() }.bytes(),
            Reason::DoesNotMatch,
            "does-not-match",
        ),
    ];
    for (name, bytes, reason, code) in cases {
        let (error, entry, kept) = refused(&Site::default(), offer(&image), &bytes).await;
        assert_eq!((error.kind, error.reason, entry.reason.as_str()), (ErrorKind::Invalid, reason, code), "{name}");
        assert_eq!((entry.complete, entry.length, kept), (true, bytes.len() as u64, bytes), "{name}");
        assert!(!error.message.contains("12345") && !error.message.contains("Synthetic"), "I9: {}", error.message);
    }
}

#[tokio::test]
async fn files_that_are_none_are_refused() {
    for (name, bytes) in [
        ("text", b"GIF89a and so on, and no DICOM in it at all, whatever the name may say".to_vec()),
        ("meta alone", Image::default().file()[..300].to_vec()),
        ("empty", Vec::new()),
    ] {
        let (error, entry, _) = refused(&Site::default(), file_offer(), &bytes).await;
        assert_eq!((error.reason, entry.complete), (Reason::CannotUnderstand, true), "{name}");
    }
}

#[tokio::test]
async fn a_study_or_a_syntax_that_is_not_the_one_is_refused() {
    let image = Image::default();
    let to_study = InstanceOffer { study_instance_uid: "1.2.9".parse().ok(), ..offer(&image) };
    let (error, ..) = refused(&Site::default(), to_study, &image.bytes()).await;
    assert_eq!((error.reason, error.tags.as_slice()), (Reason::DoesNotMatch, &[tags::STUDY_INSTANCE_UID][..]));

    let form = OfferedForm::DataSet {
        transfer_syntax_uid: CT.parse().expect("a UID"),
        sop_class_uid: CT.parse().expect("a UID"),
        sop_instance_uid: image.instance.parse().expect("a UID"),
    };
    let (error, ..) = refused(&Site::default(), InstanceOffer { form, ..offer(&image) }, &image.bytes()).await;
    assert_eq!(error.reason, Reason::TransferSyntax);
}

#[tokio::test]
async fn an_instance_over_the_bound_is_refused_as_soon_as_that_is_seen() {
    let image = Image { rows: 500, columns: 500, ..Image::default() };
    let small = || Site::configured(|config| config.default_profile.object_bytes_max = Some(100_000));
    let (error, entry, kept) = refused(&small(), offer(&image), &image.bytes()).await;
    assert_eq!((error.kind, error.reason), (ErrorKind::Invalid, Reason::TooLarge));
    assert!(!entry.complete && kept.len() == 8 << 10 && image.bytes().starts_with(&kept));
    let announced = InstanceOffer { length_hint: Some(1 << 40), ..offer(&image) };
    let (error, ..) = refused(&small(), announced, &image.bytes()).await;
    assert_eq!(error.reason, Reason::TooLarge);
}

#[tokio::test]
async fn quarantine_keeps_the_head_of_what_is_too_large_for_it() {
    let mut site = Site::default();
    site.quarantine.input_bytes_max = 10_000;
    let (error, entry, kept) = refused(&site, offer(&Image::default()), &vec![0xFF; 50_000]).await;
    assert_eq!(error.reason, Reason::CannotUnderstand);
    assert_eq!((entry.length, entry.complete, kept.len()), (10_000, false, 10_000));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let image = Image { rows: 200, columns: 200, ..Image::default() };
    let bytes = image.bytes();
    for cut in [0, 10, 500, 5_000, bytes.len() - 1] {
        let broken = futures_util::stream::iter([Err(Error::new(ErrorKind::Aborted, "association aborted"))]);
        let body = Box::pin(body(&bytes[..cut], 400).chain(broken));
        let outcome = service.store(receipt, offer(&image), body).await;
        assert_eq!(outcome.map_err(|error| error.kind), Err(ErrorKind::Aborted));
    }
    assert!(site.kinds().is_empty() && site.objects.keys().is_empty());
    let entries: Vec<_> = service.quarantine().await.expect("lists").try_collect().await.expect("lists");
    assert_eq!(entries, [], "who is gone was not refused");
}

#[tokio::test]
async fn identifiers_that_come_late_are_found_and_memory_stays_bounded() {
    // Two megabytes of private elements before the study: more than is held back.
    let image = Image { private_bytes: 2_000_000, ..Image::default() };
    let site = Site::default();
    send_from(&site.open().await, "CT1", &image).await.expect("stored");
    site.assert_bytes_and_events_agree(false);
    let as_file = Site::default();
    let service = as_file.open().await;
    let receipt = service.open_receipt(sender("")).await.expect("opens");
    service.store(receipt, file_offer(), body(&image.file(), 10_000)).await.expect("known from its File Meta");
    as_file.assert_bytes_and_events_agree(false);
    let bare = Site::default();
    let service = bare.open().await;
    let receipt = service.open_receipt(sender("")).await.expect("opens");
    let outcome = service.store(receipt, file_offer(), body(&image.bytes(), 10_000)).await;
    assert_eq!(outcome.map_err(|error| error.reason), Err(Reason::CannotUnderstand));
}

#[tokio::test]
async fn large_headers_are_taken_in_turn_and_who_waits_too_long_is_refused() {
    let site = Site::configured(|config| {
        config.large_headers_max = 1;
        config.large_header_wait = Duration::from_millis(50);
    });
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let large = |instance: &str| Image { private_bytes: 2_000_000, instance: instance.into(), ..Image::default() };
    let (first, second, small) = (large("1.2.3.1"), large("1.2.3.2"), Image::default());
    let bytes = first.bytes();
    let (feed, fed) = tokio::sync::mpsc::unbounded_channel();
    let slow = futures_util::stream::unfold(fed, |mut fed| async move { Some((fed.recv().await?, fed)) });
    let taking = tokio::spawn({
        let (service, first) = (service.clone(), first.clone());
        async move { service.store(receipt, offer(&first), Box::pin(slow)).await }
    });
    let (most, rest) = bytes.split_at(bytes.len() - 100);
    for piece in most.chunks(10_000) {
        feed.send(Ok(Bytes::copy_from_slice(piece))).expect("taken");
    }
    tokio::time::timeout(Duration::from_secs(60), async {
        // Its turn is taken once the second one does not get it any more.
        loop {
            match service.store(receipt, offer(&second), body(&second.bytes(), 10_000)).await {
                Err(error) if error.kind == ErrorKind::Exhausted => break,
                Err(error) => panic!("{error}"),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("refused in time");
    send_from(&service, "CT1", &small).await.expect("small ones wait for nobody");
    feed.send(Ok(Bytes::copy_from_slice(rest))).expect("taken");
    drop(feed);
    taking.await.expect("ends").expect("stored");
    service.store(receipt, offer(&second), body(&second.bytes(), 10_000)).await.expect("its turn now");
    site.assert_bytes_and_events_agree(false);
}

/// A body fed piece by piece.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<Result<Bytes, Error>>, cairn_service_api::ingest::Body<'static>) {
    let (feed, fed) = tokio::sync::mpsc::unbounded_channel();
    (feed, Box::pin(futures_util::stream::unfold(fed, |mut fed| async move { Some((fed.recv().await?, fed)) })))
}

#[tokio::test]
async fn a_slow_sender_of_a_large_header_gives_its_turn_up_once_another_waits_for_it() {
    let site = Site::configured(|config| {
        config.large_headers_max = 1;
        config.large_header_wait = Duration::from_secs(60);
        config.large_header_hold = Duration::from_millis(10);
    });
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let large = |instance: &str| Image { private_bytes: 2_000_000, instance: instance.into(), ..Image::default() };
    let (first, second) = (large("1.2.3.1"), large("1.2.3.2"));
    let (feed, slow) = fed();
    let bytes = first.bytes();
    feed.send(Ok(Bytes::copy_from_slice(&bytes[..bytes.len() - 100]))).expect("taken");
    let taking = service.store(receipt, offer(&first), slow);
    let mut taking = Box::pin(taking);
    // All that was sent is taken: it holds the turn, and nobody minds.
    let alone = tokio::time::timeout(Duration::from_millis(100), &mut taking).await;
    assert!(alone.is_err(), "slow, and alone");
    let (held, waited) = tokio::join!(taking, service.store(receipt, offer(&second), body(&second.bytes(), 10_000)));
    assert_eq!(held.map_err(|error| error.kind).err(), Some(ErrorKind::Exhausted));
    waited.expect("stored with the turn that was given up");
    drop(feed);
    site.assert_bytes_and_events_agree(false);
}
