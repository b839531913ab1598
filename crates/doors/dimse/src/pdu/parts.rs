//! What association PDUs are made of.

use bytes::Bytes;
use cairn_dicom::Uid;
use std::fmt;

/// An Application Entity title: up to 16 characters, without the spaces around them (PS3.8 section 9.3.2).
///
/// May be empty, because peers send that; policy decides what it is worth.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AeTitle(Box<str>);

impl AeTitle {
    /// The title in a text, or nothing if the text is longer than 16 characters, or has characters that PS3.5
    /// does not allow in an AE value (control characters, the backslash, anything beyond ASCII).
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        let fits = text.len() <= 16 && text.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b'\\');
        fits.then(|| Self(text.into()))
    }

    /// Reads a title from the field of a PDU. NUL counts as padding; other characters that are not allowed
    /// become `?`, so that a title is always safe to print and never equals a configured one by accident.
    pub fn from_field(field: &[u8]) -> Self {
        let end = field.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(0, |i| i + 1);
        let text: String = field[..end]
            .iter()
            .take(16)
            .map(|b| if matches!(b, 0x20..=0x7e) && *b != b'\\' { char::from(*b) } else { '?' })
            .collect();
        Self(text.trim_matches(' ').into())
    }

    /// The title without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left without padding ("no Application Name specified").
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_field(&self) -> [u8; 16] {
        let mut field = [b' '; 16];
        for (to, from) in field.iter_mut().zip(self.0.bytes()) {
            *to = from;
        }
        field
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A-ASSOCIATE-RQ (PS3.8 section 9.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssociateRq {
    /// One bit per protocol version; bit 0 is version 1, the only one there is.
    pub protocol_version: u16,
    /// Whom the requestor wants to speak to.
    pub called_ae_title: AeTitle,
    /// Who the requestor says it is.
    pub calling_ae_title: AeTitle,
    /// `1.2.840.10008.3.1.1.1` for DICOM; nothing if the item was missing or unreadable.
    pub application_context: Option<Uid>,
    /// In the order of the PDU.
    pub contexts: Vec<ProposedContext>,
    /// The User Information item; default values where it was missing.
    pub user: UserInformation,
}

/// One proposed presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedContext {
    /// Odd, 1 to 255, as the Standard has it; not checked while reading.
    pub id: u8,
    /// Nothing if it was missing or is no UID: such a context is answered as not supported.
    pub abstract_syntax: Option<Uid>,
    /// Those that are UIDs, in the requestor's order.
    pub transfer_syntaxes: Vec<Uid>,
}

/// A-ASSOCIATE-AC (PS3.8 section 9.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssociateAc {
    /// As received in the request; not tested by the requestor.
    pub called_ae_title: AeTitle,
    /// As received in the request; not tested by the requestor.
    pub calling_ae_title: AeTitle,
    /// One for each proposed context.
    pub contexts: Vec<ContextAnswer>,
    /// The User Information item; default values where it was missing.
    pub user: UserInformation,
}

/// The answer to one proposed presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextAnswer {
    /// ID of the proposed context.
    pub id: u8,
    /// Accepted, or why not.
    pub result: ContextResult,
    /// The one chosen; not significant, and often missing, unless accepted.
    pub transfer_syntax: Option<Uid>,
}

/// Result/Reason of a presentation context (PS3.8 table 9-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextResult {
    /// 0: acceptance
    Acceptance,
    /// 1: user rejection
    UserRejection,
    /// 2: no reason (provider rejection)
    NoReason,
    /// 3: abstract syntax not supported (provider rejection)
    AbstractSyntaxNotSupported,
    /// 4: transfer syntaxes not supported (provider rejection)
    TransferSyntaxesNotSupported,
}

impl ContextResult {
    /// The value on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Acceptance => 0,
            Self::UserRejection => 1,
            Self::NoReason => 2,
            Self::AbstractSyntaxNotSupported => 3,
            Self::TransferSyntaxesNotSupported => 4,
        }
    }

    /// Reads the value; one that the Standard does not know is a rejection without a reason.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Acceptance,
            1 => Self::UserRejection,
            3 => Self::AbstractSyntaxNotSupported,
            4 => Self::TransferSyntaxesNotSupported,
            _ => Self::NoReason,
        }
    }
}

