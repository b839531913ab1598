//! Retrieval: streaming instances, frames, metadata and bulk data, from the object store to whoever asked.
//!
//! Responsible for: giving stored bytes out, corrections applied on the way (I4), each verified before it leaves, in bounded memory (I10),
//! reading no more than what is asked for. Reads: the index, for where things are; objects. Writes nothing: damage is
//! logged, counted, answered as `Corrupt`, and told to lifecycle; of what is cold it asks that it be recalled.
#![forbid(unsafe_code)]

mod ahead;
mod byte_order;
pub mod config;
mod corrected;
mod decoded;
mod derived;
mod frames;
mod metrics;
mod read;
mod recall;
mod report;
mod service;
mod side;

pub use config::RetrievalConfig;
pub use service::{RetrievalService, Told};
