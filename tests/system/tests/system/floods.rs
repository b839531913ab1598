//! Half-open and slow peers by the dozen, and floods, against the real process: others are answered while those are
//! held, memory stays bounded, and descriptors and places come back when they are gone or were cut off.

use crate::{
    raw::{
        self, COMMAND, CT, EXPLICIT, LAST, Peer, SECONDARY_CAPTURE, STUDY_FIND, STUDY_GET, STUDY_MOVE, VERIFICATION,
        c_echo, c_query, c_store, connect, element, fragment, message, pdu, request, text,
    },
    stow::{data_set_of, data_set_over_http, stow},
    support::{Archive, Start, directory, eventually, run, synthetic_files},
};
use cairn_dicom::part10::{NewFileMeta, write_file_meta};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const STUDY: &str = "2.25.4400";
const SERIES: &str = "2.25.4401";
/// More than the sockets of a connection hold, so that who does not read is waited for.
const INSTANCES: u32 = 12;
const PIXELS: usize = 1 << 20;

/// An instance of a mebibyte with ten kilobytes of text.
fn data_set(number: u32) -> Vec<u8> {
    let instance = instance_uid(number);
    let mut set = [text(0x0008_0016, "UI", CT), text(0x0008_0018, "UI", &instance)].concat();
    set.extend(text(0x0010_0020, "LO", "HELD"));
    set.extend([text(0x0020_000D, "UI", STUDY), text(0x0020_000E, "UI", SERIES)].concat());
    set.extend(text(0x0021_0010, "LO", "CAIRN TEST"));
    for private in TEXTS {
        set.extend(element(private, "LT", &[b'x'; 1_000]));
    }
    set.extend(element(0x7FE0_0010, "OW", &vec![u8::try_from(number).unwrap(); PIXELS]));
    set
}

const TEXTS: std::ops::Range<u32> = 0x0021_1000..0x0021_100A;

fn instance_uid(number: u32) -> String {
    format!("2.25.44{:04}", 100 + number)
}

fn file(number: u32) -> Vec<u8> {
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &CT.parse().unwrap(),
        sop_instance_uid: &instance_uid(number).parse().unwrap(),
        transfer_syntax_uid: EXPLICIT,
        source_ae_title: None,
    });
    file.extend(data_set(number));
    file
}

/// Instances that are begun by each door and never sent whole.
const HALF_SENT: [u32; 2] = [98, 99];

/// Identifier for the instances of the study, with all their text.
fn instances_of_the_study() -> Vec<u8> {
    let mut keys = text(0x0008_0052, "CS", "IMAGE");
    keys.extend([text(0x0020_000D, "UI", STUDY), text(0x0020_000E, "UI", SERIES)].concat());
    keys.extend(text(0x0021_0010, "LO", "CAIRN TEST"));
    keys.extend(TEXTS.flat_map(|private| element(private, "LT", b"")));
    keys
}

fn the_study() -> Vec<u8> {
    [text(0x0008_0052, "CS", "STUDY"), text(0x0020_000D, "UI", STUDY)].concat()
}

/// Most that the resident set may reach here. Every peer that takes no answer would hold 8 MiB, were there no bound over
/// all of them.
const MEMORY: u64 = 256 << 20;
/// The same where only little is said.
const LITTLE_MEMORY: u64 = 96 << 20;
/// Files that the stores may keep open beyond those of before.
const FILES: usize = 4;

/// What `/proc` says of the archive.
struct Use {
    sockets: usize,
    descriptors: usize,
    peak: u64,
}

fn used(archive: &Archive) -> Use {
    let links = fs::read_dir(format!("/proc/{}/fd", archive.pid())).unwrap();
    let links: Vec<PathBuf> = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok()).collect();
    let sockets = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:")).count();
    Use { sockets, descriptors: links.len(), peak: crate::bad_input::peak(archive) }
}

/// An archive with a study in it, and files for those who behave.
struct Site {
    archive: Archive,
    files: Vec<PathBuf>,
    sent: usize,
}

