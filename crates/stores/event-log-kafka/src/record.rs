//! An event as a record of the topic: CloudEvents in binary mode, headers beside the payload. Records have no key: the
//! partition is chosen by the log's own hash of the study.

use crate::topic::Life;
use bytes::Bytes;
use cairn_archive::{Envelope, Offset, Partition, Position, envelope::EnvelopeError};
use cairn_store_api::{LogRecord, Record};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
};

/// What the protocol needs around a record's headers and payload, at most.
const OVERHEAD: usize = 64;
const HEADER_OVERHEAD: usize = 10;

/// A record's headers, and about how many bytes it takes.
pub(crate) fn encode(record: &Record) -> (OwnedHeaders, usize) {
    let headers = record.envelope.to_headers();
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    let mut length = OVERHEAD + record.payload.len();
    for (key, value) in &headers {
        length += key.len() + value.len() + HEADER_OVERHEAD;
        owned = owned.insert(Header { key, value: Some(value) });
    }
    (owned, length)
}

/// The value of a header, if there is one of this name and it is text.
pub(crate) fn header<'a, H: Headers>(headers: &'a H, name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}

/// Reads a record. One that no archive wrote stands in the log all the same: it gets an envelope that says so.
pub(crate) fn decode(message: &BorrowedMessage<'_>, life: &Life) -> LogRecord {
    let offset = Offset(u64::try_from(message.offset()).unwrap_or_default());
    let appended_at_ms = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
    let read = match message.headers() {
        Some(headers) => Envelope::from_headers(|name| header(headers, name)),
        None => Err(EnvelopeError::Missing("ce_specversion")),
    };
    let envelope = read.unwrap_or_else(|why| {
        let partition = Partition(u16::try_from(message.partition()).unwrap_or_default());
        let at = Position { site: life.site.clone(), incarnation: life.incarnation, partition, offset };
        tracing::debug!(position = %at, %why, "a record of the topic is no event");
        Envelope::unreadable(&at, appended_at_ms)
    });
    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    LogRecord { offset, appended_at_ms, record: Record { envelope, payload } }
}
