//! A DICOM peer that costs little: blocking, messages framed once, data of others counted and passed over.

use crate::Outcome;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The transfer syntax of everything here: Explicit VR Little Endian.
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// Study Root Query/Retrieve: FIND, MOVE, GET.
pub const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
pub const MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
pub const GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Largest P-DATA-TF that we take.
const OWN_MAXIMUM: u32 = 1 << 20;
/// What is written at most where the peer names no maximum.
const SENT_MAXIMUM: usize = 1 << 20;
/// Longest silence of a peer.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Elements of command sets, group 0000.
pub mod element {
    pub const SOP_CLASS: u16 = 0x0002;
    pub const FIELD: u16 = 0x0100;
    pub const MESSAGE_ID: u16 = 0x0110;
    pub const RESPONDED_TO: u16 = 0x0120;
    pub const DESTINATION: u16 = 0x0600;
    pub const PRIORITY: u16 = 0x0700;
    pub const DATA_SET: u16 = 0x0800;
    pub const STATUS: u16 = 0x0900;
    pub const SOP_INSTANCE: u16 = 0x1000;
}
/// (0000,0800) of a message without a data set.
pub const NO_DATA_SET: u16 = 0x0101;
/// Status of a response that others follow.
pub const PENDING: u16 = 0xFF00;

/// A command set, decoded.
#[derive(Default)]
pub struct Command(Vec<(u16, Vec<u8>)>);

impl Command {
    pub fn put(mut self, element: u16, value: &[u8]) -> Self {
        let mut value = value.to_vec();
        value.resize(value.len() + value.len() % 2, 0);
        self.0.push((element, value));
        self
    }

    pub fn number(self, element: u16, value: u16) -> Self {
        self.put(element, &value.to_le_bytes())
    }

    pub fn bytes(&self, element: u16) -> &[u8] {
        self.0.iter().find(|(own, _)| *own == element).map_or(&[], |(_, value)| value)
    }

    pub fn u16(&self, element: u16) -> u16 {
        self.bytes(element).try_into().map_or(0, u16::from_le_bytes)
    }

    pub fn has_data_set(&self) -> bool {
        self.u16(element::DATA_SET) != NO_DATA_SET
    }

    /// The command set in Implicit VR Little Endian, with its group length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        for (element, value) in &self.0 {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&element.to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        let length = (out.len() - 12) as u32;
        out[8..12].copy_from_slice(&length.to_le_bytes());
        out
    }

    fn decode(mut bytes: &[u8]) -> Outcome<Self> {
        let mut command = Self::default();
        while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let value = rest.get(..length).ok_or("a command set that ends within an element")?;
            command.0.push((u16::from_le_bytes([head[2], head[3]]), value.to_vec()));
            bytes = &rest[length..];
        }
        Ok(command)
    }
}

/// Appends P-DATA-TFs of at most `maximum` bytes, one PDV in each, that carry a whole command or data set.
pub fn frame(out: &mut Vec<u8>, context: u8, is_command: bool, bytes: &[u8], maximum: usize) {
    let parts = bytes.chunks(maximum - 6);
    let last = parts.len() - 1;
    for (at, part) in parts.enumerate() {
        pdv_head(out, context, u8::from(is_command) | (u8::from(at == last) << 1), part.len());
        out.extend_from_slice(part);
    }
}

/// Appends the head of a P-DATA-TF with one PDV of `length` bytes.
pub fn pdv_head(out: &mut Vec<u8>, context: u8, control: u8, length: usize) {
    out.extend_from_slice(&[4, 0]);
    out.extend_from_slice(&(length as u32 + 6).to_be_bytes());
    out.extend_from_slice(&(length as u32 + 2).to_be_bytes());
    out.extend_from_slice(&[context, control]);
}

/// What a requestor asks for in one presentation context.
pub struct Proposal<'a> {
    pub class: &'a str,
    /// Ask to be the SCP, as C-GET needs for Storage.
    pub as_scp: bool,
}

struct Fragment {
    context: u8,
    control: u8,
    length: usize,
}

/// An association, established.
pub struct Association {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// Bytes that are left of the P-DATA-TF being read.
    left: usize,
    /// Largest P-DATA-TF that the peer takes.
    pub maximum: usize,
}

