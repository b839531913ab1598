//! Orphans: objects that no event names, left by a store that failed on its way, or by a log that lost what named them.

use cairn_archive::SiteId;
use cairn_store_api::ObjectInfo;
use std::time::Duration;

/// A look for orphans: the whole log was read, and every object listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrphanLook {
    /// The first is 1.
    pub number: u64,
    /// When it began, in milliseconds since the Unix epoch by the site's clock.
    pub began_at_ms: u64,
    /// When it was done.
    pub ended_at_ms: u64,
    /// Events read.
    pub events: u64,
    /// Objects listed.
    pub objects: u64,
    /// Orphans that were removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
}

/// Why orphans that could be removed by now are kept until an operator releases them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphansKept {
    /// They are more than are removed by themselves.
    TooMany,
    /// The log began a new life since: what it lost may have named them.
    NewLife,
    /// The log has records of which nobody knows what they name.
    UnreadableRecords,
}

/// What is known of orphans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphansStatus {
    /// The site.
    pub site: SiteId,
    /// When this was so, in milliseconds since the Unix epoch by its clock.
    pub at_ms: u64,
    /// The last look that came to its end.
    pub last: Option<OrphanLook>,
    /// Orphans that it found and left.
    pub orphans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why those that could be removed are kept; `None`: they are removed when their time has come.
    pub kept: Option<OrphansKept>,
    /// Time at work between the look that found an orphan and its removal.
    pub grace: Duration,
}

/// An object that no event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// What the store says of it.
    pub info: ObjectInfo,
    /// When it was found, in milliseconds since the Unix epoch by the site's clock.
    pub found_at_ms: u64,
    /// The look that found it.
    pub look: u64,
}
