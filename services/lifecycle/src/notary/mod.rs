//! Proof that the log was not altered: trees over its partitions, signed checkpoints, proofs.
//!
//! The log is the truth here too. Trees are remade from it when they are lost; a checkpoint counts once its event is in
//! the log, and is exported afterwards, as often as it takes. What is signed goes on from the latest checkpoint, or says where not.

mod export;
mod prove;
mod service;
mod sign;
mod tree;
mod trees;
mod whole;

pub use service::NotaryService;
pub use sign::Signer;
pub use whole::verify_log;

#[cfg(test)]
pub(crate) mod tests;