impl Site {
    fn start(folder: &Path, environment: Vec<(&str, String)>, arguments: Vec<String>) -> Self {
        let files = synthetic_files(&folder.join("in"), 61, 12);
        let start = Start { environment, arguments, ..Start::default() };
        let archive = Archive::start_with(&folder.join("data"), start);
        let stored: Vec<Vec<u8>> = (0..INSTANCES).map(file).collect();
        let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        assert_eq!(stow(archive.http, &stored).unwrap().status, 200);
        archive.settled();
        Self { archive, files, sent: 0 }
    }

    /// C-ECHO, C-STORE, C-FIND, QIDO-RS, STOW-RS and WADO-RS for somebody who behaves. How long it takes is not judged.
    fn serves(&mut self) {
        let (address, http) = (self.archive.dicom, self.archive.http);
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        run("echoscu", &["-to", "30", "-aet", "GOOD", "-aec", "CAIRN", &ip, &port]);
        let [by_dimse, by_stow] = [self.next_file(), self.next_file()];
        let path = by_dimse.display().to_string();
        run("storescu", &["-to", "30", "-td", "30", "-aet", "GOOD", "-aec", "CAIRN", &ip, &port, &path]);
        assert_eq!(stow(http, &[&fs::read(by_stow).unwrap()]).unwrap().status, 200);
        self.archive.settled();
        let mut peer = Peer::associate(address, "GOOD", &[(STUDY_FIND, EXPLICIT)]);
        let (answers, status) = peer.find(1, &the_study());
        assert_eq!((answers.len(), status), (1, 0));
        peer.release();
        let found = self.archive.get(&format!("/dicom-web/studies/{STUDY}/instances"), "application/dicom+json");
        let found: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
        assert_eq!(found.as_array().map(Vec::len), usize::try_from(INSTANCES).ok());
        let path = format!("/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{}", instance_uid(3));
        let got = self.archive.get(&path, "application/dicom; transfer-syntax=*");
        assert!(got.status == 200 && data_set_of(&got.body) == data_set(3), "{}", got.head);
    }

    fn next_file(&mut self) -> PathBuf {
        let file = self.files[self.sent].clone();
        self.sent += 1;
        file
    }

    fn open(&self, of: &str) -> f64 {
        self.archive.metric(&format!("cairn_{of}_open"))
    }

    /// Of what slow peers began to send, nothing is there.
    fn has_nothing_half_sent(&self) {
        self.archive.settled();
        for number in HALF_SENT {
            let there = data_set_over_http(&self.archive, &instance_uid(number).parse().unwrap());
            assert!(there.is_empty(), "instance {number}");
        }
    }

    /// Waits until no connection is left but the one that asks, and no more descriptors than `before`.
    fn is_quiet_again(&self, what: &str, before: &Use) {
        eventually(&format!("{what}: connections given back"), || {
            let left = [self.open("dimse_connections"), self.open("dimse_associations")];
            (left == [0.0, 0.0] && self.open("dicomweb_connections") <= 1.0).then_some(())
        });
        eventually(&format!("{what}: descriptors given back"), || {
            let now = used(&self.archive);
            (now.sockets <= before.sockets && now.descriptors <= before.descriptors + FILES).then_some(())
        });
    }
}

/// A way to hold on to the archive: brings a connection to where its peer falls silent.
struct Stall {
    what: &'static str,
    begin: fn(&Site) -> TcpStream,
    /// How the archive counts its end, once it has waited for long enough.
    ends: &'static str,
}

const NO_ASSOCIATION: &str = "cairn_dimse_associations_total{result=\"timeout\"}";
const TIMEOUT: &str = "cairn_dimse_associations_ended_total{how=\"timeout\"}";
const RELEASED: &str = "cairn_dimse_associations_ended_total{how=\"released\"}";
/// HTTP connections are not counted by their end; the gauge shows it.
const HTTP: &str = "";

