//! Records made in code.

use bytes::Bytes;
use cairn_archive::{Envelope, EventId, Hlc, ObjectKey};
use cairn_store_api::{LogRecord, Record};

/// A record told apart by two numbers, which its payload of at least 16 bytes begins with; no byte of it repeats for long.
pub fn record(caller: u64, number: u64, length: usize) -> Record {
    let mut payload = Vec::with_capacity(length.max(16));
    payload.extend_from_slice(&caller.to_be_bytes());
    payload.extend_from_slice(&number.to_be_bytes());
    let mut state = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
    while payload.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        payload.push((state >> 56) as u8);
    }
    Record { envelope: envelope(caller, number), payload: payload.into() }
}

fn envelope(caller: u64, number: u64) -> Envelope {
    let id = u128::from(caller) << 64 | u128::from(number);
    Envelope {
        id: EventId(uuid::Uuid::from_u128(id)),
        kind: "cairn.instance.stored.v1".into(),
        site: super::site(),
        study_instance_uid: format!("1.2.840.{caller}.{number}"),
        tenant: "default".to_owned(),
        hlc: Hlc { wall_ms: 1_767_225_600_000 + number, counter: caller as u32 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: vec![ObjectKey(uuid::Uuid::from_u128(!id))],
        origin: None,
    }
}

/// The two numbers of a record, once all of it is as it was made.
pub(super) fn numbers(read: &LogRecord) -> (u64, u64) {
    let payload: &Bytes = &read.record.payload;
    let number = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().unwrap());
    let (caller, index) = (number(0), number(8));
    assert_eq!(read.record, record(caller, index, payload.len()), "bytes and envelope are as appended");
    (caller, index)
}