impl Association {
    /// Asks for contexts 1, 3, 5, ... in the order given, all of which must be accepted in [`EXPLICIT`].
    pub fn request(peer: SocketAddr, calling: &str, called: &str, proposals: &[Proposal<'_>]) -> Outcome<Self> {
        let mut association = Self::over(TcpStream::connect(peer)?)?;
        association.writer.write_all(&associate_request(calling, called, proposals))?;
        let (kind, body) = association.pdu()?;
        if kind != 2 {
            return Err(format!("association not accepted: PDU {kind:02X}H {body:02x?}").into());
        }
        for (kind, item) in items(body.get(68..).unwrap_or_default()) {
            match (kind, item) {
                (0x21, [id, _, result, ..]) if *result != 0 => {
                    return Err(format!("presentation context {id} refused: {result}").into());
                }
                (0x50, user) => association.maximum = sent_maximum(user),
                _ => {}
            }
        }
        Ok(association)
    }

    /// Answers a peer's request: every context is accepted, in [`EXPLICIT`].
    pub fn accept(stream: TcpStream) -> Outcome<Self> {
        let mut association = Self::over(stream)?;
        let (kind, body) = association.pdu()?;
        if kind != 1 || body.len() < 68 {
            return Err(format!("not an A-ASSOCIATE-RQ: PDU {kind:02X}H").into());
        }
        let mut answer = body[..68].to_vec();
        item(&mut answer, 0x10, b"1.2.840.10008.3.1.1.1");
        for (kind, content) in items(&body[68..]) {
            match (kind, content) {
                (0x20, [id, ..]) => {
                    let mut context = vec![*id, 0, 0, 0];
                    item(&mut context, 0x40, EXPLICIT.as_bytes());
                    item(&mut answer, 0x21, &context);
                }
                (0x50, user) => association.maximum = sent_maximum(user),
                _ => {}
            }
        }
        item(&mut answer, 0x50, &user_information(&[]));
        association.writer.write_all(&pdu(2, &answer))?;
        Ok(association)
    }

    fn over(stream: TcpStream) -> Outcome<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(512 << 10, stream.try_clone()?);
        Ok(Self { reader, writer: stream, left: 0, maximum: SENT_MAXIMUM })
    }

    /// Writes bytes that are framed already.
    pub fn write(&mut self, framed: &[u8]) -> Outcome<()> {
        Ok(self.writer.write_all(framed)?)
    }

    /// Writes a message in one go.
    pub fn send(&mut self, context: u8, command: &Command, data_set: Option<&[u8]>) -> Outcome<()> {
        let mut out = Vec::new();
        frame(&mut out, context, true, &command.encode(), self.maximum);
        if let Some(data_set) = data_set {
            frame(&mut out, context, false, data_set, self.maximum);
        }
        self.write(&out)
    }

    /// Reads the next command set and its context; `None` when the peer wants to release.
    pub fn command(&mut self) -> Outcome<Option<(u8, Command)>> {
        let mut bytes = Vec::new();
        while let Some(fragment) = self.fragment()? {
            if fragment.control & 1 == 0 {
                return Err("data set where a command set was due".into());
            }
            self.read(fragment.length, Some(&mut bytes))?;
            if fragment.control & 2 != 0 {
                return Ok(Some((fragment.context, Command::decode(&bytes)?)));
            }
        }
        Ok(None)
    }

    /// Reads a data set to its end; gives its length.
    pub fn data_set(&mut self, mut into: Option<&mut Vec<u8>>) -> Outcome<u64> {
        let mut length = 0;
        loop {
            let fragment = self.fragment()?.ok_or("a release within a data set")?;
            self.read(fragment.length, into.as_deref_mut())?;
            length += fragment.length as u64;
            if fragment.control & 2 != 0 {
                return Ok(length);
            }
        }
    }

    /// Reads the response to a C-STORE; anything but success is an error.
    pub fn stored(&mut self) -> Outcome<()> {
        let (_, command) = self.command()?.ok_or("a release where a response was due")?;
        match (command.u16(element::FIELD), command.u16(element::STATUS)) {
            (0x8001, 0) => Ok(()),
            (field, status) => Err(format!("C-STORE answered {field:04X}H with status {status:04X}H").into()),
        }
    }