/// The User Information item of either side (PS3.8 annex D, PS3.7 annex D.3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInformation {
    /// Largest P-DATA-TF variable field that the sender of this item takes, in bytes; 0 is no limit.
    /// Nothing if the (mandatory) item was missing.
    pub maximum_length: Option<u32>,
    /// Who made the software.
    pub implementation_class_uid: Option<String>,
    /// Which version of it; 1 to 16 characters.
    pub implementation_version_name: Option<String>,
    /// Operations invoked and performed at once; 0 is no limit.
    pub asynchronous_operations: Option<(u16, u16)>,
    /// Roles proposed or accepted, one per SOP Class.
    pub roles: Vec<RoleSelection>,
    /// SOP Class Extended Negotiation.
    pub extended: Vec<SopClassExtended>,
    /// SOP Class Common Extended Negotiation (in requests alone).
    pub common_extended: Vec<SopClassCommonExtended>,
    /// User Identity, in a request.
    pub identity: Option<UserIdentity>,
    /// User Identity, in an answer: the server's response, empty for user names and passcodes.
    pub identity_response: Option<Bytes>,
}

/// SCP/SCU Role Selection: the roles of the association requestor (PS3.7 D.3.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSelection {
    /// For which SOP Class.
    pub sop_class_uid: Uid,
    /// Requestor may act as SCU.
    pub scu: bool,
    /// Requestor may act as SCP.
    pub scp: bool,
}

/// SOP Class Extended Negotiation (PS3.7 D.3.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SopClassExtended {
    /// For which SOP Class.
    pub sop_class_uid: Uid,
    /// Service-class-application-information: its meaning is the service class's.
    pub information: Bytes,
}

/// SOP Class Common Extended Negotiation: what an SOP Class unknown to the acceptor is (PS3.7 D.3.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SopClassCommonExtended {
    /// For which SOP Class.
    pub sop_class_uid: Uid,
    /// Which service it belongs to, such as `1.2.840.10008.4.2` for Storage.
    pub service_class_uid: Uid,
    /// General classes that it may be treated as.
    pub related_general_sop_class_uids: Vec<Uid>,
}

/// User Identity of a request (PS3.7 D.3.3.7). Its [`fmt::Debug`] shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// 1 user name, 2 user name and passcode, 3 Kerberos service ticket, 4 SAML assertion, 5 JSON Web Token.
    pub identity_type: u8,
    /// Whether the requestor wants an answer.
    pub positive_response_requested: bool,
    /// User name, ticket, assertion or token.
    pub primary_field: Bytes,
    /// Passcode, for type 2.
    pub secondary_field: Bytes,
}

impl UserIdentity {
    /// The user name of types 1 and 2.
    pub fn user_name(&self) -> Option<&str> {
        matches!(self.identity_type, 1 | 2).then(|| std::str::from_utf8(&self.primary_field).ok()).flatten()
    }
}

impl fmt::Debug for UserIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserIdentity")
            .field("identity_type", &self.identity_type)
            .field("positive_response_requested", &self.positive_response_requested)
            .finish_non_exhaustive()
    }
}

/// A-ASSOCIATE-RJ (PS3.8 section 9.3.4): result, source and reason, as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssociateRj {
    /// 1 permanent, 2 transient.
    pub result: u8,
    /// 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
    pub source: u8,
    /// Meaning depends on the source (PS3.8 table 9-21).
    pub reason: u8,
}

impl std::error::Error for AssociateRj {}

impl fmt::Display for AssociateRj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "association rejected: {}", self.meaning())
    }
}

