//! Parked events and their repairs, between the wire and domain terms.

use crate::{
    convert::{copied, event_id, position_from, position_to},
    error::malformed,
    index_proto::{ParkedRequest, ParkedResponse, ParkedStudy},
    ingest_proto::{RepairReplacement, RepairRequest, repair_request::Remedy},
};
use cairn_service_api::{
    Error,
    parked::{ParkedEvent, ParkedSelection, Repair, RepairRemedy},
};

pub(crate) fn selection_to(selection: ParkedSelection) -> ParkedRequest {
    let study = selection.study.map(|(tenant, study_instance_uid)| ParkedStudy { tenant, study_instance_uid });
    ParkedRequest { study }
}

pub(crate) fn selection_from(request: ParkedRequest) -> ParkedSelection {
    ParkedSelection { study: request.study.map(|study| (study.tenant, study.study_instance_uid)) }
}

pub(crate) fn parked_to(parked: ParkedEvent) -> ParkedResponse {
    ParkedResponse {
        position: Some(position_to(&parked.position)),
        event_id: copied(parked.event.as_bytes()),
        event_type: parked.event_type,
        happened_at_ms: parked.happened_at_ms,
        reason: parked.reason,
        explanation: parked.explanation,
        tenant: parked.tenant,
        study_instance_uid: parked.study_instance_uid,
        build: parked.build,
    }
}

pub(crate) fn parked_from(parked: ParkedResponse) -> Result<ParkedEvent, Error> {
    Ok(ParkedEvent {
        position: position_from(parked.position.ok_or_else(|| malformed("position"))?)?,
        event: event_id(&parked.event_id)?,
        event_type: parked.event_type,
        happened_at_ms: parked.happened_at_ms,
        reason: parked.reason,
        explanation: parked.explanation,
        tenant: parked.tenant,
        study_instance_uid: parked.study_instance_uid,
        build: parked.build,
    })
}

pub(crate) fn repair_to(repair: Repair) -> RepairRequest {
    let remedy = match repair.remedy {
        RepairRemedy::Replace { event_type, payload } => Remedy::Replacement(RepairReplacement { event_type, payload }),
        RepairRemedy::Dismiss => Remedy::Dismiss(true),
        RepairRemedy::FoldAgain => Remedy::FoldAgain(true),
    };
    let position = Some(position_to(&repair.position));
    RepairRequest { position, remedy: Some(remedy), by: repair.by, reason: repair.reason }
}

pub(crate) fn repair_from(request: RepairRequest) -> Result<Repair, Error> {
    let remedy = match request.remedy.ok_or_else(|| malformed("remedy"))? {
        Remedy::Replacement(by) => RepairRemedy::Replace { event_type: by.event_type, payload: by.payload },
        Remedy::Dismiss(_) => RepairRemedy::Dismiss,
        Remedy::FoldAgain(_) => RepairRemedy::FoldAgain,
    };
    let position = position_from(request.position.ok_or_else(|| malformed("position"))?)?;
    Ok(Repair { position, remedy, by: request.by, reason: request.reason })
}
