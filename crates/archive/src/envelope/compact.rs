//! The envelope in bytes, as logs that keep files write it: fields, each a number, a length and bytes. Numbers are never
//! reused; unknown ones are passed over, so that an older build reads what a newer one wrote.

use super::{Envelope, known_kind};
use crate::{
    hlc::Hlc,
    ids::{EventId, ObjectKey, SiteId},
};
use bytes::{BufMut, BytesMut};

const ID: u8 = 1;
const KIND: u8 = 2;
const SITE: u8 = 3;
const STUDY: u8 = 4;
const TENANT: u8 = 5;
const HLC: u8 = 6;
const TRACEPARENT: u8 = 7;
const CORRELATION_ID: u8 = 8;
const CAUSATION_ID: u8 = 9;
const OBJECT_KEYS: u8 = 10;
const ORIGIN: u8 = 11;

/// Appends the envelope to `buffer`.
pub fn encode(envelope: &Envelope, buffer: &mut BytesMut) {
    field(buffer, ID, envelope.id.as_bytes());
    field(buffer, KIND, envelope.kind.as_bytes());
    field(buffer, SITE, envelope.site.as_str().as_bytes());
    field(buffer, STUDY, envelope.study_instance_uid.as_bytes());
    field(buffer, TENANT, envelope.tenant.as_bytes());
    head(buffer, HLC, 12);
    buffer.put_u64_le(envelope.hlc.wall_ms);
    buffer.put_u32_le(envelope.hlc.counter);
    if let Some(traceparent) = &envelope.traceparent {
        field(buffer, TRACEPARENT, traceparent.as_bytes());
    }
    if let Some(id) = &envelope.correlation_id {
        field(buffer, CORRELATION_ID, id.as_bytes());
    }
    if let Some(id) = &envelope.causation_id {
        field(buffer, CAUSATION_ID, id.as_bytes());
    }
    if !envelope.object_keys.is_empty() {
        head(buffer, OBJECT_KEYS, envelope.object_keys.len() * 16);
        envelope.object_keys.iter().for_each(|key| buffer.put_slice(key.as_bytes()));
    }
    if let Some(origin) = &envelope.origin {
        field(buffer, ORIGIN, origin.to_string().as_bytes());
    }
}

fn field(buffer: &mut BytesMut, id: u8, value: &[u8]) {
    head(buffer, id, value.len());
    buffer.put_slice(value);
}

fn head(buffer: &mut BytesMut, id: u8, mut length: usize) {
    buffer.put_u8(id);
    while length >= 0x80 {
        buffer.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    buffer.put_u8(length as u8);
}

/// Fields as they stand in the bytes.
#[derive(Default)]
struct Fields<'a> {
    values: [Option<&'a [u8]>; ORIGIN as usize + 1],
}

impl<'a> Fields<'a> {
    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        while let Some((id, rest)) = bytes.split_first() {
            let (length, rest) = length(rest)?;
            let (value, rest) = rest.split_at_checked(length)?;
            if let Some(place) = fields.values.get_mut(usize::from(*id)) {
                *place = Some(value);
            }
            bytes = rest;
        }
        Some(fields)
    }

    fn bytes(&self, id: u8) -> Option<&'a [u8]> {
        self.values[usize::from(id)]
    }

    fn text(&self, id: u8) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(id)?).ok()
    }

    /// `Some(None)` when the field is absent, `None` when it is malformed.
    fn optional<T>(&self, id: u8, read: impl Fn(&'a [u8]) -> Option<T>) -> Option<Option<T>> {
        self.bytes(id).map_or(Some(None), |value| read(value).map(Some))
    }
}

fn length(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        length |= usize::from(byte & 0x7F) << shift;
        bytes = rest;
        if byte & 0x80 == 0 {
            return Some((length, bytes));
        }
    }
    None
}

/// Reads an envelope. `site` is the log's own, whose name most envelopes bear.
pub fn decode(bytes: &[u8], site: &SiteId) -> Option<Envelope> {
    let fields = Fields::read(bytes)?;
    let text = |value: &[u8]| std::str::from_utf8(value).ok().map(str::to_owned);
    let (wall_ms, counter) = fields.bytes(HLC)?.split_first_chunk()?;
    let hlc = Hlc { wall_ms: u64::from_le_bytes(*wall_ms), counter: u32::from_le_bytes(counter.try_into().ok()?) };
    let own_site = fields.text(SITE)?;
    let keys = fields.bytes(OBJECT_KEYS).unwrap_or_default();
    let keys: Result<Vec<ObjectKey>, _> = keys.chunks(16).map(ObjectKey::from_slice).collect();
    Some(Envelope {
        id: EventId::from_slice(fields.bytes(ID)?).ok()?,
        kind: known_kind(fields.text(KIND)?),
        site: if own_site == site.as_str() { site.clone() } else { own_site.parse().ok()? },
        study_instance_uid: fields.text(STUDY)?.to_owned(),
        tenant: fields.text(TENANT)?.to_owned(),
        hlc,
        traceparent: fields.optional(TRACEPARENT, text)?,
        correlation_id: fields.optional(CORRELATION_ID, text)?,
        causation_id: fields.optional(CAUSATION_ID, |id| EventId::from_slice(id).ok())?,
        object_keys: keys.ok()?,
        origin: fields.optional(ORIGIN, |text| std::str::from_utf8(text).ok()?.parse().ok())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("valid"),
            kind: "cairn.instance.stored.v1".into(),
            site: "main".parse().expect("valid"),
            study_instance_uid: "1.2.3".into(),
            tenant: "default".into(),
            hlc: Hlc { wall_ms: 1_767_225_600_123, counter: 4 },
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            correlation_id: Some(String::new()),
            causation_id: Some("018f4d2e-9c3a-7000-8000-000000000003".parse().expect("valid")),
            object_keys: vec!["018f4d2e-9c3a-7000-8000-000000000002".parse().expect("valid"); 20],
            origin: Some("other/1/3/9".parse().expect("valid")),
        }
    }

    #[test]
    fn every_field_reads_back_and_absent_ones_stay_absent() {
        let full = envelope();
        let bare = Envelope {
            kind: "some.future.type.v9".into(),
            site: "other".parse().expect("valid"),
            study_instance_uid: "x".repeat(300),
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
            ..envelope()
        };
        for envelope in [full, bare] {
            let mut buffer = BytesMut::new();
            encode(&envelope, &mut buffer);
            assert_eq!(decode(&buffer, &"main".parse().expect("valid")), Some(envelope));
        }
    }

    #[test]
    fn unknown_fields_are_passed_over_and_every_cut_is_refused() {
        let site = "main".parse().expect("valid");
        let mut buffer = BytesMut::new();
        encode(&envelope(), &mut buffer);
        let whole = buffer.len();
        field(&mut buffer, 200, b"of a later build");
        assert_eq!(decode(&buffer, &site), Some(envelope()));
        for cut in 0..whole {
            assert_ne!(decode(&buffer[..cut], &site), Some(envelope()), "cut at {cut}");
        }
        assert_eq!(length(&[0xFF; 6]), None, "a length over five bytes");
    }
}
