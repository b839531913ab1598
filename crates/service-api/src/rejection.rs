//! Operators' decisions about rejections.

use cairn_archive::Position;

/// A rejection is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Where the rejection stands in the log of the site that is asked.
    pub position: Position,
    /// Who decides.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}
