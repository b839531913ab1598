/// What a caller does with a failure of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The thing named does not exist.
    NotFound,
    /// It exists already, or another writer was faster: nothing was changed.
    Conflict,
    /// The request can never succeed as it is.
    Invalid,
    /// A configured bound or the disk is full; may pass.
    Exhausted,
    /// The store can't be reached or is closing; retry with backoff. The outcome of a write is unknown.
    Unavailable,
    /// It is there, and the store has put it away: it must be restored first (OS-16), which takes hours.
    Archived,
    /// Stored bytes are not what was written: another copy is needed.
    Corrupt,
    /// A defect.
    Internal,
}

impl StoreErrorKind {
    /// Whether the same call may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Exhausted | Self::Unavailable | Self::Archived)
    }
}

/// A failure of a port. The message holds no patient attribute (I9).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

impl StoreError {
    /// A failure of this kind; `message` is lower case, without a full stop, and names the thing.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What a caller does with it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// An I/O error while doing `what`: a full disk or quota is `Exhausted`, the rest `Unavailable`.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let kind = match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => StoreErrorKind::Exhausted,
            _ => StoreErrorKind::Unavailable,
        };
        Self::new(kind, format!("{what}: {error}"))
    }
}
