//! Operators' corrections of attributes.

use cairn_archive::Position;
use cairn_dicom::{Uid, dataset::DataSet};

/// Attributes of stored instances are to be given out with other values.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// Whose instances.
    pub tenant: String,
    /// Study Instance UID.
    pub study: Uid,
    /// Only this series.
    pub series: Option<Uid>,
    /// Only this instance.
    pub instance: Option<Uid>,
    /// The new values; an empty one takes the value away.
    pub elements: DataSet,
    /// Who decides.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// A correction is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectionRevocation {
    /// Where the correction stands in the log of the site that is asked.
    pub position: Position,
    /// Who decides.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}
