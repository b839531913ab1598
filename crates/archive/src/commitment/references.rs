//! What is asked about, and which of it failed, as events carry it.

use crate::events::{CommitmentFailures, CommitmentGroup, CommitmentReferences};
use cairn_dicom::Uid;
use prost::Message;
use std::{collections::BTreeMap, fmt};

/// An event that does not hold what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event about storage commitment lacks a required field or has it malformed")]
pub struct Malformed;

/// An instance asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Where it is said to be; `None`: not said.
    pub within: Option<Within>,
}

/// A series in its study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
}

/// Why an instance is not committed (PS3.3 section C.14.1.1, edition 2025c).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureReason(pub u16);

impl FailureReason {
    /// Processing failure: damaged, or another version than the one that the requester stored is shown.
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// No such object instance: the archive does not have it.
    pub const NO_SUCH_OBJECT_INSTANCE: Self = Self(0x0112);
    /// Class / Instance conflict: it is of another SOP Class.
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// Referenced SOP Class not supported: nothing of that class is stored.
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// Duplicate transaction UID.
    pub const DUPLICATE_TRANSACTION_UID: Self = Self(0x0131);
    /// Resource limitation: what was needed to decide was not to be had in time.
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}H", self.0)
    }
}

impl fmt::Debug for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// References in their order, those that follow each other and differ in their SOP Instance UID alone as one group.
pub fn to_groups(references: &[Reference]) -> CommitmentReferences {
    let common = |a: &Reference, b: &Reference| a.sop_class_uid == b.sop_class_uid && a.within == b.within;
    let text = |uid: Option<&Uid>| uid.map(Uid::to_string).unwrap_or_default();
    let group = |group: &[Reference]| {
        let first = group.first()?;
        let within = first.within.as_ref();
        Some(CommitmentGroup {
            sop_class_uid: first.sop_class_uid.to_string(),
            study_instance_uid: text(within.map(|within| &within.study_instance_uid)),
            series_instance_uid: text(within.map(|within| &within.series_instance_uid)),
            sop_instance_uids: group.iter().map(|reference| reference.sop_instance_uid.to_string()).collect(),
        })
    };
    CommitmentReferences { groups: references.chunk_by(common).filter_map(group).collect() }
}

/// The references that groups hold.
///
/// # Errors
/// A UID is none.
pub fn from_groups(references: &CommitmentReferences) -> Result<Vec<Reference>, Malformed> {
    let uid = |text: &str| text.parse::<Uid>().map_err(|_| Malformed);
    let mut all = Vec::with_capacity(references.groups.iter().map(|group| group.sop_instance_uids.len()).sum());
    for group in &references.groups {
        let sop_class_uid = uid(&group.sop_class_uid)?;
        let within = match (group.study_instance_uid.as_str(), group.series_instance_uid.as_str()) {
            ("", "") => None,
            (study, series) => Some(Within { study_instance_uid: uid(study)?, series_instance_uid: uid(series)? }),
        };
        for instance in &group.sop_instance_uids {
            let (sop_class_uid, within) = (sop_class_uid.clone(), within.clone());
            all.push(Reference { sop_class_uid, sop_instance_uid: uid(instance)?, within });
        }
    }
    Ok(all)
}

/// What tells one list of references from another.
pub fn digest(references: &CommitmentReferences) -> [u8; 32] {
    *blake3::hash(&references.encode_to_vec()).as_bytes()
}

/// What failed among references, reason by reason: `outcomes` has an entry for each, `None` where it is committed.
pub fn failures(outcomes: &[Option<FailureReason>]) -> Vec<CommitmentFailures> {
    let mut by_reason: BTreeMap<FailureReason, (u32, Vec<u32>)> = BTreeMap::new();
    for (place, reason) in (0_u32..).zip(outcomes) {
        if let Some(reason) = reason {
            let (before, gaps) = by_reason.entry(*reason).or_default();
            gaps.push(place - *before);
            *before = place;
        }
    }
    let failures = |(reason, (_, place_gaps)): (FailureReason, (u32, Vec<u32>))| CommitmentFailures {
        failure_reason: reason.0.into(),
        count: u32::try_from(place_gaps.len()).unwrap_or(u32::MAX),
        place_gaps,
    };
    by_reason.into_iter().map(failures).collect()
}

/// The reverse of [`failures`], for so many references.
///
/// # Errors
/// A place is beyond them, or a reason is none.
pub fn outcomes(count: usize, failed: &[CommitmentFailures]) -> Result<Vec<Option<FailureReason>>, Malformed> {
    let mut outcomes = vec![None; count];
    for failures in failed {
        let reason = FailureReason(u16::try_from(failures.failure_reason).map_err(|_| Malformed)?);
        let mut place = 0_usize;
        for gap in &failures.place_gaps {
            place = usize::try_from(*gap).ok().and_then(|gap| place.checked_add(gap)).ok_or(Malformed)?;
            *outcomes.get_mut(place).ok_or(Malformed)? = Some(reason);
        }
    }
    Ok(outcomes)
}
