//! Messages of retention, and the types that they carry. Why something was kept has the same numbers here as in events.

use crate::{
    convert::{copied, event_id, uid},
    error::malformed,
    lifecycle_proto as pb,
    replication::site,
};
use cairn_archive::{
    HoldId, KeyId, ObjectKey, SiteId,
    erasure::{Destroyed, Stage},
    events::{KeptBecause, KeptVersion},
};
use cairn_service_api::{
    Error,
    retention::{
        ErasedKey, ErasedObject, ErasureGrounds, ErasureReport, ErasureScope, ErasureStatus, HoldInForce, KeptKey,
        NewHold,
    },
};

pub(crate) fn hold_id(bytes: &[u8]) -> Result<HoldId, Error> {
    HoldId::from_slice(bytes).map_err(|_| malformed("hold id"))
}

pub(crate) fn hold_to(hold: NewHold) -> pb::Hold {
    let (patient_id, issuer) = hold.patient.unzip();
    pb::Hold {
        tenant: hold.tenant,
        patient_id,
        issuer_of_patient_id: issuer.flatten(),
        study_instance_uids: hold.studies.iter().map(ToString::to_string).collect(),
        query: hold.query,
        placed_by: hold.by,
        reason: hold.reason,
    }
}

pub(crate) fn hold_from(hold: Option<pb::Hold>) -> Result<NewHold, Error> {
    let hold = hold.ok_or_else(|| malformed("hold"))?;
    Ok(NewHold {
        tenant: hold.tenant,
        patient: hold.patient_id.map(|id| (id, hold.issuer_of_patient_id)),
        studies: hold.study_instance_uids.iter().map(|study| uid(study)).collect::<Result<_, _>>()?,
        query: hold.query,
        by: hold.placed_by,
        reason: hold.reason,
    })
}

pub(crate) fn in_force_to(hold: HoldInForce) -> pb::HoldsResponse {
    pb::HoldsResponse {
        hold_id: copied(hold.id.as_bytes()),
        hold: Some(hold_to(hold.hold)),
        unreadable: hold.is_unreadable,
        site: hold.site,
        placed_at_ms: hold.placed_at_ms,
    }
}

pub(crate) fn in_force_from(hold: pb::HoldsResponse) -> Result<HoldInForce, Error> {
    Ok(HoldInForce {
        id: hold_id(&hold.hold_id)?,
        hold: hold_from(hold.hold)?,
        is_unreadable: hold.unreadable,
        site: hold.site,
        placed_at_ms: hold.placed_at_ms,
    })
}

pub(crate) fn grounds_to(grounds: ErasureGrounds) -> pb::ErasureGrounds {
    pb::ErasureGrounds { by: grounds.by, reason: grounds.reason }
}

pub(crate) fn grounds_from(grounds: Option<pb::ErasureGrounds>) -> Result<ErasureGrounds, Error> {
    let pb::ErasureGrounds { by, reason } = grounds.ok_or_else(|| malformed("grounds"))?;
    Ok(ErasureGrounds { by, reason })
}

pub(crate) fn scope_from(request: &pb::RequestErasureRequest) -> Result<ErasureScope, Error> {
    let uids = |texts: &[String]| texts.iter().map(|text| uid(text)).collect::<Result<_, _>>();
    Ok(ErasureScope {
        tenant: request.tenant.clone(),
        study: uid(&request.study_instance_uid)?,
        series: uids(&request.series_instance_uids)?,
        instances: uids(&request.sop_instance_uids)?,
    })
}

const STAGES: [(Stage, pb::ErasureStage); 5] = [
    (Stage::Unknown, pb::ErasureStage::Unspecified),
    (Stage::Void, pb::ErasureStage::Void),
    (Stage::Withdrawn, pb::ErasureStage::Withdrawn),
    (Stage::Requested, pb::ErasureStage::Requested),
    (Stage::Erased, pb::ErasureStage::Erased),
];

pub(crate) fn status_to(status: ErasureStatus) -> pb::ErasureStatus {
    let stage = STAGES.into_iter().find(|(stage, _)| *stage == status.stage);
    let destroyed = status.destroyed.into_iter().map(|(site, destroyed)| {
        let Destroyed { at_ms, objects, bytes, absent } = destroyed;
        pb::DestroyedAt { site: site.to_string(), at_ms, objects, bytes, absent }
    });
    pb::ErasureStatus {
        erasure_event_id: copied(status.id.as_bytes()),
        tenant: status.tenant,
        study_instance_uid: status.study_instance_uid,
        stage: stage.map_or(pb::ErasureStage::Unspecified, |(_, stage)| stage).into(),
        versions: status.versions,
        site: status.site,
        requested_at_ms: status.requested_at_ms,
        delay_ms: status.delay_ms,
        requested_by: status.requested_by,
        withdrawn_by: status.withdrawn_by,
        confirmed: status.confirmed.iter().map(ToString::to_string).collect(),
        waits_for: status.waits_for.iter().map(ToString::to_string).collect(),
        erased: status.erased,
        kept: status.kept,
        destroyed: destroyed.collect(),
    }
}

