//! STOW-RS: statuses, the Store Instances Response, framing.

use super::{
    files::ct,
    http::{Client, Response, Server, post, stow},
};
use cairn_archive::events::ReceiptEnd;
use cairn_dicomweb::DicomWebConfig;
use cairn_service_api::{Error, ErrorKind, Reason};

const DICOM: &str = "multipart/related; type=\"application/dicom\"; boundary=b";
const HEAD: &[u8] = b"--b\r\nContent-Type: application/dicom\r\n\r\n";

async fn answer(server: &Server, request: &[u8]) -> Response {
    let mut client = server.connect().await;
    client.send(request).await;
    client.answer(false).await
}

#[tokio::test]
async fn many_instances_in_one_request() {
    let server = Server::plain().await;
    let files: Vec<_> = (1..=500).map(|n| ct(n, 2000).file()).collect();
    let parts: Vec<_> = files.iter().map(Vec::as_slice).collect();
    let reply = answer(&server, &stow("/studies/1.2.3", &parts)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text().matches("\"00081155\"").count(), 500);
    assert!(!reply.text().contains("00081198") && !reply.text().contains("0008119A"));
    assert!(
        reply
            .text()
            .starts_with("{\"00081190\":{\"vr\":\"UR\",\"Value\":[\"http://pacs.example/dicom-web/studies/1.2.3\"]}")
    );
    // In the order in which they came, whichever became durable first.
    let places: Vec<_> = (1..=500).map(|n| reply.text().find(&format!("[\"1.2.3.4.{n}\"]")).expect("named")).collect();
    assert!(places.is_sorted());
    let state = server.archive.state();
    assert_eq!(
        (state.held.len(), state.senders.len(), state.closed.as_slice()),
        (500, 1, &[ReceiptEnd::Completed][..])
    );
    assert!(state.offers.iter().all(|o| o.study_instance_uid.as_ref().is_some_and(|uid| uid.as_str() == "1.2.3")));
    assert!(state.senders[0].peer_address.starts_with("127.0.0.1:"));
    for (held, file) in state.held.iter().map(|held| (held, files.iter().any(|f| held.file == *f))) {
        assert!(file, "{} differs", held.record.sop_instance_uid);
    }
}

#[tokio::test]
async fn a_body_that_is_one_instance() {
    let server = Server::plain().await;
    let reply = answer(&server, &post("/studies", "application/dicom", &ct(1, 100).file())).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cairn-read-after"), Some("here/1/7/1"));
    assert_eq!(answer(&server, &post("/studies", "application/dicom", b"")).await.status, 400);
}

#[tokio::test]
async fn repeats_are_success_and_conflicts_are_warnings() {
    let server = Server::plain().await;
    assert_eq!(answer(&server, &stow("/studies", &[&ct(1, 100).file()])).await.status, 200);
    let reply = answer(&server, &stow("/studies", &[&ct(1, 100).file()])).await;
    assert_eq!((reply.status, reply.text().contains("00081196")), (200, false));
    let reply = answer(&server, &stow("/studies", &[&ct(1, 102).file()])).await;
    assert_eq!(reply.status, 202);
    assert!(reply.text().contains("\"00081196\":{\"vr\":\"US\",\"Value\":[45056]}"), "B000: {}", reply.text());
}

