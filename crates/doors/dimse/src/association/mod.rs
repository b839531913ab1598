//! An established association: messages in, messages out.
//!
//! # States (PS3.8 section 9.2, edition 2025c)
//!
//! | state | where in this code |
//! | --- | --- |
//! | Sta1 idle | before [`accept`](crate::acceptor::accept) or [`request`](crate::requestor::request) |
//! | Sta2 awaiting A-ASSOCIATE-RQ | `acceptor::accept`, bounded by ARTIM as a whole |
//! | Sta3 awaiting the local response | `acceptor::accept`: negotiation, without waiting |
//! | Sta4 awaiting the transport | `requestor::connect`, bounded by the connect timeout |
//! | Sta5 awaiting A-ASSOCIATE-AC or -RJ | `requestor::request`, bounded by ARTIM |
//! | Sta6 established | [`Association`] |
//! | Sta7, Sta9, Sta11 release asked for | [`Association::release`] |
//! | Sta8, Sta10, Sta12 release asked for by the peer | [`Association::confirm_release`] |
//! | Sta13 awaiting the close of the transport | `Link::finish`, bounded by the close timeout |
//!
//! A PDU that the state does not allow is answered by A-ABORT (AA-8), an A-ABORT ends all (AA-3), and a closed
//! transport too (AA-4).

pub(crate) mod link;
mod send;

