//! The DIMSE door: DICOM associations over TCP, and the service classes spoken on them.
//!
//! Layers, from the wire upwards: [`pdu`] (bytes to PDUs, fragments without copies), [`negotiate`] (what an
//! association may carry), [`command`] (command sets), [`association`] (messages in and out), [`acceptor`] and
//! [`requestor`] (how an association comes to be), [`server`] (listener, limits, drain).
//!
//! Invariants held here: no success before the service said so (I2), no patient attribute in a log or error text
//! (I9), every buffer, count and time bounded by [`Limits`] (I10).
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod association;
pub mod command;
mod config;
mod door;
mod metrics;
pub mod negotiate;
pub mod pdu;
mod read_after;
pub mod requestor;
pub mod scu;
pub mod server;
mod services;
#[cfg(test)]
mod testing;

pub use association::{Association, AssociationError, Message, Peer, Received};
pub use command::{Command, CommandField, Status};
pub use config::{Implementation, Limits};
pub use door::{Backends, Destination, Door, Partners};
