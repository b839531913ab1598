use super::*;
use crate::{
    door::Destination,
    negotiate::{CommitmentTerms, PeerProfile},
    pdu::RoleSelection,
    scu::{Remote, report_commitment},
    testing::{EXPLICIT, IMPLICIT, VERIFICATION, ae, echo, request_for, uid},
};
use cairn_archive::{
    commitment::{FailureReason, Reference},
    events::CommitmentReporting,
};
use cairn_dicom::{
    CharacterSet, Vr,
    dataset::{DataSet, DecodeLimits, Value},
    tags,
    transfer_syntax::Encoding,
};
use cairn_service_api::{
    Error, ErrorKind,
    commitment::{Outcome, Report, Reported, Transaction},
};

const COMMITMENT: &str = "1.2.840.10008.1.20.1";
const INSTANCE: &str = "1.2.840.10008.1.20.1.1";

/// Callers are told on their own association, or called at an address.
async fn start(fakes: &Fakes, same: bool, called: bool) -> Running {
    let terms = CommitmentTerms { confirmed_sites: 2, on_same_association: same };
    let profile = Arc::new(PeerProfile { commitment: terms, ..PeerProfile::default() });
    let policy = Policy { default_profile: profile, ..Policy::default() };
    let limits = Limits { commitment_bytes_max: 4096, commitment_references_max: 3, ..quick() };
    let destinations = called.then(|| (ae("TESTER"), Destination { address: "127.0.0.1:1".into() }));
    Running::start(fakes.door(policy, limits).with_destinations(destinations.into_iter().collect()), SECOND).await
}

async fn associate(server: &Running) -> RawPeer {
    RawPeer::associate_for(server.address, &request_for(&[(COMMITMENT, &[EXPLICIT]), (VERIFICATION, &[IMPLICIT])]))
        .await
}

fn action() -> Command {
    let mut command = Command::request(CommandField::N_ACTION_RQ, 7, COMMITMENT);
    (command.sop_instance_uid, command.action_type_id) = (Some(INSTANCE.into()), Some(1));
    command
}

fn asking(transaction: &str, instances: usize) -> Vec<u8> {
    let mut set = DataSet::new();
    set.put_text(tags::TRANSACTION_UID, transaction);
    let item = |instance: usize| {
        let mut item = DataSet::new();
        item.put_text(tags::REFERENCED_SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2");
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, &format!("1.2.{instance}"));
        item
    };
    set.put(tags::REFERENCED_SOP_SEQUENCE, Vr::SQ, Value::Sequence((0..instances).map(item).collect()));
    set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap()
}

async fn expect_report(peer: &mut RawPeer) -> (Command, DataSet) {
    let (context, command) = peer.read_command().await;
    assert_eq!((context, command.field), (1, CommandField::N_EVENT_REPORT_RQ), "{command:?}");
    let bytes = peer.read_data_set().await.into();
    let limits = DecodeLimits::default();
    let (event, _) = DataSet::decode(&bytes, Encoding::ExplicitLittle, CharacterSet::DEFAULT, &limits).unwrap();
    (command, event)
}

async fn told(fakes: &Fakes, count: usize) -> Vec<Reported> {
    let mut reported = fakes.commitments.reported.subscribe();
    let all = tokio::time::timeout(10 * SECOND, reported.wait_for(|all| all.len() >= count)).await;
    all.expect("not told in time").unwrap().clone()
}

