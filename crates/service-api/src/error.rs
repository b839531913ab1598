use cairn_store_api::{StoreError, StoreErrorKind};

/// What a caller does with a failure. Mapped once to each wire: gRPC status, HTTP status, DIMSE status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The thing named does not exist (404; C-MOVE/C-GET: zero matches).
    NotFound,
    /// Against what is there already (409; Cxxx).
    Conflict,
    /// The request can never succeed as it is (400; A900 or Cxxx).
    Invalid,
    /// A configured bound or the disk is full (429, 507; A700).
    Exhausted,
    /// A dependency is away or the process drains (503 with Retry-After; A700).
    Unavailable,
    /// Not allowed (403; 0124H).
    Denied,
    /// Stored bytes are damaged and no copy is left to serve (500; Cxxx).
    Corrupt,
    /// The peer stopped sending or went away; nobody is left to be told.
    Aborted,
    /// A defect (500; Cxxx).
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later. The only place that decides retry.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Exhausted | Self::Unavailable)
    }
}

/// The finer cause, where doors answer differently for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing finer to say.
    Unspecified,
    /// The data set can't be parsed up to its identifiers (C000, STOW 0xC000).
    CannotUnderstand,
    /// Command or request and data set disagree on SOP Class, instance or study (A900).
    DoesNotMatch,
    /// A required UID is missing or unusable.
    BadIdentifier,
    /// The transfer syntax can't be taken.
    TransferSyntax,
    /// The disk or the object store is full (A700, 507).
    OutOfRoom,
    /// An instance is larger than the configured bound.
    TooLarge,
    /// The sender's re-send policy refuses a conflicting version.
    ConflictRefused,
    /// A query key's value can't be used for matching.
    UnusableKey,
    /// The index did not reach the position asked for in time.
    NotYetIndexed,
    /// It is durable here, but not confirmed by as many other sites as its sender wants before success (A700, 503).
    NotConfirmed,
    /// By an operator's wish the site takes no instances (A700, 503).
    ReadOnly,
}

/// A failure of a service. The message holds no patient attribute (I9); it is lower case, without a full stop.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller does with it.
    pub kind: ErrorKind,
    /// The finer cause.
    pub reason: Reason,
    /// What went wrong, naming the thing.
    pub message: String,
    /// Elements concerned, for Offending Element and Error Comment.
    pub tags: Vec<cairn_dicom::Tag>,
}

impl Error {
    /// A failure of this kind with no finer cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, reason: Reason::Unspecified, message: message.into(), tags: Vec::new() }
    }

    /// The same with a finer cause.
    pub fn because(kind: ErrorKind, reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, ..Self::new(kind, message) }
    }

    /// The same naming an element.
    pub fn about(mut self, tag: cairn_dicom::Tag) -> Self {
        self.tags.push(tag);
        self
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, reason) = match error.kind() {
            StoreErrorKind::NotFound => (ErrorKind::NotFound, Reason::Unspecified),
            StoreErrorKind::Conflict => (ErrorKind::Conflict, Reason::Unspecified),
            StoreErrorKind::Invalid => (ErrorKind::Invalid, Reason::Unspecified),
            StoreErrorKind::Exhausted => (ErrorKind::Exhausted, Reason::OutOfRoom),
            StoreErrorKind::Unavailable | StoreErrorKind::Archived => (ErrorKind::Unavailable, Reason::Unspecified),
            StoreErrorKind::Corrupt => (ErrorKind::Corrupt, Reason::Unspecified),
            StoreErrorKind::Internal => (ErrorKind::Internal, Reason::Unspecified),
        };
        Self::because(kind, reason, error.to_string())
    }
}