#[tokio::test]
async fn some_refused_is_202_and_all_refused_says_why() {
    let server = Server::plain().await;
    let good = ct(1, 100).file();
    let reply = answer(&server, &stow("/studies", &[&good, b"no DICOM file, but some text of some length"])).await;
    assert_eq!(reply.status, 202);
    assert!(
        reply.text().contains("\"0008119A\":{\"vr\":\"SQ\",\"Value\":[{\"00081197\":{\"vr\":\"US\",\"Value\":[49152]}")
    );
    let error = |kind, reason| Error::because(kind, reason, "not this one");
    for (error, status, reason) in [
        (error(ErrorKind::Invalid, Reason::CannotUnderstand), 409, 0xC000),
        (error(ErrorKind::Invalid, Reason::DoesNotMatch), 409, 0xA900),
        (error(ErrorKind::Invalid, Reason::BadIdentifier), 409, 0xC001),
        (error(ErrorKind::Invalid, Reason::TransferSyntax), 409, 0xC122),
        (error(ErrorKind::Invalid, Reason::TooLarge), 413, 0xC003),
        (error(ErrorKind::Conflict, Reason::ConflictRefused), 409, 0xC004),
        (error(ErrorKind::Exhausted, Reason::OutOfRoom), 507, 0xA700),
        (error(ErrorKind::Exhausted, Reason::Unspecified), 503, 0xA700),
        (error(ErrorKind::Unavailable, Reason::Unspecified), 503, 0xA700),
        (error(ErrorKind::Denied, Reason::Unspecified), 403, 0x0124),
        (error(ErrorKind::Internal, Reason::Unspecified), 500, 0x0110),
    ] {
        server.archive.state().refusals.push_back(error.clone());
        let reply = answer(&server, &stow("/studies", &[&good])).await;
        assert_eq!(reply.status, status, "{error:?}");
        // Its bytes said who it is.
        let item = format!(
            "\"00081198\":{{\"vr\":\"SQ\",\"Value\":[{{\"00081150\":{{\"vr\":\"UI\",\"Value\":[\"{}\"]}},\
             \"00081155\":{{\"vr\":\"UI\",\"Value\":[\"1.2.3.4.1\"]}},\"00081197\":{{\"vr\":\"US\",\"Value\":[{reason}]}}",
            super::files::CT
        );
        assert!(reply.text().contains(&item), "{error:?}: {}", reply.text());
        assert_eq!(reply.header("retry-after").is_some(), matches!(status, 503 | 507), "{error:?}");
        assert_eq!(reply.header("cairn-read-after"), None);
        assert_eq!(reply.text().contains("not this one"), error.kind != ErrorKind::Internal);
    }
    let reply = answer(&server, &stow("/studies/9.9", &[&good])).await;
    assert_eq!(reply.status, 409);
    assert!(reply.text().contains("[43264]"), "A900");
}

#[tokio::test]
async fn broken_bodies_store_nothing_and_are_400() {
    let server = Server::plain().await;
    let file = ct(1, 100).file();
    let open = [HEAD, &file].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("no parts", b"--b--\r\n".to_vec()),
        ("no close delimiter", open.clone()),
        ("half a close delimiter", [open.as_slice(), b"\r\n--b-"].concat()),
        ("another boundary", [b"--c".as_slice(), &HEAD[3..], &file, b"\r\n--c--"].concat()),
        ("line feeds", [b"--b\nContent-Type: application/dicom\n\n".as_slice(), &file, b"\n--b--"].concat()),
        ("no framing", file.clone()),
        ("endless headers", [b"--b\r\nX: ".as_slice(), &[b'y'; 100_000]].concat()),
    ];
    for (name, body) in cases {
        let reply = answer(&server, &post("/studies", DICOM, &body)).await;
        assert_eq!(reply.status, 400, "{name}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}");
        assert_eq!(server.archive.state().held.len(), 0, "{name}");
    }
    let closed = server.archive.state().closed.clone();
    assert!(!closed.is_empty() && closed.iter().all(|end| *end == ReceiptEnd::Aborted), "{closed:?}");
}

#[tokio::test]
async fn what_was_stored_before_the_body_broke_is_told() {
    let server = Server::plain().await;
    let body = [HEAD, &ct(1, 100).file(), b"\r\n", HEAD, &ct(2, 100).file()].concat();
    let reply = answer(&server, &post("/studies", DICOM, &body)).await;
    assert_eq!(reply.status, 202);
    assert!(reply.text().contains("[\"1.2.3.4.1\"]") && reply.text().contains("0008119A"));
    assert_eq!(server.archive.state().held.len(), 1);
}

