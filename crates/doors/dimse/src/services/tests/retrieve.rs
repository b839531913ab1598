use super::*;
use crate::{
    Association,
    acceptor::accept,
    association::Received,
    door::Destination,
    pdu::{AssociateRq, RoleSelection},
    services::plan::Plan,
    testing::{CT, EXPLICIT, IMPLICIT, ae, request_for, uid},
};
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, Uid, Vr,
    dataset::{DataSet, DecodeLimits, Value},
    tags,
    transfer_syntax::Encoding,
};
use cairn_service_api::{Error, ErrorKind, index::InstanceRecord};
use std::collections::HashMap;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::Instant};

const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
const JPEG: &str = "1.2.840.10008.1.2.4.50";
/// Pixel Data in fragments: an empty offset table and one fragment.
const ENCAPSULATED: &[u8] = &[
    0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff, //
    0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0, //
    0xfe, 0xff, 0, 0xe0, 2, 0, 0, 0, 1, 2, //
    0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0,
];

type Instance = (InstanceRecord, Result<Vec<Bytes>, Error>);

fn fakes(instances: Vec<Instance>, gate: Option<mpsc::Receiver<()>>) -> Fakes {
    let records = instances.iter().map(|(record, _)| record.clone()).collect();
    Fakes {
        index: Arc::new(FakeIndex { records, ..FakeIndex::default() }),
        retrieval: Arc::new(FakeRetrieval { instances, gate: gate.into() }),
        ..Fakes::default()
    }
}

fn whole(instance: &Instance) -> Vec<u8> {
    instance.1.as_ref().unwrap().concat()
}

fn study() -> Vec<u8> {
    let mut keys = DataSet::new();
    keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
    keys.put_text(tags::STUDY_INSTANCE_UID, "1.2");
    keys.encode(Encoding::ImplicitLittle, CharacterSet::DEFAULT).unwrap()
}

fn get_request() -> AssociateRq {
    let mut request = request_for(&[(STUDY_GET, &[IMPLICIT]), (CT, &[EXPLICIT])]);
    request.user.roles = vec![RoleSelection { sop_class_uid: uid(CT), scu: false, scp: true }];
    request
}

async fn failed_list(peer: &mut RawPeer) -> Vec<String> {
    let bytes = Bytes::from(peer.read_data_set().await);
    let read = DataSet::decode(&bytes, Encoding::ImplicitLittle, CharacterSet::DEFAULT, &DecodeLimits::default());
    read.unwrap().0.texts(tags::FAILED_SOP_INSTANCE_UID_LIST).to_vec()
}

/// Reads a C-STORE-RQ with its data set and answers it.
async fn take_store(peer: &mut RawPeer, status: Status) -> (Command, Vec<u8>) {
    let (context, command) = peer.read_command().await;
    assert_eq!(command.field, CommandField::C_STORE_RQ, "{command:?}");
    let bytes = peer.read_data_set().await;
    peer.write(&p_data(context, 3, &command.response(status).encode())).await;
    (command, bytes)
}

fn counts(response: &Command) -> (Option<u16>, u16, u16, u16) {
    let counts = response.sub_operations.unwrap();
    (counts.remaining, counts.completed, counts.failed, counts.warning)
}

#[tokio::test]
async fn c_get_gives_the_stored_bytes_with_counts() {
    let instances = cts(3);
    let fakes = fakes(instances.clone(), None);
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    for (number, instance) in (1..).zip(&instances) {
        let (command, bytes) = take_store(&mut peer, Status::SUCCESS).await;
        assert!(bytes == whole(instance), "instance {number} differs");
        assert_eq!(command.sop_instance_uid.as_deref(), Some(instance.0.sop_instance_uid.as_str()));
        assert_eq!(command.move_originator_ae_title, None);
        let pending = expect_status(&mut peer, Status::PENDING).await;
        assert_eq!(counts(&pending), (Some(3 - number), number, 0, 0));
    }
    let last = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!((counts(&last), last.has_data_set), ((None, 3, 0, 0), false));
    assert_eq!(fakes.index.selections.lock().unwrap()[0].studies, [uid("1.2")]);
}