fn said(mut stream: TcpStream, bytes: &[u8]) -> TcpStream {
    stream.write_all(bytes).unwrap();
    stream
}

/// An association that said this.
fn associated(site: &Site, bytes: &[u8]) -> TcpStream {
    let contexts = [
        (CT, EXPLICIT),
        (STUDY_FIND, EXPLICIT),
        (STUDY_GET, EXPLICIT),
        (STUDY_MOVE, EXPLICIT),
        (VERIFICATION, EXPLICIT),
    ];
    said(Peer::associate(site.archive.dicom, "HELD", &contexts).stream, bytes)
}

fn half_sent(context: u8, class: &str) -> Vec<u8> {
    let begun = fragment(context, 0, &data_set(HALF_SENT[1])[..5_000]);
    [fragment(context, COMMAND | LAST, &c_store(1, class, &instance_uid(HALF_SENT[1]))), begun].concat()
}

const GET: &str = "Host: cairn\r\nAccept: */*\r\n";

fn stow_head(site: &Site) -> TcpStream {
    let head = "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nContent-Length: 1000000\r\n\
                Content-Type: multipart/related; type=\"application/dicom\"; boundary=bound\r\n\r\n\
                --bound\r\nContent-Type: application/dicom\r\n\r\n";
    said(connect(site.archive.http), &[head.as_bytes(), &file(HALF_SENT[0])[..5_000]].concat())
}

/// Every phase of both protocols in which a peer can fall silent.
const STALLS: [Stall; 19] = [
    Stall { what: "before A-ASSOCIATE-RQ", ends: NO_ASSOCIATION, begin: |site| connect(site.archive.dicom) },
    Stall {
        what: "in the header of A-ASSOCIATE-RQ",
        ends: NO_ASSOCIATION,
        begin: |site| said(connect(site.archive.dicom), &request("HELD", &[])[..3]),
    },
    Stall {
        what: "in A-ASSOCIATE-RQ",
        ends: NO_ASSOCIATION,
        begin: |site| said(connect(site.archive.dicom), &request("HELD", &[(CT, EXPLICIT)])[..150]),
    },
    Stall { what: "idle in an association", ends: TIMEOUT, begin: |site| associated(site, &[]) },
    Stall {
        what: "in the header of a P-DATA-TF",
        ends: TIMEOUT,
        begin: |site| associated(site, &fragment(9, COMMAND | LAST, &c_echo(1))[..4]),
    },
    Stall {
        what: "in a fragment of a command",
        ends: TIMEOUT,
        begin: |site| associated(site, &fragment(9, COMMAND | LAST, &c_echo(1))[..30]),
    },
    Stall {
        what: "between fragments of a command",
        ends: TIMEOUT,
        begin: |site| associated(site, &fragment(9, COMMAND, &c_echo(1)[..20])),
    },
    Stall {
        what: "before a data set",
        ends: TIMEOUT,
        begin: |site| associated(site, &fragment(1, COMMAND | LAST, &c_store(1, CT, &instance_uid(HALF_SENT[1])))),
    },
    Stall { what: "in a data set", ends: TIMEOUT, begin: |site| associated(site, &half_sent(1, CT)) },
    Stall {
        what: "C-FIND answers are not read",
        ends: TIMEOUT,
        begin: |site| {
            let find = message(3, &c_query(1, STUDY_FIND, ""), &instances_of_the_study());
            associated(site, &find.repeat(40))
        },
    },
    Stall {
        what: "C-GET sub-operations are not read",
        ends: TIMEOUT,
        begin: |site| associated(site, &message(5, &c_query(1, STUDY_GET, ""), &the_study())),
    },
    Stall {
        what: "a C-GET sub-operation is not answered",
        ends: TIMEOUT,
        begin: |site| {
            let stream = associated(site, &message(5, &c_query(1, STUDY_GET, ""), &the_study()));
            let mut peer = Peer { stream };
            let (_, data_set) = peer.read_message();
            assert!(data_set.len() > PIXELS);
            peer.stream
        },
    },
    Stall {
        what: "a C-MOVE destination says nothing",
        ends: TIMEOUT,
        begin: |site| associated(site, &message(7, &c_query(1, STUDY_MOVE, "SILENT"), &the_study())),
    },
    Stall {
        what: "the connection is not closed after release",
        ends: RELEASED,
        begin: |site| associated(site, &pdu(5, &[0; 4])),
    },
    Stall { what: "before an HTTP request", ends: HTTP, begin: |site| connect(site.archive.http) },
    Stall {
        what: "in an HTTP head",
        ends: HTTP,
        begin: |site| said(connect(site.archive.http), b"GET /dicom-web/studies HTTP/1.1\r\nHost: cai"),
    },
    Stall { what: "in a STOW-RS body", ends: HTTP, begin: stow_head },
    Stall {
        what: "a WADO-RS answer is not read",
        ends: HTTP,
        begin: |site| {
            let ask = format!("GET /dicom-web/studies/{STUDY} HTTP/1.1\r\n{GET}\r\n");
            said(connect(site.archive.http), ask.as_bytes())
        },
    },
    Stall {
        what: "idle after an HTTP request",
        ends: HTTP,
        begin: |site| {
            let mut stream = said(connect(site.archive.http), format!("GET /livez HTTP/1.1\r\n{GET}\r\n").as_bytes());
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            stream
        },
    },
];

