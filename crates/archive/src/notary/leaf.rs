//! What a leaf is of: an event as it stands in a partition.

use super::{TreeHash, Unproven};
use crate::{
    envelope::Envelope,
    ids::SiteId,
    position::{Offset, Partition},
};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Begins every leaf's encoding; another encoding would have another.
const TITLE: &[u8] = b"cairn leaf 1\n";

/// An event in its place, as a tree has it. The payload is in it by its hash, so that a proof can be shown without patient
/// attributes. The life of the log is not: which life an offset is of can be decided later, and is in the checkpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Site whose log it is.
    pub site: SiteId,
    /// Partition of that log.
    pub partition: Partition,
    /// Place in it.
    pub offset: Offset,
    /// When that log took it, in milliseconds since the Unix epoch by the site's clock.
    pub appended_at_ms: u64,
    /// The event's attributes, as [`Envelope::to_headers`] has them; none if they can't be read.
    pub headers: Vec<(String, String)>,
    /// Length of the payload.
    pub payload_length: u64,
    /// SHA-256 of the payload.
    pub payload_sha256: [u8; 32],
}

impl Leaf {
    /// The leaf of an event.
    pub fn new(place: (&SiteId, Partition, Offset), appended_at_ms: u64, envelope: &Envelope, payload: &[u8]) -> Self {
        let (site, partition, offset) = place;
        let headers = headers(envelope).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            site: site.clone(),
            partition,
            offset,
            appended_at_ms,
            headers,
            payload_length: payload.len() as u64,
            payload_sha256: Sha256::digest(payload).into(),
        }
    }

    /// Value of an attribute.
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// What is hashed. Numbers are big-endian; site, names and values are their length in 4 bytes and UTF-8.
    ///
    /// `"cairn leaf 1\n"`, site, partition (2 bytes), offset (8), time of append (8), number of attributes (2), name and value of each,
    /// length of the payload (8), SHA-256 of the payload (32).
    pub fn encode(&self) -> Vec<u8> {
        let head = Head { site: &self.site, partition: self.partition, offset: self.offset };
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        head.encode(self.appended_at_ms, headers, (self.payload_length, self.payload_sha256))
    }

    /// Reads what [`Leaf::encode`] wrote.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unproven> {
        Self::read(bytes).ok_or(Unproven::Malformed("leaf"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes.strip_prefix(TITLE)?);
        let site = rest.text()?.parse().ok()?;
        let (partition, offset) = (Partition(u16::from_be_bytes(rest.array()?)), Offset(rest.number()?));
        let (appended_at_ms, count) = (rest.number()?, u16::from_be_bytes(rest.array()?));
        let header = |_| Some((rest.text()?.to_owned(), rest.text()?.to_owned()));
        let headers = (0..count).map(header).collect::<Option<_>>()?;
        let (payload_length, payload_sha256) = (rest.number()?, rest.array()?);
        let leaf = Self { site, partition, offset, appended_at_ms, headers, payload_length, payload_sha256 };
        rest.0.is_empty().then_some(leaf)
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> TreeHash {
        TreeHash::of_leaf(&self.encode())
    }
}

/// Without values of attributes: they may be anybody's.
impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({}/{}/{})", self.site, self.partition.0, self.offset.0)
    }
}

/// The hash of [`Leaf::new`], without making one.
pub fn leaf_hash(
    place: (&SiteId, Partition, Offset),
    appended_at_ms: u64,
    envelope: &Envelope,
    payload: &[u8],
) -> TreeHash {
    let (site, partition, offset) = place;
    let headers = headers(envelope);
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let payload = (payload.len() as u64, Sha256::digest(payload).into());
    TreeHash::of_leaf(&Head { site, partition, offset }.encode(appended_at_ms, headers, payload))
}

/// What stands in for attributes that can't be read is nobody's, and other builds may have other words for it.
fn headers(envelope: &Envelope) -> Vec<(&'static str, String)> {
    if envelope.kind == Envelope::UNREADABLE { Vec::new() } else { envelope.to_headers() }
}

struct Head<'a> {
    site: &'a SiteId,
    partition: Partition,
    offset: Offset,
}