#[tokio::test]
async fn what_can_not_be_sent_is_listed_and_the_rest_is_sent() {
    let mut instances = cts(2);
    let damaged = Error::new(ErrorKind::Corrupt, "object digest mismatch");
    instances.push((record(CT, EXPLICIT, "1.2.3.77"), Err(damaged)));
    instances.push((record(MR, EXPLICIT, "1.2.3.78"), Ok(vec![Bytes::from_static(&[1, 2])])));
    let compressed = InstanceRecord { pixel_data_offset: 700, ..record(CT, JPEG, "1.2.3.79") };
    instances.push((compressed, Ok(vec![Bytes::from_static(&[1, 2])])));
    instances.extend(cts(4).split_off(2));
    let fakes = fakes(instances, None);
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    let statuses = [Status::SUCCESS, Status::COERCION_OF_DATA_ELEMENTS, Status::SUCCESS, Status::OUT_OF_RESOURCES];
    let mut stores = 0;
    let last = loop {
        let (context, command) = peer.read_command().await;
        if command.field == CommandField::C_STORE_RQ {
            peer.read_data_set().await;
            peer.write(&p_data(context, 3, &command.response(statuses[stores]).encode())).await;
            stores += 1;
        } else if command.status != Some(Status::PENDING) {
            break command;
        }
    };
    assert_eq!(last.status, Some(Status::SUBOPERATIONS_WITH_FAILURES));
    assert_eq!(counts(&last), (None, 2, 4, 1));
    assert_eq!(failed_list(&mut peer).await, ["1.2.3.77", "1.2.3.78", "1.2.3.79", "1.2.3.4"]);
}

/// A data set with a name and eight samples, in this syntax.
fn small_data_set(encoding: Encoding) -> Vec<u8> {
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_NAME, "A^B");
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8])));
    set.encode(encoding, CharacterSet::DEFAULT).unwrap()
}

#[tokio::test]
async fn uncompressed_instances_are_converted_for_a_peer_that_took_another_syntax() {
    let explicit = small_data_set(Encoding::ExplicitLittle);
    let big = small_data_set(Encoding::ExplicitBig);
    let implicit = small_data_set(Encoding::ImplicitLittle);
    let pieces = |bytes: &[u8]| Ok(bytes.chunks(7).map(Bytes::copy_from_slice).collect());
    let mut no_pixels = DataSet::new();
    no_pixels.put_text(tags::PATIENT_NAME, "A^B");
    let report = no_pixels.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap();
    let image = |syntax: &str, uid: &str| InstanceRecord { pixel_data_offset: 700, ..record(CT, syntax, uid) };
    let fakes = fakes(
        vec![
            (image(EXPLICIT, "1.2.3.1"), pieces(&explicit)),
            (image("1.2.840.10008.1.2.2", "1.2.3.2"), pieces(&big)),
            (image(IMPLICIT, "1.2.3.3"), pieces(&implicit)),
            // Compressed as its syntax says, but without pixels: nothing needs a codec.
            (record(CT, JPEG, "1.2.3.4"), pieces(&report)),
            (image(JPEG, "1.2.3.5"), pieces(&report)),
            // Says that it is uncompressed, and is not: found out before anything is sent.
            (image(EXPLICIT, "1.2.3.6"), pieces(&[&explicit[..12], ENCAPSULATED].concat())),
        ],
        None,
    );
    let server = fakes.start().await;
    let mut request_ = request_for(&[(STUDY_GET, &[IMPLICIT]), (CT, &[IMPLICIT])]);
    request_.user.roles = vec![RoleSelection { sop_class_uid: uid(CT), scu: false, scp: true }];
    let mut peer = RawPeer::associate_for(server.address, &request_).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    let report = no_pixels.encode(Encoding::ImplicitLittle, CharacterSet::DEFAULT).unwrap();
    for expected in [&implicit, &implicit, &implicit, &report] {
        let (_, bytes) = take_store(&mut peer, Status::SUCCESS).await;
        assert_eq!(bytes, *expected);
        expect_status(&mut peer, Status::PENDING).await;
    }
    expect_status(&mut peer, Status::PENDING).await;
    expect_status(&mut peer, Status::PENDING).await;
    let last = expect_status(&mut peer, Status::SUBOPERATIONS_WITH_FAILURES).await;
    assert_eq!(counts(&last), (None, 4, 2, 0));
    assert_eq!(failed_list(&mut peer).await, ["1.2.3.5", "1.2.3.6"]);
}

