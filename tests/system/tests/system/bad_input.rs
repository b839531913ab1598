//! Bad input by both doors against the real process: it refuses or keeps whole, answers others meanwhile, and its memory
//! stays bounded.
//!
//! Which test shows what. Names without a file are here; `floods` is beside this one, `server`, `store` and `find` are
//! in the tests of `crates/doors/dimse`, `stow`, `qido`, `hostile` and `serving` in those of `crates/doors/dicomweb`.
//! Every file of the odd set passes both doors in `expectations`, every parser `make fuzz`.
//!
//! | class | by DIMSE | by DICOMweb |
//! | --- | --- | --- |
//! | truncated and over-long elements, wrong lengths, bad VRs | `damaged_elements_are_kept_whole_..` | the same |
//! | missing and unusable UIDs | `damaged_elements_are_kept_whole_..`, `what_a_command_announces_..` | the same |
//! | nesting to 10,000 levels | `damaged_elements_are_kept_whole_..` | the same |
//! | deflate bombs | `bombs_are_taken_or_refused_..` | the same |
//! | size bombs | `bombs_are_taken_or_refused_..` | the same, `pixels_that_are_claimed_..`, `stow::bounds_on_..` |
//! | floods of large headers | `floods::a_flood_of_large_headers_..` | the same service |
//! | hostile preambles | none is sent | `a_hostile_preamble_is_not_kept` |
//! | malformed PDUs | `malformed_pdus_..`, `server::what_breaks_the_protocol_..` | `hostile::requests_that_are_none` |
//! | malformed multipart bodies | not spoken | `bad_multipart_framing_..`, `stow::broken_bodies_..` |
//! | conflicting lengths of a request | `malformed_pdus_..` | `stow::conflicting_framing_of_a_request_..` |
//! | endless commands, heads, parts | `a_command_without_end_..` | `bad_multipart_framing_..`, `serving::addresses_and_..` |
//! | half-open and slow peers, held | `floods::others_are_answered_while_..` | the same |
//! | half-open and slow peers, cut off | `floods::slow_peers_are_cut_off_..`, `server::half_open_..` | the same, `hostile` |
//! | floods of connections, associations | `floods::associations_and_connections_..` | the same |
//! | floods of PDUs, requests, parts | `floods::thousands_of_tiny_..` | the same, `hostile::very_many_small_parts` |
//! | unusable query values | `a_key_that_can_not_be_used_..` | the same, `qido::what_can_not_be_used_..` |
//! | disk full | `disk_full` | the same |

use crate::{
    raw::{self, CT, DEFLATED, EXPLICIT, Peer, SECONDARY_CAPTURE, STUDY_FIND, connect, element, element_of, pdu, text},
    stow::{data_set_over_http, stow},
    support::{Archive, Response, Start, directory, http, run, synthetic_files},
};
use cairn_dicom::part10::{NewFileMeta, write_file_meta};
use flate2::{Compression, write::DeflateEncoder};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Most that the resident set may reach in these tests: twice what was seen. Bombs here are of gigabytes.
const MEMORY: u64 = 160 << 20;

/// Peak resident set of a process in bytes.
pub fn peak(archive: &Archive) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", archive.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

fn bounded(archive: &Archive, what: &str) {
    let peak = peak(archive);
    println!("{what}: peak of {} MiB", peak >> 20);
    assert!(peak < MEMORY, "{what}: {} MiB", peak >> 20);
}

fn still_answers(archive: &Archive, what: &str) {
    let answer = archive.get("/readyz", "*/*");
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    run("echoscu", &["-to", "30", "-aec", "CAIRN", &archive.dicom.ip().to_string(), &archive.dicom.port().to_string()]);
}

/// Writes what the peer takes and reads until it ends the connection: what it said.
fn talk(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The peer may end the connection before it took everything.
    let _peer_may_be_gone = stream.write_all(bytes);
    let mut said = Vec::new();
    let _reset_is_an_end_too = stream.read_to_end(&mut said);
    said
}

