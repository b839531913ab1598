use cairn_archive::{Incarnation, ObjectKey, Partition, SiteId};
use uuid::Builder;

/// Which range it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeName {
    /// Site whose log it is of.
    pub site: SiteId,
    /// The log's life when the range was sealed.
    pub incarnation: Incarnation,
    /// Partition of the log.
    pub partition: Partition,
    /// Among the ranges of that life and partition, from 0.
    pub ordinal: u64,
}

impl RangeName {
    /// Key of the range's object: the same for everyone, and of no other object, whose keys are of time.
    pub fn key(&self) -> ObjectKey {
        let Self { site, incarnation, partition, ordinal } = self;
        let name = format!("{site}/{}/{}/{ordinal}", incarnation.0, partition.0);
        let hash = blake3::derive_key("cairn object key of a sealed range of the log 1", name.as_bytes());
        let bytes = hash.first_chunk().copied().unwrap_or_default();
        ObjectKey(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The one that follows.
    pub(crate) fn next(&self) -> Self {
        Self { ordinal: self.ordinal + 1, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_name_tells_ranges_apart_and_keys_stay_as_they_are() {
        let name = |site: &str, incarnation, partition, ordinal| {
            let site = site.parse().expect("valid");
            RangeName { site, incarnation: Incarnation(incarnation), partition: Partition(partition), ordinal }.key()
        };
        let keys = [
            name("main", 1, 0, 0),
            name("main", 1, 0, 1),
            name("main", 1, 1, 0),
            name("main", 2, 0, 0),
            name("other", 1, 0, 0),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
            assert_eq!(key.0.get_version_num(), 8, "as keys of time never are");
        }
        assert_eq!(keys[0].to_string(), "26c7d3bb-48d9-84e2-9ce1-24b36203a98d");
    }
}
