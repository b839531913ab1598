//! Replication: another site kept in step, how far behind it is, and what would be lost with this one.
//!
//! Responsible for: copying events, and the objects that they name, between the logs of sites. Reads: the event log, every
//! type; objects. Writes: what peers bring, to this site's objects and then its log; and its own notes of how far each peer
//! is, which can all be had again from the logs. It decides nothing about instances: what events mean is the fold's.
//!
//! An event goes to a peer as it stands in the log, with its identity and its origin: the place where it became a fact. A
//! log holds of each origin's partition a prefix, in order; so what a site holds is a vector of offsets, a repeat is seen
//! by its origin, and no event goes round in a ring of sites. Holds I1 (objects are durable before the events that name
//! them), I11 and I12 at the boundary between sites, I9 and I10.
#![forbid(unsafe_code)]

mod authority;
mod config;
mod follow;
mod metrics;
mod named;
mod notes;
mod pace;
pub mod plan;
mod reached;
mod receive;
pub mod renew;
mod repair;
mod risk;
mod send;
mod service;
mod sites;
mod standing;

pub use config::{BandwidthRule, Day, PeerConfig, ReplicationConfig, TimeOfDay, UtcOffset};
pub use service::{PeerConnection, ReplicationService};
