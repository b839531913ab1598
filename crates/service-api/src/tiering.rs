//! Tiering: studies whose objects are moved between a hot store and a cold one.

use crate::{AnswerStream, Error};
use async_trait::async_trait;
use cairn_dicom::Uid;
use cairn_store_api::{StoreSpace, Tier};

/// What is asked: that everything of studies be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMoves {
    /// Whose studies.
    pub tenant: String,
    /// Study Instance UIDs.
    pub studies: Vec<Uid>,
    /// Where to.
    pub to: Tier,
    /// Who asks.
    pub by: String,
}

/// A study that waits to be moved, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMove {
    /// Place in the queue, from 1; what is recalled comes before what goes to the cold store.
    pub place: u64,
    /// Whose study.
    pub tenant: String,
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Where to.
    pub to: Tier,
    /// Who asked.
    pub by: String,
    /// When, in milliseconds since the Unix epoch by the site's clock.
    pub asked_at_ms: u64,
    /// Whether it is moved now.
    pub is_under_way: bool,
    /// Why it could not be moved when it was last tried; empty: it was not tried, or not in vain.
    pub failure: String,
}

/// One of the two stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierStatus {
    /// Which.
    pub tier: Tier,
    /// Its room; or why it can't be reached.
    pub space: Result<StoreSpace, String>,
}

/// How a site with two stores fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TieringStatus {
    /// The two stores; none where a site has only one.
    pub tiers: Vec<TierStatus>,
    /// Studies that wait to be moved to the cold store, with the one under way.
    pub to_cold: u64,
    /// Studies that wait to be recalled, with the one under way.
    pub to_hot: u64,
    /// Studies that were moved since lifecycle began to work.
    pub studies_moved: u64,
    /// Their objects that had to be moved.
    pub objects_moved: u64,
    /// Bytes of these.
    pub bytes_moved: u64,
}

/// Tiering.
#[async_trait]
pub trait Tiering: Send + Sync {
    /// The two stores, and what waits.
    async fn tiering(&self) -> Result<TieringStatus, Error>;

    /// Asks that studies be moved; how many wait now that did not, or waited to be moved the other way. What was asked is
    /// noted down on return, and done in its turn, after a restart too.
    ///
    /// # Errors
    /// `Invalid`: the site has no cold store. `Exhausted`: more would wait than may; nothing of this is asked then.
    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error>;

    /// What waits, in its order.
    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error>;
}