/// Peers that send one byte after another, a few a second, until told to stop or cut off.
struct Dripping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

/// What drips, and how the archive counts its end.
const DRIPS: [(&str, &str); 4] =
    [("A-ASSOCIATE-RQ", NO_ASSOCIATION), ("a P-DATA-TF", TIMEOUT), ("an HTTP head", HTTP), ("a STOW-RS body", HTTP)];

fn drip(site: &Site, of_each: usize) -> Dripping {
    let mut peers: Vec<(TcpStream, std::vec::IntoIter<u8>)> = Vec::new();
    for _ in 0..of_each {
        peers.push((connect(site.archive.dicom), request("DRIP", &[(CT, EXPLICIT)]).into_iter()));
        peers.push((associated(site, &[]), fragment(9, COMMAND, &[0; 16_000]).into_iter()));
        let head = format!("GET /livez HTTP/1.1\r\nX-Long: {}", "x".repeat(60_000));
        peers.push((connect(site.archive.http), head.into_bytes().into_iter()));
        peers.push((stow_head(site), vec![0; 60_000].into_iter()));
    }
    for (stream, _) in &peers {
        stream.set_nonblocking(true).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) && !peers.is_empty() {
            peers.retain_mut(|(stream, bytes)| {
                let cut = bytes.next().is_some_and(|byte| stream.write_all(&[byte]).is_err());
                let end = matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() != ErrorKind::WouldBlock);
                !cut && !end
            });
            // Their own pace, not a wait for the archive.
            std::thread::sleep(Duration::from_millis(50));
        }
        peers.len()
    });
    Dripping { stop, thread }
}

