//! Generations of the index as messages and back.

use crate::{
    convert::{copied, state_digest_from, state_digest_to, vector_from, vector_to},
    error::malformed,
    index_proto::{self as pb, manage_request, until},
};
use cairn_service_api::{
    Error,
    index::{Certificate, Change, Changed, Diff, GenerationStatus, Role, StudyDifference, Then, Until},
};

fn role_to(role: Role) -> pb::Role {
    match role {
        Role::Serving => pb::Role::Serving,
        Role::Filling => pb::Role::Filling,
        Role::Frozen => pb::Role::Frozen,
        Role::Kept => pb::Role::Kept,
        Role::Dropping => pb::Role::Dropping,
        Role::Other => pb::Role::Unspecified,
    }
}

fn role_from(role: i32) -> Role {
    match pb::Role::try_from(role) {
        Ok(pb::Role::Serving) => Role::Serving,
        Ok(pb::Role::Filling) => Role::Filling,
        Ok(pb::Role::Frozen) => Role::Frozen,
        Ok(pb::Role::Kept) => Role::Kept,
        Ok(pb::Role::Dropping) => Role::Dropping,
        Ok(pb::Role::Unspecified) | Err(_) => Role::Other,
    }
}

fn then_to(then: Then) -> pb::Then {
    match then {
        Then::Serve => pb::Then::Serve,
        Then::Wait => pb::Then::Wait,
        Then::Drop => pb::Then::Drop,
    }
}

fn then_from(then: i32) -> Result<Then, Error> {
    match pb::Then::try_from(then) {
        Ok(pb::Then::Serve) => Ok(Then::Serve),
        Ok(pb::Then::Wait) => Ok(Then::Wait),
        Ok(pb::Then::Drop) => Ok(Then::Drop),
        Ok(pb::Then::Unspecified) | Err(_) => Err(malformed("what comes then")),
    }
}

fn certificate_to(certificate: &Certificate) -> pb::Certificate {
    pb::Certificate {
        position: Some(vector_to(&certificate.position)),
        serving: Some(state_digest_to(&certificate.serving)),
        own: Some(state_digest_to(&certificate.own)),
    }
}

fn certificate_from(certificate: pb::Certificate) -> Result<Certificate, Error> {
    Ok(Certificate {
        position: vector_from(certificate.position.unwrap_or_default())?,
        serving: state_digest_from(certificate.serving)?,
        own: state_digest_from(certificate.own)?,
    })
}

pub(crate) fn generation_to(status: &GenerationStatus) -> pb::Generation {
    pb::Generation {
        generation: status.generation,
        role: role_to(status.role).into(),
        fold_version: status.fold_version,
        paused: status.paused,
        then: then_to(status.then).into(),
        since_ms: status.since_ms,
        folded: Some(vector_to(&status.folded)),
        until: status.until.as_ref().map(vector_to),
        events: status.events,
        total: status.total,
        events_per_second: status.events_per_second,
        parked: status.parked,
        studies: status.studies,
        series: status.series,
        instances: status.instances,
        digest: Some(state_digest_to(&status.digest)),
        certificate: status.certificate.as_ref().map(certificate_to),
    }
}

pub(crate) fn generation_from(status: pb::Generation) -> Result<GenerationStatus, Error> {
    Ok(GenerationStatus {
        generation: status.generation,
        role: role_from(status.role),
        fold_version: status.fold_version,
        paused: status.paused,
        then: then_from(status.then)?,
        since_ms: status.since_ms,
        folded: vector_from(status.folded.unwrap_or_default())?,
        until: status.until.map(vector_from).transpose()?,
        events: status.events,
        total: status.total,
        events_per_second: status.events_per_second,
        parked: status.parked,
        studies: status.studies,
        series: status.series,
        instances: status.instances,
        digest: state_digest_from(status.digest)?,
        certificate: status.certificate.map(certificate_from).transpose()?,
    })
}

pub(crate) fn change_to(change: &Change) -> pb::ManageRequest {
    use manage_request::Change as Wire;
    let change = match change {
        Change::Rebuild { then } => Wire::Rebuild(then_to(*then).into()),
        Change::Freeze(at) => Wire::Freeze(pb::Until {
            until: Some(match at {
                Until::Time(unix_ms) => until::Until::TimeMs(*unix_ms),
                Until::Position(position) => until::Until::Position(vector_to(position)),
            }),
        }),
        Change::Pause(generation) => Wire::Pause(*generation),
        Change::Resume(generation) => Wire::Resume(*generation),
        Change::Switch { generation, accept_difference } => {
            Wire::Switch(pb::Switch { generation: *generation, accept_difference: *accept_difference })
        }
        Change::Rollback => Wire::Rollback(true),
        Change::Drop(generation) => Wire::Drop(*generation),
    };
    pb::ManageRequest { change: Some(change) }
}

pub(crate) fn change_from(request: pb::ManageRequest) -> Result<Change, Error> {
    use manage_request::Change as Wire;
    Ok(match request.change.ok_or_else(|| malformed("change"))? {
        Wire::Rebuild(then) => Change::Rebuild { then: then_from(then)? },
        Wire::Freeze(at) => Change::Freeze(match at.until.ok_or_else(|| malformed("until"))? {
            until::Until::TimeMs(unix_ms) => Until::Time(unix_ms),
            until::Until::Position(position) => Until::Position(vector_from(position)?),
        }),
        Wire::Pause(generation) => Change::Pause(generation),
        Wire::Resume(generation) => Change::Resume(generation),
        Wire::Switch(pb::Switch { generation, accept_difference }) => Change::Switch { generation, accept_difference },
        Wire::Rollback(_) => Change::Rollback,
        Wire::Drop(generation) => Change::Drop(generation),
    })
}

pub(crate) fn changed_to(changed: &Changed) -> pb::ManageResponse {
    pb::ManageResponse {
        generation: changed.generation,
        until: changed.until.as_ref().map(vector_to),
        certificate: changed.certificate.as_ref().map(certificate_to),
    }
}

pub(crate) fn changed_from(response: pb::ManageResponse) -> Result<Changed, Error> {
    Ok(Changed {
        generation: response.generation,
        until: response.until.map(vector_from).transpose()?,
        certificate: response.certificate.map(certificate_from).transpose()?,
    })
}

pub(crate) fn diff_to(diff: Diff) -> pb::DiffRequest {
    pb::DiffRequest { tenant: diff.tenant, a: diff.a, b: diff.b, limit: diff.limit }
}

pub(crate) fn diff_from(request: pb::DiffRequest) -> Diff {
    Diff { tenant: request.tenant, a: request.a, b: request.b, limit: request.limit }
}

pub(crate) fn difference_to(difference: &StudyDifference) -> pb::DiffResponse {
    let sums = |sums: &([u8; 32], [u8; 32])| pb::Sums { events: copied(&sums.0), state: copied(&sums.1) };
    pb::DiffResponse {
        study_instance_uid: difference.study_instance_uid.clone(),
        leaf: difference.leaf.into(),
        a: difference.a.as_ref().map(sums),
        b: difference.b.as_ref().map(sums),
    }
}

pub(crate) fn difference_from(response: pb::DiffResponse) -> Result<StudyDifference, Error> {
    let sum = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| malformed("digest"));
    let sums = |sums: pb::Sums| Ok::<_, Error>((sum(&sums.events)?, sum(&sums.state)?));
    Ok(StudyDifference {
        study_instance_uid: response.study_instance_uid,
        leaf: response.leaf.try_into().map_err(|_| malformed("leaf"))?,
        a: response.a.map(sums).transpose()?,
        b: response.b.map(sums).transpose()?,
    })
}
