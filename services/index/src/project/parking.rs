//! Events that can't be folded: their rows, and what takes them out of the list again.

use super::{
    batch::{self, Batch, Checked, Retrial, Settled, ToFold},
    generation::Project,
    write::Changes,
};
use crate::{
    metrics,
    rows::{Rows, malformed, prefix_range},
};
use bytes::Bytes;
use cairn_archive::{
    Incarnation, Offset, Partition,
    fold::{Poison, Stamp},
    index_rows::{
        PARKED, Parked, REPAIRS, RowChange, decode_parked, encode_parked, parked_ck, parked_prefix, repair_ck,
        repairs_prefix,
    },
};
use cairn_service_api::Error;
use cairn_store_api::{CkRange, LogRecord};
use std::collections::{BTreeMap, BTreeSet};

/// What is parked of one partition of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParkedCount {
    /// Events.
    pub(crate) events: u64,
    /// Of them those that stand in another partition than their study's: their repairs are noticed by who asks.
    pub(crate) misplaced: u64,
    /// Studies that they are of.
    pub(crate) studies: u64,
}

pub(crate) fn partition_pk(partition: Partition) -> Bytes {
    Bytes::copy_from_slice(&partition.0.to_be_bytes())
}

/// Counts what is parked.
pub(crate) async fn count(rows: &Rows, partition: Partition) -> Result<ParkedCount, Error> {
    let mut count = ParkedCount::default();
    let mut last = Bytes::new();
    let mut pages = rows.pages(PARKED, partition_pk(partition), CkRange::default());
    while let Some(page) = pages.next().await? {
        for row in page {
            let study = study_of(&row.ck);
            count.events += 1;
            // A row of another version of the fold is dropped soon, with its generation.
            count.misplaced += u64::from(decode_parked(&row.value).is_ok_and(|parked| may_be_misplaced(parked.why)));
            count.studies += u64::from(study != last);
            last = study;
        }
    }
    Ok(count)
}

/// Whether it may stand in another partition than its repair: what can't be read is of no study, wherever it stands.
fn may_be_misplaced(why: Poison) -> bool {
    matches!(why, Poison::WrongPartition | Poison::Unreadable)
}

/// The part of a parked event's key that is its study's.
fn study_of(ck: &Bytes) -> Bytes {
    ck.slice(..ck.len().saturating_sub(16))
}

/// Whether a repair settled an event that stands in a partition.
pub(crate) async fn is_repaired(rows: &Rows, partition: Partition, parked: &Parked) -> Result<bool, Error> {
    let range = prefix_range(&repairs_prefix(&parked.order.id));
    Ok(!rows.scan(REPAIRS, &partition_pk(partition), &range, 1).await?.rows.is_empty())
}

/// Adds the events that repairs of this batch want folded again. Only what is parked here is: anything else was folded, or
/// comes later.
pub(crate) async fn add_retrials(project: &Project, partition: Partition, batch: &mut Batch) -> Result<(), Error> {
    for Retrial { key, event, stamp } in std::mem::take(&mut batch.retrials) {
        let ck = parked_ck(&key.tenant, &key.study_instance_uid, &event);
        let Some(row) = project.rows.get(PARKED, &partition_pk(partition), &ck).await? else { continue };
        let parked = decode_parked(&row).map_err(malformed)?;
        let Some(record) = record_at(project, partition, parked.stamp).await? else { continue };
        let (envelope, payload) = (record.record.envelope, record.record.payload);
        if envelope.id != event {
            continue;
        }
        match batch::check(&envelope, payload, partition, project.log.partitions()) {
            Ok(Checked::OfStudy(again)) => {
                batch.add(key, ToFold { order: parked.order, stamp, event: again, again: true });
            }
            // Nothing asks that one about patients is folded again: that is of no study.
            Ok(Checked::OfNoStudy(_) | Checked::AboutPatients(_)) => {
                batch.outcome.settled.push(Settled { key, event, by: None })
            }
            Err(why) => tracing::warn!(%event, %why, "an event that is tried again stays parked"),
        }
    }
    Ok(())
}

async fn record_at(project: &Project, partition: Partition, stamp: Stamp) -> Result<Option<LogRecord>, Error> {
    let offset = Offset(stamp.0 & ((1 << 48) - 1));
    let incarnation = Incarnation(u32::try_from(stamp.0 >> 48).unwrap_or_default());
    if incarnation != project.log.incarnation() {
        return Ok(None);
    }
    Ok(project.log.read(partition, offset, 1, 1).await?.records.into_iter().next())
}

/// Rows of parked events, and of those that are not parked any more; gives what is parked then, of `count` before.
pub(crate) async fn park(
    rows: &Rows,
    partition: Partition,
    mut count: ParkedCount,
    batch: &Batch,
    changes: &mut Changes,
) -> Result<ParkedCount, Error> {
    let pk = partition_pk(partition);
    let mut touched: BTreeMap<Bytes, Study> = BTreeMap::new();
    let repairs: BTreeSet<_> = batch.outcome.settled.iter().map(|settled| settled.event).collect();
    for parked in &batch.outcome.parked {
        let (id, tenant, study) = (parked.order.id, &parked.tenant, &parked.study_instance_uid);
        if repairs.contains(&id) || is_repaired(rows, partition, parked).await? {
            continue;
        }
        tracing::warn!(event = %id, kind = %parked.kind, why = %parked.why, "an event can't be folded and is parked");
        metrics::parked();
        let of = touched.entry(parked_prefix(tenant, study)).or_default();
        of.parked.insert(parked_ck(tenant, study, &id), parked.why);
        let row = encode_parked(parked);
        changes.derived.push(RowChange::put(PARKED, pk.clone(), parked_ck(tenant, study, &id), row));
    }
    for Settled { key, event, by } in &batch.outcome.settled {
        if let Some(by) = by {
            changes.derived.push(RowChange::put(REPAIRS, pk.clone(), repair_ck(event, by), Bytes::new()));
        }
        let ck = parked_ck(&key.tenant, &key.study_instance_uid, event);
        if rows.get(PARKED, &pk, &ck).await?.is_some() {
            let of = touched.entry(parked_prefix(&key.tenant, &key.study_instance_uid)).or_default();
            of.settled.insert(ck.clone());
            changes.derived.push(RowChange::delete(PARKED, pk.clone(), ck));
        }
    }
    for (prefix, of) in touched {
        of.count(rows, &pk, &prefix, &mut count).await?;
    }
    Ok(count)
}

/// What a batch does to a study's parked events.
#[derive(Default)]
struct Study {
    parked: BTreeMap<Bytes, Poison>,
    settled: BTreeSet<Bytes>,
}

impl Study {
    async fn count(&self, rows: &Rows, pk: &Bytes, prefix: &[u8], count: &mut ParkedCount) -> Result<(), Error> {
        for (ck, why) in &self.parked {
            if rows.get(PARKED, pk, ck).await?.is_none() {
                count.events += 1;
                count.misplaced += u64::from(may_be_misplaced(*why));
            }
        }
        count.events = count.events.saturating_sub(self.settled.len() as u64);
        // As many as go away and one more say whether any stays.
        let there = rows.scan(PARKED, pk, &prefix_range(prefix), self.settled.len() + 1).await?.rows;
        let stays = !self.parked.is_empty() || there.iter().any(|row| !self.settled.contains(&row.ck));
        match (there.is_empty(), stays) {
            (true, true) => count.studies += 1,
            (false, false) => count.studies = count.studies.saturating_sub(1),
            (true, false) | (false, true) => {}
        }
        Ok(())
    }
}
