//! Rows of events that could not be folded, and of those that were repaired.
//!
//! Both are by partition of the log, so that each has one writing partition. Parked events stand by study: whether a
//! study is incomplete is one look.

use super::{
    RowError, Text,
    codec::{Reader, Writer},
};
use crate::{
    fold::{EventOrder, Poison, Stamp},
    ids::EventId,
};
use bytes::Bytes;

const VERSION: u8 = 1;

/// An event that could not be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its place in the order of events.
    pub order: EventOrder,
    /// Where the log stood: its own place in it.
    pub stamp: Stamp,
    /// Why.
    pub why: Poison,
    /// Its CloudEvents type.
    pub kind: String,
    /// Tenant that its envelope names.
    pub tenant: String,
    /// Study that its envelope names; perhaps no UID.
    pub study_instance_uid: String,
    /// Version of the build that parked it: another one tries again.
    pub build: String,
}

/// Stable words for why events are parked. Numbers are written down and never reused.
const POISONS: [(Poison, &str); 10] = [
    (Poison::UnknownType, "unknown-type"),
    (Poison::Undecodable, "undecodable"),
    (Poison::Disagreement, "disagreement"),
    (Poison::WrongPartition, "wrong-partition"),
    (Poison::BadIdentifier, "bad-identifier"),
    (Poison::Malformed, "malformed"),
    (Poison::Encrypted, "encrypted"),
    (Poison::TooLarge, "too-large"),
    (Poison::Defect, "defect"),
    (Poison::Unreadable, "unreadable"),
];

impl Poison {
    /// A stable word.
    pub fn code(self) -> &'static str {
        POISONS.iter().find(|(poison, _)| *poison == self).map(|(_, code)| *code).unwrap_or_default()
    }
}

/// Beginning of the clustering keys of a study's parked events.
pub fn parked_prefix(tenant: &str, study_instance_uid: &str) -> Bytes {
    let mut ck = Vec::with_capacity(tenant.len() + study_instance_uid.len() + 20);
    Text(tenant).append(&mut ck);
    // Perhaps no UID, so as a text.
    Text(study_instance_uid).append(&mut ck);
    ck.into()
}

/// Clustering key of a parked event.
pub fn parked_ck(tenant: &str, study_instance_uid: &str, event: &EventId) -> Bytes {
    [&parked_prefix(tenant, study_instance_uid)[..], event.as_bytes()].concat().into()
}

/// A parked event's row.
pub fn encode_parked(parked: &Parked) -> Bytes {
    let mut out = Writer::version(VERSION);
    let code = POISONS.iter().position(|(poison, _)| *poison == parked.why).unwrap_or_default();
    out.order(&parked.order).varint(parked.stamp.0).u8(code as u8);
    for text in [&parked.kind, &parked.tenant, &parked.study_instance_uid, &parked.build] {
        out.text(text);
    }
    out.0.into()
}

/// Reads a parked event's row.
pub fn decode_parked(bytes: &[u8]) -> Result<Parked, RowError> {
    let mut reader = Reader::new(bytes, VERSION, "parked")?;
    let (order, stamp) = (reader.order()?, Stamp(reader.varint()?));
    let (why, _) = *POISONS.get(usize::from(reader.u8()?)).ok_or(reader.bad())?;
    let mut text = || reader.text().map(str::to_owned);
    let (kind, tenant, study_instance_uid, build) = (text()?, text()?, text()?, text()?);
    reader.end()?;
    Ok(Parked { order, stamp, why, kind, tenant, study_instance_uid, build })
}

/// Beginning of the clustering keys of the repairs that settled an event.
pub fn repairs_prefix(event: &EventId) -> Bytes {
    Bytes::copy_from_slice(event.as_bytes())
}

/// Clustering key of a repair that settled an event.
pub fn repair_ck(event: &EventId, repair: &EventId) -> Bytes {
    [event.as_bytes().as_slice(), repair.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_stand_by_study() {
        for (why, code) in POISONS {
            assert_eq!(why.code(), code);
            let parked = Parked {
                order: EventOrder {
                    hlc: crate::Hlc { wall_ms: 7, counter: 1 },
                    site: "main".parse().expect("valid"),
                    id: "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("valid"),
                },
                stamp: Stamp(9),
                why,
                kind: "cairn.instance.dreamt.v9".into(),
                tenant: "default".into(),
                study_instance_uid: "not a uid".into(),
                build: "0.1.0".into(),
            };
            assert_eq!(decode_parked(&encode_parked(&parked)), Ok(parked.clone()));
            let ck = parked_ck("default", "not a uid", &parked.order.id);
            assert!(ck.starts_with(&parked_prefix("default", "not a uid")));
            assert!(!ck.starts_with(&parked_prefix("default", "not")));
        }
    }
}
