//! Sites in memory that run the shipped services, with links between them that lose, repeat, delay and cut. Time is
//! virtual and every choice comes from a seed.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "for the tests of this crate alone")]
#![allow(clippy::unwrap_used)]

pub mod instances;
pub mod link;
mod retention;
pub mod site;
pub mod stores;
pub mod world;
