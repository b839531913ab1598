use super::BodyError;
use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use memchr::{memchr2, memmem, memrchr};

/// Bounds of what is not a part's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MultipartLimits {
    /// Bytes of one part's headers.
    pub(crate) part_header_bytes_max: usize,
    /// Bytes before the first delimiter, and after the last.
    pub(crate) preamble_bytes_max: usize,
}

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartHeaders {
    /// `Content-Type`
    pub(crate) content_type: Option<String>,
    /// `Content-Length`; not trusted.
    pub(crate) content_length: Option<u64>,
    /// `Content-Transfer-Encoding`
    pub(crate) transfer_encoding: Option<String>,
}

const PADDING_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Preamble,
    Part,
    BetweenParts,
    Closed,
}

/// Reads parts from a body as it arrives, without copying their content.
///
/// A part is complete only when its delimiter has been seen. Any error ends the reading.
pub(crate) struct Reader<S> {
    source: S,
    // CRLF, two hyphens, boundary. A CR stands only at its start, for a boundary has none.
    finder: memmem::Finder<'static>,
    pending: Bytes,
    // Bytes that begin the delimiter but may turn out to be content.
    held: BytesMut,
    state: State,
    limits: MultipartLimits,
}

impl<S: Stream<Item = Result<Bytes, BodyError>> + Unpin> Reader<S> {
    /// Reads `source` with the boundary that its `Content-Type` names.
    ///
    /// # Errors
    /// `Framing` when that can't be a boundary (RFC 2046 section 5.1.1).
    pub(crate) fn new(source: S, boundary: &str, limits: MultipartLimits) -> Result<Self, BodyError> {
        if !is_boundary(boundary) {
            return Err(BodyError::Framing("the boundary is not 1 to 70 characters of those allowed"));
        }
        let delimiter = format!("\r\n--{boundary}");
        Ok(Self {
            source,
            finder: memmem::Finder::new(&delimiter).into_owned(),
            pending: Bytes::new(),
            held: BytesMut::new(),
            state: State::Preamble,
            limits,
        })
    }

    /// What the body comes from.
    pub(crate) fn into_source(self) -> S {
        self.source
    }

    /// The headers of the next part; what is left of the current one is passed over. `None` after the last.
    pub(crate) async fn next_part(&mut self) -> Result<Option<PartHeaders>, BodyError> {
        match self.state {
            State::Closed => return Ok(None),
            State::Preamble => {
                self.skip_preamble().await?;
                self.end_delimiter_line().await?;
            }
            State::Part => while self.next_chunk().await?.is_some() {},
            State::BetweenParts => {}
        }
        if self.state == State::Closed {
            return Ok(None);
        }
        let headers = self.read_headers().await?;
        self.state = State::Part;
        // A part may have headers only; then the blank line's CRLF is the delimiter's.
        if self.begins_with_dash_boundary().await? {
            self.pending.advance(self.finder.needle().len() - 2);
            self.end_delimiter_line().await?;
        }
        Ok(Some(headers))
    }

