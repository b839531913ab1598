//! Proof that history was not altered: a Merkle tree over each partition of a log in its order, checkpoints of all the trees
//! that somebody signs, and proofs that an event, or an older checkpoint, is in a newer one.
//!
//! Trees have the shapes of RFC 6962 section 2.1, and its hash, SHA-256: every language has it, so that a verifier of a few lines
//! needs nothing of ours (objects keep BLAKE3, which verifies ranges). Documents are text; a checkpoint is a signed note
//! (C2SP signed-note, Ed25519). CONFORMANCE.md writes the formats down for those who verify them.

pub mod base64;
mod checkpoint;
mod document;
mod leaf;
mod note;
mod proof;
mod tree;

pub use checkpoint::{Break, Checkpoint, LifeBegun, TreeHead};
pub use leaf::{Leaf, leaf_hash};
pub use note::{Note, PublicKey, SignedBy, body_hash};
pub use proof::{ConsistencyProof, EventProof, Proven};
pub use tree::{Frontier, Node, Span, TreeHash, consistency, inclusion, verify_consistency, verify_inclusion};

/// Why a document proves nothing. Names no value of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// It is not what it should be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// None of the keys given signed it.
    #[error("the checkpoint is signed by none of the keys given")]
    UnknownSigner,
    /// The signature is not of this text.
    #[error("the checkpoint is not as the owner of the key signed it")]
    BadSignature,
    /// The tree of the checkpoint does not have the event.
    #[error(
        "the event at offset {offset} of partition {partition} is not, or not so, in the log that the checkpoint is of"
    )]
    NotIncluded {
        /// Partition of the log.
        partition: u16,
        /// Place in it.
        offset: u64,
    },
    /// The payload is another than the event's.
    #[error("the payload is not the event's")]
    OtherPayload,
    /// Of one log the proof and the checkpoint can't be.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// What the older checkpoint has of a partition, the newer does not.
    #[error("partition {0} does not go on from what the older checkpoint has of it")]
    Inconsistent(u16),
}
