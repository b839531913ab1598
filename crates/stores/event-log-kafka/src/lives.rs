//! What the last partition says of the log: what it is, which lives it had, and whether somebody is about to begin another.
//!
//! Three records bring a new life about. A *claim* says that one is about to begin: who has the log open, and sees it, gives
//! and takes nothing any more, and nobody opens it. Who claimed waits until everybody has seen it (see `crate::watch`), then
//! reads the log at leisure, and writes the *life*, or a *release*. The latest claim counts; a life or a release of another
//! claim does not. So all who read the partition come to the same, in whatever order records were written.

use cairn_archive::{Incarnation, Offset};
use cairn_store_api::Lives;
use uuid::Uuid;

/// A record after the one that says what the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Claim(Uuid),
    Life { claim: Uuid, incarnation: Incarnation, begins: Vec<Offset> },
    Release(Uuid),
}

/// What the partition says, record by record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) lives: Lives,
    /// Who is about to begin a new life.
    pub(crate) claim: Option<Uuid>,
}

impl Told {
    pub(crate) fn new(first: Incarnation) -> Self {
        Self { lives: Lives::new(first), claim: None }
    }

    /// Goes past a record.
    pub(crate) fn include(&mut self, note: Note) {
        match note {
            Note::Claim(claim) => self.claim = Some(claim),
            Note::Release(claim) if self.claim == Some(claim) => self.claim = None,
            Note::Life { claim, incarnation, begins } if self.claim == Some(claim) => {
                // Where they begin was checked against the ends by who claimed.
                let ends = vec![Offset(u64::MAX); begins.len()];
                if let Ok(lives) = self.lives.renewed(incarnation, begins, &ends) {
                    (self.lives, self.claim) = (lives, None);
                }
            }
            Note::Release(_) | Note::Life { .. } => {}
        }
    }
}

/// Offsets as text.
pub(crate) fn begins_to_text(begins: &[Offset]) -> String {
    begins.iter().map(|begin| begin.0.to_string()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn begins_from_text(text: &str) -> Option<Vec<Offset>> {
    text.split(' ').map(|begin| begin.parse().ok().map(Offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_counts_only_while_its_claim_is_the_latest() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let life = |claim, incarnation, begin| Note::Life {
            claim,
            incarnation: Incarnation(incarnation),
            begins: vec![Offset(begin)],
        };
        let mut told = Told::new(Incarnation(1));
        told.include(life(one, 2, 5));
        assert_eq!(told, Told::new(Incarnation(1)), "nobody claimed");
        told.include(Note::Claim(one));
        told.include(Note::Claim(other));
        told.include(life(one, 2, 5));
        told.include(Note::Release(one));
        assert_eq!((told.claim, told.lives.newest()), (Some(other), Incarnation(1)));
        told.include(life(other, 2, 5));
        told.include(life(other, 3, 6));
        assert_eq!((told.claim, told.lives.newest()), (None, Incarnation(2)), "one claim, one life");
        told.include(Note::Claim(one));
        told.include(life(one, 3, 4));
        assert_eq!(told.claim, Some(one), "it begins before the one before it");
        told.include(Note::Release(one));
        assert_eq!((told.claim, told.lives.newest()), (None, Incarnation(2)));
        assert_eq!(begins_from_text(&begins_to_text(&[Offset(3), Offset(0)])), Some(vec![Offset(3), Offset(0)]));
    }
}