impl Head<'_> {
    fn encode<'a>(
        &self,
        appended_at_ms: u64,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        payload: (u64, [u8; 32]),
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(TITLE);
        put_text(&mut bytes, self.site.as_str());
        bytes.extend_from_slice(&self.partition.0.to_be_bytes());
        bytes.extend_from_slice(&self.offset.0.to_be_bytes());
        bytes.extend_from_slice(&appended_at_ms.to_be_bytes());
        bytes.extend_from_slice(&(headers.len() as u16).to_be_bytes());
        for (name, value) in headers {
            put_text(&mut bytes, name);
            put_text(&mut bytes, value);
        }
        bytes.extend_from_slice(&payload.0.to_be_bytes());
        bytes.extend_from_slice(&payload.1);
        bytes
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u32::from_be_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.try_into().ok()?)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hlc;

    fn site() -> SiteId {
        "main".parse().unwrap()
    }

    fn envelope() -> Envelope {
        Envelope {
            id: "018f4d2e-9c3a-7000-8000-000000000001".parse().unwrap(),
            kind: "cairn.instance.stored.v1".into(),
            site: site(),
            study_instance_uid: "1.2.3".into(),
            tenant: "a\ntenant".into(),
            hlc: Hlc { wall_ms: 1_767_225_600_123, counter: 4 },
            traceparent: None,
            correlation_id: Some(String::new()),
            causation_id: None,
            object_keys: vec!["018f4d2e-9c3a-7000-8000-000000000002".parse().unwrap()],
            origin: Some("other/1/3/9".parse().unwrap()),
        }
    }

    fn leaf() -> Leaf {
        Leaf::new((&site(), Partition(7), Offset(41)), 1_767_225_600_200, &envelope(), b"payload")
    }

    #[test]
    fn its_encoding_is_written_down_for_ever() {
        // Trees over years of events hang on it: computed by an independent script.
        let known = "48bfb64e9f314cf3ab408f541550b245a6b58094065e505a4969d4cc37c76bb8";
        assert_eq!(leaf().hash().to_string(), known);
        assert_eq!(
            leaf_hash((&site(), Partition(7), Offset(41)), 1_767_225_600_200, &envelope(), b"payload"),
            leaf().hash()
        );
    }

    #[test]
    fn it_reads_back_and_nothing_shorter_or_longer_does() {
        let encoded = leaf().encode();
        assert_eq!(Leaf::decode(&encoded), Ok(leaf()));
        assert_eq!(leaf().header("ce_cairntenant"), Some("a\ntenant"));
        for cut in 0..encoded.len() {
            assert!(Leaf::decode(&encoded[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Leaf::decode(&[encoded.as_slice(), b"\0"].concat()).is_err());
    }

    #[test]
    fn whatever_differs_of_an_event_is_in_its_hash() {
        let hash = |at: (Partition, Offset), ms, envelope: &Envelope, payload: &[u8]| {
            leaf_hash((&site(), at.0, at.1), ms, envelope, payload)
        };
        let (at, ms) = ((Partition(7), Offset(41)), 9);
        let changes: [&dyn Fn(&mut Envelope); 9] = [
            &|_| {},
            &|envelope| envelope.tenant.push(' '),
            &|envelope| envelope.hlc.counter = 5,
            &|envelope| envelope.kind = "other".into(),
            &|envelope| envelope.site = "other".parse().unwrap(),
            &|envelope| envelope.study_instance_uid = "1.2.4".into(),
            &|envelope| envelope.origin = None,
            &|envelope| envelope.correlation_id = None,
            &|envelope| envelope.object_keys.clear(),
        ];
        let mut hashes: Vec<_> = changes
            .iter()
            .map(|change| {
                let mut envelope = envelope();
                change(&mut envelope);
                hash(at, ms, &envelope, b"p")
            })
            .collect();
        hashes.push(hash((Partition(8), Offset(41)), ms, &envelope(), b"p"));
        hashes.push(hash((Partition(7), Offset(40)), ms, &envelope(), b"p"));
        hashes.push(hash(at, 10, &envelope(), b"p"));
        hashes.push(hash(at, ms, &envelope(), b"q"));
        let different: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(different.len(), hashes.len());
    }

    #[test]
    fn attributes_that_cant_be_read_are_none() {
        let stand_in =
            |incarnation: &str| Envelope::unreadable(&format!("main/{incarnation}/7/41").parse().unwrap(), 9);
        let of = |envelope: &Envelope| Leaf::new((&site(), Partition(7), Offset(41)), 9, envelope, b"\xFF");
        assert_eq!(of(&stand_in("1")), of(&stand_in("2")), "whichever life its place is of");
        assert!(of(&stand_in("1")).headers.is_empty());
        assert_eq!(
            of(&stand_in("1")).hash(),
            leaf_hash((&site(), Partition(7), Offset(41)), 9, &stand_in("1"), b"\xFF")
        );
    }
}
