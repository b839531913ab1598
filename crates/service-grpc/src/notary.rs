//! Messages of the notary, and the types that they carry.

use crate::{error::malformed, lifecycle_proto as pb, replication::site};
use cairn_archive::{Offset, Partition};
use cairn_service_api::{
    Error,
    notary::{LogSealing, NotaryStatus, SealedPartition, SignedCheckpoint},
};

pub(crate) fn signed_to(signed: &SignedCheckpoint) -> pb::SignedCheckpoint {
    let SignedCheckpoint { number, at_ms, events, breaks, document } = signed.clone();
    pb::SignedCheckpoint { number, at_ms, events, breaks, document }
}

pub(crate) fn signed_from(signed: Option<pb::SignedCheckpoint>) -> Result<SignedCheckpoint, Error> {
    let pb::SignedCheckpoint { number, at_ms, events, breaks, document } = signed.ok_or_else(|| malformed("signed"))?;
    Ok(SignedCheckpoint { number, at_ms, events, breaks, document })
}

pub(crate) fn status_to(status: NotaryStatus) -> pb::NotaryResponse {
    pb::NotaryResponse {
        site: status.site.to_string(),
        at_ms: status.at_ms,
        has_key: status.has_key,
        events_in_trees: status.events.0,
        events_in_log: status.events.1,
        latest: status.latest.as_ref().map(signed_to),
        exported: status.exported,
        trouble: status.trouble,
    }
}

pub(crate) fn status_from(status: pb::NotaryResponse) -> Result<NotaryStatus, Error> {
    Ok(NotaryStatus {
        site: site(&status.site)?,
        at_ms: status.at_ms,
        has_key: status.has_key,
        events: (status.events_in_trees, status.events_in_log),
        latest: status.latest.map(|latest| signed_from(Some(latest))).transpose()?,
        exported: status.exported,
        trouble: status.trouble,
    })
}

pub(crate) fn sealed_to(sealed: LogSealing) -> pb::SealedResponse {
    let partition = |sealed: SealedPartition| pb::SealedPartition {
        ranges: sealed.ranges,
        bytes: sealed.bytes,
        sealed_to: sealed.sealed_to.0,
        log_begin: sealed.log_begin.0,
        log_end: sealed.log_end.0,
    };
    let partitions = sealed.partitions.into_iter().map(partition).collect();
    pb::SealedResponse { site: sealed.site.to_string(), partitions, trouble: sealed.trouble }
}

pub(crate) fn sealed_from(sealed: pb::SealedResponse) -> Result<LogSealing, Error> {
    let partition = |(partition, sealed): (Partition, pb::SealedPartition)| SealedPartition {
        partition,
        ranges: sealed.ranges,
        bytes: sealed.bytes,
        sealed_to: Offset(sealed.sealed_to),
        log_begin: Offset(sealed.log_begin),
        log_end: Offset(sealed.log_end),
    };
    let partitions = (0..).map(Partition).zip(sealed.partitions).map(partition).collect();
    Ok(LogSealing { site: site(&sealed.site)?, partitions, trouble: sealed.trouble })
}
