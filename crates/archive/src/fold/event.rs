//! What one event says of an instance, or why it can't be folded.

use super::{ErasureStep, EventOrder, Remedy, Resend, Stamp, StoredObject, TablesAt, Version, extract::Told};
use crate::{
    events::{InstanceStored, InstanceStoredSide, Object, ResendPolicy, frame_table::Layout},
    ids::{Digest, EventId, ObjectKey},
};
use bytes::Bytes;
use cairn_dicom::Uid;
use prost::Message;

/// Frame and bulk data tables up to this many bytes stay in the version's row.
const TABLES_HERE_BYTES_MAX: usize = 256;

/// Why an event can't be folded. It is parked with this reason; later events apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// Its type is not known to this build.
    #[error("event type is not known to this build")]
    UnknownType,
    /// Its payload does not decode.
    #[error("event payload does not decode")]
    Undecodable,
    /// Its payload is about another study or tenant than its envelope says.
    #[error("event payload and envelope disagree")]
    Disagreement,
    /// It stands in another partition than its study's.
    #[error("event stands in the wrong partition")]
    WrongPartition,
    /// A UID in it can't be used.
    #[error("event has an unusable identifier")]
    BadIdentifier,
    /// Something that it must name is missing or malformed.
    #[error("event lacks a required field or has it malformed")]
    Malformed,
    /// Something of it is sealed, and its key does not open it.
    #[error("event is not what was sealed under its key")]
    Encrypted,
    /// What it would add to a row goes beyond the row's bounds.
    #[error("event is too large for the index")]
    TooLarge,
    /// The build failed at it, again and again.
    #[error("event meets a defect of this build")]
    Defect,
    /// Its record in the log has no envelope that can be read: something else than an archive wrote it.
    #[error("record has no readable envelope")]
    Unreadable,
}

/// A SOP Instance within its study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
}

/// An event that changes nothing shown but leaves a trace (I5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// What it says.
    pub kind: TraceKind,
}

/// What a trace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// The bytes of a stored version arrived again.
    ReceivedAgain {
        /// Which instance.
        identity: Identity,
        /// The store event whose object has the same bytes.
        store_event: EventId,
    },
    /// A receipt was closed: stored, repeated, refused.
    ReceiptClosed {
        /// Counts of the study.
        counts: [u32; 3],
    },
    /// Instances were rejected; which ones, their facts say.
    Rejected {
        /// The note's store event.
        note: EventId,
    },
    /// A rejection was taken back.
    Revoked {
        /// The rejection.
        rejection: EventId,
    },
    /// Attributes were corrected; how, the study's corrections say.
    Corrected,
    /// Corrections were taken back; which, the study's corrections say.
    CorrectionRevoked,
    /// A site moved the study to one of its object stores; which, the study's places say.
    Moved,
    /// Something came of an erasure; what it names, facts say.
    Erasure {
        /// What.
        step: ErasureStep,
        /// The event that it follows: the request, or what took effect where objects were destroyed; of a request, itself.
        of: EventId,
    },
    /// A repair of another event.
    Repaired {
        /// The event repaired.
        event: EventId,
        /// What was done about it.
        remedy: Remedy,
        /// Hash of what replaces it; zeros: nothing does.
        content: [u8; 32],
    },
}

