//! Which version of an instance its requester stored last. Only asked where there are several: the index knows who stored a
//! version first, and the log who sent its bytes again.

use super::judge::StoredLast;
use cairn_archive::{
    EventId, Position,
    events::{Event, InstanceReceivedAgain, InstanceStored, Receipt},
    fold::EventOrder,
};
use cairn_dicom::Uid;
use cairn_service_api::{Error, ErrorKind, Index, digests::FoldedEvent};
use cairn_store_api::EventLog;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Events asked about by one call.
const AT_ONCE: usize = 512;
/// Reads of the log at once.
const READS_AT_ONCE: usize = 8;

/// Somebody sent a version.
struct Sent {
    order: EventOrder,
    instance: (Uid, Uid),
    version: EventId,
}

/// What one requester stored of one study.
#[derive(Default)]
pub(super) struct OfStudy {
    /// By series and SOP Instance UID.
    last: HashMap<(Uid, Uid), Sent>,
    /// Of these something is not known.
    unknown: HashSet<(Uid, Uid)>,
}

impl OfStudy {
    /// The version that the requester sent last, and when in the order of events.
    pub(super) fn last(&self, instance: &(Uid, Uid)) -> (StoredLast, Option<&EventOrder>) {
        match self.last.get(instance) {
            _ if self.unknown.contains(instance) => (StoredLast::Unknown, None),
            Some(sent) => (StoredLast::Version(sent.version), Some(&sent.order)),
            None => (StoredLast::Nothing, None),
        }
    }

    fn include(&mut self, sent: Sent) {
        let known = self.last.get(&sent.instance);
        if known.is_none_or(|known| known.order < sent.order) {
            self.last.insert(sent.instance.clone(), sent);
        }
    }
}

/// Reads what `requester` stored of the instances of a study.
///
/// # Errors
/// The index's or the log's.
pub(super) async fn of_study(
    index: &dyn Index,
    log: &Arc<dyn EventLog>,
    (tenant, requester): (&str, &str),
    study: &Uid,
    instances: &HashSet<(Uid, Uid)>,
) -> Result<OfStudy, Error> {
    let mut of_study = OfStudy::default();
    let stored = Event::InstanceStored(Default::default()).kind();
    let again = Event::InstanceReceivedAgain(Default::default()).kind();
    let mut events: Vec<FoldedEvent> = Vec::new();
    let mut all = index.study_events(tenant, study, Vec::new()).await?;
    while let Some(event) = all.next().await.transpose()? {
        let of_instance = event.about.as_ref().is_some_and(|about| instances.contains(about));
        if event.kind == again || event.kind == stored && of_instance {
            events.push(event);
        }
    }
    for some in events.chunks(AT_ONCE) {
        let ids = some.iter().map(|event| event.event).collect();
        let placed: Vec<FoldedEvent> = index.study_events(tenant, study, ids).await?.try_collect().await?;
        let (placed, nowhere): (Vec<_>, Vec<_>) = placed.into_iter().partition(|event| event.position.is_some());
        of_study.unknown.extend(nowhere.into_iter().filter_map(|event| event.about));
        let reads: Vec<_> =
            placed.into_iter().filter_map(|event| event.position).map(|at| sent(log.clone(), at, requester)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(sent) = reads.next().await {
            if let Some(sent) = sent?.filter(|sent| instances.contains(&sent.instance)) {
                of_study.include(sent);
            }
        }
    }
    Ok(of_study)
}

/// What an event says that the requester sent, if it does.
async fn sent(log: Arc<dyn EventLog>, at: Position, requester: &str) -> Result<Option<Sent>, Error> {
    let batch = log.read(at.partition, at.offset, 1, 1).await?;
    let record = batch.records.into_iter().next().filter(|record| record.offset == at.offset);
    let record = record.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the log lacks an event that was folded"))?.record;
    let order = EventOrder::of(&record.envelope);
    let by_requester =
        |receipt: &Option<Receipt>| receipt.as_ref().is_some_and(|receipt| receipt.calling_ae_title == requester);
    let Ok(event) = Event::decode(&record.envelope.kind, record.payload) else { return Ok(None) };
    let (series, instance, version) = match event {
        Event::InstanceStored(event) if by_requester(&event.receipt) => {
            let InstanceStored { series_instance_uid, sop_instance_uid, .. } = *event;
            (series_instance_uid, sop_instance_uid, order.id)
        }
        Event::InstanceReceivedAgain(event) if by_requester(&event.receipt) => {
            let InstanceReceivedAgain { series_instance_uid, sop_instance_uid, store_event_id, .. } = *event;
            let Ok(version) = EventId::from_slice(&store_event_id) else { return Ok(None) };
            (series_instance_uid, sop_instance_uid, version)
        }
        _ => return Ok(None),
    };
    let (Ok(series), Ok(instance)) = (series.parse(), instance.parse()) else { return Ok(None) };
    Ok(Some(Sent { order, instance: (series, instance), version }))
}