#[tokio::test]
async fn a_peer_that_took_the_stored_syntax_gets_the_stored_bytes_though_another_would_do() {
    let explicit = small_data_set(Encoding::ExplicitLittle);
    let fakes = fakes(vec![(record(CT, EXPLICIT, "1.2.3.1"), Ok(vec![explicit.clone().into()]))], None);
    let server = fakes.start().await;
    let mut request_ = request_for(&[(STUDY_GET, &[IMPLICIT]), (CT, &[IMPLICIT]), (CT, &[EXPLICIT])]);
    request_.user.roles = vec![RoleSelection { sop_class_uid: uid(CT), scu: false, scp: true }];
    let mut peer = RawPeer::associate_for(server.address, &request_).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    assert_eq!(take_store(&mut peer, Status::SUCCESS).await.1, explicit);
}

#[tokio::test]
async fn if_nothing_could_be_sent_the_retrieval_is_refused() {
    let fakes = fakes(vec![(record(MR, EXPLICIT, "1.2.3.78"), Ok(vec![]))], None);
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    expect_status(&mut peer, Status::PENDING).await;
    let last = expect_status(&mut peer, Status::OUT_OF_RESOURCES_SUBOPERATIONS).await;
    assert_eq!(counts(&last), (None, 0, 1, 0));
    assert_eq!(failed_list(&mut peer).await, ["1.2.3.78"]);
}

#[tokio::test]
async fn no_match_is_a_success_with_nothing_sent() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    let last = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(counts(&last), (None, 0, 0, 0));
}

#[tokio::test]
async fn c_get_is_cancelled_between_sub_operations() {
    let (open, gate) = mpsc::channel(4);
    let fakes = fakes(cts(4), Some(gate));
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &study(), 16_000)).await;
    open.send(()).await.unwrap();
    take_store(&mut peer, Status::SUCCESS).await;
    expect_status(&mut peer, Status::PENDING).await;
    peer.write(&cancel(9)).await;
    let last = expect_status(&mut peer, Status::CANCEL).await;
    assert_eq!(counts(&last), (Some(3), 1, 0, 0));
    // And while a sub-operation is under way: it is ended first.
    *fakes.retrieval.gate.lock().unwrap() = None;
    peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 10, STUDY_GET), &study(), 16_000)).await;
    let (context, command) = peer.read_command().await;
    peer.read_data_set().await;
    peer.write(&cancel(10)).await;
    peer.write(&p_data(context, 3, &command.response(Status::SUCCESS).encode())).await;
    let last = expect_status(&mut peer, Status::CANCEL).await;
    assert_eq!(counts(&last), (Some(3), 1, 0, 0));
}

