//! Why an input is refused, and what of it is kept for people to look at.

use bytes::Bytes;
use cairn_dicom::{Tag, Uid};
use cairn_service_api::{Error, ErrorKind, Reason};

/// Stable codes of causes, as quarantine and metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    CannotUnderstand,
    BadIdentifier,
    DoesNotMatch,
    TransferSyntax,
    TooLarge,
    InflatesTooMuch,
    ConflictRefused,
}

impl Cause {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::CannotUnderstand => "cannot-understand",
            Self::BadIdentifier => "bad-identifier",
            Self::DoesNotMatch => "does-not-match",
            Self::TransferSyntax => "transfer-syntax",
            Self::TooLarge => "too-large",
            Self::InflatesTooMuch => "inflates-too-much",
            Self::ConflictRefused => "conflict-refused",
        }
    }

    const fn answer(self) -> (ErrorKind, Reason) {
        match self {
            Self::CannotUnderstand => (ErrorKind::Invalid, Reason::CannotUnderstand),
            Self::BadIdentifier => (ErrorKind::Invalid, Reason::BadIdentifier),
            Self::DoesNotMatch => (ErrorKind::Invalid, Reason::DoesNotMatch),
            Self::TransferSyntax => (ErrorKind::Invalid, Reason::TransferSyntax),
            Self::TooLarge | Self::InflatesTooMuch => (ErrorKind::Invalid, Reason::TooLarge),
            Self::ConflictRefused => (ErrorKind::Conflict, Reason::ConflictRefused),
        }
    }
}

/// An input that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    pub(crate) error: Error,
    /// Study Instance UID, where it was read.
    pub(crate) study: Option<Uid>,
    /// What quarantine gets of it.
    pub(crate) kept: Option<Kept>,
}

impl Refusal {
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        let (kind, reason) = cause.answer();
        Self { cause, error: Error::because(kind, reason, message), study: None, kept: None }
    }

    pub(crate) fn about(mut self, tag: Tag) -> Self {
        self.error = self.error.about(tag);
        self
    }

    pub(crate) fn of_study(mut self, study: Option<Uid>) -> Self {
        self.study = study;
        self
    }
}

/// Why an instance was not stored.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input is at fault; it goes to quarantine.
    Refused(Box<Refusal>),
    /// Something else is.
    Failed(Error),
}

impl Failure {
    /// The same with what quarantine gets of the input.
    pub(crate) fn keeping(mut self, kept: Kept) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.kept = Some(kept);
        }
        self
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<cairn_store_api::StoreError> for Failure {
    fn from(error: cairn_store_api::StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The first bytes of an input, by reference to what was received, up to a bound.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<Bytes>,
    pub(crate) length: usize,
    /// Whether bytes were left out.
    pub(crate) cut: bool,
    max: usize,
}

/// Bytes kept of an input that is identified: enough to see what it was.
const IDENTIFIED_BYTES: usize = 8 << 10;

impl Kept {
    pub(crate) fn up_to(max: usize) -> Self {
        Self { bytes: Vec::new(), length: 0, cut: false, max }
    }

    pub(crate) fn add(&mut self, chunk: &Bytes) {
        let taken = chunk.len().min(self.max - self.length);
        self.cut |= taken < chunk.len();
        if taken > 0 {
            self.bytes.push(chunk.slice(..taken));
            self.length += taken;
        }
    }

    /// Lets go of the buffers received, but for a copy of the first bytes.
    pub(crate) fn shrink(&mut self) {
        let mut copy = Vec::with_capacity(IDENTIFIED_BYTES.min(self.length));
        for chunk in self.bytes.drain(..) {
            let left = IDENTIFIED_BYTES - copy.len();
            copy.extend_from_slice(chunk.get(..chunk.len().min(left)).unwrap_or_default());
        }
        self.cut |= copy.len() < self.length;
        self.max = self.max.min(IDENTIFIED_BYTES);
        self.length = copy.len();
        self.bytes = vec![copy.into()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_says_when_it_is_cut() {
        let mut kept = Kept::up_to(10);
        kept.add(&Bytes::from_static(b"123456"));
        assert!(!kept.cut);
        kept.add(&Bytes::from_static(b"7890"));
        assert!(!kept.cut && kept.length == 10);
        kept.add(&Bytes::from_static(b"x"));
        assert!(kept.cut && kept.bytes.concat() == b"1234567890");
    }

    #[test]
    fn an_identified_input_keeps_a_copy_of_its_head_alone() {
        let mut kept = Kept::up_to(1 << 20);
        kept.add(&Bytes::from(vec![1; 5_000]));
        kept.add(&Bytes::from(vec![2; 5_000]));
        kept.shrink();
        assert!(kept.cut && kept.length == IDENTIFIED_BYTES && kept.bytes.len() == 1);
        kept.add(&Bytes::from_static(b"x"));
        assert_eq!(kept.length, IDENTIFIED_BYTES);
    }
}