#[tokio::test]
async fn a_request_is_answered_at_once_and_reported_on_its_association() {
    let fakes = Fakes::default();
    let server = start(&fakes, true, false).await;
    let mut peer = associate(&server).await;
    peer.write(&request(1, &action(), &asking("1.9.1", 2), 64)).await;
    let response = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!((response.field, response.action_type_id), (CommandField::N_ACTION_RSP, Some(1)));
    let asked = fakes.commitments.requests.lock().unwrap()[0].clone();
    assert_eq!((asked.transaction.requester.as_str(), asked.called_ae_title.as_str()), ("TESTER", "CAIRN"));
    assert_eq!((asked.references.len(), asked.confirmed_sites), (2, 2));
    assert_eq!(asked.reporting, CommitmentReporting::SameAssociation);
    // Other requests go on meanwhile, also between a report and its answer.
    peer.write(&p_data(3, 3, &echo(8))).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    fakes.commitments.decided.send_replace(true);
    let (report, event) = expect_report(&mut peer).await;
    assert_eq!((report.sop_instance_uid.as_deref(), report.event_type_id), (Some(INSTANCE), Some(2)));
    assert_eq!(event.text(tags::TRANSACTION_UID), Some("1.9.1"));
    assert_eq!(event.items(tags::REFERENCED_SOP_SEQUENCE)[0].text(tags::REFERENCED_SOP_INSTANCE_UID), Some("1.2.1"));
    assert_eq!(event.items(tags::FAILED_SOP_SEQUENCE)[0].text(tags::REFERENCED_SOP_INSTANCE_UID), Some("1.2.0"));
    peer.write(&p_data(3, 3, &echo(9))).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    peer.write(&p_data(1, 3, &report.response(Status::SUCCESS).encode())).await;
    assert_eq!(told(&fakes, 1).await, [Reported::Taken]);
}

#[tokio::test]
async fn who_goes_before_the_report_or_does_not_take_it_is_to_be_called() {
    let fakes = Fakes::default();
    let server = start(&fakes, true, false).await;
    let mut gone = associate(&server).await;
    gone.write(&request(1, &action(), &asking("1.9.1", 1), 64)).await;
    expect_status(&mut gone, Status::SUCCESS).await;
    drop(gone);
    assert_eq!(told(&fakes, 1).await, [Reported::NotTaken]);
    let mut unwilling = associate(&server).await;
    unwilling.write(&request(1, &action(), &asking("1.9.2", 1), 64)).await;
    expect_status(&mut unwilling, Status::SUCCESS).await;
    fakes.commitments.decided.send_replace(true);
    let (report, _) = expect_report(&mut unwilling).await;
    unwilling.write(&p_data(1, 3, &report.response(Status::PROCESSING_FAILURE).encode())).await;
    assert_eq!(told(&fakes, 2).await, [Reported::NotTaken, Reported::NotTaken]);
}