/// An A-ASSOCIATE-RQ for storage of one class.
fn request() -> Vec<u8> {
    raw::request("HOSTILE", &[(SECONDARY_CAPTURE, EXPLICIT)])
}

/// An association that was accepted.
pub fn associate(address: SocketAddr) -> TcpStream {
    Peer::associate(address, "HOSTILE", &[(SECONDARY_CAPTURE, EXPLICIT)]).stream
}

/// A P-DATA-TF on the only context.
fn fragment(control: u8, bytes: &[u8]) -> Vec<u8> {
    raw::fragment(1, control, bytes)
}

#[test]
fn malformed_pdus_end_their_association_and_harm_nobody() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let huge = [&[4_u8, 0, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0; 4096]].concat();
    let mut lying = request();
    // The first item claims more than the PDU has.
    lying[6 + 68 + 2..6 + 68 + 4].copy_from_slice(&[0xFF, 0xFF]);
    let bad: [(&str, Vec<u8>); 8] = [
        ("nothing of the kind", b"GET / HTTP/1.1\r\n\r\n".repeat(50)),
        ("an unknown PDU", pdu(0x77, &[0; 100])),
        ("a PDU of 4 GiB first", huge.clone()),
        ("an association request of 4 GiB", [&[1_u8, 0, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0; 4096]].concat()),
        ("an item longer than its PDU", lying),
        ("an empty association request", pdu(1, &[])),
        ("data before an association", fragment(3, &[0; 100])),
        ("a release before an association", pdu(5, &[0; 4])),
    ];
    for (what, bytes) in &bad {
        let said = talk(archive.dicom, bytes);
        assert!(said.first().is_none_or(|kind| matches!(kind, 3 | 7)), "{what}: rejected or aborted, not {said:?}");
        still_answers(&archive, what);
    }
    let after: [(&str, Vec<u8>); 5] = [
        ("a PDU of 4 GiB", huge),
        ("a value longer than its PDU", pdu(4, &[0, 0, 0xFF, 0xFF, 1, 3, 0, 0])),
        ("a context that was never accepted", pdu(4, &[0, 0, 0, 4, 99, 3, 0, 0])),
        ("a command that is none", fragment(3, &[0xAB; 64])),
        ("an association within an association", request()),
    ];
    for (what, bytes) in &after {
        let mut stream = associate(archive.dicom);
        let _peer_may_be_gone = stream.write_all(bytes);
        let mut said = Vec::new();
        let _reset_is_an_end_too = stream.read_to_end(&mut said);
        assert!(said.first().is_none_or(|kind| *kind == 7), "{what}: aborted, not {said:?}");
        still_answers(&archive, what);
    }
    bounded(&archive, "malformed PDUs");
    archive.stop();
}

#[test]
fn a_command_without_end_is_cut_off() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let mut stream = associate(archive.dicom);
    let part = fragment(1, &[0; 16_000]);
    // 64 MiB; what comes after its A-ABORT, the archive may read and drop (PS3.8 section 9.2, state 13).
    let _sent = (0..4_096).take_while(|_| stream.write_all(&part).is_ok()).count();
    let mut first = [0];
    let said = stream.read(&mut first);
    assert!(!matches!(said, Ok(1..)) || first[0] == 7, "aborted, not {first:?}");
    still_answers(&archive, "an endless command");
    bounded(&archive, "an endless command");
    archive.stop();
}

