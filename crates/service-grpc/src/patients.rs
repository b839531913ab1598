//! Facts about patients, between the wire and domain terms.

use crate::{
    common,
    convert::{copied, event_id, position_from, position_to, uid},
    error::malformed,
    identifier, index_proto as pb,
    ingest_proto::{RevokePatientFactRequest, SayOfPatientsRequest},
};
use cairn_archive::{
    Hlc,
    fold::{EventOrder, PatientIdentity},
    patients::Said,
};
use cairn_service_api::{
    Error,
    patients::{FactsOf, KnownFact, PatientChange, PatientRevocation, PatientStatement},
};

fn patient_to(PatientIdentity { issuer, id }: PatientIdentity) -> common::Patient {
    common::Patient { issuer, id }
}

fn patient_from(common::Patient { issuer, id }: common::Patient) -> PatientIdentity {
    PatientIdentity { issuer, id }
}

fn patients<const N: usize>(patients: Vec<common::Patient>) -> Result<[PatientIdentity; N], Error> {
    let patients: Vec<_> = patients.into_iter().map(patient_from).collect();
    patients.try_into().map_err(|_| malformed("patients"))
}

fn kind(kind: i32) -> Result<common::PatientFactKind, Error> {
    common::PatientFactKind::try_from(kind).map_err(|_| malformed("kind of fact"))
}

pub(crate) fn statement_to(statement: PatientStatement) -> Result<SayOfPatientsRequest, Error> {
    use common::PatientFactKind as Kind;
    let (kind, patients, elements) = match statement.change {
        PatientChange::Merge { prior, surviving } => (Kind::Merged, vec![prior, surviving], Vec::new().into()),
        PatientChange::Link { one, other } => (Kind::Linked, vec![one, other], Vec::new().into()),
        PatientChange::Update { patient, elements } => (Kind::Updated, vec![patient], identifier::encode(&elements)?),
    };
    Ok(SayOfPatientsRequest {
        tenant: statement.tenant,
        kind: kind.into(),
        patients: patients.into_iter().map(patient_to).collect(),
        elements,
        by: statement.by,
        reason: statement.reason,
    })
}

pub(crate) fn statement_from(request: SayOfPatientsRequest) -> Result<PatientStatement, Error> {
    use common::PatientFactKind as Kind;
    let change = match kind(request.kind)? {
        Kind::Merged => {
            let [prior, surviving] = patients(request.patients)?;
            PatientChange::Merge { prior, surviving }
        }
        Kind::Linked => {
            let [one, other] = patients(request.patients)?;
            PatientChange::Link { one, other }
        }
        Kind::Updated => {
            let [patient] = patients(request.patients)?;
            PatientChange::Update { patient, elements: identifier::decode(&request.elements)? }
        }
        Kind::Unspecified | Kind::Revoked | Kind::Gone => return Err(malformed("kind of fact")),
    };
    Ok(PatientStatement { tenant: request.tenant, change, by: request.by, reason: request.reason })
}

pub(crate) fn revocation_to(PatientRevocation { position, by, reason }: PatientRevocation) -> RevokePatientFactRequest {
    RevokePatientFactRequest { position: Some(position_to(&position)), by, reason }
}

pub(crate) fn revocation_from(request: RevokePatientFactRequest) -> Result<PatientRevocation, Error> {
    let position = position_from(request.position.ok_or_else(|| malformed("position"))?)?;
    Ok(PatientRevocation { position, by: request.by, reason: request.reason })
}

pub(crate) fn facts_to(tenant: &str, of: FactsOf) -> pb::PatientFactsRequest {
    use pb::patient_facts_request::Of;
    let of = match of {
        FactsOf::Everybody => None,
        FactsOf::Patient(patient) => Some(Of::Patient(patient_to(patient))),
        FactsOf::Study(study) => Some(Of::StudyInstanceUid(study.to_string())),
    };
    pb::PatientFactsRequest { tenant: tenant.to_owned(), of }
}

pub(crate) fn facts_from(request: pb::PatientFactsRequest) -> Result<(String, FactsOf), Error> {
    use pb::patient_facts_request::Of;
    let of = match request.of {
        None => FactsOf::Everybody,
        Some(Of::Patient(patient)) => FactsOf::Patient(patient_from(patient)),
        Some(Of::StudyInstanceUid(study)) => FactsOf::Study(uid(&study)?),
    };
    Ok((request.tenant, of))
}

pub(crate) fn fact_to(KnownFact { order, said, position }: KnownFact) -> pb::PatientFactsResponse {
    use common::PatientFactKind as Kind;
    let patients = said.patients().into_iter().cloned().map(patient_to).collect();
    let (kind, elements, revoked) = match said {
        Said::Merged { .. } => (Kind::Merged, Vec::new().into(), Vec::new().into()),
        Said::Linked { .. } => (Kind::Linked, Vec::new().into(), Vec::new().into()),
        Said::Updated { elements, .. } => (Kind::Updated, elements, Vec::new().into()),
        Said::Revoked { fact, .. } => (Kind::Revoked, Vec::new().into(), copied(fact.as_bytes())),
        Said::Gone => (Kind::Gone, Vec::new().into(), Vec::new().into()),
    };
    pb::PatientFactsResponse {
        event_id: copied(order.id.as_bytes()),
        wall_ms: order.hlc.wall_ms,
        counter: order.hlc.counter,
        site: order.site.to_string(),
        kind: kind.into(),
        patients,
        elements,
        revoked_event_id: revoked,
        position: position.as_ref().map(position_to),
    }
}

pub(crate) fn fact_from(response: pb::PatientFactsResponse) -> Result<KnownFact, Error> {
    use common::PatientFactKind as Kind;
    let said = match kind(response.kind)? {
        Kind::Merged => {
            let [prior, surviving] = patients(response.patients)?;
            Said::Merged { prior, surviving }
        }
        Kind::Linked => {
            let [one, other] = patients(response.patients)?;
            Said::Linked { one, other }
        }
        Kind::Updated => {
            let [patient] = patients(response.patients)?;
            Said::Updated { patient, elements: response.elements }
        }
        Kind::Revoked => {
            let patients = response.patients.into_iter().map(patient_from).collect();
            Said::Revoked { fact: event_id(&response.revoked_event_id)?, patients }
        }
        Kind::Gone => Said::Gone,
        Kind::Unspecified => return Err(malformed("kind of fact")),
    };
    let hlc = Hlc { wall_ms: response.wall_ms, counter: response.counter };
    let site = response.site.parse().map_err(|_| malformed("site"))?;
    let order = EventOrder { hlc, site, id: event_id(&response.event_id)? };
    Ok(KnownFact { order, said, position: response.position.map(position_from).transpose()? })
}
