//! Sending by STOW-RS and getting back by WADO-RS over plain sockets.

use crate::support::{Archive, Response, SOON, parse_response};
use cairn_dicom::{Uid, part10::Part10Reader};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// A file and the instance in it; none in what is no instance.
#[derive(Clone, PartialEq, Eq)]
pub struct Sent {
    pub file: Vec<u8>,
    pub sop_instance_uid: Option<Uid>,
}

impl Sent {
    pub fn new(file: Vec<u8>, uid: Uid) -> Self {
        Self { file, sop_instance_uid: Some(uid) }
    }
}

/// Stores files in one request. An error means that no answer came: nothing was acknowledged.
pub fn stow(address: SocketAddr, files: &[&[u8]]) -> io::Result<Response> {
    let mut body = Vec::new();
    for file in files {
        body.extend_from_slice(b"--bound\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--bound--\r\n");
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nAccept: application/dicom+json\r\nConnection: close\r\n\
         Content-Type: multipart/related; type=\"application/dicom\"; boundary=bound\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse_response(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The data set bytes of a Part 10 file.
pub fn data_set_of(file: &[u8]) -> Vec<u8> {
    let mut reader = Part10Reader::new(1 << 20);
    let start = match reader.push(file).unwrap() {
        Some(start) => start,
        None => reader.finish().unwrap(),
    };
    file[usize::try_from(start.data_set_offset).unwrap()..].to_vec()
}

/// The data sets of every version of an instance, found by QIDO-RS and fetched by WADO-RS.
pub fn data_set_over_http(archive: &Archive, sop_instance_uid: &Uid) -> Vec<Vec<u8>> {
    let query = format!("/dicom-web/instances?SOPInstanceUID={sop_instance_uid}");
    let found = archive.get(&query, "application/dicom+json");
    if found.status == 204 {
        return Vec::new();
    }
    assert_eq!(found.status, 200, "{found:?}");
    let found: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
    let mut data_sets = Vec::new();
    for instance in found.as_array().unwrap() {
        let value = |tag: &str| instance[tag]["Value"][0].as_str().unwrap().to_owned();
        let (study, series) = (value("0020000D"), value("0020000E"));
        let path = format!("/dicom-web/studies/{study}/series/{series}/instances/{sop_instance_uid}");
        let listed = archive.get(&format!("{path}/versions"), "application/json");
        assert_eq!(listed.status, 200, "{listed:?}");
        let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
        for version in listed.as_array().unwrap() {
            let digest = version["blake3"].as_str().unwrap();
            let file = archive.get(&format!("{path}/versions/{digest}"), "application/dicom");
            assert_eq!(file.status, 200, "{}", file.head);
            data_sets.push(data_set_of(&file.body));
        }
    }
    data_sets
}
