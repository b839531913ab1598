//! A proxy on loopback between store and S3, with faults: each request is asked for one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing reaches the store; the answer has this status and code.
    Answer(u16, &'static str),
    /// The connection is cut after so many bytes of the request's body.
    CutRequest(usize),
    /// The store does it, and its answer is lost.
    LoseAnswer,
    /// The connection is cut after so many bytes of the answer's body.
    CutAnswer(usize),
    /// One bit of the request's body is another.
    ChangeRequest(usize),
    /// One bit of the answer's body is another.
    ChangeAnswer(usize),
    /// So long before anything is passed on.
    Slow(Duration),
}

/// Method and path with query, as `PUT /bucket/name?query`, and the storage class that is asked for, if one is.
type Rule = Box<dyn FnMut(&str) -> Fault + Send>;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    stalled: watch::Sender<bool>,
    gone: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fault::None)));
        let (stalled, gone) = (watch::Sender::new(false), watch::Sender::new(false));
        let (asked, stall, mut ended) = (rule.clone(), stalled.subscribe(), gone.subscribe());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = ended.wait_for(|gone| *gone) => return,
                };
                let (rule, stall, mut ended) = (asked.clone(), stall.clone(), ended.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serve(accepted, upstream, rule, stall) => {}
                        _ = ended.wait_for(|gone| *gone) => {}
                    }
                });
            }
        });
        Self { address, rule, stalled, gone }
    }

    pub(crate) fn rule(&self, rule: impl FnMut(&str) -> Fault + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Cuts all connections; there are no new ones.
    pub(crate) fn end(&self) {
        self.gone.send_replace(true);
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Some((bytes, body));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Passes bytes on up to `length`, with one changed; `false`: one side is gone or the cut is reached.
async fn pass(
    (from, mut bytes): (&mut TcpStream, Vec<u8>),
    to: &mut TcpStream,
    (length, cut, change): (usize, Option<usize>, Option<usize>),
    stall: &mut watch::Receiver<bool>,
) -> Option<()> {
    let mut at = 0;
    loop {
        stall.wait_for(|stalled| !stalled).await.ok()?;
        if let Some(place) = change.and_then(|place| place.checked_sub(at)).filter(|place| *place < bytes.len()) {
            bytes[place] ^= 1;
        }
        let end = cut.map_or(bytes.len(), |cut| bytes.len().min(cut - at));
        to.write_all(&bytes[..end]).await.ok()?;
        at += end;
        if cut == Some(at) {
            return None;
        }
        if at >= length {
            return Some(());
        }
        bytes.clear();
        if from.read_buf(&mut bytes).await.ok()? == 0 {
            return (length == usize::MAX).then_some(());
        }
    }
}

/// One request; its connection ends with the answer.
async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    mut stall: watch::Receiver<bool>,
) -> Option<()> {
    stall.wait_for(|stalled| !stalled).await.ok()?;
    let (head, body) = read_head(&mut client).await?;
    let head = String::from_utf8(head).ok()?;
    let (first, rest) = head.split_once("\r\n")?;
    let length = rest
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Some(0), |(_, length)| length.trim().parse().ok())?;
    let class = rest.lines().find(|line| line.to_ascii_lowercase().starts_with("x-amz-storage-class:"));
    let asked = [first.trim_end_matches(" HTTP/1.1"), class.unwrap_or_default()].join(" ");
    let fault = (rule.lock().unwrap())(asked.trim_end());
    if let Fault::Slow(time) = fault {
        tokio::time::sleep(time).await;
    }
    if let Fault::Answer(status, code) = fault {
        let mut left = length - body.len();
        let mut sink = vec![0; 65536];
        while left > 0 {
            stall.wait_for(|stalled| !stalled).await.ok()?;
            left -= client.read(&mut sink).await.ok().filter(|read| *read > 0)?;
        }
        let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>fault</Message></Error>");
        let xml = if first.starts_with("HEAD") || code.is_empty() { String::new() } else { xml };
        let answer = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{xml}", xml.len());
        return client.write_all(answer.as_bytes()).await.ok();
    }
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes()).await.ok()?;
    let (mut cut, mut change) = (None, None);
    match fault {
        Fault::CutRequest(place) => cut = Some(place),
        Fault::ChangeRequest(place) => change = Some(place),
        _ => {}
    }
    pass((&mut client, body), &mut server, (length, cut, change), &mut stall).await?;
    let (head, body) = read_head(&mut server).await?;
    if fault == Fault::LoseAnswer {
        return None;
    }
    client.write_all(&head).await.ok()?;
    (cut, change) = (None, None);
    match fault {
        Fault::CutAnswer(place) => cut = Some(place),
        Fault::ChangeAnswer(place) => change = Some(place),
        _ => {}
    }
    pass((&mut server, body), &mut client, (usize::MAX, cut, change), &mut stall).await
}
