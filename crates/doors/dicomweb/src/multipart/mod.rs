//! multipart/related bodies (RFC 2046 section 5.1, RFC 2387), read strictly and written by hand.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::{MultipartLimits, PartHeaders, Reader, is_boundary};
pub(crate) use writer::{Boundary, content_type};

/// Why a request body can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body is not what RFC 2046 section 5.1 says.
    #[error("multipart framing: {0}")]
    Framing(&'static str),
    /// The sender went away, or its transfer coding is broken.
    #[error("the body ended before its end")]
    Incomplete,
    /// The sender is slower than is waited for.
    #[error("the body arrived too slowly")]
    TooSlow,
    /// More instances than one answer can list.
    #[error("the request holds more instances than one answer can list")]
    TooMany,
    /// The request is larger than the configured bound.
    #[error("the request is larger than {0} bytes")]
    TooLarge(u64),
}