#[test]
fn bad_multipart_framing_is_refused() {
    let folder = directory();
    let mut archive = Archive::start(&folder.path().join("data"));
    archive.expect_in_log("multipart framing: no close delimiter");
    let good = "multipart/related; type=\"application/dicom\"; boundary=bound";
    let endless = format!("--bound\r\n{}\r\n\r\nx\r\n--bound--\r\n", "X-Header: value\r\n".repeat(100_000));
    let cases: [(&str, &str, &str); 8] = [
        ("no boundary", "multipart/related; type=\"application/dicom\"", "--bound--\r\n"),
        ("another media type", "text/plain", "hello"),
        ("no part", good, "--bound--\r\n"),
        ("never a delimiter", good, "hello"),
        ("no end", good, "--bound\r\nContent-Type: application/dicom\r\n\r\nabc"),
        ("headers without end", good, "--bound\r\nContent-Type: application/dicom\r\n"),
        ("a hundred thousand headers", good, &endless),
        ("a part of another type", good, "--bound\r\nContent-Type: text/html\r\n\r\nabc\r\n--bound--\r\n"),
    ];
    for (what, content_type, body) in cases {
        let head = format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nAccept: application/dicom+json\r\n\
             Connection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = http(archive.http, &head, body.as_bytes());
        println!("{what}: {}", answer.status);
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        still_answers(&archive, what);
    }
    bounded(&archive, "bad framing");
    archive.stop();
}

/// Makes a data set for a SOP Instance UID.
type Make = Box<dyn Fn(&str) -> Vec<u8>>;

/// One instance that is sent by both doors, under UIDs of its own for each.
struct Case {
    what: &'static str,
    /// The data set, with this SOP Instance UID if it has one at all.
    data_set: Make,
    transfer_syntax: &'static str,
    /// 0000 or why it is refused: the status by C-STORE, and the Failure Reason by STOW-RS.
    status: u16,
}

const STORED: u16 = 0;
const DOES_NOT_MATCH: u16 = 0xA900;
const CANNOT_UNDERSTAND: u16 = 0xC000;
const BAD_IDENTIFIER: u16 = 0xC001;
const TOO_LARGE: u16 = 0xC003;
const UNUSABLE_KEY: u16 = 0xC005;

fn case(what: &'static str, status: u16, data_set: impl Fn(&str) -> Vec<u8> + 'static) -> Case {
    Case { what, data_set: Box::new(data_set), transfer_syntax: EXPLICIT, status }
}

const SOP_CLASS: u32 = 0x0008_0016;
const SOP_INSTANCE: u32 = 0x0008_0018;
const STUDY: u32 = 0x0020_000D;
const SERIES: u32 = 0x0020_000E;
const PIXEL_DATA: u32 = 0x7FE0_0010;

/// The four identifiers, as given.
fn identifiers(class: &str, instance: &str, study: &str, series: &str) -> Vec<u8> {
    let first = [text(SOP_CLASS, "UI", class), text(SOP_INSTANCE, "UI", instance)];
    [first.concat(), text(STUDY, "UI", study), text(SERIES, "UI", series)].concat()
}

/// The four identifiers of a good instance, and what follows.
fn good(instance: &str, rest: &[u8]) -> Vec<u8> {
    [&identifiers(SECONDARY_CAPTURE, instance, "2.25.92", "2.25.93"), rest].concat()
}

/// The same with another study.
fn of_study(instance: &str, study: &str) -> Vec<u8> {
    identifiers(SECONDARY_CAPTURE, instance, study, "2.25.93")
}

fn part10(data_set: &[u8], instance: &str, transfer_syntax_uid: &str) -> Vec<u8> {
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &SECONDARY_CAPTURE.parse().unwrap(),
        sop_instance_uid: &instance.parse().unwrap(),
        transfer_syntax_uid,
        source_ae_title: None,
    });
    file.extend(data_set);
    file
}

/// Failure Reason of an answer to a store of one instance; 0 when it is stored without a word.
fn failure_reason(answer: &Response) -> u16 {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let reason = body["00081198"]["Value"][0]["00081197"]["Value"][0].as_u64();
    assert_eq!(answer.status == 200, reason.is_none(), "{answer:?}");
    u16::try_from(reason.unwrap_or_default()).unwrap()
}

