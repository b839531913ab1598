//! Messages of the lifecycle service, and the types that they carry. What is damaged and who found it have the same numbers
//! here as in events.

use crate::{
    convert::{copied, event_id, object_from, object_to},
    error::malformed,
    lifecycle_proto as pb,
    replication::site,
};
use cairn_archive::events::{Damage, DamageFoundBy};
use cairn_service_api::{
    Error,
    lifecycle::{DamagedObject, FixityStatus, NamedObject, Round, SecondCopies},
};
use std::time::Duration;

pub(crate) fn named_to(named: &NamedObject) -> pb::NamedObject {
    pb::NamedObject {
        object: Some(object_to(&named.object)),
        named_by_event_id: copied(named.named_by.as_bytes()),
        tenant: named.tenant.clone(),
        study_instance_uid: named.study_instance_uid.clone(),
        series_instance_uid: named.series_instance_uid.clone(),
        sop_instance_uid: named.sop_instance_uid.clone(),
    }
}

pub(crate) fn named_from(named: Option<pb::NamedObject>) -> Result<NamedObject, Error> {
    let named = named.ok_or_else(|| malformed("named"))?;
    Ok(NamedObject {
        object: object_from(named.object.ok_or_else(|| malformed("object"))?)?,
        named_by: event_id(&named.named_by_event_id)?,
        tenant: named.tenant,
        study_instance_uid: named.study_instance_uid,
        series_instance_uid: named.series_instance_uid,
        sop_instance_uid: named.sop_instance_uid,
    })
}

fn round_to(round: &Round) -> pb::Round {
    let Round { number, began_at_ms, ended_at_ms, events, events_total, objects, bytes, damaged, repaired } = *round;
    pb::Round { number, began_at_ms, ended_at_ms, events, events_total, objects, bytes, damaged, repaired }
}

fn round_from(round: pb::Round) -> Round {
    let pb::Round { number, began_at_ms, ended_at_ms, events, events_total, objects, bytes, damaged, repaired } = round;
    Round { number, began_at_ms, ended_at_ms, events, events_total, objects, bytes, damaged, repaired }
}

pub(crate) fn fixity_to(status: &FixityStatus) -> pb::FixityResponse {
    pb::FixityResponse {
        site: status.site.to_string(),
        at_ms: status.at_ms,
        round: status.round.as_ref().map(round_to),
        last_whole: status.last_whole.as_ref().map(round_to),
        period_ms: u64::try_from(status.period.as_millis()).unwrap_or(u64::MAX),
        bytes_per_second: status.bytes_per_second,
        period_is_kept: status.period_is_kept,
        damaged: status.damaged,
        copies: status.copies.map(|SecondCopies { behind_events, made_anew, is_away }| pb::SecondCopies {
            behind_events,
            made_anew,
            is_away,
        }),
    }
}

pub(crate) fn fixity_from(status: pb::FixityResponse) -> Result<FixityStatus, Error> {
    Ok(FixityStatus {
        site: site(&status.site)?,
        at_ms: status.at_ms,
        round: status.round.map(round_from),
        last_whole: status.last_whole.map(round_from),
        period: Duration::from_millis(status.period_ms),
        bytes_per_second: status.bytes_per_second,
        period_is_kept: status.period_is_kept,
        damaged: status.damaged,
        copies: status.copies.map(|pb::SecondCopies { behind_events, made_anew, is_away }| SecondCopies {
            behind_events,
            made_anew,
            is_away,
        }),
    })
}

fn damage_from(number: i32) -> Result<Damage, Error> {
    Damage::try_from(number).map_err(|_| malformed("damage"))
}

pub(crate) fn found_by_from(number: i32) -> Result<DamageFoundBy, Error> {
    DamageFoundBy::try_from(number).map_err(|_| malformed("found_by"))
}

pub(crate) fn damaged_to(damaged: DamagedObject) -> pb::DamagedResponse {
    let (tried_at_ms, failure) = damaged.tried.unzip();
    pb::DamagedResponse {
        named: Some(named_to(&damaged.named)),
        damage: damaged.damage.into(),
        found_by: damaged.found_by.into(),
        found_at_ms: damaged.found_at_ms,
        event_id: copied(damaged.event.as_bytes()),
        tried_at_ms,
        failure: failure.unwrap_or_default(),
    }
}

pub(crate) fn damaged_from(damaged: pb::DamagedResponse) -> Result<DamagedObject, Error> {
    Ok(DamagedObject {
        named: named_from(damaged.named)?,
        damage: damage_from(damaged.damage)?,
        found_by: found_by_from(damaged.found_by)?,
        found_at_ms: damaged.found_at_ms,
        event: event_id(&damaged.event_id)?,
        tried: damaged.tried_at_ms.map(|at| (at, damaged.failure)),
    })
}
