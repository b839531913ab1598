//! Bad input by both doors against the real process: it refuses, answers others meanwhile, and its memory stays bounded.

use crate::{
    stow::stow,
    support::{Archive, SOON, directory, http, run, synthetic_files},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
};

/// Most that the resident set of a debug build may reach in these tests. Bombs here are of gigabytes.
const MEMORY: u64 = 700 << 20;

/// Peak resident set of a process in bytes.
fn peak(archive: &Archive) -> u64 {
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

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
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

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut pdu = vec![kind, 0];
    pdu.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    pdu.extend(body);
    pdu
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut item = vec![kind, 0];
    item.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    item.extend(body);
    item
}

/// An A-ASSOCIATE-RQ for storage of one class in Explicit VR Little Endian.
fn request() -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{:<16}{:<16}", "CAIRN", "HOSTILE").into_bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    let mut context = vec![1, 0, 0, 0];
    context.extend(item(0x30, b"1.2.840.10008.5.1.4.1.1.7"));
    context.extend(item(0x40, b"1.2.840.10008.1.2.1"));
    body.extend(item(0x20, &context));
    let mut user = item(0x51, &16_384_u32.to_be_bytes());
    user.extend(item(0x52, b"1.2.3.4"));
    body.extend(item(0x50, &user));
    pdu(1, &body)
}

/// An association that was accepted.
pub fn associate(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&request()).unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 2, "accepted");
    let length = u32::from_be_bytes(head[2..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).unwrap();
    stream
}

/// A P-DATA-TF with one fragment; `control` says command or data set, last or not.
fn fragment(control: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = u32::try_from(bytes.len() + 2).unwrap().to_be_bytes().to_vec();
    value.extend([1, control]);
    value.extend(bytes);
    pdu(4, &value)
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
fn dozens_of_slow_and_half_open_peers_keep_nobody_out() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 51, 1);
    let archive = Archive::start(&folder.path().join("data"));
    let mut held = Vec::new();
    for number in 0..24 {
        let mut silent = connect(archive.dicom);
        silent.write_all(&request()[..number * 3]).unwrap();
        let mut within = associate(archive.dicom);
        within.write_all(&fragment(1, &[0; 40])[..10 + number]).unwrap();
        let mut slow = connect(archive.http);
        let head = "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nContent-Length: 100000\r\n\
                    Content-Type: multipart/related; type=\"application/dicom\"; boundary=bound\r\n\r\n--bound\r\n";
        slow.write_all(&head.as_bytes()[..head.len() - number]).unwrap();
        held.extend([silent, within, slow]);
    }
    still_answers(&archive, "slow peers");
    for file in &files {
        assert_eq!(stow(archive.http, &[&fs::read(file).unwrap()]).unwrap().status, 200, "stored beside slow peers");
    }
    bounded(&archive, "slow peers");
    drop(held);
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

/// Writes a Part 10 file by a few lines of Python; gives its path.
fn made_by_python(folder: &Path, name: &str, lines: &str) -> Vec<u8> {
    let path = folder.join(name);
    let common = "import sys, struct, zlib\n\
        def el(g, e, vr, v):\n\
        \x20   v += b'\\0' * (len(v) % 2)\n\
        \x20   long = vr in ('OB', 'OW', 'SQ', 'UN', 'UT')\n\
        \x20   tail = b'\\0\\0' + struct.pack('<I', len(v)) if long else struct.pack('<H', len(v))\n\
        \x20   return struct.pack('<HH', g, e) + vr.encode() + tail + v\n\
        def meta(ts):\n\
        \x20   m = el(2, 1, 'OB', b'\\0\\1') + el(2, 2, 'UI', b'1.2.840.10008.5.1.4.1.1.7')\n\
        \x20   m += el(2, 3, 'UI', b'2.25.91') + el(2, 16, 'UI', ts) + el(2, 18, 'UI', b'1.2.3')\n\
        \x20   return b'\\0' * 128 + b'DICM' + el(2, 0, 'UL', struct.pack('<I', len(m))) + m\n\
        ids = el(8, 0x16, 'UI', b'1.2.840.10008.5.1.4.1.1.7') + el(8, 0x18, 'UI', b'2.25.91')\n\
        uids = el(0x20, 0xd, 'UI', b'2.25.92') + el(0x20, 0xe, 'UI', b'2.25.93')\n\
        out = open(sys.argv[1], 'wb')\n";
    run(crate::support::python(), &["-c", &format!("{common}{lines}"), &path.display().to_string()]);
    fs::read(path).unwrap()
}

#[test]
fn bombs_are_taken_or_refused_within_bounded_memory() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let deep = "sq = b''.join(struct.pack('<HH', 0x40, 0xa730) + b'SQ\\0\\0' + b'\\xff' * 4 + b'\\xfe\\xff\\x00\\xe0' + b'\\xff' * 4\n\
        \x20 for _ in range(10000))\n\
        end = (b'\\xfe\\xff\\x0d\\xe0' + b'\\0' * 4 + b'\\xfe\\xff\\xdd\\xe0' + b'\\0' * 4) * 10000\n\
        out.write(meta(b'1.2.840.10008.1.2.1') + ids + uids + sq + end)\n";
    let deflated = "c = zlib.compressobj(9, zlib.DEFLATED, -15)\n\
        out.write(meta(b'1.2.840.10008.1.2.1.99') + c.compress(ids + uids))\n\
        n = 1024 << 20\n\
        out.write(c.compress(struct.pack('<HH', 0x7fe0, 0x10) + b'OB\\0\\0' + struct.pack('<I', n)))\n\
        for _ in range(1024): out.write(c.compress(b'\\0' * (1 << 20)))\n\
        out.write(c.flush())\n";
    let lying = "out.write(meta(b'1.2.840.10008.1.2.1') + ids + struct.pack('<HH', 0x10, 0x10) + b'UN\\0\\0')\n\
        out.write(struct.pack('<I', 0xfffffff0) + b'x' * 1000)\n";
    let private = "out.write(meta(b'1.2.840.10008.1.2.1') + ids + uids)\n\
        for e in range(0x1000, 0xff00): out.write(el(0x21, e, 'UN', b'y' * 1000))\n";
    for (name, lines) in [
        ("deep nesting", deep),
        ("a deflate bomb", deflated),
        ("a length of 4 GiB", lying),
        ("60 MB of header", private),
    ] {
        let file = made_by_python(folder.path(), name, lines);
        let answer = stow(archive.http, &[&file]).unwrap();
        println!("{name} ({} bytes): {}", file.len(), answer.status);
        assert!(matches!(answer.status, 200 | 202 | 409 | 413), "{name}: {answer:?}");
        still_answers(&archive, name);
        bounded(&archive, name);
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
    assert_eq!(&got.body[..132], [&[0; 128][..], b"DICM"].concat(), "128 zero bytes and DICM");
    archive.stop();
}