impl Dripping {
    /// Ends them; gives how many there still were.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// An address that takes connections and never says anything.
fn silent_destination() -> (TcpListener, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = format!("SILENT={}", listener.local_addr().unwrap());
    (listener, vec!["--destination".to_owned(), destination])
}

#[test]
fn others_are_answered_while_slow_peers_are_held_and_all_is_given_back_when_they_go() {
    const OF_EACH: usize = 10;
    let folder = directory();
    let (_destination, arguments) = silent_destination();
    // None ends within the test, however busy the machine is.
    let mut site = Site::start(folder.path(), waits("10min"), arguments);
    site.serves();
    let before = used(&site.archive);
    let mut held = Vec::new();
    for stall in &STALLS {
        println!("held: {}", stall.what);
        held.extend((0..OF_EACH).map(|_| (stall.begin)(&site)));
    }
    let dripping = drip(&site, OF_EACH);
    site.serves();
    site.serves();
    let during = used(&site.archive);
    println!(
        "{} peers held: peak of {} MiB, {} before, {} descriptors, {} before",
        held.len(),
        during.peak >> 20,
        before.peak >> 20,
        during.descriptors,
        before.descriptors
    );
    assert!(during.peak < MEMORY, "{} MiB", during.peak >> 20);
    assert!(during.sockets >= before.sockets + held.len() - OF_EACH, "they are still held: {}", during.sockets);
    assert_eq!(dripping.stop(), DRIPS.len() * OF_EACH, "none was cut off before its time");
    drop(held);
    site.is_quiet_again("they went", &before);
    site.has_nothing_half_sent();
    site.serves();
    site.archive.stop();
}

/// Waits for a peer that last so long.
fn waits(long: &str) -> Vec<(&'static str, String)> {
    [
        "CAIRN__DICOM__LIMITS__ARTIM",
        "CAIRN__DICOM__LIMITS__IDLE_TIMEOUT",
        "CAIRN__DICOM__LIMITS__TRANSFER_TIMEOUT",
        "CAIRN__DICOM__LIMITS__WRITE_TIMEOUT",
        "CAIRN__DICOM__LIMITS__RESPONSE_TIMEOUT",
        "CAIRN__HTTP__DICOMWEB__TIMEOUTS__HEADER",
        "CAIRN__HTTP__DICOMWEB__TIMEOUTS__BODY_IDLE",
        "CAIRN__HTTP__DICOMWEB__TIMEOUTS__WRITE_STALL",
        "CAIRN__HTTP__DICOMWEB__TIMEOUTS__RATE_GRACE",
    ]
    .map(|name| (name, long.to_owned()))
    .into()
}

/// Waits that end within the test.
fn impatient() -> Vec<(&'static str, String)> {
    let mut all = waits("2s");
    for name in ["CAIRN__DICOM__LIMITS__CLOSE_TIMEOUT", "CAIRN__HTTP__DICOMWEB__TIMEOUTS__DISCARD"] {
        all.push((name, "500ms".to_owned()));
    }
    all
}

#[test]
fn slow_peers_are_cut_off_by_the_configured_times_though_they_hold_on() {
    const OF_EACH: usize = 2;
    let folder = directory();
    let (_destination, arguments) = silent_destination();
    let mut site = Site::start(folder.path(), impatient(), arguments);
    site.archive.expect_in_log("an instance could not be sent");
    site.archive.expect_in_log("a retrieval failed for more instances");
    site.serves();
    let before = used(&site.archive);
    let counted = [NO_ASSOCIATION, TIMEOUT].map(|name| (name, site.archive.metric(name)));
    let mut held = Vec::new();
    for stall in &STALLS {
        println!("held: {}", stall.what);
        held.extend((0..OF_EACH).map(|_| (stall.begin)(&site)));
    }
    let dripping = drip(&site, OF_EACH);
    site.is_quiet_again("cut off", &before);
    for (name, at_first) in counted {
        let ends = STALLS.iter().map(|stall| stall.ends).chain(DRIPS.iter().map(|(_, ends)| *ends));
        let expected = ends.filter(|end| *end == name).count() * OF_EACH;
        let ended = site.archive.metric(name) - at_first;
        assert_eq!(ended, expected as f64, "{name}");
    }
    eventually("drips noticed", || dripping.thread.is_finished().then_some(()));
    assert_eq!(dripping.stop(), 0, "all were cut off");
    site.has_nothing_half_sent();
    drop(held);
    site.serves();
    site.archive.stop();
}

/// How many associations of a flood were accepted; the others must be rejected as CONFORMANCE says.
fn flood(address: SocketAddr, calling: &str, count: usize) -> Vec<Peer> {
    let mut accepted = Vec::new();
    for _ in 0..count {
        match Peer::ask(address, calling, &[(VERIFICATION, EXPLICIT)]) {
            (peer, Some((2, _))) => accepted.push(peer),
            (_, Some((3, reason))) => assert_eq!(reason, [0, 2, 3, 2], "transient, local limit exceeded"),
            (_, other) => panic!("neither accepted nor rejected: {other:?}"),
        }
    }
    accepted
}

#[test]
fn associations_and_connections_beyond_the_limits_are_turned_away_until_there_is_room() {
    let folder = directory();
    let environment = [
        ("CAIRN__DICOM__LIMITS__ASSOCIATIONS_MAX", "30"),
        ("CAIRN__DICOM__LIMITS__ASSOCIATIONS_PER_AE_MAX", "20"),
        ("CAIRN__DICOM__LIMITS__CONNECTIONS_MAX", "60"),
        ("CAIRN__HTTP__DICOMWEB__LIMITS__CONNECTIONS_MAX", "40"),
    ];
    let environment = environment.map(|(name, value)| (name, value.to_owned())).into();
    let mut site = Site::start(folder.path(), environment, Vec::new());
    site.archive.expect_in_log("as many as are allowed are open");
    site.serves();
    let before = used(&site.archive);

    let greedy = flood(site.archive.dicom, "GREEDY", 50);
    assert_eq!(greedy.len(), 20);
    site.serves();
    let others = flood(site.archive.dicom, "OTHERS", 20);
    assert_eq!(others.len(), 10);
    assert_eq!(site.open("dimse_associations"), 30.0);
    drop((greedy, others));
    site.is_quiet_again("a flood of associations", &before);
    site.serves();

    // Connections that say nothing; the archive closes at once what is too many.
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(site.archive.dicom)).collect();
    let refused = eventually("connections turned away", || {
        let refused = site.archive.metric("cairn_dimse_connections_refused_total");
        (refused >= 140.0).then_some(refused)
    });
    assert_eq!((refused, site.open("dimse_connections")), (140.0, 60.0));
    drop(silent);
    site.is_quiet_again("a flood of connections", &before);

