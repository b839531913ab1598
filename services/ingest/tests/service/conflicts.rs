//! Repeats and conflicts: given what is there, when another version comes, then these are the facts.

use crate::support::{
    NOW_MS, Site, body,
    data::{Form, Image},
    file_offer, send, send_from, sender,
};
use cairn_archive::events::{Comparison, Event};
use cairn_ingest::config::ResendPolicyConfig;
use cairn_service_api::{ErrorKind, Ingest, Reason, ingest::StoreOutcome};
use futures_util::TryStreamExt;
use std::{sync::atomic::Ordering, time::Duration};

fn site_with(policy: ResendPolicyConfig) -> Site {
    Site::configured(|config| config.default_profile.resend_policy = Some(policy))
}

/// Waits until the log has so many events: what comes after an answer comes by itself.
async fn settled(site: &Site, events: usize) {
    let reached = async {
        while site.events().len() < events {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the events come");
}

fn comparison(site: &Site) -> Vec<Comparison> {
    let compared = |event: &Event| match event {
        Event::VersionsCompared(event) => Some(event.comparison()),
        _ => None,
    };
    site.events().iter().filter_map(|(_, event)| compared(event)).collect()
}

#[tokio::test]
async fn the_same_bytes_again_are_a_repeat_and_not_kept() {
    let site = Site::default();
    let service = site.open().await;
    let image = Image::default();
    let first = send_from(&service, "CT1", &image).await.expect("stored");
    // From somebody else, by another door, with other File Meta.
    let receipt = service.open_receipt(sender("WEB")).await.expect("opens");
    let again = service.store(receipt, file_offer(), body(&image.file(), 999)).await.expect("a repeat");

    assert_eq!((again.outcome, again.digest), (StoreOutcome::Repeat, first.digest));
    assert_eq!(site.kinds(), ["instance.stored", "instance.received-again"]);
    assert_eq!(site.objects.keys().len(), 1);
    let events = site.events();
    let Event::InstanceReceivedAgain(repeat) = &events[1].1 else { panic!("a repeat") };
    assert_eq!(repeat.store_event_id, events[0].0.id.as_bytes()[..]);
    assert_eq!(repeat.blake3, first.digest.0[..]);
    assert_eq!(repeat.receipt.as_ref().map(|r| r.calling_ae_title.as_str()), Some("WEB"));
    assert_eq!(events[1].0.causation_id, Some(events[0].0.id));
    // What is in use is the first object.
    assert_eq!(events[1].0.object_keys, events[0].0.object_keys);
}

#[tokio::test]
async fn a_repeat_of_what_an_earlier_process_stored_is_known_from_the_index() {
    let site = Site::default();
    send_from(&site.open().await, "CT1", &Image::default()).await.expect("stored");
    let again = send_from(&site.open().await, "CT1", &Image::default()).await.expect("a repeat");
    assert_eq!((again.outcome, site.objects.keys().len()), (StoreOutcome::Repeat, 1));
}

#[tokio::test(start_paused = true)]
async fn the_second_copy_is_kept_when_nobody_can_say_that_the_first_is_live() {
    // The index never gets there.
    let site = Site::default();
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    site.index.behind.store(true, Ordering::Relaxed);
    let again = send_from(&service, "CT1", &Image::default()).await.expect("stored again");
    assert_eq!(again.outcome, StoreOutcome::Repeat);
    assert_eq!(site.kinds(), ["instance.stored", "instance.received-again", "instance.stored"]);
    assert_eq!(site.objects.keys().len(), 2);
    site.assert_bytes_and_events_agree(false);

    // The index says that the first one is not live any more.
    let site = Site::default();
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    site.index.gone.lock().expect("not poisoned").insert(site.events()[0].0.id);
    send_from(&service, "CT1", &Image::default()).await.expect("stored again");
    assert_eq!(site.objects.keys().len(), 2);

    // There is no index.
    let site = Site::default();
    let service = site.try_open(false).await.expect("opens");
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    send_from(&service, "CT1", &Image::default()).await.expect("stored again");
    assert_eq!(site.kinds(), ["instance.stored", "instance.stored"]);
    site.assert_bytes_and_events_agree(false);
}

#[tokio::test]
async fn of_other_content_both_versions_are_kept_and_the_first_stays_shown() {
    let site = site_with(ResendPolicyConfig::Keep);
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    let other = send_from(&service, "CT1", &Image { pixel: 8, ..Image::default() }).await.expect("stored");
    assert_eq!(other.outcome, StoreOutcome::Conflict { shown: false });
    settled(&site, 3).await;
    assert_eq!(site.kinds(), ["instance.stored", "instance.stored", "instance.versions-compared"]);
    assert_eq!(comparison(&site), [Comparison::Different]);
    let events = site.events();
    let Event::VersionsCompared(compared) = &events[2].1 else { panic!("a comparison") };
    assert_eq!(compared.first_store_event_id, events[0].0.id.as_bytes()[..]);
    assert_eq!(compared.second_store_event_id, events[1].0.id.as_bytes()[..]);
    site.assert_bytes_and_events_agree(false);
}

#[tokio::test]
async fn the_same_content_in_another_encoding_is_no_alarm() {
    for form in [Form::Implicit, Form::BigEndian] {
        let site = Site::default();
        let service = site.open().await;
        // Over 64 KiB of pixels, so that they are compared as bulk data.
        let image = Image { rows: 300, columns: 300, ..Image::default() };
        send_from(&service, "CT1", &image).await.expect("stored");
        send_from(&service, "CT1", &Image { form, ..image }).await.expect("stored");
        settled(&site, 3).await;
        assert_eq!(comparison(&site), [Comparison::AnotherEncoding]);
    }
    let site = Site::default();
    let service = site.open().await;
    let image = Image { rows: 300, columns: 300, ..Image::default() };
    send_from(&service, "CT1", &image).await.expect("stored");
    let padded = Image { form: Form::BigEndian, patient_name: "Synthetic^Patient ", ..image.clone() };
    send_from(&service, "CT1", &padded).await.expect("stored");
    send_from(&service, "CT1", &Image { form: Form::Implicit, patient_name: "Another", ..image })
        .await
        .expect("stored");
    settled(&site, 6).await;
    assert_eq!(
        comparison(&site),
        [Comparison::AnotherEncoding, Comparison::Different, Comparison::Different],
        "padding says nothing; a name does"
    );
}

#[tokio::test]
async fn a_correction_by_its_origin_is_shown_where_the_policy_says_so() {
    let site = site_with(ResendPolicyConfig::SupersedeSameSource);
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    let version = |pixel| Image { pixel, ..Image::default() };
    let by_other = send_from(&service, "CT2", &version(8)).await.expect("stored");
    assert_eq!(by_other.outcome, StoreOutcome::Conflict { shown: false });
    let by_origin = send_from(&service, "CT1", &version(9)).await.expect("stored");
    assert_eq!(by_origin.outcome, StoreOutcome::Conflict { shown: true });
}

#[tokio::test]
async fn a_sender_whose_conflicts_are_refused_gets_a_refusal_and_a_trace() {
    let site = site_with(ResendPolicyConfig::Refuse);
    let service = site.open().await;
    let first = Image::default();
    send_from(&service, "CT1", &first).await.expect("stored");
    let other = Image { pixel: 8, ..Image::default() };
    let error = send_from(&service, "CT1", &other).await.expect_err("refused");
    assert_eq!((error.kind, error.reason), (ErrorKind::Conflict, Reason::ConflictRefused));
    let entries: Vec<_> = service.quarantine().await.expect("lists").try_collect().await.expect("lists");
    assert_eq!((entries[0].reason.as_str(), entries[0].complete), ("conflict-refused", true));
    let bytes: Vec<_> =
        service.quarantined_bytes(entries[0].id).await.expect("reads").try_collect().await.expect("reads");
    assert!(bytes.concat().ends_with(&other.bytes()));
    // The refused object goes by itself.
    let gone = async {
        while site.objects.keys().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("removed");
    assert_eq!(site.kinds(), ["instance.stored"]);

    let same = send_from(&service, "CT1", &Image { form: Form::Implicit, ..first }).await.expect("the same content");
    assert_eq!(same.outcome, StoreOutcome::Conflict { shown: false });
}

#[tokio::test]
async fn the_same_instance_in_another_study_is_kept_and_told() {
    let site = Site::default();
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    let elsewhere = Image { study: "1.2.9".into(), ..Image::default() };
    assert_eq!(send_from(&service, "CT1", &elsewhere).await.expect("stored").outcome, StoreOutcome::ElsewhereToo);
    let series = Image { series: "1.2.3.9".into(), ..Image::default() };
    assert_eq!(send_from(&service, "CT1", &series).await.expect("stored").outcome, StoreOutcome::ElsewhereToo);
    assert_eq!(site.kinds(), ["instance.stored"; 3]);
    site.assert_bytes_and_events_agree(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_instance_from_eight_associations_at_once_is_new_once() {
    for _ in 0..20 {
        let site = Site::default();
        let service = site.open().await;
        let sends = (0..8).map(|n| {
            let service = service.clone();
            tokio::spawn(async move { send_from(&service, &format!("CT{n}"), &Image::default()).await })
        });
        let mut new = 0;
        for outcome in futures_util::future::join_all(sends).await {
            match outcome.expect("no panic").expect("stored").outcome {
                StoreOutcome::New => new += 1,
                StoreOutcome::Repeat => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((new, site.stored_events().len(), site.objects.keys().len()), (1, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn versions_that_a_dead_process_left_uncompared_are_compared_by_the_next() {
    let site = Site::configured(|config| config.compare.search_interval = Duration::from_secs(10));
    // The first process stores both and is gone before it compares them.
    let service = site.open().await;
    site.faults.set(crate::support::memory::Call::Read, [Some(crate::support::memory::Fault::HangBefore)]);
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    send_from(&service, "CT1", &Image { form: Form::Implicit, ..Image::default() }).await.expect("stored");
    service.close().await.expect("closes");
    drop(service);
    assert_eq!(comparison(&site), []);
    site.faults.set(crate::support::memory::Call::Read, []);

    site.index.away.store(true, Ordering::Relaxed);
    let _service = site.open().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(comparison(&site), [], "the index is away");
    site.index.away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(comparison(&site), [Comparison::AnotherEncoding]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(comparison(&site).len(), 1, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_never_ends_holds_up_no_other() {
    let site = Site::default();
    let service = site.open().await;
    let image = |n: u32, form| Image { instance: format!("1.2.3.4.{n}"), form, ..Image::default() };
    for n in [1, 2] {
        send_from(&service, "CT1", &image(n, Form::Explicit)).await.expect("stored");
    }
    site.faults.set(crate::support::memory::Call::Read, [Some(crate::support::memory::Fault::HangBefore)]);
    for n in [1, 2] {
        send_from(&service, "CT1", &image(n, Form::Implicit)).await.expect("stored");
    }
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(comparison(&site), [Comparison::AnotherEncoding]);
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    assert_eq!(comparison(&site).len(), 2, "the other is found again");
}

#[tokio::test]
async fn an_operators_choice_is_an_event_about_a_version_that_is_there() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    send(&service, receipt, &Image::default()).await.expect("stored");
    let uid = |text: &str| text.parse::<cairn_dicom::Uid>().expect("a UID");
    let identity = (uid("1.2.3"), uid("1.2.3.4"), uid("1.2.3.4.5"));
    let store_event = site.events()[0].0.id;
    let position =
        service.choose_version("default", identity.clone(), store_event, "op", "it is right").await.expect("chosen");
    assert_eq!(position.offset.0, 1);
    let (envelope, Event::VersionChosen(event)) = &site.events()[1] else { panic!("a choice") };
    assert_eq!((event.chosen_by.as_str(), &event.reason[..]), ("op", &b"it is right"[..]));
    assert_eq!(
        (event.store_event_id.as_ref(), envelope.causation_id),
        (&store_event.as_bytes()[..], Some(store_event))
    );
    assert!(envelope.hlc.wall_ms >= NOW_MS);
    let missing = service.choose_version("default", identity, cairn_archive::EventId(receipt.0), "op", "").await;
    assert_eq!(missing.map_err(|error| error.kind), Err(ErrorKind::NotFound));
}
