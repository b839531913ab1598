//! Keys of rows: byte strings whose order is the order wanted.

use super::RowError;
use crate::{
    fold::{Identity, SortKey, Stamp, StudyKey},
    ids::EventId,
};
use bytes::Bytes;
use cairn_dicom::Uid;

/// Texts in keys are cut to this many bytes: a key may then lead to more than it says, never to less.
pub const LENGTH_OF_KEY_MAX: usize = 128;

/// A text as part of a key: cut to [`LENGTH_OF_KEY_MAX`], zero bytes escaped, ended by two zero bytes, so that the order
/// of keys is the order of texts whatever follows.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a str);

impl Text<'_> {
    /// Appends it to a key.
    pub fn append(self, key: &mut Vec<u8>) {
        for byte in self.0.bytes().take(LENGTH_OF_KEY_MAX) {
            key.push(byte);
            if byte == 0 {
                key.push(0xFF);
            }
        }
        key.extend([0, 0]);
    }

    /// Reads one from the front of a key; what is left after it.
    pub fn read(key: &[u8]) -> Option<(String, &[u8])> {
        let mut text = Vec::new();
        let mut at = 0;
        loop {
            match (key.get(at)?, key.get(at + 1)) {
                (0, Some(0)) => return Some((String::from_utf8_lossy(&text).into_owned(), &key[at + 2..])),
                (0, Some(0xFF)) => {
                    text.push(0);
                    at += 2;
                }
                (0, _) => return None,
                (byte, _) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
    }
}

/// A UID in half a byte per character, in the order of texts, ended by a zero byte.
pub fn pack_uid(key: &mut Vec<u8>, uid: &str) {
    let code = |byte: u8| match byte {
        b'.' => 1,
        digit @ b'0'..=b'9' => digit - b'0' + 2,
        // A UID has no other characters; an end keeps the key readable.
        _ => 0,
    };
    let bytes = uid.as_bytes();
    for pair in bytes.chunks(2) {
        key.push(code(pair[0]) << 4 | pair.get(1).map_or(0, |second| code(*second)));
    }
    // An odd number of characters ends in the lower half already, but its byte is not zero.
    key.push(0);
}

/// Reads a UID from the front of a key; what is left after it.
pub fn unpack_uid(key: &[u8]) -> Option<(Uid, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let mut text = String::with_capacity(2 * end);
    for half in key[..end].iter().flat_map(|byte| [byte >> 4, byte & 0x0F]) {
        match half {
            0 => break,
            1 => text.push('.'),
            digit @ 2..=11 => text.push(char::from(b'0' + digit - 2)),
            _ => return None,
        }
    }
    Some((text.parse().ok()?, &key[end + 1..]))
}

fn key(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut key = Vec::with_capacity(capacity);
    write(&mut key);
    key.into()
}

/// Partition key of what belongs to a tenant.
pub fn tenant_pk(tenant: &str) -> Bytes {
    key(tenant.len() + 2, |key| Text(tenant).append(key))
}

/// Partition key of all rows of a study.
pub fn study_pk(study: &StudyKey) -> Bytes {
    key(64, |key| {
        Text(&study.tenant).append(key);
        pack_uid(key, &study.study_instance_uid);
    })
}

/// Clustering key of a series in its study, and the beginning of those of its instances' facts and headers.
pub fn series_ck(series: &str) -> Bytes {
    key(34, |key| pack_uid(key, series))
}

/// Beginning of the clustering keys of the facts of one identity.
pub fn identity_prefix(identity: &Identity) -> Bytes {
    key(84, |key| {
        pack_uid(key, identity.series.as_str());
        pack_uid(key, identity.instance.as_str());
    })
}

/// Clustering key of a fact.
pub fn fact_ck(identity: &Identity, event: &EventId) -> Bytes {
    key(84, |key| {
        pack_uid(key, identity.series.as_str());
        pack_uid(key, identity.instance.as_str());
        key.extend_from_slice(event.as_bytes());
    })
}

/// Which identity and event a fact's clustering key names.
pub fn read_fact_ck(ck: &[u8]) -> Result<(Identity, EventId), RowError> {
    let read = || {
        let (series, rest) = unpack_uid(ck)?;
        let (instance, rest) = unpack_uid(rest)?;
        Some((Identity { series, instance }, EventId::from_slice(rest).ok()?))
    };
    read().ok_or(RowError::Malformed("facts"))
}

/// Clustering key of the chunk of headers that begins at a stamp.
pub fn header_ck(series: &str, stamp: Stamp) -> Bytes {
    key(42, |key| {
        pack_uid(key, series);
        key.extend(stamp.0.to_be_bytes());
    })
}

/// Partition key of what a Series Instance UID leads to.
pub fn by_series_pk(tenant: &str, series: &str) -> Bytes {
    key(64, |key| {
        Text(tenant).append(key);
        pack_uid(key, series);
    })
}

/// Buckets that SOP Instance UIDs are spread over, so that two of one UID are neighbours and all can be gone through.
pub const INSTANCE_BUCKETS: u16 = 4096;

/// The bucket of a SOP Instance UID. Written down for ever.
pub fn bucket_of_instance(instance: &str) -> u16 {
    crate::Partition::of_study(instance, INSTANCE_BUCKETS).0
}

/// Partition key of a bucket of SOP Instance UIDs.
pub fn by_instance_pk(tenant: &str, bucket: u16) -> Bytes {
    key(tenant.len() + 4, |key| {
        Text(tenant).append(key);
        key.extend(bucket.to_be_bytes());
    })
}

/// Beginning of the clustering keys of one SOP Instance UID.
pub fn by_instance_prefix(instance: &str) -> Bytes {
    series_ck(instance)
}

/// Clustering key of a SOP Instance UID in a study and series.
pub fn by_instance_ck(study: &str, identity: &Identity) -> Bytes {
    key(100, |key| {
        pack_uid(key, identity.instance.as_str());
        pack_uid(key, study);
        pack_uid(key, identity.series.as_str());
    })
}

/// SOP Instance, study and series of a clustering key of [`by_instance_ck`].
pub fn read_by_instance_ck(ck: &[u8]) -> Result<(Uid, Uid, Uid), RowError> {
    let read = || {
        let (instance, rest) = unpack_uid(ck)?;
        let (study, rest) = unpack_uid(rest)?;
        let (series, _) = unpack_uid(rest)?;
        Some((instance, study, series))
    };
    read().ok_or(RowError::Malformed("by_instance"))
}

/// Clustering key of a conflict.
pub fn conflict_ck(study: &str, identity: &Identity) -> Bytes {
    key(100, |key| {
        pack_uid(key, study);
        pack_uid(key, identity.series.as_str());
        pack_uid(key, identity.instance.as_str());
    })
}

/// Study and identity of a conflict.
pub fn read_conflict_ck(ck: &[u8]) -> Result<(Uid, Identity), RowError> {
    let read = || {
        let (study, rest) = unpack_uid(ck)?;
        let (series, rest) = unpack_uid(rest)?;
        let (instance, _) = unpack_uid(rest)?;
        Some((study, Identity { series, instance }))
    };
    read().ok_or(RowError::Malformed("conflicts"))
}

/// Issuer, ID and study of a patient's clustering key.
pub fn read_patient_ck(ck: &[u8]) -> Result<(String, String, Uid), RowError> {
    let read = || {
        let (issuer, rest) = Text::read(ck)?;
        let (id, rest) = Text::read(rest)?;
        Some((issuer, id, unpack_uid(rest)?.0))
    };
    read().ok_or(RowError::Malformed("patients"))
}

/// Where a study stands among answers: date and time descending, those without last, then Study Instance UID. The
/// bytes order as the studies do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub Bytes);

impl OrderKey {
    /// Of a study.
    pub fn new(sort: SortKey, study_instance_uid: &str) -> Self {
        Self(key(44, |key| {
            Self::append_sort(key, sort);
            pack_uid(key, study_instance_uid);
        }))
    }

    fn append_sort(key: &mut Vec<u8>, sort: SortKey) {
        let date = sort.date.map_or(u32::MAX, |date| u32::MAX - 1 - date);
        let time = sort.time.map_or(u64::MAX, |time| (u64::MAX - 1).saturating_sub(time));
        key.extend(date.to_be_bytes());
        // A day has less than 2^40 microseconds.
        key.extend_from_slice(&time.to_be_bytes()[3..]);
    }

    /// Before every study of this date (`YYYYMMDD`).
    pub fn first_of(date: u32) -> Self {
        Self((u32::MAX - 1).saturating_sub(date).to_be_bytes().to_vec().into())
    }

    /// After every study of this date.
    pub fn after(date: u32) -> Self {
        Self(u32::MAX.saturating_sub(date).to_be_bytes().to_vec().into())
    }

    /// Year of the date; `None` without a date.
    pub fn year(&self) -> Option<u16> {
        let date = u32::from_be_bytes(*self.0.first_chunk::<4>()?);
        (date != u32::MAX).then(|| u16::try_from((u32::MAX - 1 - date) / 10_000).unwrap_or(u16::MAX))
    }

    /// Study Instance UID.
    pub fn study(&self) -> Result<Uid, RowError> {
        let uid = self.0.get(9..).and_then(unpack_uid).map(|(uid, _)| uid);
        uid.ok_or(RowError::Malformed("postings"))
    }
}