/// Sends each by both doors: the outcome is the expected one, the same by both, and what is there is there whole.
fn both_doors(archive: &Archive, cases: &[Case]) {
    let (mut sent, mut others) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        let [by_dimse, by_stow] = ["1", "2"].map(|door| format!("2.25.91{number:03}{door}"));
        let data_set = (case.data_set)(&by_dimse);
        let mut peer = Peer::associate(archive.dicom, "HOSTILE", &[(SECONDARY_CAPTURE, case.transfer_syntax)]);
        let status = peer.store(1, SECONDARY_CAPTURE, &by_dimse, &data_set);
        peer.release();
        sent.push((case, by_dimse, data_set));
        let data_set = (case.data_set)(&by_stow);
        let answer = stow(archive.http, &[&part10(&data_set, &by_stow, case.transfer_syntax)]).unwrap();
        let reason = failure_reason(&answer);
        println!("{}: {status:04X} by C-STORE, {reason:04X} with {} by STOW-RS", case.what, answer.status);
        if (status, reason) != (case.status, case.status) {
            others.push(format!("{}: {status:04X} and {reason:04X}, not {:04X}", case.what, case.status));
        }
        sent.push((case, by_stow, data_set));
        bounded(archive, case.what);
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    still_answers(archive, "after all of them");
    archive.settled();
    for (case, instance, data_set) in sent {
        let there = data_set_over_http(archive, &instance.parse().unwrap());
        let expected = if case.status == STORED { vec![data_set] } else { Vec::new() };
        assert!(there == expected, "{}: {} versions there", case.what, there.len());
    }
}

fn sequence(length: u32, items: &[u8]) -> Vec<u8> {
    element_of(0x0040_A730, "SQ", length, items)
}

fn item_of(length: u32, value: &[u8]) -> Vec<u8> {
    [&[0xFE, 0xFF, 0x00, 0xE0][..], &length.to_le_bytes(), value].concat()
}

const UNDEFINED: u32 = u32::MAX;
const ITEM_END: [u8; 8] = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
const SEQUENCE_END: [u8; 8] = [0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];

/// Sequences within sequences, ended or not.
fn nested(levels: usize, ended: bool) -> Vec<u8> {
    let begin = sequence(UNDEFINED, &item_of(UNDEFINED, &[])).repeat(levels);
    let end = [ITEM_END, SEQUENCE_END].concat().repeat(if ended { levels } else { 0 });
    [begin, end].concat()
}

