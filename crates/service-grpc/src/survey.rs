//! Messages of surveys.

use crate::{convert::uid, index_proto as pb};
use cairn_archive::fold::PatientIdentity;
use cairn_service_api::{
    Error,
    survey::{FoundStudy, Survey, Surveyed},
};

pub(crate) fn survey_to(survey: Survey) -> pb::SurveyRequest {
    let Survey { tenant, expression, at_ms } = survey;
    pb::SurveyRequest { tenant, expression, at_ms }
}

pub(crate) fn survey_from(request: pb::SurveyRequest) -> Survey {
    let pb::SurveyRequest { tenant, expression, at_ms } = request;
    Survey { tenant, expression, at_ms }
}

pub(crate) fn surveyed_to(part: Surveyed) -> pb::SurveyResponse {
    let found = part.found.into_iter().map(found_to).collect();
    pb::SurveyResponse { studies: part.studies, undecided: part.undecided, found }
}

pub(crate) fn surveyed_from(part: pb::SurveyResponse) -> Result<Surveyed, Error> {
    let found = part.found.into_iter().map(found_from).collect::<Result<_, _>>()?;
    Ok(Surveyed { studies: part.studies, undecided: part.undecided, found })
}

pub(crate) fn found_to(found: FoundStudy) -> pb::FoundStudy {
    let patient = |PatientIdentity { issuer, id }| pb::PatientIdentity { issuer, id };
    pb::FoundStudy {
        study_instance_uid: found.study_instance_uid.to_string(),
        patients: found.patients.into_iter().map(patient).collect(),
        study_date: found.study_date,
        modalities: found.modalities,
        instances: found.instances,
        versions: found.versions,
        bytes: found.bytes,
        received_at_ms: found.received_at_ms,
        cold: found.is_cold,
        recalled_at_ms: found.recalled_at_ms,
    }
}

pub(crate) fn found_from(found: pb::FoundStudy) -> Result<FoundStudy, Error> {
    let patient = |pb::PatientIdentity { issuer, id }| PatientIdentity { issuer, id };
    Ok(FoundStudy {
        study_instance_uid: uid(&found.study_instance_uid)?,
        patients: found.patients.into_iter().map(patient).collect(),
        study_date: found.study_date,
        modalities: found.modalities,
        instances: found.instances,
        versions: found.versions,
        bytes: found.bytes,
        received_at_ms: found.received_at_ms,
        is_cold: found.cold,
        recalled_at_ms: found.recalled_at_ms,
    })
}