    let mut many: Vec<TcpStream> = (0..80).map(|_| connect(site.archive.http)).collect();
    let turned_away = many.split_off(40).into_iter().map(|mut stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(
        turned_away.into_iter().all(|answer| answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"))
    );
    drop(many);
    eventually("an HTTP connection", || {
        let mut stream = connect(site.archive.http);
        let _turned_away =
            stream.write_all(format!("GET /livez HTTP/1.1\r\n{GET}Connection: close\r\n\r\n").as_bytes());
        let mut answer = Vec::new();
        let _reset_is_an_end_too = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    });
    site.is_quiet_again("a flood of HTTP connections", &before);
    site.serves();
    let peak = used(&site.archive).peak;
    println!("floods: peak of {} MiB", peak >> 20);
    assert!(peak < LITTLE_MEMORY);
    site.archive.stop();
}

#[test]
fn thousands_of_tiny_pdus_and_pipelined_requests_are_served_in_order() {
    let folder = directory();
    let mut site = Site::start(folder.path(), Vec::new(), Vec::new());
    let before = used(&site.archive);
    let contexts = [(SECONDARY_CAPTURE, EXPLICIT), (VERIFICATION, EXPLICIT)];

    // One byte of a data set to a PDU, and PDUs without any.
    let mut peer = Peer::associate(site.archive.dicom, "TINY", &contexts);
    let mut set = [text(0x0008_0016, "UI", SECONDARY_CAPTURE), text(0x0008_0018, "UI", "2.25.4500")].concat();
    set.extend([text(0x0020_000D, "UI", "2.25.4501"), text(0x0020_000E, "UI", "2.25.4502")].concat());
    set.extend(element(0x7FE0_0010, "OW", &[7; 20_000]));
    let mut bytes = fragment(1, COMMAND | LAST, &c_store(1, SECONDARY_CAPTURE, "2.25.4500"));
    bytes.extend(set.iter().flat_map(|byte| [fragment(1, 0, &[*byte]), fragment(1, 0, &[])].concat()));
    bytes.extend(fragment(1, LAST, &[]));
    peer.write(&bytes);
    assert_eq!(peer.read_status(), 0);
    site.archive.settled();
    assert!(data_set_over_http(&site.archive, &"2.25.4500".parse().unwrap()) == [set], "whole, byte for byte");

    // Requests without waiting for answers.
    let mut writer = Peer { stream: peer.stream.try_clone().unwrap() };
    let writing = std::thread::spawn(move || {
        let many: Vec<u8> = (1..=10_000).flat_map(|id| fragment(3, COMMAND | LAST, &c_echo(id))).collect();
        writer.write(&many);
    });
    for id in 1..=10_000_u16 {
        let (elements, _) = peer.read_message();
        assert_eq!((elements[&0x0120].as_slice(), raw::status(&elements)), (&id.to_le_bytes()[..], 0));
    }
    writing.join().unwrap();
    peer.release();

    let mut stream = connect(site.archive.http);
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let ask = format!("GET /livez HTTP/1.1\r\n{GET}\r\n").repeat(4_999);
        writer.write_all(format!("{ask}GET /livez HTTP/1.1\r\n{GET}Connection: close\r\n\r\n").as_bytes()).unwrap();
    });
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    writing.join().unwrap();
    assert_eq!((answers.matches("HTTP/1.1 200 ").count(), answers.matches("ok\n").count()), (5_000, 5_000));
    drop(stream);

