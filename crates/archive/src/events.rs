//! The event types, newest shape, and how payload bytes become them.
//!
//! Generated from `schemas/events/v1`. A released message is never edited; a new version stands beside it, and old
//! bytes are upcast one version at a time here, so that all other code knows only the newest shape.

use crate::ids::ObjectKey;
use bytes::Bytes;
use prost::Message;

/// Version 1 of the persisted messages.
pub mod v1 {
    #![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated; documented in schemas/events/v1")]
    include!(concat!(env!("OUT_DIR"), "/cairn.events.v1.rs"));
}

/// Descriptors of every version's messages, for the guard that refuses edits of released ones.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use v1::{
    ApplicationEntity, AttributesCorrected, BulkDataEntry, CheckpointSigned, CommitmentDecided, CommitmentFailures,
    CommitmentGroup, CommitmentReferences, CommitmentReportOutcome, CommitmentReported, CommitmentReporting,
    CommitmentRequested, Comparison, CorrectionProtected, CorrectionRevoked, Damage, DamageFoundBy, Door,
    ErasedInstance, ErasedSeries, ErasedVersion, ErasureConfirmed, ErasureRequested, ErasureWithdrawn, EventRepaired,
    Finding, FragmentedFrames, FrameTable, HeldPatient, HoldPlaced, HoldProtected, HoldReleased, InstanceProtected,
    InstanceReceivedAgain, InstanceStored, InstanceStoredSide, InstancesRejected, KeptBecause, KeptKey, KeptVersion,
    KeysDestroyed, KeysJudged, MovePolicyAdopted, NamedPatient, NativeFrames, Object, ObjectDamaged, ObjectRepaired,
    ObjectTier, ObjectsDestroyed, OriginEnd, PatientFactRevoked, PatientProtected, PatientUpdated, PatientsLinked,
    PatientsMerged, PolicyAction, PolicyAdopted, PolicyProtected, PolicyWithdrawn, RangeSealed, Receipt, ReceiptClosed,
    ReceiptEnd, RejectedInstance, RejectedSeries, RejectionNote, RejectionRevoked, Replacement, ResendPolicy,
    RevokedSeries, SealedBlock, SealedFooter, SenderProfile, SendersConfigured, SiteDeclaredDead, SiteDemoted,
    SitePromoted, SiteReadOnlySet, StudyMoved, VersionChosen, VersionsCompared, VersionsErased, event_repaired,
    frame_table, object_repaired,
};

/// Any event that this build can read, in its newest shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `cairn.instance.stored.v1`
    InstanceStored(Box<InstanceStored>),
    /// `cairn.instance.received-again.v1`
    InstanceReceivedAgain(Box<InstanceReceivedAgain>),
    /// `cairn.receipt.closed.v1`
    ReceiptClosed(ReceiptClosed),
    /// `cairn.instance.versions-compared.v1`
    VersionsCompared(VersionsCompared),
    /// `cairn.instance.version-chosen.v1`
    VersionChosen(VersionChosen),
    /// `cairn.event.repaired.v1`
    EventRepaired(Box<EventRepaired>),
    /// `cairn.instances.rejected.v1`
    InstancesRejected(Box<InstancesRejected>),
    /// `cairn.rejection.revoked.v1`
    RejectionRevoked(Box<RejectionRevoked>),
    /// `cairn.attributes.corrected.v1`
    AttributesCorrected(Box<AttributesCorrected>),
    /// `cairn.correction.revoked.v1`
    CorrectionRevoked(Box<CorrectionRevoked>),
    /// `cairn.site.promoted.v1`
    SitePromoted(SitePromoted),
    /// `cairn.site.demoted.v1`
    SiteDemoted(SiteDemoted),
    /// `cairn.site.read-only-set.v1`
    SiteReadOnlySet(SiteReadOnlySet),
    /// `cairn.site.declared-dead.v1`
    SiteDeclaredDead(SiteDeclaredDead),
    /// `cairn.site.senders-configured.v1`
    SendersConfigured(SendersConfigured),
    /// `cairn.checkpoint.signed.v1`
    CheckpointSigned(CheckpointSigned),
    /// `cairn.object.damaged.v1`
    ObjectDamaged(ObjectDamaged),
    /// `cairn.object.repaired.v1`
    ObjectRepaired(ObjectRepaired),
    /// `cairn.commitment.requested.v1`
    CommitmentRequested(Box<CommitmentRequested>),
    /// `cairn.commitment.decided.v1`
    CommitmentDecided(CommitmentDecided),
    /// `cairn.commitment.reported.v1`
    CommitmentReported(CommitmentReported),
    /// `cairn.hold.placed.v1`
    HoldPlaced(HoldPlaced),
    /// `cairn.hold.released.v1`
    HoldReleased(HoldReleased),
    /// `cairn.erasure.requested.v1`
    ErasureRequested(Box<ErasureRequested>),
    /// `cairn.erasure.withdrawn.v1`
    ErasureWithdrawn(ErasureWithdrawn),
    /// `cairn.erasure.confirmed.v1`
    ErasureConfirmed(ErasureConfirmed),
    /// `cairn.instance.versions-erased.v1`
    VersionsErased(Box<VersionsErased>),
    /// `cairn.erasure.objects-destroyed.v1`
    ObjectsDestroyed(ObjectsDestroyed),
    /// `cairn.erasure.keys-judged.v1`
    KeysJudged(KeysJudged),
    /// `cairn.erasure.keys-destroyed.v1`
    KeysDestroyed(KeysDestroyed),
    /// `cairn.policy.adopted.v1`
    PolicyAdopted(PolicyAdopted),
    /// `cairn.policy.move-adopted.v1`
    MovePolicyAdopted(MovePolicyAdopted),
    /// `cairn.policy.withdrawn.v1`
    PolicyWithdrawn(PolicyWithdrawn),
    /// `cairn.study.moved.v1`
    StudyMoved(StudyMoved),
    /// `cairn.log.range-sealed.v1`
    RangeSealed(RangeSealed),
    /// `cairn.patient.merged.v1`
    PatientsMerged(PatientsMerged),
    /// `cairn.patient.linked.v1`
    PatientsLinked(PatientsLinked),
    /// `cairn.patient.updated.v1`
    PatientUpdated(PatientUpdated),
    /// `cairn.patient.fact-revoked.v1`
    PatientFactRevoked(PatientFactRevoked),
}