#[test]
fn damaged_elements_are_kept_whole_or_refused_the_same_by_both_doors() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let cases = [
        // Truncated and over-long elements.
        case("nothing at all", CANNOT_UNDERSTAND, |_| Vec::new()),
        case("cut in the class", CANNOT_UNDERSTAND, |uid| good(uid, &[])[..20].to_vec()),
        case("cut in the header of the study", BAD_IDENTIFIER, |uid| good(uid, &[])[..57].to_vec()),
        case("cut in the study", CANNOT_UNDERSTAND, |uid| good(uid, &[])[..64].to_vec()),
        case("an element's header is cut short", STORED, |uid| good(uid, &[0xE0, 0x7F, 0x10])),
        case("a value is cut short", STORED, |uid| good(uid, &element_of(PIXEL_DATA, "OW", 1000, &[1; 10]))),
        case("a length beyond any file", STORED, |uid| good(uid, &element_of(PIXEL_DATA, "OW", 0xFFFF_FFF0, &[1; 10]))),
        case("a length beyond any file before a UID", CANNOT_UNDERSTAND, |uid| {
            let first = [text(SOP_CLASS, "UI", SECONDARY_CAPTURE), text(SOP_INSTANCE, "UI", uid)].concat();
            [first, element_of(0x0010_0010, "UN", 0xFFFF_FFF0, &[1; 100])].concat()
        }),
        case("fragments without end", STORED, |uid| {
            good(uid, &element_of(PIXEL_DATA, "OB", UNDEFINED, &item_of(0x7FFF_FFFE, &[1; 10])))
        }),
        // Wrong lengths.
        case("an odd length", STORED, |uid| good(uid, &element(0x0021_0010, "LO", b"ABC"))),
        case("a group length that lies", STORED, |uid| {
            [element(0x0008_0000, "UL", &[0xFF, 0xFF, 0xFF, 0x7F]), good(uid, &[])].concat()
        }),
        case("three bytes of US", STORED, |uid| good(uid, &element(0x0028_0010, "US", &[1, 2, 3]))),
        case("an item longer than its sequence", STORED, |uid| good(uid, &sequence(16, &item_of(4_000, &[0; 8])))),
        case("a sequence that is no items", STORED, |uid| good(uid, &sequence(16, &[0xAB; 16]))),
        case("delimiters that end nothing", STORED, |uid| good(uid, &[ITEM_END, SEQUENCE_END].concat())),
        // Bad VRs.
        case("an unknown VR", STORED, |uid| good(uid, &element(0x0021_1001, "ZZ", b"ABCD"))),
        case("a VR of two zero bytes", STORED, |uid| good(uid, &element(0x0021_1001, "\0\0", b"ABCD"))),
        case("a UID as LO", STORED, |uid| {
            let others = [text(SOP_CLASS, "UI", SECONDARY_CAPTURE), text(SOP_INSTANCE, "UI", uid)].concat();
            [others, text(STUDY, "LO", "2.25.92"), text(SERIES, "UI", "2.25.93")].concat()
        }),
        case("noise", CANNOT_UNDERSTAND, |_| vec![0xFF; 5_000]),
        // Missing and unusable UIDs.
        case("no SOP Class UID, but where it is announced", STORED, |uid| good(uid, &[])[34..].to_vec()),
        case("no SOP Instance UID", BAD_IDENTIFIER, |uid| {
            [&good(uid, &[])[..34], &good(uid, &[])[34 + 8 + uid.len().next_multiple_of(2)..]].concat()
        }),
        case("no study", BAD_IDENTIFIER, |uid| {
            let first = [text(SOP_CLASS, "UI", SECONDARY_CAPTURE), text(SOP_INSTANCE, "UI", uid)].concat();
            [first, text(SERIES, "UI", "2.25.93")].concat()
        }),
        case("no series", BAD_IDENTIFIER, |uid| identifiers(SECONDARY_CAPTURE, uid, "2.25.92", "")),
        case("an empty study", BAD_IDENTIFIER, |uid| of_study(uid, "")),
        case("a study of spaces", BAD_IDENTIFIER, |uid| of_study(uid, "    ")),
        case("a study that is a path", BAD_IDENTIFIER, |uid| of_study(uid, "../../etc/passwd")),
        case("a study of 65 digits", BAD_IDENTIFIER, |uid| of_study(uid, &format!("2.{}", "1".repeat(63)))),
        case("a study of letters", BAD_IDENTIFIER, |uid| of_study(uid, "abc")),
        case("a study with NUL within", BAD_IDENTIFIER, |uid| of_study(uid, "2.25\0.92")),
        case("two studies", BAD_IDENTIFIER, |uid| of_study(uid, "2.25.92\\2.25.93")),
        // Nesting.
        case("ten thousand levels", STORED, |uid| good(uid, &nested(10_000, true))),
        case("ten thousand levels without end", STORED, |uid| good(uid, &nested(10_000, false))),
        case("ten thousand levels before the identifiers", STORED, |uid| {
            [nested(10_000, true), good(uid, &[])].concat()
        }),
    ];
    both_doors(&archive, &cases);
    archive.stop();
}

