use super::*;
use crate::negotiate::PeerProfile;
use crate::{
    pdu::encode_release,
    services::status,
    testing::{CT, EXPLICIT, IMPLICIT, VERIFICATION, ae, echo, impatient, request_for, uid},
};
use cairn_archive::events::ReceiptEnd;
use cairn_dicom::tags;
use cairn_service_api::{
    Error, ErrorKind, Reason,
    ingest::{OfferedForm, StoreOutcome},
};

const INSTANCE: &str = "1.2.3.4";

fn c_store(message_id: u16) -> Command {
    let mut command = Command::request(CommandField::C_STORE_RQ, message_id, CT);
    command.sop_instance_uid = Some(INSTANCE.into());
    command.priority = Some(0);
    command
}

async fn associate(server: &Running) -> RawPeer {
    let mut request = request_for(&[(CT, &[EXPLICIT]), (VERIFICATION, &[IMPLICIT])]);
    request.user.implementation_class_uid = Some("1.2.3.4.5".into());
    request.user.implementation_version_name = Some("SCANNER 3".into());
    RawPeer::associate_for(server.address, &request).await
}

#[tokio::test]
async fn a_data_set_reaches_ingest_byte_for_byte_under_one_receipt() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let data_set: Vec<u8> = (0..300_000).map(|i| (i / 7) as u8).collect();
    for (id, fragment) in [(1, 131_066), (2, 16_378), (3, 1_001)] {
        peer.write(&request(1, &c_store(id), &data_set, fragment)).await;
        let response = expect_status(&mut peer, Status::SUCCESS).await;
        assert_eq!(response.message_id_responded_to, Some(id));
        assert_eq!(response.sop_instance_uid.as_deref(), Some(INSTANCE));
        assert_eq!(response.sop_class_uid.as_deref(), Some(CT));
    }
    // One that is empty but for its last fragment, and one whose last fragment is empty.
    peer.write(&request(1, &c_store(4), &[1, 2], 2)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    let mut halves = request(1, &c_store(5), &[1, 2], 2);
    let at = halves.len() - 3;
    halves[at] = 0;
    halves.extend(p_data(1, 2, &[]));
    peer.write(&halves).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    peer.write(&encode_release(5)).await;
    assert_eq!(peer.read_pdu().await.unwrap().0, 6);

    let stored = fakes.ingest.stored.lock().unwrap();
    let bodies: Vec<_> = stored.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert!(bodies == [&data_set[..], &data_set[..], &data_set[..], &[1, 2][..], &[1, 2][..]]);
    let form = OfferedForm::DataSet {
        transfer_syntax_uid: uid(EXPLICIT),
        sop_class_uid: uid(CT),
        sop_instance_uid: uid(INSTANCE),
    };
    assert_eq!(stored[0].0.form, form);
    let senders = fakes.ingest.senders.lock().unwrap();
    assert_eq!(senders.len(), 1, "one receipt for the association");
    assert_eq!(senders[0].calling_ae_title, "TESTER");
    assert_eq!(senders[0].called_ae_title, "CAIRN");
    assert_eq!(senders[0].implementation_class_uid, "1.2.3.4.5");
    assert_eq!(senders[0].implementation_version_name, "SCANNER 3");
    assert_eq!(*fakes.ingest.closed.lock().unwrap(), [ReceiptEnd::Completed]);
}

