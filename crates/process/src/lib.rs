//! What a process needs around its service. Time, chance and the disk come through traits, so that simulation runs
//! the shipped code.
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod trace;
pub mod units;
