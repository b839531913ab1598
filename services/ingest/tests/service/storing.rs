//! An instance becomes an object and an event that says everything of it.

use crate::support::{
    Site, body,
    data::{BIG_ENDIAN, CT, EXPLICIT, Form, IMPLICIT, Image},
    file_offer,
    index::object_of,
    offer, send, send_from, sender,
};
use cairn_archive::{
    Hlc,
    events::{Door, InstanceProtected, InstanceStoredSide, ResendPolicy, frame_table::Layout},
};
use cairn_dicom::{Header, tags};
use cairn_ingest::config::ProfileConfig;
use cairn_service_api::{ErrorKind, Ingest, ingest::StoreOutcome};
use proptest::prelude::*;
use prost::Message;

#[tokio::test]
async fn an_instance_is_an_object_and_an_event_with_every_fact() {
    let site = Site::default();
    let service = site.open().await;
    let image = Image { rows: 32, issuer: Some("HOSPITAL"), ..Image::default() };
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let stored = send(&service, receipt, &image).await.expect("stored");

    assert_eq!((stored.outcome, stored.study_instance_uid.as_str()), (StoreOutcome::New, "1.2.3"));
    let [(envelope, event)] = &site.stored_events()[..] else { panic!("one event") };
    let object = object_of(event);
    assert_eq!((stored.digest, stored.length), (object.digest, object.length));

    // The object: preamble of zeros, DICM, our File Meta, the data set as received.
    let file = site.objects.bytes(object.key).expect("there");
    let offset = event.data_set_offset as usize;
    assert_eq!(file[..132], *[&[0_u8; 128][..], b"DICM"].concat());
    assert_eq!(file[offset..], image.bytes());
    assert_eq!(file[event.pixel_data_offset as usize..], image.bytes()[image.bytes().len() - 32 * 64 * 2..]);

    assert_eq!(
        [&event.tenant, &event.study_instance_uid, &event.series_instance_uid, &event.sop_instance_uid],
        ["default", "1.2.3", "1.2.3.4", "1.2.3.4.5"]
    );
    assert_eq!([&event.sop_class_uid, &event.transfer_syntax_uid], [CT, EXPLICIT]);
    let Some(Layout::Native(frames)) = event.frame_table.as_ref().and_then(|table| table.layout.as_ref()) else {
        panic!("native frames")
    };
    assert_eq!((frames.frames, frames.frame_length_bytes), (1, 32 * 64 * 2));
    assert_eq!(frames.first_offset + event.data_set_offset, event.pixel_data_offset);
    let [bulk] = &event.bulk_data[..] else { panic!("pixel data is the only bulk value") };
    assert_eq!((bulk.path.as_slice(), bulk.length_bytes), ([tags::PIXEL_DATA.0].as_slice(), 32 * 64 * 2));
    assert_eq!(bulk.vr.to_be_bytes(), *b"\0\0OW");
    let protected = InstanceProtected::decode(event.protected.clone()).expect("decodes");
    assert_eq!(Header::new(&protected.header).text(tags::PATIENT_ID), Some(&b"12345"[..]));
    assert_eq!(protected.extractor_version, cairn_dicom::walk::EXTRACTOR_VERSION);
    assert!(event.key_id.is_empty() && event.side_object.is_none() && event.received_file_meta.is_empty());
    assert_eq!(event.findings, []);

    let from = event.receipt.as_ref().expect("a receipt");
    assert_eq!(from.receipt_id, receipt.as_bytes()[..]);
    assert_eq!(
        (from.door(), from.calling_ae_title.as_str(), from.called_ae_title.as_str()),
        (Door::Dimse, "CT1", "CAIRN")
    );
    assert_eq!(from.peer_address, "127.0.0.1:4242");
    assert_eq!([&from.implementation_class_uid, &from.implementation_version_name], ["1.2.3.4.5.6", "TEST_1"]);
    let profile = event.sender_profile.as_ref().expect("a profile");
    assert_eq!([&profile.issuer_of_patient_id, &profile.issuer_rule], ["HOSPITAL", "data-set"]);
    assert_eq!(profile.resend_policy(), ResendPolicy::Keep);

    assert_eq!(envelope.kind, "cairn.instance.stored.v1");
    assert_eq!(envelope.study_instance_uid, "1.2.3");
    assert_eq!(envelope.correlation_id, Some(receipt.to_string()));
    assert_eq!(envelope.object_keys, [object.key]);
    assert_eq!(envelope.traceparent, sender("CT1").traceparent);
    assert!(envelope.origin.is_none() && envelope.causation_id.is_none());
    assert_eq!(
        (envelope.id.0.get_version_num(), receipt.0.get_version_num(), object.key.0.get_version_num()),
        (7, 7, 7)
    );
}

