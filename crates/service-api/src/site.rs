//! Sites: which of them has authority, and what is decided about them.

use cairn_archive::{EventId, SiteId, authority::DeadSite, events::SendersConfigured};

/// A promotion, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// `ce_id`.
    pub event: EventId,
    /// The site that took authority.
    pub site: SiteId,
    /// Its number.
    pub epoch: u64,
    /// When, in milliseconds since the Unix epoch by that site's clock.
    pub at_ms: u64,
    /// Who decided.
    pub decided_by: String,
    /// Why.
    pub reason: String,
    /// The drill that it is part of; empty: none.
    pub drill: String,
    /// Whether a later promotion, which does not hold it, made it void.
    pub is_void: bool,
}

/// What one site knows of sites.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteStatus {
    /// This site.
    pub site: SiteId,
    /// Version of the build that answers.
    pub version: String,
    /// When this was so, in milliseconds since the Unix epoch by this site's clock.
    pub at_ms: u64,
    /// Number of the promotion that counts; 0: there was none yet.
    pub epoch: u64,
    /// The site that has authority; `None`: before the first promotion every site has it over itself alone, and after it was
    /// given up nobody has.
    pub primary: Option<SiteId>,
    /// Whether this site takes no instances from senders.
    pub read_only: bool,
    /// Sites that are gone for good.
    pub dead: Vec<DeadSite>,
    /// The promotions, the highest first, at most [`SiteStatus::PROMOTIONS_MAX`].
    pub promotions: Vec<Promoted>,
    /// What each site says of its senders, this one included.
    pub senders: Vec<SendersConfigured>,
}

impl SiteStatus {
    /// Promotions that are told.
    pub const PROMOTIONS_MAX: usize = 100;
}

/// What can be decided at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This site takes authority, whatever the one that had it says later.
    Promote {
        /// Also while the site that has authority answers.
        force: bool,
    },
    /// The site that has authority gives it up, and this one takes it once it holds everything that was decided before.
    TakeOver,
    /// This site gives its authority up.
    Demote,
    /// A site takes no instances from senders, or takes them again. About another site only the one with authority decides.
    SetReadOnly {
        /// The site.
        site: SiteId,
        /// Whether it takes none.
        read_only: bool,
    },
    /// Another site is gone for good, or is not: nothing that is to be erased waits for it. The site with authority decides.
    DeclareDead {
        /// The site.
        site: SiteId,
        /// Whether it is gone.
        dead: bool,
    },
}

/// Who decides, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// Who.
    pub decided_by: String,
    /// Why, in the operator's words; it is written into the log in the clear, and must name no patient.
    pub reason: String,
    /// The drill that it is part of; empty: none.
    pub drill: String,
}
