//! Where an event stands in a log: (site, incarnation, partition, offset).

use crate::ids::{IdError, SiteId};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Counts the lives of a site's log: creating, restoring, truncating or repartitioning it starts a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u32);

/// One partition of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Partition(pub u16);

/// Place of an event within its partition, from 0, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The next place.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How many partitions a log gets at creation unless configured otherwise; fixed from then on.
pub const DEFAULT_PARTITIONS: u16 = 64;

impl Partition {
    /// The partition of a study in a log of `count` partitions: FNV-1a, 64 bits, of the Study Instance UID, folded
    /// to 32 bits, modulo `count`. Written down for ever: every site and adapter must agree.
    pub fn of_study(study_instance_uid: &str, count: u16) -> Self {
        let hash = study_instance_uid
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let folded = (hash >> 32) as u32 ^ hash as u32;
        Self((folded % u32::from(count.max(1))) as u16)
    }
}

/// Where one event stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Site whose log this is.
    pub site: SiteId,
    /// Life of that log.
    pub incarnation: Incarnation,
    /// Partition.
    pub partition: Partition,
    /// Place in the partition.
    pub offset: Offset,
}

/// `site/incarnation/partition/offset`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.site, self.incarnation.0, self.partition.0, self.offset.0)
    }
}

impl FromStr for Position {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = IdError("position");
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or(bad);
        let position = Self {
            site: part()?.parse()?,
            incarnation: Incarnation(part()?.parse().map_err(|_| bad)?),
            partition: Partition(part()?.parse().map_err(|_| bad)?),
            offset: Offset(part()?.parse().map_err(|_| bad)?),
        };
        parts.next().is_none().then_some(position).ok_or(bad)
    }
}

/// For each (site, incarnation, partition) the offset up to which (exclusive) events are meant.
///
/// The text form is the opaque token of `Cairn-Read-After`: `site/incarnation/partition/end` joined by commas.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PositionVector(pub BTreeMap<(SiteId, Incarnation, Partition), Offset>);

impl PositionVector {
    /// Advances the vector so that it includes the event at `position`.
    pub fn include(&mut self, position: &Position) {
        let key = (position.site.clone(), position.incarnation, position.partition);
        let end = self.0.entry(key).or_default();
        *end = (*end).max(position.offset.next());
    }

    /// Whether everything that `other` means is meant by this vector too.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(key, end)| end.0 == 0 || self.0.get(key).is_some_and(|own| own >= end))
    }

    /// Whether the event at `position` is meant.
    pub fn contains(&self, position: &Position) -> bool {
        let key = (position.site.clone(), position.incarnation, position.partition);
        self.0.get(&key).is_some_and(|end| *end > position.offset)
    }
}

impl fmt::Display for PositionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((site, incarnation, partition), end)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{site}/{}/{}/{}", incarnation.0, partition.0, end.0)?;
        }
        Ok(())
    }
}

impl FromStr for PositionVector {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut vector = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Position { site, incarnation, partition, offset } = part.parse()?;
            let end = vector.0.entry((site, incarnation, partition)).or_default();
            *end = (*end).max(offset);
        }
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_study_is_written_down_for_ever() {
        // Known answers: changing the hash would split studies over partitions.
        let known = [("1.2.3", 64, 7), ("1.2.840.10008.1.1", 64, 56), ("1.2.3", 1, 0), ("2.25.1", 16, 13)];
        for (uid, count, partition) in known {
            assert_eq!(Partition::of_study(uid, count), Partition(partition), "{uid} of {count}");
        }
        let spread: std::collections::BTreeSet<u16> =
            (0..1000).map(|n| Partition::of_study(&format!("1.2.{n}"), 64).0).collect();
        assert_eq!(spread.len(), 64, "every partition is used");
    }

    #[test]
    fn vectors_read_back_and_cover() {
        let position: Position = "main/1/7/41".parse().expect("valid");
        let mut vector = PositionVector::default();
        assert!(!vector.contains(&position));
        vector.include(&position);
        assert!(vector.contains(&position));
        assert_eq!(vector.to_string(), "main/1/7/42");
        assert_eq!(vector.to_string().parse::<PositionVector>(), Ok(vector.clone()));
        let mut later = vector.clone();
        later.include(&"main/1/8/0".parse().expect("valid"));
        assert!(later.covers(&vector) && !vector.covers(&later));
        assert!("main/1/7".parse::<PositionVector>().is_err());
    }
}