    /// The next bytes of the current part; `None` at its end, once the whole line of its delimiter has been read: what
    /// only begins like a delimiter must not end a part.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.state != State::Part {
            return Ok(None);
        }
        loop {
            if self.pending.is_empty() && !self.pull().await? {
                return Err(BodyError::Framing("no close delimiter"));
            }
            if !self.held.is_empty() {
                match self.go_on_from_held() {
                    Held::Delimiter => {
                        self.end_delimiter_line().await?;
                        return Ok(None);
                    }
                    Held::Content => return Ok(Some(self.held.split().freeze())),
                    Held::Undecided => continue,
                }
            }
            match self.finder.find(&self.pending) {
                Some(0) => {
                    self.pending.advance(self.finder.needle().len());
                    self.end_delimiter_line().await?;
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.pending.split_to(at))),
                None => {}
            }
            let kept = delimiter_begun_at_end(&self.pending, self.finder.needle());
            let tail = self.pending.split_off(self.pending.len() - kept);
            self.held.extend_from_slice(&tail);
            let content = std::mem::take(&mut self.pending);
            if !content.is_empty() {
                return Ok(Some(content));
            }
        }
    }

    /// Reads what follows the close delimiter, up to the bound, so that the connection can be used again.
    pub(crate) async fn skip_epilogue(&mut self) {
        let mut left = self.limits.preamble_bytes_max;
        while self.state == State::Closed {
            match left.checked_sub(self.pending.len()) {
                Some(less) => left = less,
                None => return,
            }
            self.pending = Bytes::new();
            if !matches!(self.pull().await, Ok(true)) {
                return;
            }
        }
    }

    fn go_on_from_held(&mut self) -> Held {
        let wanted = &self.finder.needle()[self.held.len()..];
        let compared = wanted.len().min(self.pending.len());
        if self.pending[..compared] != wanted[..compared] {
            return Held::Content;
        }
        if compared == wanted.len() {
            self.held.clear();
            self.pending.advance(compared);
            return Held::Delimiter;
        }
        self.held.extend_from_slice(&self.pending);
        self.pending.clear();
        Held::Undecided
    }

    /// Whether a delimiter without its CRLF stands here. Reads no further than it takes to say no.
    async fn begins_with_dash_boundary(&mut self) -> Result<bool, BodyError> {
        let length = self.finder.needle().len() - 2;
        loop {
            let compared = length.min(self.pending.len());
            if self.pending[..compared] != self.finder.needle()[2..2 + compared] {
                return Ok(false);
            }
            if compared == length {
                return Ok(true);
            }
            if !self.fill(compared + 1).await? {
                return Ok(false);
            }
        }
    }

    async fn skip_preamble(&mut self) -> Result<(), BodyError> {
        let delimiter = self.finder.needle().len();
        if !self.fill(1).await? {
            return Err(BodyError::Framing("the body is empty"));
        }
        if self.begins_with_dash_boundary().await? {
            self.pending.advance(delimiter - 2);
            return Ok(());
        }
        let mut skipped = 0;
        loop {
            if let Some(at) = self.finder.find(&self.pending) {
                self.pending.advance(at + delimiter);
                return match skipped + at > self.limits.preamble_bytes_max {
                    true => Err(LONG_PREAMBLE),
                    false => Ok(()),
                };
            }
            let kept = delimiter_begun_at_end(&self.pending, self.finder.needle());
            skipped += self.pending.len() - kept;
            self.pending.advance(self.pending.len() - kept);
            if skipped > self.limits.preamble_bytes_max {
                return Err(LONG_PREAMBLE);
            }
            if !self.fill(kept + 1).await? {
                return Err(BodyError::Framing("no delimiter"));
            }
        }
    }

    /// Reads the rest of a delimiter's line.
    async fn end_delimiter_line(&mut self) -> Result<(), BodyError> {
        self.fill(2).await?;
        if self.pending.starts_with(b"--") {
            self.pending.advance(2);
            self.state = State::Closed;
            return Ok(());
        }
        for _ in 0..=PADDING_BYTES_MAX {
            self.fill(2).await?;
            match self.pending.as_ref() {
                [b'\r', b'\n', ..] => {
                    self.pending.advance(2);
                    self.state = State::BetweenParts;
                    return Ok(());
                }
                [b' ' | b'\t', ..] => self.pending.advance(1),
                [] | [_] => return Err(BodyError::Framing("no close delimiter")),
                _ => return Err(BodyError::Framing("a delimiter's line does not end in CR LF")),
            }
        }
        Err(BodyError::Framing("too much padding after a delimiter"))
    }

    async fn read_headers(&mut self) -> Result<PartHeaders, BodyError> {
        let bound = self.limits.part_header_bytes_max;
        let mut searched = 0;
        loop {
            if self.pending.starts_with(b"\r\n") {
                self.pending.advance(2);
                return Ok(PartHeaders::default());
            }
            if let Some(at) = memmem::find(&self.pending[searched..], b"\r\n\r\n") {
                let block = self.pending.split_to(searched + at);
                self.pending.advance(4);
                return if block.len() > bound { Err(TOO_MANY_HEADERS) } else { parse_headers(&block) };
            }
            // All but the last byte of their end may be here already.
            if self.pending.len() > bound + 3 {
                return Err(TOO_MANY_HEADERS);
            }
            searched = self.pending.len().saturating_sub(3);
            if !self.fill(self.pending.len() + 1).await? {
                return Err(BodyError::Framing("the body ends within a part's headers"));
            }
        }
    }

    /// Adds to what is pending until it has `length` bytes; `false` when the body ends before.
    async fn fill(&mut self, length: usize) -> Result<bool, BodyError> {
        while self.pending.len() < length {
            let before = std::mem::take(&mut self.pending);
            let more = self.pull().await?;
            if !before.is_empty() {
                let mut joined = before.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                joined.extend_from_slice(&self.pending);
                self.pending = joined.freeze();
            }
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Replaces what is pending with the next chunk that is not empty; `false` at the end of the body.
    async fn pull(&mut self) -> Result<bool, BodyError> {
        loop {
            match self.source.next().await.transpose()? {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => {
                    self.pending = chunk;
                    return Ok(true);
                }
                None => return Ok(false),
            }
        }
    }
}

const LONG_PREAMBLE: BodyError = BodyError::Framing("too much before the first delimiter");
const TOO_MANY_HEADERS: BodyError = BodyError::Framing("a part's headers are too long");

enum Held {
    Delimiter,
    Content,
    Undecided,
}

/// How many bytes at the end of `bytes` begin the delimiter.
fn delimiter_begun_at_end(bytes: &[u8], delimiter: &[u8]) -> usize {
    let window = &bytes[bytes.len().saturating_sub(delimiter.len() - 1)..];
    match memrchr(b'\r', window) {
        Some(at) if delimiter.starts_with(&window[at..]) => window.len() - at,
        _ => 0,
    }
}

/// Whether this can be a boundary (RFC 2046 section 5.1.1).
pub(crate) fn is_boundary(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    (1..=70).contains(&text.len()) && text.bytes().all(allowed) && !text.ends_with(' ')
}

fn parse_headers(block: &[u8]) -> Result<PartHeaders, BodyError> {
    let mut headers = PartHeaders::default();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in split_lines(block) {
        let line = line?;
        match (line.first(), lines.last_mut()) {
            (Some(b' ' | b'\t'), Some(last)) => last.extend_from_slice(line),
            _ => lines.push(line.to_vec()),
        }
    }
    for line in lines {
        let text = String::from_utf8_lossy(&line);
        let (name, value) = text.split_once(':').ok_or(BodyError::Framing("a part's header line has no colon"))?;
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" => headers.content_type = Some(value.to_owned()),
            "content-length" => headers.content_length = value.parse().ok(),
            "content-transfer-encoding" => headers.transfer_encoding = Some(value.to_ascii_lowercase()),
            _ => {}
        }
    }
    Ok(headers)
}

fn split_lines(block: &[u8]) -> impl Iterator<Item = Result<&[u8], BodyError>> {
    let mut rest = Some(block);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let Some(end) = memchr2(b'\r', b'\n', bytes) else {
            rest = None;
            return Some(Ok(bytes));
        };
        if !bytes[end..].starts_with(b"\r\n") {
            rest = None;
            return Some(Err(BodyError::Framing("a part's header line does not end in CR LF")));
        }
        rest = Some(&bytes[end + 2..]);
        Some(Ok(&bytes[..end]))
    })
}