#[tokio::test]
async fn a_sender_is_known_by_its_profile() {
    let site = Site::configured(|config| {
        config.default_profile.issuer_of_patient_id = Some("MAIN".into());
        let own = ProfileConfig {
            issuer_of_patient_id: Some("EAST".into()),
            default_character_set: Some("ISO_IR 100".into()),
            time_zone: Some("+0100".into()),
            ..ProfileConfig::default()
        };
        config.profiles.insert("CT1".into(), own);
    });
    let service = site.open().await;
    let image = |n: u32, issuer| Image { instance: format!("1.2.3.4.{n}"), issuer, ..Image::default() };
    send_from(&service, "CT1", &image(1, None)).await.expect("stored");
    send_from(&service, "MR1", &image(2, None)).await.expect("stored");
    send_from(&service, "CT1", &image(3, Some("Kantonsspital Z\u{fc}rich"))).await.expect("stored");
    let given = cairn_service_api::ingest::Sender { issuer_of_patient_id: Some("IMPORTED".into()), ..sender("CT1") };
    let receipt = service.open_receipt(given).await.expect("opens");
    send(&service, receipt, &image(4, None)).await.expect("stored");

    let profiles: Vec<_> = site.stored_events().into_iter().filter_map(|(_, event)| event.sender_profile).collect();
    let issuers: Vec<_> = profiles.iter().map(|p| (p.issuer_of_patient_id.as_str(), p.issuer_rule.as_str())).collect();
    assert_eq!(issuers[..2], [("EAST", "ae:CT1"), ("MAIN", "default")]);
    // The data set names no character set, so its bytes are read in the sender's.
    assert_eq!(issuers[2], ("Kantonsspital Z\u{c3}\u{bc}rich", "data-set"));
    assert_eq!(issuers[3], ("IMPORTED", "receipt"));
    assert_eq!([&profiles[0].default_character_set, &profiles[0].time_zone], ["ISO_IR 100", "+0100"]);
}

#[tokio::test]
async fn a_file_is_framed_anew_and_its_own_file_meta_is_kept_in_the_event() {
    let site = Site::default();
    let service = site.open().await;
    let image = Image::default();
    let from = cairn_service_api::ingest::Sender { implementation_class_uid: String::new(), ..sender("") };
    let receipt = service.open_receipt(from).await.expect("opens");
    let by_file = service.store(receipt, file_offer(), body(&image.file(), 77)).await.expect("stored");
    let [(_, event)] = &site.stored_events()[..] else { panic!("one event") };
    let file = image.file();
    let meta_end = file.len() - image.bytes().len();
    assert_eq!(event.received_file_meta, file[132..meta_end]);
    let from = event.receipt.as_ref().expect("a receipt");
    assert_eq!([&from.implementation_class_uid, &from.implementation_version_name], ["1.2.3.4.5.6.7", "OTHER_1"]);
    let object = site.objects.bytes(object_of(event).key).expect("there");
    assert_eq!(object[..128], [0; 128]);
    assert_eq!(object[event.data_set_offset as usize..], image.bytes());

    // Whichever way and from whomever it comes, the same data set is the same object.
    let elsewhere = Site::default();
    let by_c_store = send_from(&elsewhere.open().await, "CT9", &image).await.expect("stored");
    assert_eq!(by_file.digest, by_c_store.digest);
}

