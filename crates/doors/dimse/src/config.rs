//! Limits and timeouts of the door. Every one has a safe default.

use crate::pdu::frame::PduLimits;
use cairn_process::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What one listener, and each association on it, may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest A-ASSOCIATE-RQ or -AC, in bytes of its variable field. A legal request of 128 contexts with 20
    /// transfer syntaxes each has 71,553; the negotiated maximum length concerns P-DATA alone.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub associate_bytes_max: u32,
    /// Largest P-DATA-TF that we take, in bytes of its variable field: announced, then enforced. Costs no memory,
    /// because fragments are handed on as they arrive.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub maximum_length: u32,
    /// Largest P-DATA-TF that we send to a peer that sets no limit, in bytes of its variable field.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub send_length_max: u32,
    /// Largest command set, in bytes.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub command_bytes_max: usize,
    /// Largest identifier of a query or retrieve request, in bytes.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub identifier_bytes_max: usize,
    /// Largest data set of a request for storage commitment, in bytes. An instance takes some 110 of them.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub commitment_bytes_max: usize,
    /// Instances that one request for storage commitment may be about.
    pub commitment_references_max: usize,
    /// Requests for storage commitment of one association whose decision may be reported on it; others are reported on
    /// another.
    pub commitments_awaited_max: usize,
    /// For storage commitment to take a request, or word of a report.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub commitment_timeout: Duration,
    /// Room made for one read from the socket, in bytes.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub read_bytes: usize,
    /// ARTIM: from the accepted connection to a complete A-ASSOCIATE-RQ, and the same for a requestor's answer.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub artim: Duration,
    /// Between messages, with nothing under way.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// Time spent waiting for the bytes of one PDU, or for the next PDU of a message that has begun.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub transfer_timeout: Duration,
    /// Fewest bytes a second, on average over a message, that a peer may send once `transfer_timeout` was spent waiting
    /// for it; slower ones are aborted. 0: no bound.
    pub receive_rate_min: u32,
    /// Without progress while writing.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// For a response to a request of ours (C-STORE sub-operations, C-ECHO), and for A-RELEASE-RP.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub response_timeout: Duration,
    /// To make a connection to a peer.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// For the peer to close the connection once we are done (Sta13).
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub close_timeout: Duration,
    /// For a query or retrieval to wait until the index has what its AE stored; then it goes ahead without.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub read_after_timeout: Duration,
    /// To close an association's receipt.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub receipt_timeout: Duration,
    /// Connections open at once, with an association or without; beyond it they are closed at once.
    pub connections_max: usize,
    /// Connections open at once from one address.
    pub connections_per_address_max: usize,
    /// Associations at once; beyond it they are rejected as transient (local limit exceeded).
    pub associations_max: usize,
    /// Associations at once by one calling AE title.
    pub associations_per_ae_max: usize,
    /// Requests held back while another is under way, by a peer that pipelines without having negotiated it.
    pub held_messages_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            associate_bytes_max: 1024 * 1024,
            maximum_length: 128 * 1024,
            send_length_max: 128 * 1024,
            command_bytes_max: 64 * 1024,
            identifier_bytes_max: 4 * 1024 * 1024,
            commitment_bytes_max: 16 * 1024 * 1024,
            commitment_references_max: 100_000,
            commitments_awaited_max: 64,
            commitment_timeout: Duration::from_secs(30),
            read_bytes: 256 * 1024,
            artim: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            transfer_timeout: Duration::from_secs(60),
            receive_rate_min: 1024,
            write_timeout: Duration::from_secs(60),
            response_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            read_after_timeout: Duration::from_secs(2),
            receipt_timeout: Duration::from_secs(10),
            connections_max: 512,
            connections_per_address_max: 256,
            associations_max: 256,
            associations_per_ae_max: 128,
            held_messages_max: 16,
        }
    }
}

impl Limits {
    /// The part that concerns reading PDUs.
    pub fn pdu(&self) -> PduLimits {
        PduLimits { associate_bytes_max: self.associate_bytes_max, data_bytes_max: self.maximum_length }
    }
}

/// Who we say we are in every association (PS3.7 D.3.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Implementation {
    /// Implementation Class UID
    pub class_uid: String,
    /// Implementation Version Name, 1 to 16 characters
    pub version_name: String,
}

impl Default for Implementation {
    fn default() -> Self {
        Self {
            class_uid: cairn_dicom::part10::IMPLEMENTATION_CLASS_UID.into(),
            version_name: concat!("CAIRN_", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}