pub(crate) fn status_from(status: pb::ErasureStatus) -> Result<ErasureStatus, Error> {
    let stage = STAGES.into_iter().find(|(_, stage)| i32::from(*stage) == status.stage);
    let destroyed = status.destroyed.iter().map(|at| {
        let pb::DestroyedAt { site: name, at_ms, objects, bytes, absent } = at;
        let destroyed = Destroyed { at_ms: *at_ms, objects: *objects, bytes: *bytes, absent: *absent };
        Ok::<_, Error>((site(name)?, destroyed))
    });
    Ok(ErasureStatus {
        id: event_id(&status.erasure_event_id)?,
        tenant: status.tenant,
        study_instance_uid: status.study_instance_uid,
        stage: stage.ok_or_else(|| malformed("stage"))?.0,
        versions: status.versions,
        site: status.site,
        requested_at_ms: status.requested_at_ms,
        delay_ms: status.delay_ms,
        requested_by: status.requested_by,
        withdrawn_by: status.withdrawn_by,
        confirmed: status.confirmed.iter().map(|name| site(name)).collect::<Result<_, _>>()?,
        waits_for: status.waits_for.iter().map(|name| site(name)).collect::<Result<_, _>>()?,
        erased: status.erased,
        kept: status.kept,
        destroyed: destroyed.collect::<Result<_, _>>()?,
    })
}

pub(crate) fn report_to(report: ErasureReport) -> pb::ErasureReportResponse {
    let object = |object: ErasedObject| pb::ErasedObject {
        series_instance_uid: object.series_instance_uid,
        sop_instance_uid: object.sop_instance_uid,
        store_event_id: copied(object.store_event.as_bytes()),
        key: copied(object.key.as_bytes()),
        stored: object.is_stored,
        answered: object.is_answered,
    };
    let kept = |kept: KeptVersion| pb::KeptVersion {
        series_instance_uid: kept.series_instance_uid,
        sop_instance_uid: kept.sop_instance_uid,
        store_event_id: kept.store_event_id,
        because: kept.because,
        because_of: kept.because_of,
    };
    pb::ErasureReportResponse {
        at_site: report.at_site.to_string(),
        at_ms: report.at_ms,
        status: Some(status_to(report.status)),
        reason: report.reason,
        objects: report.objects.into_iter().map(object).collect(),
        kept: report.kept.into_iter().map(kept).collect(),
        keys: report.keys.iter().map(erased_key).collect(),
        kept_keys: report.kept_keys.iter().map(kept_key).collect(),
        keys_destroyed: report.keys_destroyed.iter().map(keys_destroyed).collect(),
    }
}

fn erased_key(key: &ErasedKey) -> pb::ErasedKey {
    pb::ErasedKey { id: copied(key.id.as_bytes()), destroyed: key.is_destroyed }
}

fn kept_key(key: &KeptKey) -> pb::KeptKey {
    pb::KeptKey {
        id: copied(key.id.as_bytes()),
        needed_by_event_id: copied(key.needed_by.as_bytes()),
        may_be_used_at: key.may_be_used_at.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn keys_destroyed((at, at_ms): &(SiteId, u64)) -> pb::KeysDestroyed {
    pb::KeysDestroyed { site: at.to_string(), at_ms: *at_ms }
}

pub(crate) fn report_from(report: pb::ErasureReportResponse) -> Result<ErasureReport, Error> {
    let object = |object: pb::ErasedObject| {
        Ok::<_, Error>(ErasedObject {
            series_instance_uid: object.series_instance_uid,
            sop_instance_uid: object.sop_instance_uid,
            store_event: event_id(&object.store_event_id)?,
            key: ObjectKey::from_slice(&object.key).map_err(|_| malformed("object key"))?,
            is_stored: object.stored,
            is_answered: object.answered,
        })
    };
    let kept = |kept: pb::KeptVersion| {
        KeptBecause::try_from(kept.because).map_err(|_| malformed("because"))?;
        Ok::<_, Error>(KeptVersion {
            series_instance_uid: kept.series_instance_uid,
            sop_instance_uid: kept.sop_instance_uid,
            store_event_id: kept.store_event_id,
            because: kept.because,
            because_of: kept.because_of,
        })
    };
    Ok(ErasureReport {
        at_site: site(&report.at_site)?,
        at_ms: report.at_ms,
        status: status_from(report.status.ok_or_else(|| malformed("status"))?)?,
        reason: report.reason,
        objects: report.objects.into_iter().map(object).collect::<Result<_, _>>()?,
        kept: report.kept.into_iter().map(kept).collect::<Result<_, _>>()?,
        keys: report.keys.iter().map(erased_key_from).collect::<Result<_, _>>()?,
        kept_keys: report.kept_keys.iter().map(kept_key_from).collect::<Result<_, _>>()?,
        keys_destroyed: report.keys_destroyed.iter().map(keys_destroyed_from).collect::<Result<_, _>>()?,
    })
}

fn key_id(bytes: &[u8]) -> Result<KeyId, Error> {
    KeyId::from_slice(bytes).map_err(|_| malformed("key id"))
}

fn erased_key_from(key: &pb::ErasedKey) -> Result<ErasedKey, Error> {
    Ok(ErasedKey { id: key_id(&key.id)?, is_destroyed: key.destroyed })
}

fn kept_key_from(key: &pb::KeptKey) -> Result<KeptKey, Error> {
    let may_be_used_at = (!key.may_be_used_at.is_empty()).then(|| site(&key.may_be_used_at)).transpose()?;
    Ok(KeptKey { id: key_id(&key.id)?, needed_by: event_id(&key.needed_by_event_id)?, may_be_used_at })
}

fn keys_destroyed_from(destroyed: &pb::KeysDestroyed) -> Result<(SiteId, u64), Error> {
    Ok((site(&destroyed.site)?, destroyed.at_ms))
}
