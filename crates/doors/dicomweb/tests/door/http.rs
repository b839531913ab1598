//! A server on a loopback socket and a client that sends raw bytes.

use super::archive::Archive;
use cairn_dicomweb::{DicomWebConfig, Services, router, serve};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Longer than any answer takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server and the archive behind it. It ends with this.
pub(crate) struct Server {
    pub(crate) archive: Arc<Archive>,
    pub(crate) address: SocketAddr,
    drain: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub(crate) async fn start(config: DicomWebConfig) -> Self {
        let archive = Arc::new(Archive::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let services =
            Services { ingest: archive.clone(), index: archive.clone(), retrieval: archive.clone(), commitments: None };
        let (drain, drained) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let routes = router(services, config.clone());
            serve(listener, routes, &config, async { drop(drained.await) }).await
        });
        Self { archive, address, drain: Some(drain), task: Some(task) }
    }

    pub(crate) async fn plain() -> Self {
        Self::start(DicomWebConfig::default()).await
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.expect("accepted"), read: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Response {
        self.connect().await.ask(request).await
    }

    /// A GET with an Accept value.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> Response {
        self.ask(&format!("GET /dicom-web{path} HTTP/1.1\r\nHost: pacs.example\r\nAccept: {accept}\r\n\r\n")).await
    }

    /// Begins to drain.
    pub(crate) fn drain(&mut self) {
        self.drain.take().map(|drain| drain.send(()));
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) {
        let task = self.task.take().expect("not yet waited for");
        timeout(PATIENCE, task).await.expect("ends").expect("no panic").expect("no error");
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub(crate) whole: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Head and content of each part of a multipart body.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let content_type = self.header("content-type").expect("a type");
        assert!(content_type.starts_with("multipart/related; type=\""), "{content_type}");
        let boundary = content_type.split("boundary=").nth(1).expect("a boundary");
        assert!(self.body.starts_with(format!("--{boundary}\r\n").as_bytes()), "the first line is the boundary");
        assert!(self.body.ends_with(format!("\r\n--{boundary}--\r\n").as_bytes()), "the last line closes");
        let delimiter = format!("\r\n--{boundary}");
        let mut body = b"\r\n".to_vec();
        body.extend_from_slice(&self.body);
        let found: Vec<_> = memchr::memmem::find_iter(&body, delimiter.as_bytes()).collect();
        found
            .windows(2)
            .map(|ends| {
                let part = &body[ends[0] + delimiter.len() + 2..ends[1]];
                let at = memchr::memmem::find(part, b"\r\n\r\n").expect("a part's head ends");
                (String::from_utf8(part[..at].to_vec()).expect("text"), part[at + 4..].to_vec())
            })
            .collect()
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads").expect("written");
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Response {
        self.send(request.as_bytes()).await;
        self.answer(request.starts_with("HEAD")).await
    }

    /// Reads one answer.
    pub(crate) async fn answer(&mut self, head_only: bool) -> Response {
        timeout(PATIENCE, self.read_answer(head_only)).await.expect("an answer in time")
    }

    /// Whether the server has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !timeout(PATIENCE, self.more()).await.expect("closes in time")
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.read.extend_from_slice(&chunk[..read]);
                true
            }
        }
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, b"\r\n") {
                let line = self.take(at + 2).await?;
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn read_answer(&mut self, head_only: bool) -> Response {
        let line = self.line().await.expect("a status line");
        if line.contains(" 100 ") {
            self.line().await;
            return Box::pin(self.read_answer(head_only)).await;
        }
        let status: u16 = line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        while let Some(line) = self.line().await.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header field");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new(), whole: true };
        if head_only || status == 204 || status == 304 {
            return response;
        }
        if let Some(length) = response.header("content-length").and_then(|text| text.parse().ok()) {
            match self.take(length).await {
                Some(body) => response.body = body,
                None => response.whole = false,
            }
            return response;
        }
        assert_eq!(response.header("transfer-encoding"), Some("chunked"), "some framing");
        response.whole = self.read_chunks(&mut response.body).await.is_some();
        response
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let length = usize::from_str_radix(&self.line().await?, 16).ok()?;
            body.extend(self.take(length).await?);
            self.take(2).await?;
            if length == 0 {
                return Some(());
            }
        }
    }
}

/// A STOW-RS request of these parts.
pub(crate) fn stow(path: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--b0undary\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b0undary--\r\n");
    post(path, "multipart/related; type=\"application/dicom\"; boundary=\"b0undary\"", &body)
}

/// A POST of any body.
pub(crate) fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /dicom-web{path} HTTP/1.1\r\nHost: pacs.example\r\nAccept: */*\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
