//! Receipts sum up what came.

use crate::support::{
    Site, body,
    data::Image,
    memory::{Call, Fault},
    offer, send, sender,
};
use cairn_archive::{
    events::{Door, Event, ReceiptClosed, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_service_api::{ErrorKind, Ingest};
use cairn_store_api::StoreErrorKind;

fn closed(site: &Site) -> Vec<ReceiptClosed> {
    let closed = |(_, event)| match event {
        Event::ReceiptClosed(event) => Some(event),
        _ => None,
    };
    site.events().into_iter().filter_map(closed).collect()
}

fn counts(event: &ReceiptClosed) -> (&str, u32, u32, u32) {
    (&event.study_instance_uid, event.stored, event.repeated, event.refused)
}

#[tokio::test]
async fn a_receipt_ends_with_one_event_per_study() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    let image = |study: &str, n: u32| Image {
        study: study.into(),
        series: format!("{study}.1"),
        instance: format!("{study}.1.{n}"),
        ..Image::default()
    };
    for (study, n) in [("1.2.1", 1), ("1.2.1", 2), ("1.2.1", 2), ("1.2.2", 1)] {
        send(&service, receipt, &image(study, n)).await.expect("stored");
    }
    let wrong = Image { instance: "1.2.9".into(), ..image("1.2.2", 7) };
    let outcome = service.store(receipt, offer(&wrong), body(&image("1.2.2", 7).bytes(), 100)).await;
    assert_eq!(outcome.map_err(|error| error.kind), Err(ErrorKind::Invalid));
    site.objects.set_room(Some(10));
    let full = send(&service, receipt, &image("1.2.2", 8)).await;
    assert_eq!(full.map_err(|error| error.kind), Err(ErrorKind::Exhausted));
    let junk = service.store(receipt, offer(&wrong), body(b"no data set at all", 100)).await;
    assert_eq!(junk.map_err(|error| error.kind), Err(ErrorKind::Invalid));
    service.close_receipt(receipt, ReceiptEnd::Completed).await.expect("closes");

    let mut events = closed(&site);
    events.sort_by(|a, b| a.study_instance_uid.cmp(&b.study_instance_uid));
    assert_eq!(events.iter().map(counts).collect::<Vec<_>>(), [("", 0, 0, 2), ("1.2.1", 2, 1, 0), ("1.2.2", 1, 0, 1)]);
    for event in &events {
        let from = event.receipt.as_ref().expect("a receipt");
        assert_eq!((from.receipt_id.as_ref(), from.door()), (&receipt.as_bytes()[..], Door::Dimse));
        assert_eq!((event.end(), event.opened_at_ms), (ReceiptEnd::Completed, crate::support::NOW_MS));
    }
    let again = service.close_receipt(receipt, ReceiptEnd::Completed).await;
    assert_eq!(again.map_err(|error| error.kind), Err(ErrorKind::NotFound));
    let late = send(&service, receipt, &image("1.2.1", 3)).await;
    assert_eq!(late.map_err(|error| error.kind), Err(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_receipt_in_which_nothing_came_leaves_no_event() {
    let site = Site::default();
    let service = site.open().await;
    for _ in 0..100 {
        let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
        service.close_receipt(receipt, ReceiptEnd::Aborted).await.expect("closes");
    }
    assert_eq!(site.kinds(), [""; 0]);
}

#[tokio::test]
async fn a_closing_that_failed_can_be_tried_again() {
    let site = Site::default();
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    send(&service, receipt, &Image::default()).await.expect("stored");
    site.faults.set(Call::Append, [Some(Fault::Before(StoreErrorKind::Unavailable))]);
    let failed = service.close_receipt(receipt, ReceiptEnd::Completed).await;
    assert_eq!(failed.map_err(|error| error.kind), Err(ErrorKind::Unavailable));
    service.close_receipt(receipt, ReceiptEnd::Completed).await.expect("closes");
    assert_eq!(closed(&site).iter().map(counts).collect::<Vec<_>>(), [("1.2.3", 1, 0, 0)]);
}

#[tokio::test]
async fn a_closing_that_failed_and_that_nobody_tries_again_is_made_up_for() {
    let site = Site::configured(|config| config.receipts.open_max = 2);
    let service = site.open().await;
    let receipt = service.open_receipt(sender("CT1")).await.expect("opens");
    send(&service, receipt, &Image::default()).await.expect("stored");
    site.faults.set(Call::Append, [Some(Fault::Before(StoreErrorKind::Exhausted))]);
    service.close_receipt(receipt, ReceiptEnd::Aborted).await.expect_err("the log is full");
    // It holds up nobody: with the log full there is room for other receipts.
    let other = service.open_receipt(sender("CT2")).await.expect("opens");
    send(&service, other, &Image { instance: "1.2.3.4.6".into(), ..Image::default() }).await.expect("stored");
    service.close_receipt(other, ReceiptEnd::Completed).await.expect("closes");
    let ends: Vec<_> = closed(&site).iter().map(ReceiptClosed::end).collect();
    assert_eq!(ends, [ReceiptEnd::Completed, ReceiptEnd::Aborted]);
    assert!(service.close_receipt(receipt, ReceiptEnd::Aborted).await.is_err(), "it is closed");
}

#[tokio::test]
async fn open_receipts_are_bounded_and_the_rest_is_closed_at_the_end() {
    let site = Site::configured(|config| config.receipts.open_max = 2);
    let service = site.open().await;
    let first = service.open_receipt(sender("CT1")).await.expect("opens");
    send(&service, first, &Image::default()).await.expect("stored");
    service.open_receipt(sender("CT1")).await.expect("opens");
    let full = service.open_receipt(sender("CT1")).await;
    assert_eq!(full.map_err(|error| error.kind), Err(ErrorKind::Exhausted));
    service.close().await.expect("closes");
    let events = closed(&site);
    assert_eq!(events.iter().map(counts).collect::<Vec<_>>(), [("1.2.3", 1, 0, 0)]);
    assert_eq!(events[0].end(), ReceiptEnd::EndedByArchive);
    let unknown = ReceiptId::from_slice(&[1; 16]).expect("an id");
    assert!(service.close_receipt(unknown, ReceiptEnd::Completed).await.is_err());
}