    /// Takes a C-STORE request's data set and answers success; gives its length.
    pub fn take(&mut self, context: u8, request: &Command, into: Option<&mut Vec<u8>>) -> Outcome<u64> {
        let length = self.data_set(into)?;
        let response = Command::default()
            .put(element::SOP_CLASS, request.bytes(element::SOP_CLASS))
            .number(element::FIELD, 0x8001)
            .put(element::RESPONDED_TO, request.bytes(element::MESSAGE_ID))
            .number(element::DATA_SET, NO_DATA_SET)
            .number(element::STATUS, 0)
            .put(element::SOP_INSTANCE, request.bytes(element::SOP_INSTANCE));
        self.send(context, &response, None)?;
        Ok(length)
    }

    /// Releases and waits for the answer.
    pub fn release(mut self) -> Outcome<()> {
        self.writer.write_all(&pdu(5, &[0; 4]))?;
        match self.pdu()? {
            (6, _) => Ok(()),
            (kind, _) => Err(format!("release answered by PDU {kind:02X}H").into()),
        }
    }

    /// Answers a release request.
    pub fn released(mut self) -> Outcome<()> {
        Ok(self.writer.write_all(&pdu(6, &[0; 4]))?)
    }

    fn fragment(&mut self) -> Outcome<Option<Fragment>> {
        if self.left == 0 {
            let mut head = [0; 6];
            self.reader.read_exact(&mut head)?;
            match head[0] {
                4 => self.left = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize,
                5 => {
                    let mut rest = [0; 4];
                    self.reader.read_exact(&mut rest)?;
                    return Ok(None);
                }
                kind => return Err(format!("PDU {kind:02X}H where P-DATA was due").into()),
            }
        }
        let mut head = [0; 6];
        self.reader.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        self.left = self.left.checked_sub(4 + length).filter(|_| length >= 2).ok_or("a PDV longer than its PDU")?;
        Ok(Some(Fragment { context: head[4], control: head[5], length: length - 2 }))
    }

    fn read(&mut self, mut length: usize, mut into: Option<&mut Vec<u8>>) -> Outcome<()> {
        while length > 0 {
            let there = self.reader.fill_buf()?;
            let taken = there.len().min(length);
            if taken == 0 {
                return Err("the connection ended within a PDU".into());
            }
            if let Some(into) = into.as_deref_mut() {
                into.extend_from_slice(&there[..taken]);
            }
            self.reader.consume(taken);
            length -= taken;
        }
        Ok(())
    }

    /// A whole PDU that is not P-DATA.
    fn pdu(&mut self) -> Outcome<(u8, Vec<u8>)> {
        let mut head = [0; 6];
        self.reader.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_be_bytes([head[2], head[3], head[4], head[5]]).min(1 << 20) as usize];
        self.reader.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn item(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&(content.len() as u16).to_be_bytes());
    out.extend_from_slice(content);
}

fn items(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let content = rest.get(..usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        bytes = &rest[content.len()..];
        Some((head[0], content))
    })
}

/// What may be sent to a peer with this user information.
fn sent_maximum(user: &[u8]) -> usize {
    let named = items(user).find(|(kind, _)| *kind == 0x51).and_then(|(_, value)| value.try_into().ok());
    match named.map_or(0, u32::from_be_bytes) as usize {
        0 => SENT_MAXIMUM,
        named => named.min(SENT_MAXIMUM),
    }
}

fn user_information(proposals: &[Proposal<'_>]) -> Vec<u8> {
    let mut user = Vec::new();
    item(&mut user, 0x51, &OWN_MAXIMUM.to_be_bytes());
    item(&mut user, 0x52, b"2.25.210837461728394950172837465091827364");
    for proposal in proposals.iter().filter(|proposal| proposal.as_scp) {
        let mut role = (proposal.class.len() as u16).to_be_bytes().to_vec();
        role.extend_from_slice(proposal.class.as_bytes());
        role.extend_from_slice(&[0, 1]);
        item(&mut user, 0x54, &role);
    }
    item(&mut user, 0x55, b"CAIRN_BENCH");
    user
}

fn associate_request(calling: &str, called: &str, proposals: &[Proposal<'_>]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend_from_slice(format!("{called:16}{calling:16}").as_bytes());
    body.extend_from_slice(&[0; 32]);
    item(&mut body, 0x10, b"1.2.840.10008.3.1.1.1");
    for (proposal, id) in proposals.iter().zip((1..).step_by(2)) {
        let mut context = vec![id, 0, 0, 0];
        item(&mut context, 0x30, proposal.class.as_bytes());
        item(&mut context, 0x40, EXPLICIT.as_bytes());
        item(&mut body, 0x20, &context);
    }
    item(&mut body, 0x50, &user_information(proposals));
    pdu(1, &body)
}