/// Why a payload is not an event that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The CloudEvents type is not known to this build: keep the bytes and pass them on.
    #[error("event type is not known to this build")]
    UnknownType,
    /// The payload does not decode as its type says.
    #[error("event payload does not decode: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

macro_rules! event_kinds {
    ($($variant:ident = $kind:literal),+ $(,)?) => {
        /// Every CloudEvents type that this build writes.
        pub const EVENT_TYPES: &[&str] = &[$($kind),+];

        /// Name of the message that payloads of a CloudEvents type are, in its schema.
        pub fn event_message(kind: &str) -> Option<&'static str> {
            match kind { $($kind => Some(stringify!($variant)),)+ _ => None }
        }

        impl Event {
            /// The CloudEvents type.
            pub fn kind(&self) -> &'static str {
                match self { $(Event::$variant(_) => $kind,)+ }
            }

            /// The payload.
            pub fn encode(&self) -> Bytes {
                match self { $(Event::$variant(event) => event.encode_to_vec().into(),)+ }
            }

            /// Reads a payload of the CloudEvents type `kind`. The event's byte fields share the payload's buffer.
            pub fn decode(kind: &str, payload: Bytes) -> Result<Self, EventError> {
                match kind {
                    $($kind => Ok(Event::$variant(Message::decode(payload)?)),)+
                    _ => Err(EventError::UnknownType),
                }
            }
        }
    };
}

event_kinds! {
    InstanceStored = "cairn.instance.stored.v1",
    InstanceReceivedAgain = "cairn.instance.received-again.v1",
    ReceiptClosed = "cairn.receipt.closed.v1",
    VersionsCompared = "cairn.instance.versions-compared.v1",
    VersionChosen = "cairn.instance.version-chosen.v1",
    EventRepaired = "cairn.event.repaired.v1",
    InstancesRejected = "cairn.instances.rejected.v1",
    RejectionRevoked = "cairn.rejection.revoked.v1",
    AttributesCorrected = "cairn.attributes.corrected.v1",
    CorrectionRevoked = "cairn.correction.revoked.v1",
    SitePromoted = "cairn.site.promoted.v1",
    SiteDemoted = "cairn.site.demoted.v1",
    SiteReadOnlySet = "cairn.site.read-only-set.v1",
    SiteDeclaredDead = "cairn.site.declared-dead.v1",
    SendersConfigured = "cairn.site.senders-configured.v1",
    CheckpointSigned = "cairn.checkpoint.signed.v1",
    ObjectDamaged = "cairn.object.damaged.v1",
    ObjectRepaired = "cairn.object.repaired.v1",
    CommitmentRequested = "cairn.commitment.requested.v1",
    CommitmentDecided = "cairn.commitment.decided.v1",
    CommitmentReported = "cairn.commitment.reported.v1",
    HoldPlaced = "cairn.hold.placed.v1",
    HoldReleased = "cairn.hold.released.v1",
    ErasureRequested = "cairn.erasure.requested.v1",
    ErasureWithdrawn = "cairn.erasure.withdrawn.v1",
    ErasureConfirmed = "cairn.erasure.confirmed.v1",
    VersionsErased = "cairn.instance.versions-erased.v1",
    ObjectsDestroyed = "cairn.erasure.objects-destroyed.v1",
    KeysJudged = "cairn.erasure.keys-judged.v1",
    KeysDestroyed = "cairn.erasure.keys-destroyed.v1",
    PolicyAdopted = "cairn.policy.adopted.v1",
    MovePolicyAdopted = "cairn.policy.move-adopted.v1",
    PolicyWithdrawn = "cairn.policy.withdrawn.v1",
    StudyMoved = "cairn.study.moved.v1",
    RangeSealed = "cairn.log.range-sealed.v1",
    PatientsMerged = "cairn.patient.merged.v1",
    PatientsLinked = "cairn.patient.linked.v1",
    PatientUpdated = "cairn.patient.updated.v1",
    PatientFactRevoked = "cairn.patient.fact-revoked.v1",
}

