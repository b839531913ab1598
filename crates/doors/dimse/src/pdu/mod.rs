//! Protocol Data Units of the DICOM Upper Layer (PS3.8 section 9.3, edition 2025c).
//!
//! The association PDUs are read whole, with a limit of their own, into the types of this module. P-DATA-TF
//! never is: [`frame::PduReader`] hands its fragments on as slices of the receive buffer.
//!
//! The codec is our own. That of dicom-ul 0.10 was looked at: it refuses a whole association for an item type that it
//! does not know and for a rejected context without a transfer syntax, has no types for items 53H, 57H and 59H, and
//! copies every fragment.
//!
//! What is read leniently: unknown items are skipped, as PS3.8 section 9.3.1 demands; UIDs may be padded with
//! NUL or spaces; a rejected presentation context need not name a transfer syntax. What is not: a length that
//! does not fit in what encloses it.

mod decode;
mod encode;
pub mod frame;
mod parts;
#[cfg(test)]
mod tests;

pub use decode::{decode_associate_ac, decode_associate_rq};
pub(crate) use encode::DICOM_APPLICATION_CONTEXT;
pub use encode::{encode_abort, encode_associate_ac, encode_associate_rj, encode_associate_rq, encode_release};
pub use parts::*;

/// PDU types (PS3.8 section 9.3, first byte of every PDU).
pub mod pdu_type {
    /// A-ASSOCIATE-RQ
    pub const ASSOCIATE_RQ: u8 = 0x01;
    /// A-ASSOCIATE-AC
    pub const ASSOCIATE_AC: u8 = 0x02;
    /// A-ASSOCIATE-RJ
    pub const ASSOCIATE_RJ: u8 = 0x03;
    /// P-DATA-TF
    pub const P_DATA_TF: u8 = 0x04;
    /// A-RELEASE-RQ
    pub const RELEASE_RQ: u8 = 0x05;
    /// A-RELEASE-RP
    pub const RELEASE_RP: u8 = 0x06;
    /// A-ABORT
    pub const ABORT: u8 = 0x07;
}

/// Item and sub-item types inside association PDUs (PS3.8 sections 9.3.2 to 9.3.3, PS3.7 annex D.3.3).
pub mod item_type {
    /// Application Context
    pub const APPLICATION_CONTEXT: u8 = 0x10;
    /// Presentation Context, as proposed in A-ASSOCIATE-RQ
    pub const PRESENTATION_CONTEXT_RQ: u8 = 0x20;
    /// Presentation Context, as answered in A-ASSOCIATE-AC
    pub const PRESENTATION_CONTEXT_AC: u8 = 0x21;
    /// Abstract Syntax
    pub const ABSTRACT_SYNTAX: u8 = 0x30;
    /// Transfer Syntax
    pub const TRANSFER_SYNTAX: u8 = 0x40;
    /// User Information
    pub const USER_INFORMATION: u8 = 0x50;
    /// Maximum Length (PS3.8 annex D.1)
    pub const MAXIMUM_LENGTH: u8 = 0x51;
    /// Implementation Class UID (PS3.7 D.3.3.2)
    pub const IMPLEMENTATION_CLASS_UID: u8 = 0x52;
    /// Asynchronous Operations Window (PS3.7 D.3.3.3)
    pub const ASYNCHRONOUS_OPERATIONS: u8 = 0x53;
    /// SCP/SCU Role Selection (PS3.7 D.3.3.4)
    pub const ROLE_SELECTION: u8 = 0x54;
    /// Implementation Version Name (PS3.7 D.3.3.2)
    pub const IMPLEMENTATION_VERSION_NAME: u8 = 0x55;
    /// SOP Class Extended Negotiation (PS3.7 D.3.3.5)
    pub const SOP_CLASS_EXTENDED: u8 = 0x56;
    /// SOP Class Common Extended Negotiation (PS3.7 D.3.3.6)
    pub const SOP_CLASS_COMMON_EXTENDED: u8 = 0x57;
    /// User Identity, request (PS3.7 D.3.3.7)
    pub const USER_IDENTITY_RQ: u8 = 0x58;
    /// User Identity, response (PS3.7 D.3.3.7)
    pub const USER_IDENTITY_AC: u8 = 0x59;
}

/// Bytes before the variable field of any PDU: type, a reserved byte, and the length as 32 bits.
pub const PDU_HEADER_BYTES: usize = 6;
/// Bytes before the fragment in a Presentation Data Value: length as 32 bits, context ID, message control header.
pub const PDV_HEADER_BYTES: usize = 6;