/// A command that announces another instance or class than it brings is refused. The File Meta Information of a file is
/// no announcement: the archive writes its own, from the data set.
#[test]
fn what_a_command_announces_must_be_what_it_brings() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let there = |uid: &str| data_set_over_http(&archive, &uid.parse().unwrap());
    for (what, named, class, uid) in [
        ("another instance", "2.25.9501", SECONDARY_CAPTURE, "2.25.9500"),
        ("another class", "2.25.9502", CT, "2.25.9502"),
        ("no UID", "../etc", SECONDARY_CAPTURE, "2.25.9503"),
    ] {
        let data_set = identifiers(class, uid, "2.25.92", "2.25.93");
        let mut peer = Peer::associate(archive.dicom, "HOSTILE", &[(SECONDARY_CAPTURE, EXPLICIT)]);
        assert_eq!(peer.store(1, SECONDARY_CAPTURE, named, &data_set), DOES_NOT_MATCH, "{what}");
        peer.release();
        archive.settled();
        assert!(there(uid).is_empty(), "{what}");
        let answer = stow(archive.http, &[&part10(&data_set, "2.25.9504", EXPLICIT)]).unwrap();
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        archive.settled();
        assert!(there(uid) == [data_set], "{what}");
    }
    assert!(there("2.25.9504").is_empty());
    archive.stop();
}

/// A data set that begins so, then has so many mebibytes of zeros, and ends so, deflated.
fn deflated(begin: &[u8], mebibytes: usize, end: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let mut put = |bytes: &[u8]| {
        let before = encoder.get_ref().len();
        encoder.write_all(bytes).unwrap();
        // Ends at a byte, so that blocks of it can be put together.
        encoder.flush().unwrap();
        encoder.get_ref()[before..].to_vec()
    };
    let (begin, first) = (put(begin), put(&[0; 1 << 20]));
    // After zeros, zeros are the same bytes again and again.
    let next = put(&[0; 1 << 20]);
    let zeros = if mebibytes == 0 { Vec::new() } else { [first, next.repeat(mebibytes - 1)].concat() };
    let end = put(end);
    // An empty last block.
    [begin, zeros, end, vec![3, 0]].concat()
}

#[test]
fn bombs_are_taken_or_refused_the_same_by_both_doors_within_bounded_memory() {
    let folder = directory();
    let environment = vec![("CAIRN__INGEST__DEFAULT_PROFILE__OBJECT_BYTES_MAX", "80 MiB".to_owned())];
    let archive = Archive::start_with(&folder.path().join("data"), Start { environment, ..Start::default() });
    // Its pixel data; and an element before the identifiers, so that nothing is known when it goes off.
    let pixels =
        |uid: &str| deflated(&[good(uid, &[]), element_of(PIXEL_DATA, "OB", 1 << 30, &[])].concat(), 1024, &[]);
    let before = |uid: &str| deflated(&element_of(0x0008_0001, "UN", 1 << 30, &[]), 1024, &good(uid, &[]));
    let deflated_case = |what, status, data_set: Make| Case { what, data_set, transfer_syntax: DEFLATED, status };
    let cases = [
        deflated_case("a gibibyte of zeros, deflated", TOO_LARGE, Box::new(pixels)),
        deflated_case("the same before the identifiers", TOO_LARGE, Box::new(before)),
        deflated_case(
            "an honest deflated one",
            STORED,
            Box::new(|uid| deflated(&[good(uid, &[]), element_of(PIXEL_DATA, "OB", 4 << 20, &[])].concat(), 4, &[])),
        ),
        deflated_case("noise as deflated", CANNOT_UNDERSTAND, Box::new(|_| vec![0xA5; 5_000])),
        deflated_case(
            "deflated and cut short",
            CANNOT_UNDERSTAND,
            Box::new(|uid| deflated(&good(uid, &[]), 0, &[])[..40].into()),
        ),
        case("60 MB of header", STORED, |uid| {
            good(
                uid,
                &(0x1000..0xFF00).flat_map(|low| element(0x0021_0000 | low, "UN", &[b'y'; 1_000])).collect::<Vec<_>>(),
            )
        }),
        case("half a million empty elements", STORED, |uid| {
            let empty = (0..8).flat_map(|group| (0x1000..0xFF00).map(move |low| (0x0021_0000 + (group << 17)) | low));
            good(uid, &empty.flat_map(|tag| element(tag, "LO", b"")).collect::<Vec<_>>())
        }),
        case("half a million empty items", STORED, |uid| {
            good(uid, &[sequence(UNDEFINED, &item_of(0, &[]).repeat(500_000)), SEQUENCE_END.into()].concat())
        }),
        case("larger than an instance may be", TOO_LARGE, |uid| {
            good(uid, &element(PIXEL_DATA, "OW", &vec![1; 90 << 20]))
        }),
    ];
    both_doors(&archive, &cases);

    // A body that announces two tebibytes is refused for what it says.
    let head = "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\nContent-Length: 2199023255552\r\n\
                Content-Type: multipart/related; type=\"application/dicom\"; boundary=bound\r\n\r\n";
    let mut stream = connect(archive.http);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    archive.stop();
}

