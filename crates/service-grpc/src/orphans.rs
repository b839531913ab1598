//! Messages about orphans, and the types that they carry.

use crate::{
    convert::{object_from, object_to},
    error::malformed,
    lifecycle_proto as pb,
    replication::site,
};
use cairn_service_api::{
    Error,
    orphans::{Orphan, OrphanLook, OrphansKept, OrphansStatus},
};
use cairn_store_api::ObjectInfo;
use std::time::Duration;

fn look_to(look: OrphanLook) -> pb::OrphanLook {
    let OrphanLook { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes } = look;
    pb::OrphanLook { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes }
}

fn look_from(look: pb::OrphanLook) -> OrphanLook {
    let pb::OrphanLook { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes } = look;
    OrphanLook { number, began_at_ms, ended_at_ms, events, objects, removed, removed_bytes }
}

fn kept_to(kept: Option<OrphansKept>) -> pb::OrphansKept {
    match kept {
        None => pb::OrphansKept::Unspecified,
        Some(OrphansKept::TooMany) => pb::OrphansKept::TooMany,
        Some(OrphansKept::NewLife) => pb::OrphansKept::NewLife,
        Some(OrphansKept::UnreadableRecords) => pb::OrphansKept::UnreadableRecords,
    }
}

fn kept_from(number: i32) -> Result<Option<OrphansKept>, Error> {
    match pb::OrphansKept::try_from(number) {
        Ok(pb::OrphansKept::Unspecified) => Ok(None),
        Ok(pb::OrphansKept::TooMany) => Ok(Some(OrphansKept::TooMany)),
        Ok(pb::OrphansKept::NewLife) => Ok(Some(OrphansKept::NewLife)),
        Ok(pb::OrphansKept::UnreadableRecords) => Ok(Some(OrphansKept::UnreadableRecords)),
        Err(_) => Err(malformed("kept")),
    }
}

pub(crate) fn status_to(status: &OrphansStatus) -> pb::OrphansStatusResponse {
    pb::OrphansStatusResponse {
        site: status.site.to_string(),
        at_ms: status.at_ms,
        last: status.last.map(look_to),
        orphans: status.orphans,
        bytes: status.bytes,
        kept: kept_to(status.kept).into(),
        grace_ms: u64::try_from(status.grace.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(crate) fn status_from(status: pb::OrphansStatusResponse) -> Result<OrphansStatus, Error> {
    Ok(OrphansStatus {
        site: site(&status.site)?,
        at_ms: status.at_ms,
        last: status.last.map(look_from),
        orphans: status.orphans,
        bytes: status.bytes,
        kept: kept_from(status.kept)?,
        grace: Duration::from_millis(status.grace_ms),
    })
}

pub(crate) fn orphan_to(orphan: Orphan) -> pb::OrphansResponse {
    let Orphan { info: ObjectInfo { object, put_ended_at_ms }, found_at_ms, look } = orphan;
    pb::OrphansResponse { object: Some(object_to(&object)), put_ended_at_ms, found_at_ms, look }
}

pub(crate) fn orphan_from(orphan: pb::OrphansResponse) -> Result<Orphan, Error> {
    let object = object_from(orphan.object.ok_or_else(|| malformed("object"))?)?;
    let info = ObjectInfo { object, put_ended_at_ms: orphan.put_ended_at_ms };
    Ok(Orphan { info, found_at_ms: orphan.found_at_ms, look: orphan.look })
}