#[tokio::test]
async fn identifiers_of_retrievals_must_name_what_they_want() {
    let fakes = fakes(cts(1), None);
    let server = fakes.start().await;
    let mut peer = RawPeer::associate_for(server.address, &get_request()).await;
    for (level, key, value) in [
        ("STUDY", tags::STUDY_INSTANCE_UID, ""),
        ("STUDY", tags::STUDY_INSTANCE_UID, "*"),
        ("STUDY", tags::STUDY_INSTANCE_UID, "1.2\\?"),
        ("SERIES", tags::SERIES_INSTANCE_UID, "1.2.3"),
        ("PATIENT", tags::PATIENT_ID, "A"),
    ] {
        let mut keys = DataSet::new();
        keys.put_text(tags::QUERY_RETRIEVE_LEVEL, level);
        keys.put_text(key, value);
        let bytes = keys.encode(Encoding::ImplicitLittle, CharacterSet::DEFAULT).unwrap();
        peer.write(&request(1, &Command::request(CommandField::C_GET_RQ, 9, STUDY_GET), &bytes, 16_000)).await;
        expect_status(&mut peer, Status::DOES_NOT_MATCH_SOP_CLASS).await;
    }
    assert!(fakes.index.selections.lock().unwrap().is_empty());
}

fn c_move(destination: &str) -> Command {
    let mut command = Command::request(CommandField::C_MOVE_RQ, 9, STUDY_MOVE);
    command.move_destination = Some(destination.into());
    command
}

async fn start_with(fakes: &Fakes, title: &str, address: String) -> Running {
    let destinations = HashMap::from([(ae(title), Destination { address })]);
    Running::start(fakes.door(Policy::default(), quick()).with_destinations(destinations), SECOND).await
}

async fn associate_for_move(server: &Running) -> RawPeer {
    RawPeer::associate_for(server.address, &request_for(&[(STUDY_MOVE, &[IMPLICIT])])).await
}

#[tokio::test]
async fn c_move_to_an_unknown_destination_is_refused() {
    let fakes = fakes(cts(1), None);
    let server = start_with(&fakes, "THERE", "127.0.0.1:1".into()).await;
    let mut peer = associate_for_move(&server).await;
    for destination in ["NOWHERE", "", "MUCH_TOO_LONG_FOR_A_TITLE"] {
        peer.write(&request(1, &c_move(destination), &study(), 16_000)).await;
        expect_status(&mut peer, Status::MOVE_DESTINATION_UNKNOWN).await;
    }
    assert!(fakes.index.selections.lock().unwrap().is_empty());
}

#[tokio::test]
async fn c_move_sends_the_stored_bytes_to_another_archive() {
    let instances = cts(5);
    let (source, target) = (fakes(instances.clone(), None), Fakes::default());
    let there = target.start().await;
    let server = start_with(&source, "THERE", there.address.to_string()).await;
    let mut peer = associate_for_move(&server).await;
    peer.write(&request(1, &c_move("THERE"), &study(), 16_000)).await;
    for number in 1..=5 {
        let pending = expect_status(&mut peer, Status::PENDING).await;
        assert_eq!(counts(&pending), (Some(5 - number), number, 0, 0));
    }
    let last = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(counts(&last), (None, 5, 0, 0));
    let stored = target.ingest.stored.lock().unwrap();
    for (stored, sent) in stored.iter().zip(&instances) {
        assert!(stored.1 == whole(sent));
    }
    assert_eq!(stored.len(), 5);
    assert_eq!(target.ingest.senders.lock().unwrap()[0].calling_ae_title, "CAIRN");
    assert_eq!(target.ingest.senders.lock().unwrap().len(), 1, "one association for all");
}

#[tokio::test]
async fn an_unreachable_destination_fails_every_sub_operation_in_bounded_time() {
    let fakes = fakes(cts(50), None);
    // A port that was free a moment ago: connections to it are refused.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = start_with(&fakes, "THERE", address.to_string()).await;
    let mut peer = associate_for_move(&server).await;
    let start = Instant::now();
    peer.write(&request(1, &c_move("THERE"), &study(), 16_000)).await;
    for _ in 0..50 {
        expect_status(&mut peer, Status::PENDING).await;
    }
    let last = expect_status(&mut peer, Status::OUT_OF_RESOURCES_SUBOPERATIONS).await;
    assert_eq!(counts(&last), (None, 0, 50, 0));
    assert_eq!(failed_list(&mut peer).await.len(), 50);
    assert!(start.elapsed() < 5 * SECOND);
}

