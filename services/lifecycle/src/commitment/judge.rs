//! What the versions that the archive has of an instance mean for its commitment.

use cairn_archive::{
    EventId,
    commitment::{FailureReason, Reference},
};
use cairn_dicom::{Uid, dictionary, sop_class::storage_class};
use cairn_service_api::index::InstanceRecord;

/// What is to be done about a reference.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judged {
    /// These are to be read back; it is committed if all are whole.
    ToRead(Vec<InstanceRecord>),
    /// It is not committed.
    Failed(FailureReason),
    /// It is not committed as things are: they may become others.
    NotYet(FailureReason),
}

/// Which version of an instance its requester stored last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredLast {
    /// This one.
    Version(EventId),
    /// None of them.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// Whether it matters which of the versions that a reference means the requester stored: there are several, in one place or
/// in several.
pub(super) fn is_of_several(records: &[&InstanceRecord]) -> bool {
    records.len() > 1
}

/// The versions that a reference means, of those that have its SOP Instance UID.
pub(super) fn meant<'a>(reference: &Reference, found: &'a [InstanceRecord]) -> Vec<&'a InstanceRecord> {
    let is_within = |record: &&InstanceRecord| {
        reference.within.as_ref().is_none_or(|within| {
            record.study_instance_uid == within.study_instance_uid
                && record.series_instance_uid == within.series_instance_uid
        })
    };
    found.iter().filter(is_within).collect()
}

/// Judges a reference by the versions that it means. Committed is what the requester stored last, and only while that is
/// what the archive shows; a requester that stored none of them is promised what is shown.
pub(super) fn judge(reference: &Reference, records: &[&InstanceRecord], stored_last: StoredLast) -> Judged {
    if records.is_empty() {
        return match is_stored_class(&reference.sop_class_uid) {
            true => Judged::NotYet(FailureReason::NO_SUCH_OBJECT_INSTANCE),
            false => Judged::Failed(FailureReason::SOP_CLASS_NOT_SUPPORTED),
        };
    }
    let chosen: Vec<_> = match (records, stored_last) {
        ([only], _) => vec![*only],
        (_, StoredLast::Version(event)) => shown_for(records, event),
        (_, StoredLast::Nothing) => records.iter().copied().filter(|of| of.shown).collect(),
        (_, StoredLast::Unknown) => Vec::new(),
    };
    // What is to be erased is no promise to delete by.
    if chosen.is_empty() || chosen.iter().any(|of| !of.shown || of.is_to_be_erased) {
        return Judged::NotYet(FailureReason::PROCESSING_FAILURE);
    }
    if chosen.iter().any(|of| of.sop_class_uid != reference.sop_class_uid) {
        return Judged::Failed(FailureReason::CLASS_INSTANCE_CONFLICT);
    }
    Judged::ToRead(chosen.into_iter().cloned().collect())
}

/// A version, or the one of the same bytes that is shown for it because its own are damaged.
fn shown_for<'a>(records: &[&'a InstanceRecord], event: EventId) -> Vec<&'a InstanceRecord> {
    let Some(last) = records.iter().find(|of| of.store_event == event) else { return Vec::new() };
    let same = |of: &&&InstanceRecord| of.shown && of.object.digest == last.object.digest;
    vec![records.iter().find(same).unwrap_or(last)]
}

