#![allow(clippy::unwrap_used)]

use crate::{
    Association, AssociationError, Backends, CommandField, Implementation, Limits, Status,
    association::Transport,
    door::Door,
    negotiate::Policy,
    pdu::{AssociateRj, encode_associate_rq, encode_release, pdu_type},
    requestor::{Request, connect},
    testing::*,
};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn door(limits: Limits) -> Door {
    let mut policy = Policy::default();
    policy.called_ae_titles.insert(ae("CAIRN"));
    Door::new("default", policy, limits, Implementation::default(), Backends::default())
}

fn verification() -> Request {
    Request {
        calling_ae_title: ae("TESTER"),
        called_ae_title: ae("CAIRN"),
        contexts: vec![(uid(VERIFICATION), vec![uid(IMPLICIT)])],
        roles: vec![],
    }
}

async fn transport(server: &Running) -> Box<dyn Transport> {
    connect(&server.address.to_string(), &Limits::default()).await.unwrap()
}

#[tokio::test]
async fn echo_then_release_closes_the_connection() {
    let mut server = Running::start(door(quick()), SECOND).await;
    let (limits, implementation) = (Limits::default(), Implementation::default());
    let request = verification();
    let mut ours = Association::request(transport(&server).await, &request, &limits, &implementation).await.unwrap();
    assert_eq!(ours.peer().implementation_class_uid.as_deref(), Some(implementation.class_uid.as_str()));
    for _ in 0..3 {
        assert_eq!(ours.echo().await.unwrap(), Status::SUCCESS);
    }
    ours.release().await.unwrap();
    server.begin_stop();
    server.stopped().await;
}

