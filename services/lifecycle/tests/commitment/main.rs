//! Storage commitment by the service, over embedded stores: what is decided, what survives, and who is told.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests, in modules of one binary")]

mod support;

use cairn_archive::{
    commitment::{FailureReason, State},
    events::CommitmentReporting,
};
use cairn_lifecycle::CommitmentConfig;
use cairn_service_api::{
    Commitments, DEFAULT_TENANT, ErrorKind, Reason,
    commitment::{Reported, Request, Selection, Transaction},
};
use cairn_store_api::ObjectRef;
use futures_util::TryStreamExt;
use std::time::Duration;
use support::{Site, request, transaction};

const NOT_THERE: Option<FailureReason> = Some(FailureReason::NO_SUCH_OBJECT_INSTANCE);
const NOT_AS_ASKED: Option<FailureReason> = Some(FailureReason::PROCESSING_FAILURE);

/// What became of each instance of a transaction, once its requester was told.
async fn failures(site: &Site, number: u32) -> Vec<Option<FailureReason>> {
    site.until(&transaction(number), State::Reported).await;
    let outcomes = site.service().commitment_outcomes(&transaction(number)).await.unwrap();
    outcomes.map_ok(|outcome| outcome.failure).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_back_is_committed_and_its_requester_is_called_once() {
    let site = Site::open().await;
    site.stored("1.3.1", b"one", "CT1").await;
    let taken = site.service().request_commitment(request(1, &["1.3.1", "1.3.2"])).await.unwrap();
    assert_eq!((taken.state, taken.references), (State::Pending, 2));
    assert_eq!(failures(&site, 1).await, [None, NOT_THERE]);
    let told = site.requesters.told(1).await;
    assert_eq!((told.len(), told[0].called_ae_title.as_str()), (1, "CAIRN"));
    let commitment = site.service().commitment(&transaction(1), Duration::ZERO).await.unwrap();
    assert_eq!((commitment.committed, commitment.failed), (1, vec![(FailureReason::NO_SUCH_OBJECT_INSTANCE, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_over_restarts_nor_said_twice() {
    let mut site = Site::open().await;
    site.stored("1.3.1", b"one", "CT1").await;
    *site.index.away.lock().unwrap() = true;
    site.service().request_commitment(request(1, &["1.3.1"])).await.unwrap();
    site.stop().await;
    site.start().await;
    assert_eq!(site.service().commitment(&transaction(1), Duration::ZERO).await.unwrap().state, State::Pending);
    // Nobody listens, for a while and over a restart.
    site.requesters.failures.lock().unwrap().extend([ErrorKind::Unavailable; 1_000]);
    *site.index.away.lock().unwrap() = false;
    let unreported = site.until(&transaction(1), State::Unreported).await;
    site.stop().await;
    site.start().await;
    let again = site.service().commitment(&transaction(1), Duration::ZERO).await.unwrap();
    assert_eq!(again.decided_at_ms, unreported.decided_at_ms, "decided once");
    site.requesters.failures.lock().unwrap().clear();
    assert_eq!(failures(&site, 1).await, [None]);
    site.stop().await;
    // Notes that are lost are read from the log again.
    std::fs::remove_dir_all(site.notes().join("lifecycle")).unwrap();
    site.start().await;
    site.until(&transaction(1), State::Reported).await;
    assert_eq!(site.requesters.told(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_has_one_answer() {
    let site = Site::open().await;
    site.stored("1.3.1", b"one", "CT1").await;
    let service = site.service();
    service.request_commitment(request(1, &["1.3.1", "1.3.2"])).await.unwrap();
    service.request_commitment(request(1, &["1.3.1", "1.3.2"])).await.unwrap();
    let other = service.request_commitment(request(1, &["1.3.1"])).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict);
    assert_eq!(failures(&site, 1).await, [None, NOT_THERE]);
    // What came later changes nothing: the same answer again.
    site.stored("1.3.2", b"two", "CT1").await;
    service.request_commitment(request(1, &["1.3.1", "1.3.2"])).await.unwrap();
    let told = site.requesters.told(2).await;
    assert_eq!(told[0], told[1]);
    service.request_commitment(request(2, &["1.3.1", "1.3.2"])).await.unwrap();
    assert_eq!(failures(&site, 2).await, [None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_that_its_requester_sent_last_must_be_the_one_shown() {
    let site = Site::open().await;
    let first = site.stored("1.3.1", b"first", "CT1").await;
    site.stored("1.3.1", b"second", "PACS").await;
    site.index.records.lock().unwrap()[1].shown = false;
    let service = site.service();
    let ask = async |number| {
        service.request_commitment(request(number, &["1.3.1"])).await.unwrap();
        failures(&site, number).await
    };
    assert_eq!(ask(1).await, [NOT_AS_ASKED], "the second is its own, and is not shown");
    site.sent_again(&first, "ANOTHER").await;
    assert_eq!(ask(2).await, [NOT_AS_ASKED], "what another sends again is nothing of its");
    site.sent_again(&first, "PACS").await;
    assert_eq!(ask(3).await, [None], "it sent the first again, which is shown");
    let of_stranger = Request { transaction: stranger(), ..request(4, &["1.3.1"]) };
    service.request_commitment(of_stranger).await.unwrap();
    site.until(&stranger(), State::Reported).await;
    let told = site.requesters.told(4).await;
    assert_eq!(told[3].outcomes[0].failure, None, "who stored none is promised what is shown");
}

fn stranger() -> Transaction {
    Transaction { requester: "STRANGER".into(), ..transaction(4) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_read_back_or_is_rejected_is_not_committed() {
    let site = Site::open().await;
    for (instance, bytes) in [("1.3.1", b"one" as &[u8]), ("1.3.2", b"two"), ("1.3.3", b"three")] {
        site.stored(instance, bytes, "PACS").await;
    }
    {
        let mut records = site.index.records.lock().unwrap();
        // As its event says it, it is not in the store.
        records[0].object = ObjectRef { digest: records[1].object.digest, ..records[0].object };
        records[1].shown = false;
    }
    site.service().request_commitment(request(1, &["1.3.1", "1.3.2", "1.3.3"])).await.unwrap();
    assert_eq!(failures(&site, 1).await, [NOT_AS_ASKED, NOT_AS_ASKED, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_sites_do_not_confirm_is_not_committed() {
    let site = Site::open().await;
    site.stored("1.3.1", b"one", "PACS").await;
    let asked = Request { confirmed_sites: 1, ..request(1, &["1.3.1"]) };
    site.service().request_commitment(asked).await.unwrap();
    assert_eq!(failures(&site, 1).await, [Some(FailureReason::RESOURCE_LIMITATION)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_kept_beside_the_log() {
    let mut site = Site::open().await;
    let instances: Vec<String> = (0..4_000).map(|number| format!("1.3.{number:040}.{number}")).collect();
    let names: Vec<&str> = instances.iter().map(String::as_str).collect();
    site.stored(names[3_999], b"the last", "PACS").await.shown = true;
    site.service().request_commitment(request(1, &names)).await.unwrap();
    let failed = failures(&site, 1).await;
    assert_eq!((failed.len(), failed[3_998], failed[3_999]), (4_000, NOT_THERE, None));
    assert_eq!(site.objects.list(None, 10).await.unwrap().objects.len(), 2, "an instance, and a list");
    site.stop().await;
    site.start().await;
    assert_eq!(failures(&site, 1).await, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_tells_those_who_wait_and_the_archive_calls_when_it_does_not() {
    let site = Site::open().await;
    site.stored("1.3.1", b"one", "PACS").await;
    let service = site.service();
    for number in [1, 2] {
        let reporting = CommitmentReporting::SameAssociation;
        let asked = Request { reporting, ..request(number, &["1.3.1"]) };
        service.request_commitment(asked).await.unwrap();
        site.until(&transaction(number), State::Unreported).await;
    }
    service.commitment_reported(&transaction(1), Reported::Taken).await.unwrap();
    site.until(&transaction(1), State::Reported).await;
    service.commitment_reported(&transaction(2), Reported::NotTaken).await.unwrap();
    site.until(&transaction(2), State::Reported).await;
    let told = site.requesters.told(1).await;
    assert_eq!(told.iter().map(|report| &report.transaction).collect::<Vec<_>>(), [&transaction(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_listens_is_given_up_and_can_ask_again() {
    let quick = CommitmentConfig {
        report_interval: Duration::from_millis(10),
        report_interval_max: Duration::from_millis(10),
        report_give_up: Duration::from_millis(100),
        ..CommitmentConfig::default()
    };
    let site = Site::with(quick).await;
    site.stored("1.3.1", b"one", "PACS").await;
    site.requesters.failures.lock().unwrap().extend([ErrorKind::Unavailable; 10_000]);
    site.service().request_commitment(request(1, &["1.3.1"])).await.unwrap();
    let given_up = site.until(&transaction(1), State::GivenUp).await;
    assert_eq!(given_up.report_failure.as_deref(), Some("nobody listens"));
    site.requesters.failures.lock().unwrap().clear();
    site.service().request_commitment(request(1, &["1.3.1"])).await.unwrap();
    site.until(&transaction(1), State::Reported).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_bounded_and_listed() {
    let small = CommitmentConfig { references_max: 2, pending_per_requester_max: 2, ..CommitmentConfig::default() };
    let site = Site::with(small).await;
    let service = site.service();
    let refused = |request| async { service.request_commitment(request).await.unwrap_err() };
    assert_eq!(refused(request(1, &[])).await.kind, ErrorKind::Invalid);
    let too_many = refused(request(1, &["1.3.1", "1.3.2", "1.3.3"])).await;
    assert_eq!((too_many.kind, too_many.reason), (ErrorKind::Exhausted, Reason::TooLarge));
    // Nothing of these comes, for a while.
    service.request_commitment(request(1, &["1.3.1"])).await.unwrap();
    service.request_commitment(request(2, &["1.3.1"])).await.unwrap();
    assert_eq!(refused(request(3, &["1.3.1"])).await.kind, ErrorKind::Exhausted);
    let list = async |selection| -> Vec<String> {
        let found = service.commitments(selection).await.unwrap();
        found.map_ok(|of| of.transaction.transaction_uid.to_string()).try_collect().await.unwrap()
    };
    let all = Selection { tenant: DEFAULT_TENANT.into(), ..Selection::default() };
    assert_eq!(list(all.clone()).await, ["1.9.1", "1.9.2"]);
    assert_eq!(list(Selection { state: Some(State::Reported), ..all.clone() }).await, [""; 0]);
    assert_eq!(list(Selection { requester: Some("PAC".into()), ..all.clone() }).await, [""; 0]);
    assert_eq!(list(Selection { transaction_uid: Some(support::uid("1.9.2")), ..all }).await, ["1.9.2"]);
    let unknown = service.commitment(&transaction(9), Duration::ZERO).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
}