    site.is_quiet_again("tiny things", &before);
    site.serves();
    let peak = used(&site.archive).peak;
    println!("tiny things: peak of {} MiB", peak >> 20);
    assert!(peak < LITTLE_MEMORY);
    site.archive.stop();
}

/// Twelve megabytes that are all header.
fn large_header(instance: &str) -> Vec<u8> {
    let mut set = [text(0x0008_0016, "UI", CT), text(0x0008_0018, "UI", instance)].concat();
    set.extend([text(0x0020_000D, "UI", "2.25.4600"), text(0x0020_000E, "UI", "2.25.4601")].concat());
    set.extend((0x1000..0x3EE0).flat_map(|low| element(0x0021_0000 | low, "UN", &[b'y'; 1_000])));
    set
}

#[test]
fn a_flood_of_large_headers_is_taken_a_few_at_a_time() {
    const PEERS: u32 = 24;
    const TURNS: usize = 8;
    let folder = directory();
    let environment = vec![("CAIRN__INGEST__LARGE_HEADER_WAIT", "1s".to_owned())];
    let mut site = Site::start(folder.path(), environment, Vec::new());
    site.archive.expect_in_log("large header");
    let address = site.archive.dicom;
    let sending: Vec<_> = (0..PEERS)
        .map(|number| {
            std::thread::spawn(move || {
                let instance = instance_uid(200 + number);
                let mut bytes = message(1, &c_store(1, CT, &instance), &large_header(&instance));
                let rest = bytes.split_off(bytes.len() - 500);
                let mut peer = Peer::associate(address, "LARGE", &[(CT, EXPLICIT)]);
                peer.write(&bytes);
                (peer, rest, instance)
            })
        })
        .collect();
    let held: Vec<_> = sending.into_iter().map(|sending| sending.join().unwrap()).collect();
    site.serves();
    let peak = used(&site.archive).peak;
    println!("{PEERS} large headers: peak of {} MiB", peak >> 20);
    assert!(peak < MEMORY);
    let ended: Vec<(u16, String)> = held
        .into_iter()
        .map(|(mut peer, rest, instance)| {
            peer.write(&rest);
            (peer.read_status(), instance)
        })
        .collect();
    site.archive.settled();
    for (status, instance) in &ended {
        let there = data_set_over_http(&site.archive, &instance.parse().unwrap());
        match status {
            0 => assert!(there == [large_header(instance)], "{instance}"),
            0xA700 => assert!(there.is_empty(), "{instance}"),
            other => panic!("{other:04X}"),
        }
    }
    assert_eq!(ended.iter().filter(|(status, _)| *status == 0).count(), TURNS);
    site.archive.stop();
}
