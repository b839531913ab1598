//! N-EVENT-REPORT of storage commitment over an association of ours, in the role of SCP (PS3.4 section J.3.3).

use super::{Remote, ScuError, plain, skip, uid};
use crate::{
    AssociationError, Status,
    negotiate::STORAGE_COMMITMENT,
    pdu::RoleSelection,
    services::commitment::{data_sets::event, report_request},
};
use cairn_dicom::CharacterSet;
use cairn_service_api::commitment::Report;

/// Tells a requester of a decision; gives its answer.
///
/// We ask for the role of SCP. A requester that accepts the SOP Class and says nothing of roles is told all the same:
/// whoever understands the report can answer it.
///
/// # Errors
/// [`ScuError`]: the requester may have heard it or not.
pub async fn report_commitment(remote: &Remote, report: Report) -> Result<Status, ScuError> {
    let class = uid(STORAGE_COMMITMENT)?;
    let roles = vec![RoleSelection { sop_class_uid: class.clone(), scu: false, scp: true }];
    let mut association = remote.associate(vec![(class, plain())], roles).await?;
    let Some(context) = association.contexts().first().cloned() else {
        association.release().await?;
        return Err(ScuError::NotSpoken("storage commitment"));
    };
    let (event_type_id, event) = event(report);
    let encoded = event.encode(context.transfer_syntax.encoding, CharacterSet::DEFAULT);
    let encoded = encoded.map_err(|_| ScuError::Unusable("a report can not be written"))?;
    let message_id = association.next_message_id();
    let mut command = report_request(message_id, &context, event_type_id);
    association.send(context.id, &mut command, Some(&encoded)).await?;
    let response = association.response(message_id, |_| {}).await?;
    skip(&mut association, &response).await?;
    let status = response.status.ok_or(AssociationError::Protocol("response without a status"))?;
    if let Err(error) = association.release().await {
        tracing::info!(called = %remote.called, %error, "an association did not end by release");
    }
    Ok(status)
}
