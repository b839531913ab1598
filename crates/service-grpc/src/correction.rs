//! Corrections, between the wire and domain terms.

use crate::{
    common,
    convert::{copied, event_id, position_from, position_to, uid},
    error::malformed,
    identifier,
    ingest_proto::{CorrectAttributesRequest, RevokeCorrectionRequest},
};
use cairn_archive::correction::InForce;
use cairn_service_api::{
    Error,
    correction::{Correction, CorrectionRevocation},
};

pub(crate) fn correction_to(correction: Correction) -> Result<CorrectAttributesRequest, Error> {
    Ok(CorrectAttributesRequest {
        tenant: correction.tenant,
        study_instance_uid: correction.study.to_string(),
        series_instance_uid: correction.series.map(|uid| uid.to_string()).unwrap_or_default(),
        sop_instance_uid: correction.instance.map(|uid| uid.to_string()).unwrap_or_default(),
        elements: identifier::encode(&correction.elements)?,
        by: correction.by,
        reason: correction.reason,
    })
}

pub(crate) fn correction_from(request: CorrectAttributesRequest) -> Result<Correction, Error> {
    let scope = |text: &str| if text.is_empty() { Ok(None) } else { uid(text).map(Some) };
    Ok(Correction {
        study: uid(&request.study_instance_uid)?,
        series: scope(&request.series_instance_uid)?,
        instance: scope(&request.sop_instance_uid)?,
        elements: identifier::decode(&request.elements)?,
        tenant: request.tenant,
        by: request.by,
        reason: request.reason,
    })
}

pub(crate) fn revocation_to(revocation: CorrectionRevocation) -> RevokeCorrectionRequest {
    let CorrectionRevocation { position, by, reason } = revocation;
    RevokeCorrectionRequest { position: Some(position_to(&position)), by, reason }
}

pub(crate) fn revocation_from(request: RevokeCorrectionRequest) -> Result<CorrectionRevocation, Error> {
    let position = position_from(request.position.ok_or_else(|| malformed("position"))?)?;
    Ok(CorrectionRevocation { position, by: request.by, reason: request.reason })
}

pub(crate) fn in_force_to(correction: &InForce) -> common::Correction {
    common::Correction {
        event_id: copied(correction.event.as_bytes()),
        at_ms: correction.at_ms,
        site: correction.site.clone(),
        elements: correction.elements.clone(),
        source: correction.source.clone(),
    }
}

pub(crate) fn in_force_from(correction: common::Correction) -> Result<InForce, Error> {
    Ok(InForce {
        event: event_id(&correction.event_id)?,
        at_ms: correction.at_ms,
        site: correction.site,
        elements: correction.elements,
        source: correction.source,
    })
}
