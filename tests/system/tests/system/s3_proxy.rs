//! Stands between an archive and its bucket, and does to requests what networks and busy stores do.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is passed on.
    None,
    /// Answered 503 SlowDown, and not passed on.
    SlowDown,
    /// Answered as a store without room does, and not passed on.
    Full,
    /// Passed on after a while.
    Late(Duration),
    /// The connection ends in the middle of it.
    HangUp,
    /// What writes is done, and the answer never comes back.
    Lost,
}

/// What becomes of each request: always the same, or by chance one of several.
struct Plan {
    faults: Vec<Fault>,
    random: cairn_synthetic::Random,
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    faults: AtomicUsize,
    ended: AtomicBool,
}

/// The proxy. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of an endpoint (`http://host:port`).
    pub fn start(endpoint: &str, seed: u64) -> Self {
        let upstream = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Mutex::new(Plan { faults: vec![Fault::None], random: cairn_synthetic::Random::new(seed) });
        let shared = Arc::new(Shared { upstream, plan, faults: AtomicUsize::new(0), ended: AtomicBool::new(false) });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                // An error is a connection that ended, which is what happens here.
                std::thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Self { address, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on one of these becomes of each request.
    pub fn set(&self, faults: &[Fault]) {
        self.shared.plan.lock().unwrap().faults = faults.to_vec();
    }

    /// Requests so far that something became of.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn next(&self) -> Fault {
        let mut plan = self.plan.lock().unwrap();
        let chosen = usize::try_from(plan.random.next() % plan.faults.len() as u64).unwrap();
        plan.faults[chosen]
    }

    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let upstream = TcpStream::connect(self.upstream)?;
        for peer in [client, &upstream] {
            peer.set_nodelay(true)?;
        }
        let (mut from_client, mut from_upstream) = (BufReader::new(client), BufReader::new(&upstream));
        while let Some(request) = Head::read(&mut from_client)? {
            let writes = ["PUT ", "POST ", "DELETE "].iter().any(|method| request.text.starts_with(method));
            let fault = match self.next() {
                Fault::Lost if !writes => Fault::None,
                fault => fault,
            };
            if fault != Fault::None {
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
            match fault {
                Fault::None | Fault::Lost => {}
                Fault::Late(time) => std::thread::sleep(time),
                Fault::SlowDown | Fault::Full => {
                    request.body(&mut from_client, &mut io::sink())?;
                    refuse(client, fault, request.text.starts_with("HEAD "))?;
                    continue;
                }
                Fault::HangUp => {
                    // Half of what comes first is passed on.
                    (&upstream).write_all(request.text.as_bytes())?;
                    return request.some(&mut from_client, &mut &upstream);
                }
            }
            (&upstream).write_all(request.text.as_bytes())?;
            request.body(&mut from_client, &mut &upstream)?;
            let answer = Head::read(&mut from_upstream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut whole = answer.text.clone().into_bytes();
            if fault == Fault::Lost {
                return answer.body(&mut from_upstream, &mut whole);
            }
            (&mut &*client).write_all(&whole)?;
            if !request.text.starts_with("HEAD ") {
                answer.body(&mut from_upstream, &mut &*client)?;
            }
        }
        Ok(())
    }
}

fn refuse(mut client: &TcpStream, fault: Fault, head_only: bool) -> io::Result<()> {
    let (status, code) = match fault {
        Fault::Full => ("507 Insufficient Storage", "InsufficientStorage"),
        _ => ("503 Service Unavailable", "SlowDown"),
    };
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes())?;
    if head_only { Ok(()) } else { client.write_all(body.as_bytes()) }
}

/// A request or an answer up to its empty line.
struct Head {
    text: String,
}

impl Head {
    /// `None` where the connection ended between messages.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            if from.read_line(&mut text)? == 0 {
                return if text.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        Ok(Some(Self { text }))
    }

    fn length(&self) -> Option<u64> {
        let lower = self.text.to_ascii_lowercase();
        if lower.starts_with("http/1.1 204") || lower.starts_with("http/1.1 304") {
            return Some(0);
        }
        if lower.contains("\r\ntransfer-encoding: chunked") {
            return None;
        }
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
        Some(length.map_or(0, |length| length.trim().parse().unwrap()))
    }

    fn body(&self, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
        if let Some(length) = self.length() {
            return exactly(from, length, to);
        }
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            to.write_all(line.as_bytes())?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            exactly(from, length + 2, to)?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// The first half of a body.
    fn some(&self, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
        exactly(from, self.length().unwrap_or(0) / 2, to)
    }
}

fn exactly(from: &mut impl BufRead, length: u64, to: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut from.take(length), to)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
