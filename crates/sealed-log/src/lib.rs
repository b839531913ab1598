//! Sealed ranges of the event log: what stands in a partition, in objects of the object store, so that the log outlives
//! any broker. [`SealedRanges`] writes and reads them; [`SealedEventLog`] is a log that reads there what it has lost.
//!
//! A range's key follows from site, life, partition and a running number, so that ranges are found with nothing but the
//! object store. A new life of the log begins a numbering of its own: what was sealed before, of offsets that are of the new
//! life now, is passed over.
#![forbid(unsafe_code)]

mod format;
mod log;
mod name;
mod ranges;
mod read;
mod seal;
#[cfg(test)]
mod tests;

pub use log::SealedEventLog;
pub use name::RangeName;
pub use ranges::{SealedRange, SealedRanges};
