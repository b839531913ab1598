use crate::{StoreError, StoreErrorKind};
use cairn_archive::{Incarnation, Offset, Partition};
use std::ops::Range;

/// Write stamps have 16 bits for it.
const INCARNATION_MAX: u32 = (1 << 16) - 1;

/// A life of a log after its first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Higher than that of any life before it.
    pub incarnation: Incarnation,
    /// Of each partition, the first offset that is of this life.
    pub begins: Vec<Offset>,
}

/// The lives of a log, each from where it begins to where the next one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    first: Incarnation,
    later: Vec<Life>,
}

impl Lives {
    /// Of a log that was just created.
    pub fn new(first: Incarnation) -> Self {
        Self { first, later: Vec::new() }
    }

    /// The first one: it begins with the log.
    pub fn first(&self) -> Incarnation {
        self.first
    }

    /// Those after the first.
    pub fn later(&self) -> &[Life] {
        &self.later
    }

    /// The present one.
    pub fn newest(&self) -> Incarnation {
        self.later.last().map_or(self.first, |life| life.incarnation)
    }

    /// The life that an offset is of: the incarnation of an event that became a fact there.
    pub fn at(&self, partition: Partition, offset: Offset) -> Incarnation {
        let begun = self.later.iter().rev().find(|life| begin(life, partition) <= offset);
        begun.map_or(self.first, |life| life.incarnation)
    }

    /// The offsets of a life; `None` if the log never had it.
    pub fn range(&self, incarnation: Incarnation, partition: Partition) -> Option<Range<Offset>> {
        let next = if incarnation == self.first {
            0
        } else {
            self.later.iter().position(|life| life.incarnation == incarnation)? + 1
        };
        let from =
            next.checked_sub(1).and_then(|own| self.later.get(own)).map_or(Offset(0), |own| begin(own, partition));
        let to = self.later.get(next).map_or(Offset(u64::MAX), |life| begin(life, partition));
        Some(from..to)
    }

    /// With one life more; `ends` are the ends of the partitions.
    ///
    /// # Errors
    /// `Invalid`: its incarnation is not higher, or it begins before the present one, or beyond the end.
    pub fn renewed(&self, incarnation: Incarnation, begins: Vec<Offset>, ends: &[Offset]) -> Result<Self, StoreError> {
        let invalid =
            |what: &str| Err(StoreError::new(StoreErrorKind::Invalid, format!("a new life of the log {what}")));
        if incarnation <= self.newest() || incarnation.0 > INCARNATION_MAX {
            return invalid("needs a higher incarnation");
        }
        if begins.len() != ends.len() {
            return invalid("begins in each partition");
        }
        let before = |partition: Partition| self.later.last().map_or(Offset(0), |life| begin(life, partition));
        for (partition, (from, end)) in (0..).map(Partition).zip(begins.iter().zip(ends)) {
            if *from < before(partition) || from > end {
                return invalid("begins neither before the present one nor beyond the end");
            }
        }
        let mut lives = self.clone();
        lives.later.push(Life { incarnation, begins });
        Ok(lives)
    }
}

fn begin(life: &Life, partition: Partition) -> Offset {
    life.begins.get(usize::from(partition.0)).copied().unwrap_or(Offset(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_of_the_last_life_that_began_before_it() {
        let (p0, p1) = (Partition(0), Partition(1));
        let ends = [Offset(10), Offset(20)];
        let lives =
            Lives::new(Incarnation(1)).renewed(Incarnation(3), vec![Offset(4), Offset(0)], &ends).expect("valid");
        let lives = lives.renewed(Incarnation(4), vec![Offset(4), Offset(9)], &ends).expect("valid");
        assert_eq!(lives.newest(), Incarnation(4));
        let at = |partition, offset| lives.at(partition, Offset(offset)).0;
        assert_eq!([at(p0, 0), at(p0, 3), at(p0, 4), at(p0, 99)], [1, 1, 4, 4]);
        assert_eq!([at(p1, 0), at(p1, 8), at(p1, 9)], [3, 3, 4]);
        assert_eq!(lives.range(Incarnation(1), p0), Some(Offset(0)..Offset(4)));
        assert_eq!(lives.range(Incarnation(3), p0), Some(Offset(4)..Offset(4)));
        assert_eq!(lives.range(Incarnation(4), p1), Some(Offset(9)..Offset(u64::MAX)));
        assert_eq!(lives.range(Incarnation(2), p1), None);
        let refused = |incarnation, begins: [u64; 2]| {
            lives.renewed(Incarnation(incarnation), begins.map(Offset).to_vec(), &ends).is_err()
        };
        assert!(refused(4, [4, 9]) && refused(5, [3, 9]) && refused(5, [4, 21]) && refused(1 << 16, [4, 9]));
        assert!(!refused(5, [10, 20]) && lives.renewed(Incarnation(5), vec![Offset(4)], &ends).is_err());
    }
}