#[tokio::test]
async fn files_without_one_part_or_another_are_taken() {
    let image = Image::default();
    let file = image.file();
    let meta_end = file.len() - image.bytes().len();
    for (name, bytes, finding) in [
        ("no preamble", &file[128..], "preamble-missing"),
        ("no file meta", &image.bytes()[..], "file-meta-missing"),
        ("no data set beyond pixel data", &file[..file.len() - 10], "truncated-element"),
    ] {
        let site = Site::default();
        let service = site.open().await;
        let receipt = service.open_receipt(sender("")).await.expect("opens");
        let stored = service.store(receipt, file_offer(), body(bytes, 300)).await.expect(name);
        assert!(stored.findings.iter().any(|(code, _)| code == finding), "{name}: {:?}", stored.findings);
        let (_, event) = &site.stored_events()[0];
        assert!(event.findings.iter().any(|found| found.code == finding), "{name}");
        site.assert_bytes_and_events_agree(false);
    }
    assert!(meta_end > 132);
}

#[tokio::test]
async fn every_native_encoding_is_stored_as_it_came() {
    for (form, syntax) in [(Form::Explicit, EXPLICIT), (Form::Implicit, IMPLICIT), (Form::BigEndian, BIG_ENDIAN)] {
        let site = Site::default();
        let image = Image { form, ..Image::default() };
        send_from(&site.open().await, "CT1", &image).await.expect("stored");
        let (_, event) = &site.stored_events()[0];
        assert_eq!(event.transfer_syntax_uid, syntax);
        let object = site.objects.bytes(object_of(event).key).expect("there");
        assert_eq!(object[event.data_set_offset as usize..], image.bytes());
    }
}

#[tokio::test]
async fn a_large_header_goes_to_a_side_object_that_is_there_before_the_event() {
    let site = Site::default();
    let image = Image { private_bytes: 700_000, ..Image::default() };
    send_from(&site.open().await, "CT1", &image).await.expect("stored");
    let (envelope, event) = &site.stored_events()[0];
    assert!(event.encoded_len() < 512 << 10);
    assert!(event.frame_table.is_none() && event.bulk_data.is_empty());
    let side = event.side_object.as_ref().expect("a side object");
    let key = cairn_archive::ObjectKey::from_slice(&side.key).expect("a key");
    assert_eq!(envelope.object_keys, [object_of(event).key, key]);
    let bytes = site.objects.bytes(key).expect("there");
    assert_eq!(side.blake3, blake3::hash(&bytes).as_bytes()[..]);
    let side = InstanceStoredSide::decode(bytes).expect("decodes");
    let protected = side.protected.expect("a header");
    assert_eq!(Header::new(&protected.header).text(tags::PATIENT_ID), Some(&b"12345"[..]));
    assert!(protected.header.len() > 700_000 && side.frame_table.is_some() && side.bulk_data.len() == 1);
    site.assert_bytes_and_events_agree(false);
}

#[tokio::test]
async fn without_an_index_or_with_one_that_is_away_stores_go_on() {
    let site = Site::default();
    site.index.away.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        send_from(&site.open().await, "CT1", &Image::default()).await.expect("stored").outcome,
        StoreOutcome::New
    );
    let site = Site::default();
    let service = site.try_open(false).await.expect("opens");
    assert_eq!(send_from(&service, "CT1", &Image::default()).await.expect("stored").outcome, StoreOutcome::New);
}

#[tokio::test]
async fn events_come_after_every_event_in_the_log_whatever_the_clock_does() {
    let site = Site::default();
    let image = |n: u32| Image { instance: format!("1.2.3.4.{n}"), ..Image::default() };
    let service = site.open().await;
    send_from(&service, "CT1", &image(1)).await.expect("stored");
    service.observe(Hlc { wall_ms: crate::support::NOW_MS + 5_000, counter: 9 });
    send_from(&service, "CT1", &image(2)).await.expect("stored");
    drop(service);
    // The next process finds its clock an hour behind.
    site.clock.unix_ms.fetch_sub(3_600_000, std::sync::atomic::Ordering::Relaxed);
    let service = site.open().await;
    send_from(&service, "CT1", &image(3)).await.expect("stored: a log ahead of the clock is no reason to refuse");
    let readings: Vec<_> = site.events().iter().map(|(envelope, _)| envelope.hlc).collect();
    assert!(readings.is_sorted() && readings[1].wall_ms == crate::support::NOW_MS + 5_000, "{readings:?}");
    assert!(readings.windows(2).all(|pair| pair[0] < pair[1]));
}

