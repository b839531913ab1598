//! What fails around ingest: nothing is acknowledged that is not there, no event is without its bytes, and what failed
//! surely leaves nothing behind.

use crate::support::{
    Site, body,
    data::Image,
    memory::{Call, Fault},
    offer, send, send_from, sender,
};
use cairn_service_api::{ErrorKind, Ingest, Reason};
use cairn_store_api::StoreErrorKind;
use proptest::prelude::*;
use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

#[tokio::test]
async fn when_the_log_surely_did_not_take_the_event_the_object_goes_too() {
    let site = Site::default();
    let service = site.open().await;
    site.faults.set(Call::Append, [Some(Fault::Before(StoreErrorKind::Exhausted))]);
    let error = send_from(&service, "CT1", &Image::default()).await.expect_err("the log is full");
    assert_eq!((error.kind, error.reason), (ErrorKind::Exhausted, Reason::OutOfRoom));
    assert!(site.kinds().is_empty() && site.objects.keys().is_empty());
    send_from(&service, "CT1", &Image::default()).await.expect("there is room again");
}

#[tokio::test]
async fn when_the_log_may_have_taken_the_event_the_object_stays() {
    for fault in [Fault::Before(StoreErrorKind::Unavailable), Fault::After(StoreErrorKind::Unavailable)] {
        let site = Site::default();
        let service = site.open().await;
        site.faults.set(Call::Append, [Some(fault)]);
        let error = send_from(&service, "CT1", &Image::default()).await.expect_err("not acknowledged");
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(site.objects.keys().len(), 1);
        site.assert_bytes_and_events_agree(true);
        // The sender tries again: it is there, whichever it was.
        send_from(&service, "CT1", &Image::default()).await.expect("stored");
        site.assert_bytes_and_events_agree(true);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_over_its_deadline_is_no_success() {
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        let site = Site::default();
        let service = site.open().await;
        site.faults.set(Call::Append, [Some(fault)]);
        let error = send_from(&service, "CT1", &Image::default()).await.expect_err("late");
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(site.objects.keys().len(), 1, "the event may come yet");
        site.assert_bytes_and_events_agree(true);
    }
}

#[tokio::test]
async fn a_machine_that_slept_through_the_deadline_does_not_acknowledge() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let image = Image::default();
    // The clock jumps whenever the store waits, so also while the append is under way.
    let sleep = async {
        loop {
            site.clock.elapsed_ms.fetch_add(31_000, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = send(&service, receipt, &image) => outcome,
        () = sleep => unreachable!("it has no end"),
    };
    assert_eq!(outcome.map_err(|error| error.kind), Err(ErrorKind::Unavailable));
    site.assert_bytes_and_events_agree(true);
}

#[tokio::test]
async fn a_full_store_refuses_before_anything_is_lost_and_goes_on_when_there_is_room() {
    let site = Site::configured(|config| config.reserved_room = 1_000);
    let service = site.open().await;
    let image = |n: u32| Image { instance: format!("1.2.3.4.{n}"), ..Image::default() };
    send_from(&service, "CT1", &image(1)).await.expect("stored");
    site.objects.set_room(Some(3_000));
    let error = send_from(&service, "CT1", &image(2)).await.expect_err("full");
    assert_eq!((error.kind, error.reason), (ErrorKind::Exhausted, Reason::OutOfRoom));
    site.assert_bytes_and_events_agree(false);
    site.objects.set_room(Some(10));
    assert_eq!(service.ready().await.map_err(|error| error.reason), Err(Reason::OutOfRoom));
    site.objects.set_room(None);
    service.ready().await.expect("ready");
    send_from(&service, "CT1", &image(2)).await.expect("stored");
    site.assert_bytes_and_events_agree(false);
}

#[tokio::test]
async fn a_copy_that_cannot_be_removed_is_left_and_the_answer_is_right() {
    let site = Site::default();
    let service = site.open().await;
    send_from(&service, "CT1", &Image::default()).await.expect("stored");
    site.faults.set(Call::Delete, [Some(Fault::Before(StoreErrorKind::Unavailable))]);
    send_from(&service, "CT1", &Image::default()).await.expect("a repeat");
    site.assert_bytes_and_events_agree(true);
    assert_eq!(site.objects.keys().len(), 2);
}

/// A store is dropped after each of its steps: I1 holds, and what was not acknowledged can be sent again.
#[test]
fn a_store_dropped_at_any_point_leaves_no_event_without_bytes() {
    let mut polls = 0;
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let done = runtime.block_on(async {
            let site = Site::default();
            let service = site.open().await;
            let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
            let image = Image { private_bytes: 600_000, ..Image::default() };
            let bytes = image.bytes();
            let offer = offer(&image);
            let pieces = futures_util::stream::unfold(bytes.chunks(100_000), |mut chunks| async move {
                tokio::task::yield_now().await;
                chunks.next().map(|chunk| (Ok(bytes::Bytes::copy_from_slice(chunk)), chunks))
            });
            let done = {
                let mut store = service.store(receipt, offer, Box::pin(pieces));
                let mut outcome = None;
                for _ in 0..polls {
                    outcome = futures_util::FutureExt::now_or_never(&mut store);
                    if outcome.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                outcome.is_some()
            };
            // Removal of objects that nothing names runs by itself.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let named = site.stored_events().len();
            site.assert_bytes_and_events_agree(named == 0);
            assert!(!done || named == 1);
            let again = send_from(&service, "CT1", &image).await.expect("can be sent again");
            assert_eq!(again.study_instance_uid.as_str(), "1.2.3");
            site.assert_bytes_and_events_agree(true);
            done
        });
        if done {
            break;
        }
        polls += 1;
    }
    assert!(polls > 8, "there were steps to drop it at: {polls}");
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    let kind = prop_oneof![
        Just(StoreErrorKind::Unavailable),
        Just(StoreErrorKind::Exhausted),
        Just(StoreErrorKind::Internal),
        Just(StoreErrorKind::Corrupt),
        Just(StoreErrorKind::NotFound),
    ];
    // What is said to be not done must not have been done: `After` is for an unknown outcome alone.
    prop_oneof![
        6 => Just(None),
        2 => kind.prop_map(|kind| Some(Fault::Before(kind))),
        1 => Just(Some(Fault::After(StoreErrorKind::Unavailable))),
        1 => Just(Some(Fault::HangBefore)),
        1 => Just(Some(Fault::HangAfter)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever fails in whatever order: I1 and I2.
    #[test]
    fn nothing_acknowledged_is_missing_whatever_fails(
        appends in prop::collection::vec(any_fault(), 0..12),
        puts in prop::collection::vec(any_fault(), 0..8),
        writes in prop::collection::vec(any_fault(), 0..30),
        finishes in prop::collection::vec(any_fault(), 0..12),
        deletes in prop::collection::vec(any_fault(), 0..6),
        reads in prop::collection::vec(any_fault(), 0..6),
        sends in prop::collection::vec((0_u32..3, 0_u8..3), 1..12),
        restart_after in 0_usize..12,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let site = Site::default();
            let mut service = site.open().await;
            for (call, faults) in [
                (Call::Append, appends),
                (Call::Put, puts),
                (Call::Write, writes),
                (Call::Finish, finishes),
                (Call::Delete, deletes),
                (Call::Read, reads),
            ] {
                site.faults.set(call, faults);
            }
            let mut acknowledged = HashSet::new();
            for (n, (instance, pixel)) in sends.into_iter().enumerate() {
                if n == restart_after {
                    service = site.open().await;
                }
                let image = Image { instance: format!("1.2.3.4.{instance}"), pixel, ..Image::default() };
                let sent = tokio::time::timeout(Duration::from_secs(120), send_from(&service, "CT1", &image));
                // A sender that gives up drops the store.
                if let Ok(Ok(stored)) = sent.await {
                    acknowledged.insert((stored.sop_instance_uid.to_string(), stored.digest));
                }
                site.assert_bytes_and_events_agree(true);
                let there: HashSet<_> = site
                    .stored_events()
                    .iter()
                    .map(|(_, event)| (event.sop_instance_uid.clone(), crate::support::index::object_of(event).digest))
                    .collect();
                assert!(acknowledged.is_subset(&there), "I2: an acknowledged instance is missing");
            }
        });
    }
}

#[tokio::test]
async fn a_body_that_ends_while_the_store_is_full_gives_the_stores_reason() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    site.faults.set(Call::Put, [Some(Fault::Before(StoreErrorKind::Exhausted))]);
    let image = Image::default();
    let outcome = service.store(receipt, offer(&image), body(&image.bytes(), 500)).await;
    assert_eq!(outcome.map_err(|error| error.reason), Err(Reason::OutOfRoom));
}