#[tokio::test]
async fn other_types_are_415() {
    let server = Server::plain().await;
    let file = ct(1, 100).file();
    for content_type in [
        "application/dicom+json",
        "multipart/related; type=\"application/dicom+json\"; boundary=b",
        "multipart/form-data; boundary=b",
        "text/plain",
    ] {
        assert_eq!(answer(&server, &post("/studies", content_type, &file)).await.status, 415, "{content_type}");
    }
    for part in
        ["Content-Type: application/dicom+json", "Content-Type: application/dicom\r\nContent-Transfer-Encoding: base64"]
    {
        let body = [b"--b\r\n", part.as_bytes(), b"\r\n\r\n", &file, b"\r\n--b--"].concat();
        assert_eq!(answer(&server, &post("/studies", DICOM, &body)).await.status, 415, "{part}");
    }
    let gzip = String::from_utf8(post("/studies", DICOM, b"x")).expect("text");
    let gzip = gzip.replace("Accept: */*", "Content-Encoding: gzip");
    assert_eq!(answer(&server, gzip.as_bytes()).await.status, 415);
    let xml = String::from_utf8(post("/studies", DICOM, b"x")).expect("text");
    let xml = xml.replace("Accept: */*", "Accept: application/dicom+xml");
    assert_eq!(answer(&server, xml.as_bytes()).await.status, 406);
    assert_eq!(answer(&server, &post("/studies?force=true", DICOM, b"x")).await.status, 400);
    assert!(server.archive.state().held.is_empty());
}

#[tokio::test]
async fn bounds_on_instances_and_requests() {
    let mut config = DicomWebConfig::default();
    config.limits.instance_bytes_max = 5000;
    config.limits.request_bytes_max = 100_000;
    let server = Server::start(config).await;
    let (small, large) = (ct(1, 100).file(), ct(2, 8000).file());
    let reply = answer(&server, &stow("/studies", &[&large, &small])).await;
    assert_eq!(reply.status, 202);
    assert!(reply.text().contains("\"00081197\":{\"vr\":\"US\",\"Value\":[49155]}"), "C003: {}", reply.text());
    assert_eq!(answer(&server, &stow("/studies", &[&large])).await.status, 413);
    assert_eq!(answer(&server, &post("/studies", DICOM, &vec![0; 100_001])).await.status, 413);
    // Without an announced length the bound shows only as it is reached.
    let mut client = server.connect().await;
    let head = "POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Type: application/dicom\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    client.send(head.as_bytes()).await;
    let chunk = [b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n"].concat();
    for _ in 0..7 {
        client.send(&chunk).await;
    }
    assert_eq!(client.answer(false).await.status, 413);
    assert_eq!(server.archive.state().held.len(), 1);
}

#[tokio::test]
async fn a_body_may_come_byte_by_byte_and_in_chunks() {
    let server = Server::plain().await;
    let file = ct(1, 10).file();
    let body = [HEAD, &file, b"\r\n--b--\r\n"].concat();
    let mut client = server.connect().await;
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Type: {DICOM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.send(head.as_bytes()).await;
    for byte in &body {
        client.send(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']).await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(server.archive.state().held[0].file, file);
}

async fn cut_after(server: &Server, request: &[u8], at: usize) -> Client {
    let mut client = server.connect().await;
    client.send(&request[..at]).await;
    client
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_an_aborted_receipt_and_nothing_else() {
    let server = Server::plain().await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let closing = b"\r\n--b0undary--\r\n".len();
    let mut receipts = 0;
    for at in [request.len() - closing - 500, request.len() - closing, request.len() - 3] {
        let client = cut_after(&server, &request, at).await;
        receipts += 1;
        while server.archive.state().senders.len() < receipts {
            tokio::task::yield_now().await;
        }
        drop(client);
        while server.archive.state().closed.len() < receipts {
            tokio::task::yield_now().await;
        }
    }
    let state = server.archive.state();
    assert!(state.closed.iter().all(|end| *end == ReceiptEnd::Aborted));
    assert!(state.held.is_empty(), "a part is complete only with its delimiter");
}

#[tokio::test]
async fn conflicting_framing_of_a_request_is_refused() {
    let server = Server::plain().await;
    let file = ct(1, 100).file();
    let request = |fields: &str| {
        let head =
            format!("POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Type: application/dicom\r\n{fields}\r\n");
        [head.as_bytes(), &file].concat()
    };
    let length = file.len();
    for fields in [
        format!("Content-Length: {length}\r\nContent-Length: 5\r\n"),
        "Content-Length: x\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
    ] {
        assert_eq!(answer(&server, &request(&fields)).await.status, 400, "{fields}");
    }
    // RFC 9112 section 6.3: Transfer-Encoding overrides, and the connection does not live on.
    let both = request(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"));
    let reply = answer(&server, &both).await;
    assert_eq!(reply.status, 400);
    assert!(server.archive.state().held.is_empty());
}