#[tokio::test]
async fn a_command_split_at_every_byte_is_answered() {
    let server = Running::start(door(quick()), SECOND).await;
    let mut peer = RawPeer::associate(server.address).await;
    let command = echo(7);
    for cut in 0..=command.len() {
        let bytes = [p_data(1, 1, &command[..cut]), p_data(1, 3, &command[cut..])].concat();
        let (first, second) = bytes.split_at(cut + 3);
        peer.write(first).await;
        peer.write(second).await;
        let (context, response) = peer.read_command().await;
        assert_eq!((context, response.field), (1, CommandField::C_ECHO_RSP));
        assert_eq!((response.message_id_responded_to, response.status), (Some(7), Some(Status::SUCCESS)));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_turn() {
    let server = Running::start(door(quick()), SECOND).await;
    let mut peer = RawPeer::associate(server.address).await;
    let many: Vec<u8> = (1..=200).flat_map(|id| p_data(1, 3, &echo(id))).collect();
    peer.write(&many).await;
    for id in 1..=200 {
        assert_eq!(peer.read_command().await.1.message_id_responded_to, Some(id));
    }
    peer.write(&encode_release(pdu_type::RELEASE_RQ)).await;
    assert_eq!(peer.read_pdu().await.unwrap().0, pdu_type::RELEASE_RP);
    assert_eq!(peer.read_pdu().await, None);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_aborted_with_source_and_reason() {
    let server = Running::start(door(quick()), SECOND).await;
    let endless = p_data(1, 1, &[0; 16000]).repeat(5);
    let mut c_store = crate::Command::request(CommandField::C_STORE_RQ, 1, CT);
    c_store.has_data_set = true;
    let c_store = c_store.encode();
    let mut response = crate::Command::request(CommandField::C_ECHO_RQ, 1, VERIFICATION).response(Status::SUCCESS);
    response.field = CommandField::C_ECHO_RSP;
    let cases: [(&str, Vec<u8>, (u8, u8)); 12] = [
        ("an unknown PDU type", b"GET / HTTP/1.1\r\n\r\n".to_vec(), (2, 1)),
        ("a second A-ASSOCIATE-RQ", encode_associate_rq(&request_for(&[])).to_vec(), (2, 2)),
        ("A-RELEASE-RP that nobody asked for", encode_release(pdu_type::RELEASE_RP).to_vec(), (2, 2)),
        ("a P-DATA-TF beyond the announced length", [4, 0, 0, 2, 0, 1].to_vec(), (2, 6)),
        ("a PDV that is longer than its PDU", [4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 1, 3].to_vec(), (2, 6)),
        ("a context that was not accepted", p_data(3, 3, &echo(1)), (2, 6)),
        ("a data set where a command is due", p_data(1, 2, &[0; 8]), (2, 5)),
        ("a command without end", endless, (2, 6)),
        ("a command of another group", p_data(1, 3, &[8, 0, 5, 0, 0, 0, 0, 0]), (2, 6)),
        (
            "a command within a data set",
            [p_data(1, 3, &c_store), p_data(1, 0, &[0; 8]), p_data(1, 3, &echo(1))].concat(),
            (2, 5),
        ),
        ("a response to nothing", p_data(1, 3, &response.encode()), (2, 2)),
        ("release within a command", [p_data(1, 1, &[0]), encode_release(5).to_vec()].concat(), (2, 2)),
    ];
    for (what, bytes, expected) in cases {
        let mut peer = RawPeer::associate(server.address).await;
        peer.write(&bytes).await;
        assert_eq!(peer.expect_abort().await, expected, "{what}");
    }
    let mut peer = RawPeer::associate(server.address).await;
    peer.write(&p_data(1, 3, &echo(1))).await;
    assert_eq!(peer.read_command().await.1.status, Some(Status::SUCCESS), "others are served on");
}

#[tokio::test]
async fn before_an_association_nothing_else_is_taken() {
    let server = Running::start(door(quick()), SECOND).await;
    for (bytes, expected) in [
        (p_data(1, 3, &echo(1)), (2, 2)),
        (encode_release(5).to_vec(), (2, 2)),
        (vec![0x16, 3, 1], (2, 1)),
        (vec![1, 0, 0, 0x20, 0, 0], (2, 6)),
        (vec![1, 0, 0, 0, 0, 10], (2, 6)),
    ] {
        let mut peer = RawPeer::connect(server.address).await;
        peer.write(&bytes).await;
        assert_eq!(peer.expect_abort().await, expected, "{bytes:02x?}");
    }
}

#[tokio::test]
async fn rejections_reach_the_peer() {
    let server = Running::start(door(quick()), SECOND).await;
    let mut wrong = request_for(&[(VERIFICATION, &[IMPLICIT])]);
    wrong.called_ae_title = ae("NOT_HERE");
    let mut peer = RawPeer::connect(server.address).await;
    peer.write(&encode_associate_rq(&wrong)).await;
    assert_eq!(peer.read_pdu().await, Some((3, vec![0, 1, 1, 7])));
    assert_eq!(peer.read_pdu().await, None);
    wrong.called_ae_title = ae("CAIRN");
    wrong.protocol_version = 0;
    let mut peer = RawPeer::connect(server.address).await;
    peer.write(&encode_associate_rq(&wrong)).await;
    assert_eq!(peer.read_pdu().await, Some((3, vec![0, 1, 2, 2])));
}

#[tokio::test]
async fn a_full_house_rejects_as_transient_until_there_is_room() {
    let limits = Limits { associations_max: 2, ..quick() };
    let server = Running::start(door(limits), SECOND).await;
    let first = RawPeer::associate(server.address).await;
    let _second = RawPeer::associate(server.address).await;
    let implementation = Implementation::default();
    let request = verification();
    let refused = Association::request(transport(&server).await, &request, &quick(), &implementation).await;
    let Err(AssociationError::Rejected(reject)) = refused else { panic!("not rejected") };
    assert_eq!(reject, AssociateRj::LOCAL_LIMIT_EXCEEDED);
    assert!(reject.is_transient());
    drop(first);
    // The place is given back once the server has seen the connection end.
    let deadline = Instant::now() + 5 * SECOND;
    loop {
        match Association::request(transport(&server).await, &request, &quick(), &implementation).await {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test]
async fn one_ae_title_can_not_take_all_places() {
    let limits = Limits { associations_per_ae_max: 1, ..quick() };
    let server = Running::start(door(limits), SECOND).await;
    let _first = RawPeer::associate(server.address).await;
    let mut request = request_for(&[(VERIFICATION, &[IMPLICIT])]);
    let mut peer = RawPeer::connect(server.address).await;
    peer.write(&encode_associate_rq(&request)).await;
    assert_eq!(peer.read_pdu().await, Some((3, vec![0, 2, 3, 2])));
    request.calling_ae_title = ae("ANOTHER");
    RawPeer::associate_for(server.address, &request).await;
}

#[tokio::test]
async fn half_open_and_slow_peers_are_closed_in_time_and_harm_nobody() {
    let server = Running::start(door(impatient()), SECOND).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(RawPeer::connect(server.address).await);
    }
    // One byte at a time: ARTIM runs from the connection, not from the last byte.
    let address = server.address;
    let dripping = tokio::spawn(async move {
        let mut peer = RawPeer::connect(address).await;
        let bytes = encode_associate_rq(&request_for(&[(VERIFICATION, &[IMPLICIT])]));
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(30));
        for byte in &bytes {
            tick.tick().await;
            use tokio::io::AsyncWriteExt;
            if peer.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        assert_eq!(peer.read_pdu().await, None);
        start.elapsed()
    });
    let mut peer = RawPeer::associate(server.address).await;
    peer.write(&p_data(1, 3, &echo(1))).await;
    assert_eq!(peer.read_command().await.1.status, Some(Status::SUCCESS), "served while the others are held");
    for mut peer in silent {
        assert_eq!(peer.read_pdu().await, None);
    }
    assert!(dripping.await.unwrap() < 8 * SECOND);
    // Within an association, a PDU that does not go on is aborted.
    let mut peer = RawPeer::associate(server.address).await;
    peer.write(&p_data(1, 3, &echo(1))[..9]).await;
    assert_eq!(peer.expect_abort().await, (2, 0));
}

#[tokio::test]
async fn a_pdu_that_drips_is_aborted_though_each_byte_is_a_fragment() {
    let server = Running::start(door(impatient()), SECOND).await;
    let mut peer = RawPeer::associate(server.address).await;
    let start = Instant::now();
    let pdu = p_data(1, 1, &[0; 16_000]);
    peer.write(&pdu[..12]).await;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for byte in &pdu[12..] {
        tick.tick().await;
        use tokio::io::AsyncWriteExt;
        if peer.stream.write_all(&[*byte]).await.is_err() || start.elapsed() > 8 * SECOND {
            break;
        }
    }
    assert!(start.elapsed() < 5 * SECOND, "held for {:?}", start.elapsed());
}

#[tokio::test]
async fn a_message_that_drips_is_aborted_though_each_pdu_is_quick() {
    for (rate, aborted) in [(100_000, true), (0, false)] {
        let limits = Limits { receive_rate_min: rate, transfer_timeout: Duration::from_millis(300), ..quick() };
        let server = Running::start(door(limits), SECOND).await;
        let mut peer = RawPeer::associate(server.address).await;
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let mut cut = false;
        while !cut && start.elapsed() < if aborted { 8 * SECOND } else { SECOND } {
            tick.tick().await;
            use tokio::io::AsyncWriteExt;
            cut = peer.stream.write_all(&p_data(1, 1, &[0])).await.is_err();
        }
        assert_eq!(cut, aborted, "at least {rate} bytes a second");
    }
}

#[tokio::test]
async fn an_idle_association_is_aborted() {
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..quick() };
    let server = Running::start(door(limits), SECOND).await;
    let mut peer = RawPeer::associate(server.address).await;
    assert_eq!(peer.expect_abort().await, (2, 0));
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let limits = Limits { connections_per_address_max: 3, artim: 20 * SECOND, ..quick() };
    let server = Running::start(door(limits), SECOND).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(RawPeer::connect(server.address).await);
    }
    // The third proves that the first two were counted: connections are accepted in order.
    let _third = RawPeer::associate(server.address).await;
    let mut fourth = RawPeer::connect(server.address).await;
    assert_eq!(fourth.read_pdu().await, None);
}

#[tokio::test]
async fn draining_lets_associations_end_and_aborts_the_rest() {
    let mut server = Running::start(door(quick()), SECOND).await;
    let mut ends = RawPeer::associate(server.address).await;
    let mut stays = RawPeer::associate(server.address).await;
    server.begin_stop();
    ends.write(&p_data(1, 3, &echo(1))).await;
    assert_eq!(ends.read_command().await.1.status, Some(Status::SUCCESS));
    ends.write(&encode_release(5)).await;
    assert_eq!(ends.read_pdu().await.unwrap().0, 6);
    drop(ends);
    assert_eq!(stays.expect_abort().await, (0, 0));
    drop(stays);
    server.stopped().await;
}
