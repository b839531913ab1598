//! The services' traits over gRPC. [`server`] serves any implementation of a trait; [`client`] implements the traits
//! by calling one. A caller that holds a trait object cannot tell them apart; one behaviour suite runs on both.
#![forbid(unsafe_code)]

pub mod client;
mod commitment;
mod convert;
mod correction;
mod digests;
mod error;
mod generations;
mod identifier;
mod lifecycle;
mod notary;
mod orphans;
mod parked;
mod patients;
mod policies;
mod rejection;
mod replication;
mod retention;
pub mod server;
mod site;
mod streams;
mod survey;
mod tiering;
mod tls;

/// Generated messages and stubs, one module per proto package.
pub mod proto {
    #![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated; documented in proto/")]
    /// `cairn`
    pub mod cairn {
        /// `cairn.common`
        pub mod common {
            /// `cairn.common.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.common.v1");
            }
        }
        /// `cairn.ingest`
        pub mod ingest {
            /// `cairn.ingest.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.ingest.v1");
            }
        }
        /// `cairn.index`
        pub mod index {
            /// `cairn.index.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.index.v1");
            }
        }
        /// `cairn.retrieval`
        pub mod retrieval {
            /// `cairn.retrieval.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.retrieval.v1");
            }
        }
        /// `cairn.lifecycle`
        pub mod lifecycle {
            /// `cairn.lifecycle.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.lifecycle.v1");
            }
        }
        /// `cairn.log`
        pub mod log {
            /// `cairn.log.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.log.v1");
            }
        }
        /// `cairn.replication`
        pub mod replication {
            /// `cairn.replication.v1`
            pub mod v1 {
                tonic::include_proto!("cairn.replication.v1");
            }
        }
    }
    /// Descriptors of all packages, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use proto::cairn::{
    common::v1 as common, index::v1 as index_proto, ingest::v1 as ingest_proto, lifecycle::v1 as lifecycle_proto,
    log::v1 as log_proto, replication::v1 as replication_proto, retrieval::v1 as retrieval_proto,
};

pub use tls::Tls;
pub use tonic::{Code, Status};
