//! A DIMSE peer over a plain socket, which says exactly the bytes that a test wants, right or wrong.

use crate::support::SOON;
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

pub const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const VERIFICATION: &str = "1.2.840.10008.1.1";
pub const STUDY_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
pub const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
pub const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// Bits of a message control header.
pub const COMMAND: u8 = 1;
pub const LAST: u8 = 2;

/// A connection with time limits.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

pub fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
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

/// An A-ASSOCIATE-RQ: contexts 1, 3, 5... with a class and a transfer syntax each. For storage classes the requestor
/// offers to be SCP too.
pub fn request(calling: &str, contexts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{:<16}{calling:<16}", "CAIRN").into_bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    let mut user = item(0x51, &16_384_u32.to_be_bytes());
    user.extend(item(0x52, b"1.2.3.4"));
    for (number, (class, syntax)) in contexts.iter().enumerate() {
        let mut context = vec![u8::try_from(number * 2 + 1).unwrap(), 0, 0, 0];
        context.extend(item(0x30, class.as_bytes()));
        context.extend(item(0x40, syntax.as_bytes()));
        body.extend(item(0x20, &context));
        if class.starts_with("1.2.840.10008.5.1.4.1.1.") {
            let length = u16::try_from(class.len()).unwrap().to_be_bytes();
            user.extend(item(0x54, &[&length[..], class.as_bytes(), &[1, 1]].concat()));
        }
    }
    body.extend(item(0x50, &user));
    pdu(1, &body)
}

/// A P-DATA-TF with one fragment; `control` says command or data set, last or not.
pub fn fragment(context: u8, control: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = u32::try_from(bytes.len() + 2).unwrap().to_be_bytes().to_vec();
    value.extend([context, control]);
    value.extend(bytes);
    pdu(4, &value)
}

/// A data element in Explicit VR Little Endian, with its value as it is.
pub fn element(tag: u32, vr: &str, value: &[u8]) -> Vec<u8> {
    element_of(tag, vr, u32::try_from(value.len()).unwrap(), value)
}

/// The same with another length than that of its value.
pub fn element_of(tag: u32, vr: &str, length: u32, value: &[u8]) -> Vec<u8> {
    let mut element = u16::try_from(tag >> 16).unwrap().to_le_bytes().to_vec();
    element.extend((tag as u16).to_le_bytes());
    element.extend(vr.as_bytes());
    if ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"].contains(&vr) {
        element.extend([0, 0]);
        element.extend(length.to_le_bytes());
    } else {
        element.extend(u16::try_from(length).unwrap().to_le_bytes());
    }
    element.extend(value);
    element
}

/// Text of even length.
pub fn text(tag: u32, vr: &str, value: &str) -> Vec<u8> {
    let mut value = value.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == "UI" { 0 } else { b' ' });
    }
    element(tag, vr, &value)
}

/// What a message consists of.
pub type Elements = BTreeMap<u16, Vec<u8>>;

/// A command set: Implicit VR Little Endian, group 0000.
pub fn command(elements: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (element, value) in elements {
        body.extend([0, 0]);
        body.extend(element.to_le_bytes());
        let padded = value.len().next_multiple_of(2);
        body.extend(u32::try_from(padded).unwrap().to_le_bytes());
        body.extend(value);
        body.resize(body.len() + padded - value.len(), 0);
    }
    let mut command = vec![0, 0, 0, 0, 4, 0, 0, 0];
    command.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    command.extend(body);
    command
}

fn us(value: u16) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub fn c_echo(message_id: u16) -> Vec<u8> {
    command(&[(0x0002, VERIFICATION.into()), (0x0100, us(0x30)), (0x0110, us(message_id)), (0x0800, us(0x0101))])
}

pub fn c_store(message_id: u16, class: &str, instance: &str) -> Vec<u8> {
    command(&[
        (0x0002, class.into()),
        (0x0100, us(1)),
        (0x0110, us(message_id)),
        (0x0700, us(0)),
        (0x0800, us(1)),
        (0x1000, instance.into()),
    ])
}

/// C-FIND, C-GET or, with a destination, C-MOVE.
pub fn c_query(message_id: u16, class: &str, destination: &str) -> Vec<u8> {
    let field = match class {
        STUDY_FIND => 0x20,
        STUDY_GET => 0x10,
        _ => 0x21,
    };
    let mut elements = vec![(0x0002, class.into()), (0x0100, us(field)), (0x0110, us(message_id))];
    if !destination.is_empty() {
        elements.push((0x0600, destination.into()));
    }
    elements.extend([(0x0700, us(0)), (0x0800, us(1))]);
    command(&elements)
}

