//! A multipart answer as a stream of its bytes.

use crate::multipart::Boundary;
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error};
use futures_util::{StreamExt, stream};
use std::{future::Future, ops::Range};

/// One part on its way.
pub(super) struct Part {
    pub(super) content_type: String,
    pub(super) length: Option<u64>,
    pub(super) location: Option<String>,
    pub(super) data: AnswerStream<Bytes>,
}

/// The bytes of a multipart/related body. An error in a part ends it without a close delimiter, so that no client takes
/// it for whole.
pub(super) fn multipart(boundary: Boundary, parts: AnswerStream<Part>) -> AnswerStream<Bytes> {
    let close = boundary.close();
    let mut first = true;
    let body = parts.flat_map(move |part| -> AnswerStream<Bytes> {
        match part {
            Ok(part) => {
                let head = boundary.part_head(
                    std::mem::take(&mut first),
                    &part.content_type,
                    part.length,
                    part.location.as_deref(),
                );
                Box::pin(after_first(head, part.data))
            }
            Err(error) => Box::pin(stream::iter([Err(error)])),
        }
    });
    let mut failed = false;
    let body = body.chain(stream::iter([Ok(close)])).take_while(move |chunk| {
        let go_on = !failed;
        failed |= chunk.is_err();
        std::future::ready(go_on)
    });
    Box::pin(body)
}

/// The head, but only once the part's first bytes are there: damage shows before anything of the part is sent.
fn after_first(
    head: Bytes,
    data: AnswerStream<Bytes>,
) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send {
    stream::once(data.into_future()).flat_map(move |(first, rest)| {
        let head = match &first {
            Some(Err(_)) => None,
            _ => Some(Ok(head.clone())),
        };
        stream::iter(head).chain(stream::iter(first)).chain(rest)
    })
}

/// A message of one part whose length is known, so that ranges of it can be given. Equal entities give equal bytes.
pub(super) struct OnePart {
    /// `Content-Type` of the message.
    pub(super) content_type: String,
    head: Bytes,
    data_length: u64,
    close: Bytes,
}

impl OnePart {
    /// `entity`: what makes this representation differ from others.
    pub(super) fn new(entity: &str, outer_type: &str, part_type: &str, length: u64, location: Option<&str>) -> Self {
        let boundary = Boundary::of(entity);
        Self {
            content_type: crate::multipart::content_type(outer_type, &boundary),
            head: boundary.part_head(true, part_type, Some(length), location),
            data_length: length,
            close: boundary.close(),
        }
    }

    /// Length of the message in bytes.
    pub(super) fn length(&self) -> u64 {
        self.data_length.saturating_add(self.head.len() as u64 + self.close.len() as u64)
    }

    /// The message, or a range of it; `open` gives a range of the part's data.
    pub(super) async fn open<F>(
        self,
        range: Option<Range<u64>>,
        open: impl FnOnce(Range<u64>) -> F,
    ) -> Result<AnswerStream<Bytes>, Error>
    where
        F: Future<Output = Result<AnswerStream<Bytes>, Error>>,
    {
        let range = range.unwrap_or(0..self.length());
        let data_start = self.head.len() as u64;
        let data_end = data_start.saturating_add(self.data_length);
        let within = |start: u64, end: u64| range.start.clamp(start, end) - start..range.end.clamp(start, end) - start;
        let of = |bytes: &Bytes, part: Range<u64>| bytes.slice(part.start as usize..part.end as usize);
        let head = of(&self.head, within(0, data_start));
        let close = of(&self.close, within(data_end, self.length()));
        let wanted = within(data_start, data_end);
        let data = match wanted.is_empty() {
            true => Box::pin(stream::empty()),
            false => open(wanted).await?,
        };
        Ok(Box::pin(after_first(head, data).chain(stream::iter([Ok(close)]))))
    }
}

/// The bytes of an answer that begins with a part's data, once its first bytes are there.
pub(super) async fn readable(data: AnswerStream<Bytes>) -> Result<AnswerStream<Bytes>, Error> {
    let (first, rest) = data.into_future().await;
    match first {
        Some(Err(error)) => Err(error),
        first => Ok(Box::pin(stream::iter(first).chain(rest))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(range: Range<u64>) -> AnswerStream<Bytes> {
        let text = Bytes::from_static(b"0123456789").slice(range.start as usize..range.end as usize);
        Box::pin(stream::iter([Ok(text)]))
    }

    async fn read(stream: AnswerStream<Bytes>) -> Vec<u8> {
        let chunks: Vec<_> = stream.collect().await;
        chunks.into_iter().flat_map(|chunk| chunk.expect("no error")).collect()
    }

    #[tokio::test]
    async fn every_range_of_a_one_part_message_is_that_of_the_whole() {
        let part = || OnePart::new("entity", "a/b", "a/b; c=d", 10, None);
        let whole = read(part().open(None, async |range| Ok(data(range))).await.expect("opens")).await;
        assert_eq!(whole.len() as u64, part().length());
        let text = String::from_utf8(whole.clone()).expect("text");
        let boundary = part().content_type.split("boundary=").nth(1).expect("a boundary").to_owned();
        assert!(text.starts_with(&format!("--{boundary}\r\nContent-Type: a/b; c=d\r\nContent-Length: 10\r\n\r\n0123")));
        assert!(text.ends_with(&format!("456789\r\n--{boundary}--\r\n")));
        for start in 0..whole.len() {
            for end in start + 1..=whole.len() {
                let range = start as u64..end as u64;
                let read = read(part().open(Some(range), async |range| Ok(data(range))).await.expect("opens")).await;
                assert_eq!(read, whole[start..end], "{start}..{end}");
            }
        }
    }

    #[tokio::test]
    async fn a_broken_part_leaves_the_message_open() {
        let damage = || Error::new(cairn_service_api::ErrorKind::Corrupt, "damaged");
        let part = |chunks: Vec<Result<Bytes, Error>>| Part {
            content_type: "a/b".into(),
            length: None,
            location: None,
            data: Box::pin(stream::iter(chunks)),
        };
        let parts = vec![
            Ok(part(vec![Ok(Bytes::from_static(b"one"))])),
            Ok(part(vec![Err(damage())])),
            Ok(part(vec![Ok(Bytes::from_static(b"three"))])),
        ];
        let chunks: Vec<_> = multipart(Boundary::random(), Box::pin(stream::iter(parts))).collect().await;
        assert!(chunks.last().expect("some").is_err());
        let text: Vec<u8> = chunks.into_iter().filter_map(Result::ok).flatten().collect();
        let text = String::from_utf8(text).expect("text");
        assert!(text.ends_with("one"), "{text}");
    }
}
