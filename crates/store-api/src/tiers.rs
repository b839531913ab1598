use crate::{ObjectRef, StoreError, StoreSpace};
use async_trait::async_trait;
use cairn_archive::ObjectKey;

/// One of the two object stores of a site that has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Where objects come in.
    Hot,
    /// Where those are that are seldom wanted.
    Cold,
}

/// Two object stores that are one: an [`ObjectStore`](crate::ObjectStore) whose objects can be moved between them.
///
/// * TI-01 An object that is moved can be read at every moment, also when the process dies in the middle.
/// * TI-02 It is taken from where it was only after all its bytes were read back from where it is to be, and were right.
/// * TI-03 A move may be made again: it ends what one that was cut short left, and changes nothing where nothing is left.
/// * TI-04 What is deleted while it is moved is deleted from both.
/// * TI-05 Of an object that is `Archived` a move to the hot store asks that it be restored (OS-16), and is `Archived` until it is.
#[async_trait]
pub trait Tiers: Send + Sync {
    /// Where an object is. One that is in both, because a move is under way or was cut short, is hot.
    ///
    /// # Errors
    /// `NotFound`: in neither. `Unavailable`: it may be in the one that is away.
    async fn tier_of(&self, key: ObjectKey) -> Result<Tier, StoreError>;

    /// Moves an object; gives whether there was anything to move.
    ///
    /// # Errors
    /// `NotFound`: it is in neither. `Archived`: it is asked to be restored, and moved later. `Corrupt`, `Invalid`: its bytes are not what they should be, and it stays where it is.
    /// # Cancel safety
    /// Dropped, the object is where it was, or in both.
    async fn move_to(&self, object: &ObjectRef, tier: Tier) -> Result<bool, StoreError>;

    /// Room of one of the two.
    async fn space_of(&self, tier: Tier) -> Result<StoreSpace, StoreError>;
}
