//! Decisions about rejections, between the wire and domain terms.

use crate::{
    convert::{position_from, position_to},
    error::malformed,
    ingest_proto::RevokeRejectionRequest,
};
use cairn_service_api::{Error, rejection::Revocation};

pub(crate) fn revocation_to(revocation: Revocation) -> RevokeRejectionRequest {
    let Revocation { position, by, reason } = revocation;
    RevokeRejectionRequest { position: Some(position_to(&position)), by, reason }
}

pub(crate) fn revocation_from(request: RevokeRejectionRequest) -> Result<Revocation, Error> {
    let position = position_from(request.position.ok_or_else(|| malformed("position"))?)?;
    Ok(Revocation { position, by: request.by, reason: request.reason })
}