use crate::{
    Limits,
    command::{Command, CommandError, CommandField},
    negotiate::Context,
    pdu::{
        Abort, AeTitle, AssociateRj, PduError, UserIdentity, encode_abort, encode_release,
        frame::{Fragment, Pdu},
        pdu_type,
    },
};
use bytes::{Bytes, BytesMut};
pub use link::Transport;
use link::{Link, Wait};
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Why an association ended, other than by release.
#[derive(Debug, thiserror::Error)]
pub enum AssociationError {
    /// The peer sent what it may not.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// The peer sent a command set that can't be read.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A message that the protocol does not allow here.
    #[error("{0}")]
    Protocol(&'static str),
    /// A configured time ran out.
    #[error("timed out: {0}")]
    Timeout(&'static str),
    /// The peer closed the connection without releasing the association.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer sent A-ABORT.
    #[error("association aborted by the peer (source {}, reason {})", .0.source, .0.reason)]
    Aborted(Abort),
    /// The peer sent A-ASSOCIATE-RJ, or we did.
    #[error(transparent)]
    Rejected(#[from] AssociateRj),
    /// The peer released the association while we wanted something of it.
    #[error("association released by the peer")]
    Released,
    /// The socket failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
}

impl AssociationError {
    /// The A-ABORT with which to end; nothing if the peer would not read it.
    pub fn abort(&self) -> Option<Abort> {
        match self {
            Self::Pdu(error) => Some(error.abort()),
            Self::Command(_) => Some(Abort::INVALID_PDU_PARAMETER),
            Self::Protocol(_) => Some(Abort::UNEXPECTED_PDU),
            Self::Timeout(_) => Some(Abort::NOT_SPECIFIED),
            Self::Closed | Self::Aborted(_) | Self::Rejected(_) | Self::Released | Self::Io(_) => None,
        }
    }
}

/// Who is on the other side.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address of the socket.
    pub address: Option<SocketAddr>,
    /// As in A-ASSOCIATE.
    pub calling_ae_title: AeTitle,
    /// As in A-ASSOCIATE.
    pub called_ae_title: AeTitle,
    /// The peer's Implementation Class UID.
    pub implementation_class_uid: Option<String>,
    /// The peer's Implementation Version Name.
    pub implementation_version_name: Option<String>,
    /// User Identity of the request.
    pub identity: Option<UserIdentity>,
}

/// A command set, and the context that it came on.
#[derive(Clone, Debug)]
pub struct Message {
    /// An accepted presentation context.
    pub context: Arc<Context>,
    /// The command set. If it has a data set, [`Association::data`] gives it, before the next message.
    pub command: Command,
}

/// What the peer wants.
#[derive(Debug)]
pub enum Received {
    /// A command set; its data set, if any, follows.
    Message(Message),
    /// A-RELEASE-RQ: answer with [`Association::confirm_release`].
    Release,
}

/// Where in a message the peer is.
enum Assembly {
    Between,
    Command { context_id: u8, bytes: BytesMut },
    DataSet { context_id: u8 },
}

/// An established association (Sta6).
///
/// One task uses it. Reading is cancel safe, so that a C-CANCEL is seen by a `select!` between answers; writing is
/// not. Dropped without release, it says A-ABORT if that can be done at once.
pub struct Association {
    /// Nothing once it is finished.
    link: Option<Link>,
    contexts: Vec<Arc<Context>>,
    peer: Arc<Peer>,
    assembly: Assembly,
    held: VecDeque<Message>,
    /// Fragment bytes that fit in one P-DATA-TF to the peer; even.
    fragment_bytes_max: usize,
    headers: BytesMut,
    outgoing: send::Outgoing,
    next_message_id: u16,
    command_bytes_max: usize,
    held_messages_max: usize,
    idle_timeout: Duration,
    response_timeout: Duration,
}

impl Association {
    pub(crate) fn new(
        link: Link,
        contexts: Vec<Arc<Context>>,
        peer: Peer,
        peer_maximum_length: u32,
        limits: &Limits,
    ) -> Self {
        let length = match peer_maximum_length {
            0 => limits.send_length_max,
            length => length.min(limits.send_length_max),
        };
        Self {
            link: Some(link),
            contexts,
            peer: Arc::new(peer),
            assembly: Assembly::Between,
            held: VecDeque::new(),
            fragment_bytes_max: (length as usize).saturating_sub(6).max(2) & !1,
            headers: BytesMut::new(),
            outgoing: send::Outgoing::default(),
            next_message_id: 1,
            command_bytes_max: limits.command_bytes_max,
            held_messages_max: limits.held_messages_max,
            idle_timeout: limits.idle_timeout,
            response_timeout: limits.response_timeout,
        }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The accepted presentation contexts, by ascending ID.
    pub fn contexts(&self) -> &[Arc<Context>] {
        &self.contexts
    }

    /// A Message ID not used lately.
    pub fn next_message_id(&mut self) -> u16 {
        let id = self.next_message_id;
        self.next_message_id = self.next_message_id.checked_add(1).unwrap_or(1);
        id
    }

    fn link(&mut self) -> Result<&mut Link, AssociationError> {
        self.link.as_mut().ok_or(AssociationError::Closed)
    }

    fn context(&self, id: u8) -> Result<Arc<Context>, AssociationError> {
        let found = self.contexts.binary_search_by_key(&id, |context| context.id);
        let found = found.map_err(|_| PduError::InvalidValue("presentation context ID"))?;
        Ok(Arc::clone(&self.contexts[found]))
    }

    /// The next message, or the wish to release. Data set bytes that nobody asked for are skipped first.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    /// # Cancel safety
    /// Safe.
    pub async fn receive(&mut self) -> Result<Received, AssociationError> {
        if let Some(message) = self.held.pop_front() {
            return Ok(Received::Message(message));
        }
        self.receive_new(Wait::Idle(self.idle_timeout)).await
    }

    /// As [`Association::receive`], while an operation is under way: silence is no fault then, and requests held
    /// back stay so. Behind a request that is held back with its data set nothing can be seen: waits for ever.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    /// # Cancel safety
    /// Safe.
    pub async fn receive_meanwhile(&mut self) -> Result<Received, AssociationError> {
        if self.is_in_data_set() {
            return std::future::pending().await;
        }
        self.receive_new(Wait::Forever).await
    }

    async fn receive_new(&mut self, wait: Wait) -> Result<Received, AssociationError> {
        loop {
            let wait = if matches!(self.assembly, Assembly::Between) { wait } else { Wait::Transfer };
            match self.link()?.next_pdu(wait).await? {
                Pdu::Fragment(fragment) => {
                    if let Some(message) = self.take_command(fragment)? {
                        return Ok(Received::Message(message));
                    }
                }
                Pdu::ReleaseRq if matches!(self.assembly, Assembly::Between) => return Ok(Received::Release),
                Pdu::ReleaseRq | Pdu::ReleaseRp => return Err(PduError::UnexpectedPdu(pdu_type::RELEASE_RQ).into()),
                Pdu::Abort(abort) => return Err(AssociationError::Aborted(abort)),
                // The reader lets none of these through in this state.
                Pdu::AssociateRq(_) | Pdu::AssociateAc(_) | Pdu::AssociateRj(_) => {
                    return Err(PduError::UnexpectedPdu(pdu_type::ASSOCIATE_RQ).into());
                }
            }
        }
    }

    /// Takes a fragment where a command is due. Skips those of a data set that was not asked for.
    fn take_command(&mut self, fragment: Fragment) -> Result<Option<Message>, AssociationError> {
        if let Assembly::DataSet { context_id } = self.assembly {
            if self.check_data(context_id, &fragment)? {
                self.assembly = Assembly::Between;
            }
            return Ok(None);
        }
        if !fragment.is_command {
            return Err(PduError::OutOfTurn("data set fragment").into());
        }
        let context = self.context(fragment.context_id)?;
        let (context_id, mut bytes) = match std::mem::replace(&mut self.assembly, Assembly::Between) {
            Assembly::Command { context_id, bytes } => (context_id, bytes),
            _ => (fragment.context_id, BytesMut::new()),
        };
        if context_id != fragment.context_id {
            return Err(PduError::OutOfTurn("fragment of another presentation context").into());
        }
        if bytes.len() + fragment.data.len() > self.command_bytes_max {
            return Err(PduError::InvalidValue("command set beyond its size limit").into());
        }
        bytes.extend_from_slice(&fragment.data);
        if !fragment.is_last {
            self.assembly = Assembly::Command { context_id, bytes };
            return Ok(None);
        }
        let command = Command::decode(&bytes)?;
        if command.has_data_set {
            self.assembly = Assembly::DataSet { context_id };
        }
        Ok(Some(Message { context, command }))
    }

    /// Whether this data set fragment is the last; an error if it is none.
    fn check_data(&self, context_id: u8, fragment: &Fragment) -> Result<bool, AssociationError> {
        if fragment.is_command {
            return Err(PduError::OutOfTurn("command fragment").into());
        }
        if fragment.context_id != context_id {
            return Err(PduError::OutOfTurn("fragment of another presentation context").into());
        }
        Ok(fragment.is_last)
    }

    /// The next bytes of the data set of the message that was received last; nothing at its end.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    /// # Cancel safety
    /// Safe.
    pub async fn data(&mut self) -> Result<Option<Bytes>, AssociationError> {
        let Assembly::DataSet { context_id } = self.assembly else { return Ok(None) };
        match self.link()?.next_pdu(Wait::Transfer).await? {
            Pdu::Fragment(fragment) => {
                if self.check_data(context_id, &fragment)? {
                    self.assembly = Assembly::Between;
                    if fragment.data.is_empty() {
                        return Ok(None);
                    }
                }
                Ok(Some(fragment.data))
            }
            Pdu::Abort(abort) => Err(AssociationError::Aborted(abort)),
            _ => Err(PduError::UnexpectedPdu(pdu_type::RELEASE_RQ).into()),
        }
    }

    /// The whole data set of the message that was received last; nothing if it is larger than `bytes_max`, and the
    /// rest of it is then skipped.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub async fn data_within(&mut self, bytes_max: usize) -> Result<Option<Bytes>, AssociationError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.data().await? {
            if whole.len() + piece.len() > bytes_max {
                while self.data().await?.is_some() {}
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    /// Keeps a request back until what is under way is done.
    ///
    /// # Errors
    /// `Protocol` if too many wait already.
    pub fn hold(&mut self, message: Message) -> Result<(), AssociationError> {
        if self.held.len() >= self.held_messages_max {
            return Err(AssociationError::Protocol("too many requests at once"));
        }
        self.held.push_back(message);
        Ok(())
    }

    /// Whether the data set of the message that was received last is still to come.
    pub fn is_in_data_set(&self) -> bool {
        matches!(self.assembly, Assembly::DataSet { .. })
    }

    /// The response to a request of ours, within the response timeout. A request of the peer's meanwhile is held
    /// back; C-CANCEL is given to `on_cancel`.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub async fn response(
        &mut self,
        message_id: u16,
        mut on_cancel: impl FnMut(&Command),
    ) -> Result<Command, AssociationError> {
        if self.is_in_data_set() {
            return Err(AssociationError::Protocol("request while a response is due"));
        }
        let limit = self.response_timeout;
        let wait = async {
            loop {
                let message = match self.receive_new(Wait::Forever).await? {
                    Received::Release => return Err(AssociationError::Released),
                    Received::Message(message) => message,
                };
                if message.command.field == CommandField::C_CANCEL_RQ {
                    on_cancel(&message.command);
                } else if !message.command.field.is_response() {
                    if message.command.has_data_set {
                        return Err(AssociationError::Protocol("request while a response is due"));
                    }
                    self.hold(message)?;
                } else if message.command.message_id_responded_to == Some(message_id) {
                    return Ok(message.command);
                } else if message.command.field == CommandField::N_EVENT_REPORT_RSP && !message.command.has_data_set {
                    // To a report that was sent before this.
                    self.hold(message)?;
                } else {
                    return Err(AssociationError::Protocol("response to another message"));
                }
            }
        };
        timeout(limit, wait).await.map_err(|_| AssociationError::Timeout("no response"))?
    }

    /// Answers A-RELEASE-RQ and lets the peer close the connection (AR-4).
    pub async fn confirm_release(mut self) {
        if let Some(link) = self.link.take() {
            link.finish(Some(encode_release(pdu_type::RELEASE_RP))).await;
        }
    }

    /// Asks for release and waits for the answer; what else the peer sends meanwhile is skipped.
    ///
    /// # Errors
    /// [`AssociationError`] if the association ended otherwise. The connection is closed in any case.
    pub async fn release(mut self) -> Result<(), AssociationError> {
        let Some(mut link) = self.link.take() else { return Err(AssociationError::Closed) };
        let limit = self.response_timeout;
        let ask = async {
            link.queue(encode_release(pdu_type::RELEASE_RQ));
            link.flush().await?;
            loop {
                match link.next_pdu(Wait::Forever).await? {
                    Pdu::ReleaseRp => return Ok(()),
                    Pdu::ReleaseRq => {
                        // Both sides asked at once (AR-8): the requestor of the association answers first.
                        link.queue(encode_release(pdu_type::RELEASE_RP));
                        link.flush().await?;
                    }
                    Pdu::Abort(abort) => return Err(AssociationError::Aborted(abort)),
                    _ => {}
                }
            }
        };
        let done = timeout(limit, ask).await.unwrap_or(Err(AssociationError::Timeout("no A-RELEASE-RP")));
        match &done {
            Ok(()) => link.finish(None).await,
            Err(error) => link.finish(error.abort().map(encode_abort)).await,
        }
        done
    }

    /// Sends A-ABORT and closes the connection.
    pub async fn abort(mut self, abort: Abort) {
        if let Some(link) = self.link.take() {
            link.finish(Some(encode_abort(abort))).await;
        }
    }

    /// Ends the association after an error, as [`AssociationError::abort`] says.
    pub async fn fail(mut self, error: &AssociationError) {
        if let Some(link) = self.link.take() {
            link.finish(error.abort().map(encode_abort)).await;
        }
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        if let Some(link) = &mut self.link {
            link.abandon(&encode_abort(Abort::NOT_SPECIFIED));
        }
    }
}
