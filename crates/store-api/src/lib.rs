//! The four storage ports. Each trait lists numbered clauses; each clause is a conformance trial of the same name
//! that every adapter runs. No port has an optional method.
#![forbid(unsafe_code)]

mod error;
mod event_log;
mod index_store;
mod keys;
mod lives;
mod membership;
mod object_store;
mod tiers;
pub mod tree;

pub use error::{StoreError, StoreErrorKind};
pub use event_log::{EventLog, LogBatch, LogRecord, Record, as_stored};
pub use index_store::{CkRange, Commit, Generation, IndexStore, Mutation, Page, Row, Table};
pub use keys::{HandedKey, KeyPage, KeyRing, KeyRingConfig, KeyState, KeyStore, SealedLog};
pub use lives::{Life, Lives};
pub use membership::{Membership, Release, ShareChange, WholeLog};
pub use object_store::{ByteStream, ObjectInfo, ObjectPage, ObjectRef, ObjectStore, ObjectWriter, StoreSpace};
pub use tiers::{Tier, Tiers};