impl Trace {
    /// Whether it is of one site alone, and no part of the canonical state.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.kind, TraceKind::Moved)
    }

    /// What of the canonical state it is.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.order.id.as_bytes());
        match &self.kind {
            TraceKind::ReceivedAgain { identity, store_event } => {
                hasher.update(b"again").update(store_event.as_bytes());
                hasher.update(identity.series.as_str().as_bytes()).update(&[0]);
                hasher.update(identity.instance.as_str().as_bytes());
            }
            TraceKind::ReceiptClosed { counts } => {
                hasher.update(b"receipt");
                counts.iter().for_each(|count| {
                    hasher.update(&count.to_le_bytes());
                });
            }
            TraceKind::Rejected { note } => {
                hasher.update(b"rejected").update(note.as_bytes());
            }
            TraceKind::Revoked { rejection } => {
                hasher.update(b"revoked").update(rejection.as_bytes());
            }
            TraceKind::Corrected => {
                hasher.update(b"corrected");
            }
            TraceKind::CorrectionRevoked => {
                hasher.update(b"correction-revoked");
            }
            TraceKind::Moved => {
                hasher.update(b"moved");
            }
            TraceKind::Erasure { step, of } => {
                hasher.update(b"erasure").update(&[*step as u8]).update(of.as_bytes());
            }
            TraceKind::Repaired { event, remedy, content } => {
                hasher.update(b"repaired").update(event.as_bytes()).update(&[*remedy as u8]).update(content);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

pub(super) fn identity(series: &str, instance: &str) -> Result<Identity, Poison> {
    let uid = |text: &str| text.parse::<Uid>().map_err(|_| Poison::BadIdentifier);
    Ok(Identity { series: uid(series)?, instance: uid(instance)? })
}

pub(super) fn event_id(bytes: &[u8]) -> Result<EventId, Poison> {
    EventId::from_slice(bytes).map_err(|_| Poison::Malformed)
}

pub(super) fn object(object: &Object) -> Result<StoredObject, Poison> {
    Ok(StoredObject {
        key: ObjectKey::from_slice(&object.key).map_err(|_| Poison::Malformed)?,
        length: object.length_bytes,
        digest: Digest::from_slice(&object.blake3).map_err(|_| Poison::Malformed)?,
    })
}

/// A version as its store event says, and its tables where they need a row of their own.
pub(super) fn version_of(
    order: EventOrder,
    stamp: Stamp,
    by: Option<EventId>,
    event: InstanceStored,
    told: &Told,
    has_header: bool,
) -> Result<(Version, Option<Bytes>), Poison> {
    for uid in [&event.sop_class_uid, &event.transfer_syntax_uid] {
        uid.parse::<Uid>().map_err(|_| Poison::BadIdentifier)?;
    }
    let stored = object(event.object.as_ref().ok_or(Poison::Malformed)?)?;
    let side_object = event.side_object.as_ref().map(object).transpose()?;
    let counted = event.frame_table.as_ref().and_then(|table| table.layout.as_ref()).map(|layout| match layout {
        Layout::Native(native) => native.frames,
        Layout::Fragmented(fragmented) => u32::try_from(fragmented.range_ends.len()).unwrap_or(u32::MAX),
        Layout::DerivedFrames(frames) => *frames,
    });
    let has_pixels = event.pixel_data_offset > 0 || counted.is_some();
    let frames = if has_pixels { told.frames.or(counted).unwrap_or(1).max(1) } else { 0 };
    let receipt = event.receipt.unwrap_or_default();
    let profile = event.sender_profile.unwrap_or_default();
    let resend = match profile.resend_policy() {
        ResendPolicy::SupersedeSameSource => Resend::SupersedeSameSource,
        ResendPolicy::Refuse => Resend::Refuse,
        ResendPolicy::Keep | ResendPolicy::Unspecified => Resend::Keep,
    };
    let side = InstanceStoredSide { protected: None, frame_table: event.frame_table, bulk_data: event.bulk_data };
    let tables = Bytes::from(side.encode_to_vec());
    let (tables, apart) = match tables.len() {
        0 => (TablesAt::Nowhere, None),
        length if length <= TABLES_HERE_BYTES_MAX => (TablesAt::Here(tables), None),
        _ => (TablesAt::Apart, Some(tables)),
    };
    let version = Version {
        order,
        stamp,
        by,
        object: stored,
        sop_class_uid: event.sop_class_uid,
        transfer_syntax_uid: event.transfer_syntax_uid,
        data_set_offset: event.data_set_offset,
        pixel_data_offset: event.pixel_data_offset,
        frames,
        instance_number: told.instance_number,
        side_object,
        calling_ae_title: receipt.calling_ae_title,
        issuer_of_patient_id: profile.issuer_of_patient_id,
        default_character_set: profile.default_character_set,
        time_zone: profile.time_zone,
        resend,
        has_header,
        is_shredded: false,
        tables,
    };
    Ok((version, apart))
}