#[tokio::test]
async fn fragments_reach_ingest_before_the_data_set_is_complete() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let bytes = request(1, &c_store(1), &[9; 60_000], 20_000);
    // Into the second fragment, whose PDU is not complete.
    let (first, second) = bytes.split_at(bytes.len() - 30_000);
    peer.write(first).await;
    let mut seen = fakes.ingest.seen.subscribe();
    seen.wait_for(|(bytes, _)| *bytes > 20_000).await.unwrap();
    assert!(fakes.ingest.stored.lock().unwrap().is_empty());
    peer.write(second).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn each_failure_has_its_status_and_the_association_goes_on() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    use ErrorKind::*;
    let cases = [
        (Error::because(Invalid, Reason::CannotUnderstand, "x"), Status::CANNOT_UNDERSTAND),
        (Error::because(Invalid, Reason::DoesNotMatch, "x"), Status::DOES_NOT_MATCH_SOP_CLASS),
        (Error::because(Invalid, Reason::BadIdentifier, "x"), status::own::BAD_IDENTIFIER),
        (Error::because(Invalid, Reason::TransferSyntax, "x"), status::own::TRANSFER_SYNTAX),
        (Error::because(Invalid, Reason::TooLarge, "x"), status::own::TOO_LARGE),
        (Error::because(Conflict, Reason::ConflictRefused, "x"), status::own::CONFLICT_REFUSED),
        (Error::because(Exhausted, Reason::OutOfRoom, "x"), Status::OUT_OF_RESOURCES),
        (Error::new(Exhausted, "x"), Status::OUT_OF_RESOURCES),
        (Error::new(Unavailable, "x"), Status::OUT_OF_RESOURCES),
        (Error::new(Denied, "x"), Status::NOT_AUTHORIZED),
        (Error::new(Corrupt, "x"), status::own::CORRUPT),
        (Error::new(Internal, "x"), status::own::INTERNAL),
    ];
    for (id, (error, expected)) in (1..).zip(cases) {
        for early in [false, true] {
            let error = error.clone().about(tags::STUDY_INSTANCE_UID);
            fakes.ingest.script.lock().unwrap().push_back((early, Err(error)));
            peer.write(&request(1, &c_store(id), &[0; 50_000], 16_000)).await;
            let response = expect_status(&mut peer, expected).await;
            assert_eq!(response.error_comment.as_deref(), Some("x"));
            assert_eq!(response.offending_elements, [0x0020_000d]);
        }
    }
    peer.write(&request(1, &c_store(99), &[0; 10], 10)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(fakes.ingest.stored.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_conflict_is_a_warning_with_a_comment() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    for (outcome, words) in [
        (StoreOutcome::Conflict { shown: false }, Some("not shown")),
        (StoreOutcome::Conflict { shown: true }, Some("shown from now on")),
        (StoreOutcome::ElsewhereToo, Some("another study")),
        (StoreOutcome::Repeat, None),
    ] {
        fakes.ingest.script.lock().unwrap().push_back((false, Ok(outcome)));
        peer.write(&request(1, &c_store(1), &[0; 10], 10)).await;
        let (_, response) = peer.read_command().await;
        let expected = if words.is_some() { Status::COERCION_OF_DATA_ELEMENTS } else { Status::SUCCESS };
        assert_eq!(response.status, Some(expected));
        let comment = response.error_comment.unwrap_or_default();
        assert!(comment.len() <= 64 && comment.contains(words.unwrap_or("")), "{comment}");
    }
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_an_aborted_body_and_receipt() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let bytes = request(1, &c_store(1), &[9; 60_000], 20_000);
    peer.write(&bytes[..bytes.len() - 1]).await;
    drop(peer);
    let mut seen = fakes.ingest.seen.subscribe();
    seen.wait_for(|(_, errors)| *errors == 1).await.unwrap();
    let mut server = server;
    server.begin_stop();
    server.stopped().await;
    assert!(fakes.ingest.stored.lock().unwrap().is_empty());
    assert_eq!(*fakes.ingest.closed.lock().unwrap(), [ReceiptEnd::Aborted]);
}

#[tokio::test]
async fn a_stalled_sender_is_aborted_and_others_are_served_meanwhile() {
    let fakes = Fakes::default();
    let server = Running::start(fakes.door(Policy::default(), impatient()), SECOND).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut peer = associate(&server).await;
        let bytes = request(1, &c_store(1), &[9; 60_000], 20_000);
        peer.write(&bytes[..30_000]).await;
        stalled.push(peer);
    }
    let mut peer = associate(&server).await;
    peer.write(&request(1, &c_store(1), &[0; 10], 10)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    for mut peer in stalled {
        assert_eq!(peer.expect_abort().await, (2, 0));
    }
    assert_eq!(fakes.ingest.stored.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_that_can_not_be_meant_are_refused() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    peer.write(&p_data(1, 3, &c_store(1).encode())).await;
    expect_status(&mut peer, Status::MISTYPED_ARGUMENT).await;
    let mut other_class = c_store(2);
    other_class.sop_class_uid = Some("1.2.840.10008.5.1.4.31".into());
    peer.write(&request(1, &other_class, &[0; 10], 10)).await;
    expect_status(&mut peer, Status::SOP_CLASS_NOT_SUPPORTED).await;
    peer.write(&request(3, &c_store(3), &[0; 10], 10)).await;
    expect_status(&mut peer, Status::SOP_CLASS_NOT_SUPPORTED).await;
    peer.write(&p_data(1, 3, &echo(4))).await;
    expect_status(&mut peer, Status::SOP_CLASS_NOT_SUPPORTED).await;
    let n_get = Command::request(CommandField(0x0110), 5, CT);
    peer.write(&p_data(1, 3, &n_get.encode())).await;
    let response = expect_status(&mut peer, Status::UNRECOGNIZED_OPERATION).await;
    assert_eq!(response.field, CommandField(0x8110));
    assert!(fakes.ingest.stored.lock().unwrap().is_empty());
    peer.write(&p_data(3, 3, &echo(6))).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn an_instance_uid_that_is_none_is_left_for_ingest_to_refuse() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let mut command = c_store(1);
    command.sop_instance_uid = Some("../../etc/passwd".into());
    peer.write(&request(1, &command, &[0; 10], 10)).await;
    let response = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(response.sop_instance_uid.as_deref(), Some("../../etc/passwd"));
    let stored = fakes.ingest.stored.lock().unwrap();
    let OfferedForm::DataSet { sop_instance_uid, .. } = &stored[0].0.form else { panic!() };
    assert_eq!(sop_instance_uid.as_str(), "0");
}

#[tokio::test]
async fn pipelined_stores_are_all_answered_in_turn() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let all: Vec<u8> = (1..=50).flat_map(|id| request(1, &c_store(id), &[id as u8; 20_000], 16_000)).collect();
    peer.write(&all).await;
    for id in 1..=50 {
        let response = expect_status(&mut peer, Status::SUCCESS).await;
        assert_eq!(response.message_id_responded_to, Some(id));
    }
    let stored = fakes.ingest.stored.lock().unwrap();
    assert!(stored.iter().zip(1..).all(|((_, bytes), id)| *bytes == [id; 20_000]));
}

#[tokio::test]
async fn an_ae_that_may_not_store_gets_no_context_for_it() {
    let fakes = Fakes::default();
    let mut policy = Policy::default();
    let services = crate::negotiate::Services { storage: false, get: false, ..crate::negotiate::Services::ALL };
    policy.peers.insert(ae("TESTER"), Arc::new(PeerProfile { services, ..PeerProfile::default() }));
    let server = Running::start(fakes.door(policy, quick()), SECOND).await;
    let mut peer = associate(&server).await;
    peer.write(&request(1, &c_store(1), &[0; 10], 10)).await;
    assert_eq!(peer.expect_abort().await, (2, 6));
}

#[tokio::test]
async fn a_panic_behind_one_association_harms_no_other() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server).await;
    let mut other = associate(&server).await;
    let outcome = Err(Error::new(ErrorKind::Internal, PANIC));
    fakes.ingest.script.lock().unwrap().push_back((false, outcome));
    peer.write(&request(1, &c_store(1), &[0; 10], 10)).await;
    assert_eq!(peer.expect_abort().await, (2, 0));
    other.write(&request(1, &c_store(1), &[0; 10], 10)).await;
    expect_status(&mut other, Status::SUCCESS).await;
    associate(&server).await;
}
