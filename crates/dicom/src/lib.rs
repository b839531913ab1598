//! What DICOM bytes mean: pure functions over byte slices, with no input or output of their own.
//!
//! Edition of the Standard throughout: [`STANDARD_EDITION`].
#![forbid(unsafe_code)]

pub mod charset;
pub mod convert;
pub mod dataset;
pub mod dictionary;
pub mod finding;
pub mod frames;
pub mod header;
pub mod inflate;
pub mod json;
pub mod matching;
pub mod normalise;
mod parse;
pub mod part10;
pub mod rewrite;
pub mod sop_class;
mod tables;
pub mod tag;
pub mod temporal;
pub mod transfer_syntax;
pub mod uid;
pub mod vr;
pub mod walk;

pub use charset::CharacterSet;
pub use convert::{ConvertError, Converter};
pub use dataset::DataSet;
pub use finding::{Finding, FindingKind};
pub use frames::FrameTable;
pub use header::Header;
pub use inflate::{InflateError, InflateLimits};
pub use normalise::Normaliser;
pub use parse::swap::Swapper;
pub use tables::tags;
pub use tag::Tag;
pub use transfer_syntax::TransferSyntax;
pub use uid::{Uid, UidError};
pub use vr::Vr;
pub use walk::{HeaderWalker, WalkLimits, Walked, walk};

/// The edition of PS3 that section references in this workspace point to.
pub const STANDARD_EDITION: &str = "2025c";
