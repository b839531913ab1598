use super::*;
use crate::{
    negotiate::{PeerProfile, QueryOptions},
    pdu::SopClassExtended,
    services::status,
    testing::{CT, EXPLICIT, IMPLICIT, ae, request_for, uid},
};
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, DecodeLimits, Value},
    tags,
    transfer_syntax::Encoding,
};
use cairn_service_api::{Error, ErrorKind, Reason, index::Level};
use tokio::sync::mpsc;

fn set(pairs: &[(Tag, &str)]) -> DataSet {
    let mut set = DataSet::new();
    for (tag, text) in pairs {
        set.put_text(*tag, text);
    }
    set
}

fn study_level(pairs: &[(Tag, &str)]) -> DataSet {
    let mut keys = set(pairs);
    keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
    keys
}

fn identifier(keys: &DataSet) -> Vec<u8> {
    keys.encode(Encoding::ImplicitLittle, CharacterSet::DEFAULT).unwrap()
}

fn c_find(message_id: u16, class: &str) -> Command {
    Command::request(CommandField::C_FIND_RQ, message_id, class)
}

async fn associate(server: &Running, class: &str) -> RawPeer {
    RawPeer::associate_for(server.address, &request_for(&[(class, &[IMPLICIT]), (CT, &[EXPLICIT])])).await
}

async fn read_answer(peer: &mut RawPeer, expected: Status) -> DataSet {
    expect_status(peer, expected).await;
    let bytes = Bytes::from(peer.read_data_set().await);
    let read = DataSet::decode(&bytes, Encoding::ImplicitLittle, CharacterSet::DEFAULT, &DecodeLimits::default());
    read.unwrap().0
}

#[tokio::test]
async fn answers_come_with_their_level_and_end_in_success() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let answer = |id: &str| Ok(set(&[(tags::PATIENT_NAME, "DOE^JANE"), (tags::STUDY_INSTANCE_UID, id)]));
    fakes.index.answer_with(vec![answer("1.2"), answer("1.3")]);
    let keys = study_level(&[(tags::PATIENT_NAME, "DOE*"), (tags::STUDY_INSTANCE_UID, "")]);
    peer.write(&request(1, &c_find(7, STUDY_FIND), &identifier(&keys), 16_000)).await;
    for id in ["1.2", "1.3"] {
        let answer = read_answer(&mut peer, Status::PENDING).await;
        assert_eq!(answer.text(tags::STUDY_INSTANCE_UID), Some(id));
        assert_eq!(answer.text(tags::QUERY_RETRIEVE_LEVEL), Some("STUDY"));
        assert_eq!(answer.text(tags::RETRIEVE_AE_TITLE), Some("CAIRN"));
    }
    let last = expect_status(&mut peer, Status::SUCCESS).await;
    assert!(!last.has_data_set);
    assert_eq!(last.message_id_responded_to, Some(7));
    let queries = fakes.index.queries.lock().unwrap();
    assert_eq!(queries[0].level, Level::Study);
    assert_eq!(queries[0].identifier.text(tags::PATIENT_NAME), Some("DOE*"));
    assert_eq!(queries[0].identifier.get(tags::QUERY_RETRIEVE_LEVEL), None);
    assert_eq!(queries[0].limit, None);
}