impl Event {
    /// Whether it is about sites.
    pub fn is_of_sites(&self) -> bool {
        matches!(
            self,
            Event::SitePromoted(_)
                | Event::SiteDemoted(_)
                | Event::SiteReadOnlySet(_)
                | Event::SiteDeclaredDead(_)
                | Event::SendersConfigured(_)
        )
    }

    /// Whether it is about storage commitment.
    pub fn is_of_commitment(&self) -> bool {
        matches!(self, Event::CommitmentRequested(_) | Event::CommitmentDecided(_) | Event::CommitmentReported(_))
    }

    /// Whether it is about patients, of whichever study.
    pub fn is_of_patients(&self) -> bool {
        matches!(
            self,
            Event::PatientsMerged(_)
                | Event::PatientsLinked(_)
                | Event::PatientUpdated(_)
                | Event::PatientFactRevoked(_)
        )
    }

    /// Whether it is of no study: about sites, patients, a hold, a policy, the log itself, storage commitment, or an object that no
    /// study is known to have. Of these, projections show what is about patients alone.
    pub fn is_of_no_study(&self) -> bool {
        match self {
            Event::HoldPlaced(_) | Event::HoldReleased(_) => true,
            Event::PolicyAdopted(_) | Event::MovePolicyAdopted(_) | Event::PolicyWithdrawn(_) => true,
            Event::ObjectDamaged(_) | Event::ObjectRepaired(_) => self.study_instance_uid().is_empty(),
            Event::CheckpointSigned(_) | Event::RangeSealed(_) => true,
            event => event.is_of_sites() || event.is_of_commitment() || event.is_of_patients(),
        }
    }

    /// Study Instance UID that the event is about: its subject, and what decides its partition. Empty where it is of none.
    pub fn study_instance_uid(&self) -> &str {
        match self {
            Event::InstanceStored(event) => &event.study_instance_uid,
            Event::InstanceReceivedAgain(event) => &event.study_instance_uid,
            Event::ReceiptClosed(event) => &event.study_instance_uid,
            Event::VersionsCompared(event) => &event.study_instance_uid,
            Event::VersionChosen(event) => &event.study_instance_uid,
            Event::EventRepaired(event) => &event.study_instance_uid,
            Event::ObjectDamaged(event) => &event.study_instance_uid,
            Event::ObjectRepaired(event) => &event.study_instance_uid,
            Event::InstancesRejected(event) => &event.study_instance_uid,
            Event::RejectionRevoked(event) => &event.study_instance_uid,
            Event::AttributesCorrected(event) => &event.study_instance_uid,
            Event::CorrectionRevoked(event) => &event.study_instance_uid,
            Event::ErasureRequested(event) => &event.study_instance_uid,
            Event::ErasureWithdrawn(event) => &event.study_instance_uid,
            Event::ErasureConfirmed(event) => &event.study_instance_uid,
            Event::VersionsErased(event) => &event.study_instance_uid,
            Event::ObjectsDestroyed(event) => &event.study_instance_uid,
            Event::StudyMoved(event) => &event.study_instance_uid,
            Event::KeysJudged(event) => &event.study_instance_uid,
            Event::KeysDestroyed(event) => &event.study_instance_uid,
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::PolicyAdopted(_)
            | Event::MovePolicyAdopted(_)
            | Event::PolicyWithdrawn(_)
            | Event::SitePromoted(_)
            | Event::SiteDemoted(_)
            | Event::SiteReadOnlySet(_)
            | Event::SiteDeclaredDead(_)
            | Event::SendersConfigured(_)
            | Event::CheckpointSigned(_)
            | Event::RangeSealed(_)
            | Event::PatientsMerged(_)
            | Event::PatientsLinked(_)
            | Event::PatientUpdated(_)
            | Event::PatientFactRevoked(_)
            | Event::CommitmentRequested(_)
            | Event::CommitmentDecided(_)
            | Event::CommitmentReported(_) => "",
        }
    }

