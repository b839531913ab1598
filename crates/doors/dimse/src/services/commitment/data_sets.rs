//! Data sets of storage commitment: Action Information and Event Information (PS3.4 tables J.3-1 and J.3-2, PS3.3
//! section C.14, edition 2025c).

use cairn_archive::commitment::{FailureReason, Reference};
use cairn_dicom::{
    Uid, Vr,
    dataset::{DataSet, Value},
    tags,
};
use cairn_service_api::commitment::{Outcome, Report};

/// Why Action Information can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The Transaction UID is missing, or none.
    TransactionUid,
    /// Nothing is asked about, or a reference has a UID that is none.
    References,
    /// More is asked about than may be.
    TooMany,
}

/// Transaction UID and references of Action Information.
pub(crate) fn read_action(action: &DataSet, references_max: usize) -> Result<(Uid, Vec<Reference>), Unusable> {
    let transaction_uid = action.uid(tags::TRANSACTION_UID).ok_or(Unusable::TransactionUid)?;
    let items = action.items(tags::REFERENCED_SOP_SEQUENCE);
    if items.len() > references_max {
        return Err(Unusable::TooMany);
    }
    let reference = |item: &DataSet| {
        let sop_class_uid = item.uid(tags::REFERENCED_SOP_CLASS_UID)?;
        let sop_instance_uid = item.uid(tags::REFERENCED_SOP_INSTANCE_UID)?;
        Some(Reference { sop_class_uid, sop_instance_uid, within: None })
    };
    let references: Option<Vec<_>> = items.iter().map(reference).collect();
    let references = references.filter(|references| !references.is_empty()).ok_or(Unusable::References)?;
    Ok((transaction_uid, references))
}

/// Event Type ID: storage commitment request successful.
const SUCCESSFUL: u16 = 1;
/// Event Type ID: storage commitment request complete, failures exist.
const FAILURES_EXIST: u16 = 2;

/// Event Type ID and Event Information of a report.
pub(crate) fn event(report: Report) -> (u16, DataSet) {
    let mut event = DataSet::new();
    event.put_text(tags::TRANSACTION_UID, report.transaction.transaction_uid.as_str());
    if !report.called_ae_title.is_empty() {
        event.put_text(tags::RETRIEVE_AE_TITLE, &report.called_ae_title);
    }
    let (mut committed, mut failed) = (Vec::new(), Vec::new());
    for Outcome { reference, failure } in report.outcomes {
        let mut item = DataSet::new();
        item.put_text(tags::REFERENCED_SOP_CLASS_UID, reference.sop_class_uid.as_str());
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid.as_str());
        match failure {
            None => committed.push(item),
            Some(FailureReason(reason)) => {
                item.put(tags::FAILURE_REASON, Vr::US, Value::Unsigned(vec![reason.into()]));
                failed.push(item);
            }
        }
    }
    let event_type_id = if failed.is_empty() { SUCCESSFUL } else { FAILURES_EXIST };
    for (tag, items) in [(tags::REFERENCED_SOP_SEQUENCE, committed), (tags::FAILED_SOP_SEQUENCE, failed)] {
        if !items.is_empty() {
            event.put(tag, Vr::SQ, Value::Sequence(items));
        }
    }
    (event_type_id, event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_service_api::commitment::Transaction;

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    fn action(transaction: &str, references: &[(&str, &str)]) -> DataSet {
        let mut set = DataSet::new();
        set.put_text(tags::TRANSACTION_UID, transaction);
        let item = |(class, instance): &(&str, &str)| {
            let mut item = DataSet::new();
            item.put_text(tags::REFERENCED_SOP_CLASS_UID, class);
            item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, instance);
            item
        };
        set.put(tags::REFERENCED_SOP_SEQUENCE, Vr::SQ, Value::Sequence(references.iter().map(item).collect()));
        set
    }

    #[test]
    fn what_is_asked_about_is_read_in_its_order_or_not_at_all() {
        let two = [("1.2.1", "1.3.2"), ("1.2.1", "1.3.1")];
        let (transaction, references) = read_action(&action("1.9", &two), 2).unwrap();
        assert_eq!(transaction, uid("1.9"));
        let instances: Vec<_> = references.iter().map(|reference| reference.sop_instance_uid.as_str()).collect();
        assert_eq!(instances, ["1.3.2", "1.3.1"]);
        assert_eq!(read_action(&action("1.9", &two), 1), Err(Unusable::TooMany));
        assert_eq!(read_action(&action("", &two), 2), Err(Unusable::TransactionUid));
        assert_eq!(read_action(&action("1.9", &[]), 2), Err(Unusable::References));
        assert_eq!(read_action(&action("1.9", &[("1.2.1", "not a UID")]), 2), Err(Unusable::References));
    }

    #[test]
    fn a_report_has_everything_that_was_asked_about() {
        let outcome = |instance: &str, failure| Outcome {
            reference: Reference { sop_class_uid: uid("1.2.1"), sop_instance_uid: uid(instance), within: None },
            failure,
        };
        let report = |outcomes| Report {
            transaction: Transaction {
                tenant: "default".into(),
                requester: "PACS".into(),
                transaction_uid: uid("1.9"),
            },
            called_ae_title: "CAIRN".into(),
            outcomes,
        };
        let (kind, event) = super::event(report(vec![outcome("1.3.1", None)]));
        assert_eq!(kind, 1);
        assert_eq!(event.items(tags::REFERENCED_SOP_SEQUENCE).len(), 1);
        assert!(event.get(tags::FAILED_SOP_SEQUENCE).is_none());
        assert_eq!(event.text(tags::TRANSACTION_UID), Some("1.9"));
        let failed = outcome("1.3.2", Some(FailureReason::NO_SUCH_OBJECT_INSTANCE));
        let (kind, event) = super::event(report(vec![failed, outcome("1.3.1", None)]));
        assert_eq!(kind, 2);
        assert_eq!(event.items(tags::REFERENCED_SOP_SEQUENCE).len(), 1);
        let failed = &event.items(tags::FAILED_SOP_SEQUENCE)[0];
        assert_eq!(failed.text(tags::REFERENCED_SOP_INSTANCE_UID), Some("1.3.2"));
        assert_eq!(failed.get(tags::FAILURE_REASON).unwrap().value, Value::Unsigned(vec![0x0112]));
    }
}
