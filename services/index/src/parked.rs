//! What is parked: listed, counted, and folded again by a build that may know better.

use crate::{
    answering::answering,
    manage,
    project::{BUILD, ParkedCount, is_repaired, partition_pk},
    rows::{Rows, malformed, prefix_range},
    service::Shared,
};
use cairn_archive::{
    Incarnation, Offset, Partition, Position,
    events::EVENT_TYPES,
    fold::Poison,
    index_rows::{PARKED, Parked, decode_parked, parked_prefix},
};
use cairn_service_api::{
    AnswerStream, Error,
    parked::{ParkedEvent, ParkedSelection},
};
use cairn_store_api::CkRange;
use std::sync::Arc;

/// Lists parked events, by partition of the log, study and event.
pub(crate) async fn run(shared: &Arc<Shared>, selection: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error> {
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let pinned = shared.pinned(None).await?;
        let rows = &pinned.rows;
        for partition in (0..shared.log.partitions()).map(Partition) {
            let mut parked = rows.parked(partition, selection.study.as_ref());
            while let Some(page) = parked.next(&shared).await? {
                for parked in page {
                    answers.give(told(&shared, partition, parked)).await?;
                }
            }
        }
        Ok(shared.was_there(&pinned).await?)
    }))
}

/// Parked events of a partition, without those whose repair another partition's projector folded.
struct ParkedPages {
    rows: Rows,
    partition: Partition,
    pages: crate::rows::Pages,
}

impl Rows {
    fn parked(&self, partition: Partition, study: Option<&(String, String)>) -> ParkedPages {
        let range = study.map_or_else(CkRange::default, |(tenant, uid)| prefix_range(&parked_prefix(tenant, uid)));
        ParkedPages { rows: self.clone(), partition, pages: self.pages(PARKED, partition_pk(partition), range) }
    }
}

impl ParkedPages {
    async fn next(&mut self, shared: &Shared) -> Result<Option<Vec<Parked>>, Error> {
        let Some(page) = self.pages.next().await? else { return Ok(None) };
        let mut all = Vec::with_capacity(page.len());
        for row in page {
            let parked = decode_parked(&row.value).map_err(malformed)?;
            let own = Partition::of_study(&parked.study_instance_uid, shared.log.partitions());
            if own == self.partition || !is_repaired(&self.rows, own, &parked).await? {
                all.push(parked);
            }
        }
        Ok(Some(all))
    }
}

fn told(shared: &Shared, partition: Partition, parked: Parked) -> ParkedEvent {
    let position = Position {
        site: shared.log.site().clone(),
        incarnation: Incarnation(u32::try_from(parked.stamp.0 >> 48).unwrap_or_default()),
        partition,
        offset: Offset(parked.stamp.0 & ((1 << 48) - 1)),
    };
    ParkedEvent {
        position,
        event: parked.order.id,
        event_type: parked.kind,
        happened_at_ms: parked.order.hlc.wall_ms,
        reason: parked.why.code().to_owned(),
        explanation: parked.why.to_string(),
        tenant: parked.tenant,
        study_instance_uid: parked.study_instance_uid,
        build: parked.build,
    }
}

/// How many events are parked and how many studies are incomplete for it.
pub(crate) async fn count(shared: &Shared, counts: &[ParkedCount]) -> Result<(u64, u64), Error> {
    let mut total = (counts.iter().map(|count| count.events).sum(), counts.iter().map(|count| count.studies).sum());
    let rows = shared.serving().rows.clone();
    for (partition, _) in (0..).map(Partition).zip(counts).filter(|(_, count)| count.misplaced > 0) {
        let (mut events, mut studies) = (0_u64, std::collections::BTreeSet::new());
        let (mut pages, known) = (rows.parked(partition, None), counts.get(usize::from(partition.0)));
        while let Some(page) = pages.next(shared).await? {
            events += page.len() as u64;
            studies.extend(page.into_iter().map(|parked| (parked.tenant, parked.study_instance_uid)));
        }
        let known = known.copied().unwrap_or_default();
        total.0 = total.0 + events - known.events.min(total.0);
        total.1 = total.1 + studies.len() as u64 - known.studies.min(total.1);
    }
    Ok(total)
}

/// Whether this build may fold what another one parked: it knows the type now, or it is another build.
fn may_fold(parked: &Parked) -> bool {
    match parked.why {
        Poison::UnknownType => EVENT_TYPES.contains(&parked.kind.as_str()),
        Poison::WrongPartition => false,
        _ => parked.build != BUILD,
    }
}

/// Folds the log anew, beside the serving index, when that has events parked which this build may fold. Without an
/// operator; queries go on, and see them once the new generation serves.
pub(crate) async fn resume(shared: Arc<Shared>) {
    match resumable(&shared).await {
        Ok(false) => return,
        Ok(true) => tracing::info!("events were parked by another build and are folded again"),
        Err(error) => return tracing::warn!(%error, "parked events can't be looked at"),
    }
    if let Err(error) = manage::fold_again(&shared).await {
        tracing::warn!(%error, "parked events were not folded again: the next start tries it");
    }
}

async fn resumable(shared: &Shared) -> Result<bool, Error> {
    let rows = shared.serving().rows.clone();
    for partition in (0..shared.log.partitions()).map(Partition) {
        let mut pages = rows.parked(partition, None);
        while let Some(page) = pages.next(shared).await? {
            if page.iter().any(may_fold) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