#[tokio::test]
async fn of_several_processes_over_one_log_the_later_event_is_later_whichever_clock_runs_ahead() {
    let site = Site::default();
    let image = |n: u32| Image { instance: format!("1.2.3.4.{n}"), ..Image::default() };
    let (ahead, behind) = (site.open().await, site.open().await);
    behind.observe_others();
    ahead.observe(Hlc { wall_ms: crate::support::NOW_MS + 5_000, counter: 9 });
    send_from(&ahead, "CT1", &image(1)).await.expect("stored");
    let reading = |number: usize| site.events()[number].0.hlc;
    // Observed a moment later: from then on all of them are.
    let mut sent = 1;
    let observed = async {
        while sent == 1 || reading(sent - 1) < reading(0) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            sent += 1;
            send_from(&behind, "CT1", &image(u32::try_from(sent).expect("few"))).await.expect("stored");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), observed).await.expect("observed soon");
    behind.close().await.expect("closes");
    ahead.close().await.expect("closes");
}

#[tokio::test]
async fn an_implausible_clock_stops_ingest_unless_that_is_allowed() {
    let site = Site::default();
    let service = site.open().await;
    site.clock.unix_ms.store(1_000, std::sync::atomic::Ordering::Relaxed);
    let error = send_from(&service, "CT1", &Image::default()).await.expect_err("1970");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(service.ready().await.map_err(|error| error.kind), Err(ErrorKind::Unavailable));
    assert_eq!(site.kinds(), [""; 0]);

    let allowed = Site::configured(|config| config.clock.accept_implausible = true);
    allowed.clock.unix_ms.store(1_000, std::sync::atomic::Ordering::Relaxed);
    assert!(send_from(&allowed.open().await, "CT1", &Image::default()).await.is_ok());
}

#[tokio::test]
async fn a_data_set_without_class_is_known_by_its_request() {
    let site = Site::default();
    let image = Image { sop_class: None, ..Image::default() };
    let stored = send_from(&site.open().await, "CT1", &image).await.expect("stored");
    assert_eq!(stored.sop_class_uid.as_str(), CT);
    assert!(stored.findings.iter().any(|(code, tag)| code == "sop-class-missing" && *tag == tags::SOP_CLASS_UID));
    site.assert_bytes_and_events_agree(false);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However the bytes are cut, by whichever way they come, the object and the event are the same.
    #[test]
    fn the_pieces_of_a_body_change_nothing(
        cuts in prop::collection::vec(1_usize..2_000, 1..40),
        as_file: bool,
        implicit: bool,
    ) {
        let form = if implicit { Form::Implicit } else { Form::Explicit };
        let image = Image { form, rows: 20, columns: 20, ..Image::default() };
        let bytes = if as_file { image.file() } else { image.bytes() };
        let mut pieces = Vec::new();
        let (mut left, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !left.is_empty() {
            let (piece, rest) = left.split_at(cuts.next().unwrap_or(1).min(left.len()));
            pieces.push(Ok(bytes::Bytes::copy_from_slice(piece)));
            left = rest;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (whole, cut) = runtime.block_on(async {
            let (a, b) = (Site::default(), Site::default());
            send_from(&a.open().await, "CT1", &image).await.expect("stored");
            let service = b.open().await;
            let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
            let offer = if as_file { file_offer() } else { offer(&image) };
            let body = Box::pin(futures_util::stream::iter(pieces));
            service.store(receipt, offer, body).await.expect("stored");
            (a.stored_events().remove(0).1, b.stored_events().remove(0).1)
        });
        prop_assert_eq!(object_of(&whole).digest, object_of(&cut).digest);
        prop_assert_eq!(whole.protected, cut.protected);
        prop_assert_eq!(whole.frame_table, cut.frame_table);
        prop_assert_eq!(whole.bulk_data, cut.bulk_data);
        prop_assert_eq!(whole.pixel_data_offset, cut.pixel_data_offset);
    }
}