/// A destination that takes one association, shows each request, and answers with the statuses given.
async fn scripted(statuses: Vec<Status>) -> (String, JoinHandle<Vec<Command>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (stream, from) = listener.accept().await.unwrap();
        let (limits, policy) = (quick(), Policy::default());
        let implementation = Implementation::default();
        let accepted =
            accept(Box::new(stream), Some(from), Instant::now(), &policy, &limits, &implementation, |_| Ok(())).await;
        let mut association: Association = accepted.unwrap().association;
        let mut seen = Vec::new();
        let mut statuses = statuses.into_iter();
        while let Received::Message(message) = association.receive().await.unwrap() {
            while association.data().await.unwrap().is_some() {}
            let status = statuses.next().unwrap();
            association.send(message.context.id, &mut message.command.response(status), None).await.unwrap();
            seen.push(message.command);
        }
        association.confirm_release().await;
        seen
    });
    (address, task)
}

#[tokio::test]
async fn sub_operations_name_their_originator_and_their_statuses_are_counted() {
    let fakes = fakes(cts(4), None);
    let statuses = vec![Status::SUCCESS, Status(0xB007), Status::OUT_OF_RESOURCES, Status::SUCCESS];
    let (address, destination) = scripted(statuses).await;
    let server = start_with(&fakes, "THERE", address).await;
    let mut peer = associate_for_move(&server).await;
    let mut command = c_move("THERE");
    command.priority = Some(1);
    peer.write(&request(1, &command, &study(), 16_000)).await;
    for _ in 0..4 {
        expect_status(&mut peer, Status::PENDING).await;
    }
    let last = expect_status(&mut peer, Status::SUBOPERATIONS_WITH_FAILURES).await;
    assert_eq!(counts(&last), (None, 2, 1, 1));
    assert_eq!(failed_list(&mut peer).await, ["1.2.3.3"]);
    for request in destination.await.unwrap() {
        assert_eq!(request.move_originator_ae_title.as_deref(), Some("TESTER"));
        assert_eq!(request.move_originator_message_id, Some(9));
        assert_eq!(request.priority, Some(1));
    }
}

#[tokio::test]
async fn c_move_is_cancelled_between_sub_operations() {
    let (open, gate) = mpsc::channel(4);
    let (source, target) = (fakes(cts(4), Some(gate)), Fakes::default());
    let there = target.start().await;
    let server = start_with(&source, "THERE", there.address.to_string()).await;
    let mut peer = associate_for_move(&server).await;
    peer.write(&request(1, &c_move("THERE"), &study(), 16_000)).await;
    open.send(()).await.unwrap();
    expect_status(&mut peer, Status::PENDING).await;
    peer.write(&cancel(9)).await;
    let last = expect_status(&mut peer, Status::CANCEL).await;
    assert_eq!(counts(&last), (Some(3), 1, 0, 0));
    assert_eq!(target.ingest.stored.lock().unwrap().len(), 1);
}

#[test]
fn contexts_are_split_beyond_128_and_each_class_has_an_uncompressed_one() {
    let mut plan = Plan::default();
    for class in 0..90 {
        for syntax in [EXPLICIT, JPEG] {
            assert!(plan.add(&record(&format!("1.2.3.{class}"), syntax, "1.2.3")));
        }
    }
    let parts = plan.contexts();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [126, 126, 18]);
    let plain = vec![uid(EXPLICIT), uid(IMPLICIT)];
    for class in 0..90 {
        let class: Uid = uid(&format!("1.2.3.{class}"));
        let of_class = |part: &&Vec<(Uid, Vec<Uid>)>| part.iter().any(|(of, _)| *of == class);
        let part = parts.iter().find(of_class).unwrap();
        let syntaxes: Vec<_> = part.iter().filter(|(of, _)| *of == class).map(|(_, s)| s.clone()).collect();
        assert_eq!(syntaxes, [vec![uid(EXPLICIT)], vec![uid(JPEG)], plain.clone()]);
    }
}