/// A message in one P-DATA-TF for its command and as many as it takes for its data set.
pub fn message(context: u8, command: &[u8], data_set: &[u8]) -> Vec<u8> {
    let mut bytes = fragment(context, COMMAND | LAST, command);
    let mut pieces = data_set.chunks(64 << 10).peekable();
    if data_set.is_empty() {
        bytes.extend(fragment(context, LAST, &[]));
    }
    while let Some(piece) = pieces.next() {
        bytes.extend(fragment(context, if pieces.peek().is_some() { 0 } else { LAST }, piece));
    }
    bytes
}

/// A peer with an association.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// An association that is accepted, with all its contexts.
    pub fn associate(address: SocketAddr, calling: &str, contexts: &[(&str, &str)]) -> Self {
        let (peer, answer) = Self::ask(address, calling, contexts);
        assert_eq!(answer.map(|(kind, _)| kind), Some(2), "accepted");
        peer
    }

    /// Asks for an association; gives the answer, if there is one.
    pub fn ask(address: SocketAddr, calling: &str, contexts: &[(&str, &str)]) -> (Self, Option<(u8, Vec<u8>)>) {
        let mut peer = Self { stream: connect(address) };
        // Turned away, it may be closed by now.
        let _closed_at_once = peer.stream.write_all(&request(calling, contexts));
        let answer = peer.read_pdu().ok();
        (peer, answer)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn read_pdu(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 6];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[2..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// The next message: its command elements and its data set.
    pub fn read_message(&mut self) -> (Elements, Vec<u8>) {
        let mut parts = [Vec::new(), Vec::new()];
        let mut elements = Elements::new();
        loop {
            let (kind, body) = self.read_pdu().unwrap();
            assert_eq!(kind, 4, "a P-DATA-TF, not {body:?}");
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let length = usize::try_from(u32::from_be_bytes(rest[..4].try_into().unwrap())).unwrap();
                let control = rest[5];
                parts[usize::from(control & COMMAND == 0)].extend_from_slice(&rest[6..4 + length]);
                rest = &rest[4 + length..];
                if control & LAST == 0 {
                    continue;
                }
                if control & COMMAND != 0 {
                    elements = elements_of(&parts[0]);
                }
                if control & COMMAND == 0 || elements[&0x0800] == us(0x0101) {
                    assert!(rest.is_empty(), "one message to a PDU");
                    let [_, data_set] = parts;
                    return (elements, data_set);
                }
            }
        }
    }

    /// The status of the next message.
    pub fn read_status(&mut self) -> u16 {
        status(&self.read_message().0)
    }

    /// Stores a data set on this context; gives the status.
    pub fn store(&mut self, context: u8, class: &str, instance: &str, data_set: &[u8]) -> u16 {
        self.write(&message(context, &c_store(1, class, instance), data_set));
        self.read_status()
    }

    /// Queries on this context; gives the answers and the last status.
    pub fn find(&mut self, context: u8, identifier: &[u8]) -> (Vec<Vec<u8>>, u16) {
        self.write(&message(context, &c_query(1, STUDY_FIND, ""), identifier));
        let mut answers = Vec::new();
        loop {
            let (elements, answer) = self.read_message();
            match status(&elements) {
                0xFF00 | 0xFF01 => answers.push(answer),
                other => return (answers, other),
            }
        }
    }

    pub fn release(mut self) {
        self.write(&pdu(5, &[0; 4]));
        assert_eq!(self.read_pdu().unwrap().0, 6, "A-RELEASE-RP");
    }
}

fn elements_of(command: &[u8]) -> Elements {
    let mut elements = Elements::new();
    let mut rest = command;
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_le_bytes(rest[4..8].try_into().unwrap())).unwrap();
        elements.insert(u16::from_le_bytes(rest[2..4].try_into().unwrap()), rest[8..8 + length].to_vec());
        rest = &rest[8 + length..];
    }
    elements
}

pub fn status(elements: &Elements) -> u16 {
    u16::from_le_bytes(elements[&0x0900].as_slice().try_into().unwrap())
}