/// Whether instances of the class may be stored: it is of storage, private, or of a later edition.
fn is_stored_class(class: &Uid) -> bool {
    storage_class(class.as_str()).is_some() || dictionary::uid(class.as_str()).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cairn_archive::{Digest, ObjectKey, commitment::Within, rejection::Titles};
    use cairn_store_api::ObjectRef;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const MR: &str = "1.2.840.10008.5.1.4.1.1.4";

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    fn id(number: u8) -> EventId {
        EventId::from_slice(&[number; 16]).unwrap()
    }

    fn record(number: u8, study: &str, shown: bool) -> InstanceRecord {
        InstanceRecord {
            study_instance_uid: uid(study),
            series_instance_uid: uid("1.2.2"),
            sop_instance_uid: uid("1.2.3"),
            sop_class_uid: uid(CT),
            transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
            store_event: id(number),
            object: ObjectRef {
                key: ObjectKey::from_slice(&[number; 16]).unwrap(),
                length: 1,
                digest: Digest([number; 32]),
            },
            data_set_offset: 0,
            pixel_data_offset: 0,
            shown,
            damaged: false,
            is_to_be_erased: false,
            is_cold: false,
            corrections: Vec::new(),
            corrected_length: None,
            rejected: Titles::default(),
            frames: 0,
            frame_table: None,
            bulk_data: Vec::new(),
            header: Bytes::new(),
            side_object: None,
            default_character_set: String::new(),
            issuer_of_patient_id: String::new(),
        }
    }

    fn reference(class: &str) -> Reference {
        Reference { sop_class_uid: uid(class), sop_instance_uid: uid("1.2.3"), within: None }
    }

    #[test]
    fn what_is_not_there_is_awaited_unless_it_can_never_be() {
        let judged = |class: &str| judge(&reference(class), &[], StoredLast::Nothing);
        assert_eq!(judged(CT), Judged::NotYet(FailureReason::NO_SUCH_OBJECT_INSTANCE));
        assert_eq!(judged("1.3.46.670589.2.3"), Judged::NotYet(FailureReason::NO_SUCH_OBJECT_INSTANCE), "private");
        assert_eq!(judged("1.2.840.10008.1.1"), Judged::Failed(FailureReason::SOP_CLASS_NOT_SUPPORTED), "Verification");
    }

    #[test]
    fn of_several_versions_the_one_that_its_requester_stored_last_must_be_shown() {
        let (first, second) = (record(1, "1.2.1", true), record(2, "1.2.1", false));
        let both = [&first, &second];
        let judged = |stored_last| judge(&reference(CT), &both, stored_last);
        assert_eq!(judged(StoredLast::Version(id(1))), Judged::ToRead(vec![first.clone()]));
        assert_eq!(judged(StoredLast::Nothing), Judged::ToRead(vec![first.clone()]));
        let not_shown = Judged::NotYet(FailureReason::PROCESSING_FAILURE);
        assert_eq!(judged(StoredLast::Version(id(2))), not_shown);
        assert_eq!(judged(StoredLast::Unknown), not_shown);
        assert_eq!(judge(&reference(CT), &[&second], StoredLast::Nothing), not_shown);
        let to_be_erased = InstanceRecord { is_to_be_erased: true, ..first.clone() };
        assert_eq!(judge(&reference(CT), &[&to_be_erased], StoredLast::Nothing), not_shown);
        let mut same_bytes = second.clone();
        same_bytes.object.digest = first.object.digest;
        let judged = judge(&reference(CT), &[&first, &same_bytes], StoredLast::Version(id(2)));
        assert_eq!(judged, Judged::ToRead(vec![first]), "shown for the one whose own bytes are damaged");
    }

    #[test]
    fn another_class_is_a_conflict_and_is_not_awaited() {
        let only = record(1, "1.2.1", true);
        let judged = judge(&reference(MR), &[&only], StoredLast::Nothing);
        assert_eq!(judged, Judged::Failed(FailureReason::CLASS_INSTANCE_CONFLICT));
    }

    #[test]
    fn in_several_studies_every_one_counts_unless_the_request_says_which() {
        let found = [record(1, "1.2.1", true), record(2, "1.2.9", true)];
        let anywhere = reference(CT);
        assert_eq!(meant(&anywhere, &found).len(), 2);
        let judged = judge(&anywhere, &meant(&anywhere, &found), StoredLast::Nothing);
        assert_eq!(judged, Judged::ToRead(found.to_vec()));
        let within = Within { study_instance_uid: uid("1.2.9"), series_instance_uid: uid("1.2.2") };
        let there = Reference { within: Some(within), ..anywhere };
        assert_eq!(meant(&there, &found), [&found[1]]);
    }
}