#[tokio::test]
async fn a_caller_with_an_address_is_not_told_on_its_association() {
    let fakes = Fakes::default();
    let server = start(&fakes, false, true).await;
    let mut peer = associate(&server).await;
    peer.write(&request(1, &action(), &asking("1.9.1", 1), 64)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(fakes.commitments.requests.lock().unwrap()[0].reporting, CommitmentReporting::NewAssociation);
    fakes.commitments.decided.send_replace(true);
    peer.write(&p_data(3, 3, &echo(8))).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn what_can_not_be_a_request_is_refused_and_the_association_goes_on() {
    let fakes = Fakes::default();
    let server = start(&fakes, true, false).await;
    let mut peer = associate(&server).await;
    let good = asking("1.9.1", 1);
    let with = |change: &dyn Fn(&mut Command)| {
        let mut command = action();
        change(&mut command);
        command
    };
    let cases = [
        (with(&|c| c.sop_instance_uid = Some("1.2.3".into())), good.clone(), Status::NO_SUCH_SOP_INSTANCE),
        (with(&|c| c.sop_class_uid = Some("1.2.3".into())), good.clone(), Status::NO_SUCH_SOP_CLASS),
        (with(&|c| c.action_type_id = Some(2)), good.clone(), Status::NO_SUCH_ACTION),
        (action(), b"no data set".to_vec(), Status::INVALID_ARGUMENT_VALUE),
        (action(), asking("", 1), Status::INVALID_ARGUMENT_VALUE),
        (action(), asking("1.9.1", 0), Status::INVALID_ARGUMENT_VALUE),
        (action(), asking("1.9.1", 4), Status::RESOURCE_LIMITATION),
        (action(), asking("1.9.1", 1000), Status::RESOURCE_LIMITATION),
    ];
    for (command, data_set, status) in cases {
        peer.write(&request(1, &command, &data_set, 1024)).await;
        expect_status(&mut peer, status).await;
    }
    let refusals = [
        (ErrorKind::Conflict, Status::DUPLICATE_TRANSACTION_UID),
        (ErrorKind::Exhausted, Status::RESOURCE_LIMITATION),
        (ErrorKind::Unavailable, Status::RESOURCE_LIMITATION),
        (ErrorKind::Internal, Status::PROCESSING_FAILURE),
    ];
    for (kind, status) in refusals {
        fakes.commitments.refusals.lock().unwrap().push_back(Error::new(kind, "no"));
        peer.write(&request(1, &action(), &good, 1024)).await;
        expect_status(&mut peer, status).await;
    }
    assert!(fakes.commitments.requests.lock().unwrap().is_empty());
    peer.write(&request(1, &action(), &good, 1024)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn a_caller_that_could_never_be_told_is_refused() {
    let fakes = Fakes::default();
    let server = start(&fakes, false, false).await;
    let mut peer = associate(&server).await;
    peer.write(&request(1, &action(), &asking("1.9.1", 1), 64)).await;
    expect_status(&mut peer, Status::PROCESSING_FAILURE).await;
    assert!(fakes.commitments.requests.lock().unwrap().is_empty());
}

/// A requester that is called: takes one association and one report, and answers with a status.
async fn called(
    listener: tokio::net::TcpListener,
    status: Status,
    role: bool,
) -> (Option<RoleSelection>, Command, DataSet) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = RawPeer { stream };
    let (kind, body) = peer.read_pdu().await.unwrap();
    assert_eq!(kind, 1);
    let rq = crate::pdu::decode_associate_rq(body.into()).unwrap();
    let asked = rq.user.roles.first().cloned();
    let context = &rq.contexts[0];
    let accept = crate::pdu::AssociateAc {
        called_ae_title: rq.called_ae_title.clone(),
        calling_ae_title: rq.calling_ae_title.clone(),
        contexts: vec![crate::pdu::ContextAnswer {
            id: context.id,
            result: crate::pdu::ContextResult::Acceptance,
            transfer_syntax: Some(uid(EXPLICIT)),
        }],
        user: crate::pdu::UserInformation {
            maximum_length: Some(16384),
            roles: asked.clone().filter(|_| role).into_iter().collect(),
            ..crate::pdu::UserInformation::default()
        },
    };
    peer.write(&crate::pdu::encode_associate_ac(&accept)).await;
    let (command, event) = expect_report(&mut peer).await;
    peer.write(&p_data(1, 3, &command.response(status).encode())).await;
    assert_eq!(peer.read_pdu().await.unwrap().0, 5, "A-RELEASE-RQ");
    peer.write(&[6, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await;
    (asked, command, event)
}

#[tokio::test]
async fn a_requester_is_called_in_the_role_of_scp_and_its_answer_is_told() {
    for (status, role) in [(Status::SUCCESS, true), (Status::PROCESSING_FAILURE, false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote {
            address: listener.local_addr().unwrap().to_string(),
            called: ae("TESTER"),
            calling: ae("CAIRN"),
            limits: quick(),
            implementation: Implementation::default(),
        };
        let requester = tokio::spawn(called(listener, status, role));
        let reference = Reference { sop_class_uid: uid("1.2.1"), sop_instance_uid: uid("1.2.2"), within: None };
        let failure = Some(FailureReason::CLASS_INSTANCE_CONFLICT);
        let report = Report {
            transaction: Transaction {
                tenant: "default".into(),
                requester: "TESTER".into(),
                transaction_uid: uid("1.9.1"),
            },
            called_ae_title: "CAIRN".into(),
            outcomes: vec![Outcome { reference, failure }],
        };
        assert_eq!(report_commitment(&remote, report).await.unwrap(), status);
        let (asked, command, event) = requester.await.unwrap();
        assert_eq!(asked, Some(RoleSelection { sop_class_uid: uid(COMMITMENT), scu: false, scp: true }));
        assert_eq!(command.event_type_id, Some(2));
        let failed = &event.items(tags::FAILED_SOP_SEQUENCE)[0];
        assert_eq!(failed.get(tags::FAILURE_REASON).unwrap().value, Value::Unsigned(vec![0x0119]));
    }
}
