//! What DICOM bytes mean: pure functions over byte slices, with no input or output of their own.
//!
//! Edition of the Standard throughout: [`STANDARD_EDITION`].
#![forbid(unsafe_code)]

pub mod tag;
pub mod uid;
pub mod vr;

pub use tag::Tag;
pub use uid::{Uid, UidError};
pub use vr::Vr;

/// The edition of PS3 that section references in this workspace point to.
pub const STANDARD_EDITION: &str = "2025c";
