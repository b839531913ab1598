//! The server: methods, header fields of every answer, origins, limits, drain.

use super::{
    files::ct,
    http::{Server, stow},
};
use cairn_dicomweb::DicomWebConfig;
use std::time::Duration;

#[tokio::test]
async fn methods_and_unknown_resources() {
    let server = Server::plain().await;
    for (method, path, status) in [
        ("PUT", "/studies", 405),
        ("DELETE", "/studies/1.2", 405),
        ("POST", "/studies/1.2/series", 405),
        ("OPTIONS", "/studies", 405),
        ("GET", "/nothing", 404),
        ("GET", "/studies/1.2/series/1.3/instances/1.4/rendered", 404),
    ] {
        let request = format!("{method} /dicom-web{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
    let outside = server.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((outside.status, outside.header("x-content-type-options")), (404, Some("nosniff")));
}

#[tokio::test]
async fn another_base_path() {
    for base in ["", "/", "/a/b", "/a/b/"] {
        let server = Server::start(DicomWebConfig { base_path: base.into(), ..DicomWebConfig::default() }).await;
        server.archive.hold(&ct(1, 10).file()).expect("readable");
        let base = base.trim_end_matches('/');
        let answer = server.ask(&format!("GET {base}/studies HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{base}");
        assert!(answer.text().contains(&format!("http://a{base}/studies/1.2.3\"")), "{base}");
    }
}

#[tokio::test]
async fn other_origins_only_where_configured() {
    let origin = "Origin: https://viewer.example\r\n";
    let ask = |method: &str| format!("{method} /dicom-web/studies HTTP/1.1\r\nHost: a\r\n{origin}\r\n");
    let closed = Server::plain().await;
    assert_eq!(closed.ask(&ask("GET")).await.header("access-control-allow-origin"), None);
    let cors_origins = vec!["https://viewer.example".to_owned()];
    let open = Server::start(DicomWebConfig { cors_origins, ..DicomWebConfig::default() }).await;
    let answer = open.ask(&ask("GET")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://viewer.example"));
    let preflight = open.ask(&ask("OPTIONS")).await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").is_some_and(|fields| fields.contains("range")));
    let other = open.ask(&ask("GET").replace("viewer", "evil")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn addresses_and_header_fields_are_bounded() {
    let server = Server::plain().await;
    let ask = |path: &str, fields: &str| format!("GET /dicom-web/studies{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(server.ask(&ask(&format!("?PatientName={}", "A".repeat(20_000)), "")).await.status, 414);
    assert_eq!(server.ask(&ask("", &format!("X-Long: {}\r\n", "A".repeat(70_000)))).await.status, 431);
    assert_eq!(server.ask(&ask("", &"X-Many: 1\r\n".repeat(200))).await.status, 431);
    assert_eq!(server.ask(&ask("", "")).await.status, 204);
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let mut config = DicomWebConfig::default();
    config.limits.connections_max = 2;
    let server = Server::start(config).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    let ask = "GET /dicom-web/studies HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!((one.ask(ask).await.status, two.ask(ask).await.status), (204, 204));
    let mut three = server.connect().await;
    let answer = three.answer(false).await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    drop(one);
    loop {
        let mut client = server.connect().await;
        client.send(ask.as_bytes()).await;
        if client.answer(false).await.status == 204 {
            break;
        }
    }
    assert_eq!(two.ask(ask).await.status, 204);
}

#[tokio::test]
async fn a_request_too_many_waits_its_turn_then_is_told_so() {
    let mut config = DicomWebConfig::default();
    config.limits.requests_max = 1;
    config.timeouts.queue = Duration::from_millis(50);
    let server = Server::start(config).await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let mut slow = server.connect().await;
    slow.send(&request[..request.len() - 10]).await;
    while server.archive.state().senders.is_empty() {
        tokio::task::yield_now().await;
    }
    let answer = server.get("/studies", "*/*").await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    slow.send(&request[request.len() - 10..]).await;
    assert_eq!(slow.answer(false).await.status, 200);
    assert_eq!(server.get("/studies", "*/*").await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_requests_under_way_finish() {
    let mut server = Server::plain().await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let mut busy = server.connect().await;
    busy.send(&request[..request.len() - 10]).await;
    while server.archive.state().senders.is_empty() {
        tokio::task::yield_now().await;
    }
    let mut idle = server.connect().await;
    assert_eq!(idle.ask("GET /dicom-web/studies HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 204);
    server.drain();
    assert!(idle.is_closed().await, "nothing is under way there");
    busy.send(&request[request.len() - 10..]).await;
    assert_eq!(busy.answer(false).await.status, 200);
    server.ended().await;
    assert_eq!(server.archive.state().held.len(), 1);
}

#[tokio::test]
async fn a_drain_ends_in_bounded_time() {
    let mut config = DicomWebConfig::default();
    config.timeouts.drain = Duration::from_millis(100);
    let mut server = Server::start(config).await;
    let request = stow("/studies", &[&ct(1, 1000).file()]);
    let mut stuck = server.connect().await;
    stuck.send(&request[..request.len() - 10]).await;
    while server.archive.state().senders.is_empty() {
        tokio::task::yield_now().await;
    }
    server.drain();
    server.ended().await;
    assert!(stuck.is_closed().await);
    assert!(server.archive.state().held.is_empty());
}
