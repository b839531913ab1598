//! Peers that are slow, greedy or malicious.

use super::{
    files::ct,
    http::{Server, post, stow},
};
use cairn_archive::events::ReceiptEnd;
use cairn_dicomweb::DicomWebConfig;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn impatient() -> DicomWebConfig {
    let mut config = DicomWebConfig::default();
    config.timeouts.header = Duration::from_millis(200);
    config.timeouts.body_idle = Duration::from_millis(200);
    config.timeouts.write_stall = Duration::from_millis(200);
    config.timeouts.rate_grace = Duration::from_millis(400);
    config
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let server = Server::start(impatient()).await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let mut client = server.connect().await;
    client.send(&request[..request.len() - 100]).await;
    assert_eq!(client.answer(false).await.status, 408);
    assert!(client.is_closed().await);
    assert!(server.archive.state().held.is_empty());
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_too() {
    let server = Server::start(impatient()).await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let mut client = server.connect().await;
    client.send(&request[..request.len() - 1000]).await;
    let mut sent = 0;
    for byte in &request[request.len() - 1000..] {
        // The peer's own pace, not a wait for the server.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if client.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!((5..900).contains(&sent), "{sent} bytes were taken");
    let state = server.archive.state();
    assert_eq!((state.held.len(), state.closed.as_slice()), (0, &[ReceiptEnd::Aborted][..]));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let server = Server::start(impatient()).await;
    for begun in ["", "GET /dicom-web/studies HTTP/1.1\r\nHost: a\r\n", "G"] {
        let mut client = server.connect().await;
        client.send(begun.as_bytes()).await;
        loop {
            if client.is_closed().await {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_given_up_and_others_are_served() {
    let mut config = impatient();
    config.limits.connections_max = 40;
    let server = Server::start(config).await;
    for n in 1..=40 {
        server.archive.hold(&ct(n, 1_000_000).file()).expect("readable");
    }
    let ask = "GET /dicom-web/studies/1.2.3 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.send(ask.as_bytes()).await;
        stuck.push(client);
    }
    // While they are held, others are answered.
    assert_eq!(server.get("/studies", "*/*").await.status, 200);
    let instance = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.7";
    assert_eq!(server.get(instance, "application/dicom").await.body, ct(7, 1_000_000).file());
    // They have taken what their sockets hold and no more: 40 MB do not fit there.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for mut client in stuck {
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.whole), (200, false));
    }
}

#[tokio::test]
async fn dozens_of_half_open_peers_hold_nobody_up() {
    let server = Server::plain().await;
    let request = stow("/studies", &[&ct(1, 100_000).file()]);
    let mut held = Vec::new();
    for at in 0..60 {
        let mut client = server.connect().await;
        client.send(&request[..request.len() * at / 60]).await;
        held.push(client);
    }
    for n in 2..=20 {
        let mut client = server.connect().await;
        client.send(&stow("/studies", &[&ct(n, 5000).file()])).await;
        assert_eq!(client.answer(false).await.status, 200);
    }
    assert_eq!(server.archive.state().held.len(), 19);
    drop(held);
}

#[tokio::test]
async fn a_refused_sender_reads_why_though_it_sends_on() {
    let server = Server::plain().await;
    let megabytes = vec![0; 8 << 20];
    let dicom = "multipart/related; type=\"application/dicom\"; boundary=b";
    for (content_type, body, status) in [
        ("text/plain", megabytes.as_slice(), 415),
        (dicom, megabytes.as_slice(), 400),
        (dicom, &[b"--b\n\n".as_slice(), &megabytes].concat(), 400),
        ("multipart/related; type=\"application/dicom\"; boundary=\"\u{e9}\"", megabytes.as_slice(), 400),
    ] {
        let mut client = server.connect().await;
        client.send(&post("/studies", content_type, body)).await;
        assert_eq!(client.answer(false).await.status, status, "{content_type}");
        assert_eq!(client.ask("GET /dicom-web/studies HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 204);
    }
}

#[tokio::test]
async fn a_request_is_the_same_wherever_it_is_split() {
    let server = Server::plain().await;
    let file = ct(1, 20).file();
    let request = stow("/studies", &[&file]);
    for at in (1..request.len()).step_by(7) {
        let mut client = server.connect().await;
        client.send(&request[..at]).await;
        tokio::task::yield_now().await;
        client.send(&request[at..]).await;
        assert_eq!(client.answer(false).await.status, 200, "split at {at}");
    }
    let state = server.archive.state();
    assert_eq!((state.held.len(), state.held[0].file == file), (1, true));
}

#[tokio::test]
async fn requests_that_are_none() {
    let server = Server::plain().await;
    for bytes in [
        "nonsense\r\n\r\n".as_bytes(),
        b"GET /dicom-web/studies\r\n\r\n",
        b"GET /dicom-web/studies HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00ANY-SCP         ECHOSCU         \r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status, 400);
    }
    assert_eq!(server.get("/studies", "*/*").await.status, 204);
}

#[tokio::test]
async fn very_many_small_parts() {
    let server = Server::plain().await;
    let part = b"--b\r\nContent-Type: application/dicom\r\n\r\nx\r\n";
    let body = [part.repeat(20_000), b"--b--".to_vec()].concat();
    let request = post("/studies", "multipart/related; type=\"application/dicom\"; boundary=b", &body);
    let mut client = server.connect().await;
    client.send(&request).await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.text().matches("\"00081197\"").count(), 20_000);
    let mut config = DicomWebConfig::default();
    config.limits.store_response_bytes_max = 100_000;
    let server = Server::start(config).await;
    let mut client = server.connect().await;
    client.send(&request).await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 413);
}