#[test]
fn pixels_that_are_claimed_and_not_there_cost_nothing() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let us = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    let image = [
        us(0x0028_0002, 1),
        text(0x0028_0008, "IS", "2147483647"),
        us(0x0028_0010, 65_535),
        us(0x0028_0011, 65_535),
        us(0x0028_0100, 16),
        element(PIXEL_DATA, "OW", &[1; 10]),
    ];
    let uid = "2.25.94";
    let file = part10(&good(uid, &image.concat()), uid, EXPLICIT);
    assert_eq!(stow(archive.http, &[&file]).unwrap().status, 200);
    archive.settled();
    let path = format!("/dicom-web/studies/2.25.92/series/2.25.93/instances/{uid}");
    assert_eq!(archive.get(&format!("{path}/metadata"), "application/dicom+json").status, 200);
    let many = vec!["1"; 20_000].join(",");
    for frames in ["1", "2", "2147483647", "4294967296", "0", "-1", "1,2147483647", &many[..3_000], &many] {
        let answer =
            archive.get(&format!("{path}/frames/{frames}"), "multipart/related; type=\"application/octet-stream\"");
        println!("frames {}: {}", &frames[..frames.len().min(20)], answer.status);
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    still_answers(&archive, "claimed pixels");
    bounded(&archive, "claimed pixels");
    archive.stop();
}