impl AssociateRj {
    /// The requestor is not admitted, no reason given.
    pub const NO_REASON: Self = Self { result: 1, source: 1, reason: 1 };
    /// The application context is not DICOM's.
    pub const APPLICATION_CONTEXT_NOT_SUPPORTED: Self = Self { result: 1, source: 1, reason: 2 };
    /// The calling AE title is not known here.
    pub const CALLING_AE_TITLE_NOT_RECOGNIZED: Self = Self { result: 1, source: 1, reason: 3 };
    /// The called AE title is not ours.
    pub const CALLED_AE_TITLE_NOT_RECOGNIZED: Self = Self { result: 1, source: 1, reason: 7 };
    /// Bit 0 of the protocol version is not set.
    pub const PROTOCOL_VERSION_NOT_SUPPORTED: Self = Self { result: 1, source: 2, reason: 2 };
    /// Busy for the moment.
    pub const TEMPORARY_CONGESTION: Self = Self { result: 2, source: 3, reason: 1 };
    /// As many associations as are allowed are open.
    pub const LOCAL_LIMIT_EXCEEDED: Self = Self { result: 2, source: 3, reason: 2 };

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        self.result == 2
    }

    fn meaning(&self) -> &'static str {
        match (self.source, self.reason) {
            (1, 2) => "application context name not supported",
            (1, 3) => "calling AE title not recognized",
            (1, 7) => "called AE title not recognized",
            (2, 2) => "protocol version not supported",
            (3, 1) => "temporary congestion",
            (3, 2) => "local limit exceeded",
            _ => "no reason given",
        }
    }
}

/// A-ABORT (PS3.8 section 9.3.8): source and reason, as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// 0 service user, 2 service provider.
    pub source: u8,
    /// Not significant unless the source is the provider.
    pub reason: u8,
}

impl Abort {
    /// The application gives up the association.
    pub const SERVICE_USER: Self = Self { source: 0, reason: 0 };
    /// Provider, reason not specified.
    pub const NOT_SPECIFIED: Self = Self { source: 2, reason: 0 };
    /// Provider: a PDU type that there is not.
    pub const UNRECOGNIZED_PDU: Self = Self { source: 2, reason: 1 };
    /// Provider: a PDU that may not come in this state.
    pub const UNEXPECTED_PDU: Self = Self { source: 2, reason: 2 };
    /// Provider: a parameter that may not come here.
    pub const UNEXPECTED_PDU_PARAMETER: Self = Self { source: 2, reason: 5 };
    /// Provider: a parameter with a value that is not allowed, lengths included.
    pub const INVALID_PDU_PARAMETER: Self = Self { source: 2, reason: 6 };
}

/// Why bytes are not a PDU that may come here, and with which A-ABORT to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PduError {
    /// A first byte that is no PDU type.
    #[error("unrecognized PDU type {0:#04x}")]
    UnrecognizedPdu(u8),
    /// A PDU that the state of the association does not allow.
    #[error("unexpected PDU type {0:#04x}")]
    UnexpectedPdu(u8),
    /// A PDU longer than its kind may be.
    #[error("PDU of type {pdu_type:#04x} has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// First byte of the PDU.
        pdu_type: u8,
        /// Its length field.
        length: u32,
        /// What the configuration, or our announced maximum length, allows.
        limit: u32,
    },
    /// A field with a length that does not fit in what encloses it, or too short for what it must hold.
    #[error("{0} has a wrong length")]
    WrongLength(&'static str),
    /// A value that is not allowed.
    #[error("{0} has a value that is not allowed")]
    InvalidValue(&'static str),
    /// A fragment that may not come now.
    #[error("{0} out of turn")]
    OutOfTurn(&'static str),
}

impl PduError {
    /// What to say in the A-ABORT (PS3.8 table 9-26).
    pub fn abort(&self) -> Abort {
        match self {
            Self::UnrecognizedPdu(_) => Abort::UNRECOGNIZED_PDU,
            Self::UnexpectedPdu(_) => Abort::UNEXPECTED_PDU,
            Self::TooLong { .. } | Self::WrongLength(_) | Self::InvalidValue(_) => Abort::INVALID_PDU_PARAMETER,
            Self::OutOfTurn(_) => Abort::UNEXPECTED_PDU_PARAMETER,
        }
    }
}
