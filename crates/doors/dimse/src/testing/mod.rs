//! Peers for tests: servers on a free port, and raw sockets that say what they are told to.
#![allow(clippy::unwrap_used)]

pub(crate) mod fakes;

use crate::{
    Command, CommandField, Limits,
    door::Door,
    pdu::{AeTitle, AssociateRq, ProposedContext, UserInformation, encode_associate_rq},
    server::Server,
};
use bytes::{BufMut, Bytes};
use cairn_dicom::Uid;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";
pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

pub(crate) fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

pub(crate) fn ae(text: &str) -> AeTitle {
    AeTitle::new(text).unwrap()
}

/// A server that runs until it is told to stop.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(door: Door, grace: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new(listener, door);
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(
            async {
                let _ = stopped.await;
            },
            grace,
        ));
        Self { address, stop: Some(stop), task }
    }

    pub(crate) fn begin_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn stopped(self) {
        timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap();
    }
}

/// Limits that make a test quick, and do not fail it on a busy machine.
pub(crate) fn quick() -> Limits {
    Limits { close_timeout: Duration::from_secs(1), ..Limits::default() }
}

/// For tests that wait until the server loses patience.
pub(crate) fn impatient() -> Limits {
    Limits { artim: Duration::from_millis(900), transfer_timeout: Duration::from_millis(900), ..quick() }
}

/// A request with one context per pair, IDs 1, 3, 5 ...
pub(crate) fn request_for(contexts: &[(&str, &[&str])]) -> AssociateRq {
    let contexts = contexts.iter().zip((1..=255).step_by(2)).map(|((class, syntaxes), id)| ProposedContext {
        id,
        abstract_syntax: Some(uid(class)),
        transfer_syntaxes: syntaxes.iter().map(|s| uid(s)).collect(),
    });
    AssociateRq {
        protocol_version: 1,
        called_ae_title: ae("CAIRN"),
        calling_ae_title: ae("TESTER"),
        application_context: None,
        contexts: contexts.collect(),
        user: UserInformation { maximum_length: Some(16384), ..UserInformation::default() },
    }
}

/// A raw socket.
pub(crate) struct RawPeer {
    pub(crate) stream: TcpStream,
}

impl RawPeer {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    /// With an association for Verification in context 1.
    pub(crate) async fn associate(address: SocketAddr) -> Self {
        Self::associate_for(address, &request_for(&[(VERIFICATION, &[IMPLICIT])])).await
    }

    pub(crate) async fn associate_for(address: SocketAddr, request: &AssociateRq) -> Self {
        let mut peer = Self::connect(address).await;
        peer.write(&encode_associate_rq(request)).await;
        assert_eq!(peer.read_pdu().await.unwrap().0, 2, "A-ASSOCIATE-AC");
        peer
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Type and variable field of the next PDU; nothing if the connection ends first.
    pub(crate) async fn read_pdu(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let mut header = [0; 6];
            self.stream.read_exact(&mut header).await.ok()?;
            let mut body = vec![0; u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((header[0], body))
        };
        timeout(Duration::from_secs(10), read).await.expect("no PDU within 10 s")
    }

    /// The next command set, reassembled, and its context.
    pub(crate) async fn read_command(&mut self) -> (u8, Command) {
        let (context, bytes) = self.read_fragments(1).await;
        (context, Command::decode(&bytes).unwrap())
    }

    pub(crate) async fn read_data_set(&mut self) -> Vec<u8> {
        self.read_fragments(0).await.1
    }

    async fn read_fragments(&mut self, kind: u8) -> (u8, Vec<u8>) {
        let mut whole = Vec::new();
        loop {
            let (pdu_type, body) = self.read_pdu().await.expect("connection closed");
            assert_eq!(pdu_type, 4, "P-DATA-TF expected, got {pdu_type}: {body:02x?}");
            let mut rest = &body[..];
            while !rest.is_empty() {
                let length = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let (context, control) = (rest[4], rest[5]);
                assert_eq!(control & 1, kind);
                whole.extend_from_slice(&rest[6..4 + length]);
                rest = &rest[4 + length..];
                if control & 2 != 0 {
                    assert!(rest.is_empty());
                    return (context, whole);
                }
            }
        }
    }

    /// Source and reason of the A-ABORT that must come next, before the connection ends.
    pub(crate) async fn expect_abort(&mut self) -> (u8, u8) {
        let (kind, body) = self.read_pdu().await.expect("closed without A-ABORT");
        assert_eq!(kind, 7, "A-ABORT expected");
        assert_eq!(self.read_pdu().await, None);
        (body[2], body[3])
    }
}

/// A P-DATA-TF with one presentation data value.
pub(crate) fn p_data(context_id: u8, control: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![4, 0];
    out.put_u32(data.len() as u32 + 6);
    out.put_u32(data.len() as u32 + 2);
    out.put_slice(&[context_id, control]);
    out.put_slice(data);
    out
}

pub(crate) fn echo(message_id: u16) -> Bytes {
    Command::request(CommandField::C_ECHO_RQ, message_id, VERIFICATION).encode()
}
