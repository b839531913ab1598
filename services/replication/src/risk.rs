//! What is acknowledged here and not known to be durable at a peer: measured, and listed.

use crate::{
    follow::Followed,
    named::named,
    reached::Totals,
    send::{Here, Sending},
};
use cairn_archive::{Offset, Partition, Position};
use cairn_service_api::{
    Error,
    replication::{AtRisk, Risk},
};
use cairn_store_api::LogRecord;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 256 << 10;

/// What a peer is not known to have.
///
/// # Errors
/// The log's.
pub(crate) async fn measure(here: &Here, peer: &Sending) -> Result<Risk, Error> {
    let mut risk = Risk::default();
    for followed in here.followed.iter() {
        let Totals { events, instances, bytes } = {
            let sent = peer.sent(followed.place.partition);
            let reached = followed.reached();
            reached.beyond(&sent, &(peer.site.clone(), peer.life(&reached)))
        };
        if events == 0 {
            continue;
        }
        (risk.events, risk.instances, risk.bytes) =
            (risk.events + events, risk.instances + instances, risk.bytes + bytes);
        if let Some(oldest) = oldest(here, peer, followed).await? {
            risk.oldest_ms = Some(risk.oldest_ms.map_or(oldest, |other| other.min(oldest)));
        }
    }
    Ok(risk)
}

/// When the oldest event of a partition that a peer is not known to have was acknowledged.
async fn oldest(here: &Here, peer: &Sending, followed: &Followed) -> Result<Option<u64>, Error> {
    let mut from = peer.sent(followed.place.partition).to;
    loop {
        let batch = here.log.read(followed.place.partition, from, READ_RECORDS, READ_BYTES).await?;
        let Some(last) = batch.records.last() else { return Ok(None) };
        from = last.offset.next();
        if let Some(record) = batch.records.iter().find(|record| !peer.has(followed, record)) {
            return Ok(Some(record.appended_at_ms));
        }
    }
}

/// What a peer is not known to have, one after the other.
pub(crate) fn list(here: Arc<Here>, peer: Arc<Sending>) -> impl Stream<Item = Result<AtRisk, Error>> + Send + 'static {
    let partitions = (0..here.log.partitions()).map(Partition);
    stream::iter(partitions).flat_map(move |partition| list_partition(here.clone(), peer.clone(), partition))
}

fn list_partition(
    here: Arc<Here>,
    peer: Arc<Sending>,
    partition: Partition,
) -> impl Stream<Item = Result<AtRisk, Error>> + Send + 'static {
    let from = peer.sent(partition).to;
    let batches = stream::try_unfold(from, move |from: Offset| {
        let (here, peer) = (here.clone(), peer.clone());
        async move {
            let Some(followed) = here.followed.get(usize::from(partition.0)) else { return Ok(None) };
            let batch = here.log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
            let Some(last) = batch.records.last() else { return Ok::<_, Error>(None) };
            let next = last.offset.next();
            let lacking = batch.records.iter().filter(|record| !peer.has(followed, record));
            let listed: Vec<_> = lacking.map(|record| at_risk(followed, record)).collect();
            Ok(Some((stream::iter(listed.into_iter().map(Ok)), next)))
        }
    });
    batches.try_flatten()
}

fn at_risk(followed: &Followed, record: &LogRecord) -> AtRisk {
    let place = &followed.place;
    let (envelope, named) = (&record.record.envelope, named(&record.record));
    AtRisk {
        position: Position {
            site: place.site.clone(),
            incarnation: place.lives.at(place.partition, record.offset),
            partition: place.partition,
            offset: record.offset,
        },
        acknowledged_at_ms: record.appended_at_ms,
        event: envelope.id,
        kind: envelope.kind.to_string(),
        study_instance_uid: envelope.study_instance_uid.clone(),
        bytes: named.objects.iter().map(|object| object.length).sum(),
        sop_instance_uid: named.sop_instance_uid,
    }
}