/// A key: what QIDO-RS calls it, tag, VR, and a value, which is escaped in a query string.
type Key = (&'static str, u32, &'static str, &'static [u8]);

/// Keys with values that their VR can't have.
const UNUSABLE: [Key; 13] = [
    ("StudyInstanceUID", STUDY, "UI", b"abc"),
    ("StudyInstanceUID", STUDY, "UI", b"../../"),
    ("StudyInstanceUID", STUDY, "UI", b"2.25.1\\x"),
    ("StudyDate", 0x0008_0020, "DA", b"yesterday "),
    ("StudyDate", 0x0008_0020, "DA", b"20261399"),
    ("StudyDate", 0x0008_0020, "DA", b"20260230"),
    ("StudyDate", 0x0008_0020, "DA", b"-"),
    ("StudyDate", 0x0008_0020, "DA", b"20260101-x"),
    ("StudyDate", 0x0008_0020, "DA", b"20260101-20260102-20260103"),
    ("StudyTime", 0x0008_0030, "TM", b"2561"),
    ("StudyTime", 0x0008_0030, "TM", b"noon"),
    ("NumberOfStudyRelatedInstances", 0x0020_1208, "IS", b"many"),
    ("AccessionNumber", 0x0008_0050, "SH", b"\x1B\x1B"),
];

/// Keys with control characters in them: HTTP refuses them, and no stored value has them.
const UNMATCHED: [Key; 3] = [
    ("PatientID", 0x0010_0020, "LO", b"A\0B "),
    ("PatientName", 0x0010_0010, "PN", b"\0\x01\0\x01"),
    ("ModalitiesInStudy", 0x0008_0061, "CS", b"C\0T "),
];

fn find(archive: &Archive, keys: &[u8]) -> (usize, u16) {
    let mut peer = Peer::associate(archive.dicom, "HOSTILE", &[(STUDY_FIND, EXPLICIT)]);
    let (answers, status) = peer.find(1, keys);
    peer.release();
    (answers.len(), status)
}

#[test]
fn a_key_that_can_not_be_used_never_matches_all() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    for file in synthetic_files(&folder.path().join("in"), 57, 3) {
        assert_eq!(stow(archive.http, &[&fs::read(file).unwrap()]).unwrap().status, 200);
    }
    archive.settled();
    let level = |name| text(0x0008_0052, "CS", name);
    let ask = |tag: u32, vr, value: &[u8]| {
        let keys = [(0x0008_0052, level("STUDY")), (STUDY, element(STUDY, "UI", b"")), (tag, element(tag, vr, value))];
        let in_order = BTreeMap::from(keys).into_values().flatten();
        find(&archive, &in_order.collect::<Vec<_>>())
    };
    let qido = |name: &str, value: &[u8]| {
        let escaped: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
        let answer = archive.get(&format!("/dicom-web/studies?{name}={escaped}"), "application/dicom+json");
        let found = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        (found.and_then(|found| found.as_array().map(Vec::len)).unwrap_or_default(), answer.status)
    };
    for (keys, status) in [(&UNUSABLE[..], UNUSABLE_KEY), (&UNMATCHED[..], 0)] {
        for (name, tag, vr, value) in keys {
            let what = format!("{name} {:?}", String::from_utf8_lossy(value));
            assert_eq!(ask(*tag, vr, value), (0, status), "{what}");
            assert_eq!(qido(name, value), (0, 400), "{what}");
        }
    }
    // A character set that nobody knows changes nothing about what matches.
    let level = level("STUDY");
    let unknown_set = text(0x0008_0005, "CS", "ISO_IR 999");
    let name = text(0x0010_0010, "PN", "NOBODY^AT ALL");
    assert_eq!(find(&archive, &[unknown_set, level, name].concat()), (0, 0));
    for universal in [&b""[..], b"* "] {
        for (name, tag, vr) in [("PatientName", 0x0010_0010, "PN"), ("PatientID", 0x0010_0020, "LO")] {
            assert_eq!(ask(tag, vr, universal), (3, 0), "{name} {universal:?}");
            assert_eq!(qido(name, universal.trim_ascii()), (3, 200), "{name} {universal:?}");
        }
    }
    archive.stop();
}

#[test]
fn a_hostile_preamble_is_not_kept() {
    let folder = directory();
    let path = &synthetic_files(&folder.path().join("in"), 53, 1)[0];
    let archive = Archive::start(&folder.path().join("data"));
    let mut file = fs::read(path).unwrap();
    let script = b"#!/bin/sh\nrm -rf /\nexit\n";
    file[..script.len()].copy_from_slice(script);
    assert_eq!(stow(archive.http, &[&file]).unwrap().status, 200);
    archive.settled();
    let uid = cairn_synthetic::studies(53, 1).next().unwrap().sop_instance_uid;
    let found = archive.get(&format!("/dicom-web/instances?SOPInstanceUID={uid}"), "application/dicom+json");
    let found: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
    let url = found[0]["00081190"]["Value"][0].as_str().unwrap();
    let path = &url[url.find("/dicom-web").unwrap()..];
    let got = archive.get(path, "application/dicom; transfer-syntax=*");
    assert_eq!(got.status, 200);
    assert!(got.head.contains("x-content-type-options: nosniff"), "{}", got.head);
    assert_eq!(&got.body[..132], [&[0; 128][..], b"DICM"].concat(), "128 zero bytes and DICM");
    archive.stop();
}