    /// Tenant that the event belongs to. Sites belong to none.
    pub fn tenant(&self) -> &str {
        match self {
            Event::InstanceStored(event) => &event.tenant,
            Event::InstanceReceivedAgain(event) => &event.tenant,
            Event::ReceiptClosed(event) => &event.tenant,
            Event::VersionsCompared(event) => &event.tenant,
            Event::VersionChosen(event) => &event.tenant,
            Event::EventRepaired(event) => &event.tenant,
            Event::ObjectDamaged(event) => &event.tenant,
            Event::ObjectRepaired(event) => &event.tenant,
            Event::InstancesRejected(event) => &event.tenant,
            Event::RejectionRevoked(event) => &event.tenant,
            Event::AttributesCorrected(event) => &event.tenant,
            Event::CorrectionRevoked(event) => &event.tenant,
            Event::CommitmentRequested(event) => &event.tenant,
            Event::CommitmentDecided(event) => &event.tenant,
            Event::CommitmentReported(event) => &event.tenant,
            Event::HoldPlaced(event) => &event.tenant,
            Event::HoldReleased(event) => &event.tenant,
            Event::PolicyAdopted(event) => &event.tenant,
            Event::MovePolicyAdopted(event) => &event.tenant,
            Event::PolicyWithdrawn(event) => &event.tenant,
            Event::ErasureRequested(event) => &event.tenant,
            Event::ErasureWithdrawn(event) => &event.tenant,
            Event::ErasureConfirmed(event) => &event.tenant,
            Event::VersionsErased(event) => &event.tenant,
            Event::ObjectsDestroyed(event) => &event.tenant,
            Event::StudyMoved(event) => &event.tenant,
            Event::PatientsMerged(event) => &event.tenant,
            Event::PatientsLinked(event) => &event.tenant,
            Event::PatientUpdated(event) => &event.tenant,
            Event::PatientFactRevoked(event) => &event.tenant,
            Event::KeysJudged(event) => &event.tenant,
            Event::KeysDestroyed(event) => &event.tenant,
            Event::SitePromoted(_)
            | Event::SiteDemoted(_)
            | Event::SiteReadOnlySet(_)
            | Event::SiteDeclaredDead(_)
            | Event::SendersConfigured(_)
            | Event::CheckpointSigned(_)
            | Event::RangeSealed(_) => "",
        }
    }

    /// Every object that the event names: what it says it should be.
    pub fn objects(&self) -> Vec<Object> {
        match self {
            Event::InstanceStored(event) => event.object.iter().chain(&event.side_object).cloned().collect(),
            Event::EventRepaired(event) => match &event.remedy {
                Some(event_repaired::Remedy::Replacement(by)) => Self::decode(&by.event_type, by.payload.clone())
                    .map(|event| event.objects())
                    .unwrap_or_default(),
                _ => Vec::new(),
            },
            Event::CommitmentRequested(event) => event.side_object.iter().cloned().collect(),
            Event::RangeSealed(event) => event.object.iter().cloned().collect(),
            Event::InstanceReceivedAgain(_)
            | Event::ReceiptClosed(_)
            | Event::VersionsCompared(_)
            | Event::VersionChosen(_)
            | Event::InstancesRejected(_)
            | Event::RejectionRevoked(_)
            | Event::AttributesCorrected(_)
            | Event::CorrectionRevoked(_)
            | Event::SitePromoted(_)
            | Event::SiteDemoted(_)
            | Event::SiteReadOnlySet(_)
            | Event::SiteDeclaredDead(_)
            | Event::SendersConfigured(_)
            | Event::CheckpointSigned(_)
            | Event::PatientsMerged(_)
            | Event::PatientsLinked(_)
            | Event::PatientUpdated(_)
            | Event::PatientFactRevoked(_)
            // The event that they are about names the object.
            | Event::ObjectDamaged(_)
            | Event::ObjectRepaired(_)
            | Event::CommitmentDecided(_)
            | Event::CommitmentReported(_)
            | Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::PolicyAdopted(_)
            | Event::MovePolicyAdopted(_)
            | Event::PolicyWithdrawn(_)
            // What is erased is not to be there.
            | Event::ErasureRequested(_)
            | Event::ErasureWithdrawn(_)
            | Event::ErasureConfirmed(_)
            | Event::VersionsErased(_)
            | Event::ObjectsDestroyed(_)
            | Event::KeysJudged(_)
            | Event::KeysDestroyed(_)
            // The events that stored them name the objects.
            | Event::StudyMoved(_) => Vec::new(),
        }
    }

    /// Their keys, for the envelope: a reader too old for the payload knows them from there.
    pub fn object_keys(&self) -> Vec<ObjectKey> {
        self.objects().iter().filter_map(|object| ObjectKey::from_slice(&object.key).ok()).collect()
    }
}
