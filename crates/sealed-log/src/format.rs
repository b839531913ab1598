//! What such an object is: `CAIRNLG1`; events, one after the other; [`SealedFooter`]; its length in four bytes, and
//! `CAIRNEND`. Numbers are little endian. An event is: length of what follows (4 bytes), when the log took it (8), length
//! of its envelope (4), envelope, payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_archive::{Offset, SiteId, envelope::compact, events::SealedFooter};
use cairn_store_api::{LogRecord, Record, StoreError, StoreErrorKind};
use prost::Message;

/// First bytes.
pub(crate) const BEGIN: &[u8; 8] = b"CAIRNLG1";
const END: &[u8; 8] = b"CAIRNEND";
/// Length of what is behind the footer.
pub(crate) const TAIL: u64 = 12;
/// Longer footers are none: a range has fewer blocks.
pub(crate) const FOOTER_MAX: u64 = 16 << 20;
/// Longer events are none.
const RECORD_MAX: usize = 64 << 20;
const LENGTH: usize = 4;
const HEAD: usize = 12;

pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("sealed range: {what}"))
}

/// Appends an event.
pub(crate) fn put_record(record: &LogRecord, buffer: &mut BytesMut) {
    let start = buffer.len();
    buffer.put_bytes(0, LENGTH + HEAD);
    compact::encode(&record.record.envelope, buffer);
    let envelope = buffer.len() - start - LENGTH - HEAD;
    buffer.put_slice(&record.record.payload);
    let length = buffer.len() - start - LENGTH;
    if let Some(mut head) = buffer.get_mut(start..start + LENGTH + HEAD) {
        head.put_u32_le(length as u32);
        head.put_u64_le(record.appended_at_ms);
        head.put_u32_le(envelope as u32);
    }
}

/// Takes the next event from the beginning of the bytes; `None`: it is not whole yet.
pub(crate) fn take_record(
    bytes: &mut BytesMut,
    offset: Offset,
    site: &SiteId,
) -> Result<Option<LogRecord>, StoreError> {
    let Some(length) = bytes.first_chunk::<LENGTH>().map(|length| u32::from_le_bytes(*length) as usize) else {
        return Ok(None);
    };
    if !(HEAD..=RECORD_MAX).contains(&length) {
        return Err(corrupt("an event has no length that it can have"));
    }
    if bytes.len() < LENGTH + length {
        return Ok(None);
    }
    bytes.advance(LENGTH);
    let mut event = bytes.split_to(length).freeze();
    let appended_at_ms = event.get_u64_le();
    let envelope = event.get_u32_le() as usize;
    if envelope > event.len() {
        return Err(corrupt("an envelope is longer than its event"));
    }
    let envelope = event.split_to(envelope);
    let envelope = compact::decode(&envelope, site).ok_or_else(|| corrupt("an envelope can't be read"))?;
    Ok(Some(LogRecord { offset, appended_at_ms, record: Record { envelope, payload: event } }))
}

/// Footer and tail.
pub(crate) fn put_footer(footer: &SealedFooter) -> Bytes {
    let mut bytes = footer.encode_to_vec();
    let length = bytes.len() as u32;
    bytes.put_u32_le(length);
    bytes.put_slice(END);
    bytes.into()
}

/// How long the footer is.
pub(crate) fn footer_length(mut tail: Bytes) -> Result<u64, StoreError> {
    if tail.len() as u64 != TAIL {
        return Err(corrupt("it has no end"));
    }
    let length = u64::from(tail.get_u32_le());
    if tail != END.as_slice() || length > FOOTER_MAX {
        return Err(corrupt("it has no end"));
    }
    Ok(length)
}

/// Reads a footer.
pub(crate) fn read_footer(bytes: Bytes) -> Result<SealedFooter, StoreError> {
    SealedFooter::decode(bytes).map_err(|_| corrupt("its footer can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::{Envelope, Hlc};

    fn record(payload: &'static [u8]) -> LogRecord {
        let envelope = Envelope {
            id: "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("valid"),
            kind: "cairn.instance.stored.v1".into(),
            site: "main".parse().expect("valid"),
            study_instance_uid: "1.2.3".into(),
            tenant: "default".into(),
            hlc: Hlc { wall_ms: 1_767_225_600_123, counter: 4 },
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        };
        let record = Record { envelope, payload: Bytes::from_static(payload) };
        LogRecord { offset: Offset(7), appended_at_ms: 1_767_225_600_124, record }
    }

    #[test]
    fn events_read_back_and_a_cut_one_is_waited_for() {
        let site = "main".parse().expect("valid");
        let mut whole = BytesMut::new();
        put_record(&record(b"payload"), &mut whole);
        put_record(&record(b""), &mut whole);
        for cut in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..cut]);
            let taken = take_record(&mut bytes, Offset(7), &site).expect("not corrupt");
            assert_eq!(taken.is_some(), taken == Some(record(b"payload")), "cut at {cut}");
        }
        let taken = [b"payload".as_slice(), b""].map(|_| take_record(&mut whole, Offset(7), &site));
        let payloads = taken.map(|taken| taken.expect("whole").expect("there").record.payload);
        assert_eq!(payloads, [Bytes::from_static(b"payload"), Bytes::new()]);
        assert!(whole.is_empty());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let site = "main".parse().expect("valid");
        for bytes in [[0; 32].as_slice(), &[0xFF; 32], &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0]] {
            assert!(take_record(&mut BytesMut::from(bytes), Offset(0), &site).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_footer_reads_back() {
        let footer = SealedFooter { site: "main".into(), end_offset: 9, ..SealedFooter::default() };
        let mut bytes = put_footer(&footer);
        let tail = bytes.split_off(bytes.len() - TAIL as usize);
        assert_eq!(footer_length(tail).expect("a tail"), bytes.len() as u64);
        assert_eq!(read_footer(bytes).expect("a footer"), footer);
        assert!(footer_length(Bytes::from_static(b"CAIRNENDCAIR")).is_err() && footer_length(Bytes::new()).is_err());
    }
}