#[tokio::test]
async fn an_answer_is_sent_as_soon_as_it_is_found() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let (found, answers) = mpsc::channel(1);
    fakes.index.answers.lock().unwrap().push_back(Ok(answers));
    peer.write(&request(1, &c_find(1, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
    for id in ["1.1", "1.2", "1.3"] {
        found.send(Ok(set(&[(tags::STUDY_INSTANCE_UID, id)]))).await.unwrap();
        let answer = read_answer(&mut peer, Status::PENDING).await;
        assert_eq!(answer.text(tags::STUDY_INSTANCE_UID), Some(id));
    }
    drop(found);
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn a_cancel_between_answers_ends_the_query() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let (found, answers) = mpsc::channel(1);
    fakes.index.answers.lock().unwrap().push_back(Ok(answers));
    peer.write(&request(1, &c_find(3, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
    found.send(Ok(DataSet::new())).await.unwrap();
    read_answer(&mut peer, Status::PENDING).await;
    peer.write(&cancel(2)).await;
    found.send(Ok(DataSet::new())).await.unwrap();
    read_answer(&mut peer, Status::PENDING).await;
    // In two pieces, with nothing else to wake the server.
    let bytes = cancel(3);
    peer.write(&bytes[..11]).await;
    peer.write(&bytes[11..]).await;
    expect_status(&mut peer, Status::CANCEL).await;
    assert!(found.is_closed(), "the work behind the query is dropped");
    // The same for one that never ends and never waits.
    let (found, answers) = mpsc::channel(64);
    fakes.index.answers.lock().unwrap().push_back(Ok(answers));
    let feeding = tokio::spawn(async move {
        let mut sent = 0_u64;
        while found.send(Ok(set(&[(tags::PATIENT_NAME, "A")]))).await.is_ok() {
            sent += 1;
        }
        sent
    });
    peer.write(&request(1, &c_find(4, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
    read_answer(&mut peer, Status::PENDING).await;
    peer.write(&cancel(4)).await;
    loop {
        let (_, response) = peer.read_command().await;
        if response.status == Some(Status::CANCEL) {
            break;
        }
        peer.read_data_set().await;
    }
    assert!(feeding.await.unwrap() > 0);
}

#[tokio::test]
async fn a_key_that_no_answer_has_is_said_to_be_unsupported() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    fakes.index.answer_with(vec![Ok(set(&[(tags::STUDY_INSTANCE_UID, "1.2")]))]);
    let keys = study_level(&[(tags::PATIENT_COMMENTS, ""), (tags::RETRIEVE_AE_TITLE, "")]);
    peer.write(&request(1, &c_find(1, STUDY_FIND), &identifier(&keys), 16_000)).await;
    read_answer(&mut peer, Status::PENDING_OPTIONAL_KEYS_UNSUPPORTED).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    // A group length is no key.
    fakes.index.answer_with(vec![Ok(set(&[(tags::STUDY_INSTANCE_UID, "1.2")]))]);
    let mut keys = study_level(&[]);
    keys.put(Tag::new(0x0008, 0), Vr::UL, Value::Unsigned(vec![4]));
    peer.write(&request(1, &c_find(2, STUDY_FIND), &identifier(&keys), 16_000)).await;
    read_answer(&mut peer, Status::PENDING).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn answers_are_in_the_requests_character_set_if_it_can_carry_them() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let name = |text: &str| Ok(set(&[(tags::PATIENT_NAME, text)]));
    fakes.index.answer_with(vec![name("MÜLLER^JÖRG"), name("Иванов")]);
    let keys = study_level(&[(tags::PATIENT_NAME, "MÜ*")]);
    let (latin, _) = CharacterSet::parse(b"ISO_IR 100", CharacterSet::DEFAULT);
    let bytes = keys.encode(Encoding::ImplicitLittle, latin).unwrap();
    peer.write(&request(1, &c_find(1, STUDY_FIND), &bytes, 16_000)).await;
    let answer = read_answer(&mut peer, Status::PENDING).await;
    assert_eq!(answer.text(tags::SPECIFIC_CHARACTER_SET), Some("ISO_IR 100"));
    assert_eq!(answer.text(tags::PATIENT_NAME), Some("MÜLLER^JÖRG"));
    let answer = read_answer(&mut peer, Status::PENDING).await;
    assert_eq!(answer.text(tags::SPECIFIC_CHARACTER_SET), Some("ISO_IR 192"));
    assert_eq!(answer.text(tags::PATIENT_NAME), Some("Иванов"));
    expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(fakes.index.queries.lock().unwrap()[0].identifier.text(tags::PATIENT_NAME), Some("MÜ*"));
}

#[tokio::test]
async fn identifiers_that_do_not_fit_the_class_are_refused_with_the_element() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let level = |text: &str| set(&[(tags::QUERY_RETRIEVE_LEVEL, text)]);
    let image = |more: &[(Tag, &str)]| {
        let mut keys = set(more);
        keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "IMAGE");
        keys
    };
    let cases = [
        (STUDY_FIND, level("PATIENT"), 0x0008_0052),
        (STUDY_FIND, level("NONSENSE"), 0x0008_0052),
        (STUDY_FIND, set(&[(tags::PATIENT_NAME, "A")]), 0x0008_0052),
        (STUDY_FIND, image(&[]), 0x0020_000d),
        (STUDY_FIND, image(&[(tags::STUDY_INSTANCE_UID, "1.2")]), 0x0020_000e),
        (STUDY_FIND, image(&[(tags::STUDY_INSTANCE_UID, "1.2\\1.3")]), 0x0020_000d),
        (PATIENT_FIND, study_level(&[(tags::PATIENT_ID, "A*")]), 0x0010_0020),
        (PATIENT_FIND, study_level(&[]), 0x0010_0020),
    ];
    for (class, keys, tag) in cases {
        let mut peer = associate(&server, class).await;
        peer.write(&request(1, &c_find(1, class), &identifier(&keys), 16_000)).await;
        let response = expect_status(&mut peer, Status::DOES_NOT_MATCH_SOP_CLASS).await;
        assert_eq!(response.offending_elements, [tag]);
        assert!(response.error_comment.is_some());
    }
    let mut peer = associate(&server, STUDY_FIND).await;
    peer.write(&request(1, &c_find(1, STUDY_FIND), &[8, 0, 5, 0, 255, 0, 0, 0], 16_000)).await;
    expect_status(&mut peer, Status::CANNOT_UNDERSTAND).await;
    peer.write(&p_data(1, 3, &c_find(2, STUDY_FIND).encode())).await;
    expect_status(&mut peer, Status::DOES_NOT_MATCH_SOP_CLASS).await;
    assert!(fakes.index.queries.lock().unwrap().is_empty());
}

#[tokio::test]
async fn relational_queries_need_no_keys_above_once_negotiated() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut request_ = request_for(&[(PATIENT_FIND, &[IMPLICIT])]);
    let information = Bytes::from_static(&[1, 0, 1, 0]);
    request_.user.extended = vec![SopClassExtended { sop_class_uid: uid(PATIENT_FIND), information }];
    let mut peer = RawPeer::associate_for(server.address, &request_).await;
    fakes.index.answer_with(vec![]);
    peer.write(&request(1, &c_find(1, PATIENT_FIND), &identifier(&study_level(&[])), 16_000)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    assert!(fakes.index.queries.lock().unwrap()[0].options.fuzzy_person_names);
}

#[tokio::test]
async fn failures_of_the_index_have_their_status_even_after_answers() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let unusable = Error::because(ErrorKind::Invalid, Reason::UnusableKey, "not a date").about(tags::STUDY_DATE);
    fakes.index.answers.lock().unwrap().push_back(Err(unusable));
    let ask = |id| request(1, &c_find(id, STUDY_FIND), &identifier(&study_level(&[])), 16_000);
    peer.write(&ask(1)).await;
    let response = expect_status(&mut peer, status::own::UNUSABLE_KEY).await;
    assert_eq!(response.offending_elements, [0x0008_0020]);
    fakes.index.answer_with(vec![Ok(DataSet::new()), Err(Error::new(ErrorKind::Unavailable, "away"))]);
    peer.write(&ask(2)).await;
    read_answer(&mut peer, Status::PENDING).await;
    expect_status(&mut peer, Status::OUT_OF_RESOURCES).await;
}

#[tokio::test]
async fn an_identifier_beyond_the_limit_is_refused_and_skipped() {
    let fakes = Fakes::default();
    let limits = Limits { identifier_bytes_max: 1000, ..quick() };
    let server = Running::start(fakes.door(Policy::default(), limits), SECOND).await;
    let mut peer = associate(&server, STUDY_FIND).await;
    peer.write(&request(1, &c_find(1, STUDY_FIND), &[0; 100_000], 16_000)).await;
    expect_status(&mut peer, status::own::TOO_LARGE).await;
    fakes.index.answer_with(vec![]);
    peer.write(&request(1, &c_find(2, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_given_up() {
    let fakes = Fakes::default();
    let limits = Limits { write_timeout: Duration::from_millis(300), ..quick() };
    let server = Running::start(fakes.door(Policy::default(), limits), SECOND).await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let (found, answers) = mpsc::channel(64);
    fakes.index.answers.lock().unwrap().push_back(Ok(answers));
    peer.write(&request(1, &c_find(1, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
    let long = "X".repeat(10_000);
    let feed = async { while found.send(Ok(set(&[(tags::PATIENT_COMMENTS, &long)]))).await.is_ok() {} };
    tokio::time::timeout(10 * SECOND, feed).await.expect("the query goes on though nobody reads");
}

#[tokio::test]
async fn a_request_sent_during_a_query_is_answered_after_it() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let (found, answers) = mpsc::channel(1);
    fakes.index.answers.lock().unwrap().push_back(Ok(answers));
    let mut store = Command::request(CommandField::C_STORE_RQ, 2, CT);
    store.sop_instance_uid = Some("1.2.3".into());
    let mut bytes = request(1, &c_find(1, STUDY_FIND), &identifier(&study_level(&[])), 16_000);
    bytes.extend(request(3, &store, &[5; 40_000], 16_000));
    peer.write(&bytes).await;
    found.send(Ok(DataSet::new())).await.unwrap();
    read_answer(&mut peer, Status::PENDING).await;
    drop(found);
    expect_status(&mut peer, Status::SUCCESS).await;
    let response = expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!((response.field, response.message_id_responded_to), (CommandField::C_STORE_RSP, Some(2)));
    assert_eq!(fakes.ingest.stored.lock().unwrap()[0].1, [5; 40_000]);
}

#[tokio::test]
async fn a_query_waits_for_what_its_own_ae_stored() {
    let fakes = Fakes::default();
    let server = fakes.start().await;
    let mut peer = associate(&server, STUDY_FIND).await;
    let mut store = Command::request(CommandField::C_STORE_RQ, 1, CT);
    store.sop_instance_uid = Some("1.2.3".into());
    peer.write(&request(3, &store, &[5; 10], 16_000)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    for id in [2, 3] {
        fakes.index.answer_with(vec![]);
        peer.write(&request(1, &c_find(id, STUDY_FIND), &identifier(&study_level(&[])), 16_000)).await;
        expect_status(&mut peer, Status::SUCCESS).await;
    }
    let waited = fakes.index.waited_for.lock().unwrap();
    assert_eq!(waited.len(), 1, "what is folded once need not be waited for again");
    assert!(waited[0].contains(&position(0)));
}

#[tokio::test]
async fn an_identifier_in_the_aes_own_character_set_is_understood() {
    let fakes = Fakes::default();
    let (latin, _) = CharacterSet::parse(b"ISO_IR 100", CharacterSet::DEFAULT);
    let mut policy = Policy { query_options: QueryOptions::default(), ..Policy::default() };
    let profile = PeerProfile { default_character_set: latin, ..PeerProfile::default() };
    policy.peers.insert(ae("TESTER"), Arc::new(profile));
    let server = Running::start(fakes.door(policy, quick()), SECOND).await;
    let mut peer = associate(&server, STUDY_FIND).await;
    fakes.index.answer_with(vec![]);
    let mut bytes = vec![0x08, 0, 0x52, 0, 6, 0, 0, 0];
    bytes.extend_from_slice(b"STUDY ");
    bytes.extend_from_slice(&[0x10, 0, 0x10, 0, 2, 0, 0, 0, 0xdc, b'*']);
    peer.write(&request(1, &c_find(1, STUDY_FIND), &bytes, 16_000)).await;
    expect_status(&mut peer, Status::SUCCESS).await;
    assert_eq!(fakes.index.queries.lock().unwrap()[0].identifier.text(tags::PATIENT_NAME), Some("Ü*"));
}
